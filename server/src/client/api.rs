//! The JSON API of one server: calls that end in seconds, streams that are known to live, problems as
//! failures. Everything that comes is bounded.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, Method, RequestBuilder, Response};
use serde_json::Value;
use url::Url;

use super::error::{Failure, Problem};
use super::events::Events;
use super::place::{self, Trust};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// A host that is gone is noticed within three of these (tcp(7), `TCP_KEEPINTVL`).
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const ANSWER_BYTES_MAX: usize = 16 << 20;
const PROBLEM_BYTES_MAX: usize = 64 << 10;
/// Items of a page, and pages of a list.
const PAGE_ITEMS: &str = "500";
const PAGES_MAX: usize = 40;

/// A server, by a credential or none.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: Url,
    trust: Trust,
    /// The socket for users of this machine, if that is the way.
    socket: Option<PathBuf>,
}

/// What proves who asks.
pub enum Proof<'a> {
    /// Nothing yet.
    None,
    /// A token.
    Token(&'a str),
    /// A session's cookies, as a `Cookie` header has them.
    Cookies(&'a str),
}

impl Api {
    /// Prepares calls; nothing is connected yet.
    ///
    /// # Errors
    /// When the certificate authority cannot be understood, or the credential is none.
    pub fn new(base: Url, trust: Trust, proof: &Proof<'_>) -> Result<Self, Failure> {
        let mut builder = builder()
            .default_headers(headers(&base, proof)?)
            .tcp_keepalive(KEEP_ALIVE)
            .tcp_keepalive_interval(KEEP_ALIVE)
            .tcp_keepalive_retries(3);
        if base.scheme() == "http" {
            // A proxy would read what the wire must not.
            builder = builder.no_proxy();
        }
        let here =
            |what: &str, error: &dyn std::fmt::Display| Failure::Here(format!("{what}: {error}"));
        builder = match &trust {
            Trust::System => builder,
            Trust::Authority(pem) => {
                let found = Certificate::from_pem_bundle(pem.as_bytes());
                let found =
                    found.map_err(|error| here("read the certificate authority", &error))?;
                if found.is_empty() {
                    return Err(here("read the certificate authority", &"no certificate is in it"));
                }
                builder.tls_certs_only(found)
            }
            Trust::Fingerprint(digits) => {
                let config = place::pinned(digits).map_err(|error| here("prepare TLS", &error))?;
                builder.tls_backend_preconfigured(config)
            }
        };
        let http = builder.build().map_err(|error| here("prepare calls", &causes(&error)))?;
        Ok(Self { http, base, trust, socket: None })
    }

    /// Prepares calls over the socket for users of this machine, where the kernel says who asks.
    ///
    /// # Errors
    /// When no client can be made.
    pub fn local(socket: &Path) -> Result<Self, Failure> {
        let built = builder().unix_socket(socket).build();
        let http =
            built.map_err(|error| Failure::Here(format!("prepare calls: {}", causes(&error))))?;
        let base = Url::parse("http://localhost").expect("it is an address");
        Ok(Self { http, base, trust: Trust::System, socket: Some(socket.to_owned()) })
    }

    /// Scheme, host and port; or the socket.
    pub fn origin(&self) -> String {
        match &self.socket {
            Some(path) => format!("{}{}", place::SOCKET_SCHEME, path.display()),
            None => self.base.origin().ascii_serialization(),
        }
    }

    /// The address of `/api/v1/` and these parts, whatever is in them.
    pub fn url(&self, parts: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("http and https addresses have a path")
            .clear()
            .extend(["api", "v1"])
            .extend(parts);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    /// Gets an object.
    pub async fn get(&self, parts: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        let request = self.http.get(self.url(parts, query));
        self.call(request, CALL_TIMEOUT).await
    }

    /// Sends an object, or nothing.
    pub async fn post(&self, parts: &[&str], body: Option<&Value>) -> Result<Value, Failure> {
        self.act(Method::POST, parts, &[], body, CALL_TIMEOUT).await
    }

    /// Any call; `limit` is how long it may take.
    pub async fn act(
        &self,
        method: Method,
        parts: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Value, Failure> {
        let mut request = self.http.request(method, self.url(parts, query));
        if let Some(body) = body {
            let bytes = serde_json::to_vec(body).expect("a JSON value has string keys only");
            request = request.header("content-type", "application/json").body(bytes);
        }
        self.call(request, limit).await
    }

    /// Sends bytes; `limit` is how long that may take.
    pub async fn put_bytes(
        &self,
        parts: &[&str],
        query: &[(&str, &str)],
        body: Vec<u8>,
        limit: Duration,
    ) -> Result<Value, Failure> {
        let request = self.http.put(self.url(parts, query)).body(body);
        self.call(request.header("content-type", "application/octet-stream"), limit).await
    }

    /// All items of a list, page by page.
    pub async fn list(
        &self,
        parts: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let mut query = query.to_vec();
            query.push(("limit", PAGE_ITEMS));
            query.extend(after.as_deref().map(|after| ("after", after)));
            let mut page = self.get(parts, &query).await?;
            match page["items"].take() {
                Value::Array(found) => items.extend(found),
                _ => return Err(self.unreadable("a list without items")),
            }
            match page["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => return Ok(items),
            }
        }
        Err(Failure::Here(format!("there are more than {} items; ask for fewer", items.len())))
    }

    /// Signs in; the session's cookies.
    pub async fn sign_in(&self, body: &Value) -> Result<String, Failure> {
        let bytes = serde_json::to_vec(body).expect("a JSON value has string keys only");
        let request = self.http.post(self.url(&["sessions"], &[]));
        let request = request.header("content-type", "application/json").body(bytes);
        let answer = self.answer(request.timeout(CALL_TIMEOUT), CALL_TIMEOUT).await?;
        let pairs = answer.headers().get_all("set-cookie").iter();
        let pairs: Vec<&str> =
            pairs.filter_map(|value| value.to_str().ok()?.split(';').next()).collect();
        Ok(pairs.join("; "))
    }

    /// A stream of events; goes on after the event `last`.
    pub async fn events(
        &self,
        parts: &[&str],
        query: &[(&str, &str)],
        last: &str,
    ) -> Result<Events, Failure> {
        let mut request = self.http.get(self.url(parts, query)).header(ACCEPT, "text/event-stream");
        if !last.is_empty() {
            let last = HeaderValue::from_str(last).map_err(|_| self.unreadable("an event's id"))?;
            request = request.header("last-event-id", last);
        }
        Ok(Events::of(self.answer(request, CALL_TIMEOUT).await?))
    }

    /// A stream of bytes that may be silent for long.
    pub async fn bytes(&self, parts: &[&str], query: &[(&str, &str)]) -> Result<Response, Failure> {
        self.answer(self.http.get(self.url(parts, query)), CALL_TIMEOUT).await
    }

    /// The answer to a request to speak another protocol (RFC 9110, 7.8).
    pub async fn upgrade(
        &self,
        parts: &[&str],
        query: &[(&str, &str)],
        headers: HeaderMap,
    ) -> Result<Response, Failure> {
        let request = self.http.get(self.url(parts, query)).headers(headers);
        let answer = self.answer(request, CALL_TIMEOUT).await?;
        match answer.status().as_u16() {
            101 => Ok(answer),
            _ => Err(self.unreadable("no WebSocket")),
        }
    }

    async fn call(&self, request: RequestBuilder, limit: Duration) -> Result<Value, Failure> {
        let mut answer = self.answer(request.timeout(limit), limit).await?;
        let body = read(&mut answer, ANSWER_BYTES_MAX).await;
        let body = body.map_err(|error| self.unreachable(&error))?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| self.unreadable("an answer that is no JSON"))
    }

    /// The answer's head, if it is a good one.
    async fn answer(&self, request: RequestBuilder, limit: Duration) -> Result<Response, Failure> {
        let late = || self.late(limit);
        let sent = tokio::time::timeout(limit, request.send()).await.map_err(|_| late())?;
        let mut answer = sent.map_err(|error| match error.is_timeout() {
            true if !error.is_connect() => late(),
            _ => self.unreachable(&error),
        })?;
        let status = answer.status();
        if status.is_success() || status.as_u16() == 101 {
            return Ok(answer);
        }
        let body = read(&mut answer, PROBLEM_BYTES_MAX).await.unwrap_or_default();
        Err(self.refusal(status.as_u16(), &body))
    }

    fn refusal(&self, status: u16, body: &[u8]) -> Failure {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().unwrap_or_default();
        let code = text("type").strip_prefix("/problems/").unwrap_or_default().to_owned();
        let mut detail = text("detail").to_owned();
        if detail.is_empty() {
            detail = format!("{} answered with status {status}", self.origin());
        }
        for field in body["fields"].as_array().into_iter().flatten().take(16) {
            let text = |name: &str| field[name].as_str().unwrap_or_default();
            detail.push_str(&format!("; {} {}", text("pointer"), text("detail")));
        }
        if status == 401 {
            let origin = self.origin();
            detail = format!("{origin} does not know you (any more): `berth login {origin}` first");
        }
        Failure::Refused(Problem { status, code, detail })
    }

    fn late(&self, limit: Duration) -> Failure {
        let (origin, limit) = (self.origin(), limit.as_secs());
        Failure::Unreachable(format!("{origin} has not answered within {limit} seconds"))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let cause = causes(error);
        let cure = match (&self.trust, cause.contains("certificate")) {
            (Trust::System, true) => {
                "; if it is the server's own, `berth login` takes its authority by --ca or its \
                 fingerprint by --fingerprint"
            }
            (_, true) => {
                "; the server may have another certificate now, or somebody is in between: ask its \
                 operator, then `berth login` again"
            }
            _ if error.is_connect() => "; is it running, and is the address right?",
            _ => "",
        };
        Failure::Unreachable(format!("cannot reach {}: {cause}{cure}", self.origin()))
    }

    fn unreadable(&self, what: &str) -> Failure {
        Failure::Unreachable(format!("{} answered with {what}: is it Berth?", self.origin()))
    }
}

/// What holds of every connection.
fn builder() -> reqwest::ClientBuilder {
    // Every client needs a provider, plain HTTP too; that one was chosen before is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder()
        .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .http1_only()
}

fn headers(base: &Url, proof: &Proof<'_>) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    let secret = |text: &str| -> Result<HeaderValue, Failure> {
        let mut value = HeaderValue::from_str(text)
            .map_err(|_| Failure::Here("the credential is none that can be sent".into()))?;
        value.set_sensitive(true);
        Ok(value)
    };
    match proof {
        Proof::None => {}
        Proof::Token(token) => {
            headers.insert(AUTHORIZATION, secret(&format!("Bearer {token}"))?);
        }
        Proof::Cookies(cookies) => {
            headers.insert("cookie", secret(cookies)?);
            // What comes with a cookie has to say that it is no other site's.
            let origin = base.origin().ascii_serialization();
            headers.insert("origin", HeaderValue::from_str(&origin).expect("it is an address"));
        }
    }
    Ok(headers)
}

/// A body of at most `most` bytes; what is longer is cut, so that it is no JSON.
async fn read(answer: &mut Response, most: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend_from_slice(&chunk[..chunk.len().min(most - body.len())]);
        if body.len() == most {
            break;
        }
    }
    Ok(body)
}

/// An error with its causes, the innermost last; without the address, which may be long.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    let mut next = error.source();
    while let Some(cause) = next {
        text = cause.to_string();
        next = cause.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_part_of_the_path() {
        let base = Url::parse("http://127.0.0.1:1/").expect("an address");
        let api = Api::new(base, Trust::System, &Proof::None).expect("it needs nothing");
        let url = api.url(&["containers", "../a/b?c#d", "stop"], &[("grace_secs", "1")]);
        let path = "/api/v1/containers/..%2Fa%2Fb%3Fc%23d/stop?grace_secs=1";
        assert_eq!(url.as_str().strip_prefix("http://127.0.0.1:1"), Some(path));
    }
}
