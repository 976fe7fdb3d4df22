//! Images: pull, import, list, inspect, tag, remove; and what others need to start from one.
//!
//! One that is shared ([`super::sharing`]) can be read, launched from and kept. Whoever launches from it or keeps it has
//! an image of their own from then on, which is charged to them like one that they have pulled ([`keep`]).
//!
//! Order that a crash cannot break: content first (fsynced, then named), the image's row last; at
//! removal the row first, content after it. Whatever content no row holds goes at the next
//! [`reconcile`].

mod absent;
mod archive;
mod charge;
mod export;
mod import;
mod keep;
mod layers;
mod progress;
mod pull;
mod store;
mod verify;

use std::sync::Arc;
use std::time::Duration;

use berth_runtime::digest::Digest;
use berth_runtime::id::PrincipalId;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Notify, Semaphore};

use super::edits::{Expected, Version};
use super::{Listed, Page};
use crate::app::App;
use crate::auth::{Caller, Kind, Right, Rights, Visibility};
use crate::clock::Time;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::events::NewEvent;
use crate::inventory::image_shares::{self, Holder, Share};
use crate::inventory::images::{self, Filter, ImageRow, LayerRow, ReferenceRow, ReferenceValue};
use crate::inventory::layer_checks;
use crate::registry::manifest::{ImageConfig, RunConfig};
use crate::registry::{ImageReference, Registry};

pub use export::open as export;
pub use import::{Upload, receive as import};
pub use keep::{keep, kept_for_launch, shared};
pub use pull::start as pull;
pub use verify::{LayersView, damage, found as layers_found, start as verify_layers};

/// Between two tries to reach the supervisor at start.
const RECONCILE_PAUSE: Duration = Duration::from_secs(5);
/// Names of one image at most.
const REFERENCES_MAX: usize = 100;

/// What the image services share.
pub struct Images {
    /// The transport to registries.
    pub registry: Arc<Registry>,
    /// The blobs.
    pub content: Arc<store::Content>,
    /// As many as the supervisor runs unpackers.
    unpackers: Semaphore,
    /// What images lack.
    absent: absent::Absent,
    /// Content may lie there that no image holds.
    leftovers: Notify,
    /// What is on its way of people's allowances.
    ledger: charge::Ledger,
}

/// An image with its names.
#[derive(Debug, Clone)]
pub struct Image {
    /// The row.
    pub row: ImageRow,
    /// What it is called, tags first.
    pub references: Vec<ReferenceRow>,
    /// What of it is its alone, and how it is used.
    pub share: Share,
    /// Whether all its layers are on this machine, and none is known to be damaged.
    pub whole: bool,
    /// What whoever it was looked up for may do with it.
    pub rights: Rights,
}

impl Image {
    /// What it is called first; its id when it has no name.
    pub fn name(&self) -> String {
        self.references.first().map_or_else(|| self.row.id.clone(), ToString::to_string)
    }
}

/// The version of what can be edited of an image: its names.
pub fn version(references: &[ReferenceRow]) -> Version {
    let mut names: Vec<String> = references.iter().map(ToString::to_string).collect();
    names.sort();
    Version::of(&names)
}

/// An image in detail.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The image.
    pub image: Image,
    /// Its config.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// Which of them is damaged, in a sentence, if one was found to be.
    pub damage: Option<String>,
    /// Containers that use it, of those that the caller sees.
    pub containers: Vec<Holder>,
    /// Other images of its owner that have a layer of it.
    pub images: Vec<Holder>,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The row.
    pub row: LayerRow,
    /// Other images of the image's owner that have it too.
    pub shared_with: Vec<Holder>,
}

/// All that a container needs of an image.
#[derive(Debug, Clone, Serialize)]
pub struct ImageForStart {
    /// The image's id.
    pub id: String,
    /// Its layers by blob digest, lowest first.
    pub layers: Vec<Digest>,
    /// How a container of it runs, as the image says; never policy.
    pub config: RunConfig,
}

impl Images {
    /// Opens the content store and sets up the transport.
    ///
    /// # Errors
    /// When the store cannot be made or read.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        use anyhow::Context;
        let directory = config.store_dir();
        let content = store::Content::open(&directory)
            .with_context(|| format!("open the store {}", directory.display()))?;
        let unpackers = usize::try_from(config.runtime.unpackers_max.max(1)).unwrap_or(1);
        Ok(Self {
            registry: Arc::new(Registry::new(&config.registries)?),
            content: Arc::new(content),
            unpackers: Semaphore::new(unpackers),
            absent: absent::Absent::default(),
            leftovers: Notify::new(),
            ledger: charge::Ledger::default(),
        })
    }

    /// Has what no image holds removed soon: somebody has left content behind.
    fn tidy_soon(&self) {
        self.leftovers.notify_one();
    }

    /// The same after work that has failed, and may have left layers that it had brought by then.
    fn tidy_unless<T>(&self, done: &Result<T>) {
        if done.is_err() {
            self.tidy_soon();
        }
    }
}

