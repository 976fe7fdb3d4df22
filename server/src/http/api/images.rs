//! `/api/v1/images`: pull, import, export, list, inspect, tag, remove.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use berth_runtime::digest::Digest;
use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::{Right, TokenScope};
use crate::clock::Time;
use crate::error::Result;
use crate::http::extract::{Caller, Create, Items, JsonBody, PageParams, Path, Query, page};
use crate::http::precondition::{Precondition, Tagged};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::http::stream;
use crate::inventory::image_shares::Holder;
use crate::inventory::images::ReferenceValue;
use crate::inventory::operations::Operation;
use crate::service::images::{self, Image, Inspected, Layer, Upload};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    routes
        .add(Access::SignedIn(TokenScope::Read), routes!(list))
        .add(Access::SignedIn(TokenScope::Read), routes!(show))
        .add(Access::SignedIn(TokenScope::Read), routes!(export))
        .add(Access::Member(TokenScope::Operate), routes!(remove))
        .add(Access::Member(TokenScope::Operate), routes!(pull))
        .add(Access::Member(TokenScope::Operate), routes!(tag, untag))
        .add(Access::Member(TokenScope::Operate), routes!(keep))
        .upload(Access::Member(TokenScope::Operate), routes!(import))
}

/// An image.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Image)]
struct ImageView {
    /// 32 hexadecimal digits.
    id: String,
    /// Whose; 1 is the system, whose images everyone may use.
    owner: u32,
    /// Their name; null for the system's.
    owner_name: Option<String>,
    /// Names with a tag, such as `docker.io/library/busybox:latest`.
    tags: Vec<String>,
    /// Names with a digest by which it was pulled.
    digests: Vec<String>,
    /// The digest of its manifest.
    manifest_digest: String,
    /// The digest of its config.
    config_digest: String,
    /// Such as `linux/amd64`.
    platform: String,
    /// Its layers as stored.
    compressed_bytes: u64,
    /// Its layers as unpacked.
    unpacked_bytes: u64,
    /// Bytes of layers, each counted once and as unpacked, that no other image of its owner has:
    /// what its removal frees at most. Of one that is somebody else’s and shared with one, all of it.
    unique_bytes: u64,
    /// Bytes of layers that other images of its owner have too; 0 of one that is shared with one.
    shared_bytes: u64,
    /// Containers that use it, of those that one sees.
    containers: u64,
    /// When one of those was last started.
    last_used_at: Option<Time>,
    /// `pull` or `import`.
    source: String,
    /// When it came here.
    created_at: Time,
    /// Whether all its layers are on this machine, and none was found to be damaged (`/api/v1/layers`). If not, as
    /// after a backup without images was restored,
    /// it has to be pulled or imported again before anything starts from it.
    whole: bool,
    /// What the caller may do with it: `files` is to read all of it, to launch from it and to keep it.
    rights: Vec<Right>,
}

/// The bytes of an archive.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only its description is used: the body is a stream")]
struct Archive(Vec<u8>);

/// An image in detail.
#[derive(Debug, Serialize, ToSchema)]
struct ImageDetail {
    /// The image.
    image: ImageView,
    /// When it was made, as its maker says.
    made_at: Option<String>,
    /// Who made it, as its maker says.
    author: Option<String>,
    /// How a container of it runs; empty for those who may not read what is in it.
    config: ConfigView,
    /// Its layers, lowest first.
    layers: Vec<LayerView>,
    /// Which of them was found to be damaged and what to do, in a sentence; null when none was.
    damage: Option<String>,
    /// How it came to be, oldest step first; empty for those who may not read what is in it.
    history: Vec<HistoryView>,
    /// What holds it, among what its owner has and one sees.
    held_by: HeldByView,
}

/// What holds an image or its layers; at most 100 of each kind.
#[derive(Debug, Serialize, ToSchema)]
struct HeldByView {
    /// Containers that use it: while there are any, it cannot be removed.
    containers: Vec<HolderView>,
    /// Other images of its owner with a layer of it: those layers stay when it goes.
    images: Vec<HolderView>,
}

