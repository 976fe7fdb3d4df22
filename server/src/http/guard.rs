//! What stands before every handler: the request's id, its Host, who is asking, the route's rule,
//! cross-site requests; and behind it: problem bodies, security headers, the audit of refusals.
//!
//! Order, outermost first: panics become problems; id and log line; too many requests; Host;
//! then per route ([`enforce`]): who is asking, the rule, cross-site, the time limit.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, UPGRADE, USER_AGENT, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;

use super::host;
use super::pages;
use super::problem::{self, Asked, Pending};
use super::rate;
use super::reached::Reached;
use super::routes::{Access, Rule, Surface};
use super::waiting::{Turn, Waiting};
use crate::app::App;
use crate::auth::budget::Budget;
use crate::auth::keys::random_text;
use crate::auth::{Actor, Caller};
use crate::error::{Error, Result};
use crate::inventory::audit::Row as AuditRow;
use crate::listen::{Place, Working};
use crate::service::sessions::{self, Visitor};

/// Where a connection comes from.
#[derive(Debug, Clone)]
pub enum Peer {
    /// A TCP connection.
    Tcp(Link),
    /// The machine's root on the root socket.
    Root,
    /// A user of this host, by name, on the socket for local users.
    Local(Arc<str>),
}

/// The place that a request's connection has among all, for who needs it longer than for the answer.
#[derive(Clone)]
pub struct Seat(pub(crate) Arc<Place>);

impl Seat {
    /// Until what is returned is dropped, the place is not taken away.
    pub fn work(&self) -> Working {
        self.0.work()
    }
}

/// The ends of a TCP connection.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// The other end.
    pub remote: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Whether TLS is spoken on it.
    pub tls: bool,
}

/// What lines that tell of answers are filtered by.
pub const REQUESTS: &str = "berth::requests";

const CSP_PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'";
const CSP_API: &str = "default-src 'none'; frame-ancestors 'none'";
const COOP: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The policy of a page that makes style sheets by a script: those that bear the nonce.
pub fn page_policy_with_styles(nonce: &str) -> String {
    CSP_PAGE.replace("style-src 'self'", &format!("style-src 'self' 'nonce-{nonce}'"))
}

/// Puts the outer layers around the routes.
pub fn around(app: &App, router: Router) -> Router {
    router
        .layer(CatchPanicLayer::custom(|panic: Box<dyn std::any::Any + Send>| {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied());
            Error::defect(format!("panicked: {}", text.unwrap_or("no text"))).into_response()
        }))
        .layer(from_fn_with_state(app.clone(), outer))
}

/// The outermost layer.
async fn outer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let request_id = random_text::<9>().unwrap_or_default();
    let peer = request.extensions().get::<Peer>().cloned();
    let method = request.method().clone();
    let uri = request.uri().clone();
    let surface =
        match uri.path().starts_with("/api/") || matches!(uri.path(), "/healthz" | "/readyz") {
            true => Surface::Api,
            false => Surface::Page,
        };
    let theme = pages::theme(&app, request.headers());
    let reached = Reached::of(&app.config.server, peer.as_ref(), request.headers());
    let visitor = visitor(&app, request.headers(), &reached, &request_id);
    request.extensions_mut().insert(visitor.clone());
    request.extensions_mut().insert(reached.clone());
    request.extensions_mut().insert(app.clone());
    // The route, never the target: targets hold one-time secrets.
    let seen = Seen::default();
    request.extensions_mut().insert(seen.clone());
    let mut response = match admit(&app, &request, peer, &reached) {
        Ok(turn) => {
            let held = turn.clone();
            let response = next.run(request.map(|body| Waiting::around(body, turn))).await;
            drop(held);
            response
        }
        Err(error) => error.into_response(),
    };
    let pending = response.extensions().get::<Pending>().cloned();
    let route = seen.route();
    if let Some(Pending(error)) = &pending
        && let Error::Limited(budget) = error.as_ref()
    {
        rate::tell(budget, reached.client);
    } else if !method.is_safe()
        && let Some(code) = pending.map(|Pending(error)| error.code().to_owned()).or(seen.refusal())
    {
        let actor = seen.actor().unwrap_or_else(|| visitor.actor(None, ""));
        let action = format!("{method} {route}");
        let row = AuditRow::refused(&actor, &action, &code);
        if app.refusals.try_send(row).is_err() {
            tracing::warn!(request_id, "a refused request was not audited: too many at once");
        }
    }
    let notice = app.maintenance.notice();
    let asked =
        Asked { method: &method, uri: &uri, surface, request_id: &request_id, theme, notice };
    response = problem::finish(&asked, response);
    add_headers(response.headers_mut(), surface, &request_id);
    if host::wants_hsts(&app, &reached) {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, host::HSTS);
    }
    let person = seen.actor().and_then(|actor| actor.principal).map(|person| person.0);
    tracing::debug!(
        target: REQUESTS,
        request_id,
        person,
        method = method.as_str(),
        route,
        status = response.status().as_u16(),
        duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
    response
}

