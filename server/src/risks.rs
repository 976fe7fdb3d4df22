//! Settings that are risky: what may come of each, and what to do. One list, for the log at start,
//! `berth config --check`, `berth doctor` and the System page.

use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use berth_runtime::wire::{DoctorCheck, DoctorStatus};
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Time;
use crate::config::{Config, Hsts};
use crate::inventory::KEY_FILE;
use crate::tls::x509::Facts;

/// Trusted proxies are some addresses, not a network of strangers: narrower than this is not said.
const PROXY_PREFIX_V4: u8 = 28;
const PROXY_PREFIX_V6: u8 = 120;
/// A certificate's end is said this many days before.
const END_DAYS: u64 = 14;
/// Sessions and tokens that live longer are said.
const SESSION_HOURS: u32 = 24 * 31;
const TOKEN_DAYS: u32 = 400;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To be known.
    Note,
    /// To be changed, unless it is meant.
    Warning,
}

/// A risky setting.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Risk {
    /// Stable name, such as `proxies.wide`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The setting, or the file.
    pub setting: String,
    /// What may come of it.
    pub what: String,
    /// What to do.
    pub cure: String,
}

fn risk(
    code: &'static str,
    setting: impl Into<String>,
    what: impl Into<String>,
    cure: impl Into<String>,
) -> Risk {
    let severity = Severity::Warning;
    Risk { code, severity, setting: setting.into(), what: what.into(), cure: cure.into() }
}

fn note(risk: Risk) -> Risk {
    Risk { severity: Severity::Note, ..risk }
}

/// Every risky setting; `certificate` is the one that is served, if it is known.
pub fn list(config: &Config, certificate: Option<&Facts>) -> Vec<Risk> {
    let mut risks = Vec::new();
    network(config, &mut risks);
    proxies(config, &mut risks);
    tls(config, certificate, &mut risks);
    registries(config, &mut risks);
    lives(config, &mut risks);
    ceilings(config, &mut risks);
    files(config, &mut risks);
    risks.sort_by_key(|risk| risk.severity == Severity::Note);
    risks
}

/// The warnings as rows of `berth doctor`.
pub fn as_checks(risks: &[Risk]) -> impl Iterator<Item = DoctorCheck> {
    let warnings = risks.iter().filter(|risk| risk.severity == Severity::Warning);
    warnings.map(|risk| DoctorCheck {
        id: format!("setting.{}", risk.code),
        status: DoctorStatus::Lack,
        found: risk.setting.clone(),
        costs: risk.what.clone(),
        mend: risk.cure.clone(),
    })
}

fn network(config: &Config, risks: &mut Vec<Risk>) {
    let server = &config.server;
    if server.listen.beyond_loopback() && server.hosts.is_empty() && !config.tls.own() {
        risks.push(note(risk(
            "hosts.empty",
            "server.hosts",
            "browsers may open Berth only by its addresses and this machine's own name",
            "add the names that people use, such as berth.lab.example",
        )));
    }
    if !server.hosts.is_empty() && !server.listen.any_tls() && server.trusted_proxies.is_empty() {
        risks.push(risk(
            "proxy.untold",
            "server.hosts",
            "there are host names but no address with TLS: if a proxy does the TLS, all people seem \
             to come from its address, and cookies are not kept to TLS",
            "add the proxy's address to server.trusted_proxies, or an address to server.listen",
        ));
    }
    let log = &server.log;
    if log.contains("trace") || log.contains("debug") && !log.contains("berth") {
        risks.push(risk(
            "log.verbose",
            format!("server.log = {log:?}"),
            "at this level libraries may write requests, and so secrets, into the log",
            "use \"info,berth=debug\" to see what Berth does",
        ));
    }
}

fn proxies(config: &Config, risks: &mut Vec<Risk>) {
    let server = &config.server;
    let pools = [Some(&config.runtime.network_pool), config.runtime.network_pool6.as_ref()];
    let pools: Vec<ipnet::IpNet> =
        pools.into_iter().flatten().filter_map(|pool| pool.parse().ok()).collect();
    for proxy in &server.trusted_proxies {
        let network = proxy.0;
        let widest = match network.addr() {
            IpAddr::V4(_) => PROXY_PREFIX_V4,
            IpAddr::V6(_) => PROXY_PREFIX_V6,
        };
        if network.prefix_len() < widest {
            risks.push(risk(
                "proxies.wide",
                format!("server.trusted_proxies: {network}"),
                "every machine in it can claim any address: throttling and the audit then believe it",
                "name the proxy's own address",
            ));
        }
        if pools.iter().any(|pool| pool.contains(&network) || network.contains(pool)) {
            risks.push(risk(
                "proxies.containers",
                format!("server.trusted_proxies: {network}"),
                "containers have addresses in it",
                "name the proxy's own address",
            ));
        }
    }
    if !server.trusted_proxies.is_empty() && !server.listen.any_tls() {
        risks.push(note(risk(
            "proxy.plain",
            "server.listen",
            "only the proxy speaks TLS; between it and Berth passwords travel in plain HTTP, on this \
             machine",
            "nothing, if the proxy sets its headers itself and overwrites a client's",
        )));
    }
}

