//! Whether stored layers are still what they were unpacked from (`berth verify`), what is refused when one is
//! not, and how it is mended.
//!
//! Nothing is written down when a layer comes: its name is the digest of the bytes that it came from, these are
//! stored beside it, and verifying unpacks them once more. So a pull pays nothing, a start only asks the
//! inventory, and whoever changes a layer would have to change bytes under a digest that an image's row has.
//! A damaged layer is not mended behind anybody's back: whoever pulls or imports an image with it again has it
//! replaced.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::{Duration, Instant};

use berth_runtime::digest::Digest;
use berth_runtime::id::PrincipalId;
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::{LayerDifference, LayerHarm};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::app::App;
use crate::auth::Caller;
use crate::auth::keys::random_id;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::images::{self, LayerRow};
use crate::inventory::layer_checks::{self, LayerCheck, LayerState, Tally};
use crate::inventory::operations::{self as rows, NewOperation, Operation};
use crate::runtime_client::RuntimeError;
use crate::service::operations::{self, Handle};

/// The operation's kind.
const KIND: &str = "layers.verify";
/// Layers that one answer names.
const ITEMS_MAX: u32 = 200;
/// Layers whose check failed that a result names.
const SKIPPED_MAX: usize = 20;
const CHUNK_BYTES: usize = 1 << 20;
/// How long a layer that is in use may be so because of a container that has just ended.
const UNDONE_LIMIT: Duration = Duration::from_secs(3);
/// Between two looks at that.
const UNDONE_PAUSE: Duration = Duration::from_millis(50);

/// How the stored layers were found when they were last looked at.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LayersView {
    /// Layers that images hold.
    pub layers: u64,
    /// Of these, as they were unpacked.
    pub whole: u64,
    /// Of these, not as they were unpacked, or stored as bytes that are not what their digest says.
    pub harmed: u64,
    /// When the one was looked at of which it is longest ago; null when none was.
    pub oldest_checked_at: Option<Time>,
    /// The harmed ones, at most 200.
    pub items: Vec<HarmedLayer>,
    /// Whether there are more than that.
    pub more: bool,
}

/// A layer that is not as it should be.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HarmedLayer {
    /// Its digest.
    pub digest: String,
    /// `damaged`, and nothing starts from it; or `archive_damaged`, when the bytes that it came from are not what
    /// their digest says, so that nothing is known of it.
    pub state: &'static str,
    /// When it was looked at.
    pub checked_at: Time,
    /// All that is different.
    pub differences: u64,
    /// The first 32 of that.
    pub shown: Vec<HarmView>,
    /// Images with it, by id; at most 20.
    pub images: Vec<String>,
}

/// One difference.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HarmView {
    /// The path in the layer, escaped and cut.
    pub path: String,
    /// What is different: `missing`, `added`, `kind`, `mode`, `owner`, `attributes`, `size`, `content`,
    /// `unreadable`, `target` or `device`.
    #[schema(value_type = String)]
    pub harm: LayerHarm,
}

/// Images of one layer that are named.
const IMAGES_MAX: usize = 20;

/// How the stored layers were found.
///
/// # Errors
/// When the inventory cannot be read.
pub async fn found(app: &App) -> Result<LayersView> {
    let db = app.inventory.read();
    let Tally { layers, whole, harmed, oldest_checked_at } = layer_checks::tally(db).await?;
    let mut checks = layer_checks::harmed(db, ITEMS_MAX + 1).await?;
    let more = checks.len() > ITEMS_MAX as usize;
    checks.truncate(ITEMS_MAX as usize);
    let mut items = Vec::new();
    for LayerCheck { blob, checked_at, state, differences, shown } in checks {
        let mut images = images::of_layer(db, &blob).await?;
        images.truncate(IMAGES_MAX);
        items.push(HarmedLayer {
            digest: blob.as_str().to_owned(),
            state: if state == LayerState::Damaged { "damaged" } else { "archive_damaged" },
            checked_at,
            differences,
            shown: shown
                .into_iter()
                .map(|LayerDifference { path, harm }| HarmView { path, harm })
                .collect(),
            images,
        });
    }
    Ok(LayersView { layers, whole, harmed, oldest_checked_at, items, more })
}

