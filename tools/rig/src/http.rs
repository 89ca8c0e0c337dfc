//! An HTTP client that costs little per request, so that one machine can be both load generator and server:
//! one keep-alive connection, one request at a time, one deadline per request, and answers that
//! tell their length.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri,
    header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE},
    uri::PathAndQuery,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// The longest answer that is read, head and body.
const LONGEST_ANSWER: usize = 16 << 20;
/// The most headers of an answer.
const MOST_HEADERS: usize = 64;

/// A request, ready to be sent (several times, if need be).
pub type Call = Request<Bytes>;

/// A call without a body.
#[must_use]
pub fn call(method: Method, path: Uri, token: Option<&HeaderValue>) -> Call {
    let mut call = Request::new(Bytes::new());
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
    *call.body_mut() = Bytes::from(json.to_string());
    call.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    call
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// The headers, as they came.
    pub headers: HeaderMap,
    /// The body, as long as its length said.
    pub body: Bytes,
}

impl Answer {
    /// How long the server asks to wait, but at most `longest`.
    #[must_use]
    pub fn retry_after(&self, longest: Duration) -> Duration {
        let header =
            self.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
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
    deadline: Duration,
    connection: Option<Connection>,
}

impl Client {
    /// A client that connects when it is first used.
    #[must_use]
    pub const fn new(address: SocketAddr, deadline: Duration) -> Self {
        Self { address, deadline, connection: None }
    }

    /// Connects, so that the first request need not.
    ///
    /// # Errors
    /// [`NoAnswer`], within the deadline.
    pub async fn connect(&mut self) -> Result<(), NoAnswer> {
        match timeout(self.deadline, Connection::open(self.address)).await {
            Ok(opened) => self.connection = Some(opened?),
            Err(_) => return Err(NoAnswer(format!("no connection within {:?}", self.deadline))),
        }
        Ok(())
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// [`NoAnswer`], within the deadline; the next request then starts with a new connection.
    pub async fn send(&mut self, call: Call) -> Result<Answer, NoAnswer> {
        // Taken out, so that whoever stops waiting leaves no connection with half an answer behind.
        let connection = self.connection.take();
        match timeout(self.deadline, exchange(self.address, connection, &call)).await {
            Ok(Ok((connection, answer))) => {
                self.connection = connection;
                Ok(answer)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(NoAnswer(format!("no answer within {:?}", self.deadline))),
        }
    }
}

/// The answer, and the connection if there can be another one.
async fn exchange(
    address: SocketAddr,
    kept: Option<Connection>,
    call: &Call,
) -> Result<(Option<Connection>, Answer), NoAnswer> {
    let mut connection = match kept.filter(Connection::is_open) {
        Some(connection) => connection,
        None => Connection::open(address).await?,
    };
    let request = encode(address, call);
    connection.stream.write_all(&request).await.map_err(|error| failed(&error))?;
    let answer = connection.answer().await?;
    let is_last = answer
        .headers
        .get(CONNECTION)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    Ok(((!is_last).then_some(connection), answer))
}

/// A request as it goes over the wire.
fn encode(address: SocketAddr, call: &Call) -> Vec<u8> {
    let path = call.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let body = call.body();
    let mut request = format!(
        "{} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n",
        call.method(),
        body.len()
    )
    .into_bytes();
    for (name, value) in call.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            request.extend_from_slice(part);
        }
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// What was read and is not yet answered.
    read: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Self, NoAnswer> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| NoAnswer(format!("cannot connect: {error}")))?;
        // A request is one small packet: without this it could wait for the ack of the last one.
        let _ = stream.set_nodelay(true);
        Ok(Self { stream, read: Vec::with_capacity(1024) })
    }

