//! Being with a container's first program. It is a session like others, but the program is not the
//! session's: it goes on when the session ends, and it waits for nobody. Output that a slow reader
//! leaves is told as lost; the log has it.

use std::sync::Arc;

use berth_runtime::console::{ConsoleEvent, ConsoleOrder, PIECE_BYTES_MAX};

use super::ring::Output;
use super::session::{Attachment, Facts, Input, Orders, Session, Source, right_of};
use super::{Ended, Execs, FIRST};
use crate::app::App;
use crate::auth::{Caller, Right};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::runtime_client::ConsoleLine;
use crate::service::containers::find_for;

use super::request::spec_of;

/// Attaches to a container's first program, with its output from byte `from` on, which counts
/// from when the session began.
///
/// # Errors
/// When the container does not run, or was made without a terminal and without standard input.
pub async fn attach(app: &App, caller: &Caller, key: &str, from: u64) -> Result<Attachment> {
    let row = find_for(app, caller, key, Right::Terminal).await?;
    let _only = app.execs.console.lock().await;
    if let Some(session) = app.execs.of_number(&row.id, FIRST).filter(|one| one.ended().is_none()) {
        // Whoever counts from a session before this one has more behind them than it has written.
        return session.attach(caller, from.min(session.output_bytes()));
    }
    let spec = spec_of(&row)?;
    if spec.console.is_none() {
        return Err(Error::conflict(
            "container.no-console",
            "it was made without a terminal and without standard input; follow its log instead",
        ));
    }
    app.execs.check_room()?;
    let line = match app.runtime.container_attach(&row.id).await {
        Ok(line) => line,
        Err(error) if error.is_not_found() || error.is_not_running() => {
            return Err(Error::conflict("container.not-running", "the container does not run"));
        }
        Err(error) => return Err(error.into()),
    };
    let facts = Facts {
        container: row.id,
        number: FIRST,
        by: (caller.principal, caller.name.clone()),
        command: spec.process.args,
        user: spec.process.user,
        terminal: spec.console.terminal.is_some(),
        started_at: Time::now(),
    };
    let (session, work) = Session::new(facts, caller, Source::Console(line));
    // What its monitor has kept comes first.
    let attachment = session.attach(caller, 0)?;
    app.execs.note(&session);
    Execs::begin(app, &session, work);
    Ok(attachment)
}

impl Session {
    /// Carries input and output until the program has ended, or the session is to.
    pub(super) async fn run_console(self: Arc<Self>, app: App, line: ConsoleLine, orders: Orders) {
        let Orders { mut inputs, mut sizes, callers } = orders;
        let output = async {
            loop {
                let Some(message) = line.receive().await else { return Ended::default() };
                match ConsoleEvent::read(&message) {
                    Some(ConsoleEvent::Stdout(_)) => self.keep(Output::Stdout, message.slice(1..)),
                    Some(ConsoleEvent::Stderr(_)) => self.keep(Output::Stderr, message.slice(1..)),
                    Some(ConsoleEvent::Lost(bytes)) => self.lose(bytes),
                    Some(ConsoleEvent::Exited { code, signal }) => return Ended { code, signal },
                    None => return Ended::default(),
                }
            }
        };
        let input = async {
            let mut message = Vec::new();
            loop {
                let sent = tokio::select! {
                    Some(input) = inputs.recv() => match input {
                        Input::Bytes(bytes) => send_input(&line, &bytes, &mut message).await,
                        Input::End => send(&line, ConsoleOrder::End, &mut message).await,
                    },
                    Ok(()) = sizes.changed() => {
                        let size = *sizes.borrow_and_update();
                        match size {
                            Some(size) => {
                                let order = ConsoleOrder::Resize(size.on_the_wire());
                                send(&line, order, &mut message).await
                            }
                            None => Ok(()),
                        }
                    }
                    else => break,
                };
                if let Err(errno) = sent {
                    tracing::debug!(%errno, "a first program's monitor takes no orders");
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = output => self.finish(ended),
            () = input => {}
            () = right_of(&app, callers, self.facts.at()) => self.leave(),
            () = self.is_left(&app) => self.leave(),
        }
        self.is_left(&app).await;
    }
}

async fn send_input(line: &ConsoleLine, bytes: &[u8], message: &mut Vec<u8>) -> nix::Result<()> {
    for piece in bytes.chunks(PIECE_BYTES_MAX) {
        send(line, ConsoleOrder::Input(piece), message).await?;
    }
    Ok(())
}

async fn send(
    line: &ConsoleLine,
    order: ConsoleOrder<'_>,
    message: &mut Vec<u8>,
) -> nix::Result<()> {
    order.write(message);
    line.send(message).await
}
