//! Volumes: which there are, who has one, what it holds; made, renamed, removed.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::containers::ConfirmPage;
use berth_web::format::{Moment, bytes, short};
use berth_web::parts::{Fact, Field};
use berth_web::shell::{ApiCall, Section};
use berth_web::volumes::{DataSetRow, DetailPage, ListPage, Row, UserRow};

use super::form::{Posted, Wrong};
use super::frame::{Frame, encoded};
use crate::app::App;
use crate::auth::{Caller, Right, Role, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::extract::{Items, PageQuery};
use crate::http::routes::{Access, FormFields, Routes};
use crate::service::Page;
use crate::service::data_sets::{self, DataSetUser, DataSetView};
use crate::service::edits::Expected;
use crate::service::volumes::{
    self, Change, OtherUser, VolumeDetail, VolumeUseView, VolumeUser, VolumeView,
};

const PATH: &str = "/volumes";
/// Volumes on a page when one of its forms was refused.
const ROWS: u32 = 100;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let look = Access::SignedIn(TokenScope::Read);
    let act = Access::Member(TokenScope::Operate);
    routes
        .page(look, Method::GET, PATH, list)
        .form(act, PATH, FormFields::once(&["name"]), make)
        .page(look, Method::GET, "/volumes/{id}", show)
        .form(act, "/volumes/{id}", FormFields::once(&["name", "etag"]), rename)
        .page(act, Method::GET, "/volumes/{id}/remove", ask_remove)
        .form(act, "/volumes/{id}/remove", FormFields::once(&["typed"]), remove)
        .form(
            Access::Operator(TokenScope::Manage),
            "/volumes/{id}/hand-over",
            FormFields::once(&["to"]),
            hand_over,
        )
}

async fn list(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    PageQuery(page): PageQuery,
) -> Result<Response> {
    show_list(&app, &frame, &caller, (StatusCode::OK, page), Shown::default()).await
}

/// What a page shows besides what is saved.
#[derive(Default)]
struct Shown {
    error: String,
    name: Option<Field>,
    heir: Field,
}

impl Shown {
    /// What was typed, and why it was refused.
    fn refused(posted: &Posted, mut wrong: Wrong, error: String) -> Self {
        let name = Field { value: posted.text("name").to_owned(), error: wrong.take("/name") };
        let error = if error.is_empty() { wrong.rest() } else { error };
        Self { error, name: Some(name), ..Self::default() }
    }
}

async fn make(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    match volumes::create(&app, &caller, posted.text("name"), None).await {
        Ok(made) => {
            let VolumeView { id, name, .. } = made.volume;
            frame.done(&format!("{PATH}/{id}"), &format!("{name} is made. Nothing has it yet."))
        }
        Err(error) => {
            let (status, wrong, error) = frame.refusal(error)?;
            let page = Page { limit: ROWS, after: None };
            let shown = Shown::refused(&posted, wrong, error);
            show_list(&app, &frame, &caller, (status, page), shown).await
        }
    }
}

async fn show_list(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (status, page): (StatusCode, Page),
    shown: Shown,
) -> Result<Response> {
    let listed: Items<VolumeView> = Items::seal(app, volumes::list(app, caller, &page).await?)?;
    let mut shell = frame.shell("Volumes", Section::Volumes);
    shell.path = PATH.to_owned();
    shell.calls = vec![
        ApiCall::get("List them", "/api/v1/volumes"),
        ApiCall::get("List data sets", "/api/v1/data-sets"),
        ApiCall::send(
            "Make one",
            "POST",
            "/api/v1/volumes",
            Some("{\"name\": \"data\"}".to_owned()),
        ),
    ];
    let now = Time::now().0;
    let row = |volume: &VolumeView| Row {
        id: volume.id.to_string(),
        name: volume.name.clone(),
        owner: volume.owner.name.clone(),
        shared: volume.owner.id != caller.principal.0 && volume.rights.contains(&Right::Files),
        used_by: count(volume.containers),
        size: volume.used.map(|used| size(&used)).unwrap_or_default(),
        made: Moment::new(volume.created_at.0, now),
    };
    let view = ListPage {
        shell,
        error: shown.error,
        name: shown.name.unwrap_or_default(),
        acts: caller.role != Role::Auditor,
        oversees: oversees(caller)
            || listed.items.iter().any(|volume| volume.owner.id != caller.principal.0),
        rows: listed.items.iter().map(row).collect(),
        next: listed.next.map(|next| format!("{PATH}?after={}", encoded(&next))),
        data_sets: data_sets::list(app, caller).await?.into_iter().map(data_set).collect(),
    };
    frame.page_with(status, &view)
}

