//! What people asked for against what the supervisor's records show, and the step that brings the
//! two together. Runs at start, on a timer, and whenever a monitor says anything or is gone.
//!
//! - [`decide`] is pure; everything else only carries out its step, under the container's lock and
//!   on what was read under it.
//! - Nothing is taken from a listing but which containers to look at.
//! - A container of which the inventory knows nothing is left alone and logged: it can only come
//!   from an inventory that was set back, and ending it would destroy somebody's work.

use std::collections::HashMap;
use std::time::Duration;

use berth_runtime::id::ContainerId;
use berth_runtime::record::{ContainerRecord, ExitCause, ExitRecord, Status};
use serde_json::json;

use super::containers::view::{asked_by, cause_word, end_in_words, policy};
use super::containers::{actions, create, look};
use super::lifetimes;
use super::restart::{self, Verdict};
use super::volumes;
use crate::app::App;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::Write;
use crate::inventory::audit::{By, Row};
use crate::inventory::containers::{self, Container, Intent};
use crate::runtime_client::Watch;

/// Between two looks at everything.
const PERIOD: Duration = Duration::from_secs(10);
/// Between two looks while the supervisor is away, or something waits for a look.
const PERIOD_AWAY: Duration = Duration::from_millis(500);
/// Before a broken connection to a monitor is made anew.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// What one container needs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Rest,
    /// Its removal was begun.
    FinishRemoval,
    /// Its image is not here.
    FinishPull,
    /// The records know a newer run than the inventory.
    Adopt(u64),
    /// A run has ended, and the inventory does not know.
    KeepEnd(Box<ExitRecord>),
    /// Its end was asked for, and its grace is over.
    Kill,
    /// Nothing before then.
    WaitUntil(Time),
    /// A start was committed but never came to be.
    FinishStart,
    /// Its policy starts it again.
    StartAgain,
    /// It runs with limits older than those committed.
    ApplyLimits,
    /// It runs as it should; its monitor is to be listened to.
    Listen,
}

/// Starts to reconcile, and goes on until the server stops.
pub fn spawn(app: &App) {
    let app = app.clone();
    tokio::spawn(async move {
        let mut booted = false;
        loop {
            let pause = match pass(&app, &mut booted).await {
                Ok(()) => PERIOD,
                Err(Error::Unavailable(_)) => PERIOD_AWAY,
                Err(error) => {
                    tracing::error!(error = %error, "reconciling failed");
                    PERIOD
                }
            };
            tokio::select! {
                () = app.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = app.containers.unsettled() => tokio::time::sleep(PERIOD_AWAY).await,
            }
        }
    });
}

/// Looks at one container soon.
pub(crate) fn poke(app: &App, id: &ContainerId) {
    let (app, id) = (app.clone(), id.clone());
    tokio::spawn(async move {
        if let Err(error) = settle(&app, &id).await {
            match error {
                Error::Unavailable(_) => app.containers.note_unsettled(),
                error => {
                    let error = anyhow::Error::from(error);
                    tracing::error!(container = %id, error = format!("{error:#}"), "not settled");
                }
            }
        }
    });
}

/// Listens to the monitor of a run until that is gone; every word means "look now".
pub(crate) fn watch(app: &App, id: &ContainerId, run: u64, watch: Option<Watch>) {
    if !app.containers.begin_watch(id, run) {
        return;
    }
    let (app, id) = (app.clone(), id.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = app.stopping.cancelled() => {}
            () = listen(&app, &id, run, watch) => {}
        }
        app.containers.end_watch(&id, run);
    });
}

async fn listen(app: &App, id: &ContainerId, run: u64, mut first: Option<Watch>) {
    loop {
        let watch = match first.take() {
            Some(watch) => Ok(watch),
            None => app.runtime.container_watch(id).await,
        };
        if let Ok(mut watch) = watch {
            while watch.changed().await.is_some() {
                poke(app, id);
            }
        }
        // Hung up: it has ended, its monitor was lost, or there was no connection at all.
        let live = match look(app, id).await {
            Ok(record) => record.is_some_and(|record| record.run == run && record.live.is_some()),
            Err(_) => true,
        };
        poke(app, id);
        if !live {
            return;
        }
        tokio::time::sleep(WATCH_PAUSE).await;
    }
}

