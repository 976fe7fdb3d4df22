//! What comes out of a container: its log, its processes, what it uses.

use std::time::Duration;

use futures_util::Stream;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use utoipa::ToSchema;

use super::{find, find_for, status_of};
use crate::app::App;
use crate::auth::{Caller, Right};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::containers::Container;
use crate::service::lifecycle::Status;
use crate::service::logs::{LogEntry, LogReader, LogSelection};
use crate::service::sharing::At;
use crate::service::stats::{self, Sample};

/// Between two looks at the size of a log that is being followed.
const FOLLOW_PAUSE: Duration = Duration::from_millis(100);
/// A follower asks for new segments after so many quiet looks, or at once when the segment is full.
const QUIET_LOOKS_MAX: u32 = 10;
/// Between two samples of a stream.
const SAMPLE_PAUSE: Duration = Duration::from_secs(1);

/// A searched text's bytes at most.
pub const SEARCH_TEXT_BYTES_MAX: usize = 256;
/// Searches that work at once, of everybody together: each keeps a processor busy.
static SEARCHES: Semaphore = Semaphore::const_new(2);

/// A process of a container.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerProcess)]
pub struct ProcessView {
    /// Its id inside.
    pub pid: i32,
    /// Its parent's id inside; 0 for the first process.
    pub parent: i32,
    /// Its user id inside.
    pub uid: u32,
    /// One letter, as in `/proc/<pid>/stat`.
    pub state: char,
    /// Processor time used.
    pub cpu_seconds: f64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Since its start.
    pub age_seconds: u64,
    /// The command line, for its owner and those with whom it is shared.
    pub command: Option<String>,
}

/// A container's processes.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerProcesses)]
pub struct ProcessesView {
    /// The processes.
    pub items: Vec<ProcessView>,
    /// Whether there are more.
    pub truncated: bool,
}

/// A container's figures.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerFigures)]
pub struct StatsView {
    /// The container.
    pub id: String,
    /// Which run they are of.
    pub run: u64,
    /// Its limits.
    pub limits: super::view::LimitsView,
    /// The kernel's counters.
    pub sample: Sample,
}

/// What a follower of a log gets.
#[derive(Debug)]
pub enum LogPart {
    /// Records, in order.
    Entries(Vec<LogEntry>),
    /// Older ones were rotated away before they could be read.
    Gap,
    /// Older ones were not looked through: a search looks at the newest part alone.
    Cut,
}

/// The processes now.
pub async fn processes(app: &App, caller: &Caller, key: &str) -> Result<ProcessesView> {
    let row = find(app, caller, key).await?;
    let own = row.rights(caller).has(Right::Files);
    let (processes, truncated) = match app.runtime.container_processes(&row.id).await {
        Ok(found) => found,
        Err(error) if error.is_not_found() => return Err(not_running()),
        Err(error) => return Err(error.into()),
    };
    let view = |process: berth_runtime::wire::ProcessInfo| ProcessView {
        pid: process.pid,
        parent: process.parent,
        uid: process.uid,
        state: process.state,
        cpu_seconds: process.cpu_seconds,
        memory_bytes: process.memory_bytes,
        age_seconds: process.age_seconds,
        command: own.then_some(process.command),
    };
    Ok(ProcessesView { items: processes.into_iter().map(view).collect(), truncated })
}

/// One sample of what it uses.
pub async fn stats(app: &App, caller: &Caller, key: &str) -> Result<StatsView> {
    let row = find(app, caller, key).await?;
    sample(app, &row).await
}

/// A sample a second while it runs, each with the processor's rate since the one before.
pub async fn follow_stats(
    app: &App,
    caller: &Caller,
    key: &str,
) -> Result<(At, impl Stream<Item = Result<StatsView>> + Send + 'static + use<>)> {
    let row = find(app, caller, key).await?;
    let mut before = sample(app, &row).await?;
    let at = At::new(&row, Right::State);
    let (app, caller, id) = (app.clone(), caller.clone(), row.id);
    let samples = async_stream::try_stream! {
        yield before.clone();
        loop {
            tokio::time::sleep(SAMPLE_PAUSE).await;
            let row = find(&app, &caller, id.as_str()).await?;
            let Ok(mut next) = sample(&app, &row).await else { break };
            if next.run == before.run {
                next.sample = next.sample.since(&before.sample);
            }
            before = next.clone();
            yield next;
        }
    };
    Ok((at, samples))
}

/// The log from the selected place to its end now; for those who have the right to.
pub async fn logs(
    app: &App,
    caller: &Caller,
    key: &str,
    selection: LogSelection,
) -> Result<(At, impl Stream<Item = Result<LogPart>> + Send + 'static + use<>)> {
    let (row, mut reader) = open(app, caller, key, selection).await?;
    let parts = async_stream::try_stream! {
        if reader.take_cut() {
            yield LogPart::Cut;
        }
        loop {
            let (entries, gap);
            (reader, entries, gap) = read(reader).await?;
            if gap {
                yield LogPart::Gap;
            }
            if entries.is_empty() {
                break;
            }
            yield LogPart::Entries(entries);
        }
    };
    Ok((At::new(&row, Right::Logs), parts))
}

