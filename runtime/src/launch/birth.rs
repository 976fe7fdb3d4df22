//! The parent's part while a child builds its container, or joins one.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use berth_runtime::record::Failure;
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, Uid, read, write};

use super::{BeforeRoot, Created, errno_of};
use crate::failure::{Words, broken, system};
use crate::init::{REPORT_BYTES, Report, Stage};
use crate::namespace::{IdMap, write_id_maps};
use crate::owner::Acting;
use crate::plan::{ProcessPlan, Streams};
use crate::rlimit::{self, Limit};
use crate::seccomp::listener::Listener;
use crate::sys::process;

/// A child that is being built; ended and reaped unless it becomes a [`Created`].
pub struct Birth {
    /// The child.
    pub pid: Pid,
    /// The same; taken when it is born.
    pub pidfd: Option<OwnedFd>,
    /// The parent's end of the socket between them.
    pub ours: OwnedFd,
    /// Whose its user namespace is.
    pub owner: Option<Uid>,
    /// For its reports.
    pub words: Words,
    /// For its filter.
    pub listener: Option<Listener>,
    /// The master of its terminal, once it has made one.
    pub terminal: Option<OwnedFd>,
}

impl Birth {
    /// Does the parent's part, and waits until the child has done its own.
    pub fn lead(
        &mut self,
        process: &ProcessPlan,
        id_maps: Option<&(Vec<IdMap>, Vec<IdMap>)>,
        before_root: Option<&BeforeRoot<'_>>,
    ) -> Result<(), Failure> {
        let pid = self.pid;
        if let Some(value) = process.oom_score_adj {
            let path = format!("/proc/{pid}/oom_score_adj");
            std::fs::write(&path, value.to_string())
                .map_err(|error| system(&format!("write {value} to {path}"), errno_of(&error)))?;
        }
        if let Some((users, groups)) = id_maps {
            write_id_maps(pid, users, groups)
                .map_err(|error| system("write the user namespace's id maps", errno_of(&error)))?;
        }
        self.go_on()?;
        if let Some(act) = before_root {
            self.hold(act)?;
        }
        if process.streams != Streams::Given {
            self.receive_terminal()?;
        }
        match self.receive_past_filter()? {
            Some(Report { stage: Stage::Ready, .. }) => {
                process.scheduling.set(pid)?;
                // Now, so that a small limit does not hinder the building; and as the owner, since a
                // host's root that lacks CAP_SYS_RESOURCE may set only what is its own.
                let _acting = act_as(self.owner)?;
                rlimit::set(pid, &process.limits).map_err(|(limit, errno)| {
                    let Limit { kind, soft, hard, .. } = limit;
                    system(&format!("set {kind:?} to {soft}:{hard}"), errno)
                })
            }
            Some(report) => Err(self.words.describe(report)),
            None => Err(broken("the first process ended while the container was being built")),
        }
    }

    /// The child's report, once the listener of a filter that it loads now has been served.
    fn receive_past_filter(&self) -> Result<Option<Report>, Failure> {
        let pidfd = self.pidfd.as_ref().ok_or_else(|| broken("the child's descriptor is gone"))?;
        receive_past_filter(&self.ours, self.listener.as_ref(), (self.pid, pidfd.as_fd()))
    }

    /// Lets the child go on from where it waits. One that has ended has said why.
    fn go_on(&self) -> Result<(), Failure> {
        match write(&self.ours, &[1]) {
            Ok(_) | Err(Errno::EPIPE) => Ok(()),
            Err(errno) => Err(system("release the child", errno)),
        }
    }

    /// Lets the caller act while the child waits before its root.
    fn hold(&self, act: &BeforeRoot<'_>) -> Result<(), Failure> {
        match receive(&self.ours)? {
            Some(Report { stage: Stage::Held, errno: 0, .. }) => act(self.pid)?,
            Some(report) => return Err(self.words.describe(report)),
            None => return Err(broken("the process ended while it was being made")),
        }
        self.go_on()
    }

    /// The child's message with the master of its terminal, or what it failed at before that.
    fn receive_terminal(&mut self) -> Result<(), Failure> {
        let (bytes, mut fds) = loop {
            match berth_runtime::receive_message(&self.ours) {
                // What the child said before it ended comes after the second (see `receive`).
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                other => break other.map_err(|errno| system("read the child's report", errno))?,
            }
        };
        match (Report::from_bytes(&bytes), fds.pop()) {
            (Some(Report { stage: Stage::Terminal, errno: 0, .. }), Some(master)) => {
                self.terminal = Some(master);
                Ok(())
            }
            (Some(report), _) => Err(self.words.describe(report)),
            (None, _) => Err(broken("the process ended while it was being made")),
        }
    }

    pub(super) fn into_created(mut self) -> Result<Created, Failure> {
        let path = format!("/proc/{}/ns/net", self.pid);
        let network =
            File::open(&path).map_err(|error| system(&format!("open {path}"), errno_of(&error)))?;
        let gate = self.ours.try_clone().map_err(|error| system("copy", errno_of(&error)))?;
        let pidfd = self.pidfd.take().ok_or_else(|| broken("the child's descriptor is gone"))?;
        Ok(Created {
            pid: self.pid,
            pidfd,
            network_namespace: network.into(),
            terminal: self.terminal.take(),
            gate: Some(gate),
            words: std::mem::take(&mut self.words),
            listener: self.listener.take(),
        })
    }
}

impl Drop for Birth {
    fn drop(&mut self) {
        let Some(pidfd) = &self.pidfd else { return };
        // A child that has reported ends by itself; both calls fail only when it is gone already.
        if process::pidfd_send_signal(pidfd, libc::SIGKILL).is_ok() {
            while let Err(Errno::EINTR) = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) {}
        }
    }
}

/// A report as by [`receive`]; serves the listener of a filter that the process loads before it.
pub(super) fn receive_past_filter(
    socket: &OwnedFd,
    listener: Option<&Listener>,
    process: (Pid, BorrowedFd<'_>),
) -> Result<Option<Report>, Failure> {
    match (receive(socket)?, listener) {
        (Some(Report { stage: Stage::Listener, index, errno: 0 }), Some(listener)) => {
            if listener.serve(process, index, socket)? {
                write(socket, &[1]).map_err(|errno| system("release the process", errno))?;
            }
            receive(socket)
        }
        (report, _) => Ok(report),
    }
}

/// A report, or nothing when the child's end is closed.
pub(super) fn receive(socket: &OwnedFd) -> Result<Option<Report>, Failure> {
    let mut bytes = [0; REPORT_BYTES + 1];
    loop {
        return match read(socket, &mut bytes) {
            // A child that ends with a byte of ours unread resets the connection, which is told once,
            // before what it has said.
            Err(Errno::EINTR | Errno::ECONNRESET) => continue,
            Ok(0) => Ok(None),
            Err(errno) => Err(system("read the child's report", errno)),
            Ok(length) => match Report::from_bytes(&bytes[..length]) {
                Some(report) => Ok(Some(report)),
                None => Err(broken("the child's report is none")),
            },
        };
    }
}

/// Acts as the owner of the child's user namespace, if it has one.
pub(super) fn act_as(owner: Option<Uid>) -> Result<Option<Acting>, Failure> {
    let acting = owner.map(Acting::as_user).transpose();
    acting.map_err(|errno| system("act as the user namespace's owner", errno))
}
