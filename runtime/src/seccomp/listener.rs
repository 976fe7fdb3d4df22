//! The program that decides about calls with `SCMP_ACT_NOTIFY`: it listens at `linux.seccomp.listenerPath`
//! and is sent the filter's descriptor with the "Container Process State" (config-linux.md).
//!
//! The process under the filter cannot send it: the calls for that may be among those to be decided about.
//! It says which number the descriptor will have, and the parent takes a copy (pidfd_getfd(2)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_runtime::record::Failure;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg,
    setsockopt, socket,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{Pid, write};
use oci_spec::runtime::{LinuxSeccompAction, Spec};
use serde_json::{Value, json};

use crate::failure::{broken, system};
use crate::hooks::Told;
use crate::sys::pidfd;

/// How long a listener may take to come to its socket, and a filter to be loaded.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the listener is, and what it is told.
#[derive(Debug, Clone)]
pub struct Listener {
    path: PathBuf,
    /// All but the process's own id.
    message: Value,
}

impl Listener {
    /// That of a configuration, if its filter asks for one; `told` is the container's state.
    pub fn of(spec: &Spec, told: Told<'_>) -> Option<Self> {
        let seccomp = spec.linux().as_ref()?.seccomp().as_ref()?;
        let asks = |action| action == LinuxSeccompAction::ScmpActNotify;
        let calls = seccomp.syscalls().iter().flatten();
        if !asks(seccomp.default_action()) && !calls.map(|call| call.action()).any(asks) {
            return None;
        }
        let mut message = json!({
            "ociVersion": spec.version(),
            "fds": ["seccompFd"],
            "state": told.json(spec),
        });
        if let Some(metadata) = seccomp.listener_metadata() {
            message["metadata"] = metadata.as_str().into();
        }
        Some(Self { path: seccomp.listener_path().clone()?, message })
    }

    /// Sends descriptor `number` of a process that loads its filter in this moment. `false` when the
    /// process has something to say first, on `socket`: that it could not.
    pub fn serve(
        &self,
        (pid, pidfd): (Pid, BorrowedFd<'_>),
        number: u16,
        socket: &OwnedFd,
    ) -> Result<bool, Failure> {
        match take(pidfd, u32::from(number), socket)? {
            None => Ok(false),
            Some(descriptor) => self.send(pid, &descriptor).map(|()| true),
        }
    }

    fn send(&self, pid: Pid, descriptor: &OwnedFd) -> Result<(), Failure> {
        let step = format!("tell the seccomp listener at {}", self.path.display());
        let failed = |errno| system(&step, errno);
        let mut message = self.message.clone();
        message["pid"] = pid.as_raw().into();
        if message["state"].get("pid").is_none() {
            message["state"]["pid"] = pid.as_raw().into();
        }
        let text = message.to_string();
        let flags = SockFlag::SOCK_CLOEXEC;
        let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(failed)?;
        // It bounds connect(2) too (unix(7)).
        let seconds = i64::try_from(TIMEOUT.as_secs()).unwrap_or(i64::MAX);
        setsockopt(&stream, SendTimeout, &TimeVal::seconds(seconds)).map_err(failed)?;
        connect(stream.as_raw_fd(), &UnixAddr::new(&self.path).map_err(failed)?).map_err(failed)?;
        let fds = [descriptor.as_raw_fd()];
        let control = [ControlMessage::ScmRights(&fds)];
        let parts = [std::io::IoSlice::new(text.as_bytes())];
        let sent =
            sendmsg::<()>(stream.as_raw_fd(), &parts, &control, MsgFlags::MSG_NOSIGNAL, None);
        let mut left = &text.as_bytes()[sent.map_err(failed)?..];
        while !left.is_empty() {
            left = &left[write(&stream, left).map_err(failed)?..];
        }
        Ok(())
    }
}

/// A copy of the descriptor, as soon as it is there.
fn take(pidfd: BorrowedFd<'_>, number: u32, socket: &OwnedFd) -> Result<Option<OwnedFd>, Failure> {
    let failed = |errno| system("take the seccomp descriptor of the process", errno);
    let begin = Instant::now();
    while begin.elapsed() < TIMEOUT {
        match pidfd::copy_descriptor(pidfd, number) {
            Err(Errno::EBADF) => {}
            other => return other.map(Some).map_err(failed),
        }
        let pause = PollTimeout::from(1_u8);
        match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], pause) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        }
    }
    Err(broken("the process has not loaded its system call filter in time"))
}
