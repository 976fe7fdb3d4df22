//! `[server]` as far as it is about the network, `[tls]` and `[rates]`: where the server listens,
//! with which certificate, whom it believes, and how much it takes from one place or person.
//!
//! Invariant: an address that is not loopback is TLS; there is no way to write one that is not.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Config, ServerConfig};

/// Addresses that one server listens on at most.
const ADDRESSES_MAX: usize = 16;
/// Host names that one server answers to at most.
const HOSTS_MAX: usize = 64;
/// Trusted proxies at most.
const PROXIES_MAX: usize = 64;

/// One address with what is spoken on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddress {
    /// Address and port.
    pub socket: SocketAddr,
    /// TLS, or plain HTTP.
    pub tls: bool,
}

/// `server.listen`: one address, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen(Vec<ListenAddress>);

impl Listen {
    /// Every address, in the file's order; at least one.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.0
    }

    /// Whether TLS is spoken anywhere.
    pub fn any_tls(&self) -> bool {
        self.0.iter().any(|address| address.tls)
    }

    /// Whether others than this machine can connect.
    pub fn beyond_loopback(&self) -> bool {
        self.0.iter().any(|address| !address.socket.ip().is_loopback())
    }
}

impl ListenAddress {
    /// As a browser writes it.
    pub fn url(self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.socket)
    }
}

impl Default for Listen {
    fn default() -> Self {
        let socket = SocketAddr::from(([127, 0, 0, 1], 7777));
        Self(vec![ListenAddress { socket, tls: false }])
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tls && self.socket.ip().is_loopback() {
            f.write_str("https://")?;
        }
        self.socket.fmt(f)
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    /// `ADDRESS:PORT`: plain HTTP on loopback, TLS elsewhere. `https://` in front asks for TLS on
    /// loopback too.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        let socket: SocketAddr = rest.parse().map_err(|_| {
            format!("{text:?} is no address and port, such as 192.0.2.10:7443 or [::1]:7777")
        })?;
        let loopback = socket.ip().is_loopback();
        match scheme {
            None => Ok(Self { socket, tls: !loopback }),
            Some("https") => Ok(Self { socket, tls: true }),
            Some("http") if loopback => Ok(Self { socket, tls: false }),
            Some("http") => Err(format!(
                "{socket} is not a loopback address: passwords would cross the network in plain \
                 HTTP. Write \"{socket}\" for TLS, or put a proxy with TLS in front of a loopback \
                 address"
            )),
            Some(other) => Err(format!("{other:?} is neither http nor https")),
        }
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.collect_str(one),
            several => serializer.collect_seq(several.iter().map(ToString::to_string)),
        }
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "server.listen is an address such as \"127.0.0.1:7777\", or \
                                       a list of them"
        )]
        enum OneOrMore {
            One(String),
            More(Vec<String>),
        }
        let texts = match OneOrMore::deserialize(deserializer)? {
            OneOrMore::One(text) => vec![text],
            OneOrMore::More(texts) => texts,
        };
        let addresses: Result<Vec<ListenAddress>, String> =
            texts.iter().map(|text| text.parse()).collect();
        let addresses =
            addresses.map_err(|what| serde::de::Error::custom(format!("server.listen: {what}")))?;
        Ok(Self(addresses))
    }
}

/// The headers in which a trusted proxy says who its client is. A proxy passes on whatever it does
/// not set itself, so only one kind is ever read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeaders {
    /// `X-Forwarded-For`, `X-Forwarded-Proto`, `X-Forwarded-Host`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// When browsers are told to use nothing but TLS with this name (RFC 6797).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hsts {
    /// With a certificate of the operator's own, and behind a trusted proxy with TLS. Not with the
    /// generated one: a browser that was told would let nobody past a warning, and there is one
    /// whenever that certificate is renewed.
    Auto,
    /// With the generated certificate too.
    Always,
    /// Never. For a name on which something else still speaks plain HTTP: the rule covers all ports.
    Never,
}

/// `[tls]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate chain in PEM, the server's own first; empty for a generated one.
    pub certificate: PathBuf,
    /// Its key in PEM.
    pub key: PathBuf,
    /// When browsers are told to use TLS only.
    pub hsts: Hsts,
    /// Handshakes at once; more are closed.
    pub handshakes_max: usize,
}

/// `[rates]`: requests per minute. A pause saves up at most one minute's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RatesConfig {
    /// Of one address, while nobody has signed in. Loopback addresses are not counted.
    pub address_per_min: u32,
    /// Sign-ins, setups and invitations tried from one address. Loopback is not counted.
    pub sign_ins_per_min: u32,
    /// Of one person.
    pub person_per_min: u32,
    /// Of one person, that change something.
    pub changes_per_min: u32,
    /// Of one person, that cost much: pulls, imports, exports.
    pub costly_per_min: u32,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            hsts: Hsts::Auto,
            handshakes_max: 128,
        }
    }
}

