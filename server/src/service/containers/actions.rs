//! What is done to a container that exists. Each verb commits the caller's wish first and acts then;
//! whatever is cut short in between, the reconciliation finishes.

use std::future::Future;
use std::time::Duration;

use berth_runtime::digest::Digest;
use berth_runtime::id::ContainerId;
use berth_runtime::record::{ContainerRecord, ExitCause, ExitRecord, Failure, FailureClass};
use berth_runtime::wire::{Limits, LogOptions, StartRequest};
use serde_json::json;

use super::view::{DetailView, spec, version};
use super::{allow, detail, ensure_person, find, find_for, find_to_change, look};
use crate::app::App;
use crate::auth::{Caller, Right, Via};
use crate::clock::Time;
use crate::error::{Error, Refusal, Result};
use crate::inventory::Write;
use crate::inventory::containers::{self, Container, Intent, Stop, StopKind, Why};
use crate::inventory::events::NewEvent;
use crate::runtime_client::{NOT_RUNNING, RuntimeError};
use crate::service::edits::Expected;
use crate::service::lifecycle::{Action, Status};
use crate::service::restart::RestartPolicy;
use crate::service::{admission, data_sets, images, lifetimes, maintenance, reconcile, volumes};

/// What a killed container may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// What undoing a run that has ended may take, and how often it is looked after.
const UNDO_LIMIT: Duration = Duration::from_secs(5);
const UNDO_PAUSE: Duration = Duration::from_millis(10);
/// The supervisor's code for a container that has not ended, or not been undone, yet.
const STILL_RUNNING: &str = "container.running";
/// How long a request waits for a stop; the stop itself goes on.
const ANSWER_LIMIT: Duration = Duration::from_secs(45);

/// A change to a container; what is `None` stays.
#[derive(Debug, Default)]
pub struct Change {
    /// Limits, of which those left out stay.
    pub limits: Option<super::spec::LimitsRequest>,
    /// The policy.
    pub restart: Option<RestartPolicy>,
    /// The name.
    pub name: Option<String>,
    /// What it was made from.
    pub expected: Expected,
}

/// Starts a container.
pub async fn start(app: &App, caller: &Caller, key: &str) -> Result<DetailView> {
    maintenance::admit(app, caller)?;
    let id = find_to_change(app, caller, key).await?.id;
    let (task_app, task_caller) = (app.clone(), caller.clone());
    in_background(async move {
        let _lock = task_app.containers.lock(&id).await;
        start_locked(&task_app, &task_caller, &id).await
    })
    .await?;
    inspect_again(app, caller, key).await
}

/// Asks a container to end; kills it when its grace is over. Answers when it has ended, or after a
/// while in which it goes on being stopped.
pub async fn stop(
    app: &App,
    caller: &Caller,
    key: &str,
    grace_secs: Option<u32>,
) -> Result<DetailView> {
    let id = find_to_change(app, caller, key).await?.id;
    let grace = check_grace(grace_secs)?;
    let (task_app, task_caller, task_id) = (app.clone(), caller.clone(), id.clone());
    let work = in_background(async move {
        stop_as(&task_app, &task_caller, &task_id, End::new(StopKind::Stop, grace)).await
    });
    match tokio::time::timeout(ANSWER_LIMIT, work).await {
        Ok(done) => done?,
        Err(_still_stopping) => {}
    }
    inspect_again(app, caller, id.as_str()).await
}

