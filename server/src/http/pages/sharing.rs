//! With whom a container, a volume or an image is shared, and sharing it; the same handlers for all.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::containers::{LookRow, ShareRow, SharingPage, Tab};
use berth_web::format::Moment;
use berth_web::parts::Field;
use berth_web::shell::{ApiCall, Section};
use berth_web::volumes::SharingPage as ObjectPage;

use super::container::shell;
use super::form::Posted;
use super::frame::Frame;
use super::shown;
use crate::app::App;
use crate::auth::{Caller, Kind, Right, Role, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::grants::GranteeKind;
use crate::service::looks::{self, LookRequest, LookView};
use crate::service::sharing::{self, GrantRequest, GrantView};
use crate::service::{Page, containers, groups, images, volumes};

/// Groups that are offered.
const GROUPS: u32 = 100;
/// What can be chosen, the least first; the API takes any of it.
const LEVELS: [(&str, &[Right]); 4] = [
    ("view", &[Right::State]),
    ("logs", &[Right::State, Right::Logs]),
    ("use", &[Right::State, Right::Logs, Right::Terminal, Right::Files]),
    ("manage", &[Right::State, Right::Logs, Right::Terminal, Right::Files, Right::Manage]),
];

/// The same of volumes.
const VOLUME_LEVELS: [(&str, &[Right]); 2] = [
    ("read", &[Right::State, Right::Files]),
    ("write", &[Right::State, Right::Files, Right::Write]),
];

/// The same of images.
const IMAGE_LEVELS: [(&str, &[Right]); 1] = [("use", &[Right::State, Right::Files])];

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    let act = Access::Member(TokenScope::Operate);
    let operator = Access::Operator(TokenScope::Manage);
    let routes = routes
        .form(operator, "/containers/{id}/looks", FormFields::once(&["reason"]), begin_look)
        .form(operator, "/containers/{id}/looks/end", FormFields::once(&[]), end_look);
    Kind::SHARED.into_iter().fold(routes, |routes, kind| {
        let look = move |State(app): State<App>,
                         frame: Frame,
                         caller: Caller,
                         Path(id): Path<String>| async move {
            show(&app, &frame, &caller, ((kind, &id), StatusCode::OK), Typed::default()).await
        };
        let share = move |State(app): State<App>,
                          frame: Frame,
                          caller: Caller,
                          Path(id): Path<String>,
                          posted: Posted| async move {
            shared(&app, &frame, &caller, (kind, &id), posted).await
        };
        let end = move |State(app): State<App>,
                        frame: Frame,
                        caller: Caller,
                        Path(id): Path<String>,
                        posted: Posted| async move {
            ended(&app, &frame, &caller, (kind, &id), &posted).await
        };
        let page = address((kind, "{id}"));
        routes
            .page(read, Method::GET, &page, look)
            .form(act, &page, FormFields::once(&["kind", "grantee", "level"]), share)
            .form(act, &format!("{page}/end"), FormFields::once(&["end"]), end)
    })
}

/// What was typed into the form, and what is wrong with it.
#[derive(Default)]
struct Typed {
    posted: Posted,
    grantee: String,
    reason: String,
    error: String,
}

async fn show(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    ((kind, id), status): ((Kind, &str), StatusCode),
    typed: Typed,
) -> Result<Response> {
    match kind {
        Kind::Container => show_container(app, frame, caller, (id, status), typed).await,
        Kind::Volume => {
            let view = volumes::inspect(app, caller, id).await?.volume;
            let (name, rights) = (view.name, view.rights);
            let object = Object { kind, id: view.id.to_string(), name, rights };
            show_object(app, frame, caller, (object, status), typed).await
        }
        Kind::Image => {
            let image = images::find(app, caller, id).await?;
            let (name, rights) = (image.name(), image.rights.list());
            let object = Object { kind, id: image.row.id, name, rights };
            show_object(app, frame, caller, (object, status), typed).await
        }
    }
}

/// A volume or an image.
struct Object {
    kind: Kind,
    id: String,
    name: String,
    /// The viewer's.
    rights: Vec<Right>,
}

