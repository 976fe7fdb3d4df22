//! The list of containers and what can be done from it.

use std::collections::HashMap;

use axum::Form;
use axum::extract::{MatchedPath, Path, Query, State};
use axum::http::Method;
use axum::response::Response;
use berth_web::containers::{ConfirmPage, ListPage, Row};
use berth_web::format::{Moment, bytes_of, cores, cores_used, count, percent};
use berth_web::parts::{Meter, Scope};
use berth_web::shell::{ApiCall, Mark, Section};
use serde::Deserialize;

use super::form::Posted;
use super::frame::{Frame, encoded, local};
use super::shown::{self, Class};
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, Routes};
use crate::service::Page;
use crate::service::containers::actions::{self, Force};
use crate::service::containers::view::{ContainerView, DetailView};
use crate::service::containers::{self, ListFilter};
use crate::service::rates::{self, Use};

/// Rows on one page.
const ROWS: usize = 100;
/// Containers looked through at most.
const LOOKED_AT_MAX: usize = 5000;
/// After so long an action goes on by itself, and the page says that it does.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(4);

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let act = Access::Member(TokenScope::Operate);
    let mut routes = routes
        .page(Access::SignedIn(TokenScope::Read), Method::GET, "/containers", list)
        .page(act, Method::GET, "/containers/{id}/remove", ask_remove);
    for verb in ["start", "stop", "restart", "kill", "pause", "resume", "remove"] {
        routes = routes.page(act, Method::POST, &format!("/containers/{{id}}/{verb}"), one);
    }
    for verb in ["start", "stop", "remove"] {
        routes = routes.page(act, Method::POST, &format!("/containers/bulk/{verb}"), bulk);
    }
    routes
}

#[derive(Debug, Default, Deserialize)]
struct ListQuery {
    #[serde(default)]
    q: String,
    page: Option<usize>,
}

/// A filter as typed: words, and `state:`, `image:`, `owner:`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    words: Vec<String>,
    states: Vec<String>,
    images: Vec<String>,
    owners: Vec<String>,
}

async fn list(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let all = everything(&app, &caller).await?;
    let live: Vec<String> =
        all.iter().filter(|view| shown::is_live(view)).map(|view| view.id.to_string()).collect();
    let used = rates::of(&app, &caller, &live).await;
    let wanted = Wanted::read(&query.q);
    let fits: Vec<&ContainerView> = all.iter().filter(|view| wanted.fits(view)).collect();
    let page = query.page.unwrap_or(1).max(1);
    let here = fits.iter().skip((page - 1) * ROWS).take(ROWS);
    let next = format!("/containers?q={}&page={}", encoded(&query.q), page + 1);
    let mut shell = frame.shell("Containers", Section::Containers);
    shell.mark = mark(&all);
    shell.title = match all.iter().filter(|view| shown::class(view) == Class::Running).count() {
        0 => "Containers".to_owned(),
        running => format!("{running} running"),
    };
    shell.live_secs = Some(3);
    shell.calls = vec![
        ApiCall::get("List containers", "/api/v1/containers"),
        ApiCall::get("Follow what happens", "/api/v1/events"),
    ];
    let view = ListPage {
        shell,
        readouts: readouts(&all, &used),
        scopes: scopes(&all, &query.q),
        query: query.q,
        query_error: String::new(),
        shows_owner: all.iter().any(|view| view.owner.id != caller.principal.0),
        rows: here.map(|view| row(&caller, view, used.get(view.id.as_str()))).collect(),
        next: (fits.len() > page * ROWS).then_some(next),
        first_use: all.is_empty(),
    };
    frame.page(&view)
}

/// All that the caller sees, newest first.
async fn everything(app: &App, caller: &Caller) -> Result<Vec<ContainerView>> {
    let mut all = Vec::new();
    let mut page = Page { limit: 500, after: None };
    loop {
        let listed = containers::list(app, caller, &ListFilter::default(), &page).await?;
        all.extend(listed.items);
        page.after = listed.next;
        if page.after.is_none() || all.len() >= LOOKED_AT_MAX {
            break;
        }
    }
    // What runs or needs somebody comes first; among equals the newest.
    all.sort_by_key(|view| match shown::class(view) {
        Class::Failed => 0,
        Class::Running => 1,
        Class::Stopped => 2,
    });
    Ok(all)
}

fn row(caller: &Caller, view: &ContainerView, used: Option<&Use>) -> Row {
    let now = Time::now().0;
    let since = match &view.exit {
        Some(exit) if !shown::is_live(view) => Some(exit.ended_at),
        _ => view.started_at.or(Some(view.created_at)),
    };
    let (main, acts, more) = shown::acts(caller, view);
    Row {
        id: view.id.to_string(),
        name: view.name.clone(),
        owner: view.owner.name.clone(),
        state: shown::badge(view, now),
        image: view.image.reference.clone(),
        cpu: shown::cpu(view, used),
        memory: shown::memory(view, used),
        address: view.address.map(|address| address.to_string()).unwrap_or_default(),
        since: since.map(|at| Moment::new(at.0, now)),
        main,
        more: acts.into_iter().chain(more).collect(),
    }
}

