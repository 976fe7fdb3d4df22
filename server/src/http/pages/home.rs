//! The home page: what one uses of what one may, what needs one, what goes on and went on. It only
//! puts together what other services know.

use axum::extract::State;
use axum::http::Method;
use axum::response::Response;
use berth_web::containers::Row;
use berth_web::format::{Moment, bytes, bytes_of, cores, cores_used, count, percent};
use berth_web::home::{FirstSteps, HomePage, Need, Task};
use berth_web::parts::{Badge, Meter};
use berth_web::shell::{ApiCall, Mark, Section, Tone};
use serde_json::Value;

use super::frame::{Frame, leads};
use super::operations::words;
use super::shown::{self, Class};
use super::{containers as list, happened, machine, used};
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope};
use crate::clock::Time;
use crate::error::Result;
use crate::http::routes::{Access, Routes};
use crate::inventory::containers::{Filter as Rows, Whose};
use crate::inventory::operations::{Filter, Operation, OperationState};
use crate::inventory::people::Person;
use crate::service::containers::view::{ContainerView, DetailView};
use crate::service::containers::{self, ListFilter};
use crate::service::usage::{self, Usage};
use crate::service::{Page, asks, operations, people, tokens};

/// Containers looked at: no person has more by default, and the rest are a click away.
const LOOKED_AT_MAX: u32 = 500;
const RUNNING_MAX: usize = 8;
const NEEDS_MAX: usize = 6;
const TASKS_MAX: u32 = 5;
/// A token that ends sooner is said.
const TOKEN_ENDS_MS: i64 = 7 * 86_400_000;
/// An invitation that ends sooner, unused, is said.
const INVITATION_ENDS_MS: i64 = 86_400_000;
/// A container that was started again so often in a row needs somebody.
const ATTEMPTS_MANY: u32 = 3;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.page(Access::SignedIn(TokenScope::Read), Method::GET, "/home", show)
}

async fn show(State(app): State<App>, frame: Frame, caller: Caller) -> Result<Response> {
    let oversees = matches!(caller.role, Role::Operator | Role::Auditor);
    let acts = matches!(caller.role, Role::Operator | Role::User);
    let everybody = if oversees { all_people(&app, &caller).await? } else { Vec::new() };
    let all = containers_of(&app, &caller).await?;
    let own: Vec<&ContainerView> =
        all.iter().filter(|view| view.owner.id == caller.principal.0).collect();
    let usage = usage::mine(&app, &caller).await?;
    let running = own.iter().filter(|view| shown::class(view) == Class::Running).count();
    let mut live: Vec<&ContainerView> =
        own.iter().copied().filter(|view| shown::class(view) == Class::Running).collect();
    live.truncate(RUNNING_MAX);
    app.history.watch();
    let mut needs = needs(&own);
    needs.extend(unheld(&app, &caller, &live).await);
    needs.extend(ending_tokens(&app, &caller).await?);
    if caller.role == Role::Operator {
        needs.extend(ending_invitations(&everybody));
        needs.extend(waiting_asks(&app).await?);
    }
    let needs_more = needs.len().saturating_sub(NEEDS_MAX);
    let mut gauges = Vec::new();
    if acts {
        gauges = readouts(&usage, needs.len());
        gauges.extend(used::data(&app, &caller, caller.principal).await);
    }
    let mut shell = frame.shell(title(running), Section::Home);
    shell.mark = match () {
        () if needs.iter().any(|need| need.state.tone == Tone::Bad) => Mark::Attention,
        () if running > 0 => Mark::Running,
        () => Mark::Idle,
    };
    needs.truncate(NEEDS_MAX);
    shell.live_secs = Some(3);
    shell.calls = calls(oversees);
    let first = (acts && own.is_empty()).then_some(FirstSteps {
        has_image: usage.images.count > 0,
        adds_people: caller.role == Role::Operator && everybody.len() < 2,
    });
    frame.page(&HomePage {
        acts,
        readouts: gauges,
        needs,
        needs_more,
        rows: live.iter().map(|view| row(&app, view)).collect(),
        rows_more: running.saturating_sub(RUNNING_MAX),
        tasks: tasks(&app, &caller).await?,
        happened: happened::last(&app, &caller, &all, &everybody).await?,
        happened_path: leads("/events", Some(&caller)).unwrap_or_default().to_owned(),
        machine: if oversees { Some(machine::now(&app, &caller).await?) } else { None },
        first,
        shell,
    })
}

