//! Manifests, indexes and image configs, read strictly: the same bytes never mean two things.

use std::collections::BTreeMap;

use berth_runtime::digest::Digest;
use berth_runtime::wire::{Compression, LAYERS_MAX};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// Bytes of a manifest or index at most, as other engines have it.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Bytes of an image config at most. Some of what it may hold takes thirty times as much once it is
/// read (`{}` for a step of its history).
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Entries of an index at most.
const INDEX_ENTRIES_MAX: usize = 1_000;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What is asked for in `Accept`.
pub const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

/// A manifest, or an index of manifests.
#[derive(Debug, Clone)]
pub enum Document {
    /// One image.
    Image(ImageManifest),
    /// One image per platform.
    Index(Vec<IndexEntry>),
}

/// One image (OCI image-spec, manifest.md).
#[derive(Debug, Clone)]
pub struct ImageManifest {
    /// The config blob.
    pub config: Blob,
    /// The layers, lowest first.
    pub layers: Vec<LayerBlob>,
}

/// Digest and size of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A layer's blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest and size.
    pub blob: Blob,
    /// How it is compressed.
    pub compression: Compression,
}

/// One manifest of an index.
#[derive(Debug, Clone)]
pub struct IndexEntry {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// What it runs on.
    pub platform: Option<Platform>,
}

/// An operating system and a processor architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// As Go names it: `amd64`, `arm64`.
    pub architecture: String,
    /// Such as `v8`.
    #[serde(default)]
    pub variant: Option<String>,
}

/// An image's config (OCI image-spec, config.md), as far as Berth uses or shows it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Processor architecture.
    pub architecture: String,
    /// Operating system.
    pub os: String,
    /// Architecture variant.
    #[serde(default)]
    pub variant: Option<String>,
    /// When it was made, RFC 3339.
    #[serde(default)]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default)]
    pub author: Option<String>,
    /// How a container of it runs.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: RunConfig,
    /// The layers' diff_ids.
    pub rootfs: RootFs,
    /// How each layer came to be.
    #[serde(default, deserialize_with = "null_is_default")]
    pub history: Vec<History>,
}

/// How a container of an image runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RunConfig {
    /// `user[:group]`.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// `NAME=value` each.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(deserialize_with = "null_is_default")]
    pub entrypoint: Vec<String>,
    /// Arguments, or the program when there is no entrypoint.
    #[serde(deserialize_with = "null_is_default")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// Labels; never read as policy.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to end.
    #[serde(deserialize_with = "null_is_default")]
    pub stop_signal: String,
    /// Paths that are meant to be volumes.
    #[serde(deserialize_with = "null_is_default")]
    pub volumes: BTreeMap<String, Value>,
    /// Ports that it listens on, such as `80/tcp`.
    #[serde(deserialize_with = "null_is_default")]
    pub exposed_ports: BTreeMap<String, Value>,
}

/// The layers of a config.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// How one layer came to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default)]
    pub created: Option<String>,
    /// By which command.
    #[serde(default)]
    pub created_by: Option<String>,
    /// A remark.
    #[serde(default)]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(default)]
    pub empty_layer: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

/// Reads a manifest or index. `content_type` is what the registry called it, if it did.
pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document> {
    let raw: RawDocument = serde_json::from_str(text(bytes)?)
        .map_err(|error| wrong(format!("the manifest cannot be read: {error}")))?;
    if raw.schema_version != 2 || raw.fs_layers.is_some() {
        return Err(wrong("the manifest is of a schema other than 2"));
    }
    check_types(&raw, content_type)?;
    // CVE-2021-41190: a document with both would be one thing to one reader and another to the next.
    match (raw.config, raw.layers, raw.manifests) {
        (Some(config), Some(layers), None) => image(&config, &layers).map(Document::Image),
        (None, None, Some(manifests)) => index(manifests).map(Document::Index),
        _ => Err(wrong("the manifest is neither an image nor an index, or both")),
    }
}

