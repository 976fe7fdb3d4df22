//! The pages of one container: overview, log, processes, settings.

use std::fmt::Write;

use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::containers::{
    Ceilings, LimitRow, LogLine, LogsPage, OverviewPage, ProcessRow, ProcessesPage, SettingsPage,
    Tab,
};
use berth_web::format::{Moment, bytes, cores, short, span};
use berth_web::parts::{Badge, Fact, Field};
use berth_web::shell::{ApiCall, Section, Shell, Tone};
use futures_util::StreamExt;
use serde::Deserialize;

use super::entry::refusal;
use super::form::{Posted, Wrong, join_words};
use super::frame::{Frame, sentence};
use super::request::settings_request;
use super::shown;
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, Routes};
use crate::service::containers;
use crate::service::containers::actions::{self, Change};
use crate::service::containers::output::{self, LogPart};
use crate::service::containers::view::{ContainerView, DetailView, HeldLimit};
use crate::service::edits::Expected;
use crate::service::logs::{LogEntry, LogSelection, LogStream};
use crate::service::rates::{self, Use};
use crate::service::restart::RestartPolicy;

/// Lines shown when nothing is said, and at most.
const TAIL: u32 = 200;
const TAIL_MAX: u32 = 5000;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    let act = Access::Member(TokenScope::Operate);
    routes
        .page(read, Method::GET, "/containers/{id}", overview)
        .page(read, Method::GET, "/containers/{id}/logs", logs)
        .page(read, Method::GET, "/containers/{id}/processes", processes)
        .page(act, Method::GET, "/containers/{id}/settings", settings)
        .page(act, Method::POST, "/containers/{id}/settings", change_settings)
}

/// The frame of a page of this container.
fn shell(frame: &Frame, view: &ContainerView, calls: Vec<ApiCall>) -> Shell {
    let mut shell =
        frame.shell(format!("{} {}", view.name, view.status.as_str()), Section::Containers);
    shell.mark = shown::mark(view);
    shell.live_secs = Some(2);
    shell.calls = calls;
    shell
}

async fn used(app: &App, caller: &Caller, view: &ContainerView) -> Option<Use> {
    if !shown::is_live(view) {
        return None;
    }
    let id = view.id.to_string();
    rates::of(app, caller, std::slice::from_ref(&id)).await.remove(&id)
}

async fn overview(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let detail = containers::inspect(&app, &caller, &id).await?;
    let view = &detail.container;
    let used = used(&app, &caller, view).await;
    let path = format!("/api/v1/containers/{}", view.id);
    let calls = vec![
        ApiCall::get("Show this container", path.clone()),
        ApiCall::get("Follow what it uses", format!("{path}/stats/events")),
        ApiCall::send("Stop it", "POST", format!("{path}/stop"), None),
    ];
    let content = view.content.as_ref();
    let labels = content.map(|content| &content.labels).into_iter().flatten();
    let page = OverviewPage {
        shell: shell(&frame, view, calls),
        head: shown::head(&caller, view, Tab::Overview),
        story: shown::story(view, Time::now().0),
        gauges: shown::gauges(view, used.as_ref()),
        limits: limits(&detail),
        facts: facts(&detail),
        env: content.and_then(|content| content.env.clone()).unwrap_or_default(),
        labels: labels.map(|(key, value)| format!("{key}={value}")).collect(),
    };
    frame.page(&page)
}

fn limits(detail: &DetailView) -> Vec<LimitRow> {
    let asked = &detail.container.limits;
    let rows = [
        ("cpu", "Processor", format!("{} cores", cores(asked.cpu_millis.into()))),
        ("cpu_weight", "Weight", asked.cpu_weight.to_string()),
        ("memory", "Memory", bytes(asked.memory_bytes)),
        ("swap", "Swap", bytes(asked.swap_bytes)),
        ("pids", "Processes", asked.pids.to_string()),
    ];
    rows.into_iter()
        .map(|(key, name, asked)| {
            let held = detail.limits_held.iter().find(|held| held.name == key);
            LimitRow {
                name,
                asked,
                value: held.map(|held| held.value.clone()).unwrap_or_default(),
                file: held.map(|held| held.file.clone()).unwrap_or_default(),
                held: held_badge(held),
            }
        })
        .collect()
}