/// The log from the selected place on, until the container rests and all of it is read. It goes on
/// over restarts of the container and absences of the supervisor.
pub async fn follow_logs(
    app: &App,
    caller: &Caller,
    key: &str,
    selection: LogSelection,
) -> Result<(At, impl Stream<Item = Result<LogPart>> + Send + 'static + use<>)> {
    let (row, mut reader) = open(app, caller, key, selection).await?;
    let at = At::new(&row, Right::Logs);
    let (app, caller, id) = (app.clone(), caller.clone(), row.id);
    let parts = async_stream::try_stream! {
        let mut quiet = 0;
        if reader.take_cut() {
            yield LogPart::Cut;
        }
        loop {
            // Asked before reading: what was written before it rested is then read below.
            let row = find_for(&app, &caller, id.as_str(), Right::Logs).await?;
            let rests = rests(&app, &row);
            if rests || quiet >= QUIET_LOOKS_MAX || is_full(&app, &reader) {
                refresh(&app, &id, &mut reader).await;
                quiet = 0;
            }
            let mut read_any = false;
            loop {
                let (entries, gap);
                (reader, entries, gap) = read(reader).await?;
                if gap {
                    yield LogPart::Gap;
                }
                if entries.is_empty() {
                    break;
                }
                read_any = true;
                yield LogPart::Entries(entries);
            }
            if rests && !read_any {
                break;
            }
            while quiet < QUIET_LOOKS_MAX && at_end(&reader)? && !is_full(&app, &reader) {
                tokio::time::sleep(FOLLOW_PAUSE).await;
                quiet += 1;
            }
        }
    };
    Ok((at, parts))
}

/// The time that a query's `since` means, as the log writes it.
pub fn parse_since(text: &str) -> Result<String> {
    Ok(parse_time(text)?.to_string())
}

/// The time that a query's `since` means: RFC 3339, or seconds since 1970.
pub fn parse_time(text: &str) -> Result<Time> {
    let wrong = || Error::field("?since", "is neither a time (RFC 3339, UTC with Z) nor seconds");
    Time::parse(text).ok_or_else(wrong)
}

async fn sample(app: &App, row: &Container) -> Result<StatsView> {
    let record = app.containers.observed(&row.id);
    let Some(live) = record.as_ref().and_then(|record| record.live.as_ref()) else {
        return Err(not_running());
    };
    let paths = live.cgroup.clone();
    let run = record.as_ref().map_or(row.run, |record| record.run);
    let read = tokio::task::spawn_blocking(move || stats::read(&paths)).await;
    match read {
        Ok(Ok(sample)) => {
            Ok(StatsView { id: row.id.to_string(), run, limits: row.limits.into(), sample })
        }
        // It has ended since: the kernel's files go with it.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Err(not_running()),
        Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::ENODEV) => Err(not_running()),
        Ok(Err(error)) => Err(Error::broken("read the kernel's counters", error)),
        Err(error) => Err(Error::broken("read the kernel's counters", error)),
    }
}

async fn open(
    app: &App,
    caller: &Caller,
    key: &str,
    selection: LogSelection,
) -> Result<(Container, LogReader)> {
    let row = find_for(app, caller, key, Right::Logs).await?;
    let segments = match app.runtime.container_logs(&row.id).await {
        Ok(segments) => segments,
        // Never started: an empty log.
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let _turn = turn(selection.contains.is_some()).await;
    let opened = tokio::task::spawn_blocking(move || LogReader::open(segments, selection)).await;
    let reader = opened
        .map_err(|error| Error::broken("read a log", error))?
        .map_err(|error| Error::broken("read a log", error))?;
    Ok((row, reader))
}

async fn read(mut reader: LogReader) -> Result<(LogReader, Vec<LogEntry>, bool)> {
    let _turn = turn(reader.is_search()).await;
    let read = tokio::task::spawn_blocking(move || {
        let gap = reader.take_gap();
        reader.read().map(|entries| (reader, entries, gap))
    });
    read.await
        .map_err(|error| Error::broken("read a log", error))?
        .map_err(|error| Error::broken("read a log", error))
}

/// A place among the searches; held only while one works, never while its reader is slow.
async fn turn(search: bool) -> Option<SemaphorePermit<'static>> {
    if !search {
        return None;
    }
    // The semaphore is never closed.
    SEARCHES.acquire().await.ok()
}

/// New segments, if the supervisor is there to hand them out; what is open stays good without it.
async fn refresh(app: &App, id: &berth_runtime::id::ContainerId, reader: &mut LogReader) {
    match app.runtime.container_logs(id).await {
        Ok(segments) => reader.refresh(segments),
        Err(error) => tracing::debug!(container = %id, error = %error, "no new log segments"),
    }
}

fn is_full(app: &App, reader: &LogReader) -> bool {
    // A record is not split between segments, so rotation may come a record's length early.
    let full = app.config.containers.log_file_bytes.saturating_sub(32 << 10);
    reader.cursor().is_some_and(|cursor| cursor.offset >= full)
}

fn at_end(reader: &LogReader) -> Result<bool> {
    reader.at_end().map_err(|error| Error::broken("read a log", error))
}

fn rests(app: &App, row: &Container) -> bool {
    matches!(
        status_of(app, row),
        Status::Created | Status::Exited | Status::Failed | Status::Removing
    )
}

pub(super) fn not_running() -> Error {
    Error::conflict("container.not-running", "the container does not run")
}