fn check_types(raw: &RawDocument, content_type: Option<&str>) -> Result<()> {
    let content_type = content_type
        .map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    // Static file servers and old registries send a general type; then the document's own counts.
    let known = content_type.filter(|text| ACCEPTED.contains(&text.as_str()));
    if let (Some(header), Some(body)) = (&known, &raw.media_type)
        && header != body
    {
        return Err(wrong(format!("the manifest says {body:?}, the registry {header:?}")));
    }
    let Some(kind) = known.as_ref().or(raw.media_type.as_ref()) else { return Ok(()) };
    let fits = match kind.as_str() {
        OCI_INDEX | DOCKER_INDEX => raw.manifests.is_some() && raw.layers.is_none(),
        OCI_MANIFEST | DOCKER_MANIFEST => raw.layers.is_some() && raw.manifests.is_none(),
        _ => false,
    };
    if fits { Ok(()) } else { Err(wrong(format!("the manifest is no {kind:?}"))) }
}

fn image(config: &RawDescriptor, layers: &[RawDescriptor]) -> Result<ImageManifest> {
    if layers.is_empty() || layers.len() > LAYERS_MAX {
        return Err(wrong(format!("the image has {} layers, not 1 to {LAYERS_MAX}", layers.len())));
    }
    let config = blob(config)?;
    if config.bytes > CONFIG_BYTES_MAX {
        return Err(wrong(format!("the image's config is larger than {CONFIG_BYTES_MAX} bytes")));
    }
    let layers = layers.iter().map(layer).collect::<Result<Vec<_>>>()?;
    Ok(ImageManifest { config, layers })
}

fn index(manifests: Vec<RawDescriptor>) -> Result<Vec<IndexEntry>> {
    if manifests.len() > INDEX_ENTRIES_MAX {
        return Err(wrong("the index has too many entries"));
    }
    manifests
        .into_iter()
        .map(|raw| {
            let digest = blob(&raw)?.digest;
            Ok(IndexEntry { digest, media_type: raw.media_type, platform: raw.platform })
        })
        .collect()
}

fn layer(raw: &RawDescriptor) -> Result<LayerBlob> {
    let compression = match raw.media_type.as_str() {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        other => {
            let shown: String = other.chars().take(100).collect();
            return Err(wrong(format!("a layer has the unknown media type {shown:?}")));
        }
    };
    Ok(LayerBlob { blob: blob(raw)?, compression })
}

fn blob(raw: &RawDescriptor) -> Result<Blob> {
    let digest = raw.digest.parse().map_err(|error| wrong(format!("{error}")))?;
    if i64::try_from(raw.size).is_err() {
        return Err(wrong("a size is out of range"));
    }
    Ok(Blob { digest, bytes: raw.size })
}

/// The platform of this host, as images name it.
pub fn host_platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform { os: "linux".into(), architecture: architecture.into(), variant: None }
}

/// The index's entry for this host.
pub fn choose(entries: &[IndexEntry]) -> Result<&IndexEntry> {
    let host = host_platform();
    let fits = |entry: &&IndexEntry| {
        entry.platform.as_ref().is_some_and(|platform| {
            platform.os == host.os
                && platform.architecture == host.architecture
                && matches!(platform.variant.as_deref(), None | Some("" | "v1" | "v8"))
        })
    };
    let found = entries.iter().find(fits).or(match entries {
        // An index of one image that does not say what it runs on; its config does.
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    });
    let found = found.ok_or_else(|| {
        let has: Vec<String> = entries
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .filter(|platform| platform.os != "unknown")
            .take(12)
            .map(|platform| format!("{}/{}", platform.os, platform.architecture))
            .collect();
        wrong(format!(
            "the image is not made for {}/{}, but for: {}",
            host.os,
            host.architecture,
            has.join(", ")
        ))
    })?;
    if !matches!(found.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST) {
        return Err(wrong("the index's entry for this platform is no image manifest"));
    }
    Ok(found)
}

