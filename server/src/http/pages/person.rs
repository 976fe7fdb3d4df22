//! One person, for those who oversee people: state of what is theirs, ways in, activity; never what
//! is in it. Operators act.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::id::PrincipalId;
use berth_web::containers::ConfirmPage;
use berth_web::format::{Moment, bytes, cores};
use berth_web::parts::{Act, Fact, Field};
use berth_web::people::{
    ActivityRow, AllowanceForm, ContainerRow, GroupChoice, ImageRow, Invitation, PersonPage,
};
use berth_web::shell::{ApiCall, Section};

use super::form::Posted;
use super::frame::{Frame, encoded, sentence};
use super::people::{acts, fresh, state};
use super::{allowance, events, shown, used};
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::asks::Extra;
use crate::inventory::containers::Filter;
use crate::inventory::people::{Access as WaysIn, Person};
use crate::service::admission::words;
use crate::service::audit;
use crate::service::containers::{self, ContainerView, ListFilter};
use crate::service::edits::Expected;
use crate::service::images::{self, Image, Wanted};
use crate::service::people::{self, Change};
use crate::service::{Page, allowances, factor, groups, usage};

/// Containers, images and acts that the page shows.
const ROWS: u32 = 15;
/// Groups that can be chosen; the API moves people to any.
const GROUPS: u32 = 200;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let manage = Access::Operator(TokenScope::Manage);
    routes
        .page(Access::Overseer(TokenScope::Read), Method::GET, "/people/{id}", person)
        .form(manage, "/people/{id}/role", FormFields::once(&["role", "etag"]), give_role)
        .form(
            manage,
            "/people/{id}/host-user",
            FormFields::once(&["host_user", "etag"]),
            say_host_user,
        )
        .form(manage, "/people/{id}/expiry", FormFields::once(&["expires", "etag"]), say_expiry)
        .page(manage, Method::GET, "/people/{id}/end-access", ask_end_access)
        .form(manage, "/people/{id}/end-access", FormFields::once(&[]), end_access)
        .page(manage, Method::GET, "/people/{id}/second-factor", ask_reset_factor)
        .form(manage, "/people/{id}/second-factor", FormFields::once(&[]), reset_factor)
}

/// What the page shows besides the person.
#[derive(Default)]
pub(super) struct Beside {
    /// A link made just now.
    pub invitation: Option<Invitation>,
    /// Why a change was refused.
    pub error: String,
    /// The role that was chosen, and what is to be said about it.
    pub role: Option<Field>,
    /// The account's last day as typed, and what is to be said about it.
    pub expires: Option<Field>,
    /// The user of this host as typed, and what is to be said about it.
    pub host_user: Option<Field>,
    /// The allowance as it was typed, and what is to be said about it.
    pub allowance: Option<AllowanceForm>,
}

async fn person(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    show(&app, &frame, &caller, (PrincipalId(id), StatusCode::OK), Beside::default()).await
}

async fn give_role(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let role = match posted.text("role") {
        "operator" => Role::Operator,
        "auditor" => Role::Auditor,
        "user" => Role::User,
        other => return Err(Error::field("/role", format!("{other:?} is no role"))),
    };
    let id = PrincipalId(id);
    let expected = Expected::of(posted.text("etag"));
    let change = Change { role: Some(role), expected, ..Change::default() };
    let error = match people::change(&app, &caller, id, change).await {
        Ok(person) => {
            let text = format!("{} is {} now.", person.name, with_article(person.role));
            return frame.done(&format!("/people/{}", id.0), &text);
        }
        Err(error) => error,
    };
    frame.note(&error);
    let beside = match error {
        Error::Stale { .. } => {
            let now = people::find(&app, &caller, id).await?;
            let error = format!(
                "Somebody has changed {} since you opened this page. Look at how it is now; saving \
                 again puts your choice over it.",
                now.name
            );
            let said = format!("is {} now; you chose {}", now.role.as_str(), role.as_str());
            let role = Some(Field { value: role.as_str().to_owned(), error: said });
            Beside { error, role, ..Beside::default() }
        }
        error => {
            let (status, _, text) = frame.refusal(error)?;
            let role = Some(Field::new(role.as_str()));
            let beside = Beside { error: text, role, ..Beside::default() };
            return show(&app, &frame, &caller, (id, status), beside).await;
        }
    };
    show(&app, &frame, &caller, (id, StatusCode::PRECONDITION_FAILED), beside).await
}