fn tls(config: &Config, certificate: Option<&Facts>, risks: &mut Vec<Risk>) {
    if !config.server.listen.any_tls() {
        return;
    }
    if !config.tls.own() {
        risks.push(note(risk(
            "tls.generated",
            "tls.certificate",
            "browsers warn of a certificate that nobody vouches for",
            "compare its fingerprint ('berth certificate'), or bring one of your own",
        )));
        if config.tls.hsts == Hsts::Always {
            risks.push(risk(
                "tls.hsts",
                "tls.hsts = \"always\"",
                "browsers that have seen it let nobody past a warning, and there is one whenever the \
                 generated certificate is renewed",
                "bring a certificate of your own, or set it to \"auto\"",
            ));
        }
    }
    if let Some(facts) = certificate {
        let soon = Time::now().after(std::time::Duration::from_secs(END_DAYS * 86_400));
        if facts.not_after <= soon {
            risks.push(risk(
                "tls.ends",
                "tls.certificate",
                format!("the certificate ends at {}", facts.not_after),
                "put a new one in its place: it is taken without a restart",
            ));
        }
    }
}

fn registries(config: &Config, risks: &mut Vec<Risk>) {
    for name in &config.registries.insecure {
        risks.push(risk(
            "registry.plain",
            format!("registries.insecure: {name}"),
            "its images and people's passwords for it cross the network in plain HTTP",
            "give the registry TLS and list it under registries.internal",
        ));
    }
}

fn lives(config: &Config, risks: &mut Vec<Risk>) {
    let auth = &config.auth;
    if auth.session_hours > SESSION_HOURS {
        risks.push(risk(
            "session.long",
            format!("auth.session_hours = {}", auth.session_hours),
            "a stolen cookie is good for as long",
            "use a month at most (744)",
        ));
    }
    if auth.token_days_max > TOKEN_DAYS {
        risks.push(risk(
            "token.long",
            format!("auth.token_days_max = {}", auth.token_days_max),
            "a forgotten token is good for as long, and old signing keys are kept for it",
            "use a year at most (366)",
        ));
    }
}

fn ceilings(config: &Config, risks: &mut Vec<Risk>) {
    let ceilings = &config.runtime.ceilings;
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    if memory.is_some_and(|kib| ceilings.memory_bytes > kib * 1024) {
        risks.push(note(risk(
            "ceiling.memory",
            "runtime.ceilings.memory_bytes",
            "one container may be given more memory than this machine has",
            "set the most that one container should ever have",
        )));
    }
    let cpus = std::thread::available_parallelism().map_or(0, |cpus| cpus.get() as u64);
    if cpus > 0 && u64::from(ceilings.cpu_millis) > cpus * 1000 {
        risks.push(note(risk(
            "ceiling.cpu",
            "runtime.ceilings.cpu_millis",
            "one container may be given every processor of this machine",
            "set the most that one container should ever have",
        )));
    }
}

fn files(config: &Config, risks: &mut Vec<Risk>) {
    let db = config.db_dir();
    let key_file = db.join(KEY_FILE);
    for (code, path, open, what) in [
        ("file.tls-key", config.tls.key.as_path(), 0o007, "every user of this machine can read it"),
        ("file.inventory", db.as_path(), 0o077, "it holds sessions, tokens and keys"),
        ("file.token-key", key_file.as_path(), 0o077, "who reads it can sign sessions"),
    ] {
        if let Some(mode) = mode(path).filter(|mode| mode & open != 0) {
            risks.push(risk(
                code,
                path.display().to_string(),
                format!("{what}; its mode is {mode:o}"),
                format!("chmod {:o} {}", mode & !open, path.display()),
            ));
        }
    }
}

/// The permission bits of a file that is there and may be looked at.
fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|found| found.mode() & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> Vec<&'static str> {
        let mut config: Config = toml::from_str(text).expect("a good configuration");
        config.runtime.data_dir = "/nonexistent".into();
        let warnings = list(&config, None).into_iter();
        warnings.filter(|risk| risk.severity == Severity::Warning).map(|risk| risk.code).collect()
    }

    #[test]
    fn the_defaults_have_no_warning_and_each_risky_setting_has_one() {
        assert_eq!(codes(""), [""; 0]);
        for (text, code) in [
            ("[registries]\ninsecure = [\"registry.lab:5000\"]", "registry.plain"),
            ("[server]\nhosts = [\"berth.lab\"]", "proxy.untold"),
            ("[server]\ntrusted_proxies = [\"172.16.0.0/12\"]", "proxies.wide"),
            ("[server]\ntrusted_proxies = [\"10.201.0.5\"]", "proxies.containers"),
            ("[server]\nlog = \"trace\"", "log.verbose"),
            ("[server]\nlisten = \"192.0.2.1:443\"\n[tls]\nhsts = \"always\"", "tls.hsts"),
            ("[auth]\nsession_hours = 8000", "session.long"),
            ("[auth]\ntoken_days_max = 3000", "token.long"),
        ] {
            assert_eq!(codes(text), [code], "{text}");
        }
        // The controls: the same settings as they are meant.
        for text in [
            "[server]\ntrusted_proxies = [\"10.0.0.5\", \"10.0.0.16/28\"]\nhosts = [\"b.lab\"]",
            "[server]\nlisten = [\"127.0.0.1:7777\", \"192.0.2.1:443\"]\nhosts = [\"b.lab\"]",
            "[server]\nlog = \"info,berth=debug\"",
        ] {
            assert_eq!(codes(text), [""; 0], "{text}");
        }
    }
}
