//! A child's descriptors: standard input, output and error, given or a terminal of the container's own,
//! those that the caller lets it keep, and nothing else.
//!
//! Runs between clone3 and execve: nothing here allocates, locks, logs or panics.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd;

use super::{At, Report, Stage, Wiring};
use crate::plan::Streams;
use crate::sys::{exec, fd, mount_api, terminal};

/// Pipes become the user's, so that it can open `/dev/stdout` anew; the host's owner could not be
/// reached from inside anyway.
pub(super) fn place(stdio: &[OwnedFd; 3], user: u32) -> nix::Result<()> {
    exec::place_stdio(stdio)?;
    for fd in stdio {
        if SFlag::from_bits_truncate(fstat(fd.as_fd())?.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO {
            match unistd::fchown(fd, Some(unistd::Uid::from_raw(user)), None) {
                // Another's pipe (the engine's user's): it stays as it is.
                Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(())
}

/// A terminal of the container's own devpts becomes standard input, output and error, and the user's;
/// its master goes to the parent.
pub(super) fn make_terminal(
    parent: BorrowedFd<'_>,
    user: u32,
    streams: Streams,
) -> Result<(), Report> {
    let terminal::Terminal { master, slave } = terminal::open().at(Stage::Terminal)?;
    // The group is the one that devpts was mounted with (tty).
    // A user that the container has no id for is refused here, in the words of the later step.
    unistd::fchown(&slave, Some(unistd::Uid::from_raw(user)), None).at(Stage::UserId)?;
    terminal::make_controlling(slave.as_fd()).at(Stage::Terminal)?;
    if streams == Streams::Console {
        bind_console(slave.as_fd()).at(Stage::Console)?;
    }
    unistd::dup2_stdin(&slave).at(Stage::Stdio)?;
    unistd::dup2_stdout(&slave).at(Stage::Stdio)?;
    unistd::dup2_stderr(&slave).at(Stage::Stdio)?;
    let made = Report { stage: Stage::Terminal, index: 0, errno: 0 };
    terminal::send_descriptor(parent, &made.to_bytes(), master.as_fd()).at(Stage::Terminal)
}

/// The terminal at `/dev/console` (config-linux.md, "Default Devices"). The place is made if absent;
/// no link leads to another.
fn bind_console(slave: BorrowedFd<'_>) -> nix::Result<()> {
    let how = |flags: OFlag, mode: u32| {
        OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(mode))
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS)
    };
    let place = match openat2(AT_FDCWD, c"/dev/console", how(OFlag::O_PATH, 0)) {
        Err(Errno::ENOENT) => {
            let make = how(OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY, 0o600);
            openat2(AT_FDCWD, c"/dev/console", make)?
        }
        other => other?,
    };
    let tree = mount_api::clone_tree(slave, c"", false)?;
    mount_api::attach(&tree, &place)
}

/// Closes all but the standard streams, `preserved` descriptors from 3 on, and those to the parent.
pub(super) fn close_the_rest(wiring: &Wiring, preserved: u32) -> nix::Result<()> {
    let first = 3 + preserved;
    let parent = wiring.parent.as_fd();
    match &wiring.gate {
        None => fd::close_all_but(first, &[parent]),
        Some(gate) if gate.as_raw_fd() < parent.as_raw_fd() => {
            fd::close_all_but(first, &[gate.as_fd(), parent])
        }
        Some(gate) => fd::close_all_but(first, &[parent, gate.as_fd()]),
    }
}
