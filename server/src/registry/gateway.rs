//! The only way from `oci-client` to a registry: an HTTP proxy inside this process.
//!
//! `oci-client` speaks the distribution protocol: names, challenges, tokens, manifests, blobs. It
//! also follows redirects by itself, has no hook for name resolution, keeps connections to whomever
//! it is sent, and reads manifests, tokens and error bodies without a limit. So it is given one
//! proxy and plain HTTP, and the proxy decides: scheme and address of every hop by the operator's
//! policy ([`Outbound`]), a cap on every body but a blob's (whose reader counts), credentials to the
//! registry's own origin and its token service only.
//!
//! - It listens on loopback, and answers to nobody without a pull's own random key ([`Pass`]), which
//!   is good for one repository until that pull ends. It opens no tunnels.
//! - Answers are made anew: of a challenge, a token, a manifest only what was checked goes on.
//! - What goes wrong is noted in the pass: the client's own error says less.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName,
    PROXY_AUTHORIZATION, RANGE, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use url::Url;

use super::challenge::{Challenge, TokenAnswer, challenge};
use super::manifest::MANIFEST_BYTES_MAX;
use super::outbound::{Outbound, Pace, read_capped, transport_error};
use super::range::fits;
use crate::auth::keys::random_text;
use crate::error::{Error, Result};

/// A token service's answer at most, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// Connections from clients at once: a few for each layer that is being fetched.
const CONNECTIONS_MAX: usize = 256;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Failures that one pass remembers.
const FAILURES_MAX: usize = 64;
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

type Body = BoxBody<Bytes, std::io::Error>;

/// The proxy.
pub struct Gateway {
    address: SocketAddr,
    passes: Arc<Passes>,
    serving: tokio::task::AbortHandle,
}

struct Passes {
    outbound: Outbound,
    /// By what `Proxy-Authorization` must say.
    known: Mutex<HashMap<String, Arc<Pass>>>,
}

/// One pull's right to pass, and what was seen of it.
pub struct Pass {
    base: Url,
    repository: String,
    signed_in: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// How the registry wants to be asked, once it has said so.
    challenge: Option<Challenge>,
    /// What it called the newest manifest.
    content_type: Option<String>,
    failures: Vec<Failure>,
}

/// Why a request came to nothing.
pub struct Failure {
    path: String,
    asked: Option<Asked>,
    /// Whether it carried no credentials.
    unsigned: bool,
    /// The registry's answer; none when there was none.
    pub status: Option<StatusCode>,
    /// In words.
    pub error: Error,
}

/// Keeps a pass good.
pub struct PassHolder {
    pass: Arc<Pass>,
    key: String,
    passes: Weak<Passes>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Ping,
    Token,
    Manifest,
    Blob,
}

impl Gateway {
    /// Opens the proxy; to be called inside the server's runtime.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn open(outbound: Outbound) -> Result<Self> {
        let failed = |source| Error::broken("open the gateway to registries", source);
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let passes = Arc::new(Passes { outbound, known: Mutex::default() });
        let serving = tokio::spawn(accept(listener, Arc::clone(&passes))).abort_handle();
        Ok(Self { address, passes, serving })
    }

    /// What the operator allows.
    pub fn policy(&self) -> &super::policy::Policy {
        self.passes.outbound.policy()
    }

    /// How long a registry may send next to nothing.
    pub fn stall(&self) -> Duration {
        self.passes.outbound.stall()
    }

    /// A pass for one repository, and the proxy's address with the key in it.
    ///
    /// # Errors
    /// When the kernel has no random bytes.
    pub fn pass(
        &self,
        base: Url,
        repository: &str,
        signed_in: bool,
    ) -> Result<(PassHolder, String)> {
        let secret = random_text::<32>()?;
        let key = format!("Basic {}", STANDARD.encode(format!("berth:{secret}")));
        let pass = Arc::new(Pass {
            base,
            repository: repository.to_owned(),
            signed_in,
            seen: Mutex::default(),
        });
        self.passes.lock().insert(key.clone(), Arc::clone(&pass));
        let address = format!("http://berth:{secret}@{}", self.address);
        Ok((PassHolder { pass, key, passes: Arc::downgrade(&self.passes) }, address))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Drop for PassHolder {
    fn drop(&mut self) {
        if let Some(passes) = self.passes.upgrade() {
            passes.lock().remove(&self.key);
        }
    }
}

impl std::ops::Deref for PassHolder {
    type Target = Pass;

    fn deref(&self) -> &Pass {
        &self.pass
    }
}

impl Passes {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Pass>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, headers: &HeaderMap) -> Option<Arc<Pass>> {
        let key = headers.get(PROXY_AUTHORIZATION)?.to_str().ok()?;
        self.lock().get(key).cloned()
    }
}

