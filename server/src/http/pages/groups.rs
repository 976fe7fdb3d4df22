//! Groups: those that one is in, and for those who oversee people which there are, who is in one, what it may
//! use together.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::id::PrincipalId;
use berth_web::containers::ConfirmPage;
use berth_web::parts::Field;
use berth_web::people::{AllowanceForm, GroupPage, GroupRow, GroupsPage, Member, Members};
use berth_web::shell::{ApiCall, Section};

use super::allowance;
use super::form::{Posted, Wrong};
use super::frame::{Frame, encoded};
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope, Visibility};
use crate::error::{Error, Result};
use crate::http::extract::{Items, PageQuery};
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::allowances::Allowance;
use crate::inventory::groups::{Group, MemberRole};
use crate::service::edits::Expected;
use crate::service::groups::{self, Change};
use crate::service::{Page, people, preview};

const PATH: &str = "/groups";
/// People on one page of a group's.
const MEMBERS: u32 = 100;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let manage = Access::Operator(TokenScope::Manage);
    let look = Access::SignedIn(TokenScope::Read);
    let member = Access::Member(TokenScope::Manage);
    routes
        .page(look, Method::GET, PATH, list)
        .form(manage, PATH, FormFields::once(&["name", "note"]), add)
        .page(look, Method::GET, "/groups/{id}", group)
        .form(manage, "/groups/{id}", FormFields::once(&["name", "note", "etag"]), change)
        .form(manage, "/groups/{id}/allowance", allowance::FIELDS, set_allowance)
        .form(member, "/groups/{id}/members", FormFields::once(&["member", "role"]), set_member)
        .form(member, "/groups/{id}/members/remove", FormFields::once(&["member"]), remove_member)
        .page(manage, Method::GET, "/groups/{id}/delete", ask_delete)
        .form(manage, "/groups/{id}/delete", FormFields::once(&[]), delete)
        .form(manage, "/people/{id}/group", FormFields::once(&["group", "etag"]), move_person)
}

async fn list(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    PageQuery(page): PageQuery,
) -> Result<Response> {
    show_list(&app, &frame, &caller, (StatusCode::OK, page), Typed::default()).await
}

async fn add(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let note = posted.text("note").trim();
    match groups::add(&app, &caller, posted.text("name"), note).await {
        Ok(group) => {
            let path = format!("{PATH}/{}", group.id.0);
            frame.done(&path, &format!("{} is made. Nobody counts to it yet.", group.name))
        }
        Err(error) => {
            let (status, wrong, error) = frame.refusal(error)?;
            let page = Page { limit: 100, after: None };
            let typed = Typed { posted, wrong, error };
            show_list(&app, &frame, &caller, (status, page), typed).await
        }
    }
}

/// What was typed into the form of the list, and what is wrong with it.
#[derive(Default)]
struct Typed {
    posted: Posted,
    wrong: Wrong,
    error: String,
}

async fn show_list(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (status, page): (StatusCode, Page),
    Typed { posted, mut wrong, error }: Typed,
) -> Result<Response> {
    let listed: Items<Group> = Items::seal(app, groups::list(app, caller, &page).await?)?;
    let oversees = caller.sees() == Visibility::Everyone;
    let mut shell = frame.shell("Groups", section(oversees));
    shell.path = PATH.to_owned();
    shell.calls = vec![ApiCall::get("List them", "/api/v1/groups")];
    if oversees {
        let body = Some("{\"name\": \"course\"}".to_owned());
        shell.calls.push(ApiCall::send("Make one", "POST", "/api/v1/groups", body));
    }
    let rows = listed.items.iter().map(|group| GroupRow {
        id: group.id.0,
        name: group.name.clone(),
        note: group.note.clone(),
        role: match group.role {
            Some(MemberRole::Manager) => "manager",
            Some(MemberRole::Member) => "member",
            None => "",
        },
        members: match (group.members, group.joined) {
            (Some(members), Some(joined)) => (members + joined).to_string(),
            _ => String::new(),
        },
        containers: group.containers.map(|count| count.to_string()).unwrap_or_default(),
    });
    let view = GroupsPage {
        shell,
        manages: caller.role == Role::Operator,
        oversees,
        name: Field { value: posted.text("name").to_owned(), error: wrong.take("/name") },
        note: Field { value: posted.text("note").to_owned(), error: wrong.take("/note") },
        error: if error.is_empty() { wrong.rest() } else { error },
        rows: rows.collect(),
        next: listed.next.map(|next| format!("{PATH}?after={}", encoded(&next))),
    };
    frame.page_with(status, &view)
}

async fn group(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    PageQuery(page): PageQuery,
) -> Result<Response> {
    let shown = Shown { page: Some(page), ..Shown::default() };
    show(&app, &frame, &caller, (PrincipalId(id), StatusCode::OK), shown).await
}

/// What a group's page shows besides what is saved.
#[derive(Default)]
struct Shown {
    error: String,
    name: Option<Field>,
    note: Option<Field>,
    allowance: Option<AllowanceForm>,
    member: Option<Field>,
    /// Which of its people; the first when nothing is said.
    page: Option<Page>,
}

