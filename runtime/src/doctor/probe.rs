//! What must be tried to be known, each in a child of its own with a time limit.
//!
//! The child is this program again (`doctor --probe NAME`), so that it may change its namespaces and
//! ids without a way back. It says what it found as one line of JSON. What it makes is inside
//! namespaces that end with it, in a cgroup that it removes, or in a directory that the parent made
//! and removes.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use berth_runtime::config::{DataSet, RANGE_IDS, RuntimeConfig};
use berth_runtime::wire::{DoctorCheck, Limits};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use serde::{Deserialize, Serialize};

use super::{blocker, fine, lack};
use crate::cgroup::{CONTAINER_DEVICES, Cgroup, Hierarchy, Settings};
use crate::namespace::{IdMap, id_map_namespace};
use crate::network::{Attachment, Network};
use crate::sys::mount_api::{Change, attach, clone_tree, set_attributes};

/// A probe's time at most.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a child's answer at most.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// What one try has shown.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Finding {
    /// What was tried.
    pub(super) name: String,
    /// Why it failed; `None` when it works.
    pub(super) failure: Option<String>,
}

/// Runs a probe and gives what it found; why it could not be run, otherwise.
pub(super) fn run(name: &str, config: &RuntimeConfig) -> Result<Vec<Finding>, String> {
    // On the data directory's file system: what works there is what counts.
    let base = super::host::nearest(&config.data_dir);
    let place = base.join(format!(".doctor-{}-{name}", std::process::id()));
    let made = DirBuilder::new().mode(0o711).create(&place);
    made.map_err(|error| format!("create {}: {error}", place.display()))?;
    let settings = serde_json::to_string(config).map_err(|error| error.to_string())?;
    let mut command = Command::new("/proc/self/exe");
    command.args(["doctor", "--probe", name, "--settings", &settings, "--place"]).arg(&place);
    let answer = output(command, PROBE_LIMIT);
    let removed = fs::remove_dir_all(&place);
    removed.map_err(|error| format!("remove {}: {error}", place.display()))?;
    serde_json::from_str(&answer?).map_err(|error| format!("understand probe {name}: {error}"))
}

/// A command's standard output, if it ends well and in time; else its words on standard error.
pub(super) fn output(mut command: Command, limit: Duration) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| format!("run {name}: {error}");
    // Files, not pipes: an answer of any length cannot stop the child while it is waited for.
    let (mut answer, mut words) = (memory_file().map_err(failed)?, memory_file().map_err(failed)?);
    command.stdin(Stdio::null());
    command.stdout(answer.try_clone().map_err(failed)?);
    command.stderr(words.try_clone().map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    let well = wait(&mut child, limit)?;
    let text = read_from_start(if well { &mut answer } else { &mut words }).map_err(failed)?;
    if well { Ok(text) } else { Err(text.trim().chars().take(500).collect()) }
}

fn memory_file() -> io::Result<File> {
    Ok(memfd_create(c"doctor", MFdFlags::MFD_CLOEXEC)?.into())
}