fn data_set(set: DataSetView) -> DataSetRow {
    let DataSetView { name, description, groups, path, places, used_by, .. } = set;
    let about = path.map(|path| match groups {
        None => format!("for everybody, at {path}"),
        Some(groups) => format!("for {}, at {path}", groups.join(", ")),
    });
    let user = |user: DataSetUser| {
        let rest = format!(" of {} on {}", user.owner.name, user.target);
        (format!("/containers/{}", user.container), user.container_name, rest)
    };
    DataSetRow {
        name,
        description,
        about: about.unwrap_or_default(),
        used_by: match places {
            0 => String::new(),
            1 => "in one container".to_owned(),
            more => format!("in {more} places"),
        },
        users: used_by.into_iter().map(user).collect(),
    }
}

fn oversees(caller: &Caller) -> bool {
    caller.sees().owner().is_none()
}

fn count(containers: u32) -> String {
    match containers {
        0 => String::new(),
        1 => "1 container".to_owned(),
        more => format!("{more} containers"),
    }
}

fn size(used: &VolumeUseView) -> String {
    let more = if used.is_whole { "" } else { "more than " };
    format!("{more}{}", bytes(used.bytes))
}

async fn show(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    show_one(&app, &frame, &caller, (&id, StatusCode::OK), Shown::default()).await
}

async fn show_one(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (id, status): (&str, StatusCode),
    shown: Shown,
) -> Result<Response> {
    let VolumeDetail { volume, used_by, used_by_others } =
        volumes::inspect(app, caller, id).await?;
    let mut shell = frame.shell(volume.name.clone(), Section::Volumes);
    shell.path = format!("{PATH}/{}", volume.id);
    let api = format!("/api/v1/volumes/{}", volume.id);
    shell.calls = vec![
        ApiCall::get("Show the volume", api.clone()),
        ApiCall::send("Rename it", "PATCH", api, Some("{\"name\": \"results\"}".to_owned())),
    ];
    let may = |right| volume.rights.contains(&right);
    let is_own = volume.owner.id == caller.principal.0;
    let others: u32 = used_by_others.iter().map(|other| other.containers).sum();
    let places = used_by.iter().map(|user| &user.container);
    let view = DetailPage {
        shell,
        error: shown.error,
        title: volume.name.clone(),
        acts: may(Right::Remove),
        reads: may(Right::Files),
        sees_shares: may(Right::SeeShares),
        mount: if is_own {
            volume.name.clone()
        } else {
            format!("{}/{}", volume.owner.name, volume.name)
        },
        shared: match (is_own, may(Right::Files), may(Right::Write)) {
            (true, _, _) | (_, false, _) => "",
            (_, _, true) => "read it and write to it",
            (_, _, false) => "read it",
        },
        name: shown.name.unwrap_or_else(|| Field::new(volume.name.clone())),
        heir: (caller.role == Role::Operator).then_some(shown.heir),
        etag: volumes::version(&volume).as_str().to_owned(),
        facts: facts(&volume),
        more: distinct(places) < volume.containers.saturating_sub(others) as usize,
        others: used_by_others.iter().map(other).collect(),
        users: used_by.into_iter().map(user).collect(),
        id: volume.id.to_string(),
    };
    frame.page_with(status, &view)
}

/// Who else has it, in words.
fn other(other: &OtherUser) -> String {
    let OtherUser { person, containers, running } = other;
    let noun = if *containers == 1 { "container" } else { "containers" };
    match running {
        0 => format!("{containers} {noun} of {person}, none of which runs"),
        running => format!("{containers} {noun} of {person}, of which {running} run"),
    }
}

fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> usize {
    let mut all: Vec<T> = all.collect();
    all.dedup();
    all.len()
}

fn user(user: VolumeUser) -> UserRow {
    let part = user.sub_path.map(|path| format!("its {path}"));
    let way = user.read_only.then(|| "read-only".to_owned());
    UserRow {
        id: user.container.to_string(),
        name: user.container_name,
        target: user.target,
        how: part.into_iter().chain(way).collect::<Vec<_>>().join(", "),
    }
}

fn facts(volume: &VolumeView) -> Vec<Fact> {
    let now = Time::now().0;
    let moment = |key, at: Time| {
        let moment = Moment::new(at.0, now);
        Fact::text(key, moment.words).with_exact(moment.exact)
    };
    let mut facts = vec![
        Fact::copy("Id", short(volume.id.as_str()), volume.id.to_string()),
        Fact::text("Whose", volume.owner.name.clone()),
        moment("Made", volume.created_at),
    ];
    match &volume.used {
        Some(used) => {
            facts.push(Fact::text("Holds", size(used)));
            facts.push(Fact::text("Files in it", used.entries.to_string()));
            facts.push(moment("Looked at", used.measured_at));
        }
        None => facts.push(Fact::text("Holds", "is being looked at; come back in a moment")),
    }
    facts
}

