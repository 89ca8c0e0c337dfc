//! A confirmed message per request.

use anyhow::Context;
use firstcome_broker::{
    BrokerArgs,
    connect::{self, Connection},
    publish::{Address, ConfirmedPublisher, MessageType, Verdict},
};
use firstcome_contract::job::JobKind;
use firstcome_workers::crew;
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};

/// Of the jobs that the messages carry.
pub(super) const KIND: JobKind = JobKind::IssueCoupon;
/// More than there are connections.
const BACKLOG: usize = 4_096;

/// Many messages in flight on one channel, which beats several.
pub(super) struct Publisher {
    inbox: mpsc::Sender<(Vec<u8>, oneshot::Sender<()>)>,
    connection: Connection,
}

impl Publisher {
    /// Publishes to one of the system's own lines, which nobody serves.
    pub(super) async fn start(broker: &BrokerArgs, pool: &PgPool) -> anyhow::Result<Self> {
        crew::make_lines(broker, pool).await?;
        let lines = crew::lines(pool).await?;
        let line =
            lines.into_iter().find(|line| line.family == KIND.family()).context("no line")?;
        let connection = connect::connect(broker, "firstcome-bench publish").await?;
        let publisher = ConfirmedPublisher::open(&connection).await?;
        let (inbox, submissions) = mpsc::channel(BACKLOG);
        let exchange = line.exchange(&broker.queue_namespace);
        tokio::spawn(run(publisher, submissions, exchange, line.routing_key()));
        Ok(Self { inbox, connection })
    }

    /// Returns when the broker has confirmed the message; `None` if it does not.
    pub(super) async fn publish(&self, message: Vec<u8>) -> Option<()> {
        let (confirm, confirmed) = oneshot::channel();
        self.inbox.send((message, confirm)).await.ok()?;
        confirmed.await.ok()
    }

    pub(super) async fn close(&self) {
        connect::close(&self.connection).await;
    }
}

async fn run(
    mut publisher: ConfirmedPublisher<oneshot::Sender<()>>,
    mut submissions: mpsc::Receiver<(Vec<u8>, oneshot::Sender<()>)>,
    exchange: String,
    key: String,
) {
    let mut arrived = Vec::new();
    loop {
        tokio::select! {
            verdicts = publisher.verdicts() => for (confirm, verdict) in verdicts {
                // Whoever is not confirmed learns it by the drop.
                if matches!(verdict, Verdict::Confirmed) {
                    let _ = confirm.send(());
                }
            },
            count = submissions.recv_many(&mut arrived, BACKLOG) => {
                if count == 0 {
                    return;
                }
                let address = Address::Exchange { exchange: &exchange, key: &key };
                for (message, confirm) in arrived.drain(..) {
                    publisher.publish(address, MessageType::Jobs, message, confirm);
                }
            }
        }
    }
}
