//! Sockets that the service manager opened before this process began (`sd_listen_fds(3)`).

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first descriptor that the manager passes.
const FD_FIRST: i32 = 3;
/// Sockets that are taken at most.
const SOCKETS_MAX: i32 = 64;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The sockets that `LISTEN_PID` and `LISTEN_FDS` say were passed to this process, close-on-exec;
/// none when none were. To be called once, before anything else opens descriptors.
///
/// # Errors
/// `EINVAL` when there are too many, or when they were taken before; else fcntl(2)'s.
pub fn take_listeners() -> nix::Result<Vec<OwnedFd>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let own = i32::try_from(std::process::id()).ok();
    let count = match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if Some(pid) == own => count,
        _ => 0,
    };
    if count <= 0 {
        return Ok(Vec::new());
    }
    if count > SOCKETS_MAX || TAKEN.swap(true, Ordering::Relaxed) {
        return Err(Errno::EINVAL);
    }
    let mut sockets = Vec::new();
    for number in FD_FIRST..FD_FIRST + count {
        // SAFETY: the manager opened this descriptor for this very process (LISTEN_PID) and nothing
        // in it has taken it before (TAKEN), so it has no other owner; if it is not open, the fcntl
        // below says so and dropping the value closes nothing of ours.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        sockets.push(socket);
    }
    Ok(sockets)
}
