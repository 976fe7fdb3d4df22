//! What a container sees of control groups (cgroups(7)): its own, read-only, by a namespace or by binding
//! its directories. cgroup v2 is one mount; on v1 a tmpfs holds one mount for each tree.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::AT_FDCWD;

use crate::rootfs::mounts::{Action, Context, FileSystem, Step, c_string, file_system_target};
use crate::spec::{SpecError, invalid};
use crate::sys::mount_api::{Change, attributes, clone_tree, set_attributes};

/// The container's cgroup in one tree.
#[derive(Debug)]
pub struct OwnCgroup {
    /// What the tree is called among others: controllers, joined by commas; none when it is alone (v2).
    pub name: Option<String>,
    /// The directory, absolute.
    pub directory: PathBuf,
}

/// On v1 nothing of a cgroup can be written, whatever the configuration says: `release_agent` runs on
/// the host (CVE-2022-0492).
const V1: u64 = attributes::RDONLY | attributes::NOSUID | attributes::NODEV | attributes::NOEXEC;

/// Adds a mount of type `cgroup` at `place`.
pub fn add(
    steps: &mut Vec<Step>,
    place: &str,
    attributes: u64,
    field: &str,
    context: Context<'_>,
) -> Result<(), SpecError> {
    let mut mounts = Mounts { steps, place, field };
    if context.cgroup_namespace {
        mounts.of_namespace(attributes)
    } else {
        mounts.of_directories(context.own_cgroups, attributes)
    }
}

struct Mounts<'a> {
    steps: &'a mut Vec<Step>,
    place: &'a str,
    field: &'a str,
}

impl Mounts<'_> {
    fn of_namespace(&mut self, attributes: u64) -> Result<(), SpecError> {
        let own = fs::read_to_string("/proc/self/cgroup")
            .map_err(|error| invalid(self.field, format!("read /proc/self/cgroup: {error}")))?;
        let trees: Vec<&str> = own.lines().filter_map(|line| line.split(':').nth(1)).collect();
        if trees == [""] {
            let target = file_system_target(self.place, self.field)?;
            self.push(Action::FileSystem(file_system(c"cgroup2", "", attributes), target));
            return Ok(());
        }
        self.hold()?;
        for controllers in trees {
            let (kind, name) = match controllers {
                "" => (c"cgroup2", "unified"),
                other => (c"cgroup", other.strip_prefix("name=").unwrap_or(other)),
            };
            let target = file_system_target(&format!("{}/{name}", self.place), self.field)?;
            self.push(Action::FileSystem(file_system(kind, controllers, V1), target));
            self.link(name)?;
        }
        self.seal()
    }

    fn of_directories(&mut self, own: &[OwnCgroup], attributes: u64) -> Result<(), SpecError> {
        if own.is_empty() {
            return Err(invalid(self.field, "a cgroup mount needs a cgroup namespace here"));
        }
        if let [OwnCgroup { name: None, directory }] = own {
            let tree = self.open(directory, attributes)?;
            let target = file_system_target(self.place, self.field)?;
            self.push(Action::Tree(tree, target));
            return Ok(());
        }
        self.hold()?;
        for OwnCgroup { name, directory } in own {
            let name = name.as_deref().unwrap_or("unified");
            let tree = self.open(directory, V1)?;
            let target = file_system_target(&format!("{}/{name}", self.place), self.field)?;
            self.push(Action::Tree(tree, target));
            self.link(name)?;
        }
        self.seal()
    }

    fn open(&self, directory: &Path, attributes: u64) -> Result<OwnedFd, SpecError> {
        let path = CString::new(directory.as_os_str().as_bytes())
            .map_err(|_| invalid(self.field, format!("{directory:?} has a NUL byte")))?;
        let tree = clone_tree(AT_FDCWD, &path, false).and_then(|tree| {
            let change =
                Change { set: attributes, propagation: libc::MS_PRIVATE, ..Change::default() };
            set_attributes(&tree, change).map(|()| tree)
        });
        tree.map_err(|errno| {
            invalid(self.field, format!("bind {}: {}", directory.display(), errno.desc()))
        })
    }

    /// The tmpfs that holds the mounts of v1, open until [`Mounts::seal`].
    fn hold(&mut self) -> Result<(), SpecError> {
        let parameters = [(c"mode", c"755"), (c"size", c"64k")];
        let parameters = parameters.map(|(key, value)| (key.to_owned(), Some(value.to_owned())));
        let holder = FileSystem {
            kind: c"tmpfs".to_owned(),
            parameters: parameters.into(),
            attributes: V1 & !attributes::RDONLY,
            is_proc: false,
            taken_over: None,
            propagation: Vec::new(),
        };
        let target = file_system_target(self.place, self.field)?;
        self.push(Action::FileSystem(holder, target));
        Ok(())
    }

    fn seal(&mut self) -> Result<(), SpecError> {
        let target = file_system_target(self.place, self.field)?;
        self.push(Action::Seal(target));
        Ok(())
    }

    /// A tree of several controllers can be found by each of their names.
    fn link(&mut self, name: &str) -> Result<(), SpecError> {
        for controller in name.split(',').filter(|controller| *controller != name) {
            let directory = file_system_target(self.place, self.field)?.shown();
            let directory = c_string(&directory[1..]);
            let (content, name) = (c_string(name), c_string(controller));
            self.push(Action::Link { content, directory, name });
        }
        Ok(())
    }

    fn push(&mut self, action: Action) {
        let label = format!("{} ({})", self.field, self.place);
        self.steps.push(Step { label, action });
    }
}

fn file_system(kind: &CStr, controllers: &str, attributes: u64) -> FileSystem {
    let parameters = controllers.split(',').filter(|name| !name.is_empty()).map(|name| match name
        .split_once('=')
    {
        Some((key, value)) => (c_string(key), Some(c_string(value))),
        None => (c_string(name), None),
    });
    let parameters = parameters.collect();
    FileSystem {
        kind: kind.to_owned(),
        parameters,
        attributes,
        is_proc: false,
        taken_over: None,
        propagation: Vec::new(),
    }
}