/// One look at everything.
async fn pass(app: &App, booted: &mut bool) -> Result<()> {
    let records = app.runtime.containers().await?;
    if !*booted {
        note_boot(app).await?;
    }
    let rows = containers::all(app.inventory.read()).await?;
    let mut records: HashMap<ContainerId, ContainerRecord> =
        records.into_iter().map(|record| (record.container.clone(), record)).collect();
    volumes::finish_removals(app).await?;
    volumes::finish_hand_overs(app).await?;
    for row in &rows {
        let listed = records.remove(&row.id);
        let step = decide(row, listed.as_ref(), Time::now());
        let known = app.containers.observed(&row.id);
        let news = differ(known.as_deref(), listed.as_ref());
        match listed {
            // The first look at it since the server's start.
            Some(record) if known.is_none() => app.containers.observe(record),
            _ => {}
        }
        let news = news && known.is_some();
        match step {
            Step::Listen if !news => watch(app, &row.id, row.run, None),
            Step::Rest if !news => {}
            Step::WaitUntil(_) if !news && *booted => {}
            _ => poke(app, &row.id),
        }
    }
    for id in records.keys() {
        if !*booted {
            tracing::warn!(container = %id, "the inventory knows nothing of this container");
        }
    }
    *booted = true;
    Ok(())
}

/// After another boot than the last one seen, `always` means also what had been stopped.
async fn note_boot(app: &App) -> Result<()> {
    let hello = app.runtime.hello().await?;
    let mut write = app.inventory.record().await?;
    let woken = containers::note_boot(write.db(), &hello.boot_id).await?;
    write.commit().await?;
    if woken > 0 {
        tracing::info!(containers = woken, "the host has booted: started again by policy");
    }
    Ok(())
}

/// Brings one container as far as it can be brought now.
async fn settle(app: &App, id: &ContainerId) -> Result<()> {
    let _lock = app.containers.lock(id).await;
    // Each step leads to another state; more of them than this would be a defect.
    for _ in 0..8 {
        let Some(row) = containers::find_any(app.inventory.read(), id).await? else {
            app.containers.forget(id);
            app.history.forget(id);
            return Ok(());
        };
        let record = look(app, id).await?;
        let step = decide(&row, record.as_deref(), Time::now());
        if !carry_out(app, &row, step).await? {
            return Ok(());
        }
    }
    Err(Error::defect(format!("settle container {id}: its steps do not end")))
}

/// Takes a step; answers whether to look again at once.
async fn carry_out(app: &App, row: &Container, step: Step) -> Result<bool> {
    match step {
        Step::Rest => Ok(false),
        Step::FinishRemoval => actions::finish_removal(app, row).await.map(|()| false),
        Step::FinishPull => {
            create::resume_pull(app, row);
            Ok(false)
        }
        Step::Adopt(run) => {
            let mut write = app.inventory.record().await?;
            containers::adopt_run(write.db(), &row.id, run).await?;
            write.commit().await.map(|()| true)
        }
        Step::KeepEnd(exit) => keep_end(app, row, &exit).await.map(|()| true),
        Step::Kill => {
            match app.runtime.container_kill(&row.id).await {
                Err(error) if !error.is_not_running() => return Err(error.into()),
                _ => {}
            }
            watch(app, &row.id, row.run, None);
            Ok(false)
        }
        Step::WaitUntil(at) => {
            if row.intent == Intent::Stopped {
                watch(app, &row.id, row.run, None);
            }
            let (app, id) = (app.clone(), row.id.clone());
            tokio::spawn(async move {
                tokio::time::sleep(at.until().min(PERIOD)).await;
                poke(&app, &id);
            });
            Ok(false)
        }
        Step::FinishStart => start(app, row, row.run).await.map(|()| false),
        Step::StartAgain => {
            // Not synchronous: after a power cut the records know the run, and it is adopted.
            let mut write = app.inventory.observe().await?;
            let attempts = row.restart_attempts;
            let life = lifetimes::go_on(write.db(), row).await?;
            let again = containers::Start { run_before: row.run, attempts, life };
            let run = containers::set_running(write.db(), &row.id, again).await?;
            let data = json!({"run": run, "attempt": attempts});
            actions::event(&mut write, row, "container.restarted", data).await?;
            note(app, &mut write, row, (By::Policy, "container.restart"));
            write.commit().await?;
            start(app, row, run).await.map(|()| false)
        }
        Step::ApplyLimits => {
            match app.runtime.container_update(&row.id, row.limits).await {
                Err(error) if !error.is_not_running() => return Err(error.into()),
                _ => {}
            }
            let mut write = app.inventory.observe().await?;
            containers::set_limits_applied(write.db(), &row.id).await?;
            write.commit().await.map(|()| true)
        }
        Step::Listen => {
            watch(app, &row.id, row.run, None);
            Ok(false)
        }
    }
}

