//! Programs that are run in a container beside its first one: at once, with an answer that holds all they
//! have written ([`run`]), or as a session that people attach to and come back to ([`open`]).
//!
//! What confines them is the supervisor's to decide; here is who may run them, and for how long: a
//! container's owner, and those with whom they have shared that. Of sessions these see their own alone, so that
//! nobody's ends with somebody else's right. A program ends with the right of whoever is with it,
//! and with the server, since nobody could reach it again.

mod console;
mod once;
mod request;
mod ring;
mod session;
mod streams;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_runtime::id::{ContainerId, ExecId};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::{Caller, Right};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::containers::{self, Container};
use crate::runtime_client::ExecEnds;
use crate::service::containers::find_for;
use crate::service::containers::spec::signal_name;

pub use console::attach as attach_first;
pub use once::{OnceRequest, OnceView, run};
pub use request::{ProgramRequest, Size};
pub use ring::Output;
pub use session::{Attachment, Hands, Part};

use session::{Facts, Session, Source};

/// Sessions of everybody together, and programs that are answered at once together: each may hold some
/// hundred KiB.
const PROGRAMS_MAX: usize = 256;
/// The number of a container's first program among its sessions; those beside it count from 1.
const FIRST: ExecId = ExecId(0);
/// Sessions of one container that are listed, those that have ended included.
const LISTED_MAX: usize = 32;

/// The sessions there are.
#[derive(Debug)]
pub struct Execs {
    sessions: Mutex<BTreeMap<(ContainerId, ExecId), Arc<Session>>>,
    at_once: Semaphore,
    /// Held while it is found out whether somebody is with a first program already.
    console: tokio::sync::Mutex<()>,
}

/// A session to be opened.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SessionCreate, example = json!({
    "program": {"command": ["sh"]}, "terminal": {"columns": 80, "rows": 24},
}))]
pub struct OpenRequest {
    /// What is run.
    pub program: ProgramRequest,
    /// A terminal of this size; without one its input and outputs are three pipes.
    pub terminal: Option<Size>,
}

/// How a program has ended; both are null when it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that has ended it.
    pub signal: Option<i32>,
}

/// A session.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerExec)]
pub struct SessionView {
    /// Its number in its container.
    pub id: u64,
    /// Who has opened it.
    pub opened_by: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// As whom it runs, as it was asked for; empty for the container's first user.
    pub user: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// When it was opened.
    pub started_at: Time,
    /// Whether it runs.
    pub running: bool,
    /// Its exit code, if it has ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that has ended it, such as `KILL`.
    pub exit_signal: Option<String>,
    /// Whether somebody is attached.
    pub attached: bool,
    /// All bytes that it has written and that were read of it.
    pub output_bytes: u64,
}

impl Default for Execs {
    fn default() -> Self {
        Self {
            sessions: Mutex::default(),
            at_once: Semaphore::new(PROGRAMS_MAX),
            console: tokio::sync::Mutex::default(),
        }
    }
}

impl Execs {
    fn held(&self) -> MutexGuard<'_, BTreeMap<(ContainerId, ExecId), Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Containers in which somebody has a program open, or is with the first one.
    pub(crate) fn open_in(&self) -> HashSet<ContainerId> {
        let sessions = self.held();
        let open = sessions.iter().filter(|((_, number), session)| match *number == FIRST {
            true => session.is_attended(),
            false => session.ended().is_none(),
        });
        open.map(|((container, _), _)| container.clone()).collect()
    }

    fn of(&self, id: &ContainerId) -> Vec<Arc<Session>> {
        let first = (id.clone(), ExecId(FIRST.0 + 1));
        let sessions = self.held();
        let theirs = sessions.range(first..).take_while(|((container, _), _)| container == id);
        theirs.map(|(_, session)| session.clone()).collect()
    }

    fn find(&self, id: &ContainerId, number: &str) -> Result<Arc<Session>> {
        let number = number.parse().ok().map(ExecId).filter(|number| *number != FIRST);
        let session = number.and_then(|number| self.of_number(id, number));
        session.ok_or(Error::NotFound("session"))
    }

    fn of_number(&self, id: &ContainerId, number: ExecId) -> Option<Arc<Session>> {
        self.held().get(&(id.clone(), number)).cloned()
    }

    /// Lists a session, and forgets the oldest of its container's ended ones when there are too many.
    fn note(&self, session: &Arc<Session>) {
        let Facts { container, number, .. } = &session.facts;
        let theirs = self.of(container);
        if theirs.len() >= LISTED_MAX
            && let Some(oldest) = theirs.iter().find(|session| session.ended().is_some())
        {
            oldest.end();
        }
        self.held().insert((container.clone(), *number), session.clone());
    }

