//! Image references, normalised as users of `docker pull` expect.
//!
//! The grammar is read here: `oci-client`'s reader is one regular expression that holds eight MiB from
//! its first use on, and takes tags of any script. That both agree is tested.

use std::fmt;
use std::str::FromStr;

use berth_runtime::digest::Digest;

use crate::error::{Error, Result};

/// Bytes of a reference at most.
const REFERENCE_BYTES_MAX: usize = 512;
/// Bytes of a repository's name at most.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a tag at most.
const TAG_BYTES_MAX: usize = 128;
/// The registry that a name without one means.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// A registry's repository and what to take from it: a tag, a digest, or a tag pinned by a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    /// Host, with a port if one was given.
    pub registry: String,
    /// The path below it, such as `library/busybox`.
    pub repository: String,
    /// The tag; `latest` when neither tag nor digest was given.
    pub tag: Option<String>,
    /// The digest.
    pub digest: Option<Digest>,
}

impl ImageReference {
    /// Registry and repository: what tags and digests belong to.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Host and port that requests go to.
    pub fn endpoint(&self) -> &str {
        match self.registry.as_str() {
            DEFAULT_REGISTRY => "registry-1.docker.io",
            other => other,
        }
    }
}

impl FromStr for ImageReference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(120).collect();
            Error::invalid("image.reference", format!("{shown:?} is no image reference: {why}"))
        };
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(wrong("it is too long"));
        }
        if text.parse::<Digest>().is_ok() {
            return Err(wrong("a digest alone does not say of which repository"));
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => {
                let digest = digest.parse::<Digest>();
                (named, Some(digest.map_err(|_| wrong("its digest is not sha256: and 64 digits"))?))
            }
            None => (text, None),
        };
        let slash = named.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match named[slash..].find(':') {
            Some(colon) => (&named[..slash + colon], Some(&named[slash + colon + 1..])),
            None => (named, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong(
                "a tag is at most 128 letters, digits, '_', '.' and '-', and begins with none of \
                 the last two",
            ));
        }
        let (registry, path) = split_registry(name);
        if !is_registry(registry) {
            return Err(wrong("what stands before the first '/' is no host, nor host:port"));
        }
        if !path.split('/').all(is_component) {
            return Err(wrong(
                "a name is lower-case letters and digits, with single '.', '_', '__' or '-' \
                 between them, in parts with '/' between them",
            ));
        }
        let registry = match registry.to_ascii_lowercase() {
            known if known == "index.docker.io" => DEFAULT_REGISTRY.to_owned(),
            other => other,
        };
        // In small letters it would be read as a part of a name at docker.io: another image.
        if !registry.contains(['.', ':']) && registry != "localhost" {
            return Err(wrong("a registry's name has a '.' in it, or a port behind it"));
        }
        let official = registry == DEFAULT_REGISTRY && !path.contains('/');
        let repository = if official { format!("library/{path}") } else { path.to_owned() };
        if repository.len() > NAME_BYTES_MAX {
            return Err(wrong("a name is at most 255 bytes long"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry, repository, tag, digest })
    }
}

/// Host and path: the first part is a host when it looks like one (`splitDockerDomain` of the
/// distribution project).
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

/// `host` or `host:port`; a host is labels of letters, digits and inner '-'.
fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(is_label)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// One part of a repository's name.
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = text.bytes().next().zip(text.bytes().last());
    let known = |byte: u8| is_word(byte) || b"._-".contains(&byte);
    ends.is_some_and(|(first, last)| is_word(first) && is_word(last))
        && text.bytes().all(known)
        && text.split(|letter: char| letter.is_ascii_alphanumeric()).all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_BYTES_MAX
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ImageReference;

    #[test]
    fn references_read_as_users_of_docker_pull_expect() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let check = |text: &str, expected: &str| {
            let found = text.parse::<ImageReference>().map(|reference| reference.to_string());
            assert_eq!(found.ok().as_deref(), Some(expected), "{text}");
        };
        check("busybox", "docker.io/library/busybox:latest");
        check("busybox:1.36", "docker.io/library/busybox:1.36");
        check("index.docker.io/library/busybox", "docker.io/library/busybox:latest");
        check("user/app", "docker.io/user/app:latest");
        check("localhost/app", "localhost/app:latest");
        check("localhost:5000/app:v1", "localhost:5000/app:v1");
        check("ghcr.io/a/b/c", "ghcr.io/a/b/c:latest");
        check(&format!("busybox@{digest}"), &format!("docker.io/library/busybox@{digest}"));
        check(&format!("busybox:1@{digest}"), &format!("docker.io/library/busybox:1@{digest}"));
    }

    /// Texts put together of what the grammar is made of, good and bad, read by both.
    #[test]
    fn the_library_reads_the_same() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let pieces = ["a", "B1", "-", "_", "__", ".", "..", "/", ":", "5000", "localhost", &digest];
        let mut seed = 7_u64;
        let mut draw = |count: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).expect("31 bits fit") % count
        };
        let mut agreed = 0;
        for _ in 0..20_000 {
            let mut text: String = (0..=draw(7)).map(|_| pieces[draw(11)]).collect();
            if draw(4) == 0 {
                text = format!("{text}@{}", pieces[draw(12)]);
            }
            let ours = text.parse::<ImageReference>().ok().map(|reference| reference.to_string());
            let theirs = text.parse::<oci_client::Reference>().ok().map(|reference| {
                // It takes the first part for a host by its dots only, and keeps its letters' case.
                let (registry, rest) = reference.whole().split_once('/').map_or_else(
                    || (String::new(), String::new()),
                    |(registry, rest)| (registry.to_ascii_lowercase(), rest.to_owned()),
                );
                format!("{registry}/{rest}")
            });
            if ours != theirs {
                let capital = text.split('/').next().is_some_and(|first| first.contains('B'));
                assert!(capital, "{text:?}: {ours:?}, the library {theirs:?}");
            }
            agreed += usize::from(ours.is_some() && ours == theirs);
        }
        assert!(agreed > 500, "{agreed} good references are too few to mean something");
    }

    #[test]
    fn other_texts_are_refused() {
        let long = "a".repeat(600);
        let short = "busybox@sha256:abc";
        let upper = format!("busybox@sha256:{}", "A".repeat(64));
        let md5 = "busybox@md5:d41d8cd98f00b204e9800998ecf8427e";
        let bare = format!("sha256:{}", "a".repeat(64));
        for text in [
            "",
            &bare,
            "UPPER/Case",
            "Host/x",
            "a b",
            "../etc",
            "busybox:",
            "a:b:c",
            &long,
            short,
            &upper,
            md5,
        ] {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
    }
}
