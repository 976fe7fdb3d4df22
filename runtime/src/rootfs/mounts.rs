//! The configuration's mounts as steps that the child walks. Sources are opened here, by the parent;
//! an option or type that is not known is an error that names it.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{SFlag, fstat};
use oci_spec::runtime::{LinuxIdMapping, Mount, Spec};

use crate::namespace::{IdMap, id_maps_namespace};
use crate::rootfs::cgroups::{self, OwnCgroup};
use crate::rootfs::copy_up::TakenOver;
use crate::rootfs::nodes::Node;
use crate::rootfs::options::{Deep, IdMapped, Keys, NO_FLAGS, Options, Propagation};
use crate::rootfs::target::{Kind, Target};
use crate::spec::{SpecError, invalid, unsupported};
use crate::sys::mount_api::{Change, attributes, clone_tree, fs_open, set_attributes};

/// One thing to put into the root, in order.
#[derive(Debug)]
pub struct Step {
    /// What the parent calls it in errors.
    pub label: String,
    /// What it is.
    pub action: Action,
}

/// What a [`Step`] does.
#[derive(Debug)]
pub enum Action {
    /// Mounts a new file system.
    FileSystem(FileSystem, Target),
    /// Attaches a mount that the parent has made.
    Tree(OwnedFd, Target),
    /// Attaches a volume.
    Volume(Volume),
    /// Binds a file of the staging directory.
    Staged(CString, Target),
    /// Makes a symbolic link with this content unless something is there; the name's directory.
    Link { content: CString, directory: CString, name: CString },
    /// Changes the mount that is at a place.
    Remount(Remount),
    /// Makes a device node.
    Node(Box<Node>),
    /// Makes the mount at this place read-only, when all that belongs in it is there.
    Seal(Target),
}

/// A file system to be made in the child.
#[derive(Debug)]
pub struct FileSystem {
    /// As in `/proc/filesystems`.
    pub kind: CString,
    /// Keys with values, or flags.
    pub parameters: Vec<(CString, Option<CString>)>,
    /// Bits of [`attributes`](crate::sys::mount_api::attributes).
    pub attributes: u64,
    /// Whether it is proc, which the child keeps open for sysctls.
    pub is_proc: bool,
    /// What it begins with of what is at its place.
    pub taken_over: Option<TakenOver>,
    /// Changes when it is in place.
    pub propagation: Vec<Propagation>,
}

/// A volume at its place.
#[derive(Debug)]
pub struct Volume {
    /// A detached mount of it that can be written to.
    pub tree: OwnedFd,
    /// Where it is to be.
    pub target: Target,
    /// What it begins with of what is there.
    pub taken_over: Option<TakenOver>,
    /// Bits of [`attributes`](crate::sys::mount_api::attributes) that it has when all that belongs in it is.
    pub attributes: u64,
}

/// A change of a mount that is there.
#[derive(Debug)]
pub struct Remount {
    /// Its root.
    pub target: Target,
    /// What is changed of the file system.
    pub parameters: Vec<(CString, Option<CString>)>,
    /// Attribute bits to set and clear, of it and of those below.
    pub deep: (u64, u64),
    /// The same, of it alone.
    pub alone: (u64, u64),
    /// Changes of propagation.
    pub propagation: Vec<Propagation>,
}

/// What the plan must know of the host and the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// Relative sources start here.
    pub bundle: &'a Path,
    /// Whether the container has a cgroup namespace of its own.
    pub cgroup_namespace: bool,
    /// The container's cgroup in each tree, for a cgroup mount without such a namespace.
    pub own_cgroups: &'a [OwnCgroup],
    /// The maps of a new user namespace.
    pub id_maps: Option<&'a (Vec<IdMap>, Vec<IdMap>)>,
    /// The user namespace that is joined.
    pub user_namespace: Option<BorrowedFd<'a>>,
}

/// All mounts of a configuration, in order.
pub fn plan(spec: &Spec, context: Context<'_>) -> Result<Vec<Step>, SpecError> {
    let mut steps = Vec::new();
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        add(&mut steps, mount, &format!("mounts[{index}]"), context)?;
    }
    Ok(steps)
}

