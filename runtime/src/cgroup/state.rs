//! What a cgroup's processes are doing, and acting on all of them: count, freeze, thaw, kill, and the
//! kernel's word on lack of memory.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Cgroup, Controller, Error, Hierarchy, files};

/// How long freezing may take; a process in uninterruptible sleep delays it.
const FREEZE_LIMIT: Duration = Duration::from_secs(5);
/// How long every process may take to end after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// The processes in it, as host ids.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let directory = match self.directory(Controller::Pids).or_else(|| self.unified()) {
            Some(directory) => directory,
            None => return Err(Error::Layout("there is no pids controller".to_owned())),
        };
        let path = directory.join("cgroup.procs");
        let text = files::read(&path)?;
        let number = |line: &str| {
            line.parse()
                .map_err(|_| Error::Malformed { path: path.clone(), value: line.to_owned() })
        };
        text.lines().map(number).collect()
    }

    /// Stops every process where it stands, and waits until all of them are.
    pub fn freeze(&self) -> Result<(), Error> {
        match self.unified() {
            Some(unified) => {
                files::write(&unified.join("cgroup.freeze"), "1")?;
                files::wait_event(&unified.join("cgroup.events"), "frozen 1", FREEZE_LIMIT)
            }
            None => self.freeze_v1(),
        }
    }

    /// Lets every process go on.
    pub fn thaw(&self) -> Result<(), Error> {
        match self.unified() {
            Some(unified) => files::write(&unified.join("cgroup.freeze"), "0"),
            None => files::write(&self.freezer_state()?, "THAWED"),
        }
    }

    /// Whether it is frozen, or on the way there.
    pub fn frozen(&self) -> Result<bool, Error> {
        match self.unified() {
            Some(unified) => Ok(files::read_number(&unified.join("cgroup.freeze"))? == 1),
            None => Ok(files::read(&self.freezer_state()?)? != "THAWED"),
        }
    }

    /// Kills every process in it, frozen or not, also those that are being forked now. Success when
    /// the cgroup is gone, or only half made or removed.
    pub fn kill(&self) -> Result<(), Error> {
        if self.is_half_and_empty()? {
            return Ok(());
        }
        let killed = match self.unified() {
            Some(unified) => {
                files::write(&unified.join("cgroup.kill"), "1").and_then(|()| self.thaw_freezer())
            }
            None => self.kill_v1(),
        };
        self.unless_gone(killed)
    }

    /// Waits until no process is in it (zombies don't count).
    pub fn wait_empty(&self, limit: Duration) -> Result<(), Error> {
        if self.is_half_and_empty()? {
            return Ok(());
        }
        let waited = match self.unified() {
            Some(unified) => {
                files::wait_event(&unified.join("cgroup.events"), "populated 0", limit)
            }
            None => self.wait_empty_v1(limit),
        };
        self.unless_gone(waited)
    }

    fn wait_empty_v1(&self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        while !self.pids()?.is_empty() {
            self.check_deadline(deadline, "the end of every process", limit)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// systemd removes a scope's cgroup as soon as it is empty, also while we look into it.
    fn unless_gone(&self, done: Result<(), Error>) -> Result<(), Error> {
        match done {
            Err(error) if files::is_gone(&error) && self.is_half_and_empty()? => Ok(()),
            other => other,
        }
    }

    /// Processes that the kernel has killed in it for want of memory.
    pub fn oom_kills(&self) -> Result<u64, Error> {
        let Some(directory) = self.directory(Controller::Memory) else { return Ok(0) };
        let file = match &self.hierarchy {
            Hierarchy::V2 { .. } => "memory.events",
            Hierarchy::V1 { .. } => "memory.oom_control",
        };
        let path = directory.join(file);
        if path.exists() { files::read_keyed(&path, "oom_kill") } else { Ok(0) }
    }

    /// A descriptor that becomes readable when [`Cgroup::oom_kills`] may have changed; read it empty
    /// (it does not block) and look. `None` without a memory controller.
    pub fn oom_notifier(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(directory) = self.directory(Controller::Memory) else { return Ok(None) };
        match &self.hierarchy {
            Hierarchy::V2 { .. } => {
                let path = directory.join("memory.events");
                if !path.exists() {
                    return Ok(None);
                }
                let failed =
                    |errno: Errno| Error::Read { path: path.clone(), source: errno.into() };
                let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
                    .map_err(failed)?;
                inotify.add_watch(&path, AddWatchFlags::IN_MODIFY).map_err(failed)?;
                Ok(Some(OwnedFd::from(inotify)))
            }
            Hierarchy::V1 { .. } => oom_eventfd(&directory).map(Some),
        }
    }

    /// Beside a unified tree Berth does not use the freezer of v1, but others of the host's may have: what
    /// is frozen there does not even die.
    fn thaw_freezer(&self) -> Result<(), Error> {
        let state = self.directory(Controller::Freezer).map(|found| found.join("freezer.state"));
        match state.filter(|state| state.exists()) {
            Some(state) => files::write(&state, "THAWED"),
            None => Ok(()),
        }
    }

    fn freezer_state(&self) -> Result<std::path::PathBuf, Error> {
        let directory = self.directory(Controller::Freezer);
        let missing = || Error::Layout("there is neither a unified tree nor a freezer".to_owned());
        Ok(directory.ok_or_else(missing)?.join("freezer.state"))
    }

    /// The kernel may need several tries: a process that forks while being frozen leaves the state at
    /// FREEZING until it is written again (freezer-subsystem.rst).
    fn freeze_v1(&self) -> Result<(), Error> {
        let state = self.freezer_state()?;
        let deadline = Instant::now() + FREEZE_LIMIT;
        loop {
            files::write(&state, "FROZEN")?;
            if files::read(&state)? == "FROZEN" {
                return Ok(());
            }
            self.check_deadline(deadline, "freezing", FREEZE_LIMIT)?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Frozen processes cannot fork, so every process is signalled; they die when thawed.
    fn kill_v1(&self) -> Result<(), Error> {
        let deadline = Instant::now() + KILL_LIMIT;
        loop {
            self.freeze_v1()?;
            let pids = self.pids()?;
            for pid in &pids {
                match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => {
                        let path = self.freezer_state()?;
                        let value = format!("SIGKILL to {pid}");
                        return Err(Error::Write { path, value, source: errno.into() });
                    }
                }
            }
            self.thaw()?;
            if pids.is_empty() {
                return Ok(());
            }
            self.check_deadline(deadline, "the end of every process", KILL_LIMIT)?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn check_deadline(
        &self,
        deadline: Instant,
        what: &'static str,
        limit: Duration,
    ) -> Result<(), Error> {
        if Instant::now() < deadline {
            return Ok(());
        }
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Err(Error::Timeout { path: self.path.clone().into(), what, millis })
    }
}

/// v1's way of being told (cgroup-v1/memory.rst, "OOM Control"): an eventfd registered together with
/// an open `memory.oom_control`.
fn oom_eventfd(directory: &Path) -> Result<OwnedFd, Error> {
    let path = directory.join("memory.oom_control");
    let failed = |source| Error::Read { path: path.clone(), source };
    let control = File::open(&path).map_err(failed)?;
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let event = EventFd::from_value_and_flags(0, flags).map_err(|errno| failed(errno.into()))?;
    let registration = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    files::write(&directory.join("cgroup.event_control"), &registration)?;
    Ok(OwnedFd::from(event))
}
