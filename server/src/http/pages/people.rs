//! The people page, for operators; auditors look.

use std::collections::HashMap;

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::id::PrincipalId;
use berth_web::format::{Moment, bytes};
use berth_web::parts::{Act, Badge, Field};
use berth_web::people::{Invitation, ListPage, Row};
use berth_web::shell::{ApiCall, Section, Tone};

use super::form::{Posted, Wrong};
use super::frame::{Frame, encoded, sentence};
use super::person;
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::extract::{Items, PageQuery};
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::people::Person;
use crate::service::Page;
use crate::service::people::{self, Change, NewPerson};
use crate::service::usage::{self, Usage};

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let manage = Access::Operator(TokenScope::Manage);
    routes
        .page(Access::Overseer(TokenScope::Read), Method::GET, "/people", list)
        .form(manage, "/people", FormFields::once(&["name", "role", "expires"]), add)
        .form(manage, "/people/{id}/invite", FormFields::once(&[]), invite)
        .form(manage, "/people/{id}/disable", FormFields::once(&[]), disable)
        .form(manage, "/people/{id}/enable", FormFields::once(&[]), enable)
}

/// What the list shows besides the people.
#[derive(Default)]
struct Shown {
    posted: Posted,
    wrong: Wrong,
    error: String,
    invitation: Option<Invitation>,
}

async fn list(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    PageQuery(page): PageQuery,
) -> Result<Response> {
    show(&app, &frame, &caller, StatusCode::OK, &page, Shown::default()).await
}

async fn add(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let role = match posted.text("role") {
        "operator" => Role::Operator,
        "auditor" => Role::Auditor,
        "user" | "" => Role::User,
        other => {
            let error = Error::field("/role", format!("{other:?} is no role"));
            let (status, wrong, error) = frame.refusal(error)?;
            let shown = Shown { posted, wrong, error, invitation: None };
            return show(&app, &frame, &caller, status, &first_page(), shown).await;
        }
    };
    let added = match people::end_of_account(posted.text("expires")) {
        Ok(expires_at) => {
            let new = NewPerson { name: posted.text("name"), role, expires_at };
            people::add(&app, &caller, &new).await
        }
        Err(error) => Err(error),
    };
    let (status, shown) = match added {
        Ok((person, made)) => {
            let invitation = Some(fresh(&frame, &person.name, &made));
            (StatusCode::CREATED, Shown { invitation, ..Shown::default() })
        }
        Err(error) => {
            let (status, wrong, error) = frame.refusal(error)?;
            (status, Shown { posted, wrong, error, invitation: None })
        }
    };
    show(&app, &frame, &caller, status, &first_page(), shown).await
}

async fn invite(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    let id = PrincipalId(id);
    let person = people::find(&app, &caller, id).await?;
    match people::invite(&app, &caller, id).await {
        Ok(made) => person::show_link(&app, &frame, &caller, &person, &made).await,
        Err(error) => frame.refused(&format!("/people/{}", id.0), error),
    }
}

async fn disable(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    let change = Change { disabled: Some(true), ..Change::default() };
    let result = people::change(&app, &caller, PrincipalId(id), change).await;
    let text = match &result {
        Ok(person) => format!("{} is disabled; their sessions and tokens have ended.", person.name),
        Err(_) => String::new(),
    };
    frame.outcome(result, &format!("/people/{id}"), &text)
}

async fn enable(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    let change = Change { disabled: Some(false), ..Change::default() };
    let result = people::change(&app, &caller, PrincipalId(id), change).await;
    let text = match &result {
        Ok(person) => format!("{} may sign in again.", person.name),
        Err(_) => String::new(),
    };
    frame.outcome(result, &format!("/people/{id}"), &text)
}

