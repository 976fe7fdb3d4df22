//! Where registry traffic may go: which registries, over which scheme, to which addresses.
//!
//! Addresses are checked by the resolver that the connector itself uses, so the checked address is
//! the connected one, whatever DNS says a moment later; literal addresses never meet a resolver and
//! are checked with the URL. Both happen for every hop, redirects and token services included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::error::{Error, Result};

/// `[registries]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistriesConfig {
    /// The only registries that images may come from, as in references (`docker.io`, `ghcr.io`,
    /// `registry.lab:5000`); empty for all.
    pub allowed: Vec<String>,
    /// Registries (`host:port`) that are spoken to in plain HTTP; loopback and private addresses are
    /// allowed for them.
    pub insecure: Vec<String>,
    /// Registries (`host` or `host:port`) with TLS that may have a loopback or private address.
    pub internal: Vec<String>,
    /// Networks that nothing is fetched from, beside those that are never public.
    pub forbidden_networks: Vec<IpNet>,
    /// Authorities (PEM) that are trusted beside the system's, for the lab's own registry or a proxy
    /// that looks into TLS.
    pub ca_file: Option<PathBuf>,
    /// The lab's proxy (`http://proxy.lab:3128`), through which public registries are reached; it
    /// looks their names up. Registries listed above are reached directly.
    pub proxy: Option<String>,
    /// A file with `user:password` for the proxy.
    pub proxy_credentials_file: Option<PathBuf>,
    /// A registry that sends nothing for so many seconds, or hardly anything, has failed.
    pub stall_secs: u64,
}

/// Least and greatest `stall_secs`.
pub const STALL_SECS: std::ops::RangeInclusive<u64> = 1..=600;

impl Default for RegistriesConfig {
    fn default() -> Self {
        Self {
            allowed: Vec::new(),
            insecure: Vec::new(),
            internal: Vec::new(),
            forbidden_networks: Vec::new(),
            ca_file: None,
            proxy: None,
            proxy_credentials_file: None,
            stall_secs: 30,
        }
    }
}

/// Which addresses a host may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Public ones.
    Public,
    /// Also loopback and private ones: the operator has listed the host.
    Listed,
}

/// The policy, ready to ask.
#[derive(Debug, Clone)]
pub struct Policy {
    config: RegistriesConfig,
}

impl Policy {
    /// As configured.
    pub fn new(config: &RegistriesConfig) -> Self {
        let mut config = config.clone();
        for list in [&mut config.allowed, &mut config.insecure, &mut config.internal] {
            for name in list {
                *name = name.to_ascii_lowercase();
            }
        }
        Self { config }
    }

    /// Whether images may come from `registry`.
    pub fn check_registry(&self, registry: &str) -> Result<()> {
        let allowed = &self.config.allowed;
        if allowed.is_empty() || allowed.iter().any(|name| name == registry) {
            return Ok(());
        }
        Err(Error::denied(
            "registry.not-allowed",
            format!("the operator does not allow images from {registry}"),
        ))
    }

    /// `http` only for registries that the operator lists.
    pub fn scheme(&self, endpoint: &str) -> &'static str {
        if self.config.insecure.iter().any(|name| name == endpoint) { "http" } else { "https" }
    }

    /// The scheme for a URL's host, whatever its own.
    pub fn scheme_of(&self, url: &Url) -> &'static str {
        origin(url).map_or("https", |origin| self.scheme(&origin))
    }

    /// Whether one hop may be made, and to which addresses.
    pub fn check_url(&self, url: &Url) -> Result<Reach> {
        let refused = |why: &str| {
            let host = url.host_str().unwrap_or_default();
            Error::denied("registry.forbidden", format!("{host} is not connected to: {why}"))
        };
        let origin = origin(url).ok_or_else(|| refused("the address has no host"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("the address has a user name in it"));
        }
        let insecure = self.config.insecure.contains(&origin);
        match url.scheme() {
            "https" => {}
            "http" if insecure => {}
            "http" => return Err(refused("plain HTTP is for registries that the operator lists")),
            _ => return Err(refused("neither https nor http")),
        }
        let listed = insecure || self.config.internal.contains(&origin);
        let reach = if listed { Reach::Listed } else { Reach::Public };
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if literal.is_some_and(|address| !self.may_connect(address, reach)) {
            return Err(refused("the address is in a forbidden network"));
        }
        let name = url.host_str().unwrap_or_default();
        let is_name = literal.is_none();
        // The proxy would take it for a machine of its own network, or for itself.
        let is_local = !name.contains('.') || name.ends_with(".localhost");
        if self.config.proxy.is_some() && reach == Reach::Public && is_name && is_local {
            return Err(refused("the proxy is asked for full names only"));
        }
        Ok(reach)
    }

    /// Whether `address` may be connected to.
    pub fn may_connect(&self, address: IpAddr, reach: Reach) -> bool {
        let address = plain(address);
        let forbidden = self.config.forbidden_networks.iter().any(|net| net.contains(&address));
        !forbidden && !is_never_a_host(address) && (reach == Reach::Listed || is_public(address))
    }
}