async fn change(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let change = Change {
        name: Some(posted.text("name").to_owned()),
        note: Some(posted.text("note").trim().to_owned()),
        expected: Expected::of(posted.text("etag")),
    };
    let id = PrincipalId(id);
    let error = match groups::change(&app, &caller, id, change).await {
        Ok(_) => return frame.done(&format!("{PATH}/{}", id.0), "The group is saved."),
        Err(error @ Error::NotFound(_)) => return Err(error),
        Err(error) => error,
    };
    let (status, mut wrong, error) = stale_or(&frame, error)?;
    let field = |name: &str, error: String| Field { value: posted.text(name).to_owned(), error };
    let shown = Shown {
        name: Some(field("name", wrong.take("/name"))),
        note: Some(field("note", wrong.take("/note"))),
        error: if error.is_empty() { wrong.rest() } else { error },
        ..Shown::default()
    };
    show(&app, &frame, &caller, (id, status), shown).await
}

/// A refusal, in words of its own where somebody else was quicker.
fn stale_or(frame: &Frame, error: Error) -> Result<(StatusCode, Wrong, String)> {
    if !matches!(error, Error::Stale { .. }) {
        return frame.refusal(error);
    }
    frame.note(&error);
    let text = "Somebody has changed this since you opened the page. Look at how it is now; saving \
                again puts your choice over it.";
    Ok((StatusCode::PRECONDITION_FAILED, Wrong::default(), text.to_owned()))
}

async fn set_allowance(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let id = PrincipalId(id);
    let done = match allowance::read(&posted) {
        Ok(wanted) => {
            let back = format!("{PATH}/{}", id.0);
            let whose = format!("the group {}", groups::find(&app, &caller, id).await?.name);
            let asked = allowance::Asked { whose, path: format!("{back}/allowance"), back };
            match asked.first(&frame, &posted, preview::of_group(&app, id, wanted).await) {
                Ok(Some(question)) => return Ok(question),
                Ok(None) => groups::set_allowance(&app, &caller, id, wanted).await,
                Err(error) => Err(error),
            }
        }
        Err(wrong) => Err(wrong.into_error()),
    };
    match done {
        Ok(set) => frame.done(&format!("{PATH}/{}", id.0), &allowance::saved(&set)),
        Err(error @ (Error::NotFound(_) | Error::Broken { .. })) => Err(error),
        Err(error) => {
            let (status, mut wrong, error) = frame.refusal(error)?;
            let typed = Some(allowance::typed(&posted, &mut wrong));
            let error = if error.is_empty() { wrong.rest() } else { error };
            let shown = Shown { error, allowance: typed, ..Shown::default() };
            show(&app, &frame, &caller, (id, status), shown).await
        }
    }
}

/// To which part of the navigation a page of groups belongs.
fn section(oversees: bool) -> Section {
    if oversees { Section::People } else { Section::Account }
}

async fn show(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (id, status): (PrincipalId, StatusCode),
    shown: Shown,
) -> Result<Response> {
    let group = groups::find(app, caller, id).await?;
    let oversees = caller.sees() == Visibility::Everyone;
    let now = match oversees {
        true => groups::allowance(app, caller, id).await?.allowance,
        false => Allowance::FREE,
    };
    let mut shell = frame.shell(group.name.clone(), section(oversees));
    shell.calls = calls(id, oversees.then_some(&now))?;
    shell.path = format!("{PATH}/{}", id.0);
    let page = shown.page.unwrap_or(Page { limit: MEMBERS, after: None });
    let members = members(app, caller, &group, page, shown.member.unwrap_or_default()).await?;
    let view = GroupPage {
        shell,
        id: id.0,
        error: shown.error,
        title: group.name.clone(),
        manages: caller.role == Role::Operator,
        oversees,
        about: group.note.clone(),
        leaves: leaves(app, caller, &group).await?,
        me: caller.name.clone(),
        begins: id == PrincipalId::DEFAULT_GROUP,
        name: shown.name.unwrap_or_else(|| Field::new(group.name.clone())),
        note: shown.note.unwrap_or_else(|| Field::new(group.note.clone())),
        etag: groups::version(&group).as_str().to_owned(),
        allowance: shown.allowance.unwrap_or_else(|| allowance::form(&now)),
        facts: allowance::facts(&now),
        members,
    };
    frame.page_with(status, &view)
}

fn calls(id: PrincipalId, allowance: Option<&Allowance>) -> Result<Vec<ApiCall>> {
    let api = format!("/api/v1/groups/{}", id.0);
    let member = Some("{\"name\": \"anna\", \"role\": \"member\"}".to_owned());
    let mut calls = vec![
        ApiCall::get("Show the group", api.clone()),
        ApiCall::get("Who is in it", format!("{api}/members")),
        ApiCall::send("Add a member", "PUT", format!("{api}/members"), member),
    ];
    if let Some(now) = allowance {
        let body = serde_json::to_string(now)
            .map_err(|source| Error::broken("write an allowance as JSON", source))?;
        let path = format!("{api}/allowance");
        calls.extend([
            ApiCall::get("What it may use together", path.clone()),
            ApiCall::send("Change that", "PUT", path.clone(), Some(body.clone())),
            ApiCall::send("Who would be over", "POST", format!("{path}/preview"), Some(body)),
        ]);
    }
    Ok(calls)
}

