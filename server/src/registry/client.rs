//! Requests to one registry, every hop checked, every body capped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_runtime::digest::Digest;
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RANGE};
use reqwest::{Client, Method, Response, StatusCode};
use tokio::sync::Mutex;
use url::Url;

use super::auth::{Challenge, TokenAnswer, challenge};
use super::manifest::{ACCEPTED, MANIFEST_BYTES_MAX};
use super::policy::{CheckedResolver, ForbiddenAddress, Policy, Reach, RegistriesConfig};
use super::reference::ImageReference;
use crate::error::{Error, Result};

/// Hops of one request at most.
const HOPS_MAX: usize = 6;
/// A token service's answer at most, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Without a byte for this long, a transfer has failed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A token that does not say is good for this long (the token specification's default).
const TOKEN_SECS: u64 = 60;

/// Name and password for a registry.
#[derive(Clone)]
pub struct Credentials {
    /// The user's name there.
    pub username: String,
    /// The password or token.
    pub password: String,
}

/// The transport.
pub struct Registry {
    policy: Policy,
    public: Client,
    listed: Client,
}

/// One pull's dealings with one repository.
pub struct Session {
    registry: Arc<Registry>,
    base: Url,
    repository: String,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<Authorization>>,
}

#[derive(Clone)]
struct Authorization {
    header: HeaderValue,
    until: Option<Instant>,
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

impl Registry {
    /// A transport under this policy.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn new(config: &RegistriesConfig) -> Result<Self> {
        // One provider for the whole program; that it is set already is as good.
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("the TLS provider was set before");
        }
        let policy = Policy::new(config);
        let public = transport(&policy, Reach::Public)?;
        let listed = transport(&policy, Reach::Listed)?;
        Ok(Self { policy, public, listed })
    }

    /// Begins to deal with the repository of `reference`.
    ///
    /// # Errors
    /// When the operator does not allow the registry.
    pub fn session(
        self: &Arc<Self>,
        reference: &ImageReference,
        credentials: Option<Credentials>,
    ) -> Result<Session> {
        self.policy.check_registry(&reference.registry)?;
        let endpoint = reference.endpoint();
        let scheme = self.policy.scheme(endpoint);
        let base = Url::parse(&format!("{scheme}://{endpoint}/v2/")).map_err(|_| {
            Error::invalid("image.reference", format!("{endpoint:?} is no registry's address"))
        })?;
        Ok(Session {
            registry: Arc::clone(self),
            base,
            repository: reference.repository.clone(),
            credentials,
            authorization: Mutex::new(None),
        })
    }
}

fn transport(policy: &Policy, reach: Reach) -> Result<Client> {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(IDLE_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(20))
        .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(CheckedResolver::new(policy.clone(), reach)))
        .build()
        .map_err(|source| Error::broken("set up the registry transport", source))
}

impl Session {
    /// Fetches a manifest or index by tag or digest; a digest is checked.
    ///
    /// # Errors
    /// When it is not there, may not be read, or is not what it should be.
    pub async fn manifest(&self, tag: Option<&str>, digest: Option<&Digest>) -> Result<Fetched> {
        let wanted = digest.map(Digest::as_str).or(tag).unwrap_or("latest");
        let url = self.url("manifests", wanted)?;
        let accept = ACCEPTED.join(", ");
        let response = self.send(Method::GET, url, Some(&accept), None).await?;
        let response = self.expect_ok(response, wanted)?;
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let content_type = header(CONTENT_TYPE.as_str());
        let said = header("docker-content-digest");
        let bytes = read_capped(response, MANIFEST_BYTES_MAX, "the manifest").await?;
        let found = Digest::of(&bytes);
        if digest.is_some_and(|wanted| *wanted != found) {
            return Err(mismatch("the manifest"));
        }
        if said.is_some_and(|said| said.starts_with("sha256:") && said != found.as_str()) {
            return Err(mismatch("the manifest"));
        }
        Ok(Fetched { bytes, digest: found, content_type })
    }

