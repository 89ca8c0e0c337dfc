//! A TCP proxy whose connections can be cut, so that a test takes a service away from one system
//! under test while the others keep it.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
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
    /// What goes this way waits.
    blocked: Option<Way>,
}

/// A direction through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the clients to the service.
    Asks,
    /// From the service to its clients.
    Answers,
}

impl Proxy {
    /// Starts forwarding to `target` (`host:port`).
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(target: String) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let gate = Gate {
            open: true,
            welcomes: true,
            generation: 0,
            delay: Duration::ZERO,
            blocked: None,
        };
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

    /// Lets nothing through in this direction, on connections old and new, until [`Self::restore`].
    pub fn block(&self, way: Way) {
        self.gate.send_modify(|gate| gate.blocked = Some(way));
    }

    /// Forwards again what [`Self::cut`], [`Self::refuse`] or [`Self::block`] stopped.
    pub fn restore(&self) {
        self.gate.send_modify(|gate| {
            (gate.open, gate.welcomes, gate.blocked) = (true, true, None);
        });
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
            let asking = forward(&mut asked, &mut asks, Way::Asks, gate.clone());
            let answering = forward(&mut answers, &mut answered, Way::Answers, gate.clone());
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

async fn forward(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    way: Way,
    mut gate: watch::Receiver<Gate>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        // A proxy that is gone forwards nothing more: whoever waits is cut off above.
        let _ = gate.wait_for(|gate| gate.blocked != Some(way)).await;
        if read == 0 {
            return to.shutdown().await;
        }
        let delay = gate.borrow().delay;
        if way == Way::Asks && !delay.is_zero() {
            sleep(delay).await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
    }
}
