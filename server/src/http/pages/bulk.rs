//! What is done from the list and from a container's head: on one, or on many with a result each.

use axum::extract::{MatchedPath, Path, Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::containers::{BulkPage, BulkRow, ConfirmPage};
use berth_web::format::Moment;
use berth_web::shell::{Section, Tone};
use futures_util::StreamExt;
use serde::Deserialize;

use super::form::Posted;
use super::frame::{Frame, local, sentence};
use super::shown;
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, FormFields, Routes};
use crate::service::containers;
use crate::service::containers::actions::{self, Force};
use crate::service::containers::view::{ContainerView, DetailView};

/// After so long an action goes on by itself, and the page says that it does.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(4);
/// Containers in one request at most.
const BULK_MAX: usize = 200;
/// Of these, worked on at once.
const AT_ONCE: usize = 8;
/// What can be done to one.
const VERBS: [&str; 8] =
    ["start", "stop", "restart", "kill", "pause", "resume", "extend", "remove"];
/// What can be done to many; killing is asked of each.
const BULK_VERBS: [&str; 6] = ["start", "stop", "restart", "pause", "resume", "remove"];

/// Adds the routes.
pub(super) fn routes(mut routes: Routes) -> Routes {
    let act = Access::Member(TokenScope::Operate);
    routes = routes.page(act, Method::GET, "/containers/{id}/remove", ask_remove);
    for verb in VERBS {
        // Without a script the list's own form sends what is chosen in it, too.
        let fields = FormFields::once(&["back", "typed"]).and_many(&["id"]);
        routes = routes.form(act, &format!("/containers/{{id}}/{verb}"), fields, one);
    }
    for verb in BULK_VERBS {
        let fields = FormFields::once(&["back", "confirmed"]).and_many(&["id"]);
        routes = routes.form(act, &format!("/containers/bulk/{verb}"), fields, many);
    }
    routes
}

/// One action on one container.
async fn one(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    route: MatchedPath,
    posted: Posted,
) -> Result<Response> {
    let verb = verb_of(&route);
    let own = format!("/containers/{id}");
    let back = match posted.text("back") {
        "" if verb == "remove" => "/containers",
        "" => own.as_str(),
        back => local(back),
    };
    if verb == "remove"
        && let Ok(seen) = containers::inspect(&app, &caller, &id).await
        && is_grave(&caller, &seen.container)
        && posted.text("typed").trim() != seen.container.name
    {
        frame.note(&Error::field("/typed", "is not its name"));
        let page = ConfirmPage {
            error: format!("That is not its name. Type {} to remove it.", seen.container.name),
            ..remove_question(&frame, &caller, &seen.container, back)
        };
        return frame.page_with(StatusCode::UNPROCESSABLE_ENTITY, &page);
    }
    match act(&app, &caller, &id, verb).await {
        Ok(done) => frame.done(back, &format!("{} is {}.", done.name, done.state)),
        Err((_, error)) => frame.refused(if verb == "remove" { &own } else { back }, error),
    }
}

/// The route's last part.
fn verb_of(route: &MatchedPath) -> &str {
    route.as_str().rsplit('/').next().unwrap_or_default()
}

/// What an action has come to.
struct Done {
    name: String,
    state: String,
    /// It goes on after the answer.
    under_way: bool,
}

/// The action that a verb names; a refusal comes with the name, where that is known.
async fn act(app: &App, caller: &Caller, id: &str, verb: &str) -> Result<Done, (String, Error)> {
    let before = containers::inspect(app, caller, id).await;
    let name = before.map_err(|error| (String::new(), error))?.container.name;
    let work = async {
        match verb {
            "start" => actions::start(app, caller, id).await.map(|now| told(&now)),
            "stop" => actions::stop(app, caller, id, None).await.map(|now| told(&now)),
            "restart" => actions::restart(app, caller, id, None).await.map(|now| told(&now)),
            "kill" => actions::kill(app, caller, id, 9).await.map(|now| told(&now)),
            "pause" => actions::pause(app, caller, id).await.map(|now| told(&now)),
            "resume" => actions::resume(app, caller, id).await.map(|now| told(&now)),
            "extend" => actions::extend(app, caller, id, None).await.map(|now| goes_on(&now)),
            "remove" => {
                actions::remove(app, caller, id, Force::Yes).await.map(|_| "removed".to_owned())
            }
            _ => Err(Error::NotFound("page")),
        }
    };
    // The service finishes what it has begun, whether or not somebody waits.
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(state)) => Ok(Done { name, state, under_way: false }),
        Ok(Err(error)) => Err((name, error)),
        Err(_) => {
            let state = format!("being worked on: {verb} goes on");
            Ok(Done { name, state, under_way: true })
        }
    }
}

