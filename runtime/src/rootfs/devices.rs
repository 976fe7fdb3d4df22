//! The device nodes of every container: bind mounts of the host's own, since a user namespace can make
//! none. Each is checked to be the device that its name says. Those of the configuration's are
//! [`nodes`](super::nodes).

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{SFlag, fstat, makedev};
use oci_spec::runtime::Linux;

use crate::rootfs::mounts::{Action, Step, c_string};
use crate::rootfs::nodes;
use crate::rootfs::target::{Kind, Target};
use crate::spec::{SpecError, invalid};
use crate::sys::mount_api::clone_tree;

/// A default device (runtime-spec, config-linux.md, "Default Devices").
#[derive(Debug, Clone, Copy)]
pub struct Device {
    /// Its path, on the host and inside.
    pub path: &'static str,
    /// Its path, NUL-terminated.
    pub path_c: &'static std::ffi::CStr,
    number: (u64, u64),
}

/// All of them; the first is the null device, which also masks files.
pub const DEFAULT: [Device; 6] = [
    Device { path: "/dev/null", path_c: c"/dev/null", number: (1, 3) },
    Device { path: "/dev/zero", path_c: c"/dev/zero", number: (1, 5) },
    Device { path: "/dev/full", path_c: c"/dev/full", number: (1, 7) },
    Device { path: "/dev/random", path_c: c"/dev/random", number: (1, 8) },
    Device { path: "/dev/urandom", path_c: c"/dev/urandom", number: (1, 9) },
    Device { path: "/dev/tty", path_c: c"/dev/tty", number: (5, 0) },
];

/// Links in `/dev`: name and content.
pub const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// All devices of a container and the links beside them; the first step is the null device, as
/// a [`Action::Tree`].
pub fn steps(linux: &Linux) -> Result<Vec<Step>, SpecError> {
    let asked = nodes::all(linux)?;
    let mut steps = Vec::new();
    for device in DEFAULT {
        if asked.iter().any(|node| node.target.shown() == device.path) {
            continue;
        }
        let tree = device.tree().map_err(|errno| {
            invalid(device.path, format!("bind the host's device: {}", errno.desc()))
        })?;
        let target = Target::new(device.path, Kind::File, device.path)?;
        steps.push(Step { label: device.path.to_owned(), action: Action::Tree(tree, target) });
    }
    for node in asked {
        steps.push(Step { label: node.label.clone(), action: Action::Node(Box::new(node)) });
    }
    for (path, content) in LINKS {
        let name = c_string(path.strip_prefix("/dev/").unwrap_or(path));
        let directory: CString = c"dev".to_owned();
        let action = Action::Link { content: c_string(content), directory, name };
        steps.push(Step { label: path.to_owned(), action });
    }
    Ok(steps)
}

impl Device {
    /// Its number.
    pub fn device(&self) -> nix::libc::dev_t {
        makedev(self.number.0, self.number.1)
    }

    /// A detached bind mount of the host's node. `ENODEV` when the host's node is another device.
    pub fn tree(&self) -> nix::Result<OwnedFd> {
        let tree = clone_tree(AT_FDCWD, self.path_c, false)?;
        let facts = fstat(tree.as_fd())?;
        let is_character =
            SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
        if !is_character || facts.st_rdev != self.device() {
            return Err(nix::errno::Errno::ENODEV);
        }
        Ok(tree)
    }
}
