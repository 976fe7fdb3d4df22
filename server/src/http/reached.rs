//! How a request reached us: from which address, by TLS or not, for which host. A proxy's word is
//! taken only if the connection comes from a trusted one, and of the addresses that it hands on only
//! the right-most that is not a trusted proxy's own: what stands left of it anybody can write.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use axum::http::header::{FORWARDED, HOST, HeaderName};

use super::guard::{Link, Peer};
use crate::config::{ProxyHeaders, ServerConfig};

/// Hops that are looked at, from the right.
const HOPS_MAX: usize = 32;
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How a request reached us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Who sent it; `None` on the sockets of this host.
    pub client: Option<IpAddr>,
    /// Our own end of the connection, if it has an address.
    pub local: Option<IpAddr>,
    /// Whether its sender spoke TLS, to us or to a trusted proxy.
    pub https: bool,
    /// Whether a trusted proxy handed it on.
    pub proxied: bool,
    /// Host and port as its sender wrote them.
    pub host: Option<String>,
}

/// What a trusted proxy says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    client: Option<IpAddr>,
    https: Option<bool>,
    host: Option<String>,
}

impl Reached {
    /// Reads connection and headers.
    pub fn of(server: &ServerConfig, peer: Option<&Peer>, headers: &HeaderMap) -> Self {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let Some(&Peer::Tcp(Link { remote, local, tls })) = peer else {
            return Self { client: None, local: None, https: false, proxied: false, host };
        };
        let remote = remote.ip().to_canonical();
        let direct = Self {
            client: Some(remote),
            local: Some(local.ip().to_canonical()),
            https: tls,
            proxied: false,
            host,
        };
        if !server.is_trusted_proxy(remote) {
            return direct;
        }
        let said = match server.proxy_headers {
            ProxyHeaders::XForwarded => x_forwarded(server, headers),
            ProxyHeaders::Forwarded => forwarded(server, headers),
        };
        Self {
            client: said.client.or(direct.client),
            https: said.https.unwrap_or(tls),
            proxied: true,
            host: said.host.or(direct.host),
            ..direct
        }
    }

    /// Scheme, host and port as the browser sees them.
    pub fn origin(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}", self.host.as_deref().unwrap_or(""))
    }
}

fn x_forwarded(server: &ServerConfig, headers: &HeaderMap) -> Said {
    let hops: Vec<Option<IpAddr>> =
        list(headers, &X_FORWARDED_FOR).iter().map(|text| node(text)).collect();
    let last = |name| list(headers, name).pop();
    Said {
        client: right_most(server, &hops).and_then(|at| hops[at]),
        https: last(&X_FORWARDED_PROTO).map(|proto| proto.eq_ignore_ascii_case("https")),
        host: last(&X_FORWARDED_HOST),
    }
}

fn forwarded(server: &ServerConfig, headers: &HeaderMap) -> Said {
    let hops: Vec<Said> = list(headers, &FORWARDED).iter().map(|text| element(text)).collect();
    let clients: Vec<Option<IpAddr>> = hops.iter().map(|hop| hop.client).collect();
    let at = right_most(server, &clients);
    at.and_then(|at| hops.into_iter().nth(at)).unwrap_or_default()
}

/// The place of the right-most hop that is not a trusted proxy; of trusted ones alone, the first.
/// What cannot be read ends the way: nothing left of it is known.
fn right_most(server: &ServerConfig, hops: &[Option<IpAddr>]) -> Option<usize> {
    let mut found = None;
    for (at, hop) in hops.iter().enumerate().rev().take(HOPS_MAX) {
        let Some(address) = hop else { break };
        found = Some(at);
        if !server.is_trusted_proxy(*address) {
            break;
        }
    }
    found
}

/// The items of a list header, over all its lines, split at commas outside of quotes.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    let items = lines.flat_map(|line| split(line.to_str().unwrap_or("?"), ','));
    items.collect()
}

fn split(text: &str, at: char) -> Vec<String> {
    let (mut items, mut item, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for letter in text.chars() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if letter == at && !quoted => {
                items.push(item.trim().to_owned());
                item.clear();
                continue;
            }
            _ => {}
        }
        item.push(letter);
    }
    items.push(item.trim().to_owned());
    items
}