/// Which images are listed.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// With this in a name or tag.
    pub reference: Option<String>,
    /// This principal's.
    pub owner: Option<PrincipalId>,
    /// This person's, by name.
    pub owner_name: Option<String>,
}

impl From<Option<String>> for Wanted {
    fn from(reference: Option<String>) -> Self {
        Self { reference, ..Self::default() }
    }
}

/// Images that the caller sees: their own and the system's; everybody's to operators and auditors.
pub async fn list(
    app: &App,
    caller: &Caller,
    wanted: impl Into<Wanted>,
    page: &Page,
) -> Result<Listed<Image>> {
    let before = page.after.as_deref().map(position).transpose()?;
    let db = app.inventory.read();
    let wanted = wanted.into();
    let Wanted { reference, owner, owner_name } = wanted;
    let filter = Filter { reference, owner, owner_name, before };
    let rows = images::list(db, caller.sees(), &filter, page.rows()).await?;
    let listed = page.cut(rows, |row| format!("{} {}", row.created_at.0, row.id));
    let items = with_shares(app, caller, listed.items).await?;
    Ok(Listed { items, next: listed.next })
}

/// Images with what is known of them, however many, by two questions.
async fn with_shares(app: &App, caller: &Caller, rows: Vec<ImageRow>) -> Result<Vec<Image>> {
    let db = app.inventory.read();
    let ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let mut references = image_shares::references_of(db, &ids).await?;
    let mut shares = image_shares::of_images(db, caller.sees(), &ids).await?;
    let damaged = layer_checks::damaged_images(db, &ids).await?;
    let granted = images::granted(db, caller.principal, &ids).await?;
    let images = rows.into_iter().map(|row| {
        let mut share = shares.remove(&row.id).unwrap_or_default();
        if is_anothers(caller, &row) {
            // What else they have of its layers is their own.
            share.unique_bytes = share.unique_bytes.saturating_add(share.shared_bytes);
            share.shared_bytes = 0;
        }
        Image {
            references: references.remove(&row.id).unwrap_or_default(),
            share,
            whole: app.images.absent.is_whole(&row.id) && !damaged.contains(&row.id),
            rights: caller.rights((Kind::Image, row.owner), granted.get(&row.id).copied()),
            row,
        }
    });
    Ok(images.collect())
}

/// Whether an image is somebody else's, of whose other images the caller learns nothing.
fn is_anothers(caller: &Caller, row: &ImageRow) -> bool {
    let own = [caller.principal, PrincipalId::SYSTEM].contains(&row.owner);
    !own && caller.sees() != Visibility::Everyone
}

/// An image that the caller sees, with what is known of it.
///
/// # Errors
/// There is none for them.
pub async fn find(app: &App, caller: &Caller, id: &str) -> Result<Image> {
    let row = images::find(app.inventory.read(), caller.sees(), id).await?;
    with_share(app, caller, row).await
}

/// One image with what is known of it.
async fn with_share(app: &App, caller: &Caller, row: ImageRow) -> Result<Image> {
    let found = with_shares(app, caller, vec![row]).await?.pop();
    found.ok_or_else(|| Error::defect("find an image's share"))
}

/// One image in detail.
///
/// # Errors
/// When the caller sees no such image.
pub async fn inspect(app: &App, caller: &Caller, id: &str) -> Result<Inspected> {
    let db = app.inventory.read();
    let row = images::find(db, caller.sees(), id).await?;
    let mut config = config_of(&row)?;
    let (is_anothers, image) = (is_anothers(caller, &row), with_share(app, caller, row).await?);
    if !image.rights.has(Right::Files) {
        // Secrets are built into environments and commands more often than one would wish.
        config.config = RunConfig::default();
        config.history.clear();
    }
    let containers = image_shares::containers(db, caller.sees(), id).await?;
    let sharers = match is_anothers {
        true => Vec::new(),
        false => image_shares::sharers(db, id).await?,
    };
    let mut images: Vec<Holder> = Vec::new();
    for (_, holder) in &sharers {
        if images.len() < image_shares::HOLDERS_MAX as usize && !images.contains(holder) {
            images.push(holder.clone());
        }
    }
    let layers = images::layers(db, id).await?.into_iter().map(|row| {
        let with = sharers.iter().filter(|(blob, _)| *blob == row.blob);
        Layer { shared_with: with.map(|(_, holder)| holder.clone()).collect(), row }
    });
    let layers: Vec<Layer> = layers.collect();
    let blobs: Vec<Digest> = layers.iter().map(|layer| layer.row.blob.clone()).collect();
    let damage = damage(app, &blobs).await?.map(|failure| failure.message);
    Ok(Inspected { image, config, layers, damage, containers, images })
}

