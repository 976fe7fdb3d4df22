//! Reads an uploaded archive (`docker save`, or an OCI layout in a tar) strictly: only regular
//! files in it count, by their exact names; nothing is extracted, no name ever meets the host's file
//! system, and everything is capped.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

use berth_runtime::digest::Digest;
use berth_runtime::wire::{Compression, LAYERS_MAX};
use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::registry::manifest::{
    self, CONFIG_BYTES_MAX, Document, ImageConfig, ImageManifest, MANIFEST_BYTES_MAX,
};

/// Files in an archive at most.
const FILES_MAX: usize = 10_000;
/// Images in an archive at most.
const IMAGES_MAX: usize = 16;
/// Entries of an index at most, which has one for each of an image's names, and names of an image.
const ENTRIES_MAX: usize = 128;
/// Bytes of headers from one file to the next at most: the reader keeps long names in memory, as long
/// as an archive says that they are.
const HEADERS_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a name at most.
const NAME_BYTES_MAX: usize = 512;

/// The upload with the places of its files.
pub struct Archive {
    file: std::fs::File,
    parts: HashMap<String, Part>,
}

/// A file's place in the upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

/// An image found in an archive.
pub struct Found {
    /// The names that the archive gives it.
    pub names: Vec<String>,
    /// Its manifest, made here when the archive has none.
    pub manifest: Vec<u8>,
    /// Its config as it stands in the archive.
    pub config_bytes: Vec<u8>,
    /// The same, read.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<FoundLayer>,
}

/// A layer found in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLayer {
    /// Where its bytes are.
    pub part: Part,
    /// Their digest.
    pub digest: Digest,
    /// How they are compressed.
    pub compression: Compression,
}

/// One entry of `manifest.json` (Docker Image Specification v1.2, "Combined Image JSON").
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct LayoutIndex {
    manifests: Vec<LayoutEntry>,
}

#[derive(Deserialize)]
struct LayoutEntry {
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

/// An upload of which only so much is read at a time; contents are skipped.
struct Headers<'a> {
    file: &'a std::fs::File,
    left: &'a Cell<u64>,
}

impl Read for Headers<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.take(self.left.get()).read(out)?;
        if count == 0 && self.left.get() == 0 {
            return Err(std::io::Error::other("its headers are too long"));
        }
        self.left.set(self.left.get() - count as u64);
        Ok(count)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(to)
    }
}

impl Archive {
    /// Finds the files in an upload.
    pub fn open(file: std::fs::File) -> Result<Self> {
        let length = file.metadata().map_err(unreadable)?.len();
        let mut parts = HashMap::new();
        let left = Cell::new(HEADERS_BYTES_MAX);
        let mut reader = tar::Archive::new(Headers { file: &file, left: &left });
        for (count, entry) in reader.entries_with_seek().map_err(unreadable)?.enumerate() {
            let entry = entry.map_err(unreadable)?;
            left.set(HEADERS_BYTES_MAX);
            if count >= FILES_MAX {
                return Err(wrong("it holds too many files"));
            }
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = entry.path_bytes();
            let Ok(name) = std::str::from_utf8(&name) else { continue };
            if name.len() > NAME_BYTES_MAX {
                continue;
            }
            let part = Part { offset: entry.raw_file_position(), bytes: entry.size() };
            if part.offset.checked_add(part.bytes).is_none_or(|end| end > length) {
                return Err(wrong("it is cut off"));
            }
            let name = name.strip_prefix("./").unwrap_or(name).to_owned();
            if parts.insert(name, part).is_some() {
                return Err(wrong("it holds two files of one name"));
            }
        }
        Ok(Self { file, parts })
    }

    /// The images in it.
    pub fn images(&mut self) -> Result<Vec<Found>> {
        // What is both is read as a layout: it has the manifest that the image was made with.
        let images = if self.parts.contains_key("oci-layout") {
            self.layout_images()?
        } else if self.parts.contains_key("manifest.json") {
            self.saved_images()?
        } else {
            return Err(wrong("it has neither manifest.json (docker save) nor oci-layout"));
        };
        if images.is_empty() {
            Err(wrong("it holds no image for this machine"))
        } else {
            Ok(images)
        }
    }

    /// Reads a part from its beginning; `take` sees its bytes.
    pub fn read(&mut self, part: Part, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.file.seek(SeekFrom::Start(part.offset)).map_err(unreadable)?;
        let mut rest = (&self.file).take(part.bytes);
        let mut buffer = vec![0; 256 * 1024];
        let mut seen: u64 = 0;
        loop {
            let count = rest.read(&mut buffer).map_err(unreadable)?;
            if count == 0 {
                break;
            }
            seen += count as u64;
            take(&buffer[..count])?;
        }
        if seen == part.bytes { Ok(()) } else { Err(wrong("it is cut off")) }
    }