    fn forget(&self, session: &Session) {
        let Facts { container, number, .. } = &session.facts;
        let key = (container.clone(), *number);
        let mut sessions = self.held();
        // Another one may have its place by now.
        if sessions.get(&key).is_some_and(|listed| std::ptr::eq(&raw const **listed, session)) {
            sessions.remove(&key);
        }
    }

    /// Whether there is room for one more session of anybody's.
    fn check_room(&self) -> Result<()> {
        let sessions = self.held();
        if sessions.len() < PROGRAMS_MAX {
            return Ok(());
        }
        Err(Error::unavailable("server.busy", "too many programs at once; try again in a moment"))
    }
}

/// Runs a program in a container and leaves it to be attached to.
pub async fn open(
    app: &App,
    caller: &Caller,
    key: &str,
    request: OpenRequest,
) -> Result<SessionView> {
    let OpenRequest { program, terminal } = request;
    let row = to_run_in(app, caller, key, &program, terminal).await?;
    app.execs.check_room()?;
    let command = program.command.clone();
    let (number, user, ends) = begin(app, caller, &row, program, terminal).await?;
    let facts = Facts {
        container: row.id,
        number,
        by: (caller.principal, caller.name.clone()),
        command,
        user,
        terminal: terminal.is_some(),
        started_at: Time::now(),
    };
    let (session, work) = Session::new(facts, caller, Source::Program(ends));
    app.execs.note(&session);
    Execs::begin(app, &session, work);
    Ok(SessionView::of(&session))
}

/// A container's sessions, oldest first: all for its owner, their own for others.
pub async fn list(app: &App, caller: &Caller, key: &str) -> Result<Vec<SessionView>> {
    let row = find_for(app, caller, key, Right::Terminal).await?;
    let sessions = app.execs.of(&row.id);
    let visible = sessions.iter().filter(|session| session.facts.is_for(caller, row.owner));
    Ok(visible.map(|session| SessionView::of(session)).collect())
}

/// One session.
pub async fn show(app: &App, caller: &Caller, key: &str, number: &str) -> Result<SessionView> {
    let session = find_session(app, caller, key, number).await?;
    Ok(SessionView::of(&session))
}

/// Ends a session and its program.
pub async fn end(app: &App, caller: &Caller, key: &str, number: &str) -> Result<()> {
    let session = find_session(app, caller, key, number).await?;
    session.end();
    // From here on it is not there any more; its task sees to the rest.
    app.execs.forget(&session);
    Ok(())
}

/// Attaches to a session, with its output from byte `from` on. Whoever was attached is not any more.
pub async fn attach(
    app: &App,
    caller: &Caller,
    key: &str,
    number: &str,
    from: u64,
) -> Result<Attachment> {
    find_session(app, caller, key, number).await?.attach(caller, from)
}

async fn find_session(app: &App, caller: &Caller, key: &str, number: &str) -> Result<Arc<Session>> {
    let row = find_for(app, caller, key, Right::Terminal).await?;
    let session = app.execs.find(&row.id, number)?;
    match session.facts.is_for(caller, row.owner) {
        true => Ok(session),
        false => Err(Error::NotFound("session")),
    }
}

/// The container, if the caller may run this in it.
async fn to_run_in(
    app: &App,
    caller: &Caller,
    key: &str,
    program: &ProgramRequest,
    terminal: Option<Size>,
) -> Result<Container> {
    let row = find_for(app, caller, key, Right::Terminal).await?;
    program.check(terminal)?;
    Ok(row)
}

/// Has the program run: its number, its user and its streams.
async fn begin(
    app: &App,
    caller: &Caller,
    row: &Container,
    program: ProgramRequest,
    terminal: Option<Size>,
) -> Result<(ExecId, String, ExecEnds)> {
    let spec = request::spec_of(row)?;
    let mut write = app.inventory.change(&caller.actor, "container.exec").await?;
    write.subject("container", &row.id, row.owner);
    let number = ExecId(containers::next_exec(write.db(), &row.id).await?);
    let request = program.merge(row, spec, number, terminal)?;
    let user = request.user.clone();
    write.commit().await?;
    match app.runtime.container_exec(request).await {
        Ok(ends) => Ok((number, user, ends)),
        Err(error) if error.is_not_found() => {
            Err(Error::conflict("container.not-running", "the container does not run"))
        }
        Err(error) => Err(error.into()),
    }
}

impl SessionView {
    fn of(session: &Session) -> Self {
        let facts = &session.facts;
        let ended = session.ended();
        Self {
            id: facts.number.0,
            opened_by: facts.by.1.clone(),
            command: facts.command.clone(),
            user: facts.user.clone(),
            terminal: facts.terminal,
            started_at: facts.started_at,
            running: ended.is_none(),
            exit_code: ended.and_then(|ended| ended.code),
            exit_signal: ended.and_then(|ended| ended.signal).map(signal_name),
            attached: session.is_attended(),
            output_bytes: session.output_bytes(),
        }
    }
}
