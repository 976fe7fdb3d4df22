//! Brings one layer here: over the network or from what is stored, verified and unpacked.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use berth_runtime::digest::Digest;
use berth_runtime::id::PrincipalId;
use berth_runtime::wire::LayerFacts;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use super::charge::{Charge, Grant};
use super::progress::{LayerProgress, LayerState};
use super::store::{Incoming, Pinned, disk};
use super::verify;
use crate::app::App;
use crate::error::{Error, Result};
use crate::inventory::images;
use crate::registry::client::mismatch;
use crate::registry::manifest::LayerBlob;
use crate::registry::outbound::PACE_BYTES;
use crate::registry::{ImageReference, Session};
use crate::runtime_client::{RuntimeError, Unpacking};
use crate::timing::Phases;

/// A transfer that breaks off is begun this often at most.
const ATTEMPTS_MAX: u32 = 5;
/// Those that brought this much do not count: a large layer may break off more often.
const ATTEMPT_BYTES: u64 = 64 << 20;
/// Before the second attempt; each further one waits twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// What a layer may be taken to unpack to at first: so many times what is stored, and at least this.
const UNPACKED_TIMES: u64 = 4;
const UNPACKED_BYTES: u64 = 16 << 20;
/// The unpacker's code for more than it was given.
const ABOVE_GIVEN: &str = "layer.above-given";
/// The pipe to the unpacker.
const PIPE_BYTES: i32 = 1 << 20;

/// One pull, as its layers see it.
pub struct Source<'a> {
    /// The repository.
    pub session: &'a Session,
    /// What is pulled.
    pub reference: &'a ImageReference,
    /// For whom.
    pub owner: PrincipalId,
    /// What it takes of their allowance.
    pub charge: &'a Charge,
}

/// One layer to be brought.
pub struct Wanted {
    /// Its blob.
    pub layer: LayerBlob,
    /// What it is to inflate to.
    pub diff_id: Digest,
    /// Keeps it from being collected until the image's row is there.
    pub pin: Pinned,
    /// Where its progress is shown.
    pub progress: Arc<LayerProgress>,
}

/// Brings the layer: on disk under its name, blob and unpacked, when this returns.
pub async fn bring(app: &App, source: &Source<'_>, wanted: &Wanted) -> Result<LayerFacts> {
    let _turn = wanted.pin.turn().await;
    let _slot = app.images.unpackers.acquire().await;
    let digest = &wanted.layer.blob.digest;
    verify::clear(app, digest).await?;
    let stored = app.images.content.has(digest);
    if stored && may_reuse(app, source, digest).await? {
        let facts = unpack_stored(app, source.charge, wanted).await?;
        verify::forget(app, digest).await?;
        wanted.progress.set(LayerState::Present);
        return Ok(facts);
    }
    wanted.progress.set(LayerState::Downloading);
    let facts = if stored {
        // Somebody else's: its bytes are fetched to prove that this person may have them, and
        // nothing is asked of the stored layer before that is proven.
        let mut incoming = app.images.content.receive().await?;
        download(source, wanted, &mut incoming, None).await?;
        unpack_stored(app, source.charge, wanted).await?
    } else {
        download_and_unpack(app, source, wanted).await?
    };
    verify::forget(app, digest).await?;
    let (registry, repository) = (&source.reference.registry, &source.reference.repository);
    let mut write = app.inventory.observe().await?;
    images::insert_origin(write.db(), digest, registry, repository).await?;
    write.commit().await?;
    wanted.progress.set(LayerState::Done);
    Ok(facts)
}

/// A stored layer is used again when this person has it already, or when a repository that it has
/// come from confirms it to this person's own credentials now. Another repository's word does not
/// count: its owner could say yes to any digest.
async fn may_reuse(app: &App, source: &Source<'_>, digest: &Digest) -> Result<bool> {
    let db = app.inventory.read();
    if images::holds_layer(db, source.owner, digest).await? {
        return Ok(true);
    }
    let (registry, repository) = (&source.reference.registry, &source.reference.repository);
    if !images::has_origin(db, digest, registry, repository).await? {
        return Ok(false);
    }
    source.session.has_blob(digest).await
}

