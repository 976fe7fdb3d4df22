//! Takes everything from the process that walks somebody's paths, except the ground and what it needs to be
//! the container's root there.
//!
//! Order, each step with its reason:
//! 1. New namespaces of every kind (by the clone), ids mapped by the task: root in here is the container's.
//! 2. The ground becomes the root directory, by descriptor: every name, whatever it says, ends in there. It
//!    may belong to another mount namespace, so it is entered by chroot(2), and what it takes to leave that
//!    again goes with step 3; nothing outside is open.
//! 3. What every confined process gives up ([`crate::confined`]). It keeps those capabilities by which the
//!    container's root reads, writes and gives files away, and makes no devices.

use std::os::fd::BorrowedFd;

use berth_runtime::record::{Failure, FailureClass};
use landlock::AccessFs;
use nix::sys::resource::Resource;
use nix::unistd::{chdir, chroot, fchdir};

use super::refused;
use super::walk::DEPTH_MAX;
use crate::confined::{Kept, give_up_all_but};

const ADDRESS_BYTES_MAX: u64 = 256 << 20;
/// Processor seconds of one act.
const CPU_SECS_MAX: u64 = 3_600;
/// One for each folder on the way, and some more.
const FILES_MAX: u64 = DEPTH_MAX as u64 + 64;

const LIMITS: [(Resource, u64); 3] = [
    (Resource::RLIMIT_AS, ADDRESS_BYTES_MAX),
    (Resource::RLIMIT_CPU, CPU_SECS_MAX),
    (Resource::RLIMIT_NOFILE, FILES_MAX),
];

/// `capabilities(7)`: CHOWN, DAC_OVERRIDE, FOWNER, FSETID.
const CAPABILITIES: [u32; 4] = [0, 1, 3, 4];

/// Confines this process to `ground` and, for an upload, to the directory that it comes from.
pub(super) fn confine(
    ground: BorrowedFd<'_>,
    uploads: Option<BorrowedFd<'_>>,
) -> Result<(), Failure> {
    fchdir(ground).map_err(refused("enter the ground"))?;
    chroot(".").map_err(refused("make the ground the root"))?;
    chdir("/").map_err(refused("enter the ground"))?;
    let grounds: Vec<_> = [ground].into_iter().chain(uploads).collect();
    give_up_all_but(&Kept {
        limits: &LIMITS,
        capabilities: &CAPABILITIES,
        grounds: &grounds,
        denied: AccessFs::MakeChar | AccessFs::MakeFifo,
        calls: CALLS,
    })
    .map_err(broken)
}

/// A step that the kernel refused.
pub(super) fn broken(message: String) -> Failure {
    Failure::new(FailureClass::Broken, "files.ground", message)
}

/// What walking files and sending what was found needs.
const CALLS: &[libc::c_long] = &[
    libc::SYS_pread64,
    libc::SYS_copy_file_range,
    libc::SYS_fstatfs,
    libc::SYS_renameat,
    libc::SYS_fsync,
    libc::SYS_pipe2,
    libc::SYS_sendmsg,
];
