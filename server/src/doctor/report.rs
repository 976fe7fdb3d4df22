//! `berth doctor --report`: one document for a report of a defect, to be handed to strangers.
//!
//! It is made of what is listed here, field by field: versions, the kernel, numbers, settings that are
//! numbers or one of a few words, and codes of this program's own. No text that somebody has typed gets
//! into it: no name of a person, container, image, host, network or file, no address, no secret. What is
//! added to the configuration later is not in it until it is listed.

use std::path::Path;

use berth_runtime::wire::{DoctorReport, DoctorStatus, Limits};
use serde_json::{Value, json};

use crate::clock::Time;
use crate::config::Config;
use crate::inventory::{copy, survey};
use crate::risks;

/// Entries of a directory that are looked at.
const ENTRIES_MAX: usize = 1_000_000;
/// Checks whose findings are the kernel's own words and numbers; of the others only the outcome is told.
const TOLD: [&str; 6] = [
    "kernel.version",
    "kernel.calls",
    "namespaces",
    "namespaces.user",
    "rlimits.nofile",
    "rlimits.nproc",
];

/// The document.
pub(super) fn document(config: Option<&Config>, doctor: Option<&DoctorReport>) -> Value {
    json!({
        "report": 1,
        "made_at": Time::now(),
        "version": env!("CARGO_PKG_VERSION"),
        "schema": copy::newest_schema(),
        "host": host(),
        "checks": doctor.map(checks),
        "configuration": config.map(configuration),
        "risks": config.map(risky),
        "inventory": config.map(inventory),
        "sizes": config.map(sizes),
    })
}

fn host() -> Value {
    let kernel = nix::sys::utsname::uname().ok();
    let told = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let of = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory =
        memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    json!({
        "kernel": kernel.as_ref().map(|kernel| told(kernel.release())),
        "machine": kernel.as_ref().map(|kernel| told(kernel.machine())),
        "distribution": of("ID"),
        "distribution_version": of("VERSION_ID"),
        "cpus": std::thread::available_parallelism().ok(),
        "memory_kib": memory.unwrap_or(0u64),
    })
}

fn checks(report: &DoctorReport) -> Value {
    let one = |check: &berth_runtime::wire::DoctorCheck| {
        let status = match check.status {
            DoctorStatus::Ok => "ok",
            DoctorStatus::Lack => "lack",
            DoctorStatus::Blocker => "blocker",
        };
        let found = TOLD.contains(&check.id.as_str()).then_some(&check.found);
        json!({"id": check.id, "status": status, "found": found})
    };
    report.checks.iter().map(one).collect()
}

fn risky(config: &Config) -> Value {
    risks::list(config, None).iter().map(|risk| json!(risk.code)).collect()
}