/// One element of `Forwarded`.
fn element(text: &str) -> Said {
    let mut said = Said::default();
    for pair in split(text, ';') {
        let Some((name, value)) = pair.split_once('=') else { continue };
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
        match name.trim().to_ascii_lowercase().as_str() {
            "for" => said.client = node(value),
            "proto" => said.https = Some(value.eq_ignore_ascii_case("https")),
            "host" => said.host = Some(value.to_owned()),
            _ => {}
        }
    }
    said
}

/// An address with or without a port (RFC 7239, section 6); none for `unknown` and made-up names.
fn node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(headers: ProxyHeaders, trusted: &[&str]) -> ServerConfig {
        let proxy = |text: &&str| crate::config::Proxy(text.parse().expect("a network"));
        ServerConfig {
            trusted_proxies: trusted.iter().map(proxy).collect(),
            proxy_headers: headers,
            ..ServerConfig::default()
        }
    }

    fn reached(server: &ServerConfig, from: &str, lines: &[(&'static str, &str)]) -> Reached {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_static(name);
            headers.append(name, value.parse().expect("a header value"));
        }
        let link = Link {
            remote: SocketAddr::new(from.parse().expect("an address"), 1),
            local: "192.0.2.1:7443".parse().expect("an address"),
            tls: false,
        };
        Reached::of(server, Some(&Peer::Tcp(link)), &headers)
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let lines = [
            ("host", "a"),
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "b"),
        ];
        let server = server(ProxyHeaders::XForwarded, &["10.0.0.0/28"]);
        let stranger = reached(&server, "10.0.0.99", &lines);
        assert_eq!(stranger.client, "10.0.0.99".parse().ok());
        assert_eq!((stranger.https, stranger.host.as_deref()), (false, Some("a")));
        // The control.
        let proxy = reached(&server, "10.0.0.5", &lines);
        assert_eq!(proxy.client, "198.51.100.7".parse().ok());
        assert_eq!((proxy.https, proxy.host.as_deref()), (true, Some("b")));
    }

    #[test]
    fn what_a_client_writes_itself_is_left_of_what_counts() {
        let server = server(ProxyHeaders::XForwarded, &["10.0.0.5/32", "10.0.0.6/32"]);
        for (lines, client) in [
            (&["127.0.0.1, 198.51.100.7"][..], "198.51.100.7"),
            (&["127.0.0.1", "198.51.100.7, 10.0.0.6"][..], "198.51.100.7"),
            (&["198.51.100.7, nonsense"][..], "10.0.0.5"),
            (&["198.51.100.7, nonsense, 10.0.0.6"][..], "10.0.0.6"),
            (&["[2001:db8::1]:99"][..], "2001:db8::1"),
            (&["198.51.100.7:99"][..], "198.51.100.7"),
            (&["::ffff:198.51.100.7"][..], "198.51.100.7"),
            (&["10.0.0.6"][..], "10.0.0.6"),
            (&[""][..], "10.0.0.5"),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let found = reached(&server, "10.0.0.5", &lines);
            assert_eq!(found.client, client.parse().ok(), "{lines:?}");
        }
        // The other kind of header is not even read.
        let found = reached(&server, "10.0.0.5", &[("forwarded", "for=127.0.0.1;proto=https")]);
        assert_eq!((found.client, found.https), ("10.0.0.5".parse().ok(), false));
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let server = server(ProxyHeaders::Forwarded, &["10.0.0.5/32"]);
        let line = r#"for=127.0.0.1;proto=http, For="[2001:db8:cafe::17]:4711";Proto=HTTPS;host="b:1,2;x""#;
        let found = reached(&server, "10.0.0.5", &[("host", "a"), ("forwarded", line)]);
        assert_eq!(found.client, "2001:db8:cafe::17".parse().ok());
        assert_eq!((found.https, found.host.as_deref()), (true, Some("b:1,2;x")));
        let found = reached(&server, "10.0.0.5", &[("forwarded", "for=_hidden, for=unknown")]);
        assert_eq!((found.client, found.https), ("10.0.0.5".parse().ok(), false));
    }
}
