//! The process between the runtime and the first process of a container that joins namespaces.
//!
//! Some namespaces are a process's only when it is born in them (pid), from others there is no way back
//! (user), and hooks have to run in the runtime's own. So a child of the runtime enters what is joined,
//! sets the clocks of a new time namespace, bears the first process into the new namespaces as its own
//! sibling, and ends. What is made new belongs to the user namespace that is joined.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::record::Failure;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sched::{CloneFlags as Namespaces, setns, unshare};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, pipe2, read, write};
use oci_spec::runtime::LinuxNamespaceType;

use crate::failure::{broken, system};
use crate::joined::Joined;
use crate::sys::clone3::{CloneFlags, Forked, clone3};
use crate::sys::{prctl, process};

/// What is done before the first process is born.
pub(super) struct Crossing<'a> {
    /// In this order.
    pub joined: &'a [Joined],
    /// What is written for the clocks of a new time namespace.
    pub time_offsets: Option<&'a CStr>,
}

/// How far the process between has come, by number: an index of `joined`, or one of these.
const HIDE: i32 = -1;
const OFFSETS: i32 = -2;
const CLONE: i32 = -3;
const CGROUP: i32 = -5;
/// The value is the first process's id.
const BORN: i32 = -4;

/// As [`clone3`], from the far side if there is anything to join. The caller must have one thread only.
///
/// # Errors
/// Names the namespace that could not be joined, or the step.
pub(super) fn clone_child(
    crossing: &Crossing<'_>,
    flags: &CloneFlags<'_>,
) -> Result<Forked, Failure> {
    if crossing.joined.is_empty() && crossing.time_offsets.is_none() {
        return clone3(flags).map_err(|errno| describe(crossing, CLONE, errno));
    }
    let step = "begin the process that joins namespaces";
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| system(step, errno))?;
    let between = match clone3(&CloneFlags::default()).map_err(|errno| system(step, errno))? {
        Forked::Child => {
            cross(crossing, flags, writer.as_fd());
            return Ok(Forked::Child);
        }
        Forked::Parent { pidfd, .. } => pidfd,
    };
    drop(writer);
    let message = receive(&reader);
    while let Err(Errno::EINTR) = waitid(Id::PIDFd(between.as_fd()), WaitPidFlag::WEXITED) {}
    match message.map_err(|errno| system(step, errno))? {
        // It is the caller's child and not waited for, so the number is its own.
        Some((BORN, pid)) => {
            let child = Pid::from_raw(pid);
            let pidfd = process::pidfd_open(child);
            pidfd
                .map(|pidfd| Forked::Parent { child, pidfd })
                .map_err(|errno| system("open the first process", errno))
        }
        Some((place, errno)) => Err(describe(crossing, place, Errno::from_raw(errno))),
        None => Err(broken("the process that joins namespaces ended before it had done so")),
    }
}

fn describe(crossing: &Crossing<'_>, place: i32, errno: Errno) -> Failure {
    match place {
        HIDE => system("shut the process that joins namespaces off from others", errno),
        OFFSETS => system("set linux.timeOffsets", errno),
        CLONE => system("clone into new namespaces", errno),
        CGROUP => system("enter the container's cgroup", errno),
        index => {
            let joined = usize::try_from(index).ok().and_then(|index| crossing.joined.get(index));
            let label = joined.map_or("?", |joined| &joined.label);
            system(&format!("join the namespace of {label}"), errno)
        }
    }
}

fn receive(reader: &OwnedFd) -> nix::Result<Option<(i32, i32)>> {
    let mut bytes = [0; 8];
    loop {
        match read(reader, &mut bytes) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(8) => {
                let [a, b, c, d, e, f, g, h] = bytes;
                let number = |bytes| i32::from_ne_bytes(bytes);
                return Ok(Some((number([a, b, c, d]), number([e, f, g, h]))));
            }
            Ok(_) => return Ok(None),
        }
    }
}

/// The life of the process between; it comes back only as the first process of the container. Does not
/// allocate, lock or panic.
fn cross(crossing: &Crossing<'_>, flags: &CloneFlags<'_>, parent: BorrowedFd<'_>) {
    match try_to_cross(crossing, flags) {
        Ok(Forked::Child) => {}
        Ok(Forked::Parent { child, .. }) => say_and_end(parent, BORN, child.as_raw()),
        Err((place, errno)) => say_and_end(parent, place, errno as i32),
    }
}

fn try_to_cross(crossing: &Crossing<'_>, flags: &CloneFlags<'_>) -> Result<Forked, (i32, Errno)> {
    // Those who are in the namespaces already could trace it, and the first process from its first moment
    // on (ptrace(2), "Ptrace access mode checking"; CVE-2016-9962).
    prctl::not_dumpable().map_err(|errno| (HIDE, errno))?;
    if let Some(lines) = crossing.time_offsets {
        set_clocks(lines).map_err(|errno| (OFFSETS, errno))?;
    }
    let mut cgroup = flags.cgroup;
    if crossing.joined.iter().any(|one| one.kind == LinuxNamespaceType::Cgroup)
        && let Some(directory) = cgroup.take()
    {
        // From a cgroup namespace that the cgroup is outside of, nobody could be put there (cgroups(7)).
        enter(directory).map_err(|errno| (CGROUP, errno))?;
    }
    for (index, one) in crossing.joined.iter().enumerate() {
        let kind = Namespaces::from_bits_retain(one.kind as i32);
        let place = i32::try_from(index).unwrap_or(i32::MAX);
        setns(&one.fd, kind).map_err(|errno| (place, errno))?;
    }
    clone3(&CloneFlags { sibling: true, cgroup, ..*flags }).map_err(|errno| (CLONE, errno))
}

fn enter(cgroup: BorrowedFd<'_>) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let procs = openat(cgroup, c"cgroup.procs", flags, Mode::empty())?;
    write(&procs, b"0").map(drop)
}

/// The offsets can be set until somebody is in the namespace, which its maker's next child will be.
fn set_clocks(lines: &CStr) -> nix::Result<()> {
    unshare(Namespaces::from_bits_retain(libc::CLONE_NEWTIME))?;
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = open(c"/proc/self/timens_offsets", flags, Mode::empty())?;
    let bytes = lines.to_bytes();
    match write(&file, bytes)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(Errno::EIO),
    }
}

fn say_and_end(parent: BorrowedFd<'_>, place: i32, value: i32) -> ! {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&place.to_ne_bytes());
    bytes[4..].copy_from_slice(&value.to_ne_bytes());
    let said = write(parent, &bytes).is_ok();
    process::exit_now(if said { 0 } else { 2 })
}
