//! `/api/v1/containers/{id}/exec`, `/execs` and `/attach`: programs beside a container's first one,
//! answered at once or attached to over a WebSocket (RFC 6455), as the first one is.
//!
//! On the socket, binary messages are bytes: from us one byte that says which output (1 standard output
//! or terminal, 2 standard error) and then the output; to us standard input. Text messages are JSON:
//! [`Said`] from us, [`Order`] to us.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::IntoParams;

use crate::app::{App, StreamPlace};
use crate::auth::TokenScope;
use crate::error::{Error, Result};
use crate::http::extract::{Caller, Items, JsonBody, Path, Query};
use crate::http::guard::Seat;
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::listen::Working;
use crate::service::execs::{
    self, Attachment, Ended, Hands, OnceRequest, OnceView, OpenRequest, Output, Part, SessionView,
    Size,
};
use crate::service::sessions::{right_ends, still_good_at};

/// A message to us at most.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// How often the other end is asked whether it is there.
const PING_PAUSE: Duration = Duration::from_secs(20);
/// Nothing was heard for so long, not even the answers to that: nobody is there.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long the other end may take to close, too.
const FAREWELL_MAX: Duration = Duration::from_secs(5);
/// Somebody else attached (RFC 6455 leaves 4000 to 4999 to applications).
const CLOSE_REPLACED: u16 = 4001;
const RIGHT_ENDED: &str = "the right to it has ended";

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    let operate = Access::Member(TokenScope::Operate);
    routes
        .add(operate, routes!(exec))
        .add(operate, routes!(list_execs, open_exec))
        .add(operate, routes!(show_exec, end_exec))
        .add(operate, routes!(attach_exec))
        .add(operate, routes!(attach_first))
}

/// Where to go on.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AttachQuery {
    /// Bytes of output that one has already, standard output and error together; 0 when left out.
    #[serde(default)]
    from: u64,
}

/// What whoever is attached says, one field a message.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// The terminal has another size.
    Resize(Size),
    /// Send this signal (signal(7)) to the program.
    Signal(i32),
    /// There will be no more input.
    Eof(bool),
    /// So many bytes of output have arrived; from the first such message on, at most 128 KiB more than
    /// that are sent.
    Received(u64),
}

/// What whoever is attached hears, one field a message.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// So many bytes of output were not kept.
    Lost(u64),
    /// An order was refused.
    Refused {
        /// The code, as in a problem.
        code: String,
        /// In words.
        detail: String,
    },
    /// The program has ended; the last message.
    Exited {
        /// Its exit code, if it has ended by itself.
        code: Option<i32>,
        /// The signal that has ended it.
        signal: Option<i32>,
    },
}

/// Runs a program in a container to its end, and answers what it has written; for its owner and
/// those with whom its terminal is shared.
#[utoipa::path(post, path = "/api/v1/containers/{id}/exec", tag = "containers",
    params(("id" = String, Path, description = "Its id or name")),
    request_body = OnceRequest,
    responses(
        (status = 200, body = OnceView), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn exec(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    JsonBody(body): JsonBody<OnceRequest>,
) -> Result<Json<OnceView>> {
    Ok(Json(execs::run(&app, &caller, &key, body).await?))
}

/// Runs a program in a container and leaves it to be attached to; it ends when nobody was attached for
/// a minute. For its owner and those with whom its terminal is shared.
#[utoipa::path(post, path = "/api/v1/containers/{id}/execs", tag = "containers",
    params(("id" = String, Path, description = "Its id or name")),
    request_body = OpenRequest,
    responses(
        (status = 201, body = SessionView), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn open_exec(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    JsonBody(body): JsonBody<OpenRequest>,
) -> Result<(StatusCode, Json<SessionView>)> {
    Ok((StatusCode::CREATED, Json(execs::open(&app, &caller, &key, body).await?)))
}

/// Lists the programs that can be attached to, those that have just ended included, oldest first:
/// all to the container's owner, their own to others.
#[utoipa::path(get, path = "/api/v1/containers/{id}/execs", tag = "containers",
    params(("id" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, body = Items<SessionView>), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody)))]
async fn list_execs(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
) -> Result<Json<Items<SessionView>>> {
    Ok(Json(Items::whole(execs::list(&app, &caller, &key).await?)))
}

/// Shows such a program, and how it has ended.
#[utoipa::path(get, path = "/api/v1/containers/{id}/execs/{number}", tag = "containers",
    params(
        ("id" = String, Path, description = "The container’s id or name"),
        ("number" = u64, Path, description = "The program’s number")),
    responses(
        (status = 200, body = SessionView), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody)))]
