//! Imports images from an uploaded archive: visible to whoever uploaded it, to everyone when the
//! system did.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};

use super::archive::{Archive, Found, FoundLayer};
use super::charge::Charge;
use super::layers::{Wanted, unpack_stored};
use super::progress::{LayerProgress, LayerState, Progress, follow};
use super::pull::{Made, commit};
use super::store::Incoming;
use super::verify;
use crate::app::App;
use crate::auth::Caller;
use crate::auth::keys::random_id;
use crate::error::{Error, Result};
use crate::inventory::images::{self, LayerRow, ReferenceRow};
use crate::inventory::operations::{NewOperation, Operation};
use crate::registry::manifest::{Blob, LayerBlob};
use crate::service::{admission, maintenance, operations};

/// Imports of one person at once, uploads included.
const IMPORTS_MAX: i64 = 4;

/// Bytes of an upload after which it is held against the allowance again.
const LOOK_BYTES: u64 = 4 << 20;

/// An upload.
pub struct Upload<S> {
    /// Its bytes.
    pub bytes: S,
    /// A name for the image, over what the archive says; for archives with one image.
    pub reference: Option<String>,
}

/// Receives an archive and begins to import it; answers the operation.
///
/// # Errors
/// When the upload is too large or breaks off, or the name is none.
pub async fn receive<S, E>(app: &App, caller: &Caller, upload: Upload<S>) -> Result<Operation>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    maintenance::admit(app, caller)?;
    let Upload { mut bytes, reference } = upload;
    let reference = reference.as_deref().map(super::tag_of).transpose()?;
    let limit = app.config.images.import_bytes_max;
    let charge = Charge::begin(app, caller.principal);
    let mut looked = 0;
    let mut incoming = app.images.content.receive().await?;
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk
            .map_err(|_| Error::invalid("image.archive", "the upload broke off before its end"))?;
        let arrived = incoming.bytes() + chunk.len() as u64;
        if arrived > limit {
            return Err(Error::TooLarge { limit_bytes: limit });
        }
        if arrived >= looked {
            charge.check_archive(arrived).await?;
            looked = arrived + LOOK_BYTES;
        }
        incoming.write(&chunk).await?;
    }
    charge.check_archive(incoming.bytes()).await?;
    let owner = caller.principal;
    let id = random_id()?;
    let subject = reference.as_ref().map_or_else(|| "archive".to_owned(), ToString::to_string);
    let mut write = app.inventory.change(&caller.actor, "image.import").await?;
    if images::operations_running(write.db(), owner).await? >= IMPORTS_MAX {
        return Err(Error::exhausted(
            "image.too-many-pulls",
            "too many pulls and imports are going on",
        ));
    }
    let new = NewOperation {
        id: &id,
        owner,
        kind: "image.import",
        subject_kind: "image",
        subject: &subject,
    };
    operations::insert(write.db(), &new).await?;
    write.subject("image", &subject, owner);
    write.commit().await?;
    let work_app = app.clone();
    app.operations.spawn(app, id.clone(), move |handle| async move {
        let progress = Progress::new(subject);
        let work = run(&work_app, &charge, incoming, reference, &progress);
        let done = follow(&handle, &progress, work).await;
        work_app.images.tidy_unless(&done);
        done
    });
    operations::find(app, caller, &id).await
}

