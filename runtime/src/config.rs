//! The part of `/etc/berth/berth.toml` that the supervisor reads: where things lie and what bounds
//! them. The server reads the same file with its own sections added and explains wrong keys.

use std::path::PathBuf;

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
    /// Name servers for containers; empty: the host's own upstreams.
    pub nameservers: Vec<std::net::Ipv4Addr>,
    /// The most that one container may be given; requests above it are refused.
    pub ceilings: Limits,
    /// Unpacked bytes of one layer at most.
    pub layer_bytes_max: u64,
    /// Entries of one layer at most.
    pub layer_entries_max: u64,
    /// Unpackers that run at once.
    pub unpackers_max: u32,
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
            nameservers: Vec::new(),
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
        }
    }
}
