//! `firstcome-worker health`: whether the program of this container does its work, as its own address says. For the
//! image, which has no other client.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::ensure;
use clap::Args;
use firstcome_process::certificates::trusted;
use reqwest::Client;

/// The longest wait for an answer: whoever asks does so again every few seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the programs of this container listen, as far as that is configured.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Where a worker serves /health/ready.
    #[arg(long, env = "WORKER_ADDR")]
    pub worker_addr: Option<SocketAddr>,
    /// Where an API does.
    #[arg(long, env = "API_ADDR")]
    pub api_addr: Option<SocketAddr>,
}

/// Asks each address at which somebody listens, and prints the answer: all is well if there is one and each is ready.
///
/// # Errors
/// No address is configured.
#[expect(clippy::print_stdout, reason = "the line is what the command is for")]
pub async fn ask(args: &HealthArgs) -> anyhow::Result<ExitCode> {
    let addresses = [args.worker_addr, args.api_addr].into_iter().flatten();
    // Which port it is that was free, the log alone knows.
    let addresses: Vec<SocketAddr> = addresses.filter(|address| address.port() != 0).collect();
    ensure!(
        !addresses.is_empty(),
        "set WORKER_ADDR or API_ADDR to where the program listens, with its port"
    );
    let client = Client::builder().no_proxy().timeout(ANSWER_TIMEOUT);
    let client = client.tls_certs_only(trusted(None)?).build()?;
    let (mut lines, mut are_ready) = (Vec::new(), true);
    for address in addresses {
        let url = format!("http://{}/health/ready", reachable(address));
        let answer = match client.get(&url).send().await {
            // Of the two programs a container runs one.
            Err(error) if error.is_connect() => continue,
            Err(error) => Err(error),
            Ok(answer) => {
                let is_ready = answer.status().is_success();
                answer.text().await.map(|body| (is_ready, body))
            }
        };
        let (is_ready, body) = answer.unwrap_or_else(|error| (false, error.to_string()));
        are_ready &= is_ready;
        lines.push(format!("{url} is {}ready: {body}", if is_ready { "" } else { "not " }));
    }
    if lines.is_empty() {
        are_ready = false;
        lines.push("nobody listens at WORKER_ADDR or API_ADDR".to_owned());
    }
    println!("{}", lines.join("; "));
    Ok(ExitCode::from(u8::from(!are_ready)))
}

/// The address as this machine reaches it: who listens at all addresses does so on loopback, too.
fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback = if address.is_ipv4() {
        IpAddr::from(Ipv4Addr::LOCALHOST)
    } else {
        Ipv6Addr::LOCALHOST.into()
    };
    let ip = Some(address.ip()).filter(|ip| !ip.is_unspecified());
    SocketAddr::new(ip.unwrap_or(loopback), address.port())
}