    /// Whether this repository gives this blob to these credentials.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let url = self.url("blobs", digest.as_str())?;
        let response = self.send(Method::HEAD, url, None, None).await?;
        Ok(response.status() == StatusCode::OK)
    }

    /// Begins to fetch a blob from byte `offset` on. The answer says where it really begins.
    ///
    /// # Errors
    /// When it is not there or may not be read.
    pub async fn blob(&self, digest: &Digest, offset: u64) -> Result<(Response, u64)> {
        let url = self.url("blobs", digest.as_str())?;
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let response = self.send(Method::GET, url, None, range.as_deref()).await?;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let starts = format!("bytes {offset}-");
            let range = response.headers().get(reqwest::header::CONTENT_RANGE);
            let fits = range.and_then(|value| value.to_str().ok());
            if offset > 0 && fits.is_some_and(|range| range.starts_with(&starts)) {
                return Ok((response, offset));
            }
            return Err(Error::unavailable("registry.broken", "the registry sent another range"));
        }
        Ok((self.expect_ok(response, digest.as_str())?, 0))
    }

    /// Fetches a small blob whole and checks it.
    ///
    /// # Errors
    /// As [`Session::blob`]; when it is larger than `bytes_max` or not what its digest says.
    pub async fn small_blob(&self, digest: &Digest, bytes_max: u64) -> Result<Bytes> {
        let (response, _) = self.blob(digest, 0).await?;
        let bytes = read_capped(response, bytes_max, "the image's config").await?;
        if Digest::of(&bytes) != *digest {
            return Err(mismatch("the image's config"));
        }
        Ok(bytes)
    }

    fn url(&self, kind: &str, name: &str) -> Result<Url> {
        let path = format!("{}/{kind}/{name}", self.repository);
        let url = self.base.join(&path);
        url.map_err(|_| Error::invalid("image.reference", "the reference makes no address"))
    }

    /// One request: authorised at the registry's own origin only, redirects followed by hand.
    async fn send(
        &self,
        method: Method,
        url: Url,
        accept: Option<&str>,
        range: Option<&str>,
    ) -> Result<Response> {
        let mut url = url;
        let mut asked = false;
        for _ in 0..HOPS_MAX {
            let client = self.client_for(&url)?;
            let mut request = client.request(method.clone(), url.clone());
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            let own = url.origin() == self.base.origin();
            if own && let Some(header) = self.current().await {
                request = request.header(AUTHORIZATION, header);
            }
            let response = request.send().await.map_err(transport_error)?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && own && !asked {
                asked = true;
                self.authenticate(challenge(response.headers())).await?;
            } else if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
                let target = target.and_then(|target| url.join(target).ok());
                url = target.ok_or_else(|| {
                    Error::unavailable("registry.broken", "the registry redirects to nowhere")
                })?;
            } else {
                return Ok(response);
            }
        }
        Err(Error::unavailable("registry.broken", "the registry redirects without end"))
    }

    fn client_for(&self, url: &Url) -> Result<&Client> {
        Ok(match self.registry.policy.check_url(url)? {
            Reach::Public => &self.registry.public,
            Reach::Listed => &self.registry.listed,
        })
    }

    async fn current(&self) -> Option<HeaderValue> {
        let held = self.authorization.lock().await;
        let held = held.as_ref()?;
        let good = held.until.is_none_or(|until| until > Instant::now());
        good.then(|| held.header.clone())
    }

    async fn authenticate(&self, challenge: Option<Challenge>) -> Result<()> {
        let found = match challenge {
            Some(Challenge::Basic) => {
                let Some(credentials) = &self.credentials else { return Err(self.refused()) };
                Authorization { header: basic(credentials)?, until: None }
            }
            Some(Challenge::Bearer { realm, service }) => self.token(&realm, service).await?,
            None => return Err(self.refused()),
        };
        *self.authorization.lock().await = Some(found);
        Ok(())
    }

    /// Asks the token service that the registry names. It is given this registry's credentials and
    /// no others; plain HTTP is refused by the policy unless the operator lists it.
    async fn token(&self, realm: &str, service: Option<String>) -> Result<Authorization> {
        let wrong = || Error::unavailable("registry.broken", "the registry names no token service");
        let mut url = Url::parse(realm).map_err(|_| wrong())?;
        let scope = format!("repository:{}:pull", self.repository);
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let mut request = self.client_for(&url)?.get(url);
        if let Some(credentials) = &self.credentials {
            request = request.header(AUTHORIZATION, basic(credentials)?);
        }
        let response = request.send().await.map_err(transport_error)?;
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(self.refused());
        }
        let response = self.expect_ok(response, "token")?;
        let bytes = read_capped(response, TOKEN_BYTES_MAX, "the token").await?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        let secs = answer.expires_in.unwrap_or(TOKEN_SECS).clamp(TOKEN_SECS, 3600);
        let token = answer.token().ok_or_else(wrong)?;
        let mut header = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| wrong())?;
        header.set_sensitive(true);
        let until = Instant::now() + Duration::from_secs(secs - 10);
        Ok(Authorization { header, until: Some(until) })
    }

    fn refused(&self) -> Error {
        let host = self.base.host_str().unwrap_or_default();
        let repository = &self.repository;
        let detail = match self.credentials {
            Some(_) => format!("{host} does not accept your credentials for {repository}"),
            None => format!(
                "{host} has no {repository}, or gives it to those who sign in only; add your \
                 credentials for that registry"
            ),
        };
        Error::denied("registry.refused", detail)
    }

    fn expect_ok(&self, response: Response, what: &str) -> Result<Response> {
        let host = self.base.host_str().unwrap_or_default().to_owned();
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused()),
            StatusCode::NOT_FOUND => Err(Error::invalid(
                "image.unknown",
                format!("{host} has no {what} in {}", self.repository),
            )),
            StatusCode::TOO_MANY_REQUESTS => Err(Error::unavailable(
                "registry.rate-limited",
                format!("{host} asks to wait: too many pulls; signing in may allow more"),
            )),
            status => Err(Error::unavailable(
                "registry.broken",
                format!("{host} answered {} to a request for {what}", status.as_u16()),
            )),
        }
    }
}

