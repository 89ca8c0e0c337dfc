//! Which address a request comes from: its peer's, or what proxies that we trust say of who is before them.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};

use crate::config::Network;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who is at the other end of a request's connection; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The address that a request comes from: of the chain in `X-Forwarded-For`, to which each proxy adds who came to it,
/// the last one that is no proxy of ours. What stands before it anybody may have written, as all of it, if
/// the peer is no proxy of ours. `None` where the chain names nobody else than proxies of ours: all the world may come
/// so, if one of them adds nobody.
#[must_use]
pub fn of(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> Option<IpAddr> {
    let is_ours = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let mut address = peer.to_canonical();
    // Several headers are one list.
    let mut hops = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .rev()
        .flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    while is_ours(address) {
        address = hops.next().and_then(read)?;
    }
    Some(address)
}

/// One address, as proxies write it: some add the port.
fn read(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim();
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || hop.parse().ok().map(|address: SocketAddr| address.ip());
    let address: IpAddr = hop.parse().ok().or_else(with_port).or_else(bracketed)?;
    Some(address.to_canonical())
}

/// What is counted together: an address, or of IPv6 the network of which its owner has all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6(
                    [a, b, c, d].into_iter().fold(0, |bits, part| bits << 16 | u64::from(part)),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// Empty where nobody is named.
    fn of(peer: &str, forwarded: &[&[u8]]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(value).unwrap());
        }
        let proxies = ["10.0.0.0/8", "fd00::/8", "192.0.2.1"].map(|proxy| proxy.parse().unwrap());
        super::of(peer.parse().unwrap(), &headers, &proxies)
            .map_or_else(String::new, |address| address.to_string())
    }

    #[test]
    fn an_address_is_believed_as_far_as_our_proxies_vouch_for_it() {
        for (peer, forwarded, address) in [
            // Who is no proxy of ours may write what they like.
            ("203.0.113.9", &[&b"198.51.100.1"[..]][..], "203.0.113.9"),
            ("203.0.113.9", &[b"10.0.0.1"], "203.0.113.9"),
            ("10.0.0.1", &[b"198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"198.51.100.7, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"10.9.9.9, 198.51.100.1"], "198.51.100.1"),
            // A chain of ours.
            ("10.0.0.1", &[b"198.51.100.7,198.51.100.1,10.0.0.2,192.0.2.1"], "198.51.100.1"),
            ("192.0.2.1", &[b"198.51.100.1", b"10.0.0.2"], "198.51.100.1"),
            ("192.0.2.2", &[b"198.51.100.1", b"10.0.0.2"], "192.0.2.2"),
            ("fd00::1", &[b"2001:db8::1, fd00::2"], "2001:db8::1"),
            // All of it is ours, or nothing is told.
            ("10.0.0.1", &[b"10.0.0.3, 10.0.0.2"], ""),
            ("10.0.0.1", &[], ""),
            ("10.0.0.1", &[b""], ""),
            // As others write it.
            ("::ffff:10.0.0.1", &[b"::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b" 198.51.100.1:4711\t"], "198.51.100.1"),
            ("10.0.0.1", &[b"[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &[b"[2001:db8::1]"], "2001:db8::1"),
            // What is no address ends the chain.
            ("10.0.0.1", &[b"198.51.100.1, unknown"], ""),
            ("10.0.0.1", &[b"198.51.100.1, , 10.0.0.2"], ""),
            ("10.0.0.1", &[b"\xff, 10.0.0.2"], ""),
            ("10.0.0.1", &[b"198.51.100.256"], ""),
        ] {
            assert_eq!(of(peer, forwarded), address, "{peer} {forwarded:?}");
        }
    }

    #[test]
    fn addresses_of_one_owner_are_counted_together() {
        let source = |address: &str| Source::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:198.51.100.1"), source("198.51.100.1"));
        assert_ne!(source("198.51.100.1"), source("198.51.100.2"));
        assert_ne!(source("::ffff:198.51.100.1"), source("::ffff:198.51.100.2"));
    }

    proptest! {
        #[test]
        fn whatever_a_client_writes_before_our_proxies_says_nothing(
            written in prop::collection::vec("[ -~]{0,30}", 0..4),
            client: u32,
            ours in prop::collection::vec(0u32..1 << 24, 0..4),
        ) {
            let client = Ipv4Addr::from_bits(client);
            prop_assume!(client.octets()[0] != 10 && client != Ipv4Addr::new(192, 0, 2, 1));
            let ours = ours.into_iter().map(|host| Ipv4Addr::from_bits(10 << 24 | host).to_string());
            let chain: Vec<String> =
                written.into_iter().chain([client.to_string()]).chain(ours).collect();
            let chain = chain.join(",");
            prop_assert_eq!(of("10.0.0.1", &[chain.as_bytes()]), client.to_string());
        }

        #[test]
        fn every_address_reads_back(v4: u32, v6: u128, port: u16) {
            let v6 = Ipv6Addr::from_bits(v6);
            for address in [IpAddr::V4(Ipv4Addr::from_bits(v4)), IpAddr::V6(v6)] {
                let known = Some(address.to_canonical());
                prop_assert_eq!(read(address.to_string().as_bytes()), known);
                let with_port = SocketAddr::new(address, port).to_string();
                prop_assert_eq!(read(with_port.as_bytes()), known);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(hop: Vec<u8>) {
            let _ = read(&hop);
        }
    }
}
