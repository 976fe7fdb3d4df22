//! The device nodes of every container: bind mounts of the host's own, since a user namespace can make
//! none. Each is checked to be the device that its name says.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{SFlag, fstat, major, minor};

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

/// Whether the path is that of a default device.
pub fn is_default(path: &str) -> bool {
    DEFAULT.iter().any(|device| device.path == path)
}

impl Device {
    /// A detached bind mount of the host's node. `ENODEV` when the host's node is another device.
    pub fn tree(&self) -> nix::Result<OwnedFd> {
        let tree = clone_tree(AT_FDCWD, self.path_c, false)?;
        let facts = fstat(tree.as_fd())?;
        let is_character =
            SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT == SFlag::S_IFCHR;
        if !is_character || (major(facts.st_rdev), minor(facts.st_rdev)) != self.number {
            return Err(nix::errno::Errno::ENODEV);
        }
        Ok(tree)
    }
}
