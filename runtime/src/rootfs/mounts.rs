//! The configuration's mounts as steps that the child walks. Sources are opened here, by the parent;
//! an option or type that is not known is an error that names it.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{SFlag, fstat};
use oci_spec::runtime::{Mount, Spec};

use crate::rootfs::cgroups::{self, OwnCgroup};
use crate::rootfs::nodes::Node;
use crate::rootfs::target::{Kind, Target};
use crate::spec::{SpecError, invalid, unsupported};
use crate::sys::mount_api::{Change, attributes, clone_tree, set_attributes};

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
    /// Binds a file of the staging directory.
    Staged(CString, Target),
    /// Makes a symbolic link with this content unless something is there; the name's directory.
    Link { content: CString, directory: CString, name: CString },
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
    /// Bits of [`attributes`].
    pub attributes: u64,
    /// Whether it is proc, which the child keeps open for sysctls.
    pub is_proc: bool,
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
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(unsupported(format!("{field}.uidMappings"), "id-mapped mounts"));
    }
    let place = mount.destination().to_str();
    let place = place.ok_or_else(|| invalid(field, "the destination is not UTF-8"))?;
    let options = Options::parse(mount.options().as_deref().unwrap_or_default(), field)?;
    let kind = mount.typ().as_deref().unwrap_or_default();
    let label = format!("{field} ({place})");
    if options.bind || kind == "bind" || kind == "rbind" {
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
    if !["proc", "sysfs", "tmpfs", "devpts", "mqueue"].contains(&kind) {
        return Err(unsupported(format!("{field}.type"), kind));
    }
    if target.first() == b"proc" && (target.depth() > 1 || kind != "proc") {
        return Err(invalid(format!("{field}.destination"), "nothing but proc mounts on /proc"));
    }
    let system = FileSystem {
        kind: c_string(kind),
        parameters: options.parameters(),
        attributes: options.attributes,
        is_proc: kind == "proc",
    };
    steps.push(Step { label, action: Action::FileSystem(system, target) });
    Ok(())
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
    if let Some((key, _)) = options.data.first() {
        return Err(BindError::Spec(unsupported(field, key)));
    }
    let source = mount.source().as_deref().unwrap_or(Path::new(""));
    if source.as_os_str().is_empty() {
        return Err(BindError::Spec(invalid(place, "a bind mount without a source")));
    }
    let source = context.bundle.join(source);
    let open_error = |errno| BindError::Open(source.display().to_string(), errno);
    let path = CString::new(source.as_os_str().as_bytes())
        .map_err(|_| open_error(nix::errno::Errno::EINVAL))?;
    let tree = clone_tree(AT_FDCWD, &path, options.recursive).map_err(open_error)?;
    let kind = SFlag::from_bits_truncate(fstat(tree.as_fd()).map_err(open_error)?.st_mode);
    let is_directory = kind & SFlag::S_IFMT == SFlag::S_IFDIR;
    // Detached copies stay in the propagation group of what they were copied from.
    let propagation =
        Change { propagation: options.propagation, recursive: true, ..Change::default() };
    set_attributes(&tree, propagation).map_err(open_error)?;
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

/// Bits of [`attributes`] that are set and cleared recursively.
#[derive(Debug, Default, Clone, Copy)]
struct Deep {
    set: u64,
    cleared: u64,
}

/// Mount options, sorted by who takes them.
#[derive(Debug, Default)]
struct Options {
    bind: bool,
    recursive: bool,
    attributes: u64,
    cleared: u64,
    /// Of a bind mount and of every mount below it.
    deep: Deep,
    propagation: u64,
    data: Vec<(String, Option<String>)>,
}

impl Options {
    fn parse(texts: &[String], field: &str) -> Result<Self, SpecError> {
        let mut options = Self { propagation: libc::MS_PRIVATE, ..Self::default() };
        for text in texts {
            options.add(text, field)?;
        }
        Ok(options)
    }

    fn add(&mut self, text: &str, field: &str) -> Result<(), SpecError> {
        match text {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "ro" => self.set(attributes::RDONLY),
            "rw" => self.clear(attributes::RDONLY),
            "nosuid" => self.set(attributes::NOSUID),
            "suid" => self.clear(attributes::NOSUID),
            "nodev" => self.set(attributes::NODEV),
            "dev" => self.clear(attributes::NODEV),
            "noexec" => self.set(attributes::NOEXEC),
            "exec" => self.clear(attributes::NOEXEC),
            "nodiratime" => self.set(attributes::NODIRATIME),
            "diratime" => self.clear(attributes::NODIRATIME),
            "nosymfollow" => self.set(attributes::NOSYMFOLLOW),
            "symfollow" => self.clear(attributes::NOSYMFOLLOW),
            "noatime" => self.access_times(attributes::NOATIME),
            "strictatime" => self.access_times(attributes::STRICTATIME),
            "relatime" | "atime" => self.access_times(0),
            "defaults" | "private" | "rprivate" => {}
            _ if RECURSIVE.contains(&text) => self.add_deep(&text[1..], field)?,
            "slave" | "rslave" => self.propagation = libc::MS_SLAVE,
            _ => self.add_data(text, field)?,
        }
        Ok(())
    }

    /// What is not a mount's is the file system's; what is neither is refused by name.
    fn add_data(&mut self, text: &str, field: &str) -> Result<(), SpecError> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        if !FILE_SYSTEM_KEYS.contains(&key) || text.contains(['\0', ',']) {
            return Err(unsupported(format!("{field}.options"), text));
        }
        self.data.push((key.to_owned(), value.map(str::to_owned)));
        Ok(())
    }

    /// mount_setattr(2) with `AT_RECURSIVE`; for the mount itself as without the `r`.
    fn add_deep(&mut self, text: &str, field: &str) -> Result<(), SpecError> {
        let mut one = Self::default();
        one.add(text, field)?;
        let Deep { set, cleared } = self.deep;
        self.deep.set = set & !one.cleared | one.attributes;
        self.deep.cleared = cleared & !one.attributes | one.cleared;
        self.add(text, field)
    }

    fn set(&mut self, bits: u64) {
        self.attributes |= bits;
        self.cleared &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.attributes &= !bits;
        self.cleared |= bits;
    }

    fn access_times(&mut self, choice: u64) {
        self.cleared |= attributes::ATIME;
        self.attributes = self.attributes & !attributes::ATIME | choice;
    }

    fn parameters(&self) -> Vec<(CString, Option<CString>)> {
        self.data
            .iter()
            .map(|(key, value)| (c_string(key), value.as_deref().map(c_string)))
            .collect()
    }
}