/// Something that holds an image or a layer.
#[derive(Debug, Serialize, ToSchema)]
struct HolderView {
    /// Its id.
    id: String,
    /// What it is called; null for an image without a name.
    name: Option<String>,
}

/// How a container of an image runs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImageConfig)]
struct ConfigView {
    /// The program and its first arguments.
    entrypoint: Vec<String>,
    /// Arguments, or the program.
    command: Vec<String>,
    /// `NAME=value` each.
    env: Vec<String>,
    /// Where it starts.
    working_dir: String,
    /// `user[:group]`.
    user: String,
    /// The signal that asks it to end.
    stop_signal: String,
    /// Labels.
    labels: std::collections::BTreeMap<String, String>,
    /// Ports that it says it listens on.
    exposed_ports: Vec<String>,
    /// Paths that it says are volumes.
    volumes: Vec<String>,
}

/// A layer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImageLayer)]
struct LayerView {
    /// The digest of its bytes as stored.
    digest: String,
    /// The digest of its uncompressed bytes.
    diff_id: String,
    /// `none`, `gzip` or `zstd`.
    #[schema(value_type = String)]
    compression: berth_runtime::wire::Compression,
    /// Its size as stored.
    compressed_bytes: u64,
    /// Its files' size.
    unpacked_bytes: u64,
    /// Other images of the image's owner that have it too; at most 100.
    shared_with: Vec<HolderView>,
}

/// A step of an image's history.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImageHistory)]
struct HistoryView {
    /// When.
    created: Option<String>,
    /// By which command.
    created_by: Option<String>,
    /// A remark.
    comment: Option<String>,
    /// Whether it made no layer.
    empty_layer: bool,
}

/// Which images.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ImageQuery {
    /// Items at most, 1 to 500.
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Only those with this in a name or tag.
    reference: Option<String>,
    /// Only this person's; 1 for the system's.
    owner: Option<u32>,
    /// Only this person's, by name.
    owner_name: Option<String>,
}

/// What to pull.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PullRequest {
    /// As for `docker pull`: `busybox`, `ghcr.io/a/b:1`, `busybox@sha256:…`.
    reference: String,
}

/// How a kept image is to be called.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ImageKeep)]
struct KeepRequest {
    /// A name with a tag, such as `lab/app:v1`; none when left out.
    reference: Option<String>,
}

/// A name for an image.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TagRequest {
    /// A name with a tag, such as `lab/app:v1`.
    reference: String,
}

/// Which name is taken away.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct UntagQuery {
    /// The name with its tag.
    reference: String,
}

/// How an upload is called.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ImportQuery {
    /// A name with a tag, over what the archive says.
    reference: Option<String>,
}