async fn show_exec(
    State(app): State<App>,
    caller: Caller,
    Path((key, number)): Path<(String, String)>,
) -> Result<Json<SessionView>> {
    Ok(Json(execs::show(&app, &caller, &key, &number).await?))
}

/// Ends such a program, and all that is left of its session (setsid(2)).
#[utoipa::path(delete, path = "/api/v1/containers/{id}/execs/{number}", tag = "containers",
    params(
        ("id" = String, Path, description = "The container’s id or name"),
        ("number" = u64, Path, description = "The program’s number")),
    responses(
        (status = 204), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody)))]
async fn end_exec(
    State(app): State<App>,
    caller: Caller,
    Path((key, number)): Path<(String, String)>,
) -> Result<StatusCode> {
    execs::end(&app, &caller, &key, &number).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Attaches to such a program by a WebSocket; whoever was attached before is not any more. Binary
/// messages from the server are one byte (1 standard output or terminal, 2 standard error) and then
/// output; binary messages to it are standard input. Text messages are JSON with one field: to the
/// server `{"resize": {"columns": 80, "rows": 24}}`, `{"signal": 2}`, `{"eof": true}` and
/// `{"received": 4096}` (bytes of output that have arrived; from the first such message on, at most
/// 128 KiB more than that are sent); from it `{"lost": 512}` (bytes that were not kept), `{"refused":
/// {"code": "…", "detail": "…"}}` and, last, `{"exited": {"code": 0, "signal": null}}`. Whoever lost the
/// connection comes back with `from`.
#[utoipa::path(get, path = "/api/v1/containers/{id}/execs/{number}/attach", tag = "containers",
    params(
        ("id" = String, Path, description = "The container’s id or name"),
        ("number" = u64, Path, description = "The program’s number"), AttachQuery),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 400, body = ProblemBody)))]
async fn attach_exec(
    State(app): State<App>,
    caller: Caller,
    Path((key, number)): Path<(String, String)>,
    Query(query): Query<AttachQuery>,
    seat: Option<axum::Extension<Seat>>,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    // Who may not know of it is told that, whatever else is wrong.
    execs::show(&app, &caller, &key, &number).await?;
    let door = Door::new(&app, &caller, seat, upgrade)?;
    let attachment = execs::attach(&app, &caller, &key, &number, query.from).await?;
    Ok(door.open(app, caller, attachment))
}

/// Attaches to the first program of a container that was made with `terminal` or `stdin`, by a WebSocket
/// that carries the same as that of `/execs/{number}/attach`. The newest 32 KiB of its output come
/// first. The program waits for nobody: `{"lost": 512}` says how much a slow reader was not sent; the
/// log has it. Detaching leaves the program as it is. When the server stops, the socket is closed with
/// 1001, and one comes back.
#[utoipa::path(get, path = "/api/v1/containers/{id}/attach", tag = "containers",
    params(("id" = String, Path, description = "Its id or name"), AttachQuery),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 400, body = ProblemBody), (status = 409, body = ProblemBody)))]
