//! The page of one image: config, layers, history, names, what holds it; and what is done to it.

use axum::extract::{Path, Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::id::PrincipalId;
use berth_runtime::wire::Compression;
use berth_web::containers::ConfirmPage;
use berth_web::format::{Moment, bytes, short};
use berth_web::images::{DetailPage, HistoryRow, LayerRow, Link, NameRow};
use berth_web::parts::{Fact, Field};
use berth_web::shell::{ApiCall, Section};
use serde::Deserialize;

use super::form::{Posted, join_words};
use super::frame::{Frame, encoded, sentence};
use super::images::{acts, is_shared, is_tag, launch_path, may_change, name_of};
use crate::app::App;
use crate::auth::{Caller, Right, Role, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::image_shares::Holder;
use crate::inventory::images::ReferenceRow;
use crate::service::edits::Expected;
use crate::service::images::{self, Inspected};

/// Holders that a sentence names.
const NAMED_MAX: usize = 5;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let act = Access::Member(TokenScope::Operate);
    routes
        .page(Access::SignedIn(TokenScope::Read), Method::GET, "/images/{id}", detail)
        .form(act, "/images/{id}/tag", FormFields::once(&["reference"]), tag)
        .form(act, "/images/{id}/keep", FormFields::once(&["reference"]), keep)
        .page(act, Method::GET, "/images/{id}/untag", ask_untag)
        .form(act, "/images/{id}/untag", FormFields::once(&["reference"]), untag)
        .page(act, Method::GET, "/images/{id}/remove", ask_remove)
        .form(act, "/images/{id}/remove", FormFields::once(&[]), remove)
}

async fn detail(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    show(&app, &frame, &caller, (&id, StatusCode::OK), Field::default()).await
}

async fn show(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (id, status): (&str, StatusCode),
    named: Field,
) -> Result<Response> {
    let found = images::inspect(app, caller, id).await?;
    let image = &found.image;
    let name = name_of(image);
    let changes = may_change(caller, image);
    let path = format!("/api/v1/images/{id}");
    let mut shell = frame.shell(name.clone(), Section::Images);
    // What uses it comes and goes.
    shell.live_secs = Some(5);
    shell.calls = vec![
        ApiCall::get("Show this image", path.clone()),
        ApiCall::get("Download it", format!("{path}/export")),
    ];
    if changes {
        let body = "{\"reference\": \"lab/tool:v2\"}".to_owned();
        shell.calls.push(ApiCall::send("Name it", "POST", format!("{path}/tags"), Some(body)));
        shell.calls.push(ApiCall::send("Remove it", "DELETE", path.clone(), None));
    }
    let system = image.row.owner == PrincipalId::SYSTEM;
    let content = image.rights.has(Right::Files);
    let sees_shares = !system && image.rights.has(Right::SeeShares);
    if sees_shares {
        shell.calls.push(ApiCall::get("With whom it is shared", format!("{path}/grants")));
    }
    let keeps = is_shared(caller, image) && caller.role != Role::Auditor;
    let owner = image.share.owner_name.clone().unwrap_or_default();
    let view = DetailPage {
        shell,
        id: id.to_owned(),
        name,
        system,
        owner: if image.row.owner == caller.principal { String::new() } else { owner },
        launch: launch_path(caller, image),
        sharing: sees_shares.then(|| format!("/images/{id}/sharing")),
        keep: keeps.then(|| named.clone()),
        download: content.then(|| format!("{path}/export")),
        download_size: bytes(image.row.compressed_bytes),
        acts: acts(caller, image),
        facts: facts(&found),
        config: config(&found),
        content,
        env: found.config.config.env.clone(),
        names: image.references.iter().map(|name| name_row(id, name, changes)).collect(),
        tag: changes.then_some(named),
        containers: found.containers.iter().map(|holder| link("containers", holder)).collect(),
        images: found.images.iter().map(|holder| link("images", holder)).collect(),
        layers: found.layers.iter().map(layer_row).collect(),
        history: history(&found),
    };
    frame.page_with(status, &view)
}

fn link(place: &str, holder: &Holder) -> Link {
    let label = match holder.name.as_str() {
        "" => format!("image {}", short(&holder.id)),
        name => name.to_owned(),
    };
    Link { label, path: format!("/{place}/{}", encoded(&holder.id)) }
}

fn name_row(id: &str, name: &ReferenceRow, changes: bool) -> NameRow {
    let text = name.to_string();
    let path = || format!("/images/{id}/untag?reference={}", encoded(&text));
    NameRow { untag: (changes && is_tag(name)).then(path), name: text }
}

fn history(found: &Inspected) -> Vec<HistoryRow> {
    let steps = found.config.history.iter();
    let row = |step: &crate::registry::manifest::History| HistoryRow {
        created_by: step.created_by.clone().unwrap_or_default(),
        empty: step.empty_layer,
    };
    steps.map(row).collect()
}

fn layer_row(layer: &images::Layer) -> LayerRow {
    let row = &layer.row;
    LayerRow {
        digest: row.blob.as_str().to_owned(),
        size: bytes(row.unpacked_bytes),
        media_type: match row.compression {
            Compression::None => "tar".to_owned(),
            Compression::Gzip => format!("gzip, {}", bytes(row.compressed_bytes)),
            Compression::Zstd => format!("zstd, {}", bytes(row.compressed_bytes)),
        },
        shared_with: layer.shared_with.first().map(|holder| link("images", holder)),
        more: layer.shared_with.len().saturating_sub(1),
    }
}

fn facts(found: &Inspected) -> Vec<Fact> {
    let (row, share) = (&found.image.row, &found.image.share);
    let now = Time::now().0;
    let arrived = Moment::new(row.created_at.0, now);
    let digest = row.manifest.as_str();
    let mut facts = vec![
        Fact::copy("Manifest", short(digest), digest),
        Fact::copy("Id", short(&row.id), row.id.clone()),
        Fact::text("Size", bytes(row.unpacked_bytes)),
        Fact::text("Its alone", bytes(share.unique_bytes))
            .with_exact("what no other image of its owner has: it goes with it"),
        Fact::text("Shared", bytes(share.shared_bytes))
            .with_exact("what other images of its owner have too"),
        Fact::text("As stored", bytes(row.compressed_bytes)),
        Fact::text("Platform", row.platform.clone()),
        Fact::text("Came by", row.source.clone()),
        Fact::text("Here since", arrived.words).with_exact(arrived.exact),
    ];
    facts.push(match share.last_used_at.map(|at| Moment::new(at.0, now)) {
        Some(used) => Fact::text("Last use", used.words).with_exact(used.exact),
        None => Fact::text("Last use", "never"),
    });
    if let Some(damage) = &found.damage {
        facts.insert(0, Fact::text("Damaged", sentence(damage)));
    }
    let made = [("Made", &found.config.created), ("Author", &found.config.author)];
    let made = made.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?)));
    facts.extend(made.map(|(key, text)| Fact::text(key, text.clone())));
    facts
}

