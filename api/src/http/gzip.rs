//! Answers in fewer bytes, for who takes them so: lists and documents, which are long and repeat themselves. Not what is
//! asked for by everybody at noon (submissions, polls, streams of events), nor what is short.
//!
//! What compresses secrets together with what an attacker put in tells the secrets by its length (BREACH). There
//! are none in these answers, and who may read them is told by a token that no page can have a browser send along.
//!
//! gzip alone, which every client has: at the speed that is needed here brotli is hardly smaller.

use std::{
    io::{self, Write},
    sync::LazyLock,
};

use axum::{
    body::Bytes,
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, Version, header},
};
use flate2::{Compression, write::GzEncoder};
use quick_cache::sync::Cache;
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer,
        predicate::{And, Predicate, SizeAbove},
    },
};

use super::etag;

/// Shorter answers fit into a packet as they are, in bytes.
const WORTH_IT: u16 = 1_024;
/// Half the processor's time of the usual 6, for a tenth more bytes.
const LEVEL: u32 = 3;
/// The most lists that are kept compressed: each limit's first pages, and what changed of late. A few KiB each.
const MAX_KEPT: usize = 1_024;

pub(crate) const GZIP: HeaderValue = HeaderValue::from_static("gzip");
pub(crate) const ACCEPT_ENCODING: HeaderValue = HeaderValue::from_static("accept-encoding");

type Untagged = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// Compresses the long answers of lists that nobody keeps, as they are sent: nothing is collected, so a table of any
/// length flows. What has an `ETag` is left alone, since that names the bytes.
pub(crate) fn lists() -> CompressionLayer<And<SizeAbove, Untagged>> {
    let untagged: Untagged = |_, _, headers, _| !headers.contains_key(header::ETAG);
    let level = CompressionLevel::Precise(LEVEL.cast_signed());
    CompressionLayer::new().quality(level).compress_when(SizeAbove::new(WORTH_IT).and(untagged))
}

/// Bytes that are sent compressed, with the tag that names them.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    pub(crate) tag: Option<HeaderValue>,
    pub(crate) bytes: Bytes,
}

/// The compressed form of a body that these headers ask for, if it is worth it. What many ask for is compressed once: it is
/// kept by the tag of what it was.
pub(super) fn packed(asked: &HeaderMap, tag: &HeaderValue, body: &Bytes) -> Option<Packed> {
    static KEPT: LazyLock<Cache<HeaderValue, Packed>> = LazyLock::new(|| Cache::new(MAX_KEPT));
    if body.len() < WORTH_IT.into() || !is_accepted(asked) {
        return None;
    }
    KEPT.get_or_insert_with(tag, || pack(body)).ok()
}

/// Compresses a body.
///
/// # Errors
/// None: it is written to memory.
pub(crate) fn pack(body: &[u8]) -> io::Result<Packed> {
    let mut packing = GzEncoder::new(Vec::new(), Compression::new(LEVEL));
    packing.write_all(body)?;
    let bytes = packing.finish()?;
    Ok(Packed { tag: etag::of_bytes(&bytes), bytes: bytes.into() })
}

/// Whether the client takes gzip, and likes nothing better of what there is (RFC 9110, section 12.5.3). Who says nothing
/// may take it, but need not be able to.
pub(crate) fn is_accepted(asked: &HeaderMap) -> bool {
    let values =
        asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for (name, weight) in values.flat_map(|value| value.split(',')).filter_map(weighted) {
        let known = match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => &mut gzip,
            "identity" => &mut identity,
            "*" => &mut any,
            _ => continue,
        };
        *known = Some(weight);
    }
    let gzip = gzip.or(any).unwrap_or_default();
    gzip > 0.0 && gzip >= identity.unwrap_or_default()
}

/// A coding and how much it is liked; nothing, if that is malformed.
fn weighted(coding: &str) -> Option<(&str, f32)> {
    let mut parts = coding.split(';');
    let name = parts.next()?.trim();
    let Some(parameter) = parts.next() else { return Some((name, 1.0)) };
    let (key, weight) = parameter.split_once('=')?;
    let weight = weight.trim().parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
    key.trim().eq_ignore_ascii_case("q").then_some((name, weight))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn accepts(values: &[&[u8]]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_bytes(value).unwrap());
        }
        is_accepted(&headers)
    }

    #[test]
    fn who_takes_gzip_says_so() {
        for good in [
            &b"gzip"[..],
            b"GZip",
            b"x-gzip",
            b"gzip, deflate, br, zstd",
            b"br;q=1.0, gzip;q=0.8, *;q=0.1",
            b"*",
            b"*;q=0.5, identity;q=0.1",
            b"gzip;q=0.001",
            b" deflate , gzip ; q=1 ",
            b"identity, gzip",
            b"nonsense;;=, gzip",
        ] {
            assert!(accepts(&[good]), "{}", String::from_utf8_lossy(good));
        }
        for bad in [
            &b""[..],
            b"identity",
            b"br",
            b"gzip;q=0",
            b"gzip;q=0.000, *",
            b"*;q=0",
            b"gzip;q=0.5, identity",
            b"gzip;q=2",
            b"gzip;q=-1",
            b"gzip;q=NaN",
            b"gzip;q",
            b"gzip;v=1",
            b"gzipped",
            b"\xffgzip",
        ] {
            assert!(!accepts(&[bad]), "{}", String::from_utf8_lossy(bad));
        }
        assert!(!accepts(&[]));
        assert!(accepts(&[b"br", b"gzip"]), "two headers are one list");
    }

    proptest! {
        #[test]
        fn whatever_is_packed_is_unpacked_whole(body: Vec<u8>) {
            let mut unpacked = Vec::new();
            let packed = pack(&body).unwrap();
            GzDecoder::new(&*packed.bytes).read_to_end(&mut unpacked).unwrap();
            prop_assert_eq!(unpacked, body);
        }

        #[test]
        fn no_header_makes_it_panic(value in "[ -~]{0,60}") {
            accepts(&[value.as_bytes()]);
        }
    }
}
