//! With whom a container is shared, and sharing it.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::containers::{LookRow, ShareRow, SharingPage, Tab};
use berth_web::format::Moment;
use berth_web::parts::Field;
use berth_web::shell::ApiCall;

use super::container::shell;
use super::form::Posted;
use super::frame::Frame;
use super::shown;
use crate::app::App;
use crate::auth::{Caller, Right, Role, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::grants::GranteeKind;
use crate::service::looks::{self, LookRequest, LookView};
use crate::service::sharing::{self, GrantRequest, GrantView};
use crate::service::{Page, containers, groups};

/// Groups that are offered.
const GROUPS: u32 = 100;
/// What can be chosen, the least first; the API takes any of it.
const LEVELS: [(&str, &[Right]); 4] = [
    ("view", &[Right::State]),
    ("logs", &[Right::State, Right::Logs]),
    ("use", &[Right::State, Right::Logs, Right::Terminal, Right::Files]),
    ("manage", &[Right::State, Right::Logs, Right::Terminal, Right::Files, Right::Manage]),
];

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    let act = Access::Member(TokenScope::Operate);
    let operator = Access::Operator(TokenScope::Manage);
    let fields = FormFields::once(&["kind", "grantee", "level"]);
    routes
        .page(read, Method::GET, "/containers/{id}/sharing", look)
        .form(act, "/containers/{id}/sharing", fields, share)
        .form(act, "/containers/{id}/sharing/end", FormFields::once(&["end"]), end)
        .form(operator, "/containers/{id}/looks", FormFields::once(&["reason"]), begin_look)
        .form(operator, "/containers/{id}/looks/end", FormFields::once(&[]), end_look)
}

async fn look(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    show(&app, &frame, &caller, (&id, StatusCode::OK), Typed::default()).await
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
    (id, status): (&str, StatusCode),
    typed: Typed,
) -> Result<Response> {
    let view = containers::inspect(app, caller, id).await?.container;
    let all = sharing::list(app, caller, id).await?;
    let path = format!("/api/v1/containers/{}/grants", view.id);
    let body = "{\"kind\": \"person\", \"name\": \"tom\", \"rights\": [\"state\", \"logs\"]}";
    let looks = looks::list(app, caller, id).await?;
    let looks_path = format!("/api/v1/containers/{}/looks", view.id);
    let calls = vec![
        ApiCall::get("With whom it is shared", path.clone()),
        ApiCall::get("Which operators have looked into it", looks_path),
        ApiCall::send("Share it", "PUT", path.clone(), Some(body.to_owned())),
        ApiCall::send("End that", "DELETE", format!("{path}?kind=person&name=tom"), None),
    ];
    let some = Page { limit: GROUPS, after: None };
    let groups = groups::list(app, caller, &some).await?.items;
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
        groups: groups.into_iter().map(|group| group.name).collect(),
        may_look: caller.role == Role::Operator && !view.rights.contains(&Right::Share),
        looks: looks.into_iter().map(|look| look_row(look, &caller.name)).collect(),
        reason: Field { value: posted.text("reason").to_owned(), error: reason },
        shell: shell(frame, &view, calls),
    };
    frame.page_with(status, &page)
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
        Right::Manage => "start, stop and limit it",
        Right::Remove => "remove it",
        Right::SeeShares => "see its shares",
        Right::Share => "share it",
        Right::Unshare => "end its shares",
    };
    rights.iter().map(word).collect::<Vec<_>>().join(", ")
}

async fn share(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response> {
    let error = match asked(&posted) {
        Ok(request) => match sharing::set(&app, &caller, &id, &request).await {
            Ok(grant) => {
                let name = match grant.kind {
                    GranteeKind::Person => grant.name,
                    GranteeKind::Group => format!("the group {}", grant.name),
                };
                let text = match grant.known {
                    true => format!("Shared with {name}."),
                    false => format!("Shared with {name}, if that is somebody’s name here."),
                };
                return frame.done(&format!("/containers/{id}/sharing"), &text);
            }
            Err(error @ Error::NotFound(_)) => return Err(error),
            Err(error) => error,
        },
        Err(error) => {
            // Whoever does not see it is told so, whatever was typed.
            containers::check(&app, &caller, &id, Right::State).await?;
            error
        }
    };
    let (status, mut wrong, error) = frame.refusal(error)?;
    let grantee = wrong.take("/name");
    let error = if error.is_empty() { wrong.rest() } else { error };
    let typed = Typed { posted, grantee, error, ..Typed::default() };
    show(&app, &frame, &caller, (&id, status), typed).await
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
    show(&app, &frame, &caller, (&id, status), typed).await
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

fn asked(posted: &Posted) -> Result<GrantRequest> {
    let kind = kind(posted.text("kind"), "/kind")?;
    let level = posted.text("level");
    let rights = LEVELS.iter().find(|(name, _)| *name == level).map(|(_, rights)| rights.to_vec());
    let rights = rights.ok_or_else(|| {
        Error::field("/level", format!("{level:?} is none of view, logs, use and manage"))
    })?;
    Ok(GrantRequest { kind, name: posted.text("grantee").to_owned(), rights })
}

fn kind(word: &str, pointer: &str) -> Result<GranteeKind> {
    match word {
        "person" => Ok(GranteeKind::Person),
        "group" => Ok(GranteeKind::Group),
        other => Err(Error::field(pointer, format!("{other:?} is neither person nor group"))),
    }
}

async fn end(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response> {
    let back = format!("/containers/{id}/sharing");
    let which = posted.text("end").split_once(':');
    let which = which.ok_or_else(|| Error::field("/end", "is not person:NAME or group:NAME"));
    let done = match which.and_then(|(word, name)| Ok((kind(word, "/end")?, name))) {
        Ok(whom) => sharing::remove(&app, &caller, &id, whom).await,
        Err(error) => Err(error),
    };
    frame.outcome(done, &back, "It is shared with them no more.")
}