/// How a container of it runs, as far as the image says and the caller may know.
fn config(found: &Inspected) -> Vec<Fact> {
    let run = &found.config.config;
    let list =
        |names: Vec<&String>| names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let labels: Vec<String> =
        run.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let lines = [
        ("Entrypoint", join_words(&run.entrypoint)),
        ("Command", join_words(&run.cmd)),
        ("Working directory", run.working_dir.clone()),
        ("User", run.user.clone()),
        ("Stop signal", run.stop_signal.clone()),
        ("Ports", list(run.exposed_ports.keys().collect())),
        ("Volumes", list(run.volumes.keys().collect())),
        ("Labels", labels.join(", ")),
    ];
    let set = lines.into_iter().filter(|(_, text)| !text.is_empty());
    set.map(|(key, text)| Fact::code(key, text)).collect()
}

async fn tag(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response> {
    let reference = posted.text("reference");
    match images::tag(&app, &caller, &id, reference, &Expected::default()).await {
        Ok(_) => frame.done(&format!("/images/{id}"), "The image has one more name."),
        Err(error) => {
            let (status, mut wrong, text) = frame.refusal(error)?;
            let error = match wrong.take("/reference") {
                said if said.is_empty() => text,
                said => sentence(&said),
            };
            let field = Field { value: reference.to_owned(), error };
            show(&app, &frame, &caller, (&id, status), field).await
        }
    }
}

async fn keep(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response> {
    let reference = posted.text("reference");
    match images::keep(&app, &caller, &id, Some(reference)).await {
        Ok(kept) => {
            frame.done(&format!("/images/{}", kept.row.id), "This is an image of yours now.")
        }
        Err(error @ Error::NotFound(_)) => Err(error),
        Err(error) => {
            let (status, mut wrong, text) = frame.refusal(error)?;
            let error = match wrong.take("/reference") {
                said if said.is_empty() => text,
                said => sentence(&said),
            };
            let field = Field { value: reference.to_owned(), error };
            show(&app, &frame, &caller, (&id, status), field).await
        }
    }
}

/// Which name is taken away.
#[derive(Debug, Deserialize)]
struct Named {
    #[serde(default)]
    reference: String,
}

async fn ask_untag(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    Query(Named { reference }): Query<Named>,
) -> Result<Response> {
    let found = images::inspect(&app, &caller, &id).await?;
    let others = found.image.references.iter().filter(|name| name.to_string() != reference);
    let others: Vec<String> = others.map(ToString::to_string).collect();
    let stays = match others.first() {
        Some(first) if others.len() == 1 => format!("The image stays as {first}."),
        Some(first) => format!("The image stays as {first} and {} more.", others.len() - 1),
        None => format!("The image stays without a name, found by its id {}.", short(&id)),
    };
    let page = ConfirmPage {
        shell: frame.shell("Take a name away", Section::Images),
        question: format!("Take the name {reference} away?"),
        losses: vec![
            stays,
            "Containers that were launched by this name keep running; a new launch by it pulls \
             it anew or fails."
                .to_owned(),
        ],
        verb: "Take it away",
        path: format!("/images/{id}/untag"),
        hidden: vec![("reference".to_owned(), reference)],
        back: format!("/images/{id}"),
        ..ConfirmPage::default()
    };
    frame.page(&page)
}

async fn untag(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    posted: Posted,
) -> Result<Response> {
    let name = posted.text("reference");
    let result = images::untag(&app, &caller, &id, name, &Expected::default()).await;
    frame.outcome(result, &format!("/images/{id}"), "The name is taken away.")
}

async fn ask_remove(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let found = images::inspect(&app, &caller, &id).await?;
    let name = name_of(&found.image);
    let page = ConfirmPage {
        shell: frame.shell(format!("Remove {name}"), Section::Images),
        question: format!("Remove {name}?"),
        losses: losses(&found),
        verb: "Remove it",
        path: format!("/images/{id}/remove"),
        hidden: Vec::new(),
        back: "/images".to_owned(),
        ..ConfirmPage::default()
    };
    frame.page(&page)
}

/// What is lost when an image goes, and what is not.
fn losses(found: &Inspected) -> Vec<String> {
    let (row, share) = (&found.image.row, &found.image.share);
    let mut losses = Vec::new();
    if !found.containers.is_empty() {
        losses.push(format!(
            "It cannot go while containers use it: {}. Remove those first.",
            named(&found.containers)
        ));
    }
    losses.push(match (share.unique_bytes, share.shared_bytes) {
        (unique, 0) => format!("{} go with it.", bytes(unique)),
        (unique, shared) => format!(
            "{} that only it has go with it; {} stay with {}.",
            bytes(unique),
            bytes(shared),
            named(&found.images)
        ),
    });
    if found.image.references.len() > 1 {
        let names: Vec<String> = found.image.references.iter().map(ToString::to_string).collect();
        losses.push(format!("All its names go with it: {}.", names.join(", ")));
    }
    losses.push(match row.source.as_str() {
        "import" => "It came from an archive: without that, or a download, it is lost.".to_owned(),
        _ => "It can be pulled again, as long as its registry has it.".to_owned(),
    });
    losses
}

fn named(holders: &[Holder]) -> String {
    let names = holders.iter().take(NAMED_MAX).map(|holder| link("", holder).label);
    let names = names.collect::<Vec<_>>().join(", ");
    match holders.len().saturating_sub(NAMED_MAX) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
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
