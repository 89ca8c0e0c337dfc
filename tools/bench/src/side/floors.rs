//! The floors: what HTTP alone costs, and what a confirmed message per request costs.

use std::sync::Arc;

use anyhow::Context;
use axum::{extract::State, http::header, response::IntoResponse, response::Response};
use firstcome_api::http::{
    auth::Caller,
    extract::{Body, PathId},
};
use firstcome_broker::{
    BrokerArgs,
    connect::{self, Connection},
    publish::{Address, ConfirmedPublisher, MessageType, Verdict},
};
use firstcome_contract::{
    ids::CouponId,
    job::{Envelope, IssueCoupon, Job, JobKind},
};
use firstcome_workers::crew;
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};

use super::{Desk, Failed, done};

const KIND: JobKind = JobKind::IssueCoupon;
/// More than there are connections.
const BACKLOG: usize = 4_096;

/// Says hello, to everybody.
pub(super) async fn hello() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], r#"{"hello":"world"}"#).into_response()
}

/// Puts the job that the API would make into a queue, as a message of its own.
pub(super) async fn publish(
    State(desk): State<Arc<Desk>>,
    caller: Caller,
    PathId(coupon): PathId,
    body: Body,
) -> Result<Response, Failed> {
    body.fields.finish()?;
    let id = desk.job_id(KIND);
    let job = Job::IssueCoupon(IssueCoupon { coupon_id: CouponId::new(coupon) });
    let envelope = Envelope { id, user_id: caller.user_id, idempotency: None, trace: None, job };
    let mut message = Vec::with_capacity(192);
    envelope.encode(&mut message).map_err(|_| Failed::GaveUp)?;
    let publisher = desk.publisher.as_ref().ok_or(Failed::GaveUp)?;
    let (confirm, confirmed) = oneshot::channel();
    publisher.inbox.send((message, confirm)).await.map_err(|_| Failed::GaveUp)?;
    confirmed.await.map_err(|_| Failed::GaveUp)?;
    Ok(done(id, KIND, "queued", ()))
}

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
        let connection = connect::connect(&broker.amqp_url, "firstcome-bench publish").await?;
        let publisher = ConfirmedPublisher::open(&connection).await?;
        let (inbox, submissions) = mpsc::channel(BACKLOG);
        let exchange = line.exchange(&broker.queue_namespace);
        tokio::spawn(run(publisher, submissions, exchange, line.routing_key()));
        Ok(Self { inbox, connection })
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
