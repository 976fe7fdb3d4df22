//! The part of `/etc/berth/berth.toml` that the supervisor reads: where things lie and what bounds
//! them. The server reads the same file with its own sections added and explains wrong keys.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::wire::Limits;

/// Where the configuration is looked for when nothing else is said.
pub const CONFIG_PATH: &str = "/etc/berth/berth.toml";
/// Ids in one person's range.
pub const RANGE_IDS: u32 = 65_536;

/// `[runtime]`: all that privileged code depends on. The file must be root's and writable by no other.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Names what this instance owns in shared name spaces: the cgroup, the nft table, the bridges.
    /// Lower-case letters and digits, 1 to 8.
    pub instance: String,
    /// Data that outlives a boot: `layers/`, `people/`, `state/`, the server's `store/` and `db/`.
    pub data_dir: PathBuf,
    /// Live state; on tmpfs. The socket is `supervisor.sock` in it.
    pub run_dir: PathBuf,
    /// The server's user; only it and root may connect.
    pub server_user: String,
    /// First host id of the block that ranges are taken from; a multiple of 65,536.
    pub id_first: u32,
    /// Last host id of the block.
    pub id_last: u32,
    /// Subnets are cut from this pool (CIDR), one per person.
    pub network_pool: String,
    /// Prefix length of a person's subnet, 22 to 29.
    pub network_prefix: u8,
    /// A unique local IPv6 network of 96 bits (RFC 4193), in which each container has its IPv4 address as the lower
    /// 32 bits. None: containers have no IPv6.
    pub network_pool6: Option<String>,
    /// Name servers for containers; empty: the host's own upstreams.
    pub nameservers: Vec<std::net::Ipv4Addr>,
    /// First port of the host that can be leased to containers, from 1024.
    pub port_first: u16,
    /// Last one; below the first: none can.
    pub port_last: u16,
    /// The host's addresses that leased ports are on; `0.0.0.0`: all of IPv4 that it has, `::`: all of IPv6, which
    /// takes a `network_pool6`. Empty: none can be leased.
    pub port_addresses: Vec<std::net::IpAddr>,
    /// The most that one container may be given; requests above it are refused.
    pub ceilings: Limits,
    /// Unpacked bytes of one layer at most.
    pub layer_bytes_max: u64,
    /// Entries of one layer at most.
    pub layer_entries_max: u64,
    /// Unpackers that run at once.
    pub unpackers_max: u32,
    /// Whether containers enter the AppArmor profile where the host has loaded it.
    pub apparmor: bool,
    /// A line in the journal for each phase of a start and of an unpacking.
    pub timing: bool,
    /// What all containers together leave to the host.
    pub reserve: Reserve,
    /// The host's directories that containers may be given to read, by name; [`DATA_SETS_MAX`] at most.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub data_sets: BTreeMap<String, DataSet>,
}

/// Data sets at most.
pub const DATA_SETS_MAX: usize = 64;
/// Bytes of a data set's path at most.
const DATA_SET_PATH_BYTES_MAX: usize = 512;
/// Bytes of what is said of a data set at most.
const DATA_SET_DESCRIPTION_BYTES_MAX: usize = 200;
/// Groups that one data set is for at most.
const DATA_SET_GROUPS_MAX: usize = 16;
/// Bytes of a group's name at most.
const GROUP_BYTES_MAX: usize = 32;
/// What the kernel shows under a path of its own, and no data set is at or below.
const KERNELS_OWN: [&str; 3] = ["/proc", "/sys", "/dev"];

/// `[runtime.data_sets.NAME]`: a directory of the host's that people's containers are given read-only, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSet {
    /// Where it is: absolute, without symbolic links. Nobody but operators is told.
    pub path: PathBuf,
    /// What it is, for people.
    #[serde(default)]
    pub description: String,
    /// The groups whose members may have it, by name; left out: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
}

/// Whether a text can be the name of a data set: 1 to 63 lower-case letters, digits, '_' or '-', a letter or digit
/// first. A dot would be another table in the file.
pub fn is_data_set_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: u8| plain(byte) || b"_-".contains(&byte);
    (1..=63).contains(&name.len())
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(inner)
}

