//! Requests to the outside: every hop checked, redirects followed by hand, bodies read up to a cap.
//!
//! Direct connections go to addresses that the connector's own resolver has checked. Where the
//! operator names the lab's proxy, it resolves and connects to public hosts in our place; hosts
//! that the operator lists are still reached directly.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION};
use reqwest::{Certificate, Client, ClientBuilder, Method, Proxy, Response};
use url::Url;

use super::policy::{CheckedResolver, ForbiddenAddress, Policy, Reach, RegistriesConfig};
use crate::error::{Error, Result};

/// Hops of one request at most.
const HOPS_MAX: usize = 6;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// What a registry must send in each `stall_secs` of a transfer, in bytes.
pub const PACE_BYTES: u64 = 32 << 10;
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// Files of the operator's (certificates, the proxy's password) are read up to this.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The transport.
pub struct Outbound {
    policy: Policy,
    public: Client,
    listed: Client,
    stall: Duration,
}

/// Holds a transfer to a pace: a byte now and then is no progress, but keeps every other limit away.
pub struct Pace {
    stall: Duration,
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// Begins now.
    pub fn new(stall: Duration) -> Self {
        Self { stall, since: Instant::now(), bytes: 0 }
    }

    /// So many bytes have come.
    ///
    /// # Errors
    /// When they, and those before them, are too few for the time that they took.
    pub fn came(&mut self, count: usize) -> Result<()> {
        self.bytes += count as u64;
        if self.since.elapsed() < self.stall {
            return Ok(());
        }
        if self.bytes < PACE_BYTES {
            return Err(Error::unavailable("registry.stalled", "the registry sends too slowly"));
        }
        (self.since, self.bytes) = (Instant::now(), 0);
        Ok(())
    }
}

impl Outbound {
    /// A transport under this policy.
    ///
    /// # Errors
    /// When a file of the configuration cannot be used, or the TLS library cannot be set up.
    pub fn new(config: &RegistriesConfig) -> Result<Self> {
        // One provider for the whole program; that it is set already is as good.
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("the TLS provider was set before");
        }
        let policy = Policy::new(config);
        let certificates = match &config.ca_file {
            Some(path) => certificates(path)?,
            None => Vec::new(),
        };
        let stall = Duration::from_secs(config.stall_secs);
        let build = |builder: ClientBuilder| {
            builder
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(stall)
                .pool_idle_timeout(POOL_IDLE_TIMEOUT)
                .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
                .tls_certs_merge(certificates.iter().cloned())
                .build()
                .map_err(|source| Error::broken("set up the registry transport", source))
        };
        let direct = |reach| {
            let resolver = Arc::new(CheckedResolver::new(policy.clone(), reach));
            build(Client::builder().no_proxy().dns_resolver(resolver))
        };
        let listed = direct(Reach::Listed)?;
        let public = match &config.proxy {
            None => direct(Reach::Public)?,
            // The proxy's own name is the operator's word, and the only one that is looked up here.
            Some(address) => {
                let credentials = config.proxy_credentials_file.as_deref();
                build(Client::builder().proxy(proxy(address, credentials)?))?
            }
        };
        Ok(Self { policy, public, listed, stall })
    }

    /// What the operator allows.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How long a registry may send next to nothing.
    pub fn stall(&self) -> Duration {
        self.stall
    }

    /// Sends a request and follows redirects; `Authorization` goes to the first hop's origin only.
    ///
    /// # Errors
    /// When a hop is not allowed, or cannot be made.
    pub async fn send(&self, method: &Method, url: Url, headers: &HeaderMap) -> Result<Response> {
        let origin = url.origin();
        let mut url = url;
        for _ in 0..HOPS_MAX {
            let client = match self.policy.check_url(&url)? {
                Reach::Public => &self.public,
                Reach::Listed => &self.listed,
            };
            let mut headers = headers.clone();
            if url.origin() != origin {
                headers.remove(AUTHORIZATION);
            }
            let request = client.request(method.clone(), url.clone()).headers(headers);
            let response = request.send().await.map_err(|error| transport_error(&error))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let target = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let target = target.and_then(|target| url.join(target).ok());
            url = target.ok_or_else(|| {
                Error::unavailable("registry.broken", "the registry redirects to nowhere")
            })?;
        }
        Err(Error::unavailable("registry.broken", "the registry redirects without end"))
    }
}

/// The lab's proxy, with its credentials from a file so that the configuration can be shown.
fn proxy(address: &str, credentials: Option<&Path>) -> Result<Proxy> {
    // The configuration's check has read the address before.
    let mut proxy =
        Proxy::all(address).map_err(|error| Error::broken("read registries.proxy", error))?;
    if let Some(path) = credentials {
        let bytes = read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let pair = text.trim_end_matches(['\r', '\n']).split_once(':');
        let (user, password) = pair.ok_or_else(|| {
            let path = path.display();
            let key = "registries.proxy_credentials_file";
            Error::defect(format!("use {key}: {path} does not hold user:password"))
        })?;
        proxy = proxy.basic_auth(user, password);
    }
    Ok(proxy)
}

/// The authorities that the operator trusts beside the system's.
fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let path_shown = path.display();
    let wrong =
        |why: String| Error::defect(format!("use registries.ca_file: {path_shown} holds {why}"));
    let found = Certificate::from_pem_bundle(&read(path)?)
        .map_err(|error| wrong(format!("no certificates in PEM form: {error}")))?;
    if found.is_empty() { Err(wrong("no certificate".into())) } else { Ok(found) }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let failed = |source| Error::broken(format!("read {}", path.display()), source);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Reads a body of `bytes_max` bytes at most.
pub async fn read_capped(
    mut response: Response,
    bytes_max: u64,
    mut pace: Pace,
    what: &str,
) -> Result<Bytes> {
    let too_large =
        || Error::exhausted("image.too-large", format!("{what} is larger than {bytes_max} bytes"));
    if response.content_length().is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    let mut bytes = bytes::BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| transport_error(&error))? {
        if (bytes.len() + chunk.len()) as u64 > bytes_max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
        pace.came(chunk.len())?;
    }
    Ok(bytes.freeze())
}

/// What the transport says, for people: the host, not the whole address, and the innermost cause.
pub fn transport_error(error: &reqwest::Error) -> Error {
    let host = error.url().and_then(|url| url.host_str()).unwrap_or("the registry").to_owned();
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        if source.downcast_ref::<ForbiddenAddress>().is_some() {
            return Error::denied("registry.forbidden", source.to_string());
        }
        cause = source;
    }
    if error.is_timeout() && !error.is_connect() {
        return Error::unavailable("registry.stalled", format!("{host} sends nothing"));
    }
    let why =
        if error.is_timeout() { "it did not answer in time".into() } else { cause.to_string() };
    Error::unavailable("registry.unreachable", format!("the exchange with {host} failed: {why}"))
}
