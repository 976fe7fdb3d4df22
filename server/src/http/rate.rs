//! What each request costs, and from whose budget it is paid; the headers that say what is left
//! (draft-ietf-httpapi-ratelimit-headers): `RateLimit-Policy` with quota and window, `RateLimit` with
//! what remains and the seconds until all of it is back.

use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;

use super::reached::Reached;
use crate::app::App;
use crate::auth::budget::{Budget, Spender};
use crate::auth::{Caller, Role};
use crate::clock::Seldom;
use crate::error::{Error, Result};

/// What remains.
pub const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What is allowed.
pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Routes that move or unpack whole images; they are few, and each costs the host much.
const COSTLY: [&str; 4] =
    ["/api/v1/images/pull", "/api/v1/images/import", "/images/pull", "/images/import"];
/// The end of routes that read whole images out.
const COSTLY_END: &str = "/export";

/// Pays for a request; the tightest budget that it was paid from.
pub(super) fn charge(
    app: &App,
    caller: Option<&Caller>,
    request: &Parts,
    route: &str,
) -> Result<Option<Budget>> {
    let mut spenders = Vec::new();
    match caller {
        Some(caller) if caller.role == Role::System => {}
        Some(caller) => {
            spenders.push(Spender::Person(caller.principal));
            if !request.method.is_safe() {
                spenders.push(Spender::Changes(caller.principal));
            }
            if is_costly(request, route) {
                spenders.push(Spender::Costly(caller.principal));
            }
        }
        // Assets cost less than the answer that refuses them.
        None if route.starts_with("/assets/") => {}
        None => {
            let client = request.extensions.get::<Reached>().and_then(|reached| reached.client);
            spenders.extend(client.and_then(Spender::address));
        }
    }
    let mut tightest: Option<Budget> = None;
    for spender in spenders {
        let budget = app.budgets.spend(spender).map_err(Error::Limited)?;
        if tightest.is_none_or(|other| budget.left < other.left) {
            tightest = Some(budget);
        }
    }
    Ok(tightest)
}

fn is_costly(request: &Parts, route: &str) -> bool {
    route.ends_with(COSTLY_END) || !request.method.is_safe() && COSTLY.contains(&route)
}

/// Says that somebody is held back. Not one audit row each: whoever floods would push out what others
/// did.
pub(super) fn tell(budget: &Budget, client: Option<std::net::IpAddr>) {
    static SAID: Seldom = Seldom::new(60);
    if SAID.now() {
        let address = client.map(|client| client.to_string()).unwrap_or_default();
        tracing::warn!(
            address,
            budget = budget.name,
            "too many requests, so some are refused (said once a minute)"
        );
    }
}

/// Writes what is allowed and what is left.
pub(super) fn add_headers(headers: &mut HeaderMap, budget: &Budget) {
    let Budget { name, per_min, left, full_secs, .. } = budget;
    let policy = format!("\"{name}\";q={per_min};w=60");
    let limit = format!("\"{name}\";r={left};t={full_secs}");
    for (header, text) in [(POLICY, policy), (LIMIT, limit)] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(header, value);
        }
    }
}
