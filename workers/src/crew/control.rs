//! What a worker publishes into lines besides jobs: canaries and last messages, and jobs that get
//! another attempt. On a connection of its own: a broker with a memory alarm blocks those that
//! publish, and the lines must go on being consumed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use firstcome_broker::{
    BrokerArgs,
    connect::{self, Alarm, Alarms, Connection, SessionError},
    publish::{Address, ConfirmedPublisher, Headers, MessageType, Verdict},
};
use firstcome_contract::line::Line;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The most messages that wait for the connection; more are refused.
const MAX_WAITING: usize = 256;
/// The most messages that are published and not yet confirmed.
const MAX_IN_FLIGHT: usize = 64;
/// The longest wait for a confirm; nothing confirmed for so long ends the session.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);

/// The destination of a message.
#[derive(Debug)]
pub(crate) enum To {
    Queue(String),
    /// The line, if it takes jobs at present.
    Line {
        exchange: String,
        line: Line,
    },
}

struct Message {
    to: To,
    kind: MessageType,
    headers: Headers,
    body: Vec<u8>,
    confirmed: oneshot::Sender<bool>,
}

/// The sending end; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    messages: mpsc::Sender<Message>,
    /// Whether the broker has an alarm, and blocks publishers.
    is_blocked: Arc<AtomicBool>,
}

impl Control {
    /// Starts the task that publishes, which ends on `stop`.
    pub(crate) fn start(broker: &BrokerArgs, role: &str, stop: &CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let (broker, name) = (broker.clone(), format!("firstcome-worker {role} control"));
        let (stop, is_blocked) = (stop.clone(), Arc::new(AtomicBool::new(false)));
        let blocked = Arc::clone(&is_blocked);
        tokio::spawn(async move {
            // Sessions take turns with it.
            let receiver = Arc::new(Mutex::new(receiver));
            connect::supervise(&broker, &name, &stop, |connection| {
                let (receiver, blocked) = (Arc::clone(&receiver), Arc::clone(&blocked));
                let stop = stop.clone();
                async move {
                    session(&connection, &mut *receiver.lock().await, &blocked, &stop).await
                }
            })
            .await;
        });
        Self { messages: sender, is_blocked }
    }

    /// Whether the broker is known to take nothing at present: all that is asked for is refused at once.
    pub(crate) fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Relaxed)
    }

    /// Shows that the line is alive, if it comes out at the other end: that, or what fills the line.
    /// Does not wait.
    pub(crate) fn canary(&self, queue: String, id: Uuid) -> oneshot::Receiver<bool> {
        let headers = Headers { canary: Some(id), ..Headers::default() };
        self.send(To::Queue(queue), MessageType::Canary, headers, Vec::new())
    }

    /// Shows that a message can get into the line, and that there is one; as far as the broker says so in
    /// time.
    pub(crate) async fn reaches(&self, queue: String) -> bool {
        in_time(self.canary(queue, Uuid::new_v4())).await
    }

    /// Puts the last message into a line; whether the broker has it.
    pub(crate) async fn end_line(&self, queue: String) -> bool {
        let (kind, headers) = (MessageType::EndOfLine, Headers::default());
        in_time(self.send(To::Queue(queue), kind, headers, Vec::new())).await
    }

    /// Publishes what was tried so often and failed; whether the broker has it.
    pub(crate) async fn redrive(
        &self,
        to: To,
        kind: MessageType,
        attempts: i32,
        body: Vec<u8>,
    ) -> bool {
        let headers = Headers { attempts: Some(attempts), ..Headers::default() };
        in_time(self.send(to, kind, headers, body)).await
    }

    fn send(
        &self,
        to: To,
        kind: MessageType,
        headers: Headers,
        body: Vec<u8>,
    ) -> oneshot::Receiver<bool> {
        let (confirmed, answer) = oneshot::channel();
        // Without a broker nobody answers, which says it all.
        let _ = self.messages.try_send(Message { to, kind, headers, body, confirmed });
        answer
    }
}

async fn in_time(confirmed: oneshot::Receiver<bool>) -> bool {
    timeout(CONFIRM_TIMEOUT, confirmed).await.is_ok_and(|sent| sent == Ok(true))
}

async fn session(
    connection: &Connection,
    messages: &mut mpsc::Receiver<Message>,
    is_blocked: &AtomicBool,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    let mut alarms = Alarms::of(connection);
    let mut publisher =
        ConfirmedPublisher::<(MessageType, oneshot::Sender<bool>)>::open(connection).await?;
    let mut blocked = false;
    let mut deadline = Instant::now();
    loop {
        is_blocked.store(blocked, Ordering::Relaxed);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            // What is under way goes out when it ends: another connection would only wait beside this one.
            alarm = alarms.next() => {
                blocked = matches!(alarm?, Alarm::Raised(_));
                deadline = Instant::now() + CONFIRM_TIMEOUT;
            }
            verdicts = publisher.verdicts() => {
                deadline = Instant::now() + CONFIRM_TIMEOUT;
                for ((kind, confirmed), verdict) in verdicts {
                    // A full line takes no canary, and has enough in it that should come out.
                    let is_there = matches!(verdict, Verdict::Confirmed)
                        || (kind == MessageType::Canary && matches!(verdict, Verdict::Refused));
                    let _ = confirmed.send(is_there);
                    if let Verdict::Unknown(error) = verdict {
                        return Err(error);
                    }
                }
            }
            () = sleep_until(deadline), if publisher.in_flight() > 0 && !blocked => {
                return Err(SessionError::Timeout(CONFIRM_TIMEOUT));
            }
            // Not one after the other: a queue without a leader confirms nothing.
            message = messages.recv(), if publisher.in_flight() < MAX_IN_FLIGHT || blocked => {
                let Some(Message { to, kind, headers, body, confirmed }) = message else { return Ok(()) };
                // Who is told nothing knows that it was not sent.
                if blocked || confirmed.is_closed() {
                    continue;
                }
                let key;
                let address = match &to {
                    To::Queue(queue) => Address::Queue(queue),
                    To::Line { exchange, line } => {
                        key = line.routing_key();
                        Address::Exchange { exchange, key: &key }
                    }
                };
                if publisher.in_flight() == 0 {
                    deadline = Instant::now() + CONFIRM_TIMEOUT;
                }
                publisher.publish_with(headers, address, kind, body, (kind, confirmed));
            }
        }
    }
}