async fn show(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    status: StatusCode,
    page: &Page,
    mut shown: Shown,
) -> Result<Response> {
    let listed: Items<Person> = Items::seal(app, people::list(app, caller, page).await?)?;
    let manages = caller.role == Role::Operator;
    let everybody = usage::system(app).await?.people;
    let usages: HashMap<u32, Usage> =
        everybody.into_iter().map(|person| (person.person.id, person.usage)).collect();
    let mut shell = frame.shell("People", Section::People);
    shell.path = "/people".to_owned();
    shell.calls = vec![
        ApiCall::get("List people", "/api/v1/people"),
        ApiCall::send(
            "Add a person",
            "POST",
            "/api/v1/people",
            Some("{\"name\": \"kim\", \"role\": \"user\"}".to_owned()),
        ),
    ];
    let role = shown.posted.text("role").to_owned();
    let view = ListPage {
        shell,
        name: Field { value: shown.posted.text("name").into(), error: shown.wrong.take("/name") },
        role: Field { value: role, error: shown.wrong.take("/role") },
        expires: Field {
            value: shown.posted.text("expires").into(),
            error: sentence(&shown.wrong.take("/expires_at")),
        },
        error: if shown.error.is_empty() { shown.wrong.rest() } else { shown.error },
        invitation: shown.invitation,
        manages,
        rows: listed
            .items
            .iter()
            .map(|person| row(person, caller, usages.get(&person.id.0)))
            .collect(),
        next: listed.next.map(|next| format!("/people?after={}", encoded(&next))),
    };
    frame.page_with(status, &view)
}

/// Active, invited, disabled or ended.
pub(super) fn state(person: &Person) -> Badge {
    let now = Time::now().0;
    let (tone, icon, word) = if person.disabled_at.is_some() {
        (Tone::Neutral, "off", "disabled")
    } else if person.expires_at.is_some_and(|at| at.0 <= now) {
        (Tone::Neutral, "off", "ended")
    } else if person.has_password {
        (Tone::Good, "check", "active")
    } else {
        (Tone::Attention, "link", "invited")
    };
    let reason = match person.invitation_expires_at {
        Some(until) if until.0 > now => format!("link ends {}", Moment::new(until.0, now).words),
        Some(_) => "link has ended".to_owned(),
        None => match person.expires_at {
            Some(at) if at.0 > now => format!("ends {}", Moment::new(at.0, now).words),
            Some(at) => Moment::new(at.0, now).words,
            None => String::new(),
        },
    };
    Badge { tone, icon, word: word.to_owned(), reason }
}

fn row(person: &Person, caller: &Caller, usage: Option<&Usage>) -> Row {
    let now = Time::now().0;
    let own = person.id == caller.principal;
    let manages = caller.role == Role::Operator;
    let containers = usage.map(|usage| &usage.containers).filter(|count| count.total > 0);
    Row {
        id: person.id.0,
        name: person.name.clone(),
        own,
        role: person.role.as_str().to_owned(),
        state: state(person),
        containers: containers
            .map(|count| format!("{} of {}", count.running, count.total))
            .unwrap_or_default(),
        memory: usage
            .filter(|usage| usage.containers.running > 0)
            .map(|usage| bytes(usage.memory.used_bytes))
            .unwrap_or_default(),
        added: Some(Moment::new(person.created_at.0, now)),
        acts: if manages && !own { acts(person) } else { Vec::new() },
    }
}

pub(super) fn acts(person: &Person) -> Vec<Act> {
    let act = |label, icon, verb: &str, danger| Act {
        label,
        icon,
        path: format!("/people/{}/{verb}", person.id.0),
        asks: false,
        danger,
    };
    let ended = person.expires_at.is_some_and(|at| at <= Time::now());
    match person.disabled_at {
        Some(_) => vec![act("Enable", "check", "enable", false)],
        None if ended => vec![act("Disable", "off", "disable", true)],
        None => {
            vec![act("New link", "link", "invite", false), act("Disable", "off", "disable", true)]
        }
    }
}

pub(super) fn fresh(frame: &Frame, name: &str, made: &people::Invitation) -> Invitation {
    Invitation {
        name: name.to_owned(),
        link: format!("{}/invitation/{}", frame.origin(), made.secret),
        until: Moment::new(made.expires_at.0, Time::now().0),
    }
}

fn first_page() -> Page {
    Page { limit: 100, after: None }
}
