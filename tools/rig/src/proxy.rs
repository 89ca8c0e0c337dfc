//! A TCP proxy whose connections can be cut, so that a test takes a service away from one system
//! under test while the others keep it.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
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
    /// Whether any connection stays open.
    open: bool,
    /// Whether new connections are let in.
    welcomes: bool,
    /// Connections of earlier generations are frozen.
    generation: u64,
    /// What the service is asked comes so late.
    delay: Duration,
}

impl Proxy {
    /// Starts forwarding to `target` (`host:port`).
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let gate = Gate { open: true, welcomes: true, generation: 0, delay: Duration::ZERO };
        let (gate, watched) = watch::channel(gate);
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

    /// Forwards again what [`Self::cut`] or [`Self::refuse`] stopped.
    pub fn restore(&self) {
        self.gate.send_modify(|gate| (gate.open, gate.welcomes) = (true, true));
    }

    /// Freezes every connection that there is: open, but nothing comes through any more, as behind
    /// a firewall that lost its state. New ones work.
    pub fn freeze(&self) {
        self.gate.send_modify(|gate| gate.generation += 1);
    }

    /// From now on every request takes so long, whatever it asks for.
    pub fn slow_down(&self, delay: Duration) {
        self.gate.send_modify(|gate| gate.delay = delay);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: String, gate: watch::Receiver<Gate>) {
    while let Ok((client, _)) = listener.accept().await {
        let (target, mut gate) = (target.clone(), gate.clone());
        tokio::spawn(async move {
            let Gate { open, welcomes, generation, .. } = *gate.borrow_and_update();
            if !open || !welcomes {
                return;
            }
            let Ok(service) = TcpStream::connect(target).await else { return };
            // Latency as without the proxy.
            let _ = (client.set_nodelay(true), service.set_nodelay(true));
            let (mut answers, mut asks) = service.into_split();
            let (mut asked, mut answered) = client.into_split();
            let asking = ask(&mut asked, &mut asks, gate.clone());
            let answering = async {
                copy(&mut answers, &mut answered).await?;
                answered.shutdown().await
            };
            tokio::select! {
                // What has ended in one direction may go on in the other.
                _ = async { tokio::try_join!(asking, answering) } => return,
                _ = gate.wait_for(|gate| !gate.open || gate.generation > generation) => {}
            }
            // Frozen, unless it was cut: both ends stay open until it is.
            let _ = gate.wait_for(|gate| !gate.open).await;
        });
    }
}

async fn ask(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    gate: watch::Receiver<Gate>,
) -> io::Result<()> {
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let delay = gate.borrow().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
    }
}
