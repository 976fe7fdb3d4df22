//! Containers as the pages show them: state with sign and reason, figures beside limits, and what
//! can be done in which state.

use berth_web::containers::{Head, May, Tab};
use berth_web::format::{Moment, bytes, bytes_of, cores, cores_used, percent, span};
use berth_web::parts::{Act, Badge, Meter};
use berth_web::shell::{Mark, Tone};

use crate::auth::{Caller, Right};
use crate::clock::Time;
use crate::service::containers::view::ContainerView;
use crate::service::history::Used;
use crate::service::lifecycle::Status;
use crate::service::restart::RestartPolicy;

/// What a state means for the person who looks at the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// It runs, or is on its way.
    Running,
    /// It rests, as somebody wished or as it should.
    Stopped,
    /// It needs somebody.
    Failed,
}

/// The class of a container.
pub(super) fn class(view: &ContainerView) -> Class {
    match view.status {
        Status::Failed => Class::Failed,
        Status::Exited if ended_badly(view) => Class::Failed,
        Status::Created | Status::Exited | Status::Removing => Class::Stopped,
        Status::Pulling
        | Status::Starting
        | Status::Running
        | Status::Paused
        | Status::Stopping
        | Status::Restarting => Class::Running,
    }
}

/// Whether it uses anything now.
pub(super) fn is_live(view: &ContainerView) -> bool {
    matches!(view.status, Status::Running | Status::Paused | Status::Stopping)
}

/// The state with its reason.
pub(super) fn badge(view: &ContainerView, now: i64) -> Badge {
    let since = |at: Option<Time>| at.map_or(0, |Time(at)| (now - at).max(0).unsigned_abs() / 1000);
    let long = |seconds| format!("for {}", span(seconds));
    let (tone, icon, word, reason) = match view.status {
        Status::Running => {
            let long = long(since(view.started_at));
            match soon(view) {
                Some(at) => {
                    let left = span(at.until().as_secs());
                    (Tone::Attention, "attention", "running", format!("{long}, stops in {left}"))
                }
                None => (Tone::Good, "running", "running", long),
            }
        }
        Status::Paused => (Tone::Attention, "paused", "paused", "frozen, keeps its memory".into()),
        Status::Created => (Tone::Neutral, "new", "created", "never started".into()),
        Status::Pulling => (Tone::Busy, "busy", "pulling", "gets its image first".into()),
        Status::Starting => (Tone::Busy, "busy", "starting", String::new()),
        Status::Stopping => (Tone::Busy, "busy", "stopping", view.status_text.clone()),
        Status::Restarting => (Tone::Attention, "restart", "restarting", ended(view)),
        Status::Removing => (Tone::Busy, "busy", "removing", String::new()),
        Status::Failed => (Tone::Bad, "failed", "failed", view.status_text.clone()),
        Status::Exited => {
            let (word, reason) = end_in_two(view);
            let (tone, icon) = match ended_badly(view) {
                true => (Tone::Bad, "failed"),
                false => (Tone::Neutral, "stopped"),
            };
            return Badge { tone, icon, word, reason };
        }
    };
    Badge { tone, icon, word: word.to_owned(), reason }
}

/// How it ended and when, for its own page.
pub(super) fn story(view: &ContainerView, now: i64) -> String {
    match (view.status, &view.exit) {
        (Status::Exited | Status::Restarting, Some(exit)) => {
            let when = Moment::new(exit.ended_at.0, now);
            let words = super::frame::sentence(&exit.text);
            format!("{words} That was {}, at {}.", when.words, when.exact)
        }
        (Status::Failed, _) => super::frame::sentence(&view.status_text),
        _ => String::new(),
    }
}

/// When it is stopped by a rule, when that is near.
fn soon(view: &ContainerView) -> Option<Time> {
    let life = view.ends_at.filter(|_| view.ends_soon);
    let unused = view.idle.filter(|idle| idle.stops_soon).and_then(|idle| idle.stops_at);
    [life, unused].into_iter().flatten().min()
}