fn readouts(all: &[ContainerView], used: &HashMap<String, Use>) -> Vec<Meter> {
    let live = || all.iter().filter_map(|view| Some((view, used.get(view.id.as_str())?)));
    let sum = |of: fn(&ContainerView, &Use) -> u64| live().map(|(view, used)| of(view, used)).sum();
    let running = all.iter().filter(|view| shown::class(view) == Class::Running).count();
    let failed = all.iter().filter(|view| shown::class(view) == Class::Failed).count();
    let meter = |key, label: &str, text: String, percent| Meter {
        key,
        label: label.to_owned(),
        text,
        percent: (running > 0).then_some(percent),
        note: "of what the running ones may use".to_owned(),
    };
    let (cpu, cpu_of): (u64, u64) =
        (sum(|_, used| used.cpu_millis), sum(|view, _| view.limits.cpu_millis.into()));
    let (memory, memory_of): (u64, u64) = (
        sum(|_, used| used.seen.sample.memory.used_bytes),
        sum(|view, _| view.limits.memory_bytes),
    );
    let (pids, pids_of): (u64, u64) =
        (sum(|_, used| used.seen.sample.pids), sum(|view, _| view.limits.pids.into()));
    vec![
        Meter {
            key: "running",
            label: "Running".to_owned(),
            text: format!("{running} of {}", all.len()),
            percent: None,
            note: match failed {
                0 => "nothing needs you".to_owned(),
                1 => "1 needs you".to_owned(),
                failed => format!("{failed} need you"),
            },
        },
        meter(
            "cpu",
            "Processor",
            format!("{} of {} cores", cores_used(cpu), cores(cpu_of)),
            percent(cpu, cpu_of),
        ),
        meter("memory", "Memory", bytes_of(memory, memory_of), percent(memory, memory_of)),
        meter(
            "pids",
            "Processes",
            format!("{} of {}", count(pids), count(pids_of)),
            percent(pids, pids_of),
        ),
    ]
}

fn scopes(all: &[ContainerView], query: &str) -> Vec<Scope> {
    let scope = |label, class: Option<Class>, query_of: &str| Scope {
        label,
        count: u64::try_from(
            all.iter().filter(|view| class.is_none_or(|class| shown::class(view) == class)).count(),
        )
        .ok(),
        path: match query_of {
            "" => "/containers".to_owned(),
            text => format!("/containers?q={}", encoded(text)),
        },
        current: query.trim() == query_of,
    };
    vec![
        scope("All", None, ""),
        scope("Running", Some(Class::Running), "state:running"),
        scope("Stopped", Some(Class::Stopped), "state:stopped"),
        scope("Failed", Some(Class::Failed), "state:failed"),
    ]
}

fn mark(all: &[ContainerView]) -> Mark {
    if all.iter().any(|view| shown::class(view) == Class::Failed) {
        Mark::Attention
    } else if all.iter().any(|view| shown::class(view) == Class::Running) {
        Mark::Running
    } else {
        Mark::Idle
    }
}

/// One action on one container.
async fn one(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    route: MatchedPath,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response> {
    let posted = Posted::new(pairs);
    let verb = verb_of(&route);
    let own = format!("/containers/{id}");
    let back = match posted.text("back") {
        "" if verb == "remove" => "/containers",
        "" => own.as_str(),
        back => local(back),
    };
    match act(&app, &caller, &id, verb).await {
        Ok(text) => frame.done(back, &text),
        Err(error) => frame.refused(if verb == "remove" { &own } else { back }, error),
    }
}

/// The route's last part.
fn verb_of(route: &MatchedPath) -> &str {
    route.as_str().rsplit('/').next().unwrap_or_default()
}

/// The action that a verb names; answers what has been done, in a sentence.
async fn act(app: &App, caller: &Caller, id: &str, verb: &str) -> Result<String> {
    let before = containers::inspect(app, caller, id).await?;
    let name = before.container.name;
    let work = async {
        match verb {
            "start" => actions::start(app, caller, id).await.map(|now| told(&now)),
            "stop" => actions::stop(app, caller, id, None).await.map(|now| told(&now)),
            "restart" => actions::restart(app, caller, id, None).await.map(|now| told(&now)),
            "kill" => actions::kill(app, caller, id, 9).await.map(|now| told(&now)),
            "pause" => actions::pause(app, caller, id).await.map(|now| told(&now)),
            "resume" => actions::resume(app, caller, id).await.map(|now| told(&now)),
            "remove" => {
                actions::remove(app, caller, id, Force::Yes).await.map(|_| "removed".to_owned())
            }
            _ => Err(Error::NotFound("page")),
        }
    };
    // The service finishes what it has begun, whether or not somebody waits.
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(state)) => Ok(format!("{name} is {state}.")),
        Ok(Err(error)) => Err(error),
        Err(_) => Ok(format!("{name}: {verb} is under way.")),
    }
}

