//! A program that people can come back to: it, what it has written last, and who is with it.
//!
//! Each has a task ([`Session::run`]) that owns the program's streams. Unless the program is a container's
//! first one (then see [`super::console`]), it ends the program when it is
//! told to, when nobody has been with it for `containers.unattended_secs`, and when the right of whoever was with
//! it last ends; it forgets nothing before that time is over, so that the end is seen by whoever comes
//! back.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use berth_runtime::id::{ContainerId, ExecId, PrincipalId};
use berth_runtime::wire::{ExecEvent, ExecOrder};
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::request::Size;
use super::ring::{Next, Output, Ring, WINDOW_BYTES};
use super::streams::{Inlet, Outlet, REST_BYTES_MAX, Read};
use super::{Ended, Execs, FIRST};
use crate::app::App;
use crate::auth::{Caller, Right};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::runtime_client::{ConsoleLine, ExecEnds, ExecLine};
use crate::service::sessions::right_ends;
use crate::service::sharing::At;

/// Pieces of input on their way to the program.
const INPUTS_MAX: usize = 4;
/// Bytes handed on at once.
const HANDED_BYTES_MAX: usize = 16 << 10;
/// ^D: what a terminal in its usual mode takes for the end of input (termios(3), `VEOF`).
const END_OF_INPUT: &[u8] = b"\x04";

/// The program and its container.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) container: ContainerId,
    pub(super) number: ExecId,
    /// Who has opened it.
    pub(super) by: (PrincipalId, String),
    pub(super) command: Vec<String>,
    pub(super) user: String,
    pub(super) terminal: bool,
    pub(super) started_at: Time,
}

/// One program.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) facts: Facts,
    shared: Mutex<Shared>,
    changed: watch::Sender<u64>,
    input: mpsc::Sender<Input>,
    size: watch::Sender<Option<Size>>,
    /// Whose right it goes on by.
    caller: watch::Sender<Caller>,
    ending: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    ring: Ring,
    ended: Option<Ended>,
    /// Who is with it, by number.
    attached: Option<u64>,
    attachments: u64,
    /// Up to where whoever is with it says to have its output.
    received: Option<u64>,
    /// Since when nobody is with it.
    alone_since: Instant,
    /// Whether it has ended without its program.
    left: bool,
}

/// For the program's standard input.
#[derive(Debug)]
pub(super) enum Input {
    Bytes(Bytes),
    End,
}

/// A program's ends of it all, as they come from the supervisor.
struct Streams {
    input: Inlet,
    outputs: Vec<(Output, Outlet)>,
}

/// The program of a session.
pub(super) enum Source {
    /// One that lives by the session.
    Program(ExecEnds),
    /// A container's first one.
    Console(ConsoleLine),
}

/// What a session's task is told.
pub(super) struct Orders {
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) sizes: watch::Receiver<Option<Size>>,
    pub(super) callers: watch::Receiver<Caller>,
}

/// The task's side of a new session.
pub(super) struct Work {
    source: Source,
    orders: Orders,
}

/// Somebody who is with a program. Another who comes takes their place.
#[derive(Debug)]
pub struct Attachment {
    session: Arc<Session>,
    number: u64,
    at: u64,
    changes: watch::Receiver<u64>,
}

/// What whoever is with a program can do.
#[derive(Debug, Clone)]
pub struct Hands {
    session: Arc<Session>,
    number: u64,
}

/// What there is for whoever is with a program.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// Output.
    Bytes(Output, Bytes),
    /// So many bytes of output were too old to be kept.
    Lost(u64),
    /// It has ended, and all of its output was given.
    Ended(Ended),
    /// Somebody else has come in one's place.
    Replaced,
    /// The session has ended, and its program has not.
    Left,
}

impl Facts {
    /// Whether the caller may be with it, in a container of `owner`.
    pub(super) fn is_for(&self, caller: &Caller, owner: PrincipalId) -> bool {
        caller.principal == owner || caller.principal == self.by.0
    }

    /// What whoever is with it is at.
    pub(super) fn at(&self) -> At {
        At::of(self.container.clone(), Right::Terminal)
    }
}

