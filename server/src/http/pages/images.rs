//! The page of images: the list with pulls under way, pull, import.

use axum::extract::multipart::MultipartRejection;
use axum::extract::{Multipart, Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::id::PrincipalId;
use berth_web::format::{Moment, bytes, count, short};
use berth_web::images::{ListPage, Row};
use berth_web::operations::Work;
use berth_web::parts::{Act, Field, Scope};
use berth_web::shell::{ApiCall, Mark, Section};
use serde::Deserialize;

use super::form::{Posted, Wrong};
use super::frame::{Frame, encoded, sentence};
use super::operations::work;
use crate::app::App;
use crate::auth::{Caller, Right, Role, TokenScope, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::images::{ReferenceRow, ReferenceValue};
use crate::inventory::operations::{Filter, Operation, OperationState};
use crate::service::images::{self, Image, Upload, Wanted};
use crate::service::{Page, operations};

/// Rows on one page.
const ROWS: u32 = 100;
/// How long a pull that failed or was cancelled stays on the page.
const ENDED_SHOWN_MS: i64 = 15 * 60 * 1000;
/// How long one that succeeded does.
const DONE_SHOWN_MS: i64 = 20 * 1000;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    let act = Access::Member(TokenScope::Operate);
    routes
        .page(read, Method::GET, "/images", list)
        .form(act, "/images/pull", FormFields::once(&["reference"]), pull)
        .page_upload(act, "/images/import", FormFields::once(&["archive"]), import)
}

#[derive(Debug, Default, Deserialize)]
struct ListQuery {
    #[serde(default)]
    q: String,
    after: Option<String>,
}

/// What the list shows besides what there is.
#[derive(Default)]
struct Shown {
    query: ListQuery,
    posted: Posted,
    wrong: Wrong,
    error: String,
    import_error: String,
}

async fn list(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let shown = Shown { query, ..Shown::default() };
    show(&app, &frame, &caller, StatusCode::OK, shown).await
}

async fn pull(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    match images::pull(&app, &caller, posted.text("reference"), None).await {
        Ok(_) => frame.on("/images"),
        Err(error) => {
            let (status, wrong, error) = frame.refusal(error)?;
            let shown = Shown { posted, wrong, error, ..Shown::default() };
            show(&app, &frame, &caller, status, shown).await
        }
    }
}

async fn import(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response> {
    let result = match form {
        Ok(form) => receive(&app, &caller, form).await,
        Err(error) => Err(Error::invalid("request.malformed", error.body_text())),
    };
    match result {
        Ok(_) => frame.done("/images", "The archive is here; its layers are being unpacked."),
        Err(error) => {
            let (status, wrong, error) = frame.refusal(error)?;
            let import_error = if error.is_empty() { sentence(&wrong.rest()) } else { error };
            let shown = Shown { import_error, ..Shown::default() };
            show(&app, &frame, &caller, status, shown).await
        }
    }
}

async fn receive(app: &App, caller: &Caller, mut form: Multipart) -> Result<Operation> {
    let broken = |error: axum::extract::multipart::MultipartError| {
        Error::invalid("request.malformed", error.body_text())
    };
    if let Some(field) = form.next_field().await.map_err(broken)? {
        match field.name() {
            Some("archive") => {
                return images::import(app, caller, Upload { bytes: field, reference: None }).await;
            }
            other => {
                let pointer = format!("/{}", other.unwrap_or_default());
                return Err(Error::field(pointer, "this form has no such field"));
            }
        }
    }
    Err(Error::field("/archive", "choose an archive first"))
}

async fn show(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    status: StatusCode,
    mut shown: Shown,
) -> Result<Response> {
    let after = shown.query.after.as_deref().and_then(|after| app.keys.unseal(after));
    let text = shown.query.q.trim().to_owned();
    let first = text.is_empty() && after.is_none();
    let wanted = read(&text, caller);
    let api = api_query(&wanted);
    let listed = images::list(app, caller, wanted, &Page { limit: ROWS, after }).await?;
    let next = listed.next.map(|next| app.keys.seal(&next)).transpose()?;
    let pulls = pulls(app, caller).await?;
    let mut shell = frame.shell("Images", Section::Images);
    let going = pulls.iter().any(|pull| pull.cancel.is_some());
    shell.path = "/images".to_owned();
    shell.live_secs = Some(if going { 1 } else { 5 });
    shell.mark = if going { Mark::Running } else { Mark::Idle };
    shell.calls = vec![
        ApiCall::get("List images", format!("/api/v1/images{api}")),
        ApiCall::send(
            "Pull one",
            "POST",
            "/api/v1/images/pull",
            Some("{\"reference\": \"alpine:3.22\"}".to_owned()),
        ),
        ApiCall::get("Look at pulls", "/api/v1/operations?kind=image.pull"),
    ];
    let wrong = match shown.wrong.take("/reference") {
        text if text.is_empty() => shown.error,
        text => sentence(&text),
    };
    let view = ListPage {
        shell,
        reference: Field { value: shown.posted.text("reference").to_owned(), error: wrong },
        import_error: shown.import_error,
        import_limit: bytes(app.config.images.import_bytes_max),
        scopes: scopes(&text),
        oversees: caller.sees() == Visibility::Everyone,
        first_use: first && listed.items.is_empty(),
        pulls,
        rows: listed.items.iter().map(|image| row(caller, image)).collect(),
        next: next.map(|next| format!("/images?q={}&after={}", encoded(&text), encoded(&next))),
        query: shown.query.q,
    };
    frame.page_with(status, &view)
}

/// A filter as typed: words, and `owner:` with `me`, `system` or a name.
fn read(text: &str, caller: &Caller) -> Wanted {
    let (mut wanted, mut words) = (Wanted::default(), Vec::new());
    for word in text.split_whitespace() {
        match word.split_once(':') {
            Some(("owner", "me")) => wanted.owner = Some(caller.principal),
            Some(("owner", "system")) => wanted.owner = Some(PrincipalId::SYSTEM),
            Some(("owner", name)) => wanted.owner_name = Some(name.to_owned()),
            _ => words.push(word),
        }
    }
    wanted.reference = Some(words.join(" ")).filter(|words| !words.is_empty());
    wanted
}

/// The same filter for the API.
fn api_query(wanted: &Wanted) -> String {
    let owner = wanted.owner.map(|PrincipalId(id)| id.to_string());
    let pairs = [
        ("reference", wanted.reference.as_ref()),
        ("owner", owner.as_ref()),
        ("owner_name", wanted.owner_name.as_ref()),
    ];
    let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let pairs: Vec<_> = pairs.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn scopes(now: &str) -> Vec<Scope> {
    let all = [
        ("All", "", "/images"),
        ("Mine", "owner:me", "/images?q=owner%3Ame"),
        ("The system\u{2019}s", "owner:system", "/images?q=owner%3Asystem"),
    ];
    all.into_iter()
        .map(|(label, q, path)| Scope { label, count: None, path: path.into(), current: q == now })
        .collect()
}

fn row(caller: &Caller, image: &Image) -> Row {
    let (row, share) = (&image.row, &image.share);
    let now = Time::now().0;
    let tags = image.references.iter().filter(|name| is_tag(name)).skip(1);
    let tags: Vec<String> = tags.map(ToString::to_string).collect();
    let system = row.owner == PrincipalId::SYSTEM;
    Row {
        id: row.id.clone(),
        name: name_of(image),
        also: match (image.whole, tags.is_empty()) {
            (false, _) => {
                "its layers are not on this machine, or damaged: pull or import it again".to_owned()
            }
            (true, true) => String::new(),
            (true, false) => format!("also {}", tags.join(", ")),
        },
        digest: row.manifest.as_str().to_owned(),
        system,
        shared_by: match is_shared(caller, image) {
            true => share.owner_name.clone().unwrap_or_default(),
            false => String::new(),
        },
        owner: share.owner_name.clone().unwrap_or_else(|| "system".to_owned()),
        unique: bytes(share.unique_bytes),
        shared: Some(share.shared_bytes).filter(|bytes| *bytes > 0).map(bytes).unwrap_or_default(),
        used_by: used_by(share.containers),
        used: share.last_used_at.map(|at| Moment::new(at.0, now)),
        pulled: Some(Moment::new(row.created_at.0, now)),
        launch: launch_path(caller, image),
        more: acts(caller, image),
    }
}

fn used_by(containers: u64) -> String {
    match containers {
        0 => String::new(),
        1 => "1 container".to_owned(),
        more => format!("{} containers", count(more)),
    }
}

pub(super) fn is_tag(name: &ReferenceRow) -> bool {
    matches!(name.value, ReferenceValue::Tag(_))
}

/// Whether it is somebody else's that was shared with the caller.
pub(super) fn is_shared(caller: &Caller, image: &Image) -> bool {
    let own = [caller.principal, PrincipalId::SYSTEM].contains(&image.row.owner);
    !own && image.rights.has(Right::Files)
}

pub(super) fn launch_path(caller: &Caller, image: &Image) -> Option<String> {
    let acts = matches!(caller.role, Role::Operator | Role::User);
    // Somebody else's names are theirs: a launch finds it by its id.
    let name = if is_shared(caller, image) { image.row.id.clone() } else { image.name() };
    (acts && image.rights.has(Right::Files)).then(|| format!("/launch?image={}", encoded(&name)))
}

/// Whether the caller may name and remove an image.
pub(super) fn may_change(caller: &Caller, image: &Image) -> bool {
    image.row.owner == caller.principal
        || (caller.changes() == Visibility::Everyone && caller.role != Role::Auditor)
}

pub(super) fn acts(caller: &Caller, image: &Image) -> Vec<Act> {
    if !may_change(caller, image) {
        return Vec::new();
    }
    let path = format!("/images/{}/remove", image.row.id);
    vec![Act { label: "Remove\u{2026}", icon: "remove", path, asks: true, danger: true }]
}

/// The caller's own pulls and imports that go on or have just ended.
async fn pulls(app: &App, caller: &Caller) -> Result<Vec<Work>> {
    let page = Page { limit: 30, after: None };
    let listed = operations::list(app, caller, Filter::default(), &page).await?;
    let now = Time::now().0;
    let shown = listed.items.into_iter().filter(|operation| {
        let age = operation.ended_at.map_or(0, |at| now - at.0);
        let recent = match operation.state {
            OperationState::Running => true,
            OperationState::Succeeded => age < DONE_SHOWN_MS,
            _ => age < ENDED_SHOWN_MS,
        };
        recent && operation.owner == caller.principal && operation.kind.starts_with("image.")
    });
    Ok(shown.map(|operation| work(&operation, caller)).collect())
}

/// What an image is called first: a tag, else a digest that it was pulled by.
pub(super) fn name_of(image: &Image) -> String {
    match image.references.first() {
        None => format!("no name {}", short(&image.row.id)),
        Some(ReferenceRow { name, value: ReferenceValue::Digest(digest) }) => {
            format!("{name}@{}", short(digest.as_str()))
        }
        Some(tagged) => tagged.to_string(),
    }
}
