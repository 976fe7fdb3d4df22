//! Whether a request may be asked for at all: every field against the supervisor's own record and
//! ceilings. What a field means for the container's isolation is the profile's to refuse; this is
//! what lies around it. The server's own checks are for people, these are for a captured server.

use berth_runtime::config::RuntimeConfig;
use berth_runtime::digest::Digest;
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::{
    DATA_SET_MOUNTS_MAX, ExecRequest, LAYERS_MAX, Limits, LogOptions, NET_BYTES_MIN, NetworkMode,
    PORTS_MAX, PortLease, ProcessSpec, RATE_BYTES_MAX, RATE_BYTES_MIN, StartRequest, StopOptions,
    TERMINAL_CELLS_MAX, TerminalSize, Total, VOLUMES_MAX,
};

use crate::monitor::is_possible;

/// Bytes of arguments and environment at most; the kernel's own bound is a quarter of the stack.
const PROCESS_BYTES_MAX: usize = 96 * 1024;
/// A path inside a container at most (`PATH_MAX` with its NUL).
const PATH_BYTES_MAX: usize = 4095;
/// `user[:group]` at most.
const USER_BYTES_MAX: usize = 256;
/// File systems in memory at most.
const TMPFS_MAX: usize = 32;
/// The least memory a container is given.
const MEMORY_BYTES_MIN: u64 = 6 << 20;
/// The least that somebody is given together: a container, its monitor, and what the kernel counts for them.
const TOTAL_MEMORY_BYTES_MIN: u64 = 16 << 20;
/// A container's and its monitor's, and some.
const TOTAL_PIDS_MIN: u64 = 8;
/// The smallest file system that is made for anybody, and the largest.
const DATA_BYTES_MIN: u64 = 32 << 20;
const DATA_BYTES_MAX: u64 = 1 << 42;
/// The smallest file system in memory.
const TMPFS_BYTES_MIN: u64 = 4096;
const LOG_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 30);

type Checked = Result<(), Failure>;

fn invalid(field: &str, message: impl std::fmt::Display) -> Failure {
    Failure::new(FailureClass::Invalid, &format!("start.{field}"), format!("{field}: {message}"))
}

fn check(holds: bool, field: &str, message: impl std::fmt::Display) -> Checked {
    if holds { Ok(()) } else { Err(invalid(field, message)) }
}

/// Everything about a start that does not depend on the container's state.
pub(super) fn start(request: &StartRequest, config: &RuntimeConfig) -> Checked {
    check(request.run >= 1, "run", "starts are numbered from 1")?;
    layers(&request.layers)?;
    process(&request.process)?;
    check(is_label(&request.hostname), "hostname", "not a label as RFC 1123 has it")?;
    tmpfs(request, config)?;
    volumes(request)?;
    data_sets(request, config)?;
    ports(request, config)?;
    limits(&request.limits, &config.ceilings)?;
    log(&request.log)?;
    terminal(request.console.terminal)?;
    stop(&request.stop)
}

/// What a container stands on.
pub(super) fn layers(layers: &[Digest]) -> Checked {
    check(
        (1..=LAYERS_MAX).contains(&layers.len()),
        "layers",
        format!("1 to {LAYERS_MAX} are possible, {} were given", layers.len()),
    )
}

/// Everything about an exec that does not depend on the container's state.
pub(super) fn exec(request: &ExecRequest) -> Checked {
    check(request.exec.0 >= 1, "exec", "execs are numbered from 1")?;
    program(Program {
        args: &request.args,
        env: &request.env,
        cwd: &request.cwd,
        user: &request.user,
    })?;
    terminal(request.terminal)
}

fn terminal(size: Option<TerminalSize>) -> Checked {
    let fits = size.is_none_or(is_possible);
    check(fits, "terminal", format!("1 to {TERMINAL_CELLS_MAX} columns and rows are possible"))
}

/// What a first program and a later one have in common.
struct Program<'a> {
    args: &'a [String],
    env: &'a [String],
    cwd: &'a str,
    user: &'a str,
}

fn program(program: Program<'_>) -> Checked {
    let Program { args, env, cwd, user } = program;
    check(args.first().is_some_and(|program| !program.is_empty()), "args", "no program")?;
    let bytes: usize = args.iter().chain(env).map(|text| text.len() + 9).sum();
    check(bytes <= PROCESS_BYTES_MAX, "args", "arguments and environment are too long")?;
    let clean = |text: &str| !text.contains('\0');
    check(args.iter().all(|text| clean(text)), "args", "one holds a NUL")?;
    let named = |text: &String| clean(text) && text.find('=').is_some_and(|place| place > 0);
    check(env.iter().all(named), "env", "each is NAME=value, without NUL")?;
    let possible = cwd.starts_with('/') && cwd.len() <= PATH_BYTES_MAX && clean(cwd);
    check(possible, "cwd", "not an absolute path")?;
    let possible = user.len() <= USER_BYTES_MAX && !user.contains(['\0', '\n']);
    check(possible, "user", "not of the form user[:group]")
}

