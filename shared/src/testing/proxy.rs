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
    gate: watch::Sender<Gate>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct Gate {
    open: bool,
    /// Whether new ones are.
    welcomes: bool,
    /// Connections of earlier generations are frozen.
    generation: u64,
}

impl Proxy {
    /// Starts forwarding to `target` (`host:port`).
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (gate, watched) = watch::channel(Gate { open: true, welcomes: true, generation: 0 });
        let accepting = tokio::spawn(accept(listener, target, watched));
        Ok(Self { address, gate, accepting })
    }

    /// Where to connect instead of the target.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every connection and every new one: to its clients the service is down.
    pub fn cut(&self) {
        self.gate.send_modify(|gate| gate.open = false);
    }

    /// Closes every new connection; those that there are go on.
    pub fn refuse(&self) {
        self.gate.send_modify(|gate| gate.welcomes = false);
    }

    /// Forwards again.
    pub fn restore(&self) {
        self.gate.send_modify(|gate| (gate.open, gate.welcomes) = (true, true));
    }

    /// Freezes every connection that there is: open, but nothing comes through any more, as behind
    /// a firewall that lost its state. New ones work.
    pub fn freeze(&self) {
        self.gate.send_modify(|gate| gate.generation += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: String, gate: watch::Receiver<Gate>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let (target, mut gate) = (target.clone(), gate.clone());
        tokio::spawn(async move {
            let Gate { open, welcomes, generation } = *gate.borrow_and_update();
            if !open || !welcomes {
                return;
            }
            let Ok(mut service) = TcpStream::connect(target).await else { return };
            // Latency as without the proxy.
            let _ = (client.set_nodelay(true), service.set_nodelay(true));
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut service) => return,
                _ = gate.wait_for(|gate| !gate.open || gate.generation > generation) => {}
            }
            // Frozen, unless it was cut: both ends stay open until it is.
            let _ = gate.wait_for(|gate| !gate.open).await;
        });
    }
}