/// Host and port as in a reference: the port left out where the scheme implies it.
fn origin(url: &Url) -> Option<String> {
    let host = url.host_str()?.to_ascii_lowercase();
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    })
}

/// Resolves names to addresses that the policy allows.
#[derive(Debug)]
pub struct CheckedResolver {
    policy: Policy,
    reach: Reach,
}

impl CheckedResolver {
    /// A resolver for hosts of this reach.
    pub fn new(policy: Policy, reach: Reach) -> Self {
        Self { policy, reach }
    }
}

/// The text by which a refusal is found again in the transport's error.
#[derive(Debug, thiserror::Error)]
#[error("{host} has no address outside of forbidden networks")]
pub struct ForbiddenAddress {
    /// The name that was looked up.
    pub host: String,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (policy, reach) = (self.policy.clone(), self.reach);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let kept: Vec<SocketAddr> =
                found.filter(|address| policy.may_connect(address.ip(), reach)).collect();
            if kept.is_empty() {
                return Err(ForbiddenAddress { host }.into());
            }
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

/// The IPv4 address that an IPv6 one stands for (mapped, NAT64, 6to4), else the address itself.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let parts = v6.segments();
    let join =
        |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    if parts[..6] == [0x64, 0xff9b, 0, 0, 0, 0] || (parts[..6] == [0; 6] && parts[6] != 0) {
        return join(parts[6], parts[7]);
    }
    if parts[0] == 0x2002 {
        return join(parts[1], parts[2]);
    }
    address
}

/// Addresses that no registry has: unspecified, multicast, and link-local, where clouds keep their
/// metadata services.
fn is_never_a_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.octets()[0] == 0 || v4.octets()[0] >= 240 || v4.is_multicast() || v4.is_link_local()
        }
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local(),
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b); // RFC 6598
            let special = a == 192 && b == 0 && c == 0; // RFC 6890
            let benchmark = a == 198 && (b == 18 || b == 19); // RFC 2544
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_documentation()
                || shared
                || special
                || benchmark)
        }
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let first = v6.segments()[0];
    let documentation = first == 0x2001 && v6.segments()[1] == 0xdb8;
    // Only 2000::/3 is handed out (RFC 4291); what is left in it is documentation.
    (first & 0xe000) == 0x2000 && !documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::new(&RegistriesConfig {
            insecure: vec!["localhost:5000".into(), "10.0.0.9:5000".into()],
            internal: vec!["registry.lab".into()],
            forbidden_networks: vec!["203.0.114.0/24".parse().unwrap()],
            ..RegistriesConfig::default()
        })
    }

    #[test]
    fn only_public_addresses_are_reached_unless_listed() {
        let policy = policy();
        for address in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
            "203.0.114.7",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(!policy.may_connect(address, Reach::Public), "{address}");
        }
        for address in ["1.1.1.1", "93.184.215.14", "2606:4700::1111"] {
            assert!(policy.may_connect(address.parse().unwrap(), Reach::Public), "{address}");
        }
        assert!(policy.may_connect("127.0.0.1".parse().unwrap(), Reach::Listed));
        for address in ["169.254.169.254", "0.0.0.0", "203.0.114.7", "::ffff:169.254.169.254"] {
            let address: IpAddr = address.parse().unwrap();
            assert!(!policy.may_connect(address, Reach::Listed), "{address}");
        }
    }

    #[test]
    fn a_proxy_is_not_asked_for_its_own_machine() {
        let config =
            RegistriesConfig { proxy: Some("http://10.0.0.1:3128".into()), ..Default::default() };
        let policy = Policy::new(&config);
        for (url, good) in [
            ("https://ghcr.io/v2/", true),
            ("https://localhost/v2/", false),
            ("https://a.localhost/", false),
            ("https://metadata/", false),
            ("https://127.0.0.1/", false),
            ("https://[::1]/", false),
        ] {
            assert_eq!(policy.check_url(&url.parse().unwrap()).is_ok(), good, "{url}");
        }
    }

    #[test]
    fn each_hop_is_checked_by_scheme_host_and_port() {
        let policy = policy();
        let check = |url: &str, expected: Option<Reach>| {
            assert_eq!(policy.check_url(&url.parse().unwrap()).ok(), expected, "{url}");
        };
        check("https://registry-1.docker.io/v2/", Some(Reach::Public));
        check("http://localhost:5000/v2/", Some(Reach::Listed));
        check("http://10.0.0.9:5000/v2/", Some(Reach::Listed));
        check("https://registry.lab/v2/", Some(Reach::Listed));
        check("http://localhost:7777/api", None);
        check("http://registry-1.docker.io/v2/", None);
        check("https://127.0.0.1/", None);
        check("https://[::ffff:127.0.0.1]/", None);
        check("https://0x7f000001/", None);
        check("https://2130706433/", None);
        check("https://user:secret@example.com/", None);
        check("file:///etc/passwd", None);
        check("ftp://example.com/", None);
    }
}