/// Gives an image of the caller's own one more name; a tag moves from the image that bore it.
///
/// # Errors
/// When there is no such image or the name is none.
pub async fn tag(
    app: &App,
    caller: &Caller,
    id: &str,
    reference: &str,
    expected: &Expected,
) -> Result<Image> {
    let reference = tag_of(reference)?;
    let row = own(app, caller, id).await?;
    let mut write = app.inventory.change(&caller.actor, "image.tag").await?;
    let before = images::references(app.inventory.read(), id).await?;
    expected.check(&version(&before))?;
    if before.len() >= REFERENCES_MAX {
        return Err(Error::exhausted(
            "image.too-many-names",
            format!("an image has at most {REFERENCES_MAX} names"),
        ));
    }
    images::insert_reference(write.db(), row.owner, id, &reference).await?;
    write.subject("image", id, row.owner);
    let data = json!({ "reference": reference.to_string() });
    let event = NewEvent {
        owner: row.owner,
        kind: "image.tagged",
        subject_kind: "image",
        subject: id,
        data,
    };
    write.event(event).await?;
    write.commit().await?;
    with_share(app, caller, row).await
}

/// Takes a name from an image; the image stays.
///
/// # Errors
/// When there is no such image, or it has no such name.
pub async fn untag(
    app: &App,
    caller: &Caller,
    id: &str,
    reference: &str,
    expected: &Expected,
) -> Result<()> {
    let reference = tag_of(reference)?;
    let row = own(app, caller, id).await?;
    let mut write = app.inventory.change(&caller.actor, "image.untag").await?;
    expected.check(&version(&images::references(app.inventory.read(), id).await?))?;
    images::delete_reference(write.db(), row.owner, id, &reference).await?;
    write.subject("image", id, row.owner);
    write.commit().await
}

/// Removes an image. Its content goes when nobody else holds it.
///
/// # Errors
/// When there is no such image, or a container uses it.
pub async fn remove(app: &App, caller: &Caller, id: &str, expected: &Expected) -> Result<()> {
    let row = own(app, caller, id).await?;
    let layers = images::layers(app.inventory.read(), id).await?;
    let mut write = app.inventory.change(&caller.actor, "image.remove").await?;
    expected.check(&version(&images::references(app.inventory.read(), id).await?))?;
    let used = images::containers_of(write.db(), id).await?;
    if !used.is_empty() {
        let names = used.join(", ");
        return Err(Error::conflict("image.in-use", format!("containers use it: {names}")));
    }
    images::delete(write.db(), id).await?;
    write.subject("image", id, row.owner);
    let event = NewEvent {
        owner: row.owner,
        kind: "image.removed",
        subject_kind: "image",
        subject: id,
        data: json!({}),
    };
    write.event(event).await?;
    write.commit().await?;
    let mut digests: Vec<Digest> = layers.into_iter().map(|layer| layer.blob).collect();
    digests.extend([row.manifest, row.config_digest]);
    let app = app.clone();
    tokio::spawn(async move { collect_all(&app, digests).await });
    Ok(())
}

/// The image that `owner` means: an id or the beginning of one, a digest, or a reference.
///
/// # Errors
/// When `owner` has no such image, nor has the system.
pub async fn resolve(app: &App, owner: PrincipalId, text: &str) -> Result<ImageForStart> {
    let db = app.inventory.read();
    let digits =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let is_id = (12..=32).contains(&text.len()) && digits(text);
    let found = if is_id || text.starts_with("sha256:") {
        images::find_by_id(db, owner, text).await
    } else {
        Err(Error::NotFound("image"))
    };
    let row = match found {
        Err(Error::NotFound(_)) => {
            let reference: ImageReference = text.parse()?;
            let value = match (&reference.digest, &reference.tag) {
                (Some(digest), _) => ReferenceValue::Digest(digest.clone()),
                (None, tag) => ReferenceValue::Tag(tag.clone().unwrap_or_else(|| "latest".into())),
            };
            images::find_by_reference(db, owner, &reference.name(), &value).await?
        }
        found => found?,
    };
    let layers = images::layers(db, &row.id).await?;
    Ok(ImageForStart {
        layers: layers.into_iter().map(|layer| layer.blob).collect(),
        config: config_of(&row)?.config,
        id: row.id,
    })
}