fn read_from_start(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the child ended well; it is killed when its time is over.
fn wait(child: &mut Child, limit: Duration) -> Result<bool, String> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Ok(None) => {
                child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
                return Err(format!("no answer within {} s", limit.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The checks of mounts, from the probe.
pub(super) fn mounts(config: &RuntimeConfig) -> Vec<DoctorCheck> {
    let told = [
        (
            "mounts.idmapped",
            "idmapped mounts work on the data directory's file system",
            "layers cannot be shared between people",
            "put [runtime] data_dir on ext4, xfs or btrfs, with Linux 5.19 or newer",
        ),
        (
            "mounts.overlay",
            "overlay in a user namespace, with userxattr, works there",
            "containers have no root file system",
            "put [runtime] data_dir on ext4, xfs or btrfs; load the module overlay",
        ),
        (
            "mounts.tmpfs",
            "tmpfs in a user namespace works",
            "containers have no /dev and no /dev/shm",
            "run a kernel with CONFIG_TMPFS",
        ),
    ];
    let found = run("mounts", config);
    let check = |(id, works, costs, mend): (&str, &str, &str, &str)| match &found {
        Err(reason) => blocker(id, format!("could not be tried: {reason}"), costs, mend),
        Ok(findings) => match findings.iter().find(|finding| finding.name == id) {
            Some(Finding { failure: None, .. }) => fine(id, works),
            Some(Finding { failure: Some(why), .. }) => blocker(id, why.as_str(), costs, mend),
            None => blocker(id, "not reached: what comes before it failed", costs, mend),
        },
    };
    told.into_iter().map(check).collect()
}

/// The check of data sets, from the probe: a file system that is away may not answer for ever.
pub(super) fn data_sets(config: &RuntimeConfig) -> Option<DoctorCheck> {
    let id = "data.sets";
    let costs = "containers that have one of them do not start";
    let mend = "make it a directory without symbolic links on the way, which every user may read \
                (chmod o+rx), outside of /home, /root and /tmp, which the supervisor's unit does not see; \
                or take it out of [runtime.data_sets]";
    let all = config.data_sets.len();
    let found = (all > 0).then(|| run("data-sets", config))?;
    Some(match found {
        Err(reason) => lack(id, format!("could not be looked at: {reason}"), costs, mend),
        Ok(findings) => {
            let words = |finding: &Finding| {
                Some(format!("{}: {}", finding.name, finding.failure.as_deref()?))
            };
            let faults: Vec<String> = findings.iter().filter_map(words).collect();
            match faults.is_empty() {
                true => fine(id, format!("{all} of them, which containers can be given to read")),
                false => lack(id, faults.join("; "), costs, mend),
            }
        }
    })
}

fn try_data_sets(config: &RuntimeConfig) -> Vec<Finding> {
    let faults = crate::data_set::faults(config).into_iter();
    let finding = |(name, set, fault): (&str, &DataSet, crate::data_set::Fault)| Finding {
        name: name.to_owned(),
        failure: Some(format!("{} ({fault})", set.path.display())),
    };
    faults.map(finding).collect()
}

/// The check of bridges and the nftables table, from the probe.
pub(super) fn network(config: &RuntimeConfig) -> DoctorCheck {
    let id = "network.nftables";
    let failure = match run("network", config) {
        Err(reason) => Some(format!("could not be tried: {reason}")),
        Ok(findings) => findings.into_iter().find_map(|finding| finding.failure),
    };
    match failure {
        None => fine(id, "nftables, bridge and veth work, with locked ports"),
        Some(why) => lack(
            id,
            why,
            "containers with a network cannot be started, only those without",
            "install nftables; load the modules nf_tables, bridge and veth",
        ),
    }
}

/// `doctor --probe NAME --settings CONFIGURATION --place DIRECTORY`.
pub(super) fn main(name: &str, place: &Path, config: &RuntimeConfig) -> Result<ExitCode, String> {
    let findings = match name {
        "mounts" => {
            let mut findings = Vec::new();
            // The first failure ends it: what comes after stands on what came before.
            if let Err((name, error)) = try_mounts(place, config.id_first, &mut findings) {
                findings.push(Finding { name: name.to_owned(), failure: Some(error.to_string()) });
            }
            findings
        }
        "network" => vec![try_network(place, config)],
        "data-sets" => try_data_sets(config),
        "cgroups" => try_cgroups(&config.instance),
        other => return Err(format!("there is no probe {other:?}")),
    };
    let text = serde_json::to_string(&findings).map_err(|error| error.to_string())?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn works(name: &str) -> Finding {
    Finding { name: name.to_owned(), failure: None }
}

/// Does with an empty layer what the start of a container does with a real one: ids of the layer range
/// on disk, shown as a person's by an idmapped mount, below an overlay that is mounted inside a user
/// namespace of that person's.
fn try_mounts(
    place: &Path,
    first_id: u32,
    findings: &mut Vec<Finding>,
) -> Result<(), (&'static str, io::Error)> {
    let idmapped = |error: io::Error| ("mounts.idmapped", error);
    let overlay = |error: io::Error| ("mounts.overlay", error);
    let person = first_id + RANGE_IDS;
    std::env::set_current_dir(place).map_err(idmapped)?;
    make_tree(first_id, person).map_err(idmapped)?;
    let map = IdMap { inside: first_id, outside: person, count: RANGE_IDS };
    let shown = id_map_namespace(map).map_err(idmapped)?;
    private_mounts().map_err(idmapped)?;
    let lower = File::open("lower").map_err(idmapped)?;
    let tree = clone_tree(lower.as_fd(), c"", false).map_err(|errno| idmapped(errno.into()))?;
    let change = Change { id_map: Some(shown.as_fd()), ..Change::default() };
    set_attributes(&tree, change).map_err(|errno| idmapped(errno.into()))?;
    attach(&tree, &lower).map_err(|errno| idmapped(errno.into()))?;
    let owner = fs::metadata("lower/file").map_err(idmapped)?.uid();
    if owner != person {
        return Err(idmapped(io::Error::other(format!("an owner is shown as {owner}"))));
    }
    findings.push(works("mounts.idmapped"));

    become_person(person).map_err(overlay)?;
    let options = "lowerdir=lower,upperdir=upper,workdir=work,userxattr";
    mount(Some("overlay"), "root", Some("overlay"), MsFlags::empty(), Some(options))
        .map_err(|errno| overlay(errno.into()))?;
    // Removing makes a whiteout and changing copies up, each with a mark in an extended attribute.
    fs::remove_file("root/file").map_err(overlay)?;
    fs::remove_dir("root/directory").map_err(overlay)?;
    fs::create_dir("root/directory").map_err(overlay)?;
    fs::write("root/other", "new").map_err(overlay)?;
    if Path::new("root/file").exists() {
        return Err(overlay(io::Error::other("a removed file is still there")));
    }
    findings.push(works("mounts.overlay"));

    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "root", Some("tmpfs"), flags, Some("size=1m"))
        .map_err(|errno| ("mounts.tmpfs", errno.into()))?;
    findings.push(works("mounts.tmpfs"));
    Ok(())
}

/// A layer (its ids on disk are the layer range's), and a person's writable directories.
fn make_tree(layer_id: u32, person_id: u32) -> io::Result<()> {
    for (directory, id) in [
        ("lower", layer_id),
        ("lower/directory", layer_id),
        ("upper", person_id),
        ("work", person_id),
        ("root", person_id),
    ] {
        fs::create_dir(directory)?;
        chown(directory, Some(id), Some(id))?;
    }
    for file in ["lower/file", "lower/other"] {
        fs::write(file, "old")?;
        chown(file, Some(layer_id), Some(layer_id))?;
    }
    Ok(())
}

/// A mount namespace of this process's own, from which nothing goes out.
fn private_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?)
}

/// Root of a person's range, in namespaces of its own: what a container's first process is.
fn become_person(first_id: u32) -> io::Result<()> {
    let map = IdMap { inside: 0, outside: first_id, count: RANGE_IDS };
    let users = id_map_namespace(map)?;
    setgroups(&[])?;
    setns(&users, CloneFlags::CLONE_NEWUSER)?;
    setgid(Gid::from_raw(0))?;
    setuid(Uid::from_raw(0))?;
    private_mounts()
}

/// Attaches and detaches a container that is only a network namespace, on a host that is one as well.
fn try_network(place: &Path, config: &RuntimeConfig) -> Finding {
    let attempt = || -> Result<(), String> {
        let new_namespace = || -> Result<File, String> {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| format!("network namespace: {errno}"))?;
            File::open("/proc/self/ns/net").map_err(|error| error.to_string())
        };
        let container = new_namespace()?;
        let _host = new_namespace()?;
        let config = RuntimeConfig { run_dir: place.to_owned(), ..config.clone() };
        let network = Network::new(&config).map_err(|error| with_cause(&error))?;
        let subnet = network.pool().subnets().next().ok_or("the pool is empty")?;
        let address = subnet.container_addresses().next().ok_or("the subnet is empty")?;
        let at = Attachment { slot: 0, subnet, address, ports: Vec::new() };
        network.attach(container.as_fd(), &at).map_err(|error| with_cause(&error))?;
        network.detach(&at).map_err(|error| with_cause(&error))
    };
    Finding { name: "network".to_owned(), failure: attempt().err() }
}

/// Limits a cgroup in each way that a container is.
fn try_cgroups(instance: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let made = Hierarchy::detect().and_then(|hierarchy| {
        let path = format!("/{instance}-doctor-{}", std::process::id());
        let cgroup = Cgroup::at(&hierarchy, &path)?;
        cgroup.create()?;
        Ok(cgroup)
    });
    let cgroup = match made {
        Ok(cgroup) => cgroup,
        Err(error) => {
            let failure = Some(with_cause(&error));
            return vec![Finding { name: "create".to_owned(), failure }];
        }
    };
    let limits =
        Limits { cpu_millis: 100, cpu_weight: 50, memory_bytes: 64 << 20, swap_bytes: 0, pids: 16 };
    match cgroup.apply(&Settings::from(&limits)) {
        Ok(states) => findings.extend(states.into_iter().map(|state| Finding {
            failure: (!state.held).then_some(state.reason),
            name: state.name,
        })),
        Err(error) => {
            findings.push(Finding { name: "limits".to_owned(), failure: Some(with_cause(&error)) })
        }
    }
    for (name, done) in [
        ("devices", cgroup.restrict_devices(&CONTAINER_DEVICES)),
        ("freeze", cgroup.freeze().and_then(|()| cgroup.thaw())),
        ("kill", cgroup.kill()),
        ("remove", cgroup.remove()),
    ] {
        let failure = done.err().map(|error| with_cause(&error));
        findings.push(Finding { name: name.to_owned(), failure });
    }
    findings
}

fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or(error.to_string(), |cause| format!("{error}: {cause}"))
}
