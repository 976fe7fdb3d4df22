//! Which host names are ours: of requests, of origins, and for which of them browsers are told to
//! use TLS only (RFC 6797).

use std::net::IpAddr;

use axum::http::Uri;
use axum::http::header::{HOST, HeaderMap, HeaderValue};

use super::reached::Reached;
use crate::app::App;
use crate::clock::Seldom;
use crate::config::Hsts;
use crate::error::{Error, Refusal, Result};

/// Half a year. Subdomains are others' business.
pub const HSTS: HeaderValue = HeaderValue::from_static("max-age=15552000");
/// Characters of a stranger's host name that the log shows.
const SHOWN_MAX: usize = 100;

static REFUSED: Seldom = Seldom::new(60);

/// Only names that are ours: a foreign name that points here (DNS rebinding) is refused, wherever
/// the request states it. Whoever asked learns no name; the operator's log says what to configure.
pub fn check(app: &App, reached: &Reached, headers: &HeaderMap, uri: &Uri) -> Result<()> {
    let refused = || Error::Invalid {
        refusal: Refusal::new("host.unknown", "this server does not answer to this host name"),
        fields: Vec::new(),
    };
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).ok_or_else(refused)?;
    if hosts.next().is_some() {
        return Err(refused());
    }
    if let Some(authority) = uri.authority()
        && !authority.as_str().eq_ignore_ascii_case(host)
    {
        return Err(refused());
    }
    let wanted = reached.host.as_deref().ok_or_else(refused)?;
    if is_ours(app, reached, wanted) {
        return Ok(());
    }
    tell(app, wanted);
    Err(refused())
}

fn is_ours(app: &App, reached: &Reached, host: &str) -> bool {
    let Some(name) = name_of(host) else { return false };
    match address_in(&name) {
        // Loopback with any port: a browser cannot be made to send it by rebinding, and ssh -L gives
        // the port another number. The same holds for the address that the connection came to.
        Some(address) if address.is_loopback() || Some(address) == reached.local => true,
        _ => {
            name == "localhost"
                || app.config.server.hosts.contains(&name)
                // The certificate's names are ours too; over TLS only, where no other name gets here
                // without a warning.
                || reached.https && app.tls.as_ref().is_some_and(|tls| tls.has_name(&name))
        }
    }
}

/// The host without its port, in lower case; `None` when the port is none.
fn name_of(host: &str) -> Option<String> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return None;
    }
    Some(name.to_ascii_lowercase())
}

fn address_in(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn tell(app: &App, host: &str) {
    if !REFUSED.now() {
        return;
    }
    let shown: String = host.chars().filter(char::is_ascii_graphic).take(SHOWN_MAX).collect();
    let names = app.tls.as_ref().map(|tls| tls.facts().names.join(" ")).unwrap_or_default();
    tracing::warn!(
        host = shown,
        hosts = app.config.server.hosts.join(" "),
        certificate = names,
        "refused a request for a host name that is not ours; if people open Berth by it, add it to \
         server.hosts in the configuration (said once a minute)"
    );
}

/// Whether an `Origin` is this server's own. Over TLS it must be https: the same name in plain HTTP is
/// whoever sits on the wire. In plain HTTP either will do: a proxy that nobody has told us of may do
/// the TLS.
pub fn is_own_origin(reached: &Reached, origin: &HeaderValue) -> bool {
    let (Some(host), Ok(origin)) = (&reached.host, origin.to_str()) else { return false };
    let plain = origin.strip_prefix("http://").filter(|_| !reached.https);
    let name = origin.strip_prefix("https://").or(plain);
    name.is_some_and(|name| name.eq_ignore_ascii_case(host))
}

/// Whether browsers are told to use TLS only. Never for loopback names, where the rule would reach
/// every other program of the user's machine.
pub fn wants_hsts(app: &App, reached: &Reached) -> bool {
    if !reached.https {
        return false;
    }
    let name = reached.host.as_deref().and_then(name_of).unwrap_or_default();
    if name == "localhost" || address_in(&name).is_some() {
        return false;
    }
    match app.config.tls.hsts {
        Hsts::Never => false,
        Hsts::Always => true,
        Hsts::Auto => reached.proxied || app.tls.as_ref().is_some_and(|tls| !tls.is_generated()),
    }
}