fn row(app: &App, view: &ContainerView) -> Row {
    let used = app.history.latest(&view.id).filter(|used| used.run == view.run);
    list::row(view, used.as_ref())
}

fn title(running: usize) -> String {
    if running == 0 { "Home".to_owned() } else { format!("{running} running") }
}

fn calls(oversees: bool) -> Vec<ApiCall> {
    let mut calls = vec![
        ApiCall::get("What you use of what you may", "/api/v1/me/usage"),
        ApiCall::get("List containers", "/api/v1/containers"),
        ApiCall::get("List what is under way", "/api/v1/operations?state=running"),
        ApiCall::get("List what happened", "/api/v1/events?limit=8"),
    ];
    if oversees {
        calls.push(ApiCall::get("The machine and everybody on it", "/api/v1/system/usage"));
    }
    calls
}

/// One's own containers, and others that one sees, whose names events need.
async fn containers_of(app: &App, caller: &Caller) -> Result<Vec<ContainerView>> {
    let page = Page { limit: LOOKED_AT_MAX, after: None };
    let whose = (caller.role == Role::User).then_some(Whose::Shared);
    let others = ListFilter { rows: Rows { whose, ..Rows::default() }, ..ListFilter::default() };
    let mut found = containers::list(app, caller, &others, &page).await?.items;
    found.retain(|view| view.owner.id != caller.principal.0);
    let rows = Rows { owner: Some(caller.principal), ..Rows::default() };
    let filter = ListFilter { rows, ..ListFilter::default() };
    found.extend(containers::list(app, caller, &filter, &page).await?.items);
    Ok(found)
}

async fn all_people(app: &App, caller: &Caller) -> Result<Vec<Person>> {
    let page = Page { limit: LOOKED_AT_MAX, after: None };
    Ok(people::list(app, caller, &page).await?.items)
}

fn readouts(usage: &Usage, needing: usize) -> Vec<Meter> {
    let live = usage.containers.running > 0;
    let meter = |key, label: &str, text: String, share: u8| Meter {
        key,
        label: label.to_owned(),
        text,
        percent: live.then_some(share),
        note: if live { "sum of the running limits" } else { "nothing runs" }.to_owned(),
    };
    let (cpu, memory, pids) = (&usage.cpu, &usage.memory, &usage.pids);
    vec![
        Meter {
            key: "running",
            label: "Running".to_owned(),
            text: format!(
                "{} of {}",
                count(usage.containers.running),
                count(usage.containers.total)
            ),
            percent: None,
            note: match needing {
                0 => format!("nothing needs you; {} may exist", count(usage.containers.max)),
                1 => "1 thing needs you".to_owned(),
                more => format!("{more} things need you"),
            },
        },
        meter(
            "cpu",
            "Processor",
            format!("{} of {} cores", cores_used(cpu.used_millis), cores(cpu.limit_millis)),
            percent(cpu.used_millis, cpu.limit_millis),
        ),
        meter(
            "memory",
            "Memory",
            bytes_of(memory.used_bytes, memory.limit_bytes),
            percent(memory.used_bytes, memory.limit_bytes),
        ),
        meter(
            "pids",
            "Processes",
            format!("{} of {}", count(pids.used), count(pids.limit)),
            percent(pids.used, pids.limit),
        ),
        Meter {
            key: "images",
            label: "Images".to_owned(),
            text: bytes(usage.images.bytes),
            percent: None,
            note: match usage.images.count {
                1 => "1 image on disk".to_owned(),
                many => format!("{} images on disk", count(many)),
            },
        },
    ]
}

/// What ended badly, could not start, or is started again and again.
fn needs(own: &[&ContainerView]) -> Vec<Need> {
    let now = Time::now().0;
    let in_need = own.iter().filter(|view| {
        shown::class(view) == Class::Failed || view.restart.attempts >= ATTEMPTS_MANY
    });
    let need = |view: &&ContainerView| Need {
        id: view.id.to_string(),
        state: shown::badge(view, now),
        name: view.name.clone(),
        path: format!("/containers/{}", view.id),
        act: shown::acts(view).0,
    };
    in_need.map(need).collect()
}

