//! The configuration: one TOML file over defaults, environment and flags over it, validated once.
//!
//! `[runtime]` is the supervisor's own table ([`RuntimeConfig`]) and comes from the file only, since
//! the supervisor reads just the file. Every other key can be set by `BERTH_<SECTION>__<KEY>`, such
//! as `BERTH_SERVER__LISTEN`. A wrong key is explained by name and line.

mod network;

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_runtime::config::{CONFIG_PATH, RuntimeConfig};
use berth_runtime::wire::Limits;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

pub use network::{Hsts, Listen, ListenAddress, Proxy, ProxyHeaders, RatesConfig, TlsConfig};

use crate::auth::Role;
use crate::registry::RegistriesConfig;
use crate::registry::policy::STALL_SECS;

/// Everything that can be set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the server listens and what it takes.
    pub server: ServerConfig,
    /// Certificate and key.
    pub tls: TlsConfig,
    /// How much is taken from one address or person.
    pub rates: RatesConfig,
    /// Signing in.
    pub auth: AuthConfig,
    /// Containers: what they get when nothing is said, and how many.
    pub containers: ContainersConfig,
    /// How long records are kept.
    pub retention: RetentionConfig,
    /// Where images may come from.
    pub registries: RegistriesConfig,
    /// What images may cost.
    pub images: ImagesConfig,
    /// What privileged code depends on.
    pub runtime: RuntimeConfig,
}

/// `[server]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Addresses and ports: plain HTTP on loopback, TLS on all others.
    pub listen: Listen,
    /// Host names, besides loopback ones and those of the certificate, by which browsers reach this
    /// server; without port.
    pub hosts: Vec<String>,
    /// Proxies that are believed who their client is; nobody else is.
    pub trusted_proxies: Vec<Proxy>,
    /// The headers in which they say it.
    pub proxy_headers: ProxyHeaders,
    /// Connections at once.
    pub connections_max: usize,
    /// Connections of one address at once; loopback and trusted proxies are not counted.
    pub connections_per_address_max: usize,
    /// Requests being answered at once, streams aside.
    pub requests_max: usize,
    /// Event and log streams of one person at once.
    pub streams_max: usize,
    /// A log filter as of the tracing crate, such as `info,berth=debug`.
    pub log: String,
    /// How its lines are written.
    pub log_format: LogFormat,
}

/// How the server's log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, and a line for each answer, which `berth::requests` in the filter says otherwise of.
    Json,
}

/// `[auth]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// A session ends this long after sign-in.
    pub session_hours: u32,
    /// Sessions of one person at once; the oldest ends when there is one more.
    pub sessions_max: u32,
    /// An invitation link ends after this.
    pub invitation_hours: u32,
    /// The longest life that a token can be given.
    pub token_days_max: u32,
    /// Tokens of one person at once.
    pub tokens_max: u32,
    /// Who must have a second factor.
    pub second_factor: FactorPolicy,
}

/// Who must have a second factor. Everybody may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactorPolicy {
    /// Nobody.
    #[default]
    Optional,
    /// Operators and auditors, who see everybody's.
    Overseers,
    /// Everybody.
    Everybody,
}

impl FactorPolicy {
    /// Whether somebody of this role must have one.
    pub fn is_required_of(self, role: Role) -> bool {
        match self {
            Self::Optional => false,
            Self::Overseers => matches!(role, Role::Operator | Role::Auditor),
            Self::Everybody => role != Role::System,
        }
    }
}

/// `[containers]`. What one container may have at most is `[runtime.ceilings]`, because the
/// supervisor holds it too.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainersConfig {
    /// Containers of one person.
    pub per_person_max: u32,
    /// Ports of the host that one person's containers have together. Which can be leased at all is said in
    /// `[runtime]`.
    pub ports_per_person_max: u32,
    /// Volumes of one person.
    pub volumes_per_person_max: u32,
    /// Size of `/dev/shm`, never above the container's memory.
    pub shm_bytes: u64,
    /// Seconds between the stop signal and the end.
    pub stop_grace_secs: u32,
    /// A log segment's size, 64 KiB to 1 GiB.
    pub log_file_bytes: u64,
    /// Log segments kept, 1 to 10.
    pub log_files: u32,
    /// Seconds that a program beside a container's first one waits for somebody to attach, 1 to 86400.
    pub unattended_secs: u32,
    /// The limits that a container gets when nothing is said.
    pub default_limits: Limits,
    /// Sizes that the launch page offers, at most [`SIZES_MAX`]; clipped to the ceilings.
    pub sizes: Vec<SizeConfig>,
}

