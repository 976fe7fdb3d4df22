//! A session of `berth exec` over its WebSocket (`GET …/execs/{number}/attach`), or one with a container's
//! own program (`GET …/attach`), and over the next one when a connection breaks: within the minute that
//! the server keeps it, with what was missed.
//!
//! Input and output never wait for one another: a program that reads slowly holds up only what is sent
//! to it. No receipts are sent either (`received`): TCP holds the server up by itself, and receipts
//! behind input that nobody takes would hold up both.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use reqwest::Upgraded;
use reqwest::header::{HeaderMap, HeaderValue};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::api::Api;
use super::error::Failure;
use super::hands::Hands;
use super::screen::Screen;
use super::terminal::Ends;

/// A message to us at most; the server's are far smaller.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// So long a session lives with nobody attached.
const AWAY_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// So long a connection lasts that is worth the name.
const STEADY: Duration = Duration::from_secs(5);
/// How a session comes to its end, for us.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The program has ended.
    Exited {
        /// Its exit code.
        code: Option<i32>,
        /// The signal that has ended it.
        signal: Option<i32>,
    },
    /// The detach keys were pressed.
    Left,
    /// Somebody else attached.
    Replaced,
    /// The token has ended.
    RightEnded,
    /// This program was asked to end, by this signal.
    Signal(i32),
}

/// How one connection comes to its end.
pub enum Over {
    /// With the session.
    End(End),
    /// By itself.
    Broken(Failure),
}

/// How somebody wants it.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// With the standard input.
    pub interactive: bool,
    /// With a terminal.
    pub terminal: bool,
    /// Bytes as they are, to a terminal too.
    pub raw: bool,
}

/// Which program of a container.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    /// Its own.
    First,
    /// One beside it, by its session's number.
    Beside(u64),
}

/// A session.
pub struct Session<'a> {
    api: &'a Api,
    container: &'a str,
    program: Program,
    hands: Hands,
    screen: Screen,
}

impl<'a> Session<'a> {
    /// With this program.
    ///
    /// # Errors
    /// When the standard input cannot be read.
    pub fn new(
        api: &'a Api,
        container: &'a str,
        program: Program,
        manner: Manner,
    ) -> Result<Self, Failure> {
        Ok(Self {
            api,
            container,
            program,
            hands: Hands::new(manner)?,
            screen: Screen::new(manner),
        })
    }

    /// Carries bytes until the program ends or the session is left.
    ///
    /// # Errors
    /// When the server refuses, or cannot be reached for a minute.
    pub async fn carry(&mut self) -> Result<End, Failure> {
        let mut ends = Ends::listen()?;
        let mut resized = signal(SignalKind::window_change())
            .map_err(|error| Failure::Here(format!("listen for signals: {error}")))?;
        let mut lost_at: Option<Instant> = None;
        let mut told = false;
        loop {
            let broken = match self.connect().await {
                Ok(socket) => {
                    if std::mem::take(&mut told) {
                        self.screen.notice("back");
                    }
                    let begun = Instant::now();
                    let over = self.talk(socket, &mut ends, &mut resized).await?;
                    // One that breaks at once, again and again, is none.
                    lost_at = lost_at.filter(|_| begun.elapsed() < STEADY);
                    match over {
                        Over::End(end) => return Ok(end),
                        Over::Broken(failure) => failure,
                    }
                }
                Err(failure) if lost_at.is_none() && !failure.is_passing() => return Err(failure),
                Err(failure) => failure,
            };
            let since = *lost_at.get_or_insert_with(Instant::now);
            if !broken.is_passing() || since.elapsed() > AWAY_MAX {
                return Err(broken.while_doing("the session is lost"));
            }
            if !std::mem::replace(&mut told, true) {
                self.screen.notice("the connection is lost; coming back …");
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                number = ends.next() => return Ok(End::Signal(number)),
            }
        }
    }

    /// Bytes of output that have come.
    pub fn received(&self) -> u64 {
        self.screen.received
    }

    async fn connect(&self) -> Result<WebSocketStream<Upgraded>, Failure> {
        let failed = |what: &str| Failure::Unreachable(format!("attach to the program: {what}"));
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| failed(&error.to_string()))?;
        let key = STANDARD.encode(random);
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
        let value = HeaderValue::from_str(&key).map_err(|_| failed("no key"))?;
        headers.insert("sec-websocket-key", value);
        let from = self.screen.received.to_string();
        let number;
        let parts = match self.program {
            Program::First => vec!["containers", self.container, "attach"],
            Program::Beside(beside) => {
                number = beside.to_string();
                vec!["containers", self.container, "execs", &number, "attach"]
            }
        };
        let answer = self.api.upgrade(&parts, &[("from", &from)], headers).await?;
        let accepted = answer.headers().get("sec-websocket-accept");
        // RFC 6455, 4.1: whoever has not understood the key speaks something else.
        if accepted
            .is_none_or(|found| found.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes())
        {
            return Err(failed("the server speaks no WebSocket"));
        }
        let stream = answer.upgrade().await.map_err(|error| failed(&error.to_string()))?;
        let limits = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        Ok(WebSocketStream::from_raw_socket(stream, Role::Client, Some(limits)).await)
    }

    async fn talk(
        &mut self,
        socket: WebSocketStream<Upgraded>,
        ends: &mut Ends,
        resized: &mut Signal,
    ) -> Result<Over, Failure> {
        let (sink, stream) = socket.split();
        tokio::select! {
            over = self.screen.show(stream) => over,
            end = self.hands.send(sink, ends, resized) => Ok(Over::End(end)),
        }
    }
}