fn add(
    steps: &mut Vec<Step>,
    mount: &Mount,
    field: &str,
    context: Context<'_>,
) -> Result<(), SpecError> {
    let place = mount.destination().to_str();
    let place = place.ok_or_else(|| invalid(field, "the destination is not UTF-8"))?;
    let kind = mount.typ().as_deref().unwrap_or_default();
    let keys = match DEFAULT.contains(&kind)
        || ["", "bind", "rbind", "cgroup", "cgroup2"].contains(&kind)
    {
        true => Keys::Known,
        false => Keys::Any,
    };
    let texts = mount.options().as_deref().unwrap_or_default();
    let mut options = Options::parse(texts, keys, field)?;
    if mount.uid_mappings().as_ref().is_some_and(|list| !list.is_empty()) {
        options.id_map.get_or_insert(IdMapped::Alone);
    }
    let label = format!("{field} ({place})");
    let bound = options.bind || kind == "bind" || kind == "rbind";
    check_options(&options, mount, (bound, kind), field)?;
    if options.remount {
        let action = Action::Remount(remount(&options, place, field)?);
        steps.push(Step { label, action });
        return Ok(());
    }
    if bound {
        let action = bind(mount, place, &options, context).map_err(|error| match error {
            BindError::Spec(error) => error,
            BindError::Open(source, errno) => {
                invalid(field, format!("open the source {}: {}", source, errno.desc()))
            }
        })?;
        steps.push(Step { label, action });
        return Ok(());
    }
    let target = file_system_target(place, field)?;
    if kind == "cgroup" || kind == "cgroup2" {
        return cgroups::add(steps, place, options.attributes, field, context);
    }
    let mut parameters = options.parameters();
    if !DEFAULT.contains(&kind) {
        parameters.extend(other_system(mount, kind, &options, field)?);
    }
    if target.first() == b"proc" && (target.depth() > 1 || kind != "proc") {
        return Err(invalid(format!("{field}.destination"), "nothing but proc mounts on /proc"));
    }
    let system = FileSystem {
        kind: c_string(kind),
        parameters,
        attributes: options.attributes,
        is_proc: kind == "proc",
        taken_over: (kind == "tmpfs").then(|| TakenOver::of(&options)),
        propagation: options.propagation,
    };
    steps.push(Step { label, action: Action::FileSystem(system, target) });
    Ok(())
}

/// The file systems that containers have by default; what they are made from has no name.
const DEFAULT: [&str; 5] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue"];

/// What mount(2) tells any other file system beside its options; it has to be one of this kernel's.
fn other_system(
    mount: &Mount,
    kind: &str,
    options: &Options,
    field: &str,
) -> Result<Vec<(CString, Option<CString>)>, SpecError> {
    let name = CString::new(kind).map_err(|_| invalid(format!("{field}.type"), "a NUL byte"))?;
    if let Err(errno) = fs_open(&name) {
        let why = match errno {
            Errno::ENODEV => "this kernel has no such file system",
            other => other.desc(),
        };
        return Err(invalid(format!("{field}.type"), format!("{kind:?}: {why}")));
    }
    let source = mount.source().as_deref().filter(|source| !source.as_os_str().is_empty());
    let source = source.map(|source| CString::new(source.as_os_str().as_bytes())).transpose();
    let source = source.map_err(|_| invalid(format!("{field}.source"), "a NUL byte"))?;
    let read_only = options.attributes & attributes::RDONLY != 0;
    let read_only = read_only.then(|| (c"ro".to_owned(), None));
    Ok(source
        .map(|source| (c"source".to_owned(), Some(source)))
        .into_iter()
        .chain(read_only)
        .collect())
}

pub(super) fn file_system_target(place: &str, field: &str) -> Result<Target, SpecError> {
    Target::new(place, Kind::Directory, &format!("{field}.destination"))
}

enum BindError {
    Spec(SpecError),
    Open(String, nix::Error),
}

fn bind(
    mount: &Mount,
    place: &str,
    options: &Options,
    context: Context<'_>,
) -> Result<Action, BindError> {
    let field = "a bind mount's options";
    let mut data = options.data.iter();
    if let Some((key, _)) = data.find(|(key, _)| !NO_FLAGS.contains(&&**key)) {
        return Err(BindError::Spec(unsupported(field, key)));
    }
    let source = mount.source().as_deref().unwrap_or(Path::new(""));
    if source.as_os_str().is_empty() {
        return Err(BindError::Spec(invalid(place, "a bind mount without a source")));
    }
    let source = context.bundle.join(source);
    let open_error = |errno| BindError::Open(source.display().to_string(), errno);
    let path =
        CString::new(source.as_os_str().as_bytes()).map_err(|_| open_error(Errno::EINVAL))?;
    let tree = clone_tree(AT_FDCWD, &path, options.recursive).map_err(open_error)?;
    let kind = SFlag::from_bits_truncate(fstat(tree.as_fd()).map_err(open_error)?.st_mode);
    let is_directory = kind & SFlag::S_IFMT == SFlag::S_IFDIR;
    set_propagation(&tree, &options.propagation, context).map_err(open_error)?;
    if let Some(change) = options.id_map {
        let namespace = id_map_of(mount, place, context).map_err(BindError::Spec)?;
        let change = Change {
            id_map: Some(namespace.as_fd()),
            recursive: change == IdMapped::WithBelow,
            ..Change::default()
        };
        set_attributes(&tree, change).map_err(|errno| {
            let text = format!("map the ids of {}: {}", source.display(), errno.desc());
            BindError::Spec(invalid(format!("mounts ({place})"), text))
        })?;
    }
    let Deep { set, cleared } = options.deep;
    if set | cleared != 0 {
        let change = Change { set, clear: cleared, recursive: true, ..Change::default() };
        set_attributes(&tree, change).map_err(open_error)?;
    }
    let change = Change { set: options.attributes, clear: options.cleared, ..Change::default() };
    set_attributes(&tree, change).map_err(open_error)?;
    let kind = if is_directory { Kind::Directory } else { Kind::File };
    let target = Target::new(place, kind, "mounts.destination").map_err(BindError::Spec)?;
    let first = target.first();
    if first == b"proc" && !(target.depth() > 1 && PROC_FILES.contains(&place)) {
        let error = invalid("mounts.destination", format!("{place:?}: nothing is bound over proc"));
        return Err(BindError::Spec(error));
    }
    Ok(Action::Tree(tree, target))
}