/// Who is in it, for those who may know.
async fn members(
    app: &App,
    caller: &Caller,
    group: &Group,
    page: Page,
    name: Field,
) -> Result<Option<Members>> {
    let listed = match groups::members(app, caller, group.id, &page).await {
        Ok(listed) => Items::seal(app, listed)?,
        Err(Error::Denied(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let appoints = caller.role == Role::Operator;
    let changes = caller.role != Role::Auditor;
    let oversees = caller.sees() == Visibility::Everyone;
    let row = |member: &groups::Member| {
        let manages = member.role == MemberRole::Manager;
        Member {
            path: oversees.then(|| format!("/people/{}", member.person.0)),
            name: member.name.clone(),
            manages,
            counts: member.counts,
            goes: changes && member.added_at.is_some() && (appoints || !manages),
        }
    };
    Ok(Some(Members {
        rows: listed.items.iter().map(row).collect(),
        changes,
        appoints,
        name,
        next: listed.next.map(|next| format!("{PATH}/{}?after={}", group.id.0, encoded(&next))),
    }))
}

/// Whether the caller may take themselves out: not of the one that they count to.
async fn leaves(app: &App, caller: &Caller, group: &Group) -> Result<bool> {
    if group.role.is_none() || caller.role != Role::User {
        return Ok(false);
    }
    Ok(people::find(app, caller, caller.principal).await?.group != group.id)
}

async fn set_member(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let id = PrincipalId(id);
    let name = posted.text("member");
    let role = match posted.text("role") {
        "" | "member" => Ok(MemberRole::Member),
        "manager" => Ok(MemberRole::Manager),
        other => Err(Error::field("/role", format!("{other:?} is neither member nor manager"))),
    };
    let done = match role {
        Ok(role) => groups::set_member(&app, &caller, id, (name, role)).await,
        Err(error) => Err(error),
    };
    let error = match done {
        Ok(member) => {
            let role = if member.role == MemberRole::Manager { "manages it" } else { "is in it" };
            return frame.done(&format!("{PATH}/{}", id.0), &format!("{} {role}.", member.name));
        }
        Err(error @ Error::NotFound(_)) => return Err(error),
        Err(error) => error,
    };
    let (status, mut wrong, error) = frame.refusal(error)?;
    let member = Field { value: name.to_owned(), error: wrong.take("/name") };
    let error = if error.is_empty() { wrong.rest() } else { error };
    let shown = Shown { error, member: Some(member), ..Shown::default() };
    show(&app, &frame, &caller, (id, status), shown).await
}

async fn remove_member(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let name = posted.text("member");
    let back = format!("{PATH}/{id}");
    match groups::remove_member(&app, &caller, PrincipalId(id), name).await {
        // Their page may be none of theirs any more.
        Ok(()) if name == caller.name => frame.done(PATH, "You are in it no more."),
        Ok(()) => frame.done(&back, &format!("{name} is taken out.")),
        Err(error) => frame.refused(&back, error),
    }
}

async fn ask_delete(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    let group = groups::find(&app, &caller, PrincipalId(id)).await?;
    let page = ConfirmPage {
        shell: frame.shell(format!("Delete {}", group.name), Section::People),
        question: format!("Delete the group {}?", group.name),
        losses: vec![
            "Its allowance is gone, and its id is never given again.".to_owned(),
            "What was shared with it is shared with its members no more.".to_owned(),
            "It can be deleted only while nobody counts to it.".to_owned(),
        ],
        verb: "Delete it",
        path: format!("{PATH}/{id}/delete"),
        hidden: Vec::new(),
        back: format!("{PATH}/{id}"),
        ..ConfirmPage::default()
    };
    frame.page(&page)
}

async fn delete(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
) -> Result<Response> {
    match groups::delete(&app, &caller, PrincipalId(id)).await {
        Ok(()) => frame.done(PATH, "The group is deleted."),
        Err(error) => frame.refused(&format!("{PATH}/{id}"), error),
    }
}

async fn move_person(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let typed = posted.text("group");
    let group = typed.parse().map(PrincipalId);
    let group = group.map_err(|_| Error::field("/group", format!("{typed:?} is no group")))?;
    let expected = Expected::of(posted.text("etag"));
    let change = people::Change { group: Some(group), expected, ..people::Change::default() };
    let path = format!("/people/{id}");
    match people::change(&app, &caller, PrincipalId(id), change).await {
        Ok(person) => {
            let group = groups::find(&app, &caller, person.group).await?;
            frame.done(&path, &format!("{} counts to {} now.", person.name, group.name))
        }
        Err(error @ Error::NotFound(_)) => Err(error),
        Err(error) => frame.refused(&path, error),
    }
}
