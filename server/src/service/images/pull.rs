//! Pulls an image: resolve, verify, bring the layers, and commit the row last of all.

use std::sync::Arc;

use berth_runtime::digest::Digest;
use berth_runtime::id::PrincipalId;
use berth_runtime::wire::LayerFacts;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::charge::Charge;
use super::layers::{Source, Wanted, bring};
use super::progress::{LayerProgress, Progress, follow};
use super::store::Pinned;
use crate::app::App;
use crate::auth::Caller;
use crate::auth::keys::random_id;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::events::NewEvent;
use crate::inventory::idempotency::{self, IdempotencyKey};
use crate::inventory::images::{self, ImageRow, LayerRow, ReferenceRow, ReferenceValue};
use crate::inventory::operations::{NewOperation, Operation};
use crate::registry::manifest::{self, CONFIG_BYTES_MAX, Document, ImageConfig, ImageManifest};
use crate::registry::{ImageReference, Session};
use crate::service::{admission, maintenance, operations, registries};
use crate::timing::Phases;

/// Layers of one pull that come at once.
const LAYERS_AT_ONCE: usize = 3;
/// Pulls and imports of one person at once.
const PULLS_MAX: i64 = 8;

/// Begins a pull; answers its operation.
///
/// # Errors
/// When the reference is none, its registry is not allowed, or too much is going on.
pub async fn start(
    app: &App,
    caller: &Caller,
    reference: &str,
    key: Option<&IdempotencyKey>,
) -> Result<Operation> {
    maintenance::admit(app, caller)?;
    let reference: ImageReference = reference.parse().map_err(at_reference)?;
    // Refused now rather than in the operation: a policy is nothing to wait for.
    app.images.registry.session(&reference, None)?;
    let owner = caller.principal;
    let subject = reference.to_string();
    let id = random_id()?;
    let mut write = app.inventory.change(&caller.actor, "image.pull").await?;
    if let Some(known) = idempotency::recall(&mut write, caller, key).await? {
        return operations::find(app, caller, &known).await;
    }
    if images::operations_running(write.db(), owner).await? >= PULLS_MAX {
        return Err(Error::exhausted(
            "image.too-many-pulls",
            format!("{PULLS_MAX} pulls and imports are going on, the most at once"),
        ));
    }
    let new = NewOperation {
        id: &id,
        owner,
        kind: "image.pull",
        subject_kind: "image",
        subject: &subject,
    };
    operations::insert(write.db(), &new).await?;
    idempotency::remember(&mut write, caller, key, &id).await?;
    write.subject("image", &subject, owner);
    write.commit().await?;
    let work_app = app.clone();
    app.operations.spawn(app, id.clone(), move |handle| async move {
        let progress = Progress::new(subject);
        let done = follow(&handle, &progress, run(&work_app, owner, &reference, &progress)).await;
        work_app.images.tidy_unless(&done);
        done
    });
    operations::find(app, caller, &id).await
}

