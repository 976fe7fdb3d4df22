//! Writes an image as a tar archive: an OCI image layout with the `manifest.json` that `docker load`
//! wants beside it. Names are in order and times are 0: the same image gives the same bytes.
//!
//! The blobs are the stored ones, byte for byte, so that digests stay; they are pinned until the last
//! byte has been read, and read a piece at a time.

use std::sync::Arc;

use berth_runtime::digest::Digest;
use berth_runtime::id::PrincipalId;
use bytes::Bytes;
use futures_util::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::store::{Content, Pinned, disk};
use crate::app::App;
use crate::auth::{Caller, Right};
use crate::error::{Error, Result};
use crate::inventory::images::{self, ImageRow, LayerRow, ReferenceRow, ReferenceValue};
use crate::registry::manifest::MANIFEST_BYTES_MAX;
use crate::service::sharing::At;

/// Bytes read at once.
const PIECE_BYTES: u64 = 256 << 10;
/// The tar format's unit.
const BLOCK_BYTES: u64 = 512;
/// Two empty blocks end an archive.
const END_BYTES: u64 = 2 * BLOCK_BYTES;
/// Bytes of the file's suggested name at most, without its ending.
const NAME_BYTES_MAX: usize = 100;

/// An image about to be read as an archive.
pub struct Export {
    /// What a browser is to call it.
    pub file_name: String,
    /// The archive's size.
    pub bytes: u64,
    /// By which right it is read, where that can end.
    pub right: Option<At>,
    parts: Vec<Part>,
    content: Arc<Content>,
    held: Held,
}

/// The pins of an export; once they are gone, so is what nobody else holds.
struct Held {
    app: App,
    digests: Vec<Digest>,
    pins: Vec<Pinned>,
}

/// A file of the archive.
struct Part {
    name: String,
    bytes: u64,
    source: Source,
}

enum Source {
    Written(Bytes),
    Stored(Digest),
}

/// What of a manifest is not known otherwise.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    media_type: Option<String>,
}

/// Makes an image ready to be read.
///
/// # Errors
/// When the caller sees no such image, or it is another person's.
pub async fn open(app: &App, caller: &Caller, id: &str) -> Result<Export> {
    let db = app.inventory.read();
    let row = images::find(db, caller.sees(), id).await?;
    let rights = super::find(app, caller, id).await?.rights;
    if !rights.has(Right::Files) {
        caller.reads_content(row.owner)?;
    }
    // What is one's own, or everybody's, nobody takes away.
    let shared = ![caller.principal, PrincipalId::SYSTEM].contains(&row.owner);
    let right = shared.then(|| At::image(id, Right::Files));
    let layers = images::layers(db, id).await?;
    let mut digests: Vec<Digest> = layers.iter().map(|layer| layer.blob.clone()).collect();
    digests.extend([row.manifest.clone(), row.config_digest.clone()]);
    digests.sort_unstable();
    digests.dedup();
    let content = Arc::clone(&app.images.content);
    let pins = digests.iter().map(|digest| content.pin(digest)).collect();
    let held = Held { app: app.clone(), digests: digests.clone(), pins };
    // Content goes after its row: what is still listed after the pins were set stays under them.
    images::find(db, caller.sees(), id).await?;
    let references = images::references(db, id).await?;
    let mut parts = Vec::new();
    for digest in digests {
        let bytes = content.size(&digest)?;
        let name = format!("blobs/sha256/{}", digest.hex());
        parts.push(Part { name, bytes, source: Source::Stored(digest) });
    }
    let manifest = read_manifest(&content, &row.manifest).await?;
    let tags = tags(&references);
    parts.push(Part::written("index.json", &index(&row, &manifest, &tags)));
    parts.push(Part::written("manifest.json", &saved(&row, &layers, &tags)));
    parts.push(Part::written("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" })));
    let bytes = parts.iter().map(|part| BLOCK_BYTES + part.padded_bytes()).sum::<u64>() + END_BYTES;
    Ok(Export { file_name: file_name(&row, &references), bytes, right, parts, content, held })
}

impl Part {
    fn written(name: &str, document: &Value) -> Self {
        let bytes = Bytes::from(document.to_string());
        Self { name: name.to_owned(), bytes: bytes.len() as u64, source: Source::Written(bytes) }
    }

    fn padded_bytes(&self) -> u64 {
        self.bytes.next_multiple_of(BLOCK_BYTES)
    }

