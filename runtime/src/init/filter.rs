//! Loading the system call filter, and with a listener waiting until that has its descriptor.
//!
//! Runs between clone3 and execve: nothing here allocates, locks, logs or panics.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::unistd;

use super::{At, Report, Stage, wait_for_byte};
use crate::seccomp::Filter;
use crate::sys::seccomp;

/// Loads a filter. With a listener its number is told to whoever is at the other end of `to` before that,
/// and then nothing but read(2) is called until they answer: any other call may be one that the listener
/// has to decide about, which nobody could reach yet.
pub(super) fn load(filter: &Filter, to: BorrowedFd<'_>) -> Result<(), Report> {
    if !filter.listens() {
        return seccomp::load(&filter.program, filter.flags).at(Stage::Seccomp);
    }
    let next = next_number(to).at(Stage::Seccomp)?;
    let index = u16::try_from(next).map_err(|_| Errno::EMFILE).at(Stage::Seccomp)?;
    let listener = Report { stage: Stage::Listener, index, errno: 0 };
    unistd::write(to, &listener.to_bytes()).at(Stage::Listener)?;
    // Closed by execve, or with this process.
    seccomp::load(&filter.program, filter.flags).at(Stage::Seccomp)?;
    wait_for_byte(to).at(Stage::Listener)
}

/// The number that the next descriptor of this process will have: the lowest that is free.
fn next_number(any: BorrowedFd<'_>) -> nix::Result<i32> {
    // Free again when this returns.
    unistd::dup(any).map(|copy| copy.as_raw_fd())
}