async fn say_host_user(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let user = posted.text("host_user").trim().to_owned();
    let id = PrincipalId(id);
    let expected = Expected::of(posted.text("etag"));
    let change = Change { local_user: Some(user.clone()), expected, ..Change::default() };
    let error = match people::change(&app, &caller, id, change).await {
        Ok(person) => {
            let text = match &person.local_user {
                Some(user) => format!("{} is {user} on this host now.", person.name),
                None => format!("{} is nobody on this host now.", person.name),
            };
            return frame.done(&format!("/people/{}", id.0), &text);
        }
        Err(error) => error,
    };
    frame.note(&error);
    let (status, said) = match error {
        Error::Stale { .. } => {
            let said = "somebody has changed this person since you opened the page; saving again puts \
                        your choice over it";
            (StatusCode::PRECONDITION_FAILED, said.to_owned())
        }
        error => {
            let (status, mut wrong, text) = frame.refusal(error)?;
            let said = wrong.take("/local_user");
            (status, if said.is_empty() { text } else { said })
        }
    };
    let host_user = Some(Field { value: user, error: said });
    let beside = Beside { host_user, ..Beside::default() };
    show(&app, &frame, &caller, (id, status), beside).await
}

async fn say_expiry(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let typed = posted.text("expires").trim().to_owned();
    let id = PrincipalId(id);
    let expected = Expected::of(posted.text("etag"));
    let changed = match people::end_of_account(&typed) {
        Ok(at) => {
            let change = Change { expires_at: Some(at), expected, ..Change::default() };
            people::change(&app, &caller, id, change).await
        }
        Err(error) => Err(error),
    };
    let error = match changed {
        Ok(person) => {
            let text = match person.expires_at {
                Some(at) => format!("{} is here through {}.", person.name, last_day(at)),
                None => format!("The account of {} does not end by itself.", person.name),
            };
            return frame.done(&format!("/people/{}", id.0), &text);
        }
        Err(error) => error,
    };
    frame.note(&error);
    let (status, said) = match error {
        Error::Stale { .. } => {
            let said = "Somebody has changed this person since you opened the page; saving again puts \
                        your choice over it.";
            (StatusCode::PRECONDITION_FAILED, said.to_owned())
        }
        error => {
            let (status, mut wrong, text) = frame.refusal(error)?;
            let said = wrong.take("/expires_at");
            (status, sentence(if said.is_empty() { &text } else { &said }))
        }
    };
    let expires = Some(Field { value: typed, error: said });
    show(&app, &frame, &caller, (id, status), Beside { expires, ..Beside::default() }).await
}

/// The last day, in UTC, of an account that ends then.
pub(super) fn last_day(at: Time) -> String {
    Time(at.0 - 1).to_string().chars().take(10).collect()
}

fn with_article(role: Role) -> &'static str {
    match role {
        Role::Operator => "an operator",
        Role::Auditor => "an auditor",
        Role::User | Role::System => "a user",
    }
}

async fn ask_reset_factor(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    let person = people::find(&app, &caller, PrincipalId(id)).await?;
    let page = ConfirmPage {
        shell: frame.shell("Take a second factor away", Section::People),
        question: format!("Take the second factor of {} away?", person.name),
        losses: vec![
            "Do this when they have lost phone and recovery codes, and you know that it is they who \
             ask."
            .to_owned(),
            format!("{} signs in with the password alone until they set up another.", person.name),
            "Their sessions end at once, and they are told.".to_owned(),
        ],
        verb: "Take it away",
        path: format!("/people/{id}/second-factor"),
        hidden: Vec::new(),
        back: format!("/people/{id}"),
        ..ConfirmPage::default()
    };
    frame.page(&page)
}

async fn reset_factor(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    let result = factor::reset(&app, &caller, PrincipalId(id)).await;
    frame.outcome(result, &format!("/people/{id}"), "The second factor is taken away.")
}

async fn ask_end_access(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    let id = PrincipalId(id);
    let person = people::find(&app, &caller, id).await?;
    let ways = people::access(&app, &caller, id).await?;
    let page = ConfirmPage {
        shell: frame.shell(format!("End all sessions of {}", person.name), Section::People),
        question: format!("End all sessions and tokens of {}?", person.name),
        losses: vec![
            format!(
                "{} and {} end at once.",
                count(ways.sessions, "session"),
                count(ways.tokens, "token")
            ),
            "Programs that use a token stop working until they get a new one.".to_owned(),
            format!("{} may sign in again. Containers run on.", person.name),
        ],
        verb: "End them",
        path: format!("/people/{}/end-access", id.0),
        hidden: Vec::new(),
        back: format!("/people/{}", id.0),
        ..ConfirmPage::default()
    };
    frame.page(&page)
}

async fn end_access(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    let result = people::end_access(&app, &caller, PrincipalId(id)).await;
    frame.outcome(result, &format!("/people/{id}"), "All sessions and tokens have ended.")
}