/// Unpacks from the stored blob; at once when it is unpacked already.
pub async fn unpack_stored(app: &App, charge: &Charge, wanted: &Wanted) -> Result<LayerFacts> {
    let blob = &wanted.layer.blob;
    wanted.progress.set(LayerState::Unpacking);
    let mut sought = first_guess(blob.bytes);
    loop {
        let grant = charge.grant(&blob.digest, blob.bytes, sought).await?;
        let bytes = app.images.content.open_blob(&blob.digest)?;
        if let Some(facts) = unpack(app, wanted, bytes, grant).await? {
            // It may have been unpacked before, and be larger than was granted now.
            charge.reserve(&blob.digest, blob.bytes.saturating_add(facts.bytes)).await?;
            return Ok(facts);
        }
        if grant.whole {
            refuse_above(charge, wanted, grant).await?;
        }
        sought = u64::MAX;
    }
}

fn first_guess(stored: u64) -> u64 {
    stored.saturating_mul(UNPACKED_TIMES).max(UNPACKED_BYTES)
}

/// Unpacks what comes; `None` when it is more than was granted, and is gone again.
async fn unpack(
    app: &App,
    wanted: &Wanted,
    bytes: OwnedFd,
    grant: Grant,
) -> Result<Option<LayerFacts>> {
    let unpacking = Unpacking {
        blob: wanted.layer.blob.digest.clone(),
        diff_id: wanted.diff_id.clone(),
        compression: wanted.layer.compression,
        bytes_max: grant.bytes_max,
    };
    match app.runtime.layer_unpack(unpacking, bytes).await {
        Ok(facts) => Ok(Some(facts)),
        Err(RuntimeError::Refused(failure)) if failure.code == ABOVE_GIVEN => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Says by how much a layer is too large that was granted all that there is; fine when there is more by now.
async fn refuse_above(charge: &Charge, wanted: &Wanted, grant: Grant) -> Result<()> {
    let blob = &wanted.layer.blob;
    let least = blob.bytes.saturating_add(grant.bytes_max).saturating_add(1);
    charge.reserve(&blob.digest, least).await
}

/// Unpacks the layers that images hold and that are stored but not unpacked, as after a backup with images
/// was restored. Images of those that are not stored either are noted: they have to be pulled.
pub async fn unpack_missing(app: &App, unpacked: &[Digest]) -> Result<()> {
    let mut gone = 0;
    for layer in images::held_layers(app.inventory.read()).await? {
        if unpacked.contains(&layer.blob) {
            continue;
        }
        let pin = app.images.content.pin(&layer.blob);
        let _turn = pin.turn().await;
        if !app.images.content.has(&layer.blob) {
            let images = images::of_layer(app.inventory.read(), &layer.blob).await?;
            app.images.absent.note(&layer.blob, images);
            gone += 1;
            continue;
        }
        let _slot = app.images.unpackers.acquire().await;
        let blob = app.images.content.open_blob(&layer.blob)?;
        // Held already: what it takes is counted, however large.
        let unpacking = Unpacking {
            blob: layer.blob.clone(),
            diff_id: layer.diff_id,
            compression: layer.compression,
            bytes_max: u64::MAX,
        };
        match app.runtime.layer_unpack(unpacking, blob).await {
            Ok(_) => {
                verify::forget(app, &layer.blob).await?;
                tracing::info!(layer = %layer.blob, "unpacked from what is stored");
            }
            Err(error) => match Error::from(error) {
                Error::Unavailable(refusal) => return Err(Error::Unavailable(refusal)),
                error => tracing::warn!(layer = %layer.blob, error = %error, "stays packed"),
            },
        }
    }
    if gone > 0 {
        tracing::warn!(
            layers = gone,
            "images are listed whose layers are not here: pull them again"
        );
    }
    Ok(())
}

/// One pass: from the network into the hash, the blob's file and the unpacker.
async fn download_and_unpack(
    app: &App,
    source: &Source<'_>,
    wanted: &Wanted,
) -> Result<LayerFacts> {
    let content = &app.images.content;
    let digest = &wanted.layer.blob.digest;
    let mut phases = Phases::begin("layer", &digest.hex()[..12]);
    let mut incoming = content.receive().await?;
    let (sender, receiver) = pipe::pipe().map_err(disk("make a pipe"))?;
    // Where the host's limit for unprivileged pipes is lower, the default does.
    if let Err(errno) = fcntl(&sender, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)) {
        tracing::debug!(%errno, "the pipe to the unpacker keeps its size");
    }
    let receiver = receiver.into_blocking_fd().map_err(disk("make a pipe"))?;
    let stored = wanted.layer.blob.bytes;
    let grant = source.charge.grant(digest, stored, first_guess(stored)).await?;
    let unpack = async {
        let facts = unpack(app, wanted, receiver, grant).await?;
        if facts.is_none() && grant.whole {
            // Nothing is fetched any more that there is no room for.
            refuse_above(source.charge, wanted, grant).await?;
        }
        Ok::<_, Error>(facts)
    };
    let fetch = download(source, wanted, &mut incoming, Some(sender));
    let ((), facts) = tokio::try_join!(fetch, unpack)?;
    phases.done("fetch, hash, store and unpack");
    incoming.commit(content, digest).await?;
    phases.done("sync and name the blob");
    match facts {
        Some(facts) => {
            source.charge.reserve(digest, stored.saturating_add(facts.bytes)).await?;
            Ok(facts)
        }
        // It grows by more than most do: again, from what is stored now, and with all that there is.
        None => unpack_stored(app, source.charge, wanted).await,
    }
}

/// Fetches and verifies all bytes. A transfer that breaks off goes on from the byte that it had come
/// to: what was hashed, stored and unpacked stays so.
async fn download(
    source: &Source<'_>,
    wanted: &Wanted,
    incoming: &mut Incoming,
    mut unpacker: Option<pipe::Sender>,
) -> Result<()> {
    let blob = &wanted.layer.blob;
    let mut attempts = 0;
    loop {
        let before = incoming.bytes();
        let result = transfer(source, wanted, incoming, &mut unpacker).await;
        if result.is_ok() && incoming.bytes() >= blob.bytes {
            break;
        }
        let came = incoming.bytes() - before;
        attempts = if came >= ATTEMPT_BYTES { 1 } else { attempts + 1 };
        let why = match result {
            Ok(()) => "it ended before its end".to_owned(),
            // A registry that has stalled once will again, unless it had brought something.
            Err(Error::Unavailable(refusal))
                if refusal.code == "registry.stalled" && came < PACE_BYTES =>
            {
                return Err(Error::Unavailable(refusal));
            }
            // Only a transfer that had begun is worth another try.
            Err(Error::Unavailable(refusal)) if incoming.bytes() > 0 => refusal.detail,
            Err(error) => return Err(error),
        };
        if attempts >= ATTEMPTS_MAX {
            let (have, whole) = (incoming.bytes(), blob.bytes);
            return Err(Error::unavailable(
                "registry.broken",
                format!(
                    "the registry keeps breaking off in the middle of a layer ({have} of {whole} \
                     bytes came in {attempts} attempts); the last time: {why}"
                ),
            ));
        }
        tracing::info!(layer = %blob.digest, bytes = incoming.bytes(), why, "taken up again");
        tokio::time::sleep(PAUSE * 2u32.pow(attempts - 1)).await;
    }
    if incoming.bytes() != blob.bytes || incoming.digest() != blob.digest {
        return Err(mismatch("a layer"));
    }
    // The unpacker sees the end only now, when the bytes are known to be right.
    drop(unpacker);
    wanted.progress.set(LayerState::Unpacking);
    Ok(())
}

async fn transfer(
    source: &Source<'_>,
    wanted: &Wanted,
    incoming: &mut Incoming,
    unpacker: &mut Option<pipe::Sender>,
) -> Result<()> {
    let blob = &wanted.layer.blob;
    let have = incoming.bytes();
    let mut stream = source.session.blob(&blob.digest, have).await?;
    let mut skip = have - stream.start;
    while let Some(chunk) = stream.next().await? {
        let skipped = skip.min(chunk.len() as u64);
        skip -= skipped;
        let bytes = chunk.slice(usize::try_from(skipped).unwrap_or(chunk.len())..);
        if incoming.bytes() + bytes.len() as u64 > blob.bytes {
            return Err(mismatch("a layer"));
        }
        incoming.write(&bytes).await?;
        if let Some(pipe) = unpacker
            && pipe.write_all(&bytes).await.is_err()
        {
            // It has ended early: it had the layer already, or its answer says what is wrong.
            *unpacker = None;
        }
        wanted.progress.reached(incoming.bytes());
    }
    Ok(())
}