/// Starts on the policy's or an interrupted caller's behalf; a refusal is an end like any other.
async fn start(app: &App, row: &Container, run: u64) -> Result<()> {
    let layers = containers::layers(app.inventory.read(), &row.id).await?;
    match actions::launch(app, row, run, layers).await {
        Ok(_) => Ok(()),
        Err(actions::LaunchError::Unknown(error)) => Err(error),
        Err(actions::LaunchError::Refused(failure)) => {
            let exit = actions::start_failed(row, run, &failure);
            let row = Container { run, ..row.clone() };
            keep_end(app, &row, &exit).await?;
            poke(app, &row.id);
            Ok(())
        }
    }
}

/// Writes an end down, with what the policy makes of it. The record on disk is the truth, so this
/// commit waits for no disk.
async fn keep_end(app: &App, row: &Container, exit: &ExitRecord) -> Result<()> {
    let asked = row.intent != Intent::Running;
    let verdict = if asked {
        Verdict::Stay
    } else {
        restart::after_end(policy(row), exit, row.restart_attempts, Time::now().0)
    };
    let text = end_in_words(exit, asked_by(row).as_ref());
    let mut write = app.inventory.observe().await?;
    match verdict {
        Verdict::Stay => containers::set_ended(write.db(), &row.id, exit).await?,
        Verdict::Again { at_ms, attempt } => {
            let again = (Time(at_ms), attempt);
            containers::set_ended_again_at(write.db(), &row.id, exit, again).await?;
        }
    }
    let data = json!({"run": exit.run, "code": exit.code, "signal": exit.signal, "text": text,
        "cause": cause_word(exit.cause)});
    actions::event(&mut write, row, "container.ended", data).await?;
    match exit.cause {
        ExitCause::OutOfMemory => note(app, &mut write, row, (By::Kernel, "container.oom-kill")),
        ExitCause::MonitorLost | ExitCause::HostLost => {
            note(app, &mut write, row, (By::Server, "container.lost"));
        }
        ExitCause::Exited
        | ExitCause::StartFailed
        | ExitCause::Killed
        | ExitCause::HostShutdown => {}
    }
    write.commit().await?;
    app.containers.tell();
    Ok(())
}

/// Adds to the audit what nobody asked for, unless it is the same again.
fn note(app: &App, write: &mut Write, row: &Container, (by, action): (By, &str)) {
    let object = ("container", row.id.as_str(), row.owner);
    if let Some(row) = app.noise.admit(Row::unasked(by, action, object)) {
        write.note(row);
    }
}

/// What a container needs, by what was asked for and what is seen.
fn decide(row: &Container, record: Option<&ContainerRecord>, now: Time) -> Step {
    let live = record.is_some_and(|record| record.live.is_some());
    match row.intent {
        Intent::Removed => return Step::FinishRemoval,
        Intent::Pulling if row.failure.is_none() => return Step::FinishPull,
        Intent::Pulling | Intent::Created => return Step::Rest,
        Intent::Running | Intent::Stopped => {}
    }
    if let Some(record) = record.filter(|record| record.run > row.run) {
        return Step::Adopt(record.run);
    }
    let current = record.filter(|record| record.run == row.run);
    let ended = current.and_then(|record| record.exit.as_ref()).filter(|_| !live);
    let known = row.last_exit.as_ref().map_or(0, |exit| exit.run);
    if let Some(exit) = ended.filter(|exit| exit.run > known) {
        return Step::KeepEnd(Box::new(exit.clone()));
    }
    if row.intent == Intent::Stopped {
        return match row.stop_deadline_at {
            _ if !live => Step::Rest,
            Some(at) if at > now => Step::WaitUntil(at),
            _ => Step::Kill,
        };
    }
    if live {
        return if row.limits_applied { Step::Listen } else { Step::ApplyLimits };
    }
    match row.next_attempt_at {
        Some(at) if at > now => Step::WaitUntil(at),
        // Its time is over: it is about to be stopped.
        Some(_) if row.ends_at.is_some_and(|at| at <= now) => Step::Rest,
        Some(_) => Step::StartAgain,
        // An end that is known and left the intent as it is: the policy has changed since, or the
        // commit of its verdict was lost. Judge again.
        None if known >= row.run && row.run > 0 => match row.last_exit.clone() {
            Some(exit) => Step::KeepEnd(Box::new(exit)),
            None => Step::Rest,
        },
        None => match current.map(|record| record.status) {
            // Being built; its monitor tells when that is done.
            Some(Status::Creating | Status::Created) => Step::WaitUntil(now.after(WATCH_PAUSE)),
            Some(_) => Step::Rest,
            None => Step::FinishStart,
        },
    }
}

