//! A command in the foreground: it waits for its child, passes signals on, and, where the child has a
//! terminal, carries bytes and sizes between that and the person's own.
//!
//! The person's terminal is raw meanwhile: what is typed means something to the program only. It is
//! put back when the [`Session`] is dropped. Neither direction waits for the other.

use std::io::{IsTerminal, Stdin, Stdout, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use berth_runtime::record::Failure;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd;

use crate::commands::bad_usage;
use crate::failure::{broken, system};
use crate::launch::errno_of;
use crate::sys::{process, terminal};

/// Signals that a foreground command passes on.
const FORWARDED: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Bytes on their way in one direction at most: not more than a pipe that polls writable takes at once.
const FLOW_BYTES: usize = 4096;

/// Bytes that are still read when the child has ended; a terminal holds less.
const DRAINED_BYTES_MAX: usize = 1 << 20;

/// Blocks the forwarded signals before the child is there, so that none is lost; the child unblocks all.
pub fn block_forwarded_signals() -> Result<SignalFd, Failure> {
    let mut set = SigSet::empty();
    FORWARDED.into_iter().for_each(|signal| set.add(signal));
    set.add(Signal::SIGWINCH);
    set.thread_block().map_err(|errno| system("block signals", errno))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| system("make a signal descriptor", errno))
}

/// The terminal that the person sits at: any of the standard streams, else the controlling one.
pub fn own_terminal() -> Result<OwnedFd, Failure> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let streams = [error.as_fd(), output.as_fd(), input.as_fd()];
    if let Some(stream) = streams.into_iter().find(IsTerminal::is_terminal) {
        let copy = stream.try_clone_to_owned();
        return copy.map_err(|error| system("copy a terminal's descriptor", errno_of(&error)));
    }
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    open(c"/dev/tty", flags, Mode::empty()).map_err(|errno| {
        bad_usage(format!(
            "the process wants a terminal, and this command has none to connect it with ({}); give \
             --detach and --console-socket",
            errno.desc()
        ))
    })
}

/// A child's terminal and the person's, connected.
#[derive(Debug)]
pub struct Session {
    master: OwnedFd,
    /// Held so that the master hangs up never: a program may close its terminal and open it again.
    _slave: OwnedFd,
    person: OwnedFd,
    before: Termios,
    input: Flow,
    output: Flow,
    streams: (Stdin, Stdout),
}

impl Session {
    /// Gives the child's terminal the size of the person's, unless it has one of its own, and makes the
    /// person's raw.
    pub fn begin(master: OwnedFd, person: OwnedFd, sized: bool) -> Result<Self, Failure> {
        let failed = |errno| system("prepare the terminal", errno);
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK)).map_err(failed)?;
        let slave = terminal::slave_of(master.as_fd()).map_err(failed)?;
        let before = tcgetattr(&person).map_err(failed)?;
        let streams = (std::io::stdin(), std::io::stdout());
        let (input, output) = (Flow::new(), Flow::new());
        let session = Self { master, _slave: slave, person, before, input, output, streams };
        if !sized {
            session.resize().map_err(failed)?;
        }
        let mut raw = session.before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&session.person, SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(session)
    }

    fn resize(&self) -> nix::Result<()> {
        match berth_runtime::terminal_size(&self.person)? {
            // A line that knows no size has none to give.
            (0, _) | (_, 0) => Ok(()),
            (columns, rows) => terminal::set_size(&self.master, columns, rows),
        }
    }

    /// What to wait for: only directions that can go on.
    fn watched(&self) -> Vec<(Watched, BorrowedFd<'_>, PollFlags)> {
        let mut list = Vec::new();
        if self.input.wants() {
            list.push((Watched::Input, self.streams.0.as_fd(), PollFlags::POLLIN));
        }
        if self.output.has() {
            list.push((Watched::Output, self.streams.1.as_fd(), PollFlags::POLLOUT));
        }
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.output.wants());
        flags.set(PollFlags::POLLOUT, self.input.has());
        if !flags.is_empty() {
            list.push((Watched::Master, self.master.as_fd(), flags));
        }
        list
    }

    fn carry(&mut self, ready: Watched) {
        match ready {
            Watched::Input => self.input.read(self.streams.0.as_fd()),
            Watched::Output => self.output.write(self.streams.1.as_fd()),
            Watched::Master => {
                if self.output.wants() {
                    self.output.read(self.master.as_fd());
                }
                if self.input.has() {
                    self.input.write(self.master.as_fd());
                }
            }
            Watched::Child | Watched::Signals => {}
        }
    }

    /// What the program wrote before it ended. A master without more answers EAGAIN, which ends this.
    fn drain(&mut self) {
        let mut drained = 0;
        while drained < DRAINED_BYTES_MAX {
            if !self.output.has() {
                self.output.read(self.master.as_fd());
            }
            let rest = self.output.rest();
            if rest.is_empty() || self.streams.1.write_all(rest).is_err() {
                break;
            }
            drained += rest.len();
            self.output.clear();
        }
        // Nobody to tell: whoever read the output is gone.
        drop(self.streams.1.flush());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It fails only when the terminal is gone.
        tcsetattr(&self.person, SetArg::TCSANOW, &self.before).unwrap_or_default();
    }
}