fn configuration(config: &Config) -> Value {
    let Config { server, tls, auth, containers, retention, registries, images, runtime, .. } =
        config;
    let addresses = server.listen.addresses();
    let with_tls = addresses.iter().filter(|address| address.tls).count();
    json!({
        "server": {
            "addresses": addresses.len(), "addresses_with_tls": with_tls,
            "hosts": server.hosts.len(), "trusted_proxies": server.trusted_proxies.len(),
            "proxy_headers": server.proxy_headers, "connections_max": server.connections_max,
            "connections_per_address_max": server.connections_per_address_max,
            "requests_max": server.requests_max, "streams_max": server.streams_max,
        },
        "tls": {"own": tls.own(), "hsts": tls.hsts, "handshakes_max": tls.handshakes_max},
        "auth": {
            "session_hours": auth.session_hours, "sessions_max": auth.sessions_max,
            "invitation_hours": auth.invitation_hours, "token_days_max": auth.token_days_max,
            "tokens_max": auth.tokens_max, "second_factor": auth.second_factor,
        },
        "containers": {
            "per_person_max": containers.per_person_max,
            "ports_per_person_max": containers.ports_per_person_max,
            "volumes_per_person_max": containers.volumes_per_person_max,
            "shm_bytes": containers.shm_bytes,
            "stop_grace_secs": containers.stop_grace_secs,
            "log_file_bytes": containers.log_file_bytes, "log_files": containers.log_files,
            "unattended_secs": containers.unattended_secs, "sizes": containers.sizes.len(),
            "default_limits": limits(&containers.default_limits),
        },
        "retention": {
            "events_days": retention.events_days, "events_max": retention.events_max,
            "operations_days": retention.operations_days, "operations_max": retention.operations_max,
            "audit_days": retention.audit_days, "audit_max": retention.audit_max,
            "idempotency_hours": retention.idempotency_hours,
        },
        "registries": {
            "allowed": registries.allowed.len(), "insecure": registries.insecure.len(),
            "internal": registries.internal.len(),
            "forbidden_networks": registries.forbidden_networks.len(),
            "ca_file": registries.ca_file.is_some(), "proxy": registries.proxy.is_some(),
            "stall_secs": registries.stall_secs,
        },
        "images": {"import_bytes_max": images.import_bytes_max},
        "runtime": {
            "id_first": runtime.id_first, "id_last": runtime.id_last,
            "network_prefix": runtime.network_prefix, "nameservers": runtime.nameservers.len(),
            "ceilings": limits(&runtime.ceilings), "layer_bytes_max": runtime.layer_bytes_max,
            "layer_entries_max": runtime.layer_entries_max, "unpackers_max": runtime.unpackers_max,
            "apparmor": runtime.apparmor, "timing": runtime.timing,
        },
    })
}

fn limits(limits: &Limits) -> Value {
    let Limits { cpu_millis, cpu_weight, memory_bytes, swap_bytes, pids } = limits;
    json!({"cpu_millis": cpu_millis, "cpu_weight": cpu_weight, "memory_bytes": memory_bytes,
        "swap_bytes": swap_bytes, "pids": pids})
}

/// Its numbers; null when it cannot be read by this caller, or at all.
fn inventory(config: &Config) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let found = runtime
        .ok()
        .and_then(|runtime| runtime.block_on(survey::take(&config.db_dir().join("berth.db"))).ok());
    json!(found)
}

fn sizes(config: &Config) -> Value {
    let data = &config.runtime.data_dir;
    let of = |name: &str| {
        let found = std::fs::metadata(config.db_dir().join(name)).ok();
        found.map(|found| found.len())
    };
    let (blobs, blob_bytes) = files(&config.store_dir().join("blobs/sha256"));
    let disk = nix::sys::statvfs::statvfs(data.as_path()).ok();
    let unit = |disk: &nix::sys::statvfs::Statvfs| disk.fragment_size();
    json!({
        "inventory_bytes": of("berth.db"),
        "inventory_log_bytes": of("berth.db-wal"),
        "blobs": blobs,
        "blob_bytes": blob_bytes,
        "layers": files(&data.join("layers/sha256")).0,
        "containers_with_records": files(&data.join("state/containers")).0,
        "containers_on_tmpfs": files(&config.runtime.run_dir.join("containers")).0,
        "disk_bytes": disk.as_ref().map(|disk| disk.blocks().saturating_mul(unit(disk))),
        "disk_available_bytes": disk.map(|disk| disk.blocks_available().saturating_mul(unit(&disk))),
    })
}

/// How many entries a directory has, and their bytes; none that this caller may not look into.
fn files(path: &Path) -> (Option<usize>, u64) {
    let Ok(entries) = std::fs::read_dir(path) else { return (None, 0) };
    let sizes = entries.flatten().take(ENTRIES_MAX).map(|entry| match entry.metadata() {
        Ok(found) if found.is_file() => found.len(),
        _ => 0,
    });
    let (count, bytes) = sizes.fold((0, 0u64), |(count, sum), bytes| (count + 1, sum + bytes));
    (Some(count), bytes)
}
