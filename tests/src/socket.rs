//! A WebSocket to a program in a container, as a browser or a script has one.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::Client;

/// How long anything may take to come.
const LIMIT: Duration = Duration::from_secs(40);

/// Attached to a program.
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// Standard output, or what the terminal shows.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Text messages that were no output.
    pub said: Vec<Value>,
    /// Bytes of output that have come.
    pub received: u64,
    /// The code of the closing message.
    pub closed: Option<u16>,
}

impl Socket {
    /// Attaches as `client`.
    pub async fn attach(client: &Client, path: &str) -> Self {
        Self::attach_with(client, path, &[("sec-fetch-site", "same-origin")]).await
    }

    /// Attaches as `client` with these headers.
    pub async fn attach_with(client: &Client, path: &str, headers: &[(&str, &str)]) -> Self {
        let attached = Self::try_attach(client, path, headers).await;
        attached.unwrap_or_else(|status| panic!("{path} was refused with {status}"))
    }

    /// Attaches with these headers beside the client's credential; the status of a refusal.
    ///
    /// # Errors
    /// The status.
    pub async fn try_attach(
        client: &Client,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, u16> {
        let address = client.base().strip_prefix("http://").expect("a plain address");
        let tcp = TcpStream::connect(address).await.expect("connect");
        let mut request = format!("ws://{address}{path}").into_client_request().expect("a request");
        let (name, value) = client.credential();
        for (name, value) in headers.iter().chain([&(name, value.as_str())]) {
            let name = HeaderName::try_from(*name).expect("a header");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a value"));
        }
        match tokio_tungstenite::client_async(request, tcp).await {
            Ok((stream, _)) => Ok(Self {
                stream,
                stdout: Vec::new(),
                stderr: Vec::new(),
                said: Vec::new(),
                received: 0,
                closed: None,
            }),
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// Bytes for the program.
    pub async fn write(&mut self, bytes: impl Into<Vec<u8>>) {
        self.send(Message::Binary(bytes.into().into())).await;
    }

    /// An order, such as `{"resize": {"columns": 80, "rows": 24}}`.
    pub async fn order(&mut self, order: Value) {
        self.send(Message::Text(order.to_string().into())).await;
    }

    /// Any message.
    pub async fn send(&mut self, message: Message) {
        timeout(LIMIT, self.stream.send(message)).await.expect("it takes too long").expect("send");
    }

    /// Says that all output so far has arrived, if somebody still listens: the program may have ended
    /// with what came last.
    pub async fn take(&mut self) {
        let order = json!({"received": self.received}).to_string();
        let sent = self.stream.send(Message::Text(order.into()));
        drop(timeout(LIMIT, sent).await.expect("it takes too long"));
    }

    /// The next message; false at the end.
    pub async fn next(&mut self) -> bool {
        let next = timeout(LIMIT, self.stream.next()).await;
        let next = next.unwrap_or_else(|_| {
            let (out, err) = (text(&self.stdout), text(&self.stderr));
            panic!("nothing comes any more; there were {out:?}, {err:?}, {:?}", self.said)
        });
        match next {
            Some(Ok(Message::Binary(bytes))) => {
                match bytes.split_first() {
                    Some((1, bytes)) => self.stdout.extend_from_slice(bytes),
                    Some((2, bytes)) => self.stderr.extend_from_slice(bytes),
                    other => panic!("no output: {other:?}"),
                }
                self.received += bytes.len() as u64 - 1;
            }
            Some(Ok(Message::Text(text))) => {
                self.said.push(serde_json::from_str(&text).expect("JSON"));
            }
            Some(Ok(Message::Close(frame))) => {
                self.closed = frame.map(|frame| frame.code.into());
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return false,
        }
        true
    }

    /// Reads until `good`.
    pub async fn until(&mut self, good: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !good(self) {
            let more = self.next().await;
            let (out, err) = (text(&self.stdout), text(&self.stderr));
            assert!(
                more,
                "the end came first: {out:?}, {err:?}, {:?} {:?}",
                self.said, self.closed
            );
            // Pings come whatever the program does.
            assert!(Instant::now() < deadline, "it does not come: {out:?}, {err:?}");
        }
    }

    /// Reads until standard output, or the terminal, has shown `wanted`.
    pub async fn until_shown(&mut self, wanted: &str) {
        self.until(|socket| text(&socket.stdout).contains(wanted)).await;
    }

    /// Reads to the end; how the program has ended.
    pub async fn exit(&mut self) -> Value {
        while self.next().await {}
        let last = self.said.last().unwrap_or_else(|| panic!("closed with {:?}", self.closed));
        last["exited"].clone()
    }

    /// Hangs up without a word.
    pub fn hang_up(self) {
        drop(self);
    }
}

/// A program's text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Opens a session of a shell's command line; its path.
pub async fn open(client: &Client, container: &str, script: &str, terminal: bool) -> String {
    let mut body = json!({"program": {"command": ["sh", "-c", script]}});
    if terminal {
        body["terminal"] = json!({"columns": 80, "rows": 24});
    }
    let execs = format!("/api/v1/containers/{container}/execs");
    let opened = client.post(&execs, &body).await.expect_status(201).json();
    format!("{execs}/{}", opened["id"])
}