fn held_badge(held: Option<&HeldLimit>) -> Badge {
    let (tone, icon, word, reason) = match held {
        Some(held) if held.held => (Tone::Good, "held", "held", ""),
        Some(held) => (Tone::Attention, "attention", "not held", held.reason.as_str()),
        None => (Tone::Neutral, "new", "at its start", ""),
    };
    Badge { tone, icon, word: word.to_owned(), reason: reason.to_owned() }
}

fn facts(detail: &DetailView) -> Vec<Fact> {
    let view = &detail.container;
    let now = Time::now().0;
    let moment = |key, at: Time| {
        let moment = Moment::new(at.0, now);
        Fact::text(key, moment.words).with_exact(moment.exact)
    };
    let mut facts = vec![Fact::copy("Id", short(view.id.as_str()), view.id.to_string())];
    if let Some(image) = &view.image.id {
        facts.push(Fact::copy("Image", short(image), image.clone()));
    }
    if let Some(content) = &view.content {
        let code = |key, text: &Option<String>| {
            text.as_ref().filter(|text| !text.is_empty()).map(|text| Fact::code(key, text.clone()))
        };
        let command = content.args.as_ref().map(|args| Fact::code("Command", join_words(args)));
        facts.extend(command);
        facts.extend(code("Working directory", &content.working_dir));
        facts.extend(code("User inside", &content.user));
        facts.extend(code("Host name", &content.hostname));
    }
    facts.push(match (view.address, detail.network) {
        (Some(address), _) => Fact::copy("Address", address.to_string(), address.to_string()),
        (None, Some(network)) => Fact::text("Network", network),
        (None, None) => Fact::text("Network", "not known yet"),
    });
    facts.push(Fact::text("When it ends", restart_in_words(view)));
    if let (Some(signal), Some(grace)) = (&detail.stop_signal, detail.stop_grace_secs) {
        facts.push(Fact::text("Stops by", format!("{signal}, killed after {grace} s")));
    }
    if detail.read_only_root == Some(true) {
        facts.push(Fact::text("Root", "read-only"));
    }
    facts.push(moment("Made", view.created_at));
    facts.extend(view.started_at.map(|at| moment("Started", at)));
    facts.push(Fact::text("Starts so far", view.run.to_string()));
    facts.extend(detail.pid.map(|pid| Fact::code("Process on the host", pid.to_string())));
    if detail.oom_kills > 0 {
        facts.push(Fact::text("Killed for memory", format!("{} processes", detail.oom_kills)));
    }
    facts
}

fn restart_in_words(view: &ContainerView) -> String {
    let mut text = match view.restart.policy {
        RestartPolicy::No => "stays stopped".to_owned(),
        RestartPolicy::Always => "is always started again".to_owned(),
        RestartPolicy::UnlessStopped => "is started again unless somebody stopped it".to_owned(),
        RestartPolicy::OnFailure { max_attempts: None } => {
            "is started again when it failed".to_owned()
        }
        RestartPolicy::OnFailure { max_attempts: Some(most) } => {
            format!("is started again when it failed, up to {most} times")
        }
    };
    if view.restart.attempts > 0 {
        let _unfailing = write!(text, "; {} restarts in a row", view.restart.attempts);
    }
    text
}

#[derive(Debug, Default, Deserialize)]
struct LogsQuery {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    tail: String,
}