/// Brings the content in line with the inventory: at start, and whenever a pull or a removal has left
/// something behind. While the supervisor is away it is tried again.
pub async fn reconcile(app: App) {
    let mut looked = false;
    loop {
        let pause = match reconcile_once(&app, &mut looked).await {
            Ok(removed) => {
                if removed > 0 {
                    tracing::info!(removed, "removed content that no image holds");
                }
                None
            }
            Err(error) => {
                tracing::debug!(error = %error, "content is compared later");
                Some(tokio::time::sleep(RECONCILE_PAUSE))
            }
        };
        let again = async {
            match pause {
                Some(pause) => pause.await,
                None => app.images.leftovers.notified().await,
            }
        };
        tokio::select! {
            () = again => {}
            () = app.stopping.cancelled() => return,
        }
    }
}

/// `looked` says whether it is known that what is stored is unpacked, which changes with nothing that runs.
async fn reconcile_once(app: &App, looked: &mut bool) -> Result<u64> {
    let mut digests = app.images.content.list()?;
    let unpacked = app.runtime.layers().await?;
    if !*looked {
        layers::unpack_missing(app, &unpacked).await?;
        *looked = true;
    }
    digests.extend(unpacked);
    digests.sort_unstable();
    digests.dedup();
    let mut removed = 0;
    for digest in digests {
        removed += u64::from(collect(app, &digest).await?);
    }
    Ok(removed)
}

/// Removes what of this nobody holds.
async fn collect_all(app: &App, digests: Vec<Digest>) {
    for digest in digests {
        if let Err(error) = collect(app, &digest).await {
            tracing::warn!(%digest, error = %error, "content that no image holds stays for now");
            app.images.tidy_soon();
        }
    }
}

/// Removes a blob and its unpacked layer if nobody holds them; whether it has.
async fn collect(app: &App, digest: &Digest) -> Result<bool> {
    let pin = app.images.content.pin(digest);
    let _turn = pin.turn().await;
    if !pin.is_alone() || images::is_held(app.inventory.read(), digest).await? {
        return Ok(false);
    }
    app.runtime.layer_remove(digest.clone()).await?;
    app.images.content.remove(digest)?;
    let mut write = app.inventory.observe().await?;
    images::delete_origins(write.db(), digest).await?;
    layer_checks::delete(write.db(), digest).await?;
    write.commit().await?;
    Ok(true)
}

/// An image that the caller may change: everybody's to operators, else their own.
async fn own(app: &App, caller: &Caller, id: &str) -> Result<ImageRow> {
    let row = images::find(app.inventory.read(), caller.changes(), id).await?;
    if caller.changes() == Visibility::Everyone || row.owner == caller.principal {
        return Ok(row);
    }
    Err(match row.owner {
        PrincipalId::SYSTEM => {
            Error::denied("image.system", "this image is the system's, for everyone")
        }
        _ => Error::denied(
            "sharing.not-granted",
            "you may not name or remove it: only its owner does",
        ),
    })
}

fn config_of(row: &ImageRow) -> Result<ImageConfig> {
    serde_json::from_str(&row.config)
        .map_err(|source| Error::broken("read an image's config", source))
}

fn tag_of(text: &str) -> Result<ReferenceRow> {
    let wrong = |detail: String| Error::field("/reference", detail);
    let reference: ImageReference =
        text.parse().map_err(|error: Error| wrong(error.to_string()))?;
    match (&reference.tag, &reference.digest) {
        (Some(tag), None) => {
            Ok(ReferenceRow { name: reference.name(), value: ReferenceValue::Tag(tag.clone()) })
        }
        _ => Err(wrong("a name with a tag is needed, and no digest".into())),
    }
}

fn position(text: &str) -> Result<(Time, String)> {
    let wrong = || Error::field("?after", "no such page");
    let (at, id) = text.split_once(' ').ok_or_else(wrong)?;
    Ok((Time(at.parse().map_err(|_| wrong())?), id.to_owned()))
}