async fn attach_first(
    State(app): State<App>,
    caller: Caller,
    Path(key): Path<String>,
    Query(query): Query<AttachQuery>,
    seat: Option<axum::Extension<Seat>>,
    upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response> {
    // As above.
    execs::list(&app, &caller, &key).await?;
    let door = Door::new(&app, &caller, seat, upgrade)?;
    let attachment = execs::attach_first(&app, &caller, &key, query.from).await?;
    Ok(door.open(app, caller, attachment))
}

/// A WebSocket that is about to be.
struct Door {
    upgrade: WebSocketUpgrade,
    held: (StreamPlace, Option<Working>),
}

impl Door {
    fn new(
        app: &App,
        caller: &Caller,
        seat: Option<axum::Extension<Seat>>,
        upgrade: std::result::Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    ) -> Result<Self> {
        let upgrade = upgrade.map_err(|rejection| {
            Error::invalid("request.no-websocket", rejection.body_text().to_lowercase())
        })?;
        let held = (app.stream_place(caller.principal)?, seat.map(|seat| seat.0.work()));
        Ok(Self { upgrade, held })
    }

    fn open(self, app: App, caller: Caller, attachment: Attachment) -> Response {
        let Self { upgrade, held } = self;
        let upgrade = upgrade
            .max_message_size(MESSAGE_BYTES_MAX)
            .max_frame_size(MESSAGE_BYTES_MAX)
            .write_buffer_size(0);
        upgrade.on_upgrade(move |socket| async move {
            let _held = held;
            talk(app, caller, attachment, socket).await;
        })
    }
}

/// Carries bytes between a program and whoever is attached, until either ends or the right to it does.
async fn talk(app: App, caller: Caller, attachment: Attachment, socket: WebSocket) {
    let (sink, stream) = socket.split();
    let (said, saying) = mpsc::channel(1);
    let reading = read(&app, attachment.hands(), stream, said);
    tokio::pin!(reading);
    tokio::select! {
        () = write(&app, &caller, attachment, sink, saying) => {
            // The connection is closed when the other side has closed it too (RFC 6455, 7.1.1): closed on
            // what still comes from there, it would be reset, and the end of the output lost.
            tokio::time::timeout(FAREWELL_MAX, reading).await.ok();
        }
        () = &mut reading => {}
    }
}

/// Sends output and answers.
async fn write(
    app: &App,
    caller: &Caller,
    mut attachment: Attachment,
    mut sink: SplitSink<WebSocket, Message>,
    mut saying: mpsc::Receiver<Said>,
) {
    let at = attachment.at();
    let right = right_ends(app, caller, Some(&at));
    let mut pings = tokio::time::interval(PING_PAUSE);
    tokio::pin!(right);
    let close = loop {
        let message = tokio::select! {
            biased;
            () = &mut right => break right_ended(app),
            Some(said) = saying.recv() => text(&said),
            _ = pings.tick() => Message::Ping(Bytes::new()),
            part = attachment.next() => match part {
                Part::Bytes(output, bytes) => Message::Binary(marked(output, &bytes)),
                Part::Lost(bytes) => text(&Said::Lost(bytes)),
                Part::Replaced => break close(CLOSE_REPLACED, "attached to from elsewhere"),
                // The program and this ask for the right at the same time.
                Part::Ended(_) | Part::Left if !still_good_at(app, caller, Some(&at)).await.unwrap_or(true) => {
                    break right_ended(app);
                }
                Part::Left => break close(close_code::AWAY, "the program goes on; come back"),
                Part::Ended(Ended { code, signal }) => {
                    if sink.send(text(&Said::Exited { code, signal })).await.is_err() {
                        return;
                    }
                    break close(close_code::NORMAL, "the program has ended");
                }
            },
        };
        tokio::select! {
            () = &mut right => break right_ended(app),
            sent = sink.send(message) => if sent.is_err() { return },
        }
    };
    // Whoever is gone has no need of it.
    drop(sink.send(close).await);
    drop(sink.close().await);
}

/// Takes input and orders, as fast as the program does.
async fn read(
    app: &App,
    hands: Hands,
    mut stream: SplitStream<WebSocket>,
    said: mpsc::Sender<Said>,
) {
    while let Ok(Some(Ok(message))) = tokio::time::timeout(SILENCE_MAX, stream.next()).await {
        let done = match message {
            Message::Binary(bytes) => {
                hands.write(bytes).await;
                Ok(())
            }
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(order) => obey(app, &hands, order).await,
                Err(error) => Err(Error::invalid("request.malformed", error.to_string())),
            },
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(_) => return,
        };
        let Err(error) = done else { continue };
        let refused = Said::Refused { code: error.code().to_owned(), detail: error.to_string() };
        // One that waits already says as much.
        drop(said.try_send(refused));
    }
}

async fn obey(app: &App, hands: &Hands, order: Order) -> Result<()> {
    match order {
        Order::Resize(size) => hands.resize(size),
        Order::Signal(signal) if !(1..=64).contains(&signal) => {
            Err(Error::field("/signal", format!("{signal} is no signal; 1 to 64 are")))
        }
        Order::Signal(signal) => hands.signal(app, signal).await,
        Order::Eof(true) => {
            hands.end_input().await;
            Ok(())
        }
        Order::Eof(false) => Ok(()),
        Order::Received(bytes) => {
            hands.received(bytes);
            Ok(())
        }
    }
}

fn marked(output: Output, bytes: &Bytes) -> Bytes {
    let mut marked = BytesMut::with_capacity(1 + bytes.len());
    marked.put_u8(match output {
        Output::Stdout => 1,
        Output::Stderr => 2,
    });
    marked.put_slice(bytes);
    marked.freeze()
}

fn text(said: &Said) -> Message {
    let text = serde_json::to_string(said).expect("what is said has string keys only");
    Message::Text(text.into())
}

/// It ends with the server, too.
fn right_ended(app: &App) -> Message {
    match app.stopping.is_cancelled() {
        true => close(close_code::AWAY, "the server stops; come back"),
        false => close(close_code::POLICY, RIGHT_ENDED),
    }
}

fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}