async fn logs(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response> {
    let detail = containers::inspect(&app, &caller, &id).await?;
    let view = &detail.container;
    let tail = query.tail.parse().unwrap_or(TAIL).clamp(1, TAIL_MAX);
    let (stream, word) = match query.stream.as_str() {
        "stdout" => (Some(LogStream::Stdout), "stdout"),
        "stderr" => (Some(LogStream::Stderr), "stderr"),
        _ => (None, "all"),
    };
    let selection =
        LogSelection { stream, tail: usize::try_from(tail + 1).ok(), ..LogSelection::default() };
    let entries = read_log(&app, &caller, &id, selection).await?;
    let path = format!("/api/v1/containers/{}/logs", view.id);
    let only = stream.map(|_| format!("stream={word}")).unwrap_or_default();
    let from = entries.last().map(|entry| format!("from={}", entry.next)).unwrap_or_default();
    let lines = lines(entries);
    let skipped = lines.len().saturating_sub(tail as usize);
    let follow = [only.as_str(), from.as_str()].into_iter().filter(|part| !part.is_empty());
    let calls = vec![
        ApiCall::get("Its last lines", format!("{path}?tail={tail}")),
        ApiCall::get("Follow it", format!("{path}?follow=true&tail={tail}")),
    ];
    let page = LogsPage {
        shell: shell(&frame, view, calls),
        head: shown::head(&caller, view, Tab::Logs),
        stream: word.to_owned(),
        tail,
        truncated: skipped > 0,
        lines: lines.into_iter().skip(skipped).collect(),
        follow: shown::is_live(view)
            .then(|| format!("{path}/events?{}", follow.collect::<Vec<_>>().join("&"))),
        download: format!("{path}?timestamps=true"),
    };
    frame.page(&page)
}

async fn read_log(
    app: &App,
    caller: &Caller,
    id: &str,
    selection: LogSelection,
) -> Result<Vec<LogEntry>> {
    let parts = output::logs(app, caller, id, selection).await?;
    futures_util::pin_mut!(parts);
    let mut entries = Vec::new();
    while let Some(part) = parts.next().await {
        if let LogPart::Entries(more) = part? {
            entries.extend(more);
        }
    }
    Ok(entries)
}

/// Records made into lines; what was split for its length is put together again.
fn lines(entries: Vec<LogEntry>) -> Vec<LogLine> {
    let mut lines: Vec<LogLine> = Vec::new();
    let mut open: [Option<usize>; 2] = [None, None];
    for entry in entries {
        let stderr = entry.stream == LogStream::Stderr;
        let text = visible(&String::from_utf8_lossy(&entry.content));
        let open = &mut open[usize::from(stderr)];
        match open.and_then(|index| lines.get_mut(index)) {
            Some(line) => line.text.push_str(&text),
            None => {
                *open = Some(lines.len());
                let clock = entry.time.get(11..23).unwrap_or(&entry.time).to_owned();
                lines.push(LogLine { clock, exact: entry.time, stderr, text });
            }
        }
        if !entry.partial {
            *open = None;
        }
    }
    lines
}

/// Control characters drawn instead of obeyed; colour sequences of terminals are left out, and so
/// are marks that turn the direction of text around.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' if rest.as_str().starts_with('[') => {
                let after = rest.as_str();
                let end =
                    after.find(|c: char| !(c == '[' || c == ';' || c == ':' || c.is_ascii_digit()));
                match end.filter(|&end| after[end..].starts_with('m')) {
                    Some(end) => rest = after[end + 1..].chars(),
                    None => out.push('␛'),
                }
            }
            '\t' => out.push(c),
            '\u{7f}' => out.push('␡'),
            '\0'..='\u{1f}' => out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('�')),
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push('�')
            }
            c => out.push(c),
        }
    }
    out
}

async fn processes(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let detail = containers::inspect(&app, &caller, &id).await?;
    let view = &detail.container;
    let (items, truncated) = match output::processes(&app, &caller, &id).await {
        Ok(found) => (found.items, found.truncated),
        Err(Error::Conflict(_)) => (Vec::new(), false),
        Err(error) => return Err(error),
    };
    let path = format!("/api/v1/containers/{}/processes", view.id);
    let page = ProcessesPage {
        shell: shell(&frame, view, vec![ApiCall::get("List its processes", path)]),
        head: shown::head(&caller, view, Tab::Processes),
        rows: items.into_iter().map(process).collect(),
        truncated,
    };
    frame.page(&page)
}

fn process(process: output::ProcessView) -> ProcessRow {
    ProcessRow {
        pid: process.pid,
        parent: process.parent,
        user: process.uid.to_string(),
        state: match process.state {
            'R' => "running",
            'S' | 'I' => "waiting",
            'D' => "waiting for a device",
            'T' | 't' => "halted",
            'Z' => "ended, not reaped",
            _ => "other",
        },
        cpu_time: match process.cpu_seconds {
            seconds if seconds < 60.0 => format!("{seconds:.2} s"),
            seconds => {
                span(std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs())
            }
        },
        memory: bytes(process.memory_bytes),
        age: span(process.age_seconds),
        command: visible(&process.command.unwrap_or_default()),
    }
}

async fn settings(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let view = containers::inspect(&app, &caller, &id).await?.container;
    let posted = Posted::new(as_typed(&view));
    let page =
        settings_page(&app, &frame, &caller, &view, &posted, Wrong::default(), String::new()).await;
    frame.page(&page)
}