impl Session {
    pub(super) fn new(facts: Facts, caller: &Caller, source: Source) -> (Arc<Self>, Work) {
        let (input, inputs) = mpsc::channel(INPUTS_MAX);
        let (size, sizes) = watch::channel(None);
        let (caller, callers) = watch::channel(caller.clone());
        let shared = Shared {
            ring: Ring::default(),
            ended: None,
            attached: None,
            attachments: 0,
            received: None,
            alone_since: Instant::now(),
            left: false,
        };
        let session = Self {
            facts,
            shared: Mutex::new(shared),
            changed: watch::channel(0).0,
            input,
            size,
            caller,
            ending: CancellationToken::new(),
        };
        (Arc::new(session), Work { source, orders: Orders { inputs, sizes, callers } })
    }

    /// How it has ended, if it has.
    pub(super) fn ended(&self) -> Option<Ended> {
        self.held().ended
    }

    /// Whether somebody is with it.
    pub(super) fn is_attended(&self) -> bool {
        self.held().attached.is_some()
    }

    /// All bytes that it has written.
    pub(super) fn output_bytes(&self) -> u64 {
        self.held().ring.end()
    }

    /// Has it ended and forgotten.
    pub(super) fn end(&self) {
        self.ending.cancel();
    }

    /// Somebody comes, who has its output up to `from`; by their right it goes on.
    pub(super) fn attach(self: &Arc<Self>, caller: &Caller, from: u64) -> Result<Attachment> {
        let mut shared = self.held();
        if from > shared.ring.end() {
            let detail = format!("only {} bytes were written", shared.ring.end());
            return Err(Error::field("?from", detail));
        }
        shared.attachments += 1;
        let number = shared.attachments;
        shared.attached = Some(number);
        shared.received = None;
        shared.ring.rewind(from);
        drop(shared);
        self.caller.send_replace(caller.clone());
        self.tell();
        let changes = self.changed.subscribe();
        Ok(Attachment { session: self.clone(), number, at: from, changes })
    }

    /// The session's whole life from here on.
    pub(super) async fn run(self: Arc<Self>, app: App, work: Work) {
        match work.source {
            Source::Program(ends) => self.run_program(app, ends, work.orders).await,
            Source::Console(line) => self.run_console(app, line, work.orders).await,
        }
    }

    async fn run_program(self: Arc<Self>, app: App, ends: ExecEnds, orders: Orders) {
        let Orders { inputs, sizes, callers } = orders;
        let ExecEnds { line, streams } = ends;
        let Ok(Streams { input, outputs }) = Streams::new(streams) else {
            // They cannot be waited for: the program ends as the line is dropped.
            self.finish(Ended::default());
            return;
        };
        let over = CancellationToken::new();
        let reading = outputs
            .into_iter()
            .map(|(output, outlet)| tokio::spawn(self.clone().read(output, outlet, over.clone())));
        let reading: Vec<_> = reading.collect();
        tokio::spawn(write(input, inputs, self.facts.terminal, over.clone()));
        let ended = self.watch_over(&app, line, sizes, callers).await;
        over.cancel();
        let rest = async {
            for task in reading {
                // It can only have been lost with the whole server.
                drop(task.await);
            }
        };
        let () = tokio::select! { () = rest => {}, () = self.is_left(&app) => {} };
        self.finish(ended);
        self.is_left(&app).await;
    }