/// That its end is near, for its own page; empty when it is not.
pub(super) fn ending(view: &ContainerView, now: i64) -> String {
    let Some(at) = soon(view) else { return String::new() };
    let Moment { words, exact, .. } = Moment::new(at.0, now);
    let why = match view.idle.filter(|_| !view.ends_soon) {
        Some(idle) => format!("Nobody has used it for {}", span(idle.idle_secs)),
        None => "Its time is nearly over".to_owned(),
    };
    format!(
        "{why}: it is stopped {words}, at {exact}. All that it has written stays, and it can be started \
         again."
    )
}

/// Since when it is as it is.
pub(super) fn since(view: &ContainerView) -> Option<Time> {
    match &view.exit {
        Some(exit) if !is_live(view) => Some(exit.ended_at),
        _ => view.started_at.or(Some(view.created_at)),
    }
}

/// What is done when it ends, in a word or two.
pub(super) fn restart_word(view: &ContainerView) -> &'static str {
    match view.restart.policy {
        RestartPolicy::No => "stays stopped",
        RestartPolicy::OnFailure { .. } => "again on failure",
        RestartPolicy::Always => "again always",
        RestartPolicy::UnlessStopped => "again unless stopped",
    }
}

/// What title and favicon say of one container.
pub(super) fn mark(view: &ContainerView) -> Mark {
    match class(view) {
        Class::Running => Mark::Running,
        Class::Stopped => Mark::Idle,
        Class::Failed => Mark::Attention,
    }
}

/// Processor, memory and processes beside their limits.
pub(super) fn gauges(view: &ContainerView, used: Option<&Used>) -> Vec<Meter> {
    vec![cpu(view, used), memory(view, used), pids(view, used)]
}

/// Processor use.
pub(super) fn cpu(view: &ContainerView, used: Option<&Used>) -> Meter {
    let limit = u64::from(view.limits.cpu_millis);
    let of = cores(limit);
    let word = if limit == 1000 { "core" } else { "cores" };
    let Some(used) = used else { return idle(view, "cpu", "Processor", format!("{of} {word}")) };
    let Some(cpu_millis) = used.cpu_millis else {
        return idle(view, "cpu", "Processor", format!("{of} {word}"));
    };
    let held_back = used.sample.cpu.throttled_usec / 1000;
    Meter {
        key: "cpu",
        label: "Processor".into(),
        text: format!("{} of {of} {word}", cores_used(cpu_millis)),
        percent: Some(percent(cpu_millis, limit)),
        note: match held_back {
            0 => "never held back".into(),
            millis => {
                format!("held back {}.{} s since its start", millis / 1000, millis % 1000 / 100)
            }
        },
    }
}

/// Memory use.
pub(super) fn memory(view: &ContainerView, used: Option<&Used>) -> Meter {
    let limit = view.limits.memory_bytes;
    let Some(used) = used else { return idle(view, "memory", "Memory", bytes(limit)) };
    let memory = &used.sample.memory;
    let mut note = format!("{} of it file cache", bytes(memory.cache_bytes));
    if let Some(swap) = memory.swap_bytes.filter(|&swap| swap > 0) {
        note.push_str(&format!(", {} swapped", bytes(swap)));
    }
    Meter {
        key: "memory",
        label: "Memory".into(),
        text: bytes_of(memory.used_bytes, limit),
        percent: Some(percent(memory.used_bytes, limit)),
        note,
    }
}

/// Processes.
pub(super) fn pids(view: &ContainerView, used: Option<&Used>) -> Meter {
    let limit = view.limits.pids;
    let Some(used) = used else { return idle(view, "pids", "Processes", limit.to_string()) };
    let now = used.sample.pids;
    Meter {
        key: "pids",
        label: "Processes".into(),
        text: format!("{now} of {limit}"),
        percent: Some(percent(now, limit.into())),
        note: String::new(),
    }
}