/// A layer around every matched route.
pub async fn enforce(State(rule): State<Rule>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(app) = parts.extensions.get::<App>().cloned() else {
        return Error::defect("find the app in a request").into_response();
    };
    let seen = parts.extensions.get::<Seen>().cloned().unwrap_or_default();
    if let Some(path) = parts.extensions.get::<MatchedPath>() {
        seen.set_route(path.as_str());
    }
    let (caller, budget) = match judge(&app, &rule, &parts, &seen.route()).await {
        Ok(found) => found,
        Err((caller, error)) => {
            seen.set_actor(caller.as_deref());
            return told(error.into_response(), caller.map(|caller| *caller));
        }
    };
    if let Some(caller) = &caller {
        seen.set_actor(Some(caller));
        app.note_used(&caller.actor.via);
        parts.extensions.insert(caller.clone());
    }
    let request = Request::from_parts(parts, body);
    let mut response = in_time(&rule, request, next).await;
    // A refusal says which budget it was for.
    if let Some(budget) = budget.filter(|_| !response.headers().contains_key(rate::LIMIT)) {
        rate::add_headers(response.headers_mut(), &budget);
    }
    told(response, caller)
}

async fn in_time(rule: &Rule, request: Request, next: Next) -> Response {
    let Some(secs) = rule.timeout_secs else { return next.run(request).await };
    match tokio::time::timeout(Duration::from_secs(secs), next.run(request)).await {
        Ok(response) => response,
        Err(_) => Error::unavailable("request.timeout", format!("no answer within {secs} s"))
            .into_response(),
    }
}

/// The answer to a path that there is none of. Its address pays before anybody is looked up for it.
pub async fn nowhere(State(app): State<App>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if let Err(error) = rate::charge(&app, None, &parts, "") {
        return error.into_response();
    }
    let caller = authenticate(&app, &parts).await.ok().flatten();
    told(Error::NotFound("page").into_response(), caller)
}

/// A refusal with the one who is told, for the frame of its page.
fn told(mut response: Response, caller: Option<Caller>) -> Response {
    if let (Some(caller), true) = (caller, response.extensions().get::<Pending>().is_some()) {
        response.extensions_mut().insert(caller);
    }
    response
}

type Judged = Result<(Option<Caller>, Option<Budget>), (Option<Box<Caller>>, Error)>;