async fn accept(listener: TcpListener, passes: Arc<Passes>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let passes = Arc::clone(&passes);
                tokio::spawn(async move {
                    serve(stream, passes).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "the gateway to registries could not accept");
                // Descriptors are short: the next moment may be better, a busy loop is not.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, passes: Arc<Passes>) {
    drop(stream.set_nodelay(true));
    let service = hyper::service::service_fn(move |request| {
        let passes = Arc::clone(&passes);
        async move { Ok::<_, Infallible>(answer(&passes, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::trace!(error = %error, "a client of the gateway to registries went away");
    }
}

async fn answer(passes: &Passes, request: Request<Incoming>) -> Response<Body> {
    let Some(pass) = passes.find(request.headers()) else {
        return plain(StatusCode::PROXY_AUTHENTICATION_REQUIRED);
    };
    let path = request.uri().path().to_owned();
    match relay(passes, &pass, &request).await {
        Ok(response) => response,
        Err(mut failure) => {
            let status = failure.status.unwrap_or(StatusCode::BAD_GATEWAY);
            failure.unsigned = !request.headers().contains_key(AUTHORIZATION);
            pass.note(&path, failure);
            plain(status)
        }
    }
}

async fn relay(
    passes: &Passes,
    pass: &Arc<Pass>,
    request: &Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let method = request.method();
    let url = passes.target(request)?;
    let asked = pass.asked(&url, method)?;
    if asked == Asked::Ping {
        return Ok(pass.ping());
    }
    let done = exchange(passes, pass, request, url, asked).await;
    done.map_err(|failure| Failure { asked: Some(asked), ..failure })
}

async fn exchange(
    passes: &Passes,
    pass: &Arc<Pass>,
    request: &Request<Incoming>,
    url: Url,
    asked: Asked,
) -> Result<Response<Body>, Failure> {
    let mut headers = HeaderMap::new();
    for name in [ACCEPT, AUTHORIZATION, RANGE] {
        if let Some(value) = request.headers().get(&name) {
            let mut value = value.clone();
            value.set_sensitive(name == AUTHORIZATION);
            headers.insert(name, value);
        }
    }
    let response = passes.outbound.send(request.method(), url, &headers).await?;
    let status = response.status();
    if status == StatusCode::UNAUTHORIZED && asked != Asked::Token {
        pass.learn(passes, response.headers())?;
    }
    let partial = asked == Asked::Blob && status == StatusCode::PARTIAL_CONTENT;
    if status != StatusCode::OK && !partial {
        return Err(pass.refusal(asked, status));
    }
    if asked != Asked::Token {
        // Whatever was wrong with tokens, this needed none.
        pass.lock().failures.retain(|failure| failure.asked != Some(Asked::Token));
    }
    let pace = Pace::new(passes.outbound.stall());
    match asked {
        Asked::Token => token(pass, response, pace).await,
        Asked::Manifest => manifest(pass, response, pace).await,
        Asked::Ping | Asked::Blob => {
            if partial && !fits(headers.get(RANGE), response.headers()) {
                let error =
                    Error::unavailable("registry.broken", "the registry sent another range");
                return Err(error.into());
            }
            Ok(blob(pass, request.uri().path(), pace, response))
        }
    }
}

impl Passes {
    /// Where a request really goes: the policy says over which scheme.
    fn target(&self, request: &Request<Incoming>) -> Result<Url> {
        let mut url = Url::parse(&request.uri().to_string())
            .map_err(|_| Error::defect("read what was asked of the gateway to registries"))?;
        let scheme = self.outbound.policy().scheme_of(&url);
        url.set_scheme(scheme).map_err(|()| Error::defect("choose how to speak to a registry"))?;
        Ok(url)
    }
}

impl Pass {
    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, path: &str, mut failure: Failure) {
        path.clone_into(&mut failure.path);
        let mut seen = self.lock();
        if seen.failures.len() < FAILURES_MAX {
            seen.failures.push(failure);
        }
    }

    /// Why the request for this path failed: for want of a token, if none could be had.
    pub fn take_failure(&self, path: &str) -> Option<Failure> {
        let mut seen = self.lock();
        let find = |wanted: &dyn Fn(&Failure) -> bool| seen.failures.iter().rposition(wanted);
        let place = find(&|failure| failure.asked == Some(Asked::Token))
            .or_else(|| find(&|failure| failure.path == path))?;
        let found = seen.failures.remove(place);
        seen.failures.retain(|failure| failure.path != path);
        Some(found)
    }

    /// Whether the request for this path failed only because it carried no credentials yet, and
    /// there are some to try (a token can be had by anybody). Such a failure is forgotten.
    pub fn take_lesson(&self, path: &str) -> bool {
        let mut seen = self.lock();
        let worth = match &seen.challenge {
            Some(Challenge::Bearer { .. }) => true,
            Some(Challenge::Basic) => self.signed_in,
            None => false,
        };
        let place = seen.failures.iter().rposition(|failure| {
            failure.path == path
                && failure.unsigned
                && failure.status == Some(StatusCode::UNAUTHORIZED)
        });
        match place {
            Some(place) if worth => {
                seen.failures.remove(place);
                true
            }
            _ => false,
        }
    }

    /// What the registry called the newest manifest.
    pub fn content_type(&self) -> Option<String> {
        self.lock().content_type.clone()
    }

    fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// What of all that a client could ask for this is; nothing else is passed on.
    fn asked(&self, url: &Url, method: &Method) -> Result<Asked> {
        let refused = || Error::defect("pass on what is not asked of registries");
        if method != Method::GET && method != Method::HEAD {
            return Err(refused());
        }
        if let Some(Challenge::Bearer { realm, .. }) = &self.lock().challenge
            && (realm.origin(), realm.path()) == (url.origin(), url.path())
        {
            return Ok(Asked::Token);
        }
        if url.origin() != self.base.origin() {
            return Err(refused());
        }
        let below = url.path().strip_prefix("/v2/").ok_or_else(refused)?;
        if below.is_empty() {
            return Ok(Asked::Ping);
        }
        let below = below.strip_prefix(&self.repository).ok_or_else(refused)?;
        match below {
            _ if below.starts_with("/manifests/") => Ok(Asked::Manifest),
            _ if below.starts_with("/blobs/") => Ok(Asked::Blob),
            _ => Err(refused()),
        }
    }

    /// What the registry would say of itself, from what it has said before: one exchange less for
    /// each blob of a registry that asks for nothing.
    fn ping(&self) -> Response<Body> {
        let header = match &self.lock().challenge {
            None => return plain(StatusCode::OK),
            Some(challenge) => challenge.to_header(),
        };
        let mut response = plain(StatusCode::UNAUTHORIZED);
        if let Some(header) = header {
            response.headers_mut().insert(WWW_AUTHENTICATE, header);
        }
        response
    }

    /// Remembers how the registry wants to be asked, if the way there is allowed.
    fn learn(&self, passes: &Passes, headers: &HeaderMap) -> Result<()> {
        let found = challenge(headers);
        if let Some(Challenge::Bearer { realm, .. }) = &found {
            passes.outbound.policy().check_url(realm)?;
        }
        self.lock().challenge = found;
        Ok(())
    }

    fn refusal(&self, asked: Asked, status: StatusCode) -> Failure {
        let (host, repository) = (self.host(), &self.repository);
        let what = match asked {
            Asked::Manifest => "that tag or digest",
            Asked::Blob => "a blob that its manifest names",
            Asked::Token | Asked::Ping => "token",
        };
        let error = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.signed_in => Error::denied(
                "registry.refused",
                format!("{host} does not accept your credentials for {repository}"),
            ),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::denied(
                "registry.refused",
                format!(
                    "{host} has no {repository}, or gives it to those who sign in only; add your \
                     credentials for that registry"
                ),
            ),
            StatusCode::NOT_FOUND => {
                Error::invalid("image.unknown", format!("{host} has no {what} in {repository}"))
            }
            StatusCode::TOO_MANY_REQUESTS => Error::unavailable(
                "registry.rate-limited",
                format!("{host} asks to wait: too many pulls; signing in may allow more"),
            ),
            status => Error::unavailable(
                "registry.broken",
                format!("{host} answered {} to a request for {what}", status.as_u16()),
            ),
        };
        Failure { status: Some(status), ..Failure::from(error) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { path: String::new(), asked: None, unsigned: false, status: None, error }
    }
}

/// The token and nothing else, in the form that the client reads.
async fn token(
    pass: &Pass,
    response: reqwest::Response,
    pace: Pace,
) -> Result<Response<Body>, Failure> {
    let bytes = read_capped(response, TOKEN_BYTES_MAX, pace, "the token").await?;
    let wrong = || {
        let host = pass.host();
        Error::unavailable("registry.broken", format!("{host}'s token service gave no token"))
    };
    let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    let token = answer.token().ok_or_else(wrong)?;
    let body = serde_json::json!({ "token": token }).to_string();
    Ok(Response::new(full(Bytes::from(body))))
}

async fn manifest(
    pass: &Pass,
    response: reqwest::Response,
    pace: Pace,
) -> Result<Response<Body>, Failure> {
    let said = response.headers().get(CONTENT_DIGEST).cloned();
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.map(str::to_owned);
    let bytes = read_capped(response, MANIFEST_BYTES_MAX, pace, "the manifest").await?;
    pass.lock().content_type = kind;
    let mut response = Response::new(full(bytes));
    if let Some(said) = said {
        response.headers_mut().insert(CONTENT_DIGEST, said);
    }
    Ok(response)
}

/// A blob as it streams; its reader counts and hashes.
fn blob(
    pass: &Arc<Pass>,
    path: &str,
    mut pace: Pace,
    response: reqwest::Response,
) -> Response<Body> {
    let status = response.status();
    let length = response.headers().get(CONTENT_LENGTH).cloned();
    let (pass, path) = (Arc::clone(pass), path.to_owned());
    let frames = response.bytes_stream().map(move |chunk| {
        let in_time = |bytes: Bytes| pace.came(bytes.len()).map(|()| bytes);
        match chunk.map_err(|error| transport_error(&error)).and_then(in_time) {
            Ok(bytes) => Ok(Frame::data(bytes)),
            Err(error) => {
                let shown = std::io::Error::other(error.to_string());
                pass.note(&path, error.into());
                Err(shown)
            }
        }
    });
    let mut answer = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    *answer.status_mut() = status;
    if let Some(length) = length {
        answer.headers_mut().insert(CONTENT_LENGTH, length);
    }
    answer
}

fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