/// Options that hold for what is mounted below as well (config.md, "Linux mount options").
const RECURSIVE: [&str; 15] = [
    "rdev",
    "rdiratime",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnosuid",
    "rnosymfollow",
    "rrelatime",
    "rro",
    "rrw",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
];

/// Parameters of tmpfs, devpts, proc.
const FILE_SYSTEM_KEYS: [&str; 12] = [
    "size",
    "mode",
    "uid",
    "gid",
    "nr_inodes",
    "nr_blocks",
    "huge",
    "noswap",
    "newinstance",
    "ptmxmode",
    "hidepid",
    "subset",
];

pub(super) fn c_string(text: &str) -> CString {
    CString::new(text).expect("texts with NUL bytes were refused before")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Options, SpecError> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Options::parse(&texts, "m")
    }

    #[test]
    fn options_are_sorted_and_unknown_ones_named() {
        let options = parse(&["nosuid", "ro", "mode=755", "rw", "noatime"]).expect("known options");
        assert_eq!(options.attributes, attributes::NOSUID | attributes::NOATIME);
        assert_eq!(options.data, [("mode".to_owned(), Some("755".to_owned()))]);
        for unknown in
            ["shared", "rshared", "idmap", "remount", "tmpcopyup", "rnosuch", "size=1,uid=0"]
        {
            let error = parse(&[unknown]).expect_err(unknown);
            assert!(error.to_string().contains(unknown), "{error}");
        }
    }
}