    /// Waits for the end of the program, and sees to it when it is to be ended.
    async fn watch_over(
        &self,
        app: &App,
        line: ExecLine,
        mut sizes: watch::Receiver<Option<Size>>,
        callers: watch::Receiver<Caller>,
    ) -> Ended {
        let resize = async {
            while sizes.changed().await.is_ok() {
                let size = *sizes.borrow_and_update();
                let Some(size) = size.map(Size::on_the_wire) else { continue };
                if let Err(errno) = line.order(ExecOrder::Resize(size)).await {
                    tracing::debug!(%errno, "a terminal was not told its size");
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            event = line.event() => Ended::from_event(event),
            () = right_of(app, callers, self.facts.at()) => Ended::default(),
            () = self.is_left(app) => Ended::default(),
            () = resize => Ended::default(),
        }
    }

    /// Reads an output as far as there is room, to its end or the program's.
    async fn read(self: Arc<Self>, output: Output, outlet: Outlet, over: CancellationToken) {
        let mut rest = REST_BYTES_MAX;
        loop {
            let room = self.room().await.min(rest);
            let read = tokio::select! {
                biased;
                read = outlet.read(room) => read,
                () = over.cancelled() => outlet.read_now(room),
            };
            match read {
                Ok(Read::Bytes(bytes)) => {
                    if over.is_cancelled() {
                        rest -= bytes.len();
                    }
                    self.keep(output, bytes);
                    if rest == 0 {
                        return;
                    }
                }
                Ok(Read::End | Read::Nothing) => return,
                Err(error) => {
                    tracing::debug!(error = %error, "a program's output cannot be read");
                    return;
                }
            }
        }
    }

    /// Waits until there is room for output.
    async fn room(&self) -> usize {
        let mut changes = self.changed.subscribe();
        loop {
            let room = self.held().ring.room();
            if room > 0 || changes.changed().await.is_err() {
                return room.max(1);
            }
        }
    }

    /// Keeps output.
    pub(super) fn keep(&self, output: Output, bytes: Bytes) {
        self.held().ring.push(output, bytes);
        self.tell();
    }

    /// So many bytes of output did not come here.
    pub(super) fn lose(&self, bytes: u64) {
        self.held().ring.lose(bytes);
        self.tell();
    }

    /// Ends without its program.
    pub(super) fn leave(&self) {
        self.held().left = true;
        self.finish(Ended::default());
    }

    /// Waits until nobody has been with it for a while, it is to be ended, or the server stops.
    pub(super) async fn is_left(&self, app: &App) {
        let mut changes = self.changed.subscribe();
        let patience = Duration::from_secs(app.config.containers.unattended_secs.into());
        loop {
            let (attended, since) = {
                let shared = self.held();
                (shared.attached.is_some(), shared.alone_since)
            };
            let alone = async {
                match attended {
                    true => std::future::pending().await,
                    false => tokio::time::sleep_until(since + patience).await,
                }
            };
            tokio::select! {
                () = app.stopping.cancelled() => return,
                () = self.ending.cancelled() => return,
                () = alone => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    pub(super) fn finish(&self, ended: Ended) {
        let mut shared = self.held();
        shared.ended.get_or_insert(ended);
        if shared.attached.is_none() {
            shared.alone_since = Instant::now();
        }
        drop(shared);
        self.tell();
    }

    fn tell(&self) {
        self.changed.send_modify(|number| *number = number.wrapping_add(1));
    }

    fn held(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until the right by which a session goes on has ended.
pub(super) async fn right_of(app: &App, mut callers: watch::Receiver<Caller>, at: At) {
    loop {
        let caller = callers.borrow_and_update().clone();
        tokio::select! {
            () = right_ends(app, &caller, Some(&at)) => return,
            changed = callers.changed() => if changed.is_err() { return },
        }
    }
}

impl Streams {
    fn new(fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut fds = fds.into_iter();
        let first = fds.next().ok_or(io::ErrorKind::NotFound)?;
        let outputs: Vec<_> = match (fds.next(), fds.next()) {
            (Some(stdout), Some(stderr)) => {
                vec![(Output::Stdout, stdout), (Output::Stderr, stderr)]
            }
            // A terminal goes both ways.
            _ => vec![(Output::Stdout, first.try_clone()?)],
        };
        let outlet = |(output, fd)| Ok((output, Outlet::new(fd)?));
        let outputs = outputs.into_iter().map(outlet).collect::<io::Result<_>>()?;
        Ok(Self { input: Inlet::new(first)?, outputs })
    }
}

/// Writes to a program's standard input what comes for it.
async fn write(
    inlet: Inlet,
    mut inputs: mpsc::Receiver<Input>,
    terminal: bool,
    over: CancellationToken,
) {
    let work = async {
        while let Some(input) = inputs.recv().await {
            let written = match &input {
                Input::Bytes(bytes) => inlet.write(bytes).await,
                Input::End if terminal => inlet.write(END_OF_INPUT).await,
                Input::End => return,
            };
            // Nobody reads there any more; what comes later has nowhere to go, either.
            if written.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = work => {}, () = over.cancelled() => {} }
}

impl Attachment {
    /// What comes next.
    pub async fn next(&mut self) -> Part {
        loop {
            self.changes.mark_unchanged();
            if let Some(part) = self.next_now() {
                return part;
            }
            if self.changes.changed().await.is_err() {
                return Part::Replaced;
            }
        }
    }

    /// What whoever is with it is at.
    pub fn at(&self) -> At {
        self.session.facts.at()
    }

    /// For another task.
    pub fn hands(&self) -> Hands {
        Hands { session: self.session.clone(), number: self.number }
    }

    fn next_now(&mut self) -> Option<Part> {
        let mut shared = self.session.held();
        if shared.attached != Some(self.number) {
            return Some(Part::Replaced);
        }
        // Whoever says what they have received is not sent more than they may lack.
        let open = match shared.received {
            Some(received) => (received + WINDOW_BYTES).saturating_sub(self.at),
            None => HANDED_BYTES_MAX as u64,
        };
        let most = usize::try_from(open).unwrap_or(HANDED_BYTES_MAX).min(HANDED_BYTES_MAX);
        let next = match most {
            0 => return None,
            most => shared.ring.after(self.at, most),
        };
        match next {
            Next::Bytes(output, bytes) => {
                self.at += bytes.len() as u64;
                if shared.received.is_none() {
                    shared.ring.take(self.at);
                    drop(shared);
                    self.session.tell();
                }
                Some(Part::Bytes(output, bytes))
            }
            Next::Lost(bytes) => {
                self.at += bytes;
                Some(Part::Lost(bytes))
            }
            Next::Nothing if shared.left => Some(Part::Left),
            Next::Nothing => shared.ended.map(Part::Ended),
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let mut shared = self.session.held();
        if shared.attached == Some(self.number) {
            shared.attached = None;
            shared.received = None;
            shared.alone_since = Instant::now();
        }
        drop(shared);
        self.session.tell();
    }
}

impl Hands {
    /// For its standard input. Waits while the program reads nothing.
    pub async fn write(&self, bytes: Bytes) {
        self.give(Input::Bytes(bytes)).await;
    }

    /// There will be no more input.
    pub async fn end_input(&self) {
        self.give(Input::End).await;
    }

    /// The terminal has another size.
    ///
    /// # Errors
    /// When no terminal has that size, or the program has none.
    pub fn resize(&self, size: Size) -> Result<()> {
        if !self.session.facts.terminal {
            return Err(Error::invalid("request.invalid", "the program has no terminal"));
        }
        if !size.is_possible() {
            return Err(Error::field("/resize", "columns and rows are 1 to 1000"));
        }
        self.session.size.send_replace(Some(size));
        Ok(())
    }

    /// Output before `bytes` has arrived.
    pub fn received(&self, bytes: u64) {
        let mut shared = self.session.held();
        if shared.attached == Some(self.number) {
            let bytes = bytes.min(shared.ring.end()).max(shared.received.unwrap_or(0));
            shared.received = Some(bytes);
            shared.ring.take(bytes);
        }
        drop(shared);
        self.session.tell();
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    /// As the supervisor's.
    pub async fn signal(&self, app: &App, signal: i32) -> Result<()> {
        let Facts { container, number, .. } = &self.session.facts;
        match *number {
            FIRST => Ok(app.runtime.container_signal(container, signal).await?),
            number => Ok(app.runtime.exec_signal(container, number, signal).await?),
        }
    }

    async fn give(&self, input: Input) {
        let current = self.session.held().attached == Some(self.number);
        // The task is gone only when the program is.
        if current && self.session.input.send(input).await.is_err() {
            tracing::debug!("input for a program that has ended");
        }
    }
}

impl Ended {
    fn from_event(event: Option<ExecEvent>) -> Self {
        match event {
            Some(ExecEvent::Exited { code, signal }) => Self { code, signal },
            None => Self::default(),
        }
    }
}

impl Execs {
    /// Runs a session's task; it is listed until the task ends.
    pub(super) fn begin(app: &App, session: &Arc<Session>, work: Work) {
        let (app, session) = (app.clone(), session.clone());
        tokio::spawn(async move {
            session.clone().run(app.clone(), work).await;
            app.execs.forget(&session);
        });
    }
}