async fn run(
    app: &App,
    owner: PrincipalId,
    reference: &ImageReference,
    progress: &Progress,
) -> Result<Value> {
    let mut phases = Phases::begin("pull", reference);
    let credentials = registries::credentials(app, owner, &reference.registry).await?;
    let signed_in = credentials.is_some();
    let session = app.images.registry.session(reference, credentials)?;
    let resolved = resolve(app, &session, reference).await;
    if signed_in {
        note_login(app, owner, &reference.registry, resolved.as_ref().err()).await?;
    }
    let resolved = resolved?;
    phases.done("manifest and configuration");
    admission::check_images(app, owner, &resolved.manifest_digest).await?;
    let charge = Charge::begin(app, owner);
    let source = Source { session: &session, reference, owner, charge: &charge };
    let (wanted, positions) = wanted(app, &resolved);
    // What is stored of each is known before a byte of it comes.
    for Wanted { layer, .. } in &wanted {
        charge.reserve(&layer.blob.digest, layer.blob.bytes).await?;
    }
    progress.set_layers(wanted.iter().map(|layer| Arc::clone(&layer.progress)).collect());
    let mut jobs: Vec<BoxFuture<'_, Result<(usize, LayerFacts)>>> = Vec::new();
    for (place, layer) in wanted.iter().enumerate() {
        jobs.push(Box::pin(bring_at(app, &source, place, layer)));
    }
    let brought = futures_util::stream::iter(jobs).buffer_unordered(LAYERS_AT_ONCE);
    let mut brought: Vec<_> = brought.try_collect().await?;
    phases.done("layers, from the first request to the last name");
    brought.sort_by_key(|(place, _)| *place);
    let layers: Vec<LayerRow> = positions
        .iter()
        .zip(&resolved.config.rootfs.diff_ids)
        .map(|(&place, diff_id)| {
            let layer = &wanted[place].layer;
            LayerRow {
                blob: layer.blob.digest.clone(),
                diff_id: diff_id.clone(),
                compression: layer.compression,
                compressed_bytes: layer.blob.bytes,
                unpacked_bytes: brought[place].1.bytes,
            }
        })
        .collect();
    let image = Made {
        owner,
        manifest: &resolved.manifest_digest,
        config_digest: &resolved.manifest.config.digest,
        config: &resolved.config,
        layers: &layers,
        references: &references(reference, &resolved),
        source: "pull",
    };
    let id = commit(app, &image).await?;
    phases.done("commit the image");
    let digest = resolved.index_digest.as_ref().unwrap_or(&resolved.manifest_digest);
    Ok(json!({ "image": id, "reference": reference.to_string(), "digest": digest }))
}

/// Remembers whether the registry took the credentials, where its answer says so.
async fn note_login(
    app: &App,
    owner: PrincipalId,
    registry: &str,
    error: Option<&Error>,
) -> Result<()> {
    match error {
        None => registries::note(app, owner, registry, true).await,
        Some(error) if error.code() == "registry.refused" => {
            registries::note(app, owner, registry, false).await
        }
        Some(_) => Ok(()),
    }
}

async fn bring_at(
    app: &App,
    source: &Source<'_>,
    place: usize,
    layer: &Wanted,
) -> Result<(usize, LayerFacts)> {
    Ok((place, bring(app, source, layer).await?))
}

/// What a reference stands for, documents verified and stored.
struct Resolved {
    index_digest: Option<Digest>,
    manifest_digest: Digest,
    manifest: ImageManifest,
    config: ImageConfig,
    _pins: Vec<Pinned>,
}

async fn resolve(app: &App, session: &Session, reference: &ImageReference) -> Result<Resolved> {
    let tag = reference.tag.as_deref();
    let mut fetched = session.manifest(tag, reference.digest.as_ref()).await?;
    let mut index_digest = None;
    let manifest = match manifest::parse(&fetched.bytes, fetched.content_type.as_deref())? {
        Document::Image(manifest) => manifest,
        Document::Index(entries) => {
            let chosen = manifest::choose(&entries)?;
            index_digest = Some(fetched.digest);
            fetched = session.manifest(None, Some(&chosen.digest)).await?;
            match manifest::parse(&fetched.bytes, fetched.content_type.as_deref())? {
                Document::Image(manifest) => manifest,
                Document::Index(_) => {
                    return Err(Error::invalid("image.malformed", "an index holds an index"));
                }
            }
        }
    };
    let content = &app.images.content;
    let pins = vec![content.pin(&fetched.digest), content.pin(&manifest.config.digest)];
    let config_bytes = session.small_blob(&manifest.config.digest, CONFIG_BYTES_MAX).await?;
    if config_bytes.len() as u64 != manifest.config.bytes {
        return Err(crate::registry::client::mismatch("the image's config"));
    }
    let config = manifest::parse_config(&config_bytes, manifest.layers.len())?;
    content.put(&fetched.digest, &fetched.bytes).await?;
    content.put(&manifest.config.digest, &config_bytes).await?;
    Ok(Resolved { index_digest, manifest_digest: fetched.digest, manifest, config, _pins: pins })
}

