//! `linux.devices` (config-linux.md, "Devices"): nodes that are made in the container, or, where nothing may
//! be made (in a user namespace, or by the rules of the cgroup), bind mounts of the host's at the same path.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc::dev_t;
use nix::sys::stat::{Mode, SFlag, fstat, fstatat, makedev, mknodat};
use nix::unistd::{Gid, Uid, fchownat};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use crate::rootfs::devices::{DEFAULT, LINKS};
use crate::rootfs::target::{Kind, Target};
use crate::spec::{SpecError, invalid, unsupported};
use crate::sys::mount_api::{attach, clone_tree};

/// A node of the configuration's.
#[derive(Debug)]
pub struct Node {
    /// Field and path, for errors.
    pub label: String,
    /// Where it is to be.
    pub target: Target,
    kind: SFlag,
    device: dev_t,
    mode: Mode,
    owner: (Uid, Gid),
    /// The host's node at this path, if it is the same device.
    of_host: Option<OwnedFd>,
}

/// Those of a configuration, without the null device and what is a link in every container.
///
/// # Errors
/// Names the device whose path, type, number or mode cannot be.
pub fn all(linux: &Linux) -> Result<Vec<Node>, SpecError> {
    let devices = linux.devices().iter().flatten().enumerate();
    let nodes = devices.map(|(index, device)| node(device, &format!("linux.devices[{index}]")));
    nodes.filter_map(Result::transpose).collect()
}

fn node(device: &LinuxDevice, field: &str) -> Result<Option<Node>, SpecError> {
    let path = device.path().to_str();
    let path = path.ok_or_else(|| invalid(format!("{field}.path"), "it is not UTF-8"))?;
    let target = Target::new(path, Kind::File, &format!("{field}.path"))?;
    if target.first() == b"proc" || target.first() == b"sys" {
        return Err(invalid(format!("{field}.path"), format!("{path:?} is in /proc or /sys")));
    }
    let (kind, numbered) = match device.typ() {
        LinuxDeviceType::B => (SFlag::S_IFBLK, true),
        LinuxDeviceType::C | LinuxDeviceType::U => (SFlag::S_IFCHR, true),
        LinuxDeviceType::P => (SFlag::S_IFIFO, false),
        LinuxDeviceType::A => return Err(invalid(format!("{field}.type"), "a is no kind of node")),
    };
    let number = match numbered {
        true => number(device, field)?,
        false => 0,
    };
    let mode = device.file_mode().unwrap_or(0o666) & !SFlag::S_IFMT.bits();
    let node = Node {
        label: format!("{field} ({path})"),
        kind,
        device: number,
        mode: Mode::from_bits(mode)
            .ok_or_else(|| invalid(format!("{field}.fileMode"), format!("{mode:#o} is no mode")))?,
        owner: (Uid::from_raw(device.uid().unwrap_or(0)), Gid::from_raw(device.gid().unwrap_or(0))),
        of_host: None,
        target,
    };
    let place = node.target.shown();
    let Some(default) = DEFAULT.iter().find(|default| default.path == place) else {
        if LINKS.iter().any(|(link, _)| *link == place) {
            return Ok(None);
        }
        return Ok(Some(Node { of_host: numbered.then(|| of_host(&node)).flatten(), ..node }));
    };
    if kind != SFlag::S_IFCHR || number != default.device() {
        let why = format!("{place} is another device in every container");
        return Err(invalid(field, why));
    }
    if place != "/dev/null" {
        return Ok(Some(Node { of_host: of_host(&node), ..node }));
    }
    // It is the host's, since it covers what is masked as well.
    let plain = node.mode.bits() == 0o666 && node.owner == (Uid::from_raw(0), Gid::from_raw(0));
    match plain {
        true => Ok(None),
        false => Err(unsupported(field, "/dev/null with another mode or owner")),
    }
}

fn number(device: &LinuxDevice, field: &str) -> Result<dev_t, SpecError> {
    let (major, minor) = (device.major(), device.minor());
    match (u64::try_from(major), u64::try_from(minor)) {
        (Ok(high), Ok(low)) if high < 1 << 12 && low < 1 << 20 => Ok(makedev(high, low)),
        _ => Err(invalid(field, format!("{major}:{minor} is no device"))),
    }
}

fn of_host(node: &Node) -> Option<OwnedFd> {
    let path = CString::new(node.target.shown()).ok()?;
    let tree = clone_tree(AT_FDCWD, &path, false).ok()?;
    let facts = fstat(tree.as_fd()).ok()?;
    node.is(&facts).then_some(tree)
}

impl Node {
    fn is(&self, facts: &nix::libc::stat) -> bool {
        SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT == self.kind
            && (self.kind == SFlag::S_IFIFO || facts.st_rdev == self.device)
    }

    /// Makes it. For the child: does not allocate.
    ///
    /// # Errors
    /// `EEXIST` when something else is there, `EPERM` when it may not be made and the host has none.
    pub fn make(&self, root: BorrowedFd<'_>) -> nix::Result<()> {
        let (directory, name) = self.target.open_parent(root)?;
        match mknodat(&directory, name, self.kind, self.mode, self.device) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                let facts = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                return if self.is(&facts) { Ok(()) } else { Err(Errno::EEXIST) };
            }
            Err(Errno::EPERM) => {
                let tree = self.of_host.as_ref().ok_or(Errno::EPERM)?;
                return attach(tree, self.target.open(root)?);
            }
            Err(errno) => return Err(errno),
        }
        let (user, group) = self.owner;
        fchownat(&directory, name, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)
    }
}