/// Sizes that are offered at most.
pub const SIZES_MAX: usize = 8;

/// `[[containers.sizes]]`: limits with a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeConfig {
    /// What it is called, 1 to 24 characters.
    pub name: String,
    /// The limits.
    pub limits: Limits,
}

/// `[retention]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Events older than this are dropped.
    pub events_days: u32,
    /// Events kept at most.
    pub events_max: u32,
    /// Ended operations older than this are dropped.
    pub operations_days: u32,
    /// Ended operations kept at most.
    pub operations_max: u32,
    /// Audit rows older than this are dropped.
    pub audit_days: u32,
    /// Audit rows kept at most.
    pub audit_max: u32,
    /// What people have used on days before this many is dropped.
    pub usage_days: u32,
    /// How long an `Idempotency-Key` is remembered.
    pub idempotency_hours: u32,
}

/// `[images]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Bytes of one uploaded archive at most.
    pub import_bytes_max: u64,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self { import_bytes_max: 16 << 30 }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: Listen::default(),
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_headers: ProxyHeaders::XForwarded,
            connections_max: 1024,
            connections_per_address_max: 256,
            requests_max: 256,
            streams_max: 64,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            session_hours: 24 * 7,
            sessions_max: 50,
            invitation_hours: 72,
            token_days_max: 366,
            tokens_max: 50,
            second_factor: FactorPolicy::Optional,
        }
    }
}

impl Default for ContainersConfig {
    fn default() -> Self {
        Self {
            per_person_max: 200,
            ports_per_person_max: 32,
            volumes_per_person_max: 64,
            shm_bytes: 64 << 20,
            unattended_secs: 60,
            stop_grace_secs: 10,
            log_file_bytes: 10 << 20,
            log_files: 3,
            default_limits: Limits {
                cpu_millis: 1000,
                cpu_weight: 100,
                memory_bytes: 512 << 20,
                swap_bytes: 0,
                pids: 512,
            },
            sizes: [
                ("small", 500, 256 << 20, 128),
                ("medium", 1000, 1 << 30, 512),
                ("large", 4000, 8 << 30, 2048),
            ]
            .map(|(name, cpu_millis, memory_bytes, pids)| SizeConfig {
                name: name.to_owned(),
                limits: Limits { cpu_millis, cpu_weight: 100, memory_bytes, swap_bytes: 0, pids },
            })
            .into(),
        }
    }
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self {
            events_days: 30,
            events_max: 100_000,
            operations_days: 30,
            operations_max: 20_000,
            audit_days: 366,
            audit_max: 1_000_000,
            usage_days: 400,
            idempotency_hours: 24,
        }
    }
}

/// Why the configuration cannot be used: where, what, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A key or value is wrong.
    #[error("{place}: {what}")]
    Wrong {
        /// File and line, or the environment variable.
        place: String,
        /// The key and what is wrong with it.
        what: String,
    },
}

/// A configuration and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file, if there was one.
    pub path: Option<PathBuf>,
}

/// Reads and validates. `path` is what `--config` or `BERTH_CONFIG` says; without it the standard
/// file is used if it is there. `overrides` are the environment's variables.
///
/// # Errors
/// Names file and line, or the variable, of what is wrong.
pub fn load(
    path: Option<&Path>,
    overrides: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let (path, text) = match path {
        Some(path) => (Some(path.to_owned()), read(path)?),
        None => match read(Path::new(CONFIG_PATH)) {
            Ok(text) => (Some(CONFIG_PATH.into()), text),
            Err(ConfigError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                (None, String::new())
            }
            Err(error) => return Err(error),
        },
    };
    let source = Source { path: path.clone().unwrap_or_default(), text };
    let mut config: Config = toml::from_str(&source.text).map_err(|error| source.wrong(&error))?;
    let mut table: Option<Table> = None;
    for (name, value) in overrides {
        let Some((section, key)) = variable(&name) else { continue };
        let wrong = |what: String| ConfigError::Wrong { place: name.clone(), what };
        if section == "runtime" {
            return Err(wrong("the supervisor reads only the file: set it there".into()));
        }
        let merged = table.get_or_insert_with(|| source.text.parse().unwrap_or_default());
        let section =
            merged.entry(section).or_insert_with(|| Value::Table(Table::new())).as_table_mut();
        let section =
            section.ok_or_else(|| wrong("the file has this section as a value".into()))?;
        section.insert(key, parse_value(&value));
        config = merged
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| wrong(error.message().replace('\n', " ")))?;
    }
    validate(&config).map_err(|(key, what)| {
        let place = match source.line_of(key) {
            Some(line) => format!("{}:{line}", source.path.display()),
            None => "configuration".to_owned(),
        };
        ConfigError::Wrong { place, what: format!("{key}: {what}") }
    })?;
    Ok(Loaded { config, path })
}