async fn show_container(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (id, status): (&str, StatusCode),
    typed: Typed,
) -> Result<Response> {
    let view = containers::inspect(app, caller, id).await?.container;
    let all = sharing::list(app, caller, (Kind::Container, id)).await?;
    let looks = looks::list(app, caller, id).await?;
    let path = format!("/api/v1/containers/{}", view.id);
    let mut calls = calls(&format!("{path}/grants"), "[\"state\", \"logs\"]");
    calls.push(ApiCall::get("Which operators have looked into it", format!("{path}/looks")));
    let groups = offered(app, caller).await?;
    let Typed { posted, grantee, reason, error } = typed;
    let page = SharingPage {
        head: shown::head(caller, &view, Tab::Sharing),
        error,
        rows: all.into_iter().map(row).collect(),
        shares: view.rights.contains(&Right::Share),
        ends: view.rights.contains(&Right::Unshare),
        kind: posted.text("kind").to_owned(),
        grantee: Field { value: posted.text("grantee").to_owned(), error: grantee },
        level: posted.text("level").to_owned(),
        groups,
        may_look: caller.role == Role::Operator && !view.rights.contains(&Right::Share),
        looks: looks.into_iter().map(|look| look_row(look, &caller.name)).collect(),
        reason: Field { value: posted.text("reason").to_owned(), error: reason },
        shell: shell(frame, &view, calls),
    };
    frame.page_with(status, &page)
}

async fn show_object(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (object, status): (Object, StatusCode),
    typed: Typed,
) -> Result<Response> {
    let Object { kind, id, name, rights } = object;
    let all = sharing::list(app, caller, (kind, &id)).await?;
    let path = address((kind, &id));
    let section = if kind == Kind::Image { Section::Images } else { Section::Volumes };
    let mut shell = frame.shell(name.clone(), section);
    shell.calls = calls(&format!("/api/v1{}", path.replace("/sharing", "/grants")), "[\"files\"]");
    shell.path.clone_from(&path);
    let groups = offered(app, caller).await?;
    let in_words = |rights: &[Right]| match (kind, rights.contains(&Right::Write)) {
        (Kind::Image, _) => "read it, launch from it and keep it",
        (_, true) => "read it and write to it",
        (_, false) => "read it",
    };
    let row = |grant: GrantView| {
        let may = in_words(&grant.rights).to_owned();
        ShareRow { may, ..row(grant) }
    };
    let Typed { posted, grantee, error, .. } = typed;
    let page = ObjectPage {
        shell,
        is_image: kind == Kind::Image,
        path,
        title: name,
        error,
        rows: all.into_iter().map(row).collect(),
        shares: rights.contains(&Right::Share),
        ends: rights.contains(&Right::Unshare),
        kind: posted.text("kind").to_owned(),
        grantee: Field { value: posted.text("grantee").to_owned(), error: grantee },
        level: posted.text("level").to_owned(),
        groups,
    };
    frame.page_with(status, &page)
}

fn calls(path: &str, rights: &str) -> Vec<ApiCall> {
    let body = format!("{{\"kind\": \"person\", \"name\": \"tom\", \"rights\": {rights}}}");
    vec![
        ApiCall::get("With whom it is shared", path.to_owned()),
        ApiCall::send("Share it", "PUT", path.to_owned(), Some(body)),
        ApiCall::send("End that", "DELETE", format!("{path}?kind=person&name=tom"), None),
    ]
}

/// Groups that something can be shared with.
async fn offered(app: &App, caller: &Caller) -> Result<Vec<String>> {
    let some = Page { limit: GROUPS, after: None };
    let groups = groups::list(app, caller, &some).await?.items;
    Ok(groups.into_iter().map(|group| group.name).collect())
}

fn row(grant: GrantView) -> ShareRow {
    let (is_group, kind) = match grant.kind {
        GranteeKind::Group => (true, "group"),
        GranteeKind::Person => (false, "person"),
    };
    let value = format!("{kind}:{}", grant.name);
    let may = in_words(&grant.rights);
    let since = Moment::new(grant.given_at.0, Time::now().0);
    ShareRow { name: grant.name, is_group, may, since, value }
}

fn in_words(rights: &[Right]) -> String {
    let word = |right: &Right| match right {
        Right::State => "see it",
        Right::Logs => "read its log",
        Right::Terminal => "use terminals",
        Right::Files => "see environment and processes",
        Right::Write => "write to it",
        Right::Manage => "start, stop and limit it",
        Right::Remove => "remove it",
        Right::SeeShares => "see its shares",
        Right::Share => "share it",
        Right::Unshare => "end its shares",
    };
    rights.iter().map(word).collect::<Vec<_>>().join(", ")
}