/// Each different layer once, and which of them stands at each position of the image.
fn wanted(app: &App, resolved: &Resolved) -> (Vec<Wanted>, Vec<usize>) {
    let mut wanted: Vec<Wanted> = Vec::new();
    let mut positions = Vec::new();
    for (layer, diff_id) in resolved.manifest.layers.iter().zip(&resolved.config.rootfs.diff_ids) {
        let same = |known: &Wanted| known.layer == *layer && known.diff_id == *diff_id;
        let place = wanted.iter().position(same).unwrap_or_else(|| {
            let digest = &layer.blob.digest;
            wanted.push(Wanted {
                layer: layer.clone(),
                diff_id: diff_id.clone(),
                pin: app.images.content.pin(digest),
                progress: LayerProgress::new(digest, layer.blob.bytes),
            });
            wanted.len() - 1
        });
        positions.push(place);
    }
    (wanted, positions)
}

/// What a pull names: its tag unless a digest pins it, and the digests it was found under.
fn references(reference: &ImageReference, resolved: &Resolved) -> Vec<ReferenceRow> {
    let name = reference.name();
    let digests = resolved.index_digest.iter().chain([&resolved.manifest_digest]);
    let mut rows: Vec<ReferenceRow> = digests
        .map(|digest| ReferenceRow {
            name: name.clone(),
            value: ReferenceValue::Digest(digest.clone()),
        })
        .collect();
    if let (Some(tag), None) = (&reference.tag, &reference.digest) {
        rows.push(ReferenceRow { name, value: ReferenceValue::Tag(tag.clone()) });
    }
    rows
}

/// An image of which every byte is on disk and named.
pub struct Made<'a> {
    /// Whose.
    pub owner: PrincipalId,
    /// Its manifest.
    pub manifest: &'a Digest,
    /// Its config's digest.
    pub config_digest: &'a Digest,
    /// Its config.
    pub config: &'a ImageConfig,
    /// Its layers, lowest first.
    pub layers: &'a [LayerRow],
    /// What it is called.
    pub references: &'a [ReferenceRow],
    /// `pull` or `import`.
    pub source: &'static str,
}

/// Writes the image down; answers its id.
pub async fn commit(app: &App, made: &Made<'_>) -> Result<String> {
    let config = serde_json::to_string(made.config)
        .map_err(|source| Error::broken("write an image's config", source))?;
    let row = ImageRow {
        id: random_id()?,
        owner: made.owner,
        manifest: made.manifest.clone(),
        config_digest: made.config_digest.clone(),
        platform: format!("{}/{}", made.config.os, made.config.architecture),
        compressed_bytes: made.layers.iter().map(|layer| layer.compressed_bytes).sum(),
        unpacked_bytes: made.layers.iter().map(|layer| layer.unpacked_bytes).sum(),
        config,
        source: made.source.to_owned(),
        created_at: Time::now(),
    };
    let mut write = app.inventory.record().await?;
    let before = admission::held_images(write.db(), made.owner).await?;
    let id = images::insert(write.db(), &row, made.layers).await?;
    admission::check_new_image(write.db(), made.owner, &before).await?;
    for reference in made.references {
        images::insert_reference(write.db(), made.owner, &id, reference).await?;
    }
    let names: Vec<String> = made.references.iter().map(ToString::to_string).collect();
    let kind = if made.source == "pull" { "image.pulled" } else { "image.imported" };
    let event = NewEvent {
        owner: made.owner,
        kind,
        subject_kind: "image",
        subject: &id,
        data: json!({ "references": names }),
    };
    write.event(event).await?;
    write.commit().await?;
    made.layers.iter().for_each(|layer| app.images.absent.has_come(&layer.blob));
    Ok(id)
}

fn at_reference(error: Error) -> Error {
    match error {
        Error::Invalid { refusal, .. } => Error::field("/reference", refusal.detail),
        other => other,
    }
}
