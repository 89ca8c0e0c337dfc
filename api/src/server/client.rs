//! A client's connection, held to its deadlines: who stops in the middle of a request or of an
//! answer is cut off. Between requests a client may be silent for longer, which is hyper's to watch. Who is answered
//! before its body has come may go on sending for a moment: else it would not see the answer.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// What a client is given time for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// From the first byte of a request's head to its last.
    pub(super) head: Duration,
    /// Taking nothing of an answer that waits for it.
    pub(super) write: Duration,
    /// Closing its side, once it is answered and its body is not wanted.
    pub(super) linger: Duration,
}

/// How much of a body that is not wanted is read on.
const MAX_DISCARDED: usize = 1024 * 1024;

/// How far a connection's requests are, as its service tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<Steps>);

#[derive(Debug, Default)]
struct Steps {
    taken: AtomicUsize,
    /// Of the last request.
    has_body: AtomicBool,
}

impl Progress {
    /// Notes that the head of a request is complete.
    pub(super) fn asked(&self, has_body: bool) {
        self.0.has_body.store(has_body, Ordering::Relaxed);
        self.0.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the request is answered.
    pub(super) fn answered(&self) {
        self.0.taken.fetch_add(1, Ordering::Relaxed);
    }
}

/// A client's stream that ends where the client takes longer than its [`Timeouts`].
#[derive(Debug)]
pub(super) struct Client<S> {
    stream: S,
    timeouts: Timeouts,
    progress: Progress,
    /// The step at which `head` was set.
    step: usize,
    head: Deadline,
    write: Deadline,
    linger: Deadline,
    /// Our side is closed.
    is_closed: bool,
    /// What was read since.
    discarded: usize,
}

impl<S> Client<S> {
    pub(super) fn new(stream: S, progress: Progress, timeouts: Timeouts) -> Self {
        let [head, write, linger] = [const { Deadline::new() }; 3];
        let (step, is_closed, discarded) = (0, false, 0);
        Self { stream, timeouts, progress, step, head, write, linger, is_closed, discarded }
    }

    /// A write that waits does so until its deadline.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write.clear();
            return written;
        }
        self.write.set(self.timeouts.write);
        ready!(self.write.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Client<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let step = self.progress.0.taken.load(Ordering::Relaxed);
        if step != self.step {
            self.step = step;
            self.head.clear();
        }
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buffer) {
            // An odd step: a request is being answered, and this is its body.
            if buffer.filled().len() > before && step.is_multiple_of(2) {
                let after = self.timeouts.head;
                self.head.set(after);
            }
            return Poll::Ready(read);
        }
        ready!(self.head.poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> Client<S> {
    /// Reads on until the client has closed its side too, or has had its time: what it sends to a closed socket
    /// would have the system take back the answer.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.progress.0.has_body.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let mut block = [std::mem::MaybeUninit::uninit(); 8 * 1024];
        while self.discarded < MAX_DISCARDED {
            let mut buffer = ReadBuf::uninit(&mut block);
            if Pin::new(&mut self.stream).poll_read(cx, &mut buffer).is_pending() {
                self.linger.set(self.timeouts.linger);
                return self.linger.poll(cx);
            }
            // Its end, or an error.
            if buffer.filled().is_empty() {
                break;
            }
            self.discarded += buffer.filled().len();
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Client<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_closed {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.is_closed = true;
        }
        ready!(self.poll_linger(cx));
        Poll::Ready(Ok(()))
    }
}

/// A deadline that is set for every request, and whose timer is made only when something waits.
#[derive(Debug)]
struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    const fn new() -> Self {
        Self { at: None, timer: None }
    }

    /// Sets the deadline to so long after now, unless it is set.
    fn set(&mut self, after: Duration) {
        self.at.get_or_insert_with(|| Instant::now() + after);
    }

    fn clear(&mut self) {
        *self = Self::new();
    }

    /// Is ready once the deadline has passed; never while none is set.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::timeout,
    };

    use super::*;

    /// Short, for tests, and never to pass where it should not.
    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    fn connected(timeouts: Timeouts) -> (DuplexStream, Client<DuplexStream>, Progress) {
        let (far, near) = duplex(8);
        let progress = Progress::default();
        (far, Client::new(near, progress.clone(), timeouts), progress)
    }

    fn is_cut_off<T>(read: io::Result<T>) -> bool {
        read.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
    }

    #[tokio::test]
    async fn a_head_that_was_begun_is_waited_for_until_its_deadline() {
        let (mut far, mut client, progress) =
            connected(Timeouts { head: SHORT, write: LONG, linger: LONG });
        let waits = async |client: &mut Client<_>| timeout(3 * SHORT, client.read_u8()).await;
        assert!(waits(&mut client).await.is_err(), "silence is hyper's to watch");
        far.write_all(b"G").await.unwrap();
        client.read_u8().await.unwrap();
        progress.asked(true);
        far.write_all(b"body").await.unwrap();
        client.read_u32().await.unwrap();
        assert!(waits(&mut client).await.is_err(), "a body has a deadline of its own");
        progress.answered();
        assert!(waits(&mut client).await.is_err(), "and so has what comes next");
        // Trickling does not help.
        let trickle = async {
            while far.write_all(b"G").await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        };
        let reading = async {
            loop {
                if let Err(error) = client.read_u8().await {
                    break Err::<u8, _>(error);
                }
            }
        };
        tokio::select! {
            () = trickle => unreachable!("the other end is there"),
            read = timeout(LONG, reading) => assert!(is_cut_off(read.unwrap())),
        }
    }

    #[tokio::test]
    async fn who_does_not_take_the_answer_is_cut_off() {
        let (mut far, mut client, _) =
            connected(Timeouts { head: LONG, write: SHORT, linger: LONG });
        client.write_all(&[0; 8]).await.unwrap();
        assert!(is_cut_off(timeout(LONG, client.write_all(&[0; 8])).await.unwrap()));
        // Whoever takes some of it is not.
        far.read_u64().await.unwrap();
        client.write_all(&[0; 8]).await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_is_not_wanted_is_read_on_for_a_while() {
        let linger = async |has_body| {
            let timeouts = Timeouts { head: LONG, write: LONG, linger: LONG };
            let (mut far, mut client, progress) = connected(timeouts);
            progress.asked(has_body);
            progress.answered();
            let sending = async {
                let mut sent = 0;
                while sent < 2 * MAX_DISCARDED && far.write_all(&[0; 8]).await.is_ok() {
                    sent += 8;
                }
                sent
            };
            let closing = async {
                client.shutdown().await.unwrap();
                drop(client);
            };
            tokio::join!(sending, closing).0
        };
        assert!(linger(false).await <= 8);
        let sent = linger(true).await;
        assert!((MAX_DISCARDED..=MAX_DISCARDED + 8).contains(&sent), "{sent}");

        // Who is silent has its time.
        let timeouts = Timeouts { head: LONG, write: LONG, linger: SHORT };
        let (_far, mut client, progress) = connected(timeouts);
        progress.asked(true);
        timeout(LONG, client.shutdown()).await.unwrap().unwrap();
    }
}