/// `[runtime.reserve]`: what all containers together leave to the host, so that it always answers. Held by
/// the kernel in the cgroup above all of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reserve {
    /// Memory in bytes; left out: a sixteenth of the host's, from 256 MiB to 4 GiB. 0: none.
    pub memory_bytes: Option<u64>,
    /// Processor time in thousandths of a core; 0: none.
    pub cpu_millis: u32,
    /// Share of the processor of all containers together beside what else is in the same cgroup, 1 to 10000;
    /// 100 is neutral.
    pub cpu_weight: u32,
}

impl Default for Reserve {
    fn default() -> Self {
        Self { memory_bytes: None, cpu_millis: 0, cpu_weight: 100 }
    }
}

/// Containers have one of so many parts of memory and processors in any case: an operator who reserves more than
/// there is has mistaken a unit.
const PARTS_MAX: u32 = 4;

impl Reserve {
    /// What all containers together may have of so much memory, in bytes; `None` for all of it.
    pub fn memory_left(&self, total_bytes: u64) -> Option<u64> {
        let kept = match self.memory_bytes {
            Some(bytes) => bytes,
            None => (total_bytes / 16).clamp(256 << 20, 4 << 30),
        };
        let left = total_bytes.saturating_sub(kept).max(total_bytes / u64::from(PARTS_MAX));
        (kept > 0).then_some(left)
    }

    /// What they may have of so many processors, in thousandths of a core; `None` for all of it.
    pub fn cpu_left(&self, cpus: u32) -> Option<u32> {
        let total = cpus.saturating_mul(1000);
        let left = total.saturating_sub(self.cpu_millis).max(total / PARTS_MAX);
        (self.cpu_millis > 0).then_some(left)
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than root could change what root does.
    #[error("trust {path}: it must belong to root and be writable by no other")]
    Untrusted {
        /// The file.
        path: PathBuf,
    },
    /// It is not TOML, or `[runtime]` has a wrong key or value.
    #[error("understand {path}: {detail}")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Line, key and reason.
        detail: String,
    },
}

/// Bytes of the file at most.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

impl RuntimeConfig {
    /// Whether the data sets can be offered; what is said names the key.
    ///
    /// # Errors
    /// The key, and what is wrong with it.
    pub fn check_data_sets(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, text: String| Err((format!("runtime.data_sets{key}"), text));
        if self.data_sets.len() > DATA_SETS_MAX {
            return wrong(
                "",
                format!("has {} of them, {DATA_SETS_MAX} at most", self.data_sets.len()),
            );
        }
        for (name, set) in &self.data_sets {
            if !is_data_set_name(name) {
                let text = "is no name: 1 to 63 lower-case letters, digits, '_' or '-', a letter or digit first";
                return wrong(&format!(".{name:?}"), text.to_owned());
            }
            if let Err(text) = self.check_data_set_path(&set.path) {
                return wrong(&format!(".{name}.path"), format!("{:?} {text}", set.path));
            }
            let (said, most) = (&set.description, DATA_SET_DESCRIPTION_BYTES_MAX);
            if said.len() > most || said.chars().any(char::is_control) {
                let text = format!("is one line of {most} bytes at most");
                return wrong(&format!(".{name}.description"), text);
            }
            let named = |group: &String| (1..=GROUP_BYTES_MAX).contains(&group.len());
            let groups = set.groups.as_deref();
            if groups.is_some_and(|all| {
                !(1..=DATA_SET_GROUPS_MAX).contains(&all.len()) || !all.iter().all(named)
            }) {
                let text = format!(
                    "names 1 to {DATA_SET_GROUPS_MAX} groups; leave it out to offer the data set to everybody"
                );
                return wrong(&format!(".{name}.groups"), text);
            }
        }
        Ok(())
    }