impl Default for RatesConfig {
    fn default() -> Self {
        Self {
            address_per_min: 1200,
            sign_ins_per_min: 60,
            person_per_min: 6000,
            changes_per_min: 3000,
            costly_per_min: 120,
        }
    }
}

impl TlsConfig {
    /// Whether the certificate is one that the operator brought.
    pub fn own(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }
}

impl ServerConfig {
    /// Whether `address` is a proxy whose word is taken.
    pub fn is_trusted_proxy(&self, address: std::net::IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|proxy| proxy.0.contains(&address))
    }
}

/// An address or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxy(pub IpNet);

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => serializer.collect_str(&self.0.addr()),
            false => serializer.collect_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Proxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let single = text.parse::<std::net::IpAddr>().map(IpNet::from).ok();
        single.or_else(|| text.parse().ok()).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "server.trusted_proxies: {text:?} is no address or network, such as 10.0.0.5 or \
                 10.0.0.0/28"
            ))
        })
    }
}

/// The first wrong key and what is wrong with it.
pub(super) fn validate(config: &Config) -> Result<(), (&'static str, String)> {
    let server = &config.server;
    let addresses = server.listen.addresses();
    if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
        return Err(("server.listen", format!("give 1 to {ADDRESSES_MAX} addresses")));
    }
    for (at, address) in addresses.iter().enumerate() {
        if addresses[..at].iter().any(|other| other.socket == address.socket) {
            return Err(("server.listen", format!("{} is there twice", address.socket)));
        }
    }
    if server.hosts.len() > HOSTS_MAX {
        return Err(("server.hosts", format!("{HOSTS_MAX} names are the most")));
    }
    for host in &server.hosts {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
        if host.is_empty() || host.len() > 253 || !host.chars().all(good) {
            return Err(("server.hosts", format!("{host:?} is no host name in lower case")));
        }
    }
    if server.trusted_proxies.len() > PROXIES_MAX {
        return Err(("server.trusted_proxies", format!("{PROXIES_MAX} are the most")));
    }
    let tls = &config.tls;
    if tls.own() == tls.key.as_os_str().is_empty() {
        return Err(("tls", "certificate and key go together: set both, or neither".to_owned()));
    }
    for (key, path) in [("tls.certificate", &tls.certificate), ("tls.key", &tls.key)] {
        if tls.own() && !path.is_absolute() {
            return Err((key, format!("{} is not an absolute path", path.display())));
        }
    }
    let rates = &config.rates;
    let within: [(&'static str, u64, u64, u64); 7] = [
        (
            "server.connections_per_address_max",
            server.connections_per_address_max as u64,
            4,
            65_536,
        ),
        ("tls.handshakes_max", tls.handshakes_max as u64, 8, 65_536),
        ("rates.address_per_min", rates.address_per_min.into(), 30, 1_000_000),
        ("rates.sign_ins_per_min", rates.sign_ins_per_min.into(), 5, 1_000_000),
        ("rates.person_per_min", rates.person_per_min.into(), 60, 1_000_000),
        ("rates.changes_per_min", rates.changes_per_min.into(), 10, 1_000_000),
        ("rates.costly_per_min", rates.costly_per_min.into(), 1, 1_000_000),
    ];
    for (key, value, low, high) in within {
        if value < low || value > high {
            return Err((key, format!("{value} is not between {low} and {high}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_loopback_is_tls() {
        for (text, tls) in [
            ("127.0.0.1:7777", false),
            ("[::1]:7777", false),
            ("http://127.0.0.9:80", false),
            ("https://127.0.0.1:7443", true),
            ("192.0.2.10:7443", true),
            ("0.0.0.0:7443", true),
            ("[::]:7443", true),
            ("[::ffff:127.0.0.1]:7777", true),
            ("https://192.0.2.10:7443", true),
        ] {
            let address: ListenAddress = text.parse().expect("a good address");
            assert_eq!(address.tls, tls, "{text}");
            let again: ListenAddress = address.to_string().parse().expect("what is shown is good");
            assert_eq!(again, address, "{text}");
        }
        for text in ["http://192.0.2.10:80", "http://0.0.0.0:80", "ftp://[::1]:1", "localhost:1"] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
        let refused = "http://0.0.0.0:80".parse::<ListenAddress>().expect_err("plain");
        assert!(refused.contains("not a loopback address"), "{refused}");
    }
}
