//! `state`, `list`, `ps`, `spec`, `features`: what there is, in text or JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::{CgroupVersion, Failure, FailureClass, Status};
use berth_runtime::wire::{
    Console, Limits, LogOptions, NetworkMode, ProcessSpec, StartRequest, StopOptions,
};
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde_json::{Value as Json, json};

use crate::capability;
use crate::cgroup::Hierarchy;
use crate::commands::create::absolute;
use crate::commands::lifecycle::word;
use crate::commands::{Global, bad_usage, missing_id, only_id, print, usage};
use crate::failure::{broken, system};
use crate::hooks::Point;
use crate::launch::errno_of;
use crate::profile::{self, ProfileHost};
use crate::state::{Place, Record};

/// The newest version of the specification whose properties are known.
pub const OCI_VERSION: &str = "1.3.0";

/// `state`.
pub fn state(parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let place = Place::new(&absolute(&global.root)?, &only_id(parser)?)?;
    print_json(&describe(&place)?)
}

/// The specification's "State", and what runc adds.
fn describe(place: &Place) -> Result<Json, Failure> {
    let record = place.read()?;
    let spec = place.read_spec()?;
    let status = record.status(place)?;
    let pid = if status == Status::Stopped { 0 } else { record.pid };
    let root = spec.root().as_ref().map(|root| record.bundle.join(root.path()));
    let created_ms = u64::try_from(record.created_ms).unwrap_or_default();
    let created = SystemTime::UNIX_EPOCH + Duration::from_millis(created_ms);
    Ok(json!({
        "ociVersion": OCI_VERSION,
        "id": record.id,
        "status": word(status),
        "pid": pid,
        "bundle": record.bundle,
        "rootfs": root,
        "created": crate::log::time_of(created),
        // Only root can create a container.
        "owner": "root",
        "annotations": spec.annotations().clone().unwrap_or_default(),
    }))
}

