//! One pull's dealings with one repository, through `oci-client`.
//!
//! Whatever it asks for goes through the [`Gateway`], which see. What it answers is hashed here
//! again: no digest is taken on the library's word.

use std::time::Duration;

use berth_runtime::digest::Digest;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use oci_client::Reference;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use url::Url;

use super::gateway::{Gateway, PassHolder};
use super::manifest::ACCEPTED;
use super::outbound::Outbound;
use super::policy::RegistriesConfig;
use super::reference::ImageReference;
use crate::error::{Error, Result};

/// The gateway gives up first, and says why.
const READ_TIMEOUT_MORE: Duration = Duration::from_secs(15);
/// Tokens that do not say are good for 60 s (the token specification's default).
const TOKEN_SECS: usize = 50;

/// Name and password for a registry.
#[derive(Clone)]
pub struct Credentials {
    /// The user's name there.
    pub username: String,
    /// The password or token.
    pub password: String,
}

/// The way to registries.
pub struct Registry {
    gateway: Gateway,
}

/// One pull's dealings with one repository.
pub struct Session {
    client: oci_client::Client,
    pass: PassHolder,
    auth: RegistryAuth,
    endpoint: String,
    repository: String,
}

/// A manifest or index as it came.
#[derive(Debug)]
pub struct Fetched {
    /// The bytes.
    pub bytes: Bytes,
    /// Their digest.
    pub digest: Digest,
    /// What the registry called them.
    pub content_type: Option<String>,
}

/// A blob on its way, from byte `start` on.
pub struct BlobStream<'a> {
    /// Where it really begins: not where it was asked to when the registry knows no ranges.
    pub start: u64,
    chunks: BoxStream<'static, std::io::Result<Bytes>>,
    session: &'a Session,
    path: String,
}

impl Registry {
    /// A way to registries under this policy; to be called inside the server's runtime.
    ///
    /// # Errors
    /// When a file of the configuration cannot be used, or no port can be had.
    pub fn new(config: &RegistriesConfig) -> Result<Self> {
        Ok(Self { gateway: Gateway::open(Outbound::new(config)?)? })
    }

    /// Begins to deal with the repository of `reference`.
    ///
    /// # Errors
    /// When the operator does not allow the registry.
    pub fn session(
        &self,
        reference: &ImageReference,
        credentials: Option<Credentials>,
    ) -> Result<Session> {
        let policy = self.gateway.policy();
        policy.check_registry(&reference.registry)?;
        let endpoint = reference.endpoint();
        let base = Url::parse(&format!("{}://{endpoint}/v2/", policy.scheme(endpoint)));
        let base = base.map_err(|_| {
            Error::invalid("image.reference", format!("{endpoint:?} is no registry's address"))
        })?;
        let repository = reference.repository.clone();
        let (pass, proxy) = self.gateway.pass(base, &repository, credentials.is_some())?;
        let config = ClientConfig {
            protocol: ClientProtocol::Http,
            http_proxy: Some(proxy.clone()),
            // Never used: no address that the gateway shows it is https. If it were, it is refused.
            https_proxy: Some(proxy),
            platform_resolver: None,
            default_token_expiration_secs: TOKEN_SECS,
            read_timeout: Some(self.gateway.stall().saturating_add(READ_TIMEOUT_MORE)),
            ..ClientConfig::default()
        };
        let client = oci_client::Client::try_from(config)
            .map_err(|source| Error::broken("set up the registry client", source))?;
        let auth = match credentials {
            Some(Credentials { username, password }) => RegistryAuth::Basic(username, password),
            None => RegistryAuth::Anonymous,
        };
        Ok(Session { client, pass, auth, endpoint: endpoint.to_owned(), repository })
    }
}

impl Session {
    /// Fetches a manifest or index by tag or digest; a digest is checked.
    ///
    /// # Errors
    /// When it is not there, may not be read, or is not what it should be.
    pub async fn manifest(&self, tag: Option<&str>, digest: Option<&Digest>) -> Result<Fetched> {
        let wanted = digest.map(Digest::as_str).or(tag).unwrap_or("latest");
        let reference = match digest {
            Some(digest) => self.reference(None, Some(digest)),
            None => self.reference(Some(wanted), None),
        };
        let path = self.path("manifests", wanted);
        let ask = || self.client.pull_manifest_raw(&reference, &self.auth, &ACCEPTED);
        let mut answer = ask().await;
        if answer.is_err() && self.learns(&path) {
            answer = ask().await;
        }
        let (bytes, _) = answer.map_err(|error| self.explain(&path, "the manifest", &error))?;
        let found = Digest::of(&bytes);
        if digest.is_some_and(|wanted| *wanted != found) {
            return Err(mismatch("the manifest"));
        }
        Ok(Fetched { bytes, digest: found, content_type: self.pass.content_type() })
    }

