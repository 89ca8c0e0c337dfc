//! A TCP proxy whose connections can be cut, so that a test takes a service away from one system
//! under test while the others keep it.

use std::{io, net::SocketAddr};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Forwards a loopback port to a service.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts forwarding to `target` (`host:port`).
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (open, gate) = watch::channel(true);
        let accepting = tokio::spawn(accept(listener, target, gate));
        Ok(Self { address, open, accepting })
    }

    /// Where to connect instead of the target.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection and every new one: to its clients the service is down.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Forwards again.
    pub fn restore(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: String, gate: watch::Receiver<bool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let (target, mut gate) = (target.clone(), gate.clone());
        tokio::spawn(async move {
            if *gate.borrow_and_update()
                && let Ok(mut service) = TcpStream::connect(target).await
            {
                // Latency as without the proxy.
                let _ = (client.set_nodelay(true), service.set_nodelay(true));
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut service) => {}
                    _ = gate.wait_for(|open| !open) => {}
                }
            }
        });
    }
}
