//! What comes from the person: input, sizes of their terminal, signals; sent to a program in a container.

use std::io::Read;

use futures_util::SinkExt;
use futures_util::stream::SplitSink;
use reqwest::Upgraded;
use serde_json::{Value, json};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Message;

use super::error::Failure;
use super::keys::DetachKeys;
use super::session::{End, Manner};
use super::terminal::{Ends, size};

/// A message of input.
const INPUT_BYTES: usize = 16 << 10;
/// Messages of input that are read ahead.
const INPUT_AHEAD: usize = 2;

/// What comes from the person.
pub struct Hands {
    terminal: bool,
    input: Option<mpsc::Receiver<Vec<u8>>>,
    keys: DetachKeys,
    /// What could not be sent yet.
    unsent: Option<Message>,
    input_has_ended: bool,
    signals: u32,
}

impl Hands {
    /// Of somebody who wants this.
    ///
    /// # Errors
    /// When no thread can be had for the input.
    pub fn new(manner: Manner) -> Result<Self, Failure> {
        Ok(Self {
            terminal: manner.terminal,
            input: if manner.interactive { Some(read_input()?) } else { None },
            keys: DetachKeys::default(),
            unsent: None,
            input_has_ended: false,
            signals: 0,
        })
    }

    /// Sends input, sizes and signals, until one of them leaves the session. A connection that takes
    /// nothing any more is whoever reads from it to notice.
    pub async fn send(
        &mut self,
        mut sink: SplitSink<WebSocketStream<Upgraded>, Message>,
        ends: &mut Ends,
        resized: &mut Signal,
    ) -> End {
        if self.terminal {
            self.unsent_first(resize());
        } else if self.input.is_none() || self.input_has_ended {
            self.unsent_first(order(&json!({"eof": true})));
        }
        loop {
            if let Some(message) = &self.unsent {
                if sink.send(message.clone()).await.is_err() {
                    std::future::pending::<()>().await;
                }
                self.unsent = None;
            }
            let input = async {
                match &mut self.input {
                    Some(input) => input.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                number = ends.next() => {
                    self.signals += 1;
                    // With a terminal, what is typed goes by it; this came from elsewhere.
                    if self.terminal || self.signals > 1 {
                        return End::Signal(number);
                    }
                    self.unsent = Some(order(&json!({"signal": number})));
                }
                _ = resized.recv(), if self.terminal => self.unsent = Some(resize()),
                typed = input => match typed {
                    Some(typed) => {
                        let (typed, left) = match self.terminal {
                            true => self.keys.filter(&typed),
                            false => (typed, false),
                        };
                        if left {
                            return End::Left;
                        }
                        if !typed.is_empty() {
                            self.unsent = Some(Message::Binary(typed.into()));
                        }
                    }
                    None => {
                        self.input = None;
                        self.input_has_ended = true;
                        if !self.terminal {
                            self.unsent = Some(order(&json!({"eof": true})));
                        }
                    }
                },
            }
        }
    }

    /// What a new connection begins with, unless input waits: that has its place in an order.
    fn unsent_first(&mut self, message: Message) {
        if self.unsent.is_none() {
            self.unsent = Some(message);
        }
    }
}

fn order(order: &Value) -> Message {
    Message::Text(order.to_string().into())
}

fn resize() -> Message {
    let (columns, rows) = size();
    order(&json!({"resize": {"columns": columns, "rows": rows}}))
}

/// The standard input, read by a thread of its own: nothing but its end ends such a read.
fn read_input() -> Result<mpsc::Receiver<Vec<u8>>, Failure> {
    let (sender, receiver) = mpsc::channel(INPUT_AHEAD);
    let read = move || {
        let mut stdin = std::io::stdin().lock();
        let mut bytes = vec![0; INPUT_BYTES];
        loop {
            match stdin.read(&mut bytes) {
                Ok(0) => return,
                Ok(length) => {
                    if sender.blocking_send(bytes[..length].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    };
    let thread = std::thread::Builder::new().name("input".to_owned()).spawn(read);
    thread.map_err(|error| Failure::Here(format!("start a thread: {error}")))?;
    Ok(receiver)
}
