//! The pages of one container: overview, processes, settings. Its log is in [`super::log`], its story
//! in [`super::story`].

use std::fmt::Write;

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::wire::PortProtocol;
use berth_web::containers::{
    Ceilings, LimitRow, OverviewPage, ProcessRow, ProcessesPage, SettingsPage, Tab,
};
use berth_web::format::{Moment, bytes, cores, short, span};
use berth_web::parts::{Badge, Fact, Field};
use berth_web::shell::{ApiCall, Section, Shell, Tone};

use super::form::{Posted, Wrong, join_words};
use super::frame::{Frame, sentence};
use super::request::{SETTINGS, settings_request};
use super::{hour, shown};
use crate::app::App;
use crate::auth::{Caller, Right, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, Routes};
use crate::service::containers;
use crate::service::containers::actions::{self, Change};
use crate::service::containers::history;
use crate::service::containers::output;
use crate::service::containers::view::{
    ContainerView, DataSetMountView, DetailView, HeldLimit, MountView,
};
use crate::service::edits::Expected;
use crate::service::history::Used;
use crate::service::lifetimes;
use crate::service::ports::PortView;
use crate::service::restart::RestartPolicy;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    let act = Access::Member(TokenScope::Operate);
    routes
        .page(read, Method::GET, "/containers/{id}", overview)
        .page(read, Method::GET, "/containers/{id}/processes", processes)
        .page(act, Method::GET, "/containers/{id}/settings", settings)
        .form(act, "/containers/{id}/settings", SETTINGS, change_settings)
}

/// The frame of a page of this container.
pub(super) fn shell(frame: &Frame, view: &ContainerView, calls: Vec<ApiCall>) -> Shell {
    let mut shell =
        frame.shell(format!("{} {}", view.name, view.status.as_str()), Section::Containers);
    shell.mark = shown::mark(view);
    shell.live_secs = Some(2);
    shell.calls = calls;
    shell
}

/// What it uses by the newest look, which is not far back while somebody watches.
fn used(app: &App, view: &ContainerView) -> Option<Used> {
    app.history.watch();
    app.history.latest(&view.id).filter(|used| shown::is_live(view) && used.run == view.run)
}

async fn overview(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let detail = containers::inspect(&app, &caller, &id).await?;
    let view = &detail.container;
    let used = used(&app, view);
    let hour = history::history(&app, &caller, &id, None, None).await?;
    let path = format!("/api/v1/containers/{}", view.id);
    let calls = vec![
        ApiCall::get("Show this container", path.clone()),
        ApiCall::get("What it used in the last hour", format!("{path}/stats/history")),
        ApiCall::get("Follow what it uses", format!("{path}/stats/events")),
        ApiCall::send("Stop it", "POST", format!("{path}/stop"), None),
    ];
    let content = view.content.as_ref();
    let labels = content.map(|content| &content.labels).into_iter().flatten();
    let page = OverviewPage {
        shell: shell(&frame, view, calls),
        head: shown::head(&caller, view, Tab::Overview),
        story: shown::story(view, Time::now().0),
        ending: shown::ending(view, Time::now().0),
        gauges: shown::gauges(view, used.as_ref()),
        hour: hour::charts(&hour),
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
    facts.extend(
        view.address6
            .map(|address| Fact::copy("IPv6 address", address.to_string(), address.to_string())),
    );
    for port in &view.ports {
        let PortView { protocol, host_port, container_port } = port;
        let protocol = PortProtocol::from(*protocol).as_str();
        let text = format!("{host_port} leads to its {container_port}/{protocol}");
        facts.push(Fact::text("Port of the host", text));
    }
    facts.extend(view.mounts.iter().map(|mount| Fact::text("Volume", mount_in_words(mount))));
    let set = |mount: &DataSetMountView| format!("{} on {}", mount.name, mount.target);
    facts.extend(view.data_sets.iter().map(|mount| Fact::text("Data set", set(mount))));
    facts.push(Fact::text("When it ends", restart_in_words(view)));
    if let (Some(signal), Some(grace)) = (&detail.stop_signal, detail.stop_grace_secs) {
        facts.push(Fact::text("Stops by", format!("{signal}, killed after {grace} s")));
    }
    if detail.terminal == Some(true) {
        facts.push(Fact::text("Terminal", "can be attached to"));
    } else if detail.stdin == Some(true) {
        facts.push(Fact::text("Standard input", "open for whoever attaches"));
    }
    if detail.read_only_root == Some(true) {
        facts.push(Fact::text("Root", "read-only"));
    }
    facts.push(moment("Made", view.created_at));
    facts.extend(view.started_at.map(|at| moment("Started", at)));
    facts.extend(ends(view, now));
    facts.push(Fact::text("Starts so far", view.run.to_string()));
    facts.extend(detail.pid.map(|pid| Fact::code("Process on the host", pid.to_string())));
    if detail.oom_kills > 0 {
        facts.push(Fact::text("Killed for memory", format!("{} processes", detail.oom_kills)));
    }
    facts
}

/// When it is stopped by a rule, and when it was last used.
fn ends(view: &ContainerView, now: i64) -> Vec<Fact> {
    let mut facts = Vec::new();
    match (view.ends_at, view.lifetime_secs) {
        (Some(at), _) => {
            let Moment { words, exact, .. } = Moment::new(at.0, now);
            facts.push(Fact::text("Is stopped", words).with_exact(exact));
        }
        (None, Some(secs)) => {
            let text = format!("{} from its next start", lifetimes::span(secs.into()));
            facts.push(Fact::text("Runs for", text));
        }
        (None, None) => {}
    }
    if let Some(idle) = view.idle {
        let text = match (idle.idle_secs, idle.stops_at) {
            (0..=30, _) => "now".to_owned(),
            (secs, None) => {
                format!("{} ago: no processor, disk, network or terminal since", span(secs))
            }
            (secs, Some(at)) => format!(
                "{} ago: no processor, disk, network or terminal since; stopped {} if that goes on",
                span(secs),
                Moment::new(at.0, now).words
            ),
        };
        facts.push(Fact::text("Last used", text));
    }
    facts
}

fn mount_in_words(mount: &MountView) -> String {
    let MountView { volume, target, read_only, sub_path, .. } = mount;
    let part = sub_path.as_ref().map(|path| format!(", its {path}")).unwrap_or_default();
    let way = if *read_only { ", read-only" } else { "" };
    format!("{volume}{part} on {target}{way}")
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
        command: super::log::visible(&process.command.unwrap_or_default()),
    }
}

async fn settings(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let detail = containers::inspect(&app, &caller, &id).await?;
    containers::check(&app, &caller, &id, Right::Manage).await?;
    let posted = Posted::new(as_typed(&detail.container));
    let page =
        settings_page(&app, &frame, &caller, &detail, &posted, Wrong::default(), String::new());
    frame.page(&page)
}

async fn change_settings(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response> {
    let detail = containers::inspect(&app, &caller, &id).await?;
    let view = &detail.container;
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
            let (status, wrong, text): (StatusCode, _, _) = frame.refusal(error)?;
            let page = settings_page(&app, &frame, &caller, &detail, &posted, wrong, text);
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

fn settings_page(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    detail: &DetailView,
    posted: &Posted,
    mut wrong: Wrong,
    error: String,
) -> SettingsPage {
    let view = &detail.container;
    let used = used(app, view);
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
        limits: limits(detail),
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