fn goes_on(now: &DetailView) -> String {
    match now.container.ends_at {
        Some(at) => format!("{}, until {}", told(now), Moment::new(at.0, Time::now().0).exact),
        None => told(now),
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
    let back = if query.back.is_empty() { "/containers" } else { local(&query.back) };
    frame.page(&remove_question(&frame, &caller, &view, back))
}

/// Whether removing it ends another person's running work: then its name is typed first.
fn is_grave(caller: &Caller, view: &ContainerView) -> bool {
    view.owner.id != caller.principal.0 && shown::is_live(view)
}

fn remove_question(
    frame: &Frame,
    caller: &Caller,
    view: &ContainerView,
    back: &str,
) -> ConfirmPage {
    let mut losses = vec!["Its files and its log are lost; nothing brings them back.".to_owned()];
    if shown::is_live(view) {
        losses.push("It is running and is killed first.".to_owned());
    }
    if view.owner.id != caller.principal.0 {
        losses.push(format!("It belongs to {}.", view.owner.name));
    }
    ConfirmPage {
        shell: frame.shell(format!("Remove {}", view.name), Section::Containers),
        question: format!("Remove {}?", view.name),
        losses,
        verb: "Remove it",
        path: format!("/containers/{}/remove", view.id),
        hidden: vec![("back".to_owned(), back.to_owned())],
        typed: if is_grave(caller, view) { view.name.clone() } else { String::new() },
        back: format!("/containers/{}", view.id),
        ..ConfirmPage::default()
    }
}

/// The same action on many; each is reported.
async fn many(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    route: MatchedPath,
    posted: Posted,
) -> Result<Response> {
    let ids: Vec<String> = posted.all("id").map(str::to_owned).collect();
    let back =
        if posted.text("back").is_empty() { "/containers" } else { local(posted.text("back")) };
    if ids.is_empty() || ids.len() > BULK_MAX {
        let text = match ids.len() {
            0 => "select some containers first".to_owned(),
            count => format!("{count} containers at once are too many; {BULK_MAX} at most"),
        };
        return frame.refused(back, Error::invalid("request.invalid", text));
    }
    let verb = verb_of(&route);
    if verb == "remove" && posted.text("confirmed").is_empty() {
        return ask_remove_many(&app, &frame, &caller, ids, back).await;
    }
    let work = ids.clone().into_iter().map(|id| {
        let (app, caller, verb) = (app.clone(), caller.clone(), verb.to_owned());
        async move {
            match kept(&app, &caller, &id, &verb).await {
                Some(kept) => Err(kept),
                None => act(&app, &caller, &id, &verb).await,
            }
        }
    });
    let results: Vec<_> = futures_util::stream::iter(work).buffered(AT_ONCE).collect().await;
    if let Some((_, error)) = results.iter().find_map(|result| result.as_ref().err()) {
        frame.note(error);
    }
    let rows: Vec<BulkRow> =
        ids.iter().zip(results).map(|(id, result)| result_row(id, result)).collect();
    let refused = rows.iter().filter(|row| row.tone == Tone::Bad).count();
    let title = match refused {
        0 => format!("{}: all {} done", in_words(verb), rows.len()),
        refused => format!("{}: {} done, {refused} not", in_words(verb), rows.len() - refused),
    };
    let shell = frame.shell(title.clone(), Section::Containers);
    frame.page(&BulkPage { shell, title, rows, back: back.to_owned() })
}

/// Why one of many is not removed: whoever ends another person's work says which by its name.
async fn kept(app: &App, caller: &Caller, id: &str, verb: &str) -> Option<(String, Error)> {
    if verb != "remove" {
        return None;
    }
    let view = containers::inspect(app, caller, id).await.ok()?.container;
    is_grave(caller, &view).then(|| {
        let text =
            format!("it runs and is {}’s: remove it on its own page, by name", view.owner.name);
        (view.name, Error::conflict("container.running", text))
    })
}

fn in_words(verb: &str) -> &'static str {
    match verb {
        "start" => "Start",
        "stop" => "Stop",
        "restart" => "Restart",
        "pause" => "Pause",
        "resume" => "Resume",
        _ => "Remove",
    }
}

fn result_row(id: &str, result: Result<Done, (String, Error)>) -> BulkRow {
    let gone = matches!(&result, Ok(done) if done.state == "removed");
    let (name, tone, text) = match result {
        Ok(done) => {
            let tone = if done.under_way { Tone::Busy } else { Tone::Good };
            (done.name, tone, done.state)
        }
        Err((name, error)) => (name, Tone::Bad, sentence(&error.to_string())),
    };
    let known = !name.is_empty();
    BulkRow {
        path: (known && !gone).then(|| format!("/containers/{id}")),
        name: if known { name } else { "unknown".to_owned() },
        tone,
        text,
    }
}

async fn ask_remove_many(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    ids: Vec<String>,
    back: &str,
) -> Result<Response> {
    let count = ids.len();
    let all = containers::glance(app, caller).await?;
    let named: Vec<&str> = all
        .iter()
        .filter(|view| ids.iter().any(|id| id == view.id.as_str()))
        .map(|view| view.name.as_str())
        .collect();
    let mut losses = vec![
        format!("These are removed: {}.", named.join(", ")),
        "Their files and logs are lost; nothing brings them back.".to_owned(),
    ];
    let chosen = all.iter().filter(|view| ids.iter().any(|id| id == view.id.as_str()));
    match chosen.filter(|view| shown::is_live(view)).count() {
        0 => {}
        1 => losses.push("One of them runs and is killed first.".to_owned()),
        running => losses.push(format!("{running} of them run and are killed first.")),
    }
    let mut hidden: Vec<_> = ids.into_iter().map(|id| ("id".to_owned(), id)).collect();
    hidden.push(("confirmed".to_owned(), "yes".to_owned()));
    hidden.push(("back".to_owned(), back.to_owned()));
    let page = ConfirmPage {
        shell: frame.shell("Remove containers", Section::Containers),
        question: match count {
            1 => "Remove 1 container?".to_owned(),
            count => format!("Remove {count} containers?"),
        },
        losses,
        verb: if count == 1 { "Remove it" } else { "Remove them" },
        path: "/containers/bulk/remove".to_owned(),
        hidden,
        back: back.to_owned(),
        ..ConfirmPage::default()
    };
    frame.page(&page)
}