/// Lists images, newest first: one's own, the system's, and those shared with one.
#[utoipa::path(get, path = "/api/v1/images", tag = "images", params(ImageQuery),
    responses((status = 200, body = Items<ImageView>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ImageQuery>,
) -> Result<Json<Items<ImageView>>> {
    let page = page(&app, &PageParams { limit: query.limit, after: query.after })?;
    let wanted = images::Wanted {
        reference: query.reference,
        owner: query.owner.map(PrincipalId),
        owner_name: query.owner_name,
    };
    let listed = images::list(&app, &caller, wanted, &page).await?;
    Ok(Json(Items::seal(&app, listed)?))
}

/// Shows an image: config, layers, history.
#[utoipa::path(get, path = "/api/v1/images/{id}", tag = "images",
    params(("id" = String, Path, description = "The image")),
    responses(
        (status = 200, body = ImageDetail, headers(("ETag" = String))),
        (status = 404, body = ProblemBody)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Tagged<ImageDetail>> {
    let image = images::inspect(&app, &caller, &id).await?;
    Ok(Tagged(images::version(&image.image.references), image.into()))
}

/// Removes an image; refused while a container uses it.
#[utoipa::path(delete, path = "/api/v1/images/{id}", tag = "images",
    params(
        ("id" = String, Path, description = "The image"),
        ("If-Match" = Option<String>, Header, description = "Only if its ETag is one of these")),
    responses(
        (status = 204), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
        (status = 412, body = ProblemBody)))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Precondition(expected): Precondition,
) -> Result<StatusCode> {
    images::remove(&app, &caller, &id, &expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Begins to pull an image. The operation's progress has `layers`, each with `digest`, `state`
/// (`waiting`, `downloading`, `unpacking`, `done`, `present`), `downloaded_bytes`, `total_bytes`;
/// its result has `image`.
#[utoipa::path(post, path = "/api/v1/images/pull", tag = "images", request_body = PullRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Begins it once")),
    responses((status = 202, body = Operation), (status = 403, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn pull(
    State(app): State<App>,
    caller: Caller,
    Create(body, key): Create<PullRequest>,
) -> Result<(StatusCode, Json<Operation>)> {
    let operation = images::pull(&app, &caller, &body.reference, key.as_ref()).await?;
    Ok((StatusCode::ACCEPTED, Json(operation)))
}

/// Gives an image one more name.
#[utoipa::path(post, path = "/api/v1/images/{id}/tags", tag = "images", request_body = TagRequest,
    params(
        ("id" = String, Path, description = "The image"),
        ("If-Match" = Option<String>, Header, description = "Only if its ETag is one of these")),
    responses(
        (status = 200, body = ImageView, headers(("ETag" = String))),
        (status = 404, body = ProblemBody), (status = 412, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn tag(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Precondition(expected): Precondition,
    JsonBody(body): JsonBody<TagRequest>,
) -> Result<Tagged<ImageView>> {
    let image = images::tag(&app, &caller, &id, &body.reference, &expected).await?;
    Ok(Tagged(images::version(&image.references), image.into()))
}

/// Keeps an image that is shared with one as an image of one’s own: it stays when it is shared no more, and all of it is
/// charged to one. A launch that names one by its id does so by itself.
#[utoipa::path(post, path = "/api/v1/images/{id}/keep", tag = "images", operation_id = "keep_image",
    request_body = KeepRequest, params(("id" = String, Path, description = "The image")),
    responses(
        (status = 200, body = ImageView, headers(("ETag" = String))),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 507, body = ProblemBody)))]
async fn keep(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<KeepRequest>,
) -> Result<Tagged<ImageView>> {
    let image = images::keep(&app, &caller, &id, body.reference.as_deref()).await?;
    Ok(Tagged(images::version(&image.references), image.into()))
}

/// Takes a name from an image.
#[utoipa::path(delete, path = "/api/v1/images/{id}/tags", tag = "images", params(
        ("id" = String, Path, description = "The image"), UntagQuery,
        ("If-Match" = Option<String>, Header, description = "Only if its ETag is one of these")),
    responses(
        (status = 204), (status = 404, body = ProblemBody), (status = 412, body = ProblemBody)))]
async fn untag(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Precondition(expected): Precondition,
    Query(query): Query<UntagQuery>,
) -> Result<StatusCode> {
    images::untag(&app, &caller, &id, &query.reference, &expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Imports the images of an archive (`docker save` or OCI layout), sent as the body. The
/// operation's result has `images`.
#[utoipa::path(post, path = "/api/v1/images/import", tag = "images", params(ImportQuery),
    request_body(content = Archive, content_type = "application/octet-stream",
        description = "The archive itself; its media type is not looked at"),
    responses((status = 202, body = Operation), (status = 413, body = ProblemBody),
        (status = 422, body = ProblemBody)))]