/// The page of one person.
pub(super) async fn show(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (id, status): (PrincipalId, StatusCode),
    beside: Beside,
) -> Result<Response> {
    let person = people::find(app, caller, id).await?;
    let ways = people::access(app, caller, id).await?;
    let usage = usage::of_person(app, caller, id).await?.usage;
    let set = allowances::of_person(app, caller, id).await?;
    let some = Page { limit: ROWS, after: None };
    let rows = Filter { owner: Some(id), ..Filter::default() };
    let filter = ListFilter { rows, ..ListFilter::default() };
    let owned = containers::list(app, caller, &filter, &some).await?;
    let wanted = Wanted { owner: Some(id), ..Wanted::default() };
    let images = images::list(app, caller, wanted, &some).await?;
    let activity = activity(app, &person, &some).await?;
    let (group, choices) = group_choices(app, caller, &person).await?;
    let now = Time::now().0;
    let own = id == caller.principal;
    let manages = caller.role == Role::Operator;
    let mut gauges = used::gauges(&usage);
    gauges.extend(used::data(app, caller, id).await);
    let mut shell = frame.shell(person.name.clone(), Section::People);
    shell.path = format!("/people/{}", id.0);
    shell.live_secs = Some(5);
    shell.calls = calls(id);
    let whose = encoded(&format!("owner:{}", person.name));
    let view = PersonPage {
        shell,
        id: id.0,
        name: person.name.clone(),
        own,
        state: state(&person),
        acts: if manages && !own { all_acts(&person) } else { Vec::new() },
        invitation: beside.invitation,
        error: beside.error,
        manages: manages && !own,
        role: beside.role.unwrap_or_else(|| Field::new(person.role.as_str())),
        etag: people::version(&person).as_str().to_owned(),
        expires: beside
            .expires
            .unwrap_or_else(|| Field::new(person.expires_at.map(last_day).unwrap_or_default())),
        groups: if manages { choices } else { Vec::new() },
        group: person.group.to_string(),
        host_user: manages.then(|| {
            let now = || Field::new(person.local_user.clone().unwrap_or_default());
            beside.host_user.unwrap_or_else(now)
        }),
        gauges,
        allowance: beside.allowance.unwrap_or_else(|| allowance::form(&set.allowance)),
        allowed: allowance::facts(&set.allowance),
        extras: set.extras.iter().map(|extra| extra_words(extra, now)).collect(),
        changes_allowance: manages,
        allowance_own: set.own,
        facts: facts(&person, &group, &ways, now),
        containers: owned.items.iter().map(|view| container_row(view, now)).collect(),
        all_containers: owned.next.map(|_| format!("/containers?q={whose}")),
        images: images.items.iter().map(|image| image_row(image, now)).collect(),
        all_images: images.next.map(|_| format!("/images?q={whose}")),
        activity,
        all_activity: format!("/audit?actor={}", encoded(&person.name)),
    };
    frame.page_with(status, &view)
}

/// The name of the group that they count to, and those that they can count to.
async fn group_choices(
    app: &App,
    caller: &Caller,
    person: &Person,
) -> Result<(String, Vec<GroupChoice>)> {
    let all = Page { limit: GROUPS, after: None };
    let groups = groups::list(app, caller, &all).await?.items;
    let choices =
        groups.iter().map(|one| GroupChoice { id: one.id.to_string(), name: one.name.clone() });
    let mut choices: Vec<GroupChoice> = choices.collect();
    let group = groups::find(app, caller, person.group).await?;
    // Their own is among them, however many there are: else saving would move them.
    if !choices.iter().any(|choice| choice.name == group.name) {
        choices.push(GroupChoice { id: group.id.to_string(), name: group.name.clone() });
    }
    Ok((group.name, choices))
}

/// What was granted for a time, in words.
fn extra_words(extra: &Extra, now: i64) -> String {
    let Moment { words: when, exact, .. } = Moment::new(extra.ends_at.0, now);
    format!("{}, until {exact} ({when})", words(extra.limit, extra.granted))
}

/// What the person did and what was done to what is theirs, newest first.
async fn activity(app: &App, person: &Person, page: &Page) -> Result<Vec<ActivityRow>> {
    let id = Some(person.id.to_string());
    let did = audit::Filter { actor: id.clone(), ..audit::Filter::default() };
    let met = audit::Filter { owner: id, ..audit::Filter::default() };
    let mut rows = audit::list(app, &did, page).await?.items;
    rows.extend(audit::list(app, &met, page).await?.items);
    rows.sort_by_key(|row| std::cmp::Reverse(row.id));
    rows.dedup_by_key(|row| row.id);
    rows.truncate(ROWS as usize);
    let now = Time::now().0;
    Ok(rows
        .into_iter()
        .map(|row| ActivityRow {
            at: Moment::new(row.at.0, now),
            actor: row.actor_name,
            action: row.action,
            outcome: events::outcome(&row.outcome),
        })
        .collect())
}