async fn run(
    app: &App,
    charge: &Charge,
    mut incoming: Incoming,
    reference: Option<ReferenceRow>,
    progress: &Progress,
) -> Result<Value> {
    let file = incoming.reopen().await?;
    let read = blocking(move || {
        let mut archive = Archive::open(file)?;
        let found = archive.images()?;
        Ok((archive, found))
    });
    let (mut archive, found) = read.await?;
    if reference.is_some() && found.len() != 1 {
        return Err(Error::field("?reference", "the archive holds more than one image"));
    }
    let layers = found.iter().flat_map(|image| &image.layers);
    let shown: Vec<_> =
        layers.map(|layer| LayerProgress::new(&layer.digest, layer.part.bytes)).collect();
    progress.set_layers(shown.clone());
    let mut shown = shown.into_iter();
    let mut made = Vec::new();
    for image in &found {
        let names = match &reference {
            Some(reference) => vec![reference.clone()],
            // A name that is none is left out: the image is found by its id and can be tagged.
            None => image.names.iter().filter_map(|name| super::tag_of(name).ok()).collect(),
        };
        archive = bring_image(app, charge, archive, image, &names, &mut shown, &mut made).await?;
    }
    // The upload is kept until here, and is gone when this returns.
    drop(incoming);
    Ok(json!({ "images": made }))
}

async fn bring_image(
    app: &App,
    charge: &Charge,
    mut archive: Archive,
    image: &Found,
    names: &[ReferenceRow],
    shown: &mut impl Iterator<Item = Arc<LayerProgress>>,
    made: &mut Vec<String>,
) -> Result<Archive> {
    use berth_runtime::digest::Digest;
    let content = &app.images.content;
    let manifest = Digest::of(&image.manifest);
    let config_digest = Digest::of(&image.config_bytes);
    admission::check_images(app, charge.owner(), &manifest).await?;
    let _pins = [content.pin(&manifest), content.pin(&config_digest)];
    content.put(&manifest, &image.manifest).await?;
    content.put(&config_digest, &image.config_bytes).await?;
    let mut layers = Vec::new();
    let mut pinned = Vec::new();
    for ((found, diff_id), progress) in
        image.layers.iter().zip(&image.config.rootfs.diff_ids).zip(shown)
    {
        let blob = Blob { digest: found.digest.clone(), bytes: found.part.bytes };
        let wanted = Wanted {
            layer: LayerBlob { blob, compression: found.compression },
            diff_id: diff_id.clone(),
            pin: content.pin(&found.digest),
            progress,
        };
        let turn = wanted.pin.turn().await;
        let slot = app.images.unpackers.acquire().await;
        charge.reserve(&found.digest, found.part.bytes).await?;
        verify::clear(app, &found.digest).await?;
        if !content.has(&found.digest) {
            archive = store_layer(app, archive, found).await?;
        }
        let facts = unpack_stored(app, charge, &wanted).await?;
        verify::forget(app, &found.digest).await?;
        drop((turn, slot));
        wanted.progress.set(LayerState::Done);
        layers.push(LayerRow {
            blob: found.digest.clone(),
            diff_id: diff_id.clone(),
            compression: found.compression,
            compressed_bytes: found.part.bytes,
            unpacked_bytes: facts.bytes,
        });
        pinned.push(wanted);
    }
    let image = Made {
        owner: charge.owner(),
        manifest: &manifest,
        config_digest: &config_digest,
        config: &image.config,
        layers: &layers,
        references: names,
        source: "import",
    };
    made.push(commit(app, &image).await?);
    Ok(archive)
}

/// Copies a layer out of the archive into the store. Its digest was computed from the very bytes
/// before, so it is this person's own content whatever else is stored.
async fn store_layer(app: &App, mut archive: Archive, layer: &FoundLayer) -> Result<Archive> {
    let mut incoming = app.images.content.receive().await?;
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(4);
    let part = layer.part;
    let read = blocking(move || {
        archive.read(part, |bytes| {
            sender
                .blocking_send(bytes.to_vec())
                .map_err(|_| Error::conflict("operation.cancelled", "it was cancelled"))
        })?;
        drop(sender);
        Ok(archive)
    });
    let write = async {
        while let Some(bytes) = receiver.recv().await {
            incoming.write(&bytes).await?;
        }
        Ok(())
    };
    let (archive, ()) = tokio::try_join!(read, write)?;
    incoming.commit(&app.images.content, &layer.digest).await?;
    Ok(archive)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::broken("read an archive", error)))
}