/// Bytes of one direction that were read and are not written yet.
#[derive(Debug)]
struct Flow {
    bytes: Box<[u8; FLOW_BYTES]>,
    begin: usize,
    end: usize,
    ended: bool,
}

impl Flow {
    fn new() -> Self {
        Self { bytes: Box::new([0; FLOW_BYTES]), begin: 0, end: 0, ended: false }
    }

    fn wants(&self) -> bool {
        !self.has() && !self.ended
    }

    fn has(&self) -> bool {
        self.begin < self.end
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.begin..self.end]
    }

    fn clear(&mut self) {
        self.begin = self.end;
    }

    fn read(&mut self, from: BorrowedFd<'_>) {
        match unistd::read(from, &mut self.bytes[..]) {
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // The end, or a terminal that has hung up.
            Ok(0) | Err(_) => self.ended = true,
            Ok(length) => (self.begin, self.end) = (0, length),
        }
    }

    fn write(&mut self, to: BorrowedFd<'_>) {
        match unistd::write(to, self.rest()) {
            Ok(length) => self.begin += length,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // Nobody reads: the bytes are dropped, so that the program is not held up for ever.
            Err(_) => self.clear(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watched {
    Child,
    Signals,
    Input,
    Output,
    Master,
}

/// Passes signals (and a session's bytes) on until the child ends; its exit code, or 128 and the signal
/// that ended it.
pub fn wait(
    child: &OwnedFd,
    signals: &SignalFd,
    mut session: Option<Session>,
) -> Result<ExitCode, Failure> {
    loop {
        let ready = ready(child, signals, session.as_ref())?;
        if ready.contains(&Watched::Signals) {
            pass_on(child, signals, session.as_ref())?;
        }
        if let Some(session) = &mut session {
            ready.iter().for_each(|one| session.carry(*one));
        }
        if ready.contains(&Watched::Child) {
            break;
        }
    }
    if let Some(session) = &mut session {
        session.drain();
    }
    drop(session);
    let status = waitid(Id::PIDFd(child.as_fd()), WaitPidFlag::WEXITED)
        .map_err(|errno| system("read the child's end", errno))?;
    let code = match status {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => return Err(broken(&format!("the child's end is none: {other:?}"))),
    };
    Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)))
}

/// Waits until something is ready, and says what.
fn ready(
    child: &OwnedFd,
    signals: &SignalFd,
    session: Option<&Session>,
) -> Result<Vec<Watched>, Failure> {
    let mut watched = vec![
        (Watched::Child, child.as_fd(), PollFlags::POLLIN),
        (Watched::Signals, signals.as_fd(), PollFlags::POLLIN),
    ];
    watched.extend(session.into_iter().flat_map(Session::watched));
    let mut list: Vec<_> = watched.iter().map(|(_, fd, flags)| PollFd::new(*fd, *flags)).collect();
    match poll(&mut list, PollTimeout::NONE) {
        Err(Errno::EINTR) => return Ok(Vec::new()),
        other => other.map_err(|errno| system("wait for the child", errno))?,
    };
    let ready = watched.iter().zip(&list).filter(|(_, polled)| polled.any() == Some(true));
    Ok(ready.map(|((what, ..), _)| *what).collect())
}

fn pass_on(child: &OwnedFd, signals: &SignalFd, session: Option<&Session>) -> Result<(), Failure> {
    let signal = signals.read_signal().map_err(|errno| system("read a signal", errno))?;
    let Some(info) = signal else { return Ok(()) };
    let number = info.ssi_signo.cast_signed();
    if number == Signal::SIGWINCH as i32 {
        let resized = session.map_or(Ok(()), Session::resize);
        return resized.map_err(|errno| system("set the terminal's size", errno));
    }
    match process::pidfd_send_signal(child, number) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(system("pass a signal on", errno)),
    }
}