/// Begins to look at all layers that images hold, one after the other; answers its operation.
///
/// # Errors
/// When that goes on already.
pub async fn start(app: &App, caller: &Caller) -> Result<Operation> {
    let id = random_id()?;
    let mut write = app.inventory.change(&caller.actor, KIND).await?;
    if rows::is_running(write.db(), KIND).await? {
        let detail = "the layers are being verified; wait for that, or cancel it";
        return Err(Error::conflict("layers.verifying", detail));
    }
    let (owner, kind) = (caller.principal, KIND);
    let new = NewOperation { id: &id, owner, kind, subject_kind: "layers", subject: "all" };
    rows::insert(write.db(), &new).await?;
    write.subject("layers", "all", PrincipalId::SYSTEM);
    write.commit().await?;
    let work_app = app.clone();
    app.operations
        .spawn(app, id.clone(), move |handle| async move { verify_all(&work_app, &handle).await });
    operations::find(app, caller, &id).await
}

/// How far it has come.
#[derive(Default)]
struct Done {
    total_bytes: u64,
    bytes: u64,
    whole: u64,
    harmed: u64,
    skipped: u64,
    /// Of those that could not be looked at, the first, with the reason.
    named: Vec<Value>,
}

impl Done {
    /// Bytes are called as a pull's are, so that whatever draws these draws it.
    fn progress(&self) -> Value {
        json!({"downloaded_bytes": self.bytes, "total_bytes": self.total_bytes,
            "whole": self.whole, "harmed": self.harmed, "skipped": self.skipped})
    }
}

async fn verify_all(app: &App, handle: &Handle) -> Result<Value> {
    let layers = images::held_layers(app.inventory.read()).await?;
    let total_bytes = layers.iter().map(|layer| layer.unpacked_bytes).sum();
    let mut done = Done { total_bytes, ..Done::default() };
    let mut cancelled = pin!(handle.cancelled());
    for layer in layers {
        handle.progress(done.progress());
        let looked = tokio::select! {
            looked = look(app, &layer) => looked?,
            () = &mut cancelled => {
                return Err(Error::conflict("operation.cancelled", "it was cancelled"));
            }
        };
        done.bytes += layer.unpacked_bytes;
        match looked {
            Looked::Found(check) => {
                match check.state {
                    LayerState::Whole => done.whole += 1,
                    state => {
                        done.harmed += 1;
                        tracing::warn!(layer = %layer.blob, ?state, differences = check.differences,
                            "a stored layer is not what it was");
                    }
                }
                let mut write = app.inventory.record().await?;
                layer_checks::put(write.db(), &check).await?;
                write.commit().await?;
            }
            Looked::Gone => {}
            Looked::Skipped(reason) => {
                done.skipped += 1;
                if done.named.len() < SKIPPED_MAX {
                    done.named.push(json!({"digest": layer.blob, "reason": reason}));
                }
            }
        }
    }
    handle.progress(done.progress());
    let Done { whole, harmed, skipped, named, .. } = done;
    tracing::info!(whole, harmed, skipped, "verified the stored layers");
    Ok(json!({"whole": whole, "harmed": harmed, "skipped": skipped, "skipped_layers": named}))
}

enum Looked {
    Found(LayerCheck),
    /// No image holds it any more.
    Gone,
    /// It could not be looked at, and why.
    Skipped(String),
}

