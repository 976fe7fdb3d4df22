//! `linux.namespaces`: which are made, which are joined by their path (config-linux.md, "Namespaces"). Paths
//! are opened once, before anything is made, and used as descriptors from then on.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstat, stat};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Spec};

use crate::spec::{SpecError, invalid, unsupported};
use crate::sys::namespace;

/// A namespace that the container joins, of the kind that the configuration says.
#[derive(Debug)]
pub struct Joined {
    /// Its kind.
    pub kind: LinuxNamespaceType,
    /// It.
    pub fd: OwnedFd,
    /// Field and path, for errors.
    pub label: String,
}

/// Checks what can be told without looking at the paths.
pub fn check(spec: &Spec, linux: &Linux) -> Result<(), SpecError> {
    let mut seen: Vec<LinuxNamespaceType> = Vec::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        if let Some(path) = path_of(namespace).filter(|path| !path.is_absolute()) {
            let why = format!("{} is not an absolute path", path.display());
            return Err(invalid(format!("{field}.path"), why));
        }
        if seen.contains(&namespace.typ()) {
            return Err(invalid(field, "the same type twice"));
        }
        seen.push(namespace.typ());
    }
    if !seen.contains(&LinuxNamespaceType::Mount) {
        // Every mount of the container's would be one of the host's.
        return Err(unsupported("linux.namespaces", "without a mount namespace"));
    }
    let mapped = |maps: &Option<Vec<_>>| !maps.as_ref().is_none_or(Vec::is_empty);
    let mapped = mapped(linux.uid_mappings()) || mapped(linux.gid_mappings());
    if is_joined(spec, LinuxNamespaceType::User) && mapped {
        return Err(invalid("linux.uidMappings", "a user namespace that is joined has its own"));
    }
    if is_new(spec, LinuxNamespaceType::User) != mapped {
        let why = "a new user namespace needs mappings, and they it";
        return Err(invalid("linux.uidMappings", why));
    }
    if is_joined(spec, LinuxNamespaceType::Mount) {
        check_no_mounts(spec, linux)?;
    }
    Ok(())
}

/// The mounts of a namespace that is joined are those of all who are in it: nothing is added or changed.
fn check_no_mounts(spec: &Spec, linux: &Linux) -> Result<(), SpecError> {
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    let present = [
        ("mounts", spec.mounts().as_ref().is_some_and(|list| !list.is_empty())),
        ("root.readonly", spec.root().as_ref().is_some_and(|root| root.readonly() == Some(true))),
        ("linux.maskedPaths", given(linux.masked_paths())),
        ("linux.readonlyPaths", given(linux.readonly_paths())),
        ("linux.devices", linux.devices().as_ref().is_some_and(|list| !list.is_empty())),
        ("linux.rootfsPropagation", linux.rootfs_propagation().is_some()),
    ];
    let why = "a mount namespace that is joined stays as it is, for all who are in it";
    match present.iter().find(|(_, present)| *present) {
        Some((field, _)) => Err(invalid(*field, why)),
        None => Ok(()),
    }
}

/// Opens the namespaces to be joined. One that the runtime is in itself is taken out of the configuration,
/// where it means the same as if it were not named: nothing of it is the container's own.
///
/// # Errors
/// Names field, path and kind when a path does not lead to a namespace of its kind.
pub fn open_all(spec: &mut Spec) -> Result<Vec<Joined>, SpecError> {
    let mut joined = Vec::new();
    let Some(linux) = spec.linux_mut() else { return Ok(joined) };
    let Some(namespaces) = linux.namespaces_mut() else { return Ok(joined) };
    let mut own = Vec::new();
    for (index, one) in namespaces.iter().enumerate() {
        let Some(path) = path_of(one) else { continue };
        let field = format!("linux.namespaces[{index}].path");
        let kind = one.typ();
        let refuse = |why: &str| {
            let text = format!("{} for a {} namespace: {why}", path.display(), word(kind));
            invalid(field.clone(), text)
        };
        let fd = open_one(path, kind).map_err(|why| refuse(&why))?;
        if is_own(&fd, kind).map_err(|errno| refuse(errno.desc()))? {
            if kind == LinuxNamespaceType::Mount {
                return Err(refuse("it is the host's, where nothing may be mounted"));
            }
            own.push(kind);
            continue;
        }
        joined.push(Joined { kind, fd, label: format!("{field} ({})", path.display()) });
    }
    namespaces.retain(|namespace| !own.contains(&namespace.typ()));
    // Whoever is in a user namespace has no more power over those outside, so that is joined last, and
    // the root of a mount namespace as late as can be.
    joined.sort_by_key(|one| match one.kind {
        LinuxNamespaceType::User => 2,
        LinuxNamespaceType::Mount => 1,
        _ => 0,
    });
    Ok(joined)
}

fn open_one(path: &Path, kind: LinuxNamespaceType) -> Result<OwnedFd, String> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let fd = open(path, flags, Mode::empty()).map_err(|errno| errno.desc().to_owned())?;
    let system = fstatfs(&fd).map_err(|errno| errno.desc().to_owned())?;
    if system.filesystem_type() != NSFS_MAGIC {
        return Err("it is no namespace".to_owned());
    }
    let found = namespace::kind(&fd).map_err(|errno| errno.desc().to_owned())?;
    match KINDS.iter().find(|known| **known as i32 == found) {
        Some(known) if *known == kind => Ok(fd),
        Some(known) => Err(format!("it is a {} namespace", word(*known))),
        None => Err(format!("it is a namespace of another kind ({found:#x})")),
    }
}

fn is_own(fd: &OwnedFd, kind: LinuxNamespaceType) -> nix::Result<bool> {
    let name = match kind {
        LinuxNamespaceType::Mount => "mnt",
        LinuxNamespaceType::Network => "net",
        other => word(other),
    };
    let place = |facts: FileStat| (facts.st_dev, facts.st_ino);
    let given = fstat(fd.as_fd()).map(place)?;
    match stat(Path::new("/proc/self/ns").join(name).as_path()).map(place) {
        Ok(own) => Ok(own == given),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// The path of a namespace that is joined; an empty one is none, as engines write it.
fn path_of(namespace: &LinuxNamespace) -> Option<&Path> {
    namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())
}

fn find(spec: &Spec, kind: LinuxNamespaceType) -> Option<&LinuxNamespace> {
    let namespaces = spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten());
    namespaces.into_iter().find(|namespace| namespace.typ() == kind)
}

/// Whether the container has a namespace of this kind apart from the runtime's, new or joined.
pub fn has(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    find(spec, kind).is_some()
}

/// Whether it gets a new one.
pub fn is_new(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    find(spec, kind).is_some_and(|namespace| path_of(namespace).is_none())
}

/// Whether it joins one.
pub fn is_joined(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    find(spec, kind).is_some_and(|namespace| path_of(namespace).is_some())
}

/// The clone flags of all new ones.
pub fn new_flags(linux: &Linux) -> u64 {
    let new = linux.namespaces().iter().flatten().filter(|one| path_of(one).is_none());
    new.fold(0, |flags, one| flags | u64::from((one.typ() as i32).cast_unsigned()))
}

/// The specification's word.
fn word(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

const KINDS: [LinuxNamespaceType; 8] = [
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::User,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Time,
];