impl Config {
    /// The server's own directory for the inventory.
    pub fn db_dir(&self) -> PathBuf {
        self.runtime.data_dir.join("db")
    }

    /// The server's content store.
    pub fn store_dir(&self) -> PathBuf {
        self.runtime.data_dir.join("store")
    }

    /// The socket on which root is the system.
    pub fn root_socket(&self) -> PathBuf {
        self.runtime.run_dir.join("server").join("root.sock")
    }

    /// The socket for this host's users.
    pub fn local_socket(&self) -> PathBuf {
        self.runtime.run_dir.join("local").join("berth.sock")
    }

    /// The supervisor's socket.
    pub fn supervisor_socket(&self) -> PathBuf {
        self.runtime.run_dir.join("supervisor.sock")
    }

    /// The addresses that people open.
    pub fn urls(&self) -> String {
        let urls = self.server.listen.addresses().iter().map(|address| address.url());
        urls.collect::<Vec<_>>().join(" ")
    }

    /// The configuration as TOML, every key with its value.
    ///
    /// # Errors
    /// When a value has no TOML form.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

impl AuthConfig {
    /// How long a session lives.
    pub fn session_life(&self) -> Duration {
        Duration::from_secs(u64::from(self.session_hours) * 3600)
    }

    /// How long an invitation lives.
    pub fn invitation_life(&self) -> Duration {
        Duration::from_secs(u64::from(self.invitation_hours) * 3600)
    }
}

/// The first wrong key and what is wrong with it.
fn validate(config: &Config) -> Result<(), (&'static str, String)> {
    network::validate(config)?;
    let server = &config.server;
    let auth = &config.auth;
    let within: [(&'static str, u64, u64, u64); 8] = [
        ("server.connections_max", server.connections_max as u64, 8, 65_536),
        ("server.requests_max", server.requests_max as u64, 4, 65_536),
        ("server.streams_max", server.streams_max as u64, 1, 4096),
        ("auth.session_hours", auth.session_hours.into(), 1, 24 * 366),
        ("auth.sessions_max", auth.sessions_max.into(), 1, 1000),
        ("auth.invitation_hours", auth.invitation_hours.into(), 1, 24 * 30),
        ("auth.token_days_max", auth.token_days_max.into(), 1, 3660),
        ("auth.tokens_max", auth.tokens_max.into(), 1, 1000),
    ];
    for (key, value, low, high) in within {
        if value < low || value > high {
            return Err((key, format!("{value} is not between {low} and {high}")));
        }
    }
    if server.log.parse::<tracing_subscriber::EnvFilter>().is_err() {
        return Err(("server.log", format!("{:?} is no log filter", server.log)));
    }
    validate_registries(&config.registries)?;
    validate_containers(&config.containers, &config.runtime.ceilings)?;
    validate_runtime(&config.runtime)?;
    config
        .runtime
        .check_data_sets()
        .map_err(|(key, text)| ("runtime.data_sets", format!("{key} {text}")))
}

fn validate_registries(registries: &RegistriesConfig) -> Result<(), (&'static str, String)> {
    let (stall, range) = (registries.stall_secs, STALL_SECS);
    if !range.contains(&stall) {
        let why = format!("{stall} is not {} to {}", range.start(), range.end());
        return Err(("registries.stall_secs", why));
    }
    let Some(proxy) = &registries.proxy else {
        let file = &registries.proxy_credentials_file;
        return match file {
            None => Ok(()),
            Some(_) => Err((
                "registries.proxy_credentials_file",
                "there is no registries.proxy that it could be for".into(),
            )),
        };
    };
    let wrong = |why: &str| Err(("registries.proxy", format!("{proxy:?} {why}")));
    match url::Url::parse(proxy) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() => {
            wrong("is no proxy's address such as http://proxy.lab:3128")
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            wrong("has a user name in it: put it into registries.proxy_credentials_file")
        }
        Ok(_) => Ok(()),
        Err(_) => wrong("is no proxy's address such as http://proxy.lab:3128"),
    }
}

fn validate_containers(
    containers: &ContainersConfig,
    ceilings: &Limits,
) -> Result<(), (&'static str, String)> {
    let good = |size: &SizeConfig| (1..=24).contains(&size.name.chars().count());
    if containers.sizes.len() > SIZES_MAX || !containers.sizes.iter().all(good) {
        let text = format!("at most {SIZES_MAX}, each with a name of 1 to 24 characters");
        return Err(("containers.sizes", text));
    }
    let limits = &containers.default_limits;
    let volumes_max = containers.volumes_per_person_max;
    let within: [(&'static str, u64, u64, u64); 13] = [
        ("containers.per_person_max", containers.per_person_max.into(), 1, 100_000),
        ("containers.ports_per_person_max", containers.ports_per_person_max.into(), 0, 10_000),
        ("containers.volumes_per_person_max", volumes_max.into(), 0, 2048),
        ("containers.shm_bytes", containers.shm_bytes, 4096, ceilings.memory_bytes),
        ("containers.stop_grace_secs", containers.stop_grace_secs.into(), 0, 600),
        ("containers.unattended_secs", containers.unattended_secs.into(), 1, 86_400),
        ("containers.log_file_bytes", containers.log_file_bytes, 64 << 10, 1 << 30),
        ("containers.log_files", containers.log_files.into(), 1, 10),
        ("containers.default_limits", limits.cpu_millis.into(), 10, ceilings.cpu_millis.into()),
        ("containers.default_limits", limits.cpu_weight.into(), 1, ceilings.cpu_weight.into()),
        ("containers.default_limits", limits.memory_bytes, 6 << 20, ceilings.memory_bytes),
        ("containers.default_limits", limits.swap_bytes, 0, ceilings.swap_bytes),
        ("containers.default_limits", limits.pids.into(), 1, ceilings.pids.into()),
    ];
    for (key, value, low, high) in within {
        if value < low || value > high {
            return Err((key, format!("{value} is not between {low} and {high}")));
        }
    }
    Ok(())
}

fn validate_runtime(runtime: &RuntimeConfig) -> Result<(), (&'static str, String)> {
    let name = &runtime.instance;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.is_empty() || name.len() > 8 || !name.chars().all(good) {
        return Err((
            "runtime.instance",
            format!("{name:?} is not 1 to 8 lower-case letters and digits"),
        ));
    }
    for (key, path) in
        [("runtime.data_dir", &runtime.data_dir), ("runtime.run_dir", &runtime.run_dir)]
    {
        if !path.is_absolute() {
            return Err((key, format!("{} is not an absolute path", path.display())));
        }
    }
    if runtime.network_pool.parse::<ipnet::Ipv4Net>().is_err() {
        let text = format!("{:?} is no IPv4 network such as 10.201.0.0/16", runtime.network_pool);
        return Err(("runtime.network_pool", text));
    }
    if let Some(pool) = &runtime.network_pool6 {
        let parsed = pool.parse::<ipnet::Ipv6Net>().ok();
        let is_good = |net: &ipnet::Ipv6Net| {
            net.prefix_len() == 96 && *net == net.trunc() && net.addr().octets()[0] == 0xfd
        };
        if !parsed.as_ref().is_some_and(is_good) {
            let text = format!(
                "{pool:?} is no unique local network of 96 bits such as fd5e:1c2a:9b44::/96"
            );
            return Err(("runtime.network_pool6", text));
        }
    }
    for address in &runtime.port_addresses {
        if address.is_ipv6() && runtime.network_pool6.is_none() {
            let text = format!("{address} takes a network_pool6: else containers have no IPv6");
            return Err(("runtime.port_addresses", text));
        }
        if *address == std::net::Ipv6Addr::LOCALHOST {
            let text = "the kernel passes nothing on from ::1; 127.0.0.1 does what it would";
            return Err(("runtime.port_addresses", text.to_owned()));
        }
    }
    Ok(())
}

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn wrong(&self, error: &toml::de::Error) -> ConfigError {
        let line = error.span().map(|span| self.line_at(span.start));
        let place = match line {
            Some(line) => format!("{}:{line}", self.path.display()),
            None => self.path.display().to_string(),
        };
        ConfigError::Wrong { place, what: error.message().replace('\n', " ") }
    }

    fn line_at(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    /// The line of `section.key`, if the file sets it.
    fn line_of(&self, dotted: &str) -> Option<usize> {
        let table: Spanned<DeTable<'_>> = DeTable::parse(&self.text).ok()?;
        let mut table = table.get_ref();
        let mut line = None;
        for part in dotted.split('.') {
            let (key, value) = table.iter().find(|(key, _)| key.get_ref() == part)?;
            line = Some(self.line_at(key.span().start));
            match value.get_ref() {
                DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        line
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

/// `BERTH_SERVER__LISTEN` as `server`, `listen`.
fn variable(name: &str) -> Option<(String, String)> {
    let (section, key) = name.strip_prefix("BERTH_")?.split_once("__")?;
    Some((section.to_ascii_lowercase(), key.to_ascii_lowercase()))
}

/// A TOML value; what is none is a string.
fn parse_value(text: &str) -> Value {
    let parsed = format!("value = {text}").parse::<Table>().ok();
    parsed
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let path = std::env::temp_dir().join(format!(
            "berth-config-{}-{:?}.toml",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, text).expect("the temporary directory is writable");
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let loaded = load(Some(&path), variables);
        std::fs::remove_file(&path).expect("the file was just written");
        let shown = path.display().to_string();
        loaded.map(|loaded| loaded.config).map_err(|e| e.to_string().replace(&shown, "berth.toml"))
    }

    #[test]
    fn an_empty_file_is_the_default_and_what_is_printed_can_be_read() {
        let config = check("", &[]).expect("the defaults are good");
        assert_eq!(config.urls(), "http://127.0.0.1:7777");
        let printed = config.to_toml().expect("every value has a TOML form");
        let again = check(&printed, &[]).expect("what is printed is good");
        assert_eq!(again.to_toml().ok(), Some(printed));
    }

    #[test]
    fn a_wrong_key_is_named_with_its_line() {
        let error = check("[server]\n\nlistn = 1\n", &[]).expect_err("an unknown key");
        assert!(error.starts_with("berth.toml:3: "), "{error}");
        assert!(error.contains("listn") && error.contains("`listen`"), "{error}");
        let error = check("[auth]\nsession_hours = \"x\"\n", &[]).expect_err("a wrong type");
        assert!(error.starts_with("berth.toml:2: "), "{error}");
        let error = check("\n[servers]\n", &[]).expect_err("an unknown section");
        assert!(error.starts_with("berth.toml:2: ") && error.contains("servers"), "{error}");
        let error = check("[server]\nlisten = \"http://0.0.0.0:80\"\n", &[]).expect_err("plain");
        assert!(error.starts_with("berth.toml:2: server.listen: "), "{error}");
        let error = check("[tls]\nkey = \"/k\"\n", &[]).expect_err("half a pair");
        assert!(error.starts_with("berth.toml:1: tls: "), "{error}");
    }

    #[test]
    fn the_environment_stands_over_the_file() {
        let file = "[server]\nlisten = \"127.0.0.1:1\"\nstreams_max = 3\n";
        let config = check(file, &[("BERTH_SERVER__LISTEN", "127.0.0.1:2"), ("BERTH_BIN", "x")]);
        let server = config.expect("a good variable").server;
        assert_eq!(server.listen.addresses()[0].socket.port(), 2);
        assert_eq!(server.streams_max, 3);
        let config = check(file, &[("BERTH_SERVER__LISTEN", r#"["127.0.0.1:2", "192.0.2.1:3"]"#)]);
        let config = config.expect("a list in a variable");
        assert_eq!(config.urls(), "http://127.0.0.1:2 https://192.0.2.1:3");
        let error = check(file, &[("BERTH_SERVER__LISTN", "1")]).expect_err("an unknown key");
        assert!(error.starts_with("BERTH_SERVER__LISTN: "), "{error}");
        assert!(check("", &[("BERTH_RUNTIME__INSTANCE", "x")]).is_err());
    }
}
