//! The pages of images: the list with pulls under way, one image, pull, import, remove.

use axum::Form;
use axum::extract::multipart::MultipartRejection;
use axum::extract::{Multipart, Path, Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::id::PrincipalId;
use berth_runtime::wire::Compression;
use berth_web::containers::ConfirmPage;
use berth_web::format::{Moment, bytes, bytes_of, percent, short};
use berth_web::images::{DetailPage, HistoryRow, LayerRow, ListPage, Pull, PullLayer, Row};
use berth_web::parts::{Act, Badge, Fact, Field};
use berth_web::shell::{ApiCall, Mark, Section, Tone};
use serde::Deserialize;
use serde_json::Value;

use super::entry::refusal;
use super::form::{Posted, Wrong, join_words};
use super::frame::{Frame, encoded, sentence};
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, Routes};
use crate::inventory::images::{ReferenceRow, ReferenceValue};
use crate::inventory::operations::{Filter, Operation, OperationState};
use crate::service::edits::Expected;
use crate::service::images::{self, Image, Inspected, Upload};
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
        .page(act, Method::POST, "/images/pull", pull)
        .page_upload(act, Method::POST, "/images/import", import)
        .page(read, Method::GET, "/images/{id}", detail)
        .page(act, Method::GET, "/images/{id}/remove", ask_remove)
        .page(act, Method::POST, "/images/{id}/remove", remove)
        .page(act, Method::POST, "/operations/{id}/cancel", cancel)
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
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response> {
    let posted = Posted::new(pairs);
    match images::pull(&app, &caller, posted.text("reference"), None).await {
        Ok(_) => frame.on("/images"),
        Err(error) => {
            let (status, wrong, error) = refusal(error)?;
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
            let (status, wrong, error) = refusal(error)?;
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
    while let Some(field) = form.next_field().await.map_err(broken)? {
        if field.name() == Some("archive") {
            return images::import(app, caller, Upload { bytes: field, reference: None }).await;
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
    let words = Some(shown.query.q.trim().to_owned()).filter(|words| !words.is_empty());
    let first_use = words.is_none() && after.is_none();
    let listed = images::list(app, caller, words, &Page { limit: ROWS, after }).await?;
    let next = listed.next.map(|next| app.keys.seal(&next)).transpose()?;
    let pulls = pulls(app, caller).await?;
    let mut shell = frame.shell("Images", Section::Images);
    let going = pulls.iter().any(|pull| pull.cancel.is_some());
    shell.path = "/images".to_owned();
    shell.live_secs = Some(if going { 1 } else { 5 });
    shell.mark = if going { Mark::Running } else { Mark::Idle };
    shell.calls = vec![
        ApiCall::get("List images", "/api/v1/images"),
        ApiCall::send(
            "Pull an image",
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
        first_use: first_use && listed.items.is_empty(),
        pulls,
        rows: listed.items.iter().flat_map(|image| rows(caller, image)).collect(),
        next: next
            .map(|next| format!("/images?q={}&after={}", encoded(&shown.query.q), encoded(&next))),
        query: shown.query.q,
    };
    frame.page_with(status, &view)
}

/// A row for each name; an image without one has a row too.
fn rows(caller: &Caller, image: &Image) -> Vec<Row> {
    match image.references.as_slice() {
        [] => vec![row(caller, image, None)],
        names => names.iter().map(|name| row(caller, image, Some(name))).collect(),
    }
}

fn row(caller: &Caller, image: &Image, name: Option<&ReferenceRow>) -> Row {
    let row = &image.row;
    let acts = acts(caller, image);
    Row {
        id: row.id.clone(),
        repository: name.map_or_else(|| "(no name)".to_owned(), |name| name.name.clone()),
        tag: match name.map(|name| &name.value) {
            Some(ReferenceValue::Tag(tag)) => tag.clone(),
            Some(ReferenceValue::Digest(digest)) => short(digest.as_str()).to_owned(),
            None => String::new(),
        },
        digest: row.manifest.as_str().to_owned(),
        system: row.owner == PrincipalId::SYSTEM,
        owner: None,
        size: bytes(row.unpacked_bytes),
        platform: row.platform.clone(),
        pulled: Some(Moment::new(row.created_at.0, Time::now().0)),
        launch: launch_path(caller, image, name),
        more: acts,
    }
}

fn is_usable(caller: &Caller, image: &Image) -> bool {
    image.row.owner == caller.principal || image.row.owner == PrincipalId::SYSTEM
}

fn launch_path(caller: &Caller, image: &Image, name: Option<&ReferenceRow>) -> Option<String> {
    let acts = matches!(caller.role, Role::Operator | Role::User);
    let name = name.map_or_else(|| image.row.id.clone(), ReferenceRow::to_string);
    (acts && is_usable(caller, image)).then(|| format!("/launch?image={}", encoded(&name)))
}

fn acts(caller: &Caller, image: &Image) -> Vec<Act> {
    if image.row.owner != caller.principal {
        return Vec::new();
    }
    let path = format!("/images/{}/remove", image.row.id);
    vec![Act { label: "Remove…", icon: "remove", path, asks: true, danger: true }]
}

/// The caller's own pulls and imports that go on or have just ended.
async fn pulls(app: &App, caller: &Caller) -> Result<Vec<Pull>> {
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
    Ok(shown.map(|operation| pull_view(&operation)).collect())
}

fn pull_view(operation: &Operation) -> Pull {
    let progress = &operation.progress;
    let (done, total) = (number(progress, "downloaded_bytes"), number(progress, "total_bytes"));
    let empty = Vec::new();
    let layers = progress.get("layers").and_then(Value::as_array).unwrap_or(&empty);
    let verb = if operation.kind == "image.import" { "importing" } else { "pulling" };
    let ready = layers.iter().filter(|layer| is_ready(layer)).count();
    let failure = operation.failure.as_ref().and_then(|failure| failure.get("message"));
    let (tone, icon, word, reason) = match operation.state {
        OperationState::Running if layers.is_empty() => {
            (Tone::Busy, "busy", verb, "looking what there is".to_owned())
        }
        OperationState::Running => {
            (Tone::Busy, "busy", verb, format!("{ready} of {} layers here", layers.len()))
        }
        OperationState::Succeeded => (Tone::Good, "check", "here", String::new()),
        OperationState::Cancelled => (Tone::Neutral, "cancel", "cancelled", String::new()),
        OperationState::Interrupted => (
            Tone::Attention,
            "attention",
            "interrupted",
            "the server stopped; try again".to_owned(),
        ),
        OperationState::Failed => (
            Tone::Bad,
            "failed",
            "failed",
            failure.and_then(Value::as_str).unwrap_or("for no known reason").to_owned(),
        ),
    };
    let finished = operation.state == OperationState::Succeeded;
    Pull {
        id: operation.id.clone(),
        reference: operation.subject.clone(),
        state: Badge { tone, icon, word: word.to_owned(), reason },
        text: if total > 0 { bytes_of(done, total) } else { String::new() },
        percent: if finished { 100 } else { percent(done, total) },
        layers: layers.iter().map(layer_view).collect(),
        cancel: (operation.state == OperationState::Running)
            .then(|| format!("/operations/{}/cancel", operation.id)),
    }
}

fn layer_view(layer: &Value) -> PullLayer {
    let text = |key| layer.get(key).and_then(Value::as_str).unwrap_or("");
    let (done, total) = (number(layer, "downloaded_bytes"), number(layer, "total_bytes"));
    let ready = is_ready(layer);
    PullLayer {
        digest: short(text("digest")).to_owned(),
        phase: match text("state") {
            "present" => "was here".to_owned(),
            "done" => "here".to_owned(),
            state => state.to_owned(),
        },
        text: if ready { bytes(total) } else { bytes_of(done, total) },
        percent: if ready { 100 } else { percent(done, total) },
        done: ready,
    }
}

fn is_ready(layer: &Value) -> bool {
    matches!(layer.get("state").and_then(Value::as_str), Some("done" | "present"))
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

async fn detail(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let found = images::inspect(&app, &caller, &id).await?;
    let name = name_of(&found.image);
    let mut shell = frame.shell(name.clone(), Section::Images);
    shell.calls = vec![ApiCall::get("Show this image", format!("/api/v1/images/{id}"))];
    let view = DetailPage {
        shell,
        reference: name,
        launch: launch_path(&caller, &found.image, found.image.references.first()),
        acts: acts(&caller, &found.image),
        facts: facts(&found),
        env: found.config.config.env.clone(),
        layers: found.layers.iter().map(layer_row).collect(),
        history: found
            .config
            .history
            .iter()
            .map(|step| HistoryRow {
                created_by: step.created_by.clone().unwrap_or_default(),
                empty: step.empty_layer,
            })
            .collect(),
    };
    frame.page(&view)
}

fn layer_row(layer: &images::Layer) -> LayerRow {
    let layer = &layer.row;
    LayerRow {
        digest: layer.blob.as_str().to_owned(),
        size: bytes(layer.unpacked_bytes),
        media_type: match layer.compression {
            Compression::None => "tar".to_owned(),
            Compression::Gzip => format!("gzip, {}", bytes(layer.compressed_bytes)),
            Compression::Zstd => format!("zstd, {}", bytes(layer.compressed_bytes)),
        },
    }
}

fn facts(found: &Inspected) -> Vec<Fact> {
    let row = &found.image.row;
    let run = &found.config.config;
    let arrived = Moment::new(row.created_at.0, Time::now().0);
    let digest = row.manifest.as_str();
    let mut facts = vec![
        Fact::copy("Manifest", short(digest), digest),
        Fact::copy("Id", short(&row.id), row.id.clone()),
        Fact::text("Size", bytes(row.unpacked_bytes)),
        Fact::text("As stored", bytes(row.compressed_bytes)),
        Fact::text("Platform", row.platform.clone()),
        Fact::text("Came by", row.source.clone()),
        Fact::text("Here since", arrived.words).with_exact(arrived.exact),
    ];
    let names = found.image.references.iter().map(|name| Fact::code("Name", name.to_string()));
    facts.extend(names);
    for (key, words) in [("Entrypoint", &run.entrypoint), ("Command", &run.cmd)] {
        if !words.is_empty() {
            facts.push(Fact::code(key, join_words(words)));
        }
    }
    for (key, text) in [("Working directory", &run.working_dir), ("User", &run.user)] {
        if !text.is_empty() {
            facts.push(Fact::code(key, text.clone()));
        }
    }
    facts
}

fn name_of(image: &Image) -> String {
    image.references.first().map_or_else(|| short(&image.row.id).to_owned(), ToString::to_string)
}

async fn ask_remove(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let found = images::inspect(&app, &caller, &id).await?;
    let name = name_of(&found.image);
    let mut losses =
        vec!["You can pull it again; containers that use it keep it from going.".to_owned()];
    if found.image.references.len() > 1 {
        let names: Vec<String> = found.image.references.iter().map(ToString::to_string).collect();
        losses.push(format!("All its names go with it: {}.", names.join(", ")));
    }
    let page = ConfirmPage {
        shell: frame.shell(format!("Remove {name}"), Section::Images),
        question: format!("Remove {name}?"),
        losses,
        verb: "Remove it",
        path: format!("/images/{id}/remove"),
        hidden: Vec::new(),
        back: "/images".to_owned(),
    };
    frame.page(&page)
}

async fn remove(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let result = images::remove(&app, &caller, &id, &Expected::default()).await;
    frame.outcome(result, "/images", "The image is removed.")
}

async fn cancel(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let result = operations::cancel(&app, &caller, &id).await;
    frame.outcome(result, "/images", "Cancelling.")
}