/// Who is asking, and whether they may.
async fn judge(app: &App, rule: &Rule, request: &Parts, route: &str) -> Judged {
    let found = authenticate(app, request).await;
    // Strangers, and tokens that are no good, pay from their address's budget.
    let payer = found.as_ref().ok().and_then(Option::as_ref);
    let charged = rate::charge(app, payer, request, route);
    let (caller, budget) = match (found, charged) {
        (Ok(caller), Ok(budget)) => (caller, budget),
        (Ok(caller), Err(error)) => return Err((caller.map(Box::new), error)),
        (Err(_), Err(error)) | (Err(error), Ok(_)) => return Err((None, error)),
    };
    let cookie = session_cookie(app, request).is_some();
    let verdict = same_site(request, rule.surface, cookie)
        .and_then(|()| rule.access.allows(caller.as_ref()))
        .and_then(|()| factor_first(rule, route, caller.as_ref()));
    match verdict {
        Ok(()) => Ok((caller, budget)),
        Err(error) => Err((caller.map(Box::new), error)),
    }
}

/// What is open to somebody who has to set up a second factor first, besides what is open to all.
const BEFORE_FACTOR: [&str; 12] = [
    "/account",
    "/account/password",
    "/account/second-factor",
    "/account/second-factor/confirm",
    "/sign-out",
    "/api/v1/me",
    "/api/v1/me/session",
    "/api/v1/me/password",
    "/api/v1/me/second-factor",
    "/api/v1/me/second-factor/confirm",
    "/api/v1/sessions",
    "/api/v1/sessions/{id}",
];

/// Whether they may go on before they have a second factor.
fn factor_first(rule: &Rule, route: &str, caller: Option<&Caller>) -> Result<()> {
    let due = caller.is_some_and(|caller| caller.factor_due);
    if !due || rule.access == Access::Public || BEFORE_FACTOR.contains(&route) {
        return Ok(());
    }
    let text = "this machine wants a second factor of you: set it up under Account, then go on";
    Err(Error::denied("session.second-factor-due", text))
}

/// Who is behind a socket of this host, the bearer token or the session cookie, in this order. A token
/// that is no good is refused even where none is needed; a cookie that is no good is nobody's.
async fn authenticate(app: &App, request: &Parts) -> Result<Option<Caller>> {
    let visitor = request
        .extensions
        .get::<Visitor>()
        .ok_or_else(|| Error::defect("find the request's origin"))?;
    match request.extensions.get::<Peer>() {
        Some(Peer::Root) => return Ok(Some(sessions::system(visitor))),
        Some(Peer::Local(user)) => return sessions::local(app, visitor, user).await.map(Some),
        Some(Peer::Tcp(_)) | None => {}
    }
    if let Some(value) = request.headers.get(AUTHORIZATION) {
        // Of two, a proxy before us may have looked at the other.
        if request.headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
            return Err(Error::Unauthenticated);
        }
        let text = value.to_str().unwrap_or("");
        let token = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(Error::Unauthenticated),
        };
        let caller = sessions::by_token(app, visitor, token).await?;
        return caller.map(Some).ok_or(Error::Unauthenticated);
    }
    match session_cookie(app, request) {
        Some(cookie) => sessions::by_cookie(app, visitor, cookie).await,
        None => Ok(None),
    }
}

/// Refuses what another site's page sends in somebody's name. Browsers say where a request comes
/// from: `Sec-Fetch-Site`, and older ones `Origin`. A cookie without either is no browser of today's
/// and may not change anything. Links from elsewhere open pages, nothing else.
fn same_site(request: &Parts, surface: Surface, cookie: bool) -> Result<()> {
    let headers = &request.headers;
    // What a WebSocket carries is as good as a request that changes things.
    let safe = request.method.is_safe() && !headers.contains_key(UPGRADE);
    let refused =
        || Error::denied("request.cross-site", "this request comes from another site's page");
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        let navigation = safe
            && surface == Surface::Page
            && headers.get(SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate");
        return match site.as_bytes() {
            b"same-origin" => Ok(()),
            b"none" if safe => Ok(()),
            _ if navigation => Ok(()),
            _ => Err(refused()),
        };
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let reached = request.extensions.get::<Reached>();
        let ours = reached.is_some_and(|reached| host::is_own_origin(reached, origin));
        return if ours { Ok(()) } else { Err(refused()) };
    }
    if cookie && !safe {
        return Err(refused());
    }
    Ok(())
}