    fn check_data_set_path(&self, path: &Path) -> Result<(), &'static str> {
        let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
        let text = path.as_os_str().as_encoded_bytes();
        if !path.is_absolute() || !path.components().all(plain) || text.contains(&0) {
            return Err("is no absolute path without '..'");
        }
        if text.len() > DATA_SET_PATH_BYTES_MAX {
            return Err("is longer than 512 bytes");
        }
        if path == Path::new("/") || KERNELS_OWN.iter().any(|own| path.starts_with(own)) {
            return Err("is the host's own: name a directory that holds nothing but the data");
        }
        // What one person keeps would be everybody's to read, and the supervisor's socket be there.
        for own in [&self.data_dir, &self.run_dir] {
            if own.starts_with(path) || path.starts_with(own) {
                return Err("holds what people keep here, or lies among it");
            }
        }
        Ok(())
    }

    /// Whether a port of the host can be leased.
    pub fn leases_port(&self, port: u16) -> bool {
        !self.port_addresses.is_empty() && (self.port_first..=self.port_last).contains(&port)
    }

    /// Reads `[runtime]` of the file, the other tables being the server's; without a path the one of
    /// `BERTH_CONFIG`, else [`CONFIG_PATH`], whose absence alone means defaults.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let named =
            path.map(Path::to_owned).or_else(|| std::env::var_os("BERTH_CONFIG").map(Into::into));
        let path = named.clone().unwrap_or_else(|| CONFIG_PATH.into());
        let failed = |source| ConfigError::Read { path: path.clone(), source };
        let mut text = String::new();
        match File::open(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound && named.is_none() => {}
            file => {
                let file = file.map_err(failed)?;
                let about = file.metadata().map_err(failed)?;
                let caller = nix::unistd::geteuid().as_raw();
                if ![0, caller].contains(&about.uid()) || about.mode() & 0o022 != 0 {
                    return Err(ConfigError::Untrusted { path });
                }
                file.take(CONFIG_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
            }
        }
        let wrong = |detail: String| ConfigError::Wrong { path: path.clone(), detail };
        let whole: Tables = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        whole.runtime.check().map_err(wrong)?;
        Ok(whole.runtime)
    }

    /// What the types do not say.
    fn check(&self) -> Result<(), String> {
        let name = self.instance.as_bytes();
        let letters = name.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !(1..=8).contains(&name.len()) || !letters || !name[0].is_ascii_lowercase() {
            return Err(format!(
                "runtime.instance {:?} is not 1 to 8 lower-case letters and digits, a letter first",
                self.instance
            ));
        }
        if !self.id_first.is_multiple_of(RANGE_IDS) || self.id_first < 100_000 {
            return Err(format!(
                "runtime.id_first {} is not a multiple of {RANGE_IDS} above 100000",
                self.id_first
            ));
        }
        if self.id_last.saturating_sub(self.id_first) < 3 * RANGE_IDS - 1 {
            return Err("runtime.id_last leaves fewer than three ranges".to_owned());
        }
        if self.port_first < 1024 {
            return Err(format!(
                "runtime.port_first {} is below 1024: those ports are the host's own",
                self.port_first
            ));
        }
        if !(1..=10_000).contains(&self.reserve.cpu_weight) {
            return Err(format!(
                "runtime.reserve.cpu_weight {} is not from 1 to 10000",
                self.reserve.cpu_weight
            ));
        }
        for (key, path) in [("data_dir", &self.data_dir), ("run_dir", &self.run_dir)] {
            if !path.is_absolute() {
                return Err(format!("runtime.{key} {path:?} is not absolute"));
            }
        }
        self.check_data_sets().map_err(|(key, text)| format!("{key}: {text}"))
    }
}