async fn rename(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response> {
    let name = Some(posted.text("name").to_owned());
    let change = Change { name, expected: Expected::of(posted.text("etag")) };
    let error = match volumes::change(&app, &caller, &id, change).await {
        Ok(changed) => {
            let path = format!("{PATH}/{}", changed.volume.id);
            return frame.done(&path, "The volume is saved.");
        }
        Err(error @ Error::NotFound(_)) => return Err(error),
        Err(error) => error,
    };
    let (status, shown) = match error {
        Error::Stale { .. } => {
            frame.note(&error);
            let text = "Somebody has changed this since you opened the page. Look at how it is now; \
                        saving again puts your choice over it.";
            let shown = Shown { error: text.to_owned(), ..Shown::default() };
            (StatusCode::PRECONDITION_FAILED, shown)
        }
        error => {
            let (status, wrong, error) = frame.refusal(error)?;
            (status, Shown::refused(&posted, wrong, error))
        }
    };
    show_one(&app, &frame, &caller, (&id, status), shown).await
}

async fn hand_over(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response> {
    let to = posted.text("to");
    let error = match volumes::hand_over(&app, &caller, &id, to).await {
        Ok(true) => return frame.done(&format!("{PATH}/{id}"), &format!("It is {to}’s now.")),
        Ok(false) => {
            let text = format!("It is being copied, and then {to}’s.");
            return frame.done(&format!("{PATH}/{id}"), &text);
        }
        Err(error @ Error::NotFound(_)) => return Err(error),
        Err(error) => error,
    };
    let (status, mut wrong, error) = frame.refusal(error)?;
    let heir = Field { value: to.to_owned(), error: wrong.take("/to") };
    let error = if error.is_empty() { wrong.rest() } else { error };
    let shown = Shown { error, heir, ..Shown::default() };
    show_one(&app, &frame, &caller, (&id, status), shown).await
}

async fn ask_remove(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let found = volumes::inspect(&app, &caller, &id).await?;
    frame.page(&question(&frame, &caller, &found))
}

fn question(frame: &Frame, caller: &Caller, found: &VolumeDetail) -> ConfirmPage {
    let VolumeDetail { volume, used_by, used_by_others } = found;
    let mut losses = Vec::new();
    if !used_by.is_empty() {
        let mut names: Vec<&str> =
            used_by.iter().map(|user| user.container_name.as_str()).collect();
        names.dedup();
        let names = names.join(", ");
        losses.push(format!("It cannot go while containers have it: {names}. Remove those first."));
    }
    let others: Vec<String> = used_by_others.iter().map(other).collect();
    if !others.is_empty() {
        let others = others.join("; ");
        losses.push(format!(
            "Others have it: {others}. It cannot go while one of these runs; none starts with it afterwards."
        ));
    }
    let holds = volume.used.map(|used| format!(": {}", size(&used))).unwrap_or_default();
    losses.push(format!("All that is in it is lost{holds}. Nothing brings it back."));
    if volume.owner.id != caller.principal.0 {
        losses.push(format!("It belongs to {}.", volume.owner.name));
    }
    ConfirmPage {
        shell: frame.shell(format!("Remove {}", volume.name), Section::Volumes),
        question: format!("Remove the volume {}?", volume.name),
        losses,
        verb: "Remove it",
        path: format!("{PATH}/{}/remove", volume.id),
        typed: volume.name.clone(),
        back: format!("{PATH}/{}", volume.id),
        ..ConfirmPage::default()
    }
}

async fn remove(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response> {
    let found = volumes::inspect(&app, &caller, &id).await?;
    if posted.text("typed").trim() != found.volume.name {
        frame.note(&Error::field("/typed", "is not its name"));
        let mut page = question(&frame, &caller, &found);
        page.error = "That is not its name.".to_owned();
        return frame.page_with(StatusCode::UNPROCESSABLE_ENTITY, &page);
    }
    let version = volumes::version(&found.volume);
    match volumes::remove(&app, &caller, &id, Expected::of(version.as_str())).await {
        Ok(true) => frame.done(PATH, &format!("{} is removed.", found.volume.name)),
        Ok(false) => frame.done(PATH, &format!("{} goes as soon as it can.", found.volume.name)),
        Err(error) => frame.refused(&format!("{PATH}/{id}"), error),
    }
}