async fn shared(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    what: (Kind, &str),
    posted: Posted,
) -> Result<Response> {
    let error = match asked(what.0, &posted) {
        Ok(request) => match sharing::set(app, caller, what, &request).await {
            Ok(grant) => {
                let name = match grant.kind {
                    GranteeKind::Person => grant.name,
                    GranteeKind::Group => format!("the group {}", grant.name),
                };
                let text = match grant.known {
                    true => format!("Shared with {name}."),
                    false => format!("Shared with {name}, if that is somebody’s name here."),
                };
                return frame.done(&address(what), &text);
            }
            Err(error @ Error::NotFound(_)) => return Err(error),
            Err(error) => error,
        },
        Err(error) => {
            // Whoever does not see it is told so, whatever was typed.
            match what {
                (Kind::Container, id) => containers::check(app, caller, id, Right::State).await?,
                (Kind::Volume, id) => volumes::check(app, caller, id, Right::State).await?,
                (Kind::Image, id) => {
                    images::find(app, caller, id).await?.rights.need(Right::State)?
                }
            }
            error
        }
    };
    let (status, mut wrong, error) = frame.refusal(error)?;
    let grantee = wrong.take("/name");
    let error = if error.is_empty() { wrong.rest() } else { error };
    let typed = Typed { posted, grantee, error, ..Typed::default() };
    show(app, frame, caller, (what, status), typed).await
}

fn look_row(look: LookView, viewer: &str) -> LookRow {
    let now = Time::now();
    let goes_on = look.ends_at > now;
    LookRow {
        ends: goes_on && look.operator == viewer,
        goes_on,
        operator: look.operator,
        reason: look.reason,
        began: Moment::new(look.began_at.0, now.0),
        until: Moment::new(look.ends_at.0, now.0),
    }
}

async fn begin_look(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response> {
    let request = LookRequest { reason: posted.text("reason").to_owned() };
    let error = match looks::begin(&app, &caller, &id, &request).await {
        Ok(_) => {
            let text = "For an hour you read its log, environment and files. Its owner is told.";
            return frame.done(&format!("/containers/{id}/sharing"), text);
        }
        Err(error @ Error::NotFound(_)) => return Err(error),
        Err(error) => error,
    };
    let (status, mut wrong, error) = frame.refusal(error)?;
    let reason = wrong.take("/reason");
    let error = if error.is_empty() { wrong.rest() } else { error };
    let typed = Typed { posted, reason, error, ..Typed::default() };
    show(&app, &frame, &caller, ((Kind::Container, &id), status), typed).await
}

async fn end_look(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let done = looks::end(&app, &caller, &id).await;
    frame.outcome(done, &format!("/containers/{id}/sharing"), "You look into it no more.")
}

/// The page of this file that is about an object.
fn address((kind, id): (Kind, &str)) -> String {
    match kind {
        Kind::Container => format!("/containers/{id}/sharing"),
        Kind::Volume => format!("/volumes/{id}/sharing"),
        Kind::Image => format!("/images/{id}/sharing"),
    }
}

fn asked(of: Kind, posted: &Posted) -> Result<GrantRequest> {
    let kind = kind(posted.text("kind"), "/kind")?;
    let level = posted.text("level");
    let (levels, words): (&[(&str, &[Right])], _) = match of {
        Kind::Container => (&LEVELS, "view, logs, use and manage"),
        Kind::Volume => (&VOLUME_LEVELS, "read and write"),
        Kind::Image => (&IMAGE_LEVELS, "use"),
    };
    let rights = levels.iter().find(|(name, _)| *name == level).map(|(_, rights)| rights.to_vec());
    let rights =
        rights.ok_or_else(|| Error::field("/level", format!("{level:?} is none of {words}")))?;
    Ok(GrantRequest { kind, name: posted.text("grantee").to_owned(), rights })
}

fn kind(word: &str, pointer: &str) -> Result<GranteeKind> {
    match word {
        "person" => Ok(GranteeKind::Person),
        "group" => Ok(GranteeKind::Group),
        other => Err(Error::field(pointer, format!("{other:?} is neither person nor group"))),
    }
}

async fn ended(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    what: (Kind, &str),
    posted: &Posted,
) -> Result<Response> {
    let which = posted.text("end").split_once(':');
    let which = which.ok_or_else(|| Error::field("/end", "is not person:NAME or group:NAME"));
    let done = match which.and_then(|(word, name)| Ok((kind(word, "/end")?, name))) {
        Ok(whom) => sharing::remove(app, caller, what, whom).await,
        Err(error) => Err(error),
    };
    frame.outcome(done, &address(what), "It is shared with them no more.")
}