async fn import(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ImportQuery>,
    body: Body,
) -> Result<(StatusCode, Json<Operation>)> {
    let upload = Upload { bytes: body.into_data_stream(), reference: query.reference };
    let operation = images::import(&app, &caller, upload).await?;
    Ok((StatusCode::ACCEPTED, Json(operation)))
}

/// Downloads an image as a tar archive: an OCI image layout, named by its tags, that `docker load`
/// takes too. Images of others may be downloaded by whom they are shared with; the system's by everyone.
#[utoipa::path(get, path = "/api/v1/images/{id}/export", tag = "images",
    params(("id" = String, Path, description = "The image")),
    responses(
        (status = 200, content_type = "application/x-tar", body = Archive),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody)))]
async fn export(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let export = images::export(&app, &caller, &id).await?;
    let headers = [
        (CONTENT_TYPE, "application/x-tar".to_owned()),
        (CONTENT_LENGTH, export.bytes.to_string()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", export.file_name)),
    ];
    let body =
        Body::from_stream(stream::guarded(&app, &caller, export.right.clone(), export.read())?);
    Ok((headers, body).into_response())
}

impl From<Image> for ImageView {
    fn from(image: Image) -> Self {
        let Image { row, references, share, whole, rights } = image;
        let PrincipalId(owner) = row.owner;
        let is_tag = |value: &ReferenceValue| matches!(value, ReferenceValue::Tag(_));
        let (tags, digests): (Vec<_>, Vec<_>) =
            references.iter().partition(|reference| is_tag(&reference.value));
        let text = |digest: &Digest| digest.as_str().to_owned();
        Self {
            owner,
            tags: tags.iter().map(ToString::to_string).collect(),
            digests: digests.iter().map(ToString::to_string).collect(),
            manifest_digest: text(&row.manifest),
            config_digest: text(&row.config_digest),
            platform: row.platform,
            compressed_bytes: row.compressed_bytes,
            unpacked_bytes: row.unpacked_bytes,
            unique_bytes: share.unique_bytes,
            shared_bytes: share.shared_bytes,
            containers: share.containers,
            last_used_at: share.last_used_at,
            owner_name: share.owner_name,
            source: row.source,
            created_at: row.created_at,
            whole,
            rights: rights.list(),
            id: row.id,
        }
    }
}

impl From<Inspected> for ImageDetail {
    fn from(inspected: Inspected) -> Self {
        let Inspected { image, config, layers, damage, containers, images } = inspected;
        let run = config.config;
        Self {
            image: image.into(),
            made_at: config.created,
            author: config.author,
            config: ConfigView {
                entrypoint: run.entrypoint,
                command: run.cmd,
                env: run.env,
                working_dir: run.working_dir,
                user: run.user,
                stop_signal: run.stop_signal,
                labels: run.labels,
                exposed_ports: run.exposed_ports.into_keys().collect(),
                volumes: run.volumes.into_keys().collect(),
            },
            layers: layers.into_iter().map(Into::into).collect(),
            damage,
            history: config
                .history
                .into_iter()
                .map(|step| HistoryView {
                    created: step.created,
                    created_by: step.created_by,
                    comment: step.comment,
                    empty_layer: step.empty_layer,
                })
                .collect(),
            held_by: HeldByView { containers: holders(containers), images: holders(images) },
        }
    }
}

impl From<Layer> for LayerView {
    fn from(layer: Layer) -> Self {
        let Layer { row, shared_with } = layer;
        Self {
            digest: row.blob.as_str().to_owned(),
            diff_id: row.diff_id.as_str().to_owned(),
            compression: row.compression,
            compressed_bytes: row.compressed_bytes,
            unpacked_bytes: row.unpacked_bytes,
            shared_with: holders(shared_with),
        }
    }
}

fn holders(list: Vec<Holder>) -> Vec<HolderView> {
    let view = |holder: Holder| {
        let Holder { id, name } = holder;
        HolderView { id, name: Some(name).filter(|name| !name.is_empty()) }
    };
    list.into_iter().map(view).collect()
}