fn basic(credentials: &Credentials) -> Result<HeaderValue> {
    use base64::Engine;
    let plain = format!("{}:{}", credentials.username, credentials.password);
    let coded = base64::engine::general_purpose::STANDARD.encode(plain);
    let mut header = HeaderValue::from_str(&format!("Basic {coded}"))
        .map_err(|source| Error::broken("encode registry credentials", source))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Reads a body of `bytes_max` bytes at most.
async fn read_capped(mut response: Response, bytes_max: u64, what: &str) -> Result<Bytes> {
    let too_large =
        || Error::exhausted("image.too-large", format!("{what} is larger than {bytes_max} bytes"));
    if response.content_length().is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    let mut bytes = bytes::BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(transport_error)? {
        if (bytes.len() + chunk.len()) as u64 > bytes_max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// A content that is not what its digest says.
pub fn mismatch(what: &str) -> Error {
    Error::invalid("image.digest-mismatch", format!("{what} is not what its digest says"))
}

/// What the transport says, for people: the host, not the whole address, and the innermost cause.
pub fn transport_error(error: reqwest::Error) -> Error {
    let host = error.url().and_then(|url| url.host_str()).unwrap_or("the registry").to_owned();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        if source.downcast_ref::<ForbiddenAddress>().is_some() {
            return Error::denied("registry.forbidden", source.to_string());
        }
        cause = source;
    }
    let why =
        if error.is_timeout() { "it did not answer in time".into() } else { cause.to_string() };
    Error::unavailable("registry.unreachable", format!("the exchange with {host} failed: {why}"))
}