fn told(now: &DetailView) -> String {
    now.container.status.as_str().to_owned()
}

#[derive(Debug, Default, Deserialize)]
struct AskQuery {
    #[serde(default)]
    back: String,
}

async fn ask_remove(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<AskQuery>,
) -> Result<Response> {
    let view = containers::inspect(&app, &caller, &id).await?.container;
    let mut losses = vec!["Its files and its log are lost; nothing brings them back.".to_owned()];
    if shown::is_live(&view) {
        losses.push("It is running and is killed first.".to_owned());
    }
    if view.owner.id != caller.principal.0 {
        losses.push(format!("It belongs to {}.", view.owner.name));
    }
    let back = if query.back.is_empty() { "/containers" } else { local(&query.back) };
    let page = ConfirmPage {
        shell: frame.shell(format!("Remove {}", view.name), Section::Containers),
        question: format!("Remove {}?", view.name),
        losses,
        verb: "Remove it",
        path: format!("/containers/{}/remove", view.id),
        hidden: vec![("back".to_owned(), back.to_owned())],
        back: format!("/containers/{}", view.id),
    };
    frame.page(&page)
}

/// The same action on many; each is reported.
async fn bulk(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    route: MatchedPath,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response> {
    let ids: Vec<String> =
        pairs.iter().filter(|(name, _)| name == "id").map(|(_, id)| id.clone()).collect();
    let posted = Posted::new(pairs);
    let back =
        if posted.text("back").is_empty() { "/containers" } else { local(posted.text("back")) };
    if ids.is_empty() {
        return frame
            .refused(back, Error::invalid("request.invalid", "select some containers first"));
    }
    let verb = verb_of(&route);
    if verb == "remove" && posted.text("confirmed").is_empty() {
        return ask_remove_many(&frame, ids, back);
    }
    let results =
        futures_util::future::join_all(ids.iter().map(|id| act(&app, &caller, id, verb))).await;
    let (mut done, mut refused) = (0_usize, Vec::new());
    for result in results {
        match result {
            Ok(_) => done += 1,
            Err(error @ Error::Broken { .. }) => return Err(error),
            Err(error) => refused.push(error.to_string()),
        }
    }
    let verb = match verb {
        "start" => "started",
        "stop" => "stopped",
        _ => "removed",
    };
    if refused.is_empty() {
        return frame.done(back, &format!("{done} {verb}."));
    }
    let why = refused.join("; ");
    let text = format!("{done} {verb}, {} not: {why}", refused.len());
    frame.refused(back, Error::conflict("container.bulk", text))
}

fn ask_remove_many(frame: &Frame, ids: Vec<String>, back: &str) -> Result<Response> {
    let count = ids.len();
    let mut hidden: Vec<_> = ids.into_iter().map(|id| ("id".to_owned(), id)).collect();
    hidden.push(("confirmed".to_owned(), "yes".to_owned()));
    hidden.push(("back".to_owned(), back.to_owned()));
    let page = ConfirmPage {
        shell: frame.shell("Remove containers", Section::Containers),
        question: format!("Remove {count} containers?"),
        losses: vec![
            "Their files and logs are lost; nothing brings them back.".to_owned(),
            "Those that run are killed first.".to_owned(),
        ],
        verb: "Remove them",
        path: "/containers/bulk/remove".to_owned(),
        hidden,
        back: back.to_owned(),
    };
    frame.page(&page)
}

impl Wanted {
    fn read(text: &str) -> Self {
        let mut wanted = Self::default();
        for word in text.split_whitespace() {
            let word = word.to_lowercase();
            let (list, word) = match word.split_once(':') {
                Some(("state", word)) => (&mut wanted.states, word),
                Some(("image", word)) => (&mut wanted.images, word),
                Some(("owner", word)) => (&mut wanted.owners, word),
                _ => (&mut wanted.words, word.as_str()),
            };
            list.push(word.to_owned());
        }
        wanted
    }

    fn fits(&self, view: &ContainerView) -> bool {
        let class = match shown::class(view) {
            Class::Running => "running",
            Class::Stopped => "stopped",
            Class::Failed => "failed",
        };
        let state = |word: &String| word == class || word == view.status.as_str();
        let name = view.name.to_lowercase();
        let image = view.image.reference.to_lowercase();
        self.words.iter().all(|word| name.contains(word) || image.contains(word))
            && self.images.iter().all(|word| image.contains(word))
            && (self.states.is_empty() || self.states.iter().any(state))
            && (self.owners.is_empty() || self.owners.contains(&view.owner.name))
    }
}

#[cfg(test)]
mod tests {
    use super::Wanted;

    #[test]
    fn filters_are_words_and_keys() {
        let wanted = Wanted::read("Train state:running image:alpine:3 owner:anna");
        assert_eq!(wanted.words, ["train"]);
        assert_eq!(wanted.states, ["running"]);
        assert_eq!(wanted.images, ["alpine:3"]);
        assert_eq!(wanted.owners, ["anna"]);
        assert_eq!(Wanted::read("  "), Wanted::default());
    }
}
