//! Sockets that the service manager opened before this process began (`sd_listen_fds(3)`).

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first descriptor that the manager passes.
const FD_FIRST: i32 = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The one socket that `LISTEN_PID` and `LISTEN_FDS` say was passed to this process, close-on-exec.
/// `Ok(None)` when none was. To be called once, before anything else opens descriptors.
///
/// # Errors
/// `EINVAL` when more than one was passed, or when it was taken before; else fcntl(2)'s.
pub fn take_listener() -> nix::Result<Option<OwnedFd>> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let count = match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    };
    if count == 0 {
        return Ok(None);
    }
    if count > 1 || TAKEN.swap(true, Ordering::Relaxed) {
        return Err(nix::errno::Errno::EINVAL);
    }
    // SAFETY: the manager opened descriptor 3 for this very process (LISTEN_PID) and nothing in it
    // has taken it before (TAKEN), so it has no other owner; if it is not open, the fcntl below says
    // so and dropping the value closes nothing of ours.
    let socket = unsafe { OwnedFd::from_raw_fd(FD_FIRST) };
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(Some(socket))
}