/// Whether a listing shows another state than is remembered.
fn differ(known: Option<&ContainerRecord>, listed: Option<&ContainerRecord>) -> bool {
    let essence = |record: &ContainerRecord| {
        let pid = record.live.as_ref().map(|live| live.pid);
        (record.run, record.status, pid, record.exit.is_some())
    };
    known.map(essence) != listed.map(essence)
}

#[cfg(test)]
mod tests {
    use super::super::containers::view::tests::{exit, row, seen};
    use super::*;

    const NOW: Time = Time(1_000);

    fn check(row: &Container, record: Option<ContainerRecord>, expected: Step) {
        assert_eq!(decide(row, record.as_ref(), NOW), expected, "{row:?} {record:?}");
    }

    #[test]
    fn what_was_begun_before_a_crash_is_finished() {
        check(&row(Intent::Removed, 1), Some(seen(1, Status::Running)), Step::FinishRemoval);
        check(&row(Intent::Pulling, 0), None, Step::FinishPull);
        check(&row(Intent::Created, 0), None, Step::Rest);
        // The intent of run 1 was committed, the supervisor was never asked.
        check(&row(Intent::Running, 1), None, Step::FinishStart);
        check(&row(Intent::Running, 2), Some(seen(1, Status::Stopped)), Step::FinishStart);
        let overdue = Container { stop_deadline_at: Some(NOW), ..row(Intent::Stopped, 1) };
        check(&overdue, Some(seen(1, Status::Running)), Step::Kill);
        check(&row(Intent::Stopped, 1), Some(seen(1, Status::Running)), Step::Kill);
        let later = Container { stop_deadline_at: Some(Time(1_001)), ..row(Intent::Stopped, 1) };
        check(&later, Some(seen(1, Status::Running)), Step::WaitUntil(Time(1_001)));
        check(
            &later,
            Some(seen(1, Status::Stopped)),
            Step::KeepEnd(Box::new(exit(1, ExitCause::Exited))),
        );
        let limits = Container { limits_applied: false, ..row(Intent::Running, 1) };
        check(&limits, Some(seen(1, Status::Running)), Step::ApplyLimits);
    }

    #[test]
    fn ends_are_kept_once_and_policies_followed_when_due() {
        let ended = exit(1, ExitCause::Exited);
        let stopped = || Some(seen(1, Status::Stopped));
        check(&row(Intent::Running, 1), stopped(), Step::KeepEnd(Box::new(ended.clone())));
        let waits = |at| Container {
            last_exit: Some(ended.clone()),
            next_attempt_at: Some(Time(at)),
            ..row(Intent::Running, 1)
        };
        check(&waits(5_000), stopped(), Step::WaitUntil(Time(5_000)));
        check(&waits(1_000), stopped(), Step::StartAgain);
        check(&waits(0), None, Step::StartAgain);
        let over = Container { ends_at: Some(Time(900)), ..waits(800) };
        check(&over, stopped(), Step::Rest);
        let goes_on = Container { ends_at: Some(Time(i64::MAX)), ..waits(800) };
        check(&goes_on, stopped(), Step::StartAgain);
        let rests = Container { last_exit: Some(ended.clone()), ..row(Intent::Stopped, 1) };
        check(&rests, stopped(), Step::Rest);
    }

    #[test]
    fn what_runs_is_listened_to_and_a_newer_run_is_adopted() {
        check(&row(Intent::Running, 1), Some(seen(1, Status::Running)), Step::Listen);
        check(&row(Intent::Running, 1), Some(seen(1, Status::Paused)), Step::Listen);
        check(&row(Intent::Running, 1), Some(seen(2, Status::Running)), Step::Adopt(2));
    }
}