/// Stops a container, if it runs, and starts it.
pub async fn restart(
    app: &App,
    caller: &Caller,
    key: &str,
    grace_secs: Option<u32>,
) -> Result<DetailView> {
    maintenance::admit(app, caller)?;
    let row = find_to_change(app, caller, key).await?;
    let grace = check_grace(grace_secs)?;
    allow(app, &row, Action::Restart)?;
    // Before it is stopped: what could not be started again runs on.
    let admitted = admission::check_start(app, row.owner, &row.limits).await;
    admitted.map_err(|error| without_figures(caller, &row, error))?;
    let (task_app, task_caller, id) = (app.clone(), caller.clone(), row.id.clone());
    let work = in_background(async move {
        let status = super::status_of(&task_app, &row);
        if matches!(status, Status::Running | Status::Paused) {
            stop_as(&task_app, &task_caller, &row.id, End::new(StopKind::Restart, grace)).await?;
        }
        let _lock = task_app.containers.lock(&row.id).await;
        start_locked(&task_app, &task_caller, &row.id).await
    });
    match tokio::time::timeout(ANSWER_LIMIT, work).await {
        Ok(done) => done?,
        Err(_still_stopping) => {}
    }
    inspect_again(app, caller, id.as_str()).await
}

/// Sends a signal. KILL ends every process, and counts as a stop.
pub async fn kill(app: &App, caller: &Caller, key: &str, signal: i32) -> Result<DetailView> {
    let id = find_to_change(app, caller, key).await?.id;
    if signal == nix::sys::signal::Signal::SIGKILL as i32 {
        let (task_app, task_caller, task_id) = (app.clone(), caller.clone(), id.clone());
        in_background(async move {
            stop_as(&task_app, &task_caller, &task_id, End::new(StopKind::Kill, None)).await
        })
        .await?;
        return inspect_again(app, caller, id.as_str()).await;
    }
    let _lock = app.containers.lock(&id).await;
    let row = find_to_change(app, caller, id.as_str()).await?;
    allow(app, &row, Action::Signal)?;
    let mut write = app.inventory.change(&caller.actor, "container.signal").await?;
    write.subject("container", &row.id, row.owner);
    write.commit().await?;
    app.runtime.container_signal(&row.id, signal).await?;
    detail(app, caller, &row)
}

/// Freezes every process.
pub async fn pause(app: &App, caller: &Caller, key: &str) -> Result<DetailView> {
    let id = find_to_change(app, caller, key).await?.id;
    let _lock = app.containers.lock(&id).await;
    let row = find_to_change(app, caller, id.as_str()).await?;
    allow(app, &row, Action::Pause)?;
    commit_event(app, caller, &row, ("container.pause", "container.paused")).await?;
    app.runtime.container_pause(&row.id).await?;
    look(app, &row.id).await?;
    detail(app, caller, &row)
}

/// Thaws what was frozen.
pub async fn resume(app: &App, caller: &Caller, key: &str) -> Result<DetailView> {
    let id = find_to_change(app, caller, key).await?.id;
    let _lock = app.containers.lock(&id).await;
    let row = find_to_change(app, caller, id.as_str()).await?;
    allow(app, &row, Action::Resume)?;
    commit_event(app, caller, &row, ("container.resume", "container.resumed")).await?;
    app.runtime.container_resume(&row.id).await?;
    look(app, &row.id).await?;
    detail(app, caller, &row)
}

/// Changes limits (at once, if it runs), restart policy or name.
pub async fn change(app: &App, caller: &Caller, key: &str, change: Change) -> Result<DetailView> {
    let id = find_to_change(app, caller, key).await?.id;
    let _lock = app.containers.lock(&id).await;
    let row = find_to_change(app, caller, id.as_str()).await?;
    change.expected.check(&version(&row))?;
    let limits = change.limits.map(|limits| super::spec::merge_limits(&limits, &row.limits));
    if let Some(limits) = &limits {
        allow(app, &row, Action::Update)?;
        super::spec::check_limits(limits, &app.config.runtime.ceilings)?;
    }
    if let Some(policy) = change.restart {
        super::spec::check_restart(policy)?;
    }
    let mut write = app.inventory.change(&caller.actor, "container.change").await?;
    write.subject("container", &row.id, row.owner);
    if let Some(name) = &change.name {
        if *name != row.name {
            // Whether a name is free would tell of its owner's others.
            row.rights(caller).need(Right::Remove)?;
        }
        allow(app, &row, Action::Rename)?;
        super::spec::check_name("/name", name)?;
        if *name != row.name && containers::name_taken(write.db(), row.owner, name).await? {
            return Err(name_taken(name));
        }
        containers::rename(write.db(), &row.id, name).await?;
    }
    if let Some(policy) = change.restart {
        let (word, attempts) = policy.columns();
        containers::set_restart(write.db(), &row.id, word, attempts).await?;
    }
    if let Some(limits) = &limits {
        let before = Some(&row.limits);
        if let Some(found) = admission::exceeded(write.db(), row.owner, limits, before).await? {
            drop(write);
            let refusal = admission::refuse(app, found).await;
            return Err(without_figures(caller, &row, refusal));
        }
        containers::set_limits(write.db(), &row.id, limits).await?;
    }
    event(&mut write, &row, "container.changed", what_changed(caller, &row, &change, limits))
        .await?;
    let live = app.containers.observed(&row.id).is_some_and(|record| record.live.is_some());
    write.commit().await?;
    if let Some(limits) = limits.filter(|_| live) {
        apply_limits(app, &row, limits).await?;
        look(app, &row.id).await?;
    }
    inspect_again(app, caller, id.as_str()).await
}

