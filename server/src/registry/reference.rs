//! Image references, normalised as users of `docker pull` expect.

use std::fmt;
use std::str::FromStr;

use berth_runtime::digest::Digest;

use crate::error::{Error, Result};

/// Bytes of a reference at most.
const REFERENCE_BYTES_MAX: usize = 512;
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
        let parsed: oci_client::Reference =
            text.parse().map_err(|error| wrong(&format!("{error}")))?;
        let digest = match parsed.digest() {
            Some(digest) => {
                let digest = digest.parse::<Digest>();
                Some(digest.map_err(|_| wrong("its digest is not sha256: and 64 digits"))?)
            }
            None => None,
        };
        let registry = match parsed.registry().to_ascii_lowercase() {
            known if known == "index.docker.io" => DEFAULT_REGISTRY.to_owned(),
            other => other,
        };
        let tag = parsed.tag().map(str::to_owned);
        let tag = if tag.is_none() && digest.is_none() { Some("latest".into()) } else { tag };
        if tag.as_ref().is_some_and(|tag| tag.len() > 128) {
            return Err(wrong("its tag is too long"));
        }
        Ok(Self { registry, repository: parsed.repository().to_owned(), tag, digest })
    }
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

    #[test]
    fn other_texts_are_refused() {
        let long = "a".repeat(600);
        let short = "busybox@sha256:abc";
        let upper = format!("busybox@sha256:{}", "A".repeat(64));
        let md5 = "busybox@md5:d41d8cd98f00b204e9800998ecf8427e";
        for text in
            ["", "UPPER/Case", "a b", "../etc", "busybox:", "a:b:c", &long, short, &upper, md5]
        {
            assert!(text.parse::<ImageReference>().is_err(), "{text}");
        }
    }
}