/// Detached copies stay in the propagation group of what they were copied from. Without a word on it they
/// are private; mounts below one that alone is to be a slave are so too, rather than shared with the host.
fn set_propagation(
    tree: &OwnedFd,
    changes: &[Propagation],
    context: Context<'_>,
) -> nix::Result<()> {
    let has = |kind| changes.iter().any(|change| change.kind == kind);
    let apart = context.id_maps.is_some() || context.user_namespace.is_some();
    let first = match (has(libc::MS_SHARED), has(libc::MS_SLAVE)) {
        (true, _) if !apart => 0,
        // As the kernel has it for mounts that get into a namespace of less power (mount_namespaces(7)):
        // what is mounted there is not passed on to the host.
        (true, _) | (_, true) => libc::MS_SLAVE,
        (false, false) => libc::MS_PRIVATE,
    };
    let first = Propagation { kind: first, recursive: true };
    [first].iter().chain(changes).filter(|change| change.kind != 0).try_for_each(|change| {
        let Propagation { kind, recursive } = *change;
        set_attributes(tree, Change { propagation: kind, recursive, ..Change::default() })
    })
}

/// A user namespace with the maps of a mount, which are the container's where it has none.
fn id_map_of(mount: &Mount, place: &str, context: Context<'_>) -> Result<OwnedFd, SpecError> {
    let field = format!("mounts ({place})");
    let own = (rows(mount.uid_mappings()), rows(mount.gid_mappings()));
    let maps = match (own.0.is_empty() && own.1.is_empty(), context.id_maps) {
        (false, _) => own,
        (true, Some(maps)) => maps.clone(),
        (true, None) => {
            let namespace = context.user_namespace.ok_or_else(|| {
                invalid(&field, "idmap without mappings is for containers in a user namespace")
            })?;
            let copy = namespace.try_clone_to_owned();
            return copy.map_err(|error| invalid(&field, format!("copy a descriptor: {error}")));
        }
    };
    id_maps_namespace(&maps.0, &maps.1)
        .map_err(|error| invalid(field, format!("uidMappings, gidMappings: {error}")))
}

fn rows(mappings: &Option<Vec<LinuxIdMapping>>) -> Vec<IdMap> {
    mappings.iter().flatten().map(IdMap::from).collect()
}

/// What goes with what.
fn check_options(
    options: &Options,
    mount: &Mount,
    (bound, kind): (bool, &str),
    field: &str,
) -> Result<(), SpecError> {
    let mapped = rows(mount.uid_mappings()).len() + rows(mount.gid_mappings()).len();
    let wrong = [
        (options.copy_up && (kind != "tmpfs" || bound), "tmpcopyup is for mounts of type tmpfs"),
        (options.copy_up && options.remount, "tmpcopyup is for new mounts"),
        ((options.id_map.is_some() || mapped > 0) && !bound, "ids are mapped for bind mounts"),
        (options.id_map.is_some() && options.remount, "ids are mapped for new mounts"),
        (
            rows(mount.uid_mappings()).is_empty() != rows(mount.gid_mappings()).is_empty(),
            "uidMappings and gidMappings go together",
        ),
    ];
    match wrong.iter().find(|(wrong, _)| *wrong) {
        Some((_, why)) => Err(invalid(format!("{field}.options"), *why)),
        None => Ok(()),
    }
}

fn remount(options: &Options, place: &str, field: &str) -> Result<Remount, SpecError> {
    let target = Target::new(place, Kind::Any, &format!("{field}.destination"))?;
    if target.first() == b"proc" && target.depth() > 1 {
        return Err(invalid(format!("{field}.destination"), "nothing but proc mounts on /proc"));
    }
    Ok(Remount {
        target,
        parameters: options.parameters(),
        deep: (options.deep.set, options.deep.cleared),
        alone: (options.attributes, options.cleared),
        propagation: options.propagation.clone(),
    })
}

/// Files of proc that may be covered by a bind mount (what lxcfs provides).
const PROC_FILES: [&str; 8] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
];

pub(super) fn c_string(text: &str) -> CString {
    CString::new(text).expect("texts with NUL bytes were refused before")
}
