//! Namespaces by clone flag, and id maps (user_namespaces(7)).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::sys::clone3::{CloneFlags, Forked, clone3};
use crate::sys::process;

/// One row of a user namespace's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside (in the parent user namespace).
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Writes the maps of a child that is in a new user namespace; one write each, as the kernel demands.
pub fn write_id_maps(pid: Pid, users: &[IdMap], groups: &[IdMap]) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/uid_map"), rows(users))?;
    fs::write(format!("/proc/{pid}/gid_map"), rows(groups))
}

/// A user namespace that nobody is in, with the same map for users and groups: what
/// `mount_setattr(MOUNT_ATTR_IDMAP)` takes. For stored layers, inside ids are those on disk and
/// outside ids are those that the mount shows.
pub fn id_map_namespace(map: IdMap) -> io::Result<OwnedFd> {
    let flags = CloneFlags { namespaces: u64::from(NEW_USER), cgroup: None };
    let parent = Pid::this();
    let (child, pidfd) = match clone3(&flags)? {
        Forked::Child => process::wait_for_kill(parent),
        Forked::Parent { child, pidfd } => (child, pidfd),
    };
    let namespace = write_id_maps(child, &[map], &[map])
        .and_then(|()| File::open(format!("/proc/{child}/ns/user")));
    process::pidfd_send_signal(&pidfd, libc::SIGKILL)?;
    waitid(Id::PIDFd(std::os::fd::AsFd::as_fd(&pidfd)), WaitPidFlag::WEXITED)?;
    Ok(namespace?.into())
}

fn rows(maps: &[IdMap]) -> String {
    let mut text = String::new();
    for map in maps {
        writeln!(text, "{} {} {}", map.inside, map.outside, map.count)
            .expect("writing to a string cannot fail");
    }
    text
}

/// `CLONE_NEWUSER`, as clone3's unsigned flags want it.
const NEW_USER: u32 = libc::CLONE_NEWUSER.cast_unsigned();
