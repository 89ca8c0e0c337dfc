//! A client's connection, held to its deadlines: who stops in the middle of a request or of an
//! answer is cut off. Between requests a client may be silent for longer, which is hyper's to watch.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
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
}

/// How far a connection's requests are, as its service tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<AtomicUsize>);

impl Progress {
    /// Notes that the head of a request is complete.
    pub(super) fn asked(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the request is answered.
    pub(super) fn answered(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
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
}

impl<S> Client<S> {
    pub(super) fn new(stream: S, progress: Progress, timeouts: Timeouts) -> Self {
        let (head, write) = (Deadline::default(), Deadline::default());
        Self { stream, timeouts, progress, step: 0, head, write }
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
        let step = self.progress.0.load(Ordering::Relaxed);
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Client<S> {
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A deadline that is set for every request, and whose timer is made only when something waits.
#[derive(Debug, Default)]
struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Sets the deadline to so long after now, unless it is set.
    fn set(&mut self, after: Duration) {
        self.at.get_or_insert_with(|| Instant::now() + after);
    }

    fn clear(&mut self) {
        *self = Self::default();
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
        let (mut far, mut client, progress) = connected(Timeouts { head: SHORT, write: LONG });
        let waits = async |client: &mut Client<_>| timeout(3 * SHORT, client.read_u8()).await;
        assert!(waits(&mut client).await.is_err(), "silence is hyper's to watch");
        far.write_all(b"G").await.unwrap();
        client.read_u8().await.unwrap();
        progress.asked();
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
        let (mut far, mut client, _) = connected(Timeouts { head: LONG, write: SHORT });
        client.write_all(&[0; 8]).await.unwrap();
        assert!(is_cut_off(timeout(LONG, client.write_all(&[0; 8])).await.unwrap()));
        // Whoever takes some of it is not.
        far.read_u64().await.unwrap();
        client.write_all(&[0; 8]).await.unwrap();
    }
}