async fn look(app: &App, layer: &LayerRow) -> Result<Looked> {
    let blob = &layer.blob;
    let pin = app.images.content.pin(blob);
    let _turn = pin.turn().await;
    if !images::is_held(app.inventory.read(), blob).await? {
        return Ok(Looked::Gone);
    }
    let found = |state, differences, shown| {
        let (blob, checked_at) = (blob.clone(), Time::now());
        Ok(Looked::Found(LayerCheck { blob, checked_at, state, differences, shown }))
    };
    let Some(bytes) = sound_archive(app, blob).await? else {
        return found(LayerState::ArchiveDamaged, 0, Vec::new());
    };
    let _slot = app.images.unpackers.acquire().await;
    match app.runtime.layer_verify(blob, &layer.diff_id, layer.compression, bytes).await {
        Ok(verified) if verified.differences == 0 => found(LayerState::Whole, 0, Vec::new()),
        Ok(verified) => found(LayerState::Damaged, verified.differences, verified.shown),
        Err(RuntimeError::Refused(failure)) if failure.code == "layer.unknown" => {
            let all = LayerDifference { path: ".".to_owned(), harm: LayerHarm::Missing };
            found(LayerState::Damaged, 1, vec![all])
        }
        Err(RuntimeError::Refused(failure)) => Ok(Looked::Skipped(failure.message)),
        Err(error) => Err(error.into()),
    }
}

/// The stored bytes, if they are what their digest says.
async fn sound_archive(app: &App, blob: &Digest) -> Result<Option<OwnedFd>> {
    if !app.images.content.has(blob) {
        return Ok(None);
    }
    let mut file = std::fs::File::from(app.images.content.open_blob(blob)?);
    let hashed = tokio::task::spawn_blocking(move || {
        let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK_BYTES]);
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Some(Digest::from_hash(&hash.finalize().into())),
                Ok(count) => hash.update(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // What the disk gives out no more is not what it was.
                Err(_) => return None,
            }
        }
    });
    let hashed = hashed.await.map_err(|source| Error::broken("hash a blob", source))?;
    if hashed.as_ref() != Some(blob) {
        return Ok(None);
    }
    app.images.content.open_blob(blob).map(Some)
}

/// Why nothing may start from these layers, if one of them is known to be damaged.
///
/// # Errors
/// When the inventory cannot be read.
pub async fn damage(app: &App, layers: &[Digest]) -> Result<Option<Failure>> {
    let found = layer_checks::first_damaged(app.inventory.read(), layers).await?;
    Ok(found.map(|check| {
        let what = check.shown.first().map_or_else(String::new, |first| {
            let harm = serde_json::to_value(first.harm).unwrap_or_default();
            format!(" ({}: {})", first.path, harm.as_str().unwrap_or_default())
        });
        let message = format!(
            "layer {} of its image is damaged on this machine{what}: pull or import the image again, \
             which replaces it",
            check.blob
        );
        Failure::new(FailureClass::Conflict, "image.damaged", message)
    }))
}

/// Takes away what is known to be damaged of a layer that is about to be brought again.
pub(super) async fn clear(app: &App, blob: &Digest) -> Result<()> {
    let Some(check) = layer_checks::find(app.inventory.read(), blob).await? else {
        return Ok(());
    };
    match check.state {
        LayerState::Whole => {}
        LayerState::ArchiveDamaged => app.images.content.remove(blob)?,
        LayerState::Damaged => match remove_unused(app, blob).await {
            Err(RuntimeError::Refused(failure)) if failure.code == "layer.in-use" => {
                let detail = format!(
                    "layer {blob} is damaged and can be replaced when no running container has it: \
                     stop those of this image, then pull or import it again"
                );
                return Err(Error::conflict("layer.in-use", detail));
            }
            done => done?,
        },
    }
    Ok(())
}

/// A container that has ended keeps its layers until its mounts are undone, which takes a moment.
async fn remove_unused(app: &App, blob: &Digest) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + UNDONE_LIMIT;
    loop {
        match app.runtime.layer_remove(blob.clone()).await {
            Err(RuntimeError::Refused(failure))
                if failure.code == "layer.in-use" && Instant::now() < deadline =>
            {
                tokio::time::sleep(UNDONE_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// Forgets what was found of a layer that has come anew.
pub(super) async fn forget(app: &App, blob: &Digest) -> Result<()> {
    if layer_checks::find(app.inventory.read(), blob)
        .await?
        .is_some_and(|check| check.state != LayerState::Whole)
    {
        let mut write = app.inventory.record().await?;
        layer_checks::delete(write.db(), blob).await?;
        write.commit().await?;
    }
    Ok(())
}
