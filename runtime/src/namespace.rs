//! Namespaces by clone flag, and id maps (user_namespaces(7)).

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxIdMapping;

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

impl From<&LinuxIdMapping> for IdMap {
    fn from(mapping: &LinuxIdMapping) -> Self {
        Self { inside: mapping.container_id(), outside: mapping.host_id(), count: mapping.size() }
    }
}

/// Writes the maps of a child that is in a new user namespace; one write each, as the kernel demands.
pub fn write_id_maps(pid: Pid, users: &[IdMap], groups: &[IdMap]) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/uid_map"), rows(users))?;
    fs::write(format!("/proc/{pid}/gid_map"), rows(groups))
}

/// The maps of a process's user namespace, users and groups, as the caller's own numbers them: at most 340
/// rows each, which the kernel sees to.
pub fn read_id_maps(pid: Pid) -> io::Result<(Vec<IdMap>, Vec<IdMap>)> {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{name}"))?;
        text.lines().map(row).collect::<Option<Vec<_>>>().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{name} of {pid}: {text:?}"))
        })
    };
    Ok((read("uid_map")?, read("gid_map")?))
}

fn row(line: &str) -> Option<IdMap> {
    let mut numbers = line.split_ascii_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(IdMap { inside: next()?, outside: next()?, count: next()? })
}

/// [`id_maps_namespace`] with the same map for users and groups: for stored layers.
pub fn id_map_namespace(map: IdMap) -> io::Result<OwnedFd> {
    id_maps_namespace(&[map], &[map])
}

/// A user namespace that nobody is in, with these maps of users and groups: what
/// `mount_setattr(MOUNT_ATTR_IDMAP)` takes. Inside ids are those on disk and outside ids are those that
/// the mount shows.
pub fn id_maps_namespace(users: &[IdMap], groups: &[IdMap]) -> io::Result<OwnedFd> {
    let flags = CloneFlags { namespaces: u64::from(NEW_USER), ..CloneFlags::default() };
    let parent = Pid::this();
    let (child, pidfd) = match clone3(&flags)? {
        Forked::Child => process::wait_for_kill(parent),
        Forked::Parent { child, pidfd } => (child, pidfd),
    };
    let namespace = write_id_maps(child, users, groups)
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
