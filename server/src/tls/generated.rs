//! The certificate that Berth makes for itself where the operator has brought none. It is kept
//! beside the inventory and made anew before its end, or when it lacks a name that is asked for.
//!
//! Invariants: the key's file is 0600 before it holds a byte; certificate and key lie in one file,
//! so that no crash leaves a pair that does not fit.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use time::OffsetDateTime;

use super::x509::Facts;
use crate::clock::Time;
use crate::config::Config;

/// Some browsers refuse certificates that are good for longer.
const DAYS: i64 = 397;
/// A new one is made when this much is left.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// Clocks of browsers may be behind by this.
const CLOCK_SKEW_SECS: i64 = 3600;
/// Names in the certificate at most.
const NAMES_MAX: usize = 64;

/// What the certificate is to be good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Host names.
    pub(super) names: Vec<String>,
    /// Addresses that are configured.
    pub(super) addresses: Vec<IpAddr>,
    /// Addresses that the host has besides, where the server listens on all: nice to have.
    pub(super) others: Vec<IpAddr>,
}

impl Wanted {
    /// Names and addresses by which this host may be opened.
    pub(super) fn of(config: &Config) -> Self {
        let mut names = vec!["localhost".to_owned()];
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let host = host.map(|name| name.to_ascii_lowercase());
        let good = |name: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
            !name.is_empty() && name.len() <= 253 && name.chars().all(plain)
        };
        names.extend(host.filter(good));
        names.extend(config.server.hosts.iter().cloned());
        names.sort();
        names.dedup();
        let mut wanted = Self { names, addresses: Vec::new(), others: Vec::new() };
        for address in config.server.listen.addresses().iter().filter(|address| address.tls) {
            match address.socket.ip() {
                ip if ip.is_unspecified() => wanted.others = local_addresses(config),
                ip => wanted.addresses.push(ip),
            }
        }
        wanted.others.retain(|ip| !wanted.addresses.contains(ip));
        wanted
    }

    /// Whether a certificate with these facts will do, now and for a while.
    pub(super) fn met_by(&self, facts: &Facts) -> bool {
        facts.not_after.before(RENEW_BEFORE) > Time::now()
            && self.names.iter().all(|name| facts.names.contains(name))
            && self.addresses.iter().all(|address| facts.addresses.contains(address))
    }
}

/// Makes certificate and key, and writes them to `path`.
pub(super) fn make(path: &Path, wanted: &Wanted) -> Result<()> {
    let addresses = wanted.addresses.iter().chain(&wanted.others).map(ToString::to_string);
    let names: Vec<String> =
        wanted.names.iter().cloned().chain(addresses).take(NAMES_MAX).collect();
    let mut params = CertificateParams::new(names).context("name a certificate")?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "Berth (generated)");
    params.distinguished_name = subject;
    let now = OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::seconds(CLOCK_SKEW_SECS);
    params.not_after = now + time::Duration::days(DAYS);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().context("make a key")?;
    let certificate = params.self_signed(&key).context("sign a certificate")?;
    let temporary = path.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", temporary.display()));
        }
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .with_context(|| format!("create {}", temporary.display()))?;
    let text = format!("{}{}", certificate.pem(), key.serialize_pem());
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).context("write it")?;
    std::fs::rename(&temporary, path).with_context(|| format!("name {}", path.display()))
}

/// The host's own addresses, bridges of containers and link-local ones aside. From `/proc`, since the
/// server may open no netlink socket; nothing found is no fault.
fn local_addresses(config: &Config) -> Vec<IpAddr> {
    let pool = config.runtime.network_pool.parse::<ipnet::Ipv4Net>().ok();
    let table = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let v4 = host_entries(&table).into_iter().filter(|address| {
        !address.is_loopback()
            && !address.is_link_local()
            && !pool.is_some_and(|pool| pool.contains(address))
    });
    let pool = config.runtime.network_pool6.as_ref();
    let pool = pool.and_then(|pool| pool.parse::<ipnet::Ipv6Net>().ok());
    let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let v6 = table.lines().filter_map(|line| {
        let bits = u128::from_str_radix(line.split_whitespace().next()?, 16).ok()?;
        let address = Ipv6Addr::from(bits);
        let is_theirs = pool.is_some_and(|pool| pool.contains(&address));
        let is_ours = !address.is_loopback() && !address.is_unicast_link_local() && !is_theirs;
        is_ours.then_some(address)
    });
    v4.map(IpAddr::from).chain(v6.map(IpAddr::from)).collect()
}

/// Of the kernel's routing trie the entries that say `/32 host LOCAL`, each below its address.
fn host_entries(table: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in table.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last.filter(|address| !found.contains(address)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_addresses_are_found_in_the_trie() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.0.2.0\n        /24 link UNICAST\n     \
                     |-- 10.0.2.15\n        /32 host LOCAL\nLocal:\n     |-- 10.0.2.15\n        \
                     /32 host LOCAL\n     |-- 10.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(host_entries(table), [Ipv4Addr::new(10, 0, 2, 15)]);
    }
}