    /// Whether this repository gives this blob to these credentials.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let reference = self.reference(None, Some(digest));
        let path = self.path("blobs", digest.as_str());
        let ask = || self.client.blob_exists(&reference, digest.as_str());
        let mut answer = ask().await;
        if answer.is_err() && self.learns(&path) {
            answer = ask().await;
        }
        let failure = self.pass.take_failure(&path);
        match (answer, failure) {
            (Ok(there), _) => Ok(there),
            // It was asked, and did not say yes.
            (Err(_), Some(failure)) if failure.status.is_some() => Ok(false),
            (Err(_), Some(failure)) => Err(failure.error),
            (Err(error), None) => Err(self.explain(&path, "a blob", &error)),
        }
    }

    /// Begins to fetch a blob from byte `offset` on.
    ///
    /// # Errors
    /// When it is not there or may not be read.
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<BlobStream<'_>> {
        let reference = self.reference(None, Some(digest));
        let path = self.path("blobs", digest.as_str());
        // From byte 0 on, too: the client hashes only what it has asked for whole, and once is enough.
        let ask =
            || self.client.pull_blob_stream_partial(&reference, digest.as_str(), offset, None);
        let mut answer = ask().await;
        if answer.is_err() && self.learns(&path) {
            answer = ask().await;
        }
        let (start, sized) = match answer.map_err(|error| self.explain(&path, "a blob", &error))? {
            BlobResponse::Full(sized) => (0, sized),
            BlobResponse::Partial(sized) => (offset, sized),
        };
        Ok(BlobStream { start, chunks: sized.stream, session: self, path })
    }

    /// Fetches a small blob whole and checks it.
    ///
    /// # Errors
    /// As [`Session::blob`]; when it is larger than `bytes_max` or not what its digest says.
    pub async fn small_blob(&self, digest: &Digest, bytes_max: u64) -> Result<Bytes> {
        let mut blob = self.blob(digest, 0).await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = blob.next().await? {
            if (bytes.len() + chunk.len()) as u64 > bytes_max {
                let what = format!("the image's config is larger than {bytes_max} bytes");
                return Err(Error::exhausted("image.too-large", what));
            }
            bytes.extend_from_slice(&chunk);
        }
        if Digest::of(&bytes) != *digest {
            return Err(mismatch("the image's config"));
        }
        Ok(bytes.freeze())
    }

    fn reference(&self, tag: Option<&str>, digest: Option<&Digest>) -> Reference {
        let (registry, repository) = (self.endpoint.clone(), self.repository.clone());
        match digest {
            Some(digest) => Reference::with_digest(registry, repository, digest.to_string()),
            None => Reference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned()),
        }
    }

    fn path(&self, kind: &str, name: &str) -> String {
        format!("/v2/{}/{kind}/{name}", self.repository)
    }

    /// Whether a request failed only because the registry had not yet said how it wants to be asked.
    fn learns(&self, path: &str) -> bool {
        self.pass.take_lesson(path)
    }

    /// What went wrong: the gateway knows, unless the client itself refused what it got.
    fn explain(&self, path: &str, what: &str, error: &OciDistributionError) -> Error {
        if let Some(failure) = self.pass.take_failure(path) {
            return failure.error;
        }
        match error {
            OciDistributionError::DigestError(_) => mismatch(what),
            other => {
                let (host, why) = (&self.endpoint, other.to_string());
                let text = format!("the exchange with {host} failed: {why}");
                Error::unavailable("registry.unreachable", text)
            }
        }
    }
}

impl BlobStream<'_> {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// When the transfer breaks off.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.chunks.next().await {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(error)) => {
                let error = OciDistributionError::IoError(error);
                Err(self.session.explain(&self.path, "a blob", &error))
            }
        }
    }
}

/// A content that is not what its digest says.
pub fn mismatch(what: &str) -> Error {
    Error::invalid("image.digest-mismatch", format!("{what} is not what its digest says"))
}