/// What stands in the way, without what its owner uses and may use: that is not shared with the container.
fn without_figures(caller: &Caller, row: &Container, error: Error) -> Error {
    match error {
        Error::Reached { refusal, .. } if !row.rights(caller).has(Right::Remove) => {
            let text = "it would be more than its owner may use; ask them";
            Error::Exhausted(Refusal::new(refusal.code, text))
        }
        other => other,
    }
}

/// What a change changes, for its event.
fn what_changed(
    caller: &Caller,
    row: &Container,
    change: &Change,
    limits: Option<Limits>,
) -> serde_json::Value {
    let mut data = json!({
        "by": caller.name,
        "name": change.name.as_ref().unwrap_or(&row.name),
    });
    if let Some(limits) = limits.filter(|limits| *limits != row.limits) {
        data["limits"] = json!({"from": row.limits, "to": limits});
    }
    if let Some(name) = change.name.as_ref().filter(|name| **name != row.name) {
        data["renamed"] = json!({"from": row.name, "to": name});
    }
    let restart = change.restart.filter(|policy| *policy != super::view::policy(row));
    if let Some((word, _)) = restart.map(RestartPolicy::columns) {
        data["restart"] = json!({"from": row.restart_policy, "to": word});
    }
    data
}

/// Has the kernel hold the limits that were committed; what it refuses is taken back. When the
/// supervisor is away, the reconciliation applies them later.
async fn apply_limits(app: &App, row: &Container, limits: Limits) -> Result<()> {
    let refused = match app.runtime.container_update(&row.id, limits).await {
        Err(RuntimeError::Refused(failure)) if failure.code != NOT_RUNNING => Some(failure),
        Err(error) if !error.is_not_running() => return Err(error.into()),
        _ => None,
    };
    let mut write = app.inventory.observe().await?;
    if let Some(failure) = &refused {
        containers::set_limits(write.db(), &row.id, &row.limits).await?;
        let back = json!({"from": limits, "to": row.limits});
        let data = json!({"limits": back, "refused": failure.message});
        event(&mut write, row, "container.changed", data).await?;
    }
    containers::set_limits_applied(write.db(), &row.id).await?;
    write.commit().await?;
    refused.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Removes a container with all that was written in it; with `force` also one that runs. Answers
/// whether it is gone already; else the supervisor is away, and it goes when that is back.
pub async fn remove(app: &App, caller: &Caller, key: &str, force: Force) -> Result<bool> {
    remove_if(app, caller, key, force, Expected::default()).await
}

/// The same if it is still what the caller has looked at.
pub async fn remove_if(
    app: &App,
    caller: &Caller,
    key: &str,
    force: Force,
    expected: Expected,
) -> Result<bool> {
    let id = find_for(app, caller, key, Right::Remove).await?.id;
    let (task_app, task_caller) = (app.clone(), caller.clone());
    in_background(async move {
        let _lock = task_app.containers.lock(&id).await;
        let row = find_for(&task_app, &task_caller, id.as_str(), Right::Remove).await?;
        expected.check(&version(&row))?;
        let action = match force {
            Force::No => Action::Remove,
            Force::Yes => Action::RemoveForced,
        };
        allow(&task_app, &row, action)?;
        let mut write = task_app.inventory.change(&task_caller.actor, "container.remove").await?;
        write.subject("container", &row.id, row.owner);
        containers::set_removed(write.db(), &row.id, task_caller.principal).await?;
        write.commit().await?;
        task_app.containers.tell();
        let finished = finish_removal(&task_app, &row).await;
        if finished.is_err() {
            // The wish is kept; it is tried again whatever the caller is told.
            task_app.containers.note_unsettled();
        }
        match finished {
            Ok(()) => Ok(true),
            Err(Error::Unavailable(_)) => Ok(false),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Whether to end a container that is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Only one that does not run.
    No,
    /// Any.
    Yes,
}

/// Ends what runs, has the supervisor remove all it holds, and forgets the row. The caller holds
/// the lock; the wish is committed.
pub(crate) async fn finish_removal(app: &App, row: &Container) -> Result<()> {
    let record = look(app, &row.id).await?;
    if record.is_some_and(|record| record.live.is_some()) {
        match app.runtime.container_kill(&row.id).await {
            Ok(()) => {}
            Err(error) if error.is_not_running() || error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        wait_ended(app, &row.id, row.run, KILL_LIMIT).await?;
    }
    match app.runtime.container_remove(&row.id).await {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let mut write = app.inventory.record().await?;
    containers::delete(write.db(), &row.id).await?;
    event(&mut write, row, "container.removed", json!({"name": row.name})).await?;
    write.commit().await?;
    app.containers.forget(&row.id);
    app.history.forget(&row.id);
    Ok(())
}

/// Commits the wish to start and starts; the caller holds the lock.
async fn start_locked(app: &App, caller: &Caller, id: &ContainerId) -> Result<()> {
    let row = find_to_change(app, caller, id.as_str()).await?;
    allow(app, &row, Action::Start)?;
    let admitted = admission::check_start(app, row.owner, &row.limits).await;
    admitted.map_err(|error| without_figures(caller, &row, error))?;
    if row.spec.is_none() {
        return Err(Error::conflict("container.no-image", "its image is not here; make a new one"));
    }
    let mut write = app.inventory.change(&caller.actor, "container.start").await?;
    write.subject("container", &row.id, row.owner);
    let life = lifetimes::begin(write.db(), &row).await?;
    let start = containers::Start { run_before: row.run, attempts: 0, life };
    let run = containers::set_running(write.db(), &row.id, start).await?;
    event(&mut write, &row, "container.started", json!({"run": run})).await?;
    write.commit().await?;
    let layers = containers::layers(app.inventory.read(), &row.id).await?;
    launch_wished(app, &row, run, layers).await
}

/// Starts what a caller has just asked for. What is refused stays refused: no policy tries again.
pub(crate) async fn launch_wished(
    app: &App,
    row: &Container,
    run: u64,
    layers: Vec<Digest>,
) -> Result<()> {
    match launch(app, row, run, layers).await {
        Ok(_) => Ok(()),
        Err(LaunchError::Refused(failure)) => {
            let exit = start_failed(row, run, &failure);
            let mut write = app.inventory.observe().await?;
            containers::set_ended(write.db(), &row.id, &exit).await?;
            let data = json!({"run": run, "reason": failure.message});
            event(&mut write, row, "container.start_failed", data).await?;
            write.commit().await?;
            app.containers.tell();
            Err(start_refused(failure))
        }
        // Whether it has started is not known: the reconciliation sees to it.
        Err(LaunchError::Unknown(error)) => {
            reconcile::poke(app, &row.id);
            Err(error)
        }
    }
}

/// A refused start, or another act on what is there, for the caller: the container is there, whatever else was not found.
pub(crate) fn start_refused(failure: Failure) -> Error {
    match failure.class {
        FailureClass::NotFound => Error::Conflict(Refusal::new(failure.code, failure.message)),
        _ => failure.into(),
    }
}

/// Why a launch has not been seen to succeed.
pub(crate) enum LaunchError {
    /// The supervisor or the container's own start has said no.
    Refused(Failure),
    /// It may have started, or may yet.
    Unknown(Error),
}

/// Asks the supervisor to start run `run` of the container, and listens to its monitor.
pub(crate) async fn launch(
    app: &App,
    row: &Container,
    run: u64,
    layers: Vec<Digest>,
) -> Result<ContainerRecord, LaunchError> {
    if let Some(failure) = images::damage(app, &layers).await.map_err(LaunchError::Unknown)? {
        return Err(LaunchError::Refused(failure));
    }
    ensure_person(app, row).await.map_err(LaunchError::Unknown)?;
    let spec = spec(row).map_err(LaunchError::Unknown)?;
    let Some(spec) = spec else {
        return Err(LaunchError::Unknown(Error::defect("start a container without an image")));
    };
    let volumes = volumes::for_start(app, row.owner, &row.mounts).await?;
    let data_sets = data_sets::for_start(app, row.owner, &row.data_sets).await?;
    let config = &app.config.containers;
    let request = StartRequest {
        container: row.id.clone(),
        person: row.owner,
        run,
        layers,
        process: spec.process,
        hostname: spec.hostname,
        read_only_root: spec.read_only_root,
        tmpfs: spec.tmpfs,
        volumes,
        data_sets,
        // A limit that was lowered since must not be exceeded by what it holds.
        shm_bytes: spec.shm_bytes.min(row.limits.memory_bytes),
        network: spec.network,
        ports: row.ports.clone(),
        limits: row.limits,
        log: LogOptions { file_bytes_max: config.log_file_bytes, files_max: config.log_files },
        stop: spec.stop,
        console: spec.console,
    };
    let deadline = tokio::time::Instant::now() + UNDO_LIMIT;
    loop {
        match app.runtime.container_start(request.clone()).await {
            Ok((record, watch)) => {
                app.containers.observe(record.clone());
                app.containers.note_life();
                reconcile::watch(app, &row.id, run, watch);
                return Ok(record);
            }
            // The run before has ended, but what it held is still being undone.
            Err(RuntimeError::Refused(failure))
                if failure.code == STILL_RUNNING && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(UNDO_PAUSE).await;
            }
            Err(RuntimeError::Refused(failure)) => {
                // The supervisor has lost its record of the owner: it is told again next time.
                app.containers.forget_person(row.owner);
                return Err(LaunchError::Refused(failure));
            }
            Err(error) => return Err(LaunchError::Unknown(error.into())),
        }
    }
}

/// The end of a run that never began.
pub(crate) fn start_failed(row: &Container, run: u64, failure: &Failure) -> ExitRecord {
    ExitRecord {
        run,
        code: None,
        signal: None,
        cause: ExitCause::StartFailed,
        oom_kills: 0,
        memory_bytes_max: row.limits.memory_bytes,
        started_ms: 0,
        ended_ms: Time::now().0,
        log_bytes_lost: 0,
        failure: Some(failure.clone()),
    }
}

/// How a container is to end.
struct End {
    kind: StopKind,
    /// In place of its own.
    grace: Option<Duration>,
    /// The rule that asks.
    why: Option<Why>,
}

impl End {
    /// As somebody asks for it.
    fn new(kind: StopKind, grace: Option<Duration>) -> Self {
        Self { kind, grace, why: None }
    }
}

/// Stops a container whose time is over, as its owner would.
pub(crate) async fn stop_at_its_end(app: &App, id: &ContainerId) -> Result<()> {
    // After a start of the server: what is not known to run would end without its grace.
    look(app, id).await?;
    let caller = Caller::policy();
    let row = find(app, &caller, id.as_str()).await?;
    let Some((began_at, ends_at)) = row.life_began_at.zip(row.ends_at) else { return Ok(()) };
    let secs = u64::try_from(ends_at.0 - began_at.0).unwrap_or(0) / 1000;
    let why = Some(Why::Lifetime(secs));
    stop_as(app, &caller, id, End { kind: StopKind::Stop, grace: None, why }).await
}

/// Stops a container that nobody has used for `secs`, as its owner would.
pub(crate) async fn stop_unused(app: &App, id: &ContainerId, secs: u32) -> Result<()> {
    let why = Some(Why::Idle(secs.into()));
    let end = End { kind: StopKind::Stop, grace: None, why };
    stop_as(app, &Caller::policy(), id, end).await
}

/// Puts off the end of a container that runs, and says that it is used: to `secs` from now, or by as much as is usual for it.
///
/// # Errors
/// It does not run, has no end, or may not go on for longer.
pub async fn extend(
    app: &App,
    caller: &Caller,
    key: &str,
    secs: Option<u32>,
) -> Result<DetailView> {
    let id = find_to_change(app, caller, key).await?.id;
    lifetimes::check("?secs", secs)?;
    let _lock = app.containers.lock(&id).await;
    let row = find_to_change(app, caller, id.as_str()).await?;
    if row.intent != Intent::Running {
        let text = "it does not run; its time begins with its next start";
        return Err(Error::conflict("container.not-running", text));
    }
    let mut write = app.inventory.change(&caller.actor, "container.extend").await?;
    write.subject("container", &row.id, row.owner);
    let policy = lifetimes::policy(write.db(), row.owner).await?;
    let idle = app.idle.of(&id).filter(|idle| idle.stops_at.is_some());
    let is_enough = idle.is_some_and(|idle| row.ends_at.is_none() || idle.stops_soon);
    let at = match lifetimes::put_off(&row, policy, secs) {
        // That it is used is all that there was to say.
        Err(Error::Conflict(_)) if secs.is_none() && is_enough => row.ends_at,
        at => Some(at?),
    };
    if let Some(at) = at.filter(|_| at != row.ends_at) {
        containers::set_end(write.db(), &row.id, at).await?;
    }
    let data = json!({"by": caller.name, "from": row.ends_at, "to": at});
    event(&mut write, &row, "container.extended", data).await?;
    write.commit().await?;
    app.idle.touch(&id);
    app.containers.note_life();
    app.containers.tell();
    inspect_again(app, caller, id.as_str()).await
}

/// Commits the wish to end, signals, and sees to the end. Does not hold the lock while it waits.
async fn stop_as(
    app: &App,
    caller: &Caller,
    id: &ContainerId,
    End { kind, grace, why }: End,
) -> Result<()> {
    let lock = app.containers.lock(id).await;
    let row = find_to_change(app, caller, id.as_str()).await?;
    if caller.actor.via == Via::Policy && row.intent != Intent::Running {
        // It was asked to end meanwhile; a rule does so once.
        return Ok(());
    }
    let is_over = match why {
        Some(Why::Lifetime(_)) => row.ends_at.is_some_and(|at| at <= Time::now()),
        Some(Why::Idle(secs)) => app.idle.of(id).is_some_and(|idle| idle.idle_secs >= secs),
        None => true,
    };
    if !is_over {
        // Its end was put off meanwhile, or it is used again.
        return Ok(());
    }
    let action = if kind == StopKind::Kill { Action::Signal } else { Action::Stop };
    allow(app, &row, action)?;
    let stop = spec(&row)?.map(|spec| spec.stop);
    let (signal, own_grace) = stop.map_or((15, 10), |stop| (stop.signal, stop.grace_secs));
    let grace = grace.unwrap_or(Duration::from_secs(own_grace.into()));
    let grace = if kind == StopKind::Kill { Duration::ZERO } else { grace };
    let live = app.containers.observed(id).is_some_and(|record| record.live.is_some());
    let deadline_at = live.then(|| Time::now().after(grace));
    let name = if kind == StopKind::Kill { "container.kill" } else { "container.stop" };
    let mut write = app.inventory.change(&caller.actor, name).await?;
    write.subject("container", &row.id, row.owner);
    let stop = Stop { by: caller.principal, kind, deadline_at, why };
    containers::set_stopped(write.db(), &row.id, stop).await?;
    let said = why.map(lifetimes::why_in_words);
    let data = json!({"by": caller.name, "why": said});
    event(&mut write, &row, "container.stopping", data).await?;
    write.commit().await?;
    app.containers.tell();
    if !live {
        return Ok(());
    }
    if !grace.is_zero() {
        signal_and_thaw(app, id, signal).await?;
        drop(lock);
        if wait_ended(app, id, row.run, grace).await.is_ok() {
            return Ok(());
        }
        let _lock = app.containers.lock(id).await;
        return end_now(app, id, row.run).await;
    }
    end_now(app, id, row.run).await
}

/// Kills, unless it is another run by now, and waits for the end.
async fn end_now(app: &App, id: &ContainerId, run: u64) -> Result<()> {
    if has_ended(app, id, run) {
        return Ok(());
    }
    match app.runtime.container_kill(id).await {
        Ok(()) => wait_ended(app, id, run, KILL_LIMIT).await,
        Err(error) if error.is_not_running() => {
            look(app, id).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// A frozen process takes no signal until it is thawed; thawing after the signal loses no time.
async fn signal_and_thaw(app: &App, id: &ContainerId, signal: i32) -> Result<()> {
    use berth_runtime::record::Status as Seen;
    match app.runtime.container_signal(id, signal).await {
        Ok(()) => {}
        Err(error) if error.is_not_running() => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    let paused = app.containers.observed(id).is_some_and(|record| record.status == Seen::Paused);
    if paused {
        app.runtime.container_resume(id).await?;
    }
    Ok(())
}

/// Waits until run `run` is seen to have ended.
async fn wait_ended(app: &App, id: &ContainerId, run: u64, limit: Duration) -> Result<()> {
    let mut changes = app.containers.changes();
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        changes.mark_unchanged();
        if has_ended(app, id, run) {
            return Ok(());
        }
        if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            // The monitor's word may be under way: ask once more.
            look(app, id).await?;
            if has_ended(app, id, run) {
                return Ok(());
            }
            let text = "the container has not ended in time; it is still being stopped";
            return Err(Error::unavailable("container.still-stopping", text));
        }
    }
}

fn has_ended(app: &App, id: &ContainerId, run: u64) -> bool {
    app.containers.observed(id).is_none_or(|record| record.run > run || record.live.is_none())
}

fn check_grace(secs: Option<u32>) -> Result<Option<Duration>> {
    if secs.is_some_and(|secs| secs > 600) {
        return Err(Error::field("/grace_secs", "is more than 600"));
    }
    Ok(secs.map(|secs| Duration::from_secs(secs.into())))
}

/// The refusal of a name that is in use.
pub(crate) fn name_taken(name: &str) -> Error {
    Error::conflict("container.name-taken", format!("a container named {name} is there already"))
}

async fn inspect_again(app: &App, caller: &Caller, key: &str) -> Result<DetailView> {
    let row = find(app, caller, key).await?;
    detail(app, caller, &row)
}

async fn commit_event(
    app: &App,
    caller: &Caller,
    row: &Container,
    (action, kind): (&'static str, &'static str),
) -> Result<()> {
    let mut write = app.inventory.change(&caller.actor, action).await?;
    write.subject("container", &row.id, row.owner);
    event(&mut write, row, kind, json!({"by": caller.name})).await?;
    write.commit().await
}

/// Appends an event about `row`.
pub(crate) async fn event(
    write: &mut Write,
    row: &Container,
    kind: &'static str,
    data: serde_json::Value,
) -> Result<()> {
    let subject = row.id.as_str();
    let owner = row.owner;
    write.event(NewEvent { owner, kind, subject_kind: "container", subject, data }).await
}

/// Runs `work` to its end, whether or not its caller waits for it.
pub(crate) async fn in_background<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.unwrap_or_else(|error| Err(Error::broken("run the request", error)))
}