    fn header(&self) -> Result<Bytes> {
        // GNU's form, for sizes above 8 GiB.
        let mut header = tar::Header::new_gnu();
        header.set_path(&self.name).map_err(disk("name a file of an archive"))?;
        header.set_size(self.bytes);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        Ok(Bytes::copy_from_slice(header.as_bytes()))
    }
}

impl Export {
    /// The archive's bytes. An error ends them early.
    pub fn read(self) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        async_stream::try_stream! {
            let Self { parts, content, held, .. } = self;
            for part in parts {
                yield part.header()?;
                let padding = usize::try_from(part.padded_bytes() - part.bytes).unwrap_or(0);
                match part.source {
                    Source::Written(bytes) => yield bytes,
                    Source::Stored(digest) => {
                        let file = std::fs::File::from(content.open_blob(&digest)?);
                        let mut file = tokio::fs::File::from_std(file);
                        let mut left = part.bytes;
                        while left > 0 {
                            let piece = read_piece(&mut file, left).await?;
                            left -= piece.len() as u64;
                            yield piece;
                        }
                    }
                }
                yield Bytes::from(vec![0; padding]);
            }
            yield Bytes::from(vec![0; usize::try_from(END_BYTES).unwrap_or(0)]);
            drop(held);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pins.clear();
        let (app, digests) = (self.app.clone(), std::mem::take(&mut self.digests));
        // Without a runtime the server is going, and looks at its next start.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { super::collect_all(&app, digests).await });
        }
    }
}

async fn read_piece(file: &mut tokio::fs::File, left: u64) -> Result<Bytes> {
    let mut piece = bytes::BytesMut::with_capacity(usize::try_from(PIECE_BYTES).unwrap_or(0));
    let mut rest = file.take(left.min(PIECE_BYTES));
    let count = rest.read_buf(&mut piece).await.map_err(disk("read a blob"))?;
    if count == 0 {
        Err(Error::defect("read a blob that has become shorter"))
    } else {
        Ok(piece.freeze())
    }
}

async fn read_manifest(content: &Content, digest: &Digest) -> Result<Vec<u8>> {
    let file = tokio::fs::File::from_std(std::fs::File::from(content.open_blob(digest)?));
    let mut bytes = Vec::new();
    file.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes).await.map_err(disk("read a manifest"))?;
    Ok(bytes)
}

fn tags(references: &[ReferenceRow]) -> Vec<String> {
    let tags = references.iter().filter(|name| matches!(name.value, ReferenceValue::Tag(_)));
    tags.map(ToString::to_string).collect()
}

/// The layout's `index.json`: an entry for each tag (OCI Image Layout Specification).
fn index(row: &ImageRow, manifest: &[u8], tags: &[String]) -> Value {
    let head: Option<Head> = serde_json::from_slice(manifest).ok();
    let media_type = head
        .and_then(|head| head.media_type)
        .unwrap_or_else(|| "application/vnd.oci.image.manifest.v1+json".to_owned());
    let entry = json!({
        "mediaType": media_type, "digest": row.manifest, "size": manifest.len(),
    });
    let named = |tag: &String| {
        let mut entry = entry.clone();
        entry["annotations"] = json!({
            "io.containerd.image.name": tag, "org.opencontainers.image.ref.name": tag,
        });
        entry
    };
    let entries =
        if tags.is_empty() { vec![entry.clone()] } else { tags.iter().map(named).collect() };
    json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries,
    })
}

/// The `manifest.json` of `docker save` (Docker Image Specification v1.2).
fn saved(row: &ImageRow, layers: &[LayerRow], tags: &[String]) -> Value {
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let layers: Vec<String> = layers.iter().map(|layer| path(&layer.blob)).collect();
    json!([{ "Config": path(&row.config_digest), "RepoTags": tags, "Layers": layers }])
}

/// The end of the image's name, as far as every file system takes it.
fn file_name(row: &ImageRow, references: &[ReferenceRow]) -> String {
    let stem = match references.first() {
        Some(ReferenceRow { name, value: ReferenceValue::Tag(tag) }) => {
            format!("{}-{tag}", name.rsplit('/').next().unwrap_or(name))
        }
        Some(ReferenceRow { name, .. }) => name.rsplit('/').next().unwrap_or(name).to_owned(),
        None => row.id.chars().take(12).collect(),
    };
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let stem: String = stem.chars().map(safe).take(NAME_BYTES_MAX).collect();
    format!("{stem}.tar")
}