fn process(process: &ProcessSpec) -> Checked {
    let ProcessSpec { args, env, cwd, user, .. } = process;
    program(Program { args, env, cwd, user })?;
    check(process.capabilities_dropped.len() <= 64, "capabilities_dropped", "too many")?;
    check(process.ulimits.len() <= 32, "ulimits", "too many")?;
    let ordered = process.ulimits.values().all(|limit| limit.soft <= limit.hard);
    check(ordered, "ulimits", "a soft limit is above its hard one")
}

/// A host name label: 1 to 63 letters, digits and hyphens, not at the ends.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn ports(request: &StartRequest, config: &RuntimeConfig) -> Checked {
    let ports = &request.ports;
    check(ports.len() <= PORTS_MAX, "ports", format!("more than {PORTS_MAX}"))?;
    let networked = ports.is_empty() || request.network == NetworkMode::Private;
    check(networked, "ports", "a container without a network has none")?;
    for (index, lease) in ports.iter().enumerate() {
        let PortLease { protocol, host, container } = *lease;
        let range = (config.port_first, config.port_last);
        let message =
            format!("{host} is not one of {} to {}, which can be leased", range.0, range.1);
        check(config.leases_port(host), "ports", message)?;
        check(container > 0, "ports", "0 is no port of a container")?;
        let same = |other: &PortLease| (other.protocol, other.host) == (protocol, host);
        let message = format!("{host}/{} is there twice", protocol.as_str());
        check(!ports[..index].iter().any(same), "ports", message)?;
    }
    Ok(())
}

fn tmpfs(request: &StartRequest, config: &RuntimeConfig) -> Checked {
    let sizes = TMPFS_BYTES_MIN..=config.ceilings.memory_bytes;
    check(sizes.contains(&request.shm_bytes), "shm_bytes", "out of bounds")?;
    check(request.tmpfs.len() <= TMPFS_MAX, "tmpfs", format!("more than {TMPFS_MAX}"))?;
    for one in &request.tmpfs {
        let target = one.target.as_str();
        place(target, "tmpfs")?;
        check(
            sizes.contains(&one.size_bytes),
            "tmpfs",
            format!("size of {target} is out of bounds"),
        )?;
    }
    let mut targets: Vec<_> = request.tmpfs.iter().map(|one| &one.target).collect();
    targets.sort_unstable();
    targets.dedup();
    check(targets.len() == request.tmpfs.len(), "tmpfs", "two have the same target")
}

/// A place for a mount of the user's.
fn place(target: &str, field: &str) -> Checked {
    check(is_plain_path(target), field, format!("{target:?} is no plain absolute path"))?;
    let reserved = ["/proc", "/sys", "/dev"].iter().any(|top| {
        target.strip_prefix(top).is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'/', ..]))
    });
    check(!reserved, field, format!("{target} is the profile's"))
}

fn volumes(request: &StartRequest) -> Checked {
    let volumes = &request.volumes;
    check(volumes.len() <= VOLUMES_MAX, "volumes", format!("more than {VOLUMES_MAX}"))?;
    for one in volumes {
        place(&one.target, "volumes")?;
        let plain = one.sub_path.as_ref().is_none_or(|path| is_plain_path(&format!("/{path}")));
        check(plain, "volumes", format!("{:?} is no plain relative path", one.sub_path))?;
    }
    distinct_targets(request, "volumes")
}

/// By name alone: a name is a key of the configuration, and never a part of a path.
fn data_sets(request: &StartRequest, config: &RuntimeConfig) -> Checked {
    let sets = &request.data_sets;
    let message = format!("more than {DATA_SET_MOUNTS_MAX}");
    check(sets.len() <= DATA_SET_MOUNTS_MAX, "data_sets", message)?;
    for one in sets {
        place(&one.target, "data_sets")?;
        if !config.data_sets.contains_key(&one.name) {
            return Err(crate::data_set::unknown(&one.name));
        }
    }
    distinct_targets(request, "data_sets")
}

