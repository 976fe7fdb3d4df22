//! What goes to the person: a program's output, and what the server says beside it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use reqwest::Upgraded;
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::error::Failure;
use super::harmless::{self, Flow};
use super::output::Output;
use super::session::{End, Manner, Over};

/// The server asks every twenty seconds whether we are there.
const SILENCE_MAX: Duration = Duration::from_secs(50);
/// Somebody else attached; the right to it has ended (RFC 6455, 7.4.1: a policy).
const CLOSE_REPLACED: u16 = 4001;
const CLOSE_POLICY: u16 = 1008;

/// What goes to the person.
pub struct Screen {
    /// Bytes of output that have come, those that were not kept included.
    pub received: u64,
    terminal: bool,
    stdout: Option<Flow>,
    stderr: Option<Flow>,
}

impl Screen {
    /// For somebody who wants this. Without a terminal for the program, a person's own gets its bytes as
    /// they are only if they say so.
    pub fn new(manner: Manner) -> Self {
        let Manner { terminal, raw, .. } = manner;
        let shown =
            |output: Output| (output.is_terminal() && !terminal && !raw).then(Flow::default);
        let (stdout, stderr) = (shown(Output::Stdout), shown(Output::Stderr));
        Self { received: 0, terminal, stdout, stderr }
    }

    /// Shows output until the connection's end.
    pub async fn show(
        &mut self,
        mut stream: SplitStream<WebSocketStream<Upgraded>>,
    ) -> Result<Over, Failure> {
        let broken = |why: &str| Ok(Over::Broken(Failure::Unreachable(why.to_owned())));
        loop {
            let message = match timeout(SILENCE_MAX, stream.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return broken(&error.to_string()),
                Ok(None) => return broken("the connection was closed"),
                Err(_) => return broken("the server has fallen silent"),
            };
            match message {
                Message::Binary(bytes) => self.bytes(bytes).await?,
                Message::Text(text) => {
                    let said: Value = serde_json::from_str(&text).unwrap_or_default();
                    if let Some(end) = self.said(&said) {
                        return Ok(Over::End(end));
                    }
                }
                Message::Close(frame) => match frame.map(|frame| u16::from(frame.code)) {
                    Some(CLOSE_REPLACED) => return Ok(Over::End(End::Replaced)),
                    Some(CLOSE_POLICY) => return Ok(Over::End(End::RightEnded)),
                    _ => return broken("the server has closed the connection"),
                },
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    async fn bytes(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let (output, flow) = match bytes.first() {
            Some(1) => (Output::Stdout, &mut self.stdout),
            Some(2) => (Output::Stderr, &mut self.stderr),
            _ => return Err(Failure::Unreachable("output that is none came".into())),
        };
        let bytes = bytes.slice(1..);
        let shown = match flow {
            Some(flow) => flow.push(&bytes).into_bytes(),
            None => bytes.to_vec(),
        };
        output.write_aside(shown).await?;
        self.received += bytes.len() as u64;
        Ok(())
    }

    fn said(&mut self, said: &Value) -> Option<End> {
        if let Some(lost) = said["lost"].as_u64() {
            self.received += lost;
            self.notice(&format!("{lost} bytes were not kept"));
        }
        if let Some(detail) = said["refused"]["detail"].as_str() {
            self.notice(detail);
        }
        let exited = said.get("exited")?;
        let number = |name: &str| exited[name].as_i64().and_then(|number| number.try_into().ok());
        Some(End::Exited { code: number("code"), signal: number("signal") })
    }

    /// Tells the person, on a line of its own whatever the terminal's mode is.
    pub fn notice(&self, text: &str) {
        let text = harmless::line(text);
        let text = match self.terminal {
            true => format!("\r\n[{text}]\r\n"),
            false => format!("berth: {text}\n"),
        };
        drop(Output::Stderr.write(text.as_bytes()));
    }
}