/// The file's tables, as far as the supervisor looks.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Tables {
    runtime: RuntimeConfig,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            instance: "berth".to_owned(),
            data_dir: "/var/lib/berth".into(),
            run_dir: "/run/berth".into(),
            server_user: "berth".to_owned(),
            id_first: 2_000_224_256,
            id_last: 2_147_352_575,
            network_pool: "10.201.0.0/16".to_owned(),
            network_prefix: 26,
            network_pool6: None,
            nameservers: Vec::new(),
            port_first: 20_000,
            port_last: 20_999,
            port_addresses: vec![std::net::Ipv4Addr::LOCALHOST.into()],
            ceilings: Limits {
                cpu_millis: 1_024_000,
                cpu_weight: 10_000,
                memory_bytes: 1 << 42,
                swap_bytes: 1 << 42,
                pids: 32_768,
            },
            layer_bytes_max: 64 << 30,
            layer_entries_max: 2_000_000,
            unpackers_max: 4,
            apparmor: true,
            timing: false,
            reserve: Reserve::default(),
            data_sets: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_keeps_its_part_and_containers_some_of_it_in_any_case() {
        let of = |memory_bytes| Reserve { memory_bytes, ..Reserve::default() };
        let gib = |count: u64| count << 30;
        assert_eq!(of(None).memory_left(gib(16)), Some(gib(15)));
        assert_eq!(of(None).memory_left(gib(256)), Some(gib(252)));
        assert_eq!(of(None).memory_left(gib(1)), Some(gib(1) - (256 << 20)));
        assert_eq!(of(Some(gib(3))).memory_left(gib(8)), Some(gib(5)));
        assert_eq!(of(Some(gib(30))).memory_left(gib(8)), Some(gib(2)));
        assert_eq!(of(Some(0)).memory_left(gib(8)), None);
        let cpu = |cpu_millis| Reserve { cpu_millis, ..Reserve::default() }.cpu_left(4);
        assert_eq!((cpu(0), cpu(500), cpu(9000)), (None, Some(3500), Some(1000)));
    }

    #[test]
    fn only_the_supervisors_table_is_read_and_strictly() {
        let file = std::env::temp_dir().join(format!("berth-config-{}.toml", std::process::id()));
        let load = |text: &str| {
            std::fs::write(&file, text).expect("written");
            RuntimeConfig::load(Some(&file))
        };
        let config = load("[server]\nanything = 1\n[runtime]\ninstance = \"lab\"\n").expect("good");
        assert_eq!((config.instance.as_str(), config.network_prefix), ("lab", 26));
        let wrong = load("[runtime]\nnetwork_pol = \"10.0.0.0/8\"\n").expect_err("a wrong key");
        assert!(wrong.to_string().contains("network_pol"), "{wrong}");
        for bad in ["instance = \"a-b\"", "instance = \"1a\"", "id_first = 5", "run_dir = \"run\""]
        {
            assert!(load(&format!("[runtime]\n{bad}\n")).is_err(), "{bad}");
        }
        std::fs::remove_file(&file).expect("removed");
        assert!(RuntimeConfig::load(Some(&file)).is_err(), "a file that was named must be there");
    }

    #[test]
    fn data_sets_have_names_and_paths_that_lead_to_nobody_elses() {
        let with = |name: &str, lines: &str| -> RuntimeConfig {
            toml::from_str::<Tables>(&format!("[runtime.data_sets.{name}]\n{lines}\n"))
                .expect("TOML")
                .runtime
        };
        let good =
            with("a-1_b", "path = \"/srv/sets/a\"\ndescription = \"of dogs\"\ngroups = [\"lab\"]");
        assert_eq!(good.check_data_sets(), Ok(()));
        assert_eq!(good.data_sets["a-1_b"].groups.as_deref(), Some(&["lab".to_owned()][..]));
        assert_eq!(with("a", "path = \"/srv\"").check_data_sets(), Ok(()));
        for name in ["\"\"", "\"..\"", "\"a/b\"", "A", "\"a b\"", "\"a.b\"", "-a"] {
            let (key, _) = with(name, "path = \"/srv\"").check_data_sets().expect_err(name);
            assert!(key.starts_with("runtime.data_sets."), "{key}");
        }
        for path in [
            "srv",
            "/",
            "/srv/../etc",
            "/proc",
            "/sys/fs",
            "/dev/shm",
            "/var/lib",
            "/var/lib/berth/people",
            "/run/berth",
            "/run",
            "/var",
        ] {
            let config = with("a", &format!("path = {path:?}"));
            let (key, text) = config.check_data_sets().expect_err(path);
            assert!(key == "runtime.data_sets.a.path" && text.contains(path), "{key} {text}");
        }
        for more in ["groups = []", "groups = [\"\"]", "description = \"a\\nb\""] {
            let config = with("a", &format!("path = \"/srv\"\n{more}"));
            assert!(config.check_data_sets().is_err(), "{more}");
        }
        let many: String = (0..=DATA_SETS_MAX)
            .map(|n| format!("[runtime.data_sets.s{n}]\npath = \"/srv\"\n"))
            .collect();
        let many: Tables = toml::from_str(&many).expect("TOML");
        assert!(many.runtime.check_data_sets().is_err());
        assert!(toml::from_str::<Tables>("[runtime.data_sets.a]\nwhere = \"/srv\"\n").is_err());
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let file = std::env::temp_dir().join(format!("berth-config-w-{}.toml", std::process::id()));
        std::fs::write(&file, "").expect("written");
        let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode));
        mode(0o666).expect("set");
        assert!(matches!(RuntimeConfig::load(Some(&file)), Err(ConfigError::Untrusted { .. })));
        mode(0o644).expect("set");
        assert!(RuntimeConfig::load(Some(&file)).is_ok());
        std::fs::remove_file(&file).expect("removed");
    }
}