fn distinct_targets(request: &StartRequest, field: &str) -> Checked {
    let memory = request.tmpfs.iter().map(|one| &one.target);
    let volumes = request.volumes.iter().map(|one| &one.target);
    let sets = request.data_sets.iter().map(|one| &one.target);
    let mut targets: Vec<_> = volumes.chain(memory).chain(sets).collect();
    let all = targets.len();
    targets.sort_unstable();
    targets.dedup();
    check(targets.len() == all, field, "two mounts have the same target")
}

/// Absolute, not the root, every part a name: nothing that two readers could read in two ways.
fn is_plain_path(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    path.len() <= PATH_BYTES_MAX
        && !path.contains('\0')
        && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Limits against the operator's ceilings; none can be left out or be without bound.
pub(super) fn limits(limits: &Limits, ceilings: &Limits) -> Checked {
    let bounded = |value: u64, least: u64, most: u64, field: &str| {
        check((least..=most).contains(&value), field, format!("{value} is not in {least}..={most}"))
    };
    bounded(limits.cpu_millis.into(), 10, ceilings.cpu_millis.into(), "cpu_millis")?;
    let weight = ceilings.cpu_weight.min(10_000);
    bounded(limits.cpu_weight.into(), 1, weight.into(), "cpu_weight")?;
    bounded(limits.memory_bytes, MEMORY_BYTES_MIN, ceilings.memory_bytes, "memory_bytes")?;
    bounded(limits.swap_bytes, 0, ceilings.swap_bytes, "swap_bytes")?;
    bounded(limits.pids.into(), 1, ceilings.pids.into(), "pids")
}

/// What somebody may keep on disk, in bytes.
pub(super) fn data(bytes: u64) -> Checked {
    let message = format!("{bytes} is not in {DATA_BYTES_MIN}..={DATA_BYTES_MAX}");
    check((DATA_BYTES_MIN..=DATA_BYTES_MAX).contains(&bytes), "bytes", message)
}

/// What somebody may use together.
pub(super) fn total(total: &Total, ceilings: &Limits) -> Checked {
    let bounded = |value: Option<u64>, least: u64, most: u64, field: &str| {
        let holds = value.is_none_or(|value| (least..=most).contains(&value));
        let shown = value.unwrap_or_default();
        check(holds, field, format!("{shown} is not in {least}..={most}"))
    };
    bounded(total.cpu_millis.map(u64::from), 10, ceilings.cpu_millis.into(), "cpu_millis")?;
    bounded(Some(total.cpu_weight.into()), 1, 10_000, "cpu_weight")?;
    bounded(total.memory_bytes, TOTAL_MEMORY_BYTES_MIN, ceilings.memory_bytes, "memory_bytes")?;
    bounded(total.swap_bytes, 0, ceilings.swap_bytes, "swap_bytes")?;
    bounded(total.pids.map(u64::from), TOTAL_PIDS_MIN, u64::from(u32::MAX), "pids")?;
    bounded(total.io_weight.map(u64::from), 1, 10_000, "io_weight")?;
    let rate = |value, field| bounded(value, RATE_BYTES_MIN, RATE_BYTES_MAX, field);
    rate(total.io_read_bytes_per_sec, "io_read_bytes_per_sec")?;
    rate(total.io_write_bytes_per_sec, "io_write_bytes_per_sec")?;
    bounded(total.net_bytes_per_sec, NET_BYTES_MIN, RATE_BYTES_MAX, "net_bytes_per_sec")
}

fn log(options: &LogOptions) -> Checked {
    check(LOG_BYTES.contains(&options.file_bytes_max), "log", "a segment is 64 KiB to 1 GiB")?;
    check((1..=10).contains(&options.files_max), "log", "1 to 10 segments are possible")
}

fn stop(options: &StopOptions) -> Checked {
    signal(options.signal)?;
    check(options.grace_secs <= 600, "stop", "the grace is 600 s at most")
}

/// A signal's number as signal(7) has them.
pub(super) fn signal(number: i32) -> Checked {
    check((1..=64).contains(&number), "signal", format!("{number} is not in 1..=64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_leave_no_room_for_reading() {
        for good in ["/tmp", "/a/b.c/..d"] {
            assert!(is_plain_path(good), "{good}");
        }
        for bad in ["", "/", "tmp", "//tmp", "/tmp/", "/a/../b", "/a/./b", "/a\0b", "/a//b"] {
            assert!(!is_plain_path(bad), "{bad:?}");
        }
    }

    #[test]
    fn labels_are_those_of_rfc_1123() {
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "a.b", "a_b", "a b", "ä", long.as_str()] {
            assert!(!is_label(bad), "{bad:?}");
        }
        assert!(is_label("a") && is_label("3-b") && is_label(&long[1..]));
    }
}