fn calls(id: PrincipalId) -> Vec<ApiCall> {
    let path = format!("/api/v1/people/{}", id.0);
    vec![
        ApiCall::get("Show the person", path.clone()),
        ApiCall::get("What they use", format!("{path}/usage")),
        ApiCall::get("What they may use together", format!("{path}/allowance")),
        ApiCall::get("What they have asked for", format!("/api/v1/asks?person={}", id.0)),
        ApiCall::get("Their ways in", format!("{path}/access")),
        ApiCall::get("Their containers", format!("/api/v1/containers?owner={}", id.0)),
        ApiCall::send(
            "Give another role",
            "PATCH",
            path,
            Some("{\"role\": \"auditor\"}".to_owned()),
        ),
    ]
}

fn all_acts(person: &Person) -> Vec<Act> {
    let mut all = acts(person);
    all.push(Act {
        label: "Take off the machine…",
        icon: "off",
        path: format!("/people/{}/offboarding", person.id.0),
        asks: true,
        danger: true,
    });
    all.push(Act {
        label: "End all sessions…",
        icon: "leave",
        path: format!("/people/{}/end-access", person.id.0),
        asks: true,
        danger: true,
    });
    all
}

fn facts(person: &Person, group: &str, ways: &WaysIn, now: i64) -> Vec<Fact> {
    let moment = |key, at: Option<Time>| match at {
        Some(at) => {
            let at = Moment::new(at.0, now);
            Fact::text(key, at.words).with_exact(at.exact)
        }
        None => Fact::text(key, "never"),
    };
    let mut facts = vec![
        Fact::text("Role", person.role.as_str()),
        Fact::text("Group", group),
        Fact::copy("Id", person.id.to_string(), person.id.to_string()),
        moment("Added", Some(person.created_at)),
        moment("Last seen", ways.used_at),
        Fact::text("Signed in", count(ways.sessions, "browser")),
        Fact::text("Tokens", ways.tokens.to_string()),
        Fact::text("Registry logins", ways.registry_logins.to_string())
            .with_exact("Which ones is theirs alone"),
        Fact::text("Password", if person.has_password { "set" } else { "not set yet" }),
        Fact::text("Second factor", if person.has_second_factor { "on" } else { "none" }),
    ];
    if let Some(user) = &person.local_user {
        facts.push(Fact::text("User of this host", user));
    }
    if let Some(until) = person.invitation_expires_at {
        facts.push(moment("Link ends", Some(until)));
    }
    if let Some(at) = person.expires_at {
        facts.push(moment(if at.0 > now { "Account ends" } else { "Account ended" }, Some(at)));
    }
    if let Some(at) = person.disabled_at {
        facts.push(moment("Disabled", Some(at)));
    }
    facts
}

fn count(number: u32, of: &str) -> String {
    if number == 1 { format!("1 {of}") } else { format!("{number} {of}s") }
}

fn container_row(view: &ContainerView, now: i64) -> ContainerRow {
    let since = match &view.exit {
        Some(exit) if !shown::is_live(view) => Some(exit.ended_at),
        _ => view.started_at.or(Some(view.created_at)),
    };
    let limits = &view.limits;
    ContainerRow {
        id: view.id.to_string(),
        name: view.name.clone(),
        state: shown::badge(view, now),
        image: view.image.reference.clone(),
        limits: format!(
            "{} cores, {}",
            cores(limits.cpu_millis.into()),
            bytes(limits.memory_bytes)
        ),
        since: since.map(|at| Moment::new(at.0, now)),
    }
}

fn image_row(image: &Image, now: i64) -> ImageRow {
    let name = image.references.first().map(ToString::to_string);
    ImageRow {
        id: image.row.id.clone(),
        name: name.unwrap_or_else(|| image.row.manifest.to_string()),
        size: bytes(image.row.unpacked_bytes),
        since: Moment::new(image.row.created_at.0, now),
    }
}

/// A new link, shown on the person's page.
pub(super) async fn show_link(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    person: &Person,
    made: &people::Invitation,
) -> Result<Response> {
    let invitation = Some(fresh(frame, &person.name, made));
    let beside = Beside { invitation, ..Beside::default() };
    show(app, frame, caller, (person.id, StatusCode::CREATED), beside).await
}