/// `list`.
pub fn list(mut parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let (mut quiet, mut as_json) = (false, false);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("quiet") | Short('q') => quiet = true,
            Long("format") | Short('f') => as_json = is_json(&mut parser)?,
            other => return Err(usage(other.unexpected())),
        }
    }
    let root = absolute(&global.root)?;
    let mut rows: Vec<Json> = Vec::new();
    for id in ids(&root)? {
        match Place::new(&root, &id).and_then(|place| describe(&place)) {
            Ok(row) => rows.push(row),
            // Being created, or deleted since the directory was read.
            Err(failure) if failure.class == FailureClass::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    if as_json {
        return print_json(&Json::Array(rows));
    }
    let mut text = String::new();
    let field = |row: &Json, name: &str| match &row[name] {
        Json::String(value) => value.clone(),
        other => other.to_string(),
    };
    if !quiet {
        line(&mut text, &["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned));
    }
    for row in &rows {
        let fields =
            ["id", "pid", "status", "bundle", "created", "owner"].map(|name| field(row, name));
        line(&mut text, if quiet { &fields[..1] } else { &fields[..] });
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn ids(root: &Path) -> Result<Vec<String>, Failure> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => {
            other.map_err(|error| system(&format!("read {}", root.display()), errno_of(&error)))?
        }
    };
    let mut ids: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    ids.sort();
    Ok(ids)
}

/// `ps`.
pub fn ps(mut parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let (mut id, mut as_json) = (None, false);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("format") | Short('f') => as_json = is_json(&mut parser)?,
            Value(value) if id.is_none() => id = Some(value.string().map_err(usage)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    let place = Place::new(&absolute(&global.root)?, &id.ok_or_else(missing_id)?)?;
    let record: Record = place.read()?;
    let pids = record.cgroup()?.pids()?;
    if as_json {
        return print_json(&json!(pids));
    }
    let mut text = String::new();
    line(&mut text, &["PID", "COMMAND"].map(str::to_owned));
    for pid in pids {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        line(&mut text, &[pid.to_string(), command.trim_end().to_owned()]);
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// `spec`: the default profile as a starting point. With `--first-id` in a user namespace on that
/// range, to which the root has to belong; else, as with other runtimes, in the host's own.
pub fn spec(mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    let (mut bundle, mut first_id) = (PathBuf::from("."), None);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("bundle") | Short('b') => bundle = parser.value().map_err(usage)?.into(),
            Long("first-id") => {
                let number = parser.value().and_then(|value| value.parse::<u32>());
                first_id = Some(number.map_err(usage)?);
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    let version = Hierarchy::detect()?.version();
    let cgroup_v2 = version == CgroupVersion::V2;
    let mut spec = profile::spec(
        &example(),
        &ProfileHost { first_id: first_id.unwrap_or(0), cgroup_v2, apparmor: false },
    )?;
    if first_id.is_none() {
        without_user_namespace(&mut spec);
    }
    let path = bundle.join("config.json");
    let text = serde_json::to_string_pretty(&spec)
        .map_err(|error| broken(&format!("encode the configuration: {error}")))?;
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|error| system(&format!("write {}", path.display()), errno_of(&error)))?;
    Ok(ExitCode::SUCCESS)
}

fn without_user_namespace(spec: &mut Spec) {
    let Some(linux) = spec.linux_mut() else { return };
    linux.set_uid_mappings(None).set_gid_mappings(None);
    if let Some(namespaces) = linux.namespaces_mut() {
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::User);
    }
}

fn example() -> StartRequest {
    StartRequest {
        container: ContainerId::from_bytes([0; 16]),
        person: PrincipalId::SYSTEM,
        run: 1,
        layers: Vec::new(),
        process: ProcessSpec {
            args: vec!["sh".to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            capabilities_dropped: Vec::new(),
            ulimits: std::collections::BTreeMap::new(),
        },
        hostname: "berth".to_owned(),
        read_only_root: true,
        tmpfs: Vec::new(),
        volumes: Vec::new(),
        data_sets: Vec::new(),
        shm_bytes: 64 << 20,
        network: NetworkMode::None,
        ports: Vec::new(),
        limits: Limits {
            cpu_millis: 1000,
            cpu_weight: 100,
            memory_bytes: 512 << 20,
            swap_bytes: 0,
            pids: 512,
        },
        console: Console::default(),
        log: LogOptions { file_bytes_max: 1 << 20, files_max: 1 },
        stop: StopOptions { signal: libc::SIGTERM, grace_secs: 10 },
    }
}

/// `features` (runtime-spec, features.md).
pub fn features(mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    if let Some(argument) = parser.next().map_err(usage)? {
        return Err(usage(argument.unexpected()));
    }
    print_json(&json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": Point::ALL.map(Point::name),
        "mountOptions": &MOUNT_OPTIONS[..],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capability::known_names(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": false, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE",
                    "SCMP_ACT_TRAP",
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                    "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                ],
                "archs": seccomp_architectures(),
                "knownFlags": &SECCOMP_FLAGS[..],
                "supportedFlags": &SECCOMP_FLAGS[..],
            },
            "apparmor": { "enabled": crate::apparmor::is_on() },
            "selinux": { "enabled": false },
            "intelRdt": {
                "enabled": true, "schemata": true, "monitoring": true,
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
            "memoryPolicy": {
                "modes": [
                    "MPOL_BIND", "MPOL_DEFAULT", "MPOL_INTERLEAVE", "MPOL_LOCAL", "MPOL_PREFERRED",
                    "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE",
                ],
                "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
            },
        },
    }))
}

/// Those whose calls this build filters by name.
fn seccomp_architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "aarch64") {
        &["SCMP_ARCH_AARCH64"]
    } else {
        &["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"]
    }
}

const SECCOMP_FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

const MOUNT_OPTIONS: [&str; 60] = [
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "idmap",
    "lazytime",
    "loud",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "remount",
    "rexec",
    "ridmap",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

fn is_json(parser: &mut lexopt::Parser) -> Result<bool, Failure> {
    let format = parser.value().and_then(|value| value.string()).map_err(usage)?;
    match format.as_str() {
        "json" => Ok(true),
        "table" => Ok(false),
        _ => Err(bad_usage(format!("--format: {format:?} is not known"))),
    }
}

fn line(text: &mut String, fields: &[String]) {
    let (last, others) = fields.split_last().expect("every row has a field");
    for field in others {
        write!(text, "{field:<24} ").expect("writing to a string cannot fail");
    }
    writeln!(text, "{last}").expect("writing to a string cannot fail");
}

fn print_json(value: &Json) -> Result<ExitCode, Failure> {
    print(&format!("{value:#}\n"))?;
    Ok(ExitCode::SUCCESS)
}