    fn saved_images(&mut self) -> Result<Vec<Found>> {
        let bytes = self.small("manifest.json", MANIFEST_BYTES_MAX)?;
        let saved: Vec<SavedImage> = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(format!("manifest.json cannot be read: {error}")))?;
        if saved.len() > IMAGES_MAX {
            return Err(wrong("it holds too many images"));
        }
        saved.into_iter().map(|image| self.saved_image(image)).collect()
    }

    fn saved_image(&mut self, saved: SavedImage) -> Result<Found> {
        if saved.layers.is_empty() || saved.layers.len() > LAYERS_MAX {
            return Err(wrong(format!("an image has not 1 to {LAYERS_MAX} layers")));
        }
        let config_bytes = self.small(&saved.config, CONFIG_BYTES_MAX)?;
        let config = manifest::parse_config(&config_bytes, saved.layers.len())?;
        let mut layers = Vec::new();
        for name in &saved.layers {
            let part = self.part(name)?;
            layers.push(self.layer(part)?);
        }
        let manifest = synthetic_manifest(&config_bytes, &layers);
        let names = saved.repo_tags.unwrap_or_default();
        if names.len() > ENTRIES_MAX {
            return Err(wrong("an image in it has too many names"));
        }
        Ok(Found { names, manifest, config_bytes, config, layers })
    }

    fn layout_images(&mut self) -> Result<Vec<Found>> {
        let layout: Layout = self.json("oci-layout")?;
        if layout.image_layout_version != "1.0.0" {
            return Err(wrong("its oci-layout has another version than 1.0.0"));
        }
        let index: LayoutIndex = self.json("index.json")?;
        if index.manifests.len() > ENTRIES_MAX {
            return Err(wrong("its index has too many entries"));
        }
        let mut images: Vec<Found> = Vec::new();
        for entry in index.manifests {
            let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
            let name = names.iter().find_map(|key| entry.annotations.get(*key)).cloned();
            let (bytes, manifest) = self.layout_manifest(&entry)?;
            if let Some(known) = images.iter_mut().find(|known| known.manifest == bytes) {
                known.names.extend(name);
                continue;
            }
            if images.len() >= IMAGES_MAX {
                return Err(wrong("it holds too many images"));
            }
            images.push(self.layout_image(name.into_iter().collect(), bytes, &manifest)?);
        }
        Ok(images)
    }

    /// The manifest that an entry of the index stands for, for this machine.
    fn layout_manifest(&mut self, entry: &LayoutEntry) -> Result<(Vec<u8>, ImageManifest)> {
        let digest: Digest = entry.digest.parse().map_err(|error| wrong(format!("{error}")))?;
        let bytes = self.blob(&digest, MANIFEST_BYTES_MAX)?;
        let entries = match manifest::parse(&bytes, None)? {
            Document::Image(manifest) => return Ok((bytes, manifest)),
            Document::Index(entries) => entries,
        };
        let digest = manifest::choose(&entries)?.digest.clone();
        let bytes = self.blob(&digest, MANIFEST_BYTES_MAX)?;
        match manifest::parse(&bytes, None)? {
            Document::Image(manifest) => Ok((bytes, manifest)),
            Document::Index(_) => Err(wrong("an index holds an index")),
        }
    }

    fn layout_image(
        &mut self,
        names: Vec<String>,
        bytes: Vec<u8>,
        manifest: &ImageManifest,
    ) -> Result<Found> {
        let config_bytes = self.blob(&manifest.config.digest, CONFIG_BYTES_MAX)?;
        if config_bytes.len() as u64 != manifest.config.bytes {
            return Err(crate::registry::client::mismatch("the image's config"));
        }
        let config = manifest::parse_config(&config_bytes, manifest.layers.len())?;
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let part = self.part(&blob_name(&layer.blob.digest))?;
            let found = self.layer(part)?;
            if found.digest != layer.blob.digest || part.bytes != layer.blob.bytes {
                return Err(crate::registry::client::mismatch("a layer"));
            }
            layers.push(FoundLayer { compression: layer.compression, ..found });
        }
        Ok(Found { names, manifest: bytes, config_bytes, config, layers })
    }

    fn layer(&mut self, part: Part) -> Result<FoundLayer> {
        use sha2::{Digest as _, Sha256};
        let mut hash = Sha256::new();
        let mut magic = Vec::new();
        self.read(part, |bytes| {
            if magic.len() < 4 {
                magic.extend(bytes.iter().take(4 - magic.len()));
            }
            hash.update(bytes);
            Ok(())
        })?;
        let compression = match magic.as_slice() {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
            _ => Compression::None,
        };
        Ok(FoundLayer { part, digest: Digest::from_hash(&hash.finalize().into()), compression })
    }

    fn blob(&mut self, digest: &Digest, bytes_max: u64) -> Result<Vec<u8>> {
        let bytes = self.small(&blob_name(digest), bytes_max)?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(crate::registry::client::mismatch("a document"))
        }
    }

    fn json<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Result<T> {
        let bytes = self.small(name, MANIFEST_BYTES_MAX)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| wrong(format!("{name} cannot be read: {error}")))
    }

    fn small(&mut self, name: &str, bytes_max: u64) -> Result<Vec<u8>> {
        let part = self.part(name)?;
        if part.bytes > bytes_max {
            return Err(wrong(format!("a document is larger than {bytes_max} bytes")));
        }
        let mut all = Vec::new();
        self.read(part, |bytes| {
            all.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(all)
    }

    fn part(&self, name: &str) -> Result<Part> {
        let shown: String = name.chars().take(100).collect();
        let found = self.parts.get(name).copied();
        found.ok_or_else(|| wrong(format!("it has no file {shown:?}")))
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// `docker save` archives of old have no manifest of their own.
fn synthetic_manifest(config: &[u8], layers: &[FoundLayer]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| {
            let suffix = match layer.compression {
                Compression::None => "",
                Compression::Gzip => "+gzip",
                Compression::Zstd => "+zstd",
            };
            json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
                "digest": layer.digest, "size": layer.part.bytes,
            })
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config), "size": config.len(),
        },
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}

fn wrong(detail: impl Into<String>) -> Error {
    Error::invalid("image.archive", format!("the archive is refused: {}", detail.into()))
}

fn unreadable(error: std::io::Error) -> Error {
    wrong(format!("it cannot be read: {error}"))
}