/// Reads an image's config and holds it against its manifest's number of layers.
pub fn parse_config(bytes: &[u8], layers: usize) -> Result<ImageConfig> {
    let config: ImageConfig = serde_json::from_str(text(bytes)?)
        .map_err(|error| wrong(format!("the image's config cannot be read: {error}")))?;
    let host = host_platform();
    if config.os != host.os || config.architecture != host.architecture {
        return Err(wrong(format!(
            "the image is made for {}/{}, this machine is {}/{}",
            config.os, config.architecture, host.os, host.architecture
        )));
    }
    if config.rootfs.diff_ids.len() != layers {
        return Err(wrong(format!(
            "the image's config has {} layers, its manifest {layers}",
            config.rootfs.diff_ids.len()
        )));
    }
    Ok(config)
}

/// JSON is UTF-8 (RFC 8259, section 8.1), in what is passed over as well.
fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| wrong("a document of the image is not UTF-8"))
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn wrong(detail: impl Into<String>) -> Error {
    Error::invalid("image.malformed", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn descriptor(kind: &str) -> Value {
        json!({"mediaType": kind, "digest": format!("sha256:{}", "a".repeat(64)), "size": 5})
    }

    fn manifest() -> Value {
        json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
        })
    }

    fn read(document: &Value, content_type: Option<&str>) -> Result<Document> {
        parse(document.to_string().as_bytes(), content_type)
    }

    #[test]
    fn a_plain_manifest_is_read() {
        for content_type in [None, Some(OCI_MANIFEST), Some("application/json; charset=utf-8")] {
            assert!(matches!(read(&manifest(), content_type), Ok(Document::Image(_))));
        }
    }

    #[test]
    fn documents_that_could_mean_two_things_are_refused() {
        let mut both = manifest();
        both["manifests"] = json!([descriptor(OCI_MANIFEST)]);
        assert!(read(&both, None).is_err());
        let mut untyped = both.clone();
        untyped.as_object_mut().unwrap().remove("mediaType");
        assert!(read(&untyped, None).is_err());
        assert!(read(&manifest(), Some(OCI_INDEX)).is_err());
        assert!(read(&manifest(), Some(DOCKER_MANIFEST)).is_err());
        let mut named_otherwise = manifest();
        named_otherwise["mediaType"] = json!(OCI_INDEX);
        assert!(read(&named_otherwise, None).is_err());
        let mut old = manifest();
        old["schemaVersion"] = json!(1);
        assert!(read(&old, None).is_err());
        let twice = manifest().to_string().replacen('{', "{\"layers\":[],", 1);
        assert!(parse(twice.as_bytes(), None).is_err());
        let other = manifest().to_string().replacen('{', "{\"x\":\"?\",", 1).into_bytes();
        let other: Vec<u8> = other.into_iter().map(|b| if b == b'?' { 0xff } else { b }).collect();
        assert!(parse(&other, None).is_err());
        let deep =
            format!("{{\"schemaVersion\":2,\"x\":{}{}}}", "[".repeat(9999), "]".repeat(9999));
        assert!(parse(deep.as_bytes(), None).is_err());
    }

    #[test]
    fn digests_in_documents_are_strict() {
        let long = "a".repeat(64);
        for digest in
            ["sha256:../../x", "sha256:abc", "md5:x", &format!("sha256:{}", "A".repeat(64)), &long]
        {
            let mut document = manifest();
            document["layers"][0]["digest"] = json!(digest);
            assert!(read(&document, None).is_err(), "{digest}");
        }
    }

    #[test]
    fn nulls_in_a_config_are_empty() {
        let host = host_platform();
        let text = json!({"os": "linux", "architecture": host.architecture, "config": {"Env": null,
            "Entrypoint": null, "Cmd": ["sh"], "Volumes": null}, "rootfs": {"type": "layers",
            "diff_ids": []}, "history": null});
        let config = parse_config(text.to_string().as_bytes(), 0).expect("a good config");
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(config.config.entrypoint.is_empty());
    }
}