/// Running containers with a limit that the kernel does not hold.
async fn unheld(app: &App, caller: &Caller, live: &[&ContainerView]) -> Vec<Need> {
    let mut found = Vec::new();
    for view in live {
        // One that has gone since needs nobody.
        let Ok(detail) = containers::inspect(app, caller, view.id.as_str()).await else { continue };
        found.extend(unheld_of(&detail));
    }
    found
}

fn unheld_of(detail: &DetailView) -> Option<Need> {
    let limit = detail.limits_held.iter().find(|limit| !limit.held && !limit.reason.is_empty())?;
    Some(Need {
        id: format!("{}-limit", detail.container.id),
        state: Badge {
            tone: Tone::Attention,
            icon: "attention",
            word: "limit not held".to_owned(),
            reason: format!("{}: {}", limit.name, limit.reason),
        },
        name: detail.container.name.clone(),
        path: format!("/containers/{}", detail.container.id),
        act: None,
    })
}

async fn ending_tokens(app: &App, caller: &Caller) -> Result<Vec<Need>> {
    let now = Time::now().0;
    let tokens = tokens::list(app, caller).await?;
    let ending = tokens.iter().filter(|token| token.expires_at.0 - now < TOKEN_ENDS_MS);
    let need = |token: &crate::inventory::tokens::Token| Need {
        id: format!("token-{}", token.id),
        state: ends("token", token.expires_at, now),
        name: token.name.clone(),
        path: "/account".to_owned(),
        act: None,
    };
    Ok(ending.map(need).collect())
}

/// What people have asked operators for.
async fn waiting_asks(app: &App) -> Result<Option<Need>> {
    let waiting = asks::waiting(app).await?;
    Ok((waiting > 0).then(|| Need {
        id: "asks".to_owned(),
        state: Badge {
            tone: Tone::Attention,
            icon: "attention",
            word: "asked for more".to_owned(),
            reason: "waits for an operator".to_owned(),
        },
        name: if waiting == 1 { "1 ask".to_owned() } else { format!("{} asks", count(waiting)) },
        path: "/asks".to_owned(),
        act: None,
    }))
}

/// Links that nobody has used and that end soon or have ended.
fn ending_invitations(everybody: &[Person]) -> Vec<Need> {
    let now = Time::now().0;
    let waiting = everybody.iter().filter(|p| !p.has_password && p.disabled_at.is_none());
    let ending = waiting.filter_map(|person| {
        let until = person.invitation_expires_at;
        let soon = until.is_none_or(|until| until.0 - now < INVITATION_ENDS_MS);
        soon.then(|| Need {
            id: format!("person-{}", person.id.0),
            state: match until {
                Some(until) => ends("unused link", until, now),
                None => Badge {
                    tone: Tone::Attention,
                    icon: "link",
                    word: "no link".to_owned(),
                    reason: "never signed in, and holds no link to do so".to_owned(),
                },
            },
            name: person.name.clone(),
            path: "/people".to_owned(),
            act: None,
        })
    });
    ending.collect()
}

fn ends(what: &str, at: Time, now: i64) -> Badge {
    let words = Moment::new(at.0, now).words;
    let word = if at.0 <= now { format!("{what} ended") } else { format!("{what} ends") };
    Badge { tone: Tone::Attention, icon: "attention", word, reason: words }
}

async fn tasks(app: &App, caller: &Caller) -> Result<Vec<Task>> {
    let filter = Filter { state: Some(OperationState::Running), ..Filter::default() };
    let page = Page { limit: TASKS_MAX, after: None };
    let listed = operations::list(app, caller, filter, &page).await?;
    let own = listed.items.iter().filter(|operation| operation.owner == caller.principal);
    Ok(own.map(task).collect())
}

fn task(operation: &Operation) -> Task {
    let number = |key| operation.progress.get(key).and_then(Value::as_u64).unwrap_or(0);
    let (done, total) = (number("downloaded_bytes"), number("total_bytes"));
    Task {
        id: operation.id.clone(),
        title: format!("{} {}", words(&operation.kind).0, operation.subject),
        owner: String::new(),
        percent: (total > 0).then(|| percent(done, total)),
        text: if total > 0 { bytes_of(done, total) } else { "begins".to_owned() },
        cancel: Some(format!("/operations/{}/cancel", operation.id)),
    }
}