    /// Whether the server has neither closed it meanwhile nor said anything unasked.
    fn is_open(&self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        self.read.is_empty() && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn answer(&mut self) -> Result<Answer, NoAnswer> {
        loop {
            if let Some((answer, length)) = decode(&self.read)? {
                self.read.drain(..length);
                return Ok(answer);
            }
            if self.read.len() > LONGEST_ANSWER {
                return Err(NoAnswer(format!("an answer of more than {LONGEST_ANSWER} bytes")));
            }
            let count =
                self.stream.read_buf(&mut self.read).await.map_err(|error| failed(&error))?;
            if count == 0 {
                return Err(NoAnswer("closed before the answer was complete".to_owned()));
            }
        }
    }
}

/// The answer that these bytes begin with, and its length; `None` while it is not complete.
fn decode(read: &[u8]) -> Result<Option<(Answer, usize)>, NoAnswer> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(start) = head.parse(read).map_err(|error| failed(&error))?
    else {
        return Ok(None);
    };
    let status =
        StatusCode::from_u16(head.code.unwrap_or_default()).map_err(|error| failed(&error))?;
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|error| failed(&error))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|error| failed(&error))?;
        headers.append(name, value);
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let length: usize = match length {
        Some(length) => length,
        None if status == StatusCode::NO_CONTENT => 0,
        None => return Err(NoAnswer("an answer of unknown length".to_owned())),
    };
    let end = start.saturating_add(length);
    let body = read.get(start..end).map(Bytes::copy_from_slice);
    Ok(body.map(|body| (Answer { status, headers, body }, end)))
}

fn failed(error: &dyn std::error::Error) -> NoAnswer {
    NoAnswer(error.to_string())
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

    #[test]
    fn an_answer_is_read_once_it_is_complete() {
        let bytes = b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\nx: y\r\n\r\nnoHTTP/1.1 200";
        let end = bytes.len() - b"HTTP/1.1 200".len();
        for end in 0..end {
            assert!(decode(&bytes[..end]).unwrap().is_none(), "{end} bytes are not all of it");
        }
        let (answer, length) = decode(bytes).unwrap().unwrap();
        assert_eq!(
            (length, answer.status, &answer.body[..]),
            (end, StatusCode::CONFLICT, &b"no"[..])
        );
        assert_eq!(answer.headers["x"], "y");

        let (answer, _) = decode(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert!(answer.body.is_empty());
        assert!(decode(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "no length");
        assert!(decode(b"SSH-2.0-OpenSSH\r\n").is_err(), "no HTTP");
    }

    #[test]
    fn a_request_is_one_packet() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        let token = HeaderValue::from_static("Bearer x");
        let call = call_with(
            Method::POST,
            Uri::from_static("/a?b=c"),
            Some(&token),
            &serde_json::json!([1]),
        );
        let request = String::from_utf8(encode(address, &call)).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let lines: std::collections::BTreeSet<&str> = head.lines().skip(1).collect();
        assert_eq!((head.lines().next().unwrap(), body), ("POST /a?b=c HTTP/1.1", "[1]"));
        let expected = [
            "authorization: Bearer x",
            "content-length: 3",
            "content-type: application/json",
            "host: 127.0.0.1:80",
        ];
        assert_eq!(lines, expected.into());
    }

    #[tokio::test]
    async fn what_comes_unasked_is_nobodys_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = Client::new(listener.local_addr().unwrap(), Duration::from_secs(5));
        tokio::spawn(async move {
            for answer in [
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na",
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nb",
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                stream.write_all(answer.repeat(2).as_bytes()).await.unwrap();
            }
        });
        for answer in ["a", "b"] {
            let call = call(Method::GET, Uri::from_static("/"), None);
            assert_eq!(client.send(call).await.unwrap().body, answer);
        }
    }

    #[tokio::test]
    async fn silence_ends_with_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = Client::new(listener.local_addr().unwrap(), Duration::from_millis(50));
        let silent = client.send(call(Method::GET, Uri::from_static("/"), None)).await;
        assert!(silent.unwrap_err().0.contains("within"), "a deadline");
    }
}
