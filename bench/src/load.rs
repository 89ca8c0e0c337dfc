//! An HTTP client that costs little per request, so that one machine can be both sides of a storm:
//! one keep-alive connection, one request at a time, one deadline per request.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri,
    client::conn::http1::{self, SendRequest},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// Whatever took longer than an hour counts as an hour.
const LONGEST_MICROS: u64 = 3_600_000_000;

/// A request, ready to be sent (several times, if need be).
pub type Call = Request<Full<Bytes>>;

/// A call without a body.
#[must_use]
pub fn call(method: Method, path: Uri, token: Option<&HeaderValue>) -> Call {
    let mut call = Request::new(Full::default());
    *call.method_mut() = method;
    *call.uri_mut() = path;
    if let Some(token) = token {
        call.headers_mut().insert(AUTHORIZATION, token.clone());
    }
    call
}

/// A call with a JSON body.
#[must_use]
pub fn call_with(
    method: Method,
    path: Uri,
    token: Option<&HeaderValue>,
    json: &serde_json::Value,
) -> Call {
    let mut call = call(method, path, token);
    *call.body_mut() = Full::from(json.to_string());
    call.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    call
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// How long the server asks to wait, but at most `longest`.
    #[must_use]
    pub fn retry_after(&self, longest: Duration) -> Duration {
        let header =
            self.headers.get(hyper::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let seconds = header.and_then(|value| value.parse().ok()).unwrap_or(1);
        Duration::from_secs(seconds).min(longest)
    }
}

/// Why there is no answer. What became of the request is unknown.
#[derive(Debug, Clone)]
pub struct NoAnswer(pub String);

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoAnswer {}

/// One keep-alive connection; renewed when it is lost.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    host: HeaderValue,
    deadline: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client that connects when it is first used.
    #[must_use]
    pub fn new(address: SocketAddr, deadline: Duration) -> Self {
        // An address consists of digits, dots, colons and brackets.
        let host = HeaderValue::from_str(&address.to_string())
            .unwrap_or(HeaderValue::from_static("localhost"));
        Self { address, host, deadline, connection: None }
    }

    /// Connects, so that the first request need not.
    ///
    /// # Errors
    /// [`NoAnswer`], within the deadline.
    pub async fn connect(&mut self) -> Result<(), NoAnswer> {
        match timeout(self.deadline, open(self.address)).await {
            Ok(opened) => self.connection = Some(opened?),
            Err(_) => return Err(NoAnswer(format!("no connection within {:?}", self.deadline))),
        }
        Ok(())
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// [`NoAnswer`], within the deadline; the next request then starts with a new connection.
    pub async fn send(&mut self, mut call: Call) -> Result<Answer, NoAnswer> {
        call.headers_mut().insert(HOST, self.host.clone());
        // Taken out, so that whoever stops waiting leaves no connection with half an answer behind.
        let connection = self.connection.take();
        match timeout(self.deadline, exchange(self.address, connection, call)).await {
            Ok(Ok((connection, answer))) => {
                self.connection = Some(connection);
                Ok(answer)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(NoAnswer(format!("no answer within {:?}", self.deadline))),
        }
    }
}

async fn open(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, NoAnswer> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| NoAnswer(format!("cannot connect: {error}")))?;
    // A request is one small packet: without this it could wait for the ack of the last one.
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with the sender.
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    address: SocketAddr,
    connection: Option<SendRequest<Full<Bytes>>>,
    mut call: Call,
) -> Result<(SendRequest<Full<Bytes>>, Answer), NoAnswer> {
    let mut kept = connection;
    loop {
        let reused = kept.is_some();
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => open(address).await?,
        };
        if reused && connection.ready().await.is_err() {
            continue; // closed by the server while it was idle
        }
        match connection.try_send_request(call).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                let body = body.collect().await.map_err(failed)?.to_bytes();
                return Ok((
                    connection,
                    Answer { status: parts.status, headers: parts.headers, body },
                ));
            }
            Err(mut error) => match error.take_message() {
                // Nothing of it went out, so sending it again is not sending it twice.
                Some(unsent) if reused => call = unsent,
                _ => return Err(failed(error.into_error())),
            },
        }
    }
}

fn failed(error: hyper::Error) -> NoAnswer {
    let cause =
        std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
    NoAnswer(format!("{error}{cause}"))
}

/// How long things took.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        #[expect(
            clippy::expect_used,
            reason = "a lowest of 1, a highest of at least twice that and 3 digits are valid"
        )]
        let histogram = Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("valid bounds");
        Self(histogram)
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(micros);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// What `percent` of them did not exceed.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percent))
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    /// Answers `per_connection` requests on each connection, then closes it.
    async fn server(per_connection: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                for _ in 0..per_connection {
                    let mut request = [0; 1024];
                    if stream.read(&mut request).await.unwrap() == 0 {
                        break;
                    }
                    let answer =
                        b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nno";
                    stream.write_all(answer).await.unwrap();
                }
            }
        });
        address
    }

    #[tokio::test]
    async fn a_connection_that_the_server_closed_is_renewed() {
        let mut client = Client::new(server(2).await, Duration::from_secs(5));
        client.connect().await.unwrap();
        for _ in 0..5 {
            let answer = client.send(call(Method::GET, Uri::from_static("/"), None)).await.unwrap();
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(answer.body, "no");
            assert_eq!(answer.retry_after(Duration::from_secs(60)), Duration::from_secs(7));
            assert_eq!(answer.retry_after(Duration::from_secs(2)), Duration::from_secs(2));
            // Time for the server's close to arrive.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn silence_ends_with_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = Client::new(listener.local_addr().unwrap(), Duration::from_millis(50));
        let silent = client.send(call(Method::GET, Uri::from_static("/"), None)).await;
        assert!(silent.unwrap_err().0.contains("within"), "a deadline");
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentile(99.0), Duration::ZERO);
        for millis in 1..=1000 {
            latencies.record(Duration::from_millis(millis));
        }
        assert_eq!(latencies.count(), 1000);
        assert!(
            latencies.percentile(50.0).abs_diff(Duration::from_millis(500))
                < Duration::from_millis(1)
        );
        assert!(
            latencies.percentile(99.0).abs_diff(Duration::from_millis(990))
                < Duration::from_millis(2)
        );
        assert!(latencies.max().abs_diff(Duration::from_secs(1)) < Duration::from_millis(2));
    }
}