/// Whether the request is for us and there is room for it.
fn admit(app: &App, request: &Request, peer: Option<Peer>, reached: &Reached) -> Result<Turn> {
    // No name of ours, and no browser, leads to the sockets of this host.
    if !matches!(peer, Some(Peer::Root | Peer::Local(_))) {
        host::check(app, reached, request.headers(), request.uri())?;
    }
    Turn::take(&app.requests).ok_or_else(|| {
        Error::unavailable("server.busy", "too many requests at once; try again in a moment")
    })
}

fn visitor(app: &App, headers: &HeaderMap, reached: &Reached, request_id: &str) -> Visitor {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
    Visitor {
        address: reached.client,
        https: reached.https,
        agent: agent.chars().take(200).collect(),
        request_id: request_id.to_owned(),
        device: cookie(headers, &device_cookie_name(app, reached.https)).map(str::to_owned),
    }
}

/// The session cookie's name. Cookies know no ports, so instances side by side need names apart; and
/// what came by TLS is named so that only TLS can have set it (RFC 6265bis, `__Host-`): whoever can
/// write plain HTTP for this name can neither read such a cookie nor put another in its place.
pub fn session_cookie_name(app: &App, https: bool) -> String {
    cookie_name(app, "session", https)
}

/// The device cookie's name.
pub fn device_cookie_name(app: &App, https: bool) -> String {
    cookie_name(app, "device", https)
}

fn cookie_name(app: &App, what: &str, https: bool) -> String {
    let prefix = if https { "__Host-" } else { "" };
    format!("{prefix}{}_{what}", app.config.runtime.instance)
}

fn session_cookie<'a>(app: &App, request: &'a Parts) -> Option<&'a str> {
    let https = request.extensions.get::<Reached>().is_some_and(|reached| reached.https);
    let name = session_cookie_name(app, https);
    let mut found = cookies(&request.headers, &name);
    let first = found.next()?;
    // Cookies know no ports and no order: of two, one was planted by somebody else's program.
    found.all(|other| other == first).then_some(first)
}

pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    cookies(headers, name).next()
}

fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(';')).filter_map(move |pair| {
        let (found, value) = pair.trim().split_once('=')?;
        (found == name).then_some(value)
    })
}

fn add_headers(headers: &mut HeaderMap, surface: Surface, request_id: &str) {
    let csp = match surface {
        Surface::Api => CSP_API,
        Surface::Page => CSP_PAGE,
    };
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, csp),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "same-origin"),
        (COOP, "same-origin"),
        (CORP, "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, value);
    }
}

/// What inner layers tell the outermost one of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    route: Option<String>,
    actor: Option<Actor>,
    /// The code of a refusal whose answer is a page like any other.
    refusal: Option<String>,
    /// Where one asks for more of what was in the way.
    ask: Option<String>,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody was refused and is told so on a page: the audit is to have it as of any refusal.
    pub(super) fn set_refusal(&self, error: &Error) {
        let mut noted = self.lock();
        noted.refusal = Some(error.code().to_owned());
        noted.ask =
            noted.actor.as_ref().and_then(|actor| problem::ask_for_more(error, &actor.name));
    }

    /// Where whoever was refused asks for more of what was in the way.
    pub(super) fn ask(&self) -> Option<String> {
        self.lock().ask.clone()
    }

    fn refusal(&self) -> Option<String> {
        self.lock().refusal.clone()
    }

    fn set_route(&self, route: &str) {
        self.lock().route = Some(route.to_owned());
    }

    fn set_actor(&self, caller: Option<&Caller>) {
        self.lock().actor = caller.map(|caller| caller.actor.clone());
    }

    fn route(&self) -> String {
        self.lock().route.clone().unwrap_or_else(|| "(no route)".to_owned())
    }

    fn actor(&self) -> Option<Actor> {
        self.lock().actor.clone()
    }
}