fn idle(view: &ContainerView, key: &'static str, label: &str, of: String) -> Meter {
    Meter {
        key,
        label: label.into(),
        text: format!("– of {of}"),
        percent: None,
        note: if is_live(view) { "being measured" } else { "not running" }.into(),
    }
}

/// The main thing to do, what else is at hand, and the rest.
pub(super) fn acts(view: &ContainerView) -> (Option<Act>, Vec<Act>, Vec<Act>) {
    if !view.rights.contains(&Right::Manage) {
        return (None, Vec::new(), Vec::new());
    }
    let act = |label, icon, verb: &str| Act {
        label,
        icon,
        path: format!("/containers/{}/{verb}", view.id),
        asks: false,
        danger: false,
    };
    let stop = || act("Stop", "stop", "stop");
    let start = || act("Start", "start", "start");
    let restart = || act("Restart", "restart", "restart");
    let kill = Act { danger: true, ..act("Kill", "kill", "kill") };
    let remove = Act { asks: true, danger: true, ..act("Remove…", "remove", "remove") };
    let (main, acts, mut more) = match view.status {
        Status::Running => {
            (Some(stop()), vec![restart(), act("Pause", "pause", "pause")], vec![kill, remove])
        }
        Status::Paused => {
            (Some(act("Resume", "start", "resume")), vec![stop(), restart()], vec![kill, remove])
        }
        Status::Starting => (Some(stop()), Vec::new(), vec![remove]),
        Status::Stopping => (Some(kill), Vec::new(), vec![remove]),
        Status::Restarting => (Some(stop()), vec![start()], vec![remove]),
        Status::Created | Status::Exited => (Some(start()), Vec::new(), vec![remove]),
        Status::Failed if view.image.id.is_some() => (Some(start()), Vec::new(), vec![remove]),
        Status::Pulling | Status::Failed | Status::Removing => (None, Vec::new(), vec![remove]),
    };
    let has_end = view.ends_at.or_else(|| view.idle.and_then(|idle| idle.stops_at)).is_some();
    if has_end && is_live(view) {
        let extend = act("Keep it running", "plus", "extend");
        let at = if soon(view).is_some() { 0 } else { more.len() };
        more.insert(at.min(more.len()), extend);
    }
    if !view.rights.contains(&Right::Remove) {
        more.retain(|act| act.icon != "remove");
    }
    (main, acts, more)
}

/// The head of all pages of one container.
pub(super) fn head(caller: &Caller, view: &ContainerView, tab: Tab) -> Head {
    let (main, acts, more) = acts(view);
    let has = |right| view.rights.contains(&right);
    let own = view.owner.id == caller.principal.0;
    Head {
        id: view.id.to_string(),
        name: view.name.clone(),
        owner: (!own).then(|| view.owner.name.clone()),
        state: badge(view, Time::now().0),
        image: view.image.reference.clone(),
        main,
        acts,
        more,
        tab,
        may: May {
            logs: has(Right::Logs),
            files: has(Right::Files),
            terminal: has(Right::Terminal),
            manage: has(Right::Manage),
            sees_shares: has(Right::SeeShares),
        },
    }
}

/// Whether it ended by itself and not well.
fn ended_badly(view: &ContainerView) -> bool {
    view.exit.as_ref().is_some_and(|exit| exit.stopped_by.is_none() && exit.code != Some(0))
}

/// The end as a word and the rest: `killed`, `out of memory at its limit of 64 MiB`.
fn end_in_two(view: &ContainerView) -> (String, String) {
    let text = ended(view);
    match text.split_once([':', ' ']) {
        Some((word, rest)) => (word.to_owned(), rest.trim().trim_start_matches("with ").to_owned()),
        None => ("stopped".to_owned(), text),
    }
}

fn ended(view: &ContainerView) -> String {
    view.exit.as_ref().map(|exit| exit.text.clone()).unwrap_or_default()
}