async fn change_settings(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response> {
    let posted = Posted::new(pairs);
    let view = containers::inspect(&app, &caller, &id).await?.container;
    let result = match settings_request(&posted) {
        Ok((limits, restart)) => {
            let name = Some(posted.text("name").to_owned()).filter(|name| *name != view.name);
            let change = Change {
                limits: Some(limits),
                restart: Some(restart),
                name,
                expected: Expected::of(posted.text("etag")),
            };
            actions::change(&app, &caller, &id, change).await
        }
        Err(wrong) => Err(wrong.into_error()),
    };
    match result {
        Ok(_) => frame.done(&format!("/containers/{id}/settings"), "Saved."),
        Err(error) => {
            let (status, wrong, text): (StatusCode, _, _) = refusal(error)?;
            let page = settings_page(&app, &frame, &caller, &view, &posted, wrong, text).await;
            frame.page_with(status, &page)
        }
    }
}

/// The settings as their form would send them.
fn as_typed(view: &ContainerView) -> Vec<(String, String)> {
    let (policy, attempts) = match view.restart.policy {
        RestartPolicy::No => ("no", None),
        RestartPolicy::Always => ("always", None),
        RestartPolicy::UnlessStopped => ("unless-stopped", None),
        RestartPolicy::OnFailure { max_attempts } => ("on-failure", max_attempts),
    };
    let limits = &view.limits;
    [
        ("name", view.name.clone()),
        ("cpu", cores(limits.cpu_millis.into())),
        ("cpu_weight", limits.cpu_weight.to_string()),
        ("memory", bytes(limits.memory_bytes)),
        ("swap", bytes(limits.swap_bytes)),
        ("pids", limits.pids.to_string()),
        ("restart", policy.to_owned()),
        ("restart_attempts", attempts.map(|most| most.to_string()).unwrap_or_default()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

async fn settings_page(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    view: &ContainerView,
    posted: &Posted,
    mut wrong: Wrong,
    error: String,
) -> SettingsPage {
    let used = used(app, caller, view).await;
    let path = format!("/api/v1/containers/{}", view.id);
    let body = "{\"limits\": {\"memory_bytes\": 536870912}}".to_owned();
    let calls = vec![ApiCall::send("Change the memory limit", "PATCH", path, Some(body))];
    let mut field = |name: &str, pointer: &str| Field {
        value: posted.text(name).to_owned(),
        // The service names limits as in the create, or on their own.
        error: match (wrong.take(&format!("/limits{pointer}")), wrong.take(pointer)) {
            (said, also) if said.is_empty() => sentence(&also),
            (said, _) => sentence(&said),
        },
    };
    SettingsPage {
        shell: shell(frame, view, calls),
        head: shown::head(caller, view, Tab::Settings),
        name: field("name", "/name"),
        cpu: field("cpu", "/cpu_millis"),
        cpu_weight: field("cpu_weight", "/cpu_weight"),
        memory: field("memory", "/memory_bytes"),
        swap: field("swap", "/swap_bytes"),
        pids: field("pids", "/pids"),
        restart_attempts: field("restart_attempts", "/restart/max_attempts"),
        restart: field("restart", "/restart"),
        ceilings: ceilings(app),
        live: shown::is_live(view),
        gauges: shown::gauges(view, used.as_ref()),
        error: if error.is_empty() { wrong.rest() } else { error },
    }
}

/// The highest limits that may be asked for, in words.
pub(super) fn ceilings(app: &App) -> Ceilings {
    let most = &app.config.runtime.ceilings;
    Ceilings {
        cpu: cores(most.cpu_millis.into()),
        memory: bytes(most.memory_bytes),
        swap: bytes(most.swap_bytes),
        pids: most.pids.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn log_text_is_shown_and_not_obeyed() {
        assert_eq!(visible("a\u{1b}[1;31mred\u{1b}[0m b"), "ared b");
        assert_eq!(visible("\u{1b}]52;c;aGk=\u{7}"), "␛]52;c;aGk=␇");
        assert_eq!(visible("\u{1b}["), "␛[");
        assert_eq!(visible("x\u{202e}y\0\r\t"), "x�y␀␍\t");
        assert_eq!(visible("<b>&amp;"), "<b>&amp;");
    }
}
