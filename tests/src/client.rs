//! HTTP as one caller of one instance.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// A caller: nobody, a session's cookie, a token, or the root socket.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    credential: Credential,
}

#[derive(Debug, Clone)]
enum Credential {
    Nobody,
    Cookie(String),
    Bearer(String),
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Client {
    /// Nobody, at `base` (`http://127.0.0.1:1234`).
    pub fn anonymous(base: &str) -> Self {
        let http = builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("build an HTTP client");
        Self { http, base: base.to_owned(), credential: Credential::Nobody }
    }

    /// Nobody, at `base`, by an HTTP client of the test's own (one that trusts its certificate).
    pub fn over(http: reqwest::Client, base: &str) -> Self {
        Self { http, base: base.to_owned(), credential: Credential::Nobody }
    }

    /// The machine's root on its socket.
    pub fn root(socket: &std::path::Path) -> Self {
        let http = builder().unix_socket(socket).build().expect("build an HTTP client");
        Self { http, base: "http://localhost".to_owned(), credential: Credential::Nobody }
    }

    /// A user of this host, who is `uid`, on the socket for local users: by a program of that user's, since a
    /// socket's peer is known by who connects.
    pub fn local(
        socket: &std::path::Path,
        uid: u32,
    ) -> impl Fn(&str, &str, &[&str]) -> (u16, Value) {
        use std::os::unix::process::CommandExt;
        let socket = socket.to_owned();
        move |method, path, more| {
            let output = std::process::Command::new("curl")
                .args([
                    "-s",
                    "--max-time",
                    "30",
                    "-w",
                    "\n%{http_code}",
                    "-X",
                    method,
                    "--unix-socket",
                ])
                .arg(&socket)
                .arg(format!("http://localhost{path}"))
                .args(more)
                .uid(uid)
                .gid(uid)
                .output()
                .expect("run curl");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let (body, status) = text.rsplit_once('\n').expect("a status");
            let status = status.parse().expect("a number");
            (status, serde_json::from_str(body).unwrap_or(Value::Null))
        }
    }

    /// The same place with the cookies of an answer to a sign-in.
    #[must_use]
    pub fn with_cookies_of(&self, answer: &Answer) -> Self {
        let cookies: Vec<&str> = answer
            .headers
            .get_all("set-cookie")
            .iter()
            .filter_map(|value| value.to_str().ok()?.split(';').next())
            .collect();
        assert!(!cookies.is_empty(), "no cookie came: {answer:?}");
        self.with_cookie(&cookies.join("; "))
    }

    /// The same place with a `Cookie` header.
    #[must_use]
    pub fn with_cookie(&self, cookie: &str) -> Self {
        Self { credential: Credential::Cookie(cookie.to_owned()), ..self.clone() }
    }

    /// The same place with a bearer token.
    #[must_use]
    pub fn with_bearer(&self, token: &str) -> Self {
        Self { credential: Credential::Bearer(token.to_owned()), ..self.clone() }
    }

    /// The same person by a new token of this scope (`read`, `operate`, `manage`).
    pub async fn token(&self, scope: &str) -> Self {
        let name = format!("test {scope} {:?}", std::time::Instant::now());
        let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric()).take(60).collect();
        let body = json!({"name": name, "scope": scope, "days": 1});
        let answer = self.post("/api/v1/tokens", &body).await.expect_status(201);
        self.with_bearer(answer.json()["secret"].as_str().expect("a token has a secret"))
    }

    /// The `Cookie` header's value.
    pub fn cookie(&self) -> &str {
        match &self.credential {
            Credential::Cookie(cookie) => cookie,
            Credential::Nobody | Credential::Bearer(_) => "",
        }
    }

    /// The header that shows who asks, for what is no plain request.
    pub fn credential(&self) -> (&'static str, String) {
        match &self.credential {
            Credential::Nobody => ("x-nobody", String::new()),
            Credential::Cookie(cookie) => ("cookie", cookie.clone()),
            Credential::Bearer(token) => ("authorization", format!("Bearer {token}")),
        }
    }

    /// The address of the instance.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request as this caller; a cookie comes with the headers that a browser sends from our page.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let request = self.raw(method, path);
        match self.credential {
            Credential::Cookie(_) => request.header("sec-fetch-site", "same-origin"),
            Credential::Nobody | Credential::Bearer(_) => request,
        }
    }

    /// A request with this caller's credential and nothing that a browser would add.
    pub fn raw(&self, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().expect("a method");
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.credential {
            Credential::Nobody => request,
            Credential::Cookie(cookie) => request.header("cookie", cookie),
            Credential::Bearer(token) => request.bearer_auth(token),
        }
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        send(self.request("GET", path)).await
    }

    /// `POST` with JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body).await
    }

    /// `PUT` with JSON.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, body).await
    }

    /// `PATCH` with JSON.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, body).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        send(self.request("DELETE", path)).await
    }

    /// Any method with JSON; `null` sends no body.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let request = self.request(method, path);
        send(if body.is_null() { request } else { request.json(body) }).await
    }

    /// An answer's head; its body (a stream) is hung up on.
    pub async fn head_of(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.expect("the server answers");
        let status = response.status().as_u16();
        Answer { status, headers: response.headers().clone(), text: String::new() }
    }
}

/// What every HTTP client of the tests is built from.
pub fn builder() -> reqwest::ClientBuilder {
    // Every client needs a provider, plain HTTP too; that one was installed before is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    // A connection each: one that the server closes after a refusal must not be met again.
    reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0)
}

/// Sends a request and reads the whole answer.
pub async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("the server answers");
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let text = response.text().await.expect("the answer is whole");
    Answer { status, headers, text }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// The end of the problem's `type`; empty when it is none.
    pub fn code(&self) -> String {
        if let Some((_, code)) = self.text.split_once("data-problem=\"") {
            return code.split('"').next().unwrap_or_default().to_owned();
        }
        let problem: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let kind = problem["type"].as_str().unwrap_or_default();
        kind.trim_start_matches("/problems/").to_owned()
    }

    /// This answer, if it has this status.
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// The body without the request's id, which differs between any two answers.
    pub fn body_without_id(&self) -> String {
        match self.header("x-request-id") {
            "" => self.text.clone(),
            id => self.text.replace(id, ""),
        }
    }

    /// One header as text.
    pub fn header(&self, name: &'static str) -> &str {
        let value = self.headers.get(HeaderName::from_static(name));
        value.and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or("")
    }
}
