//! Where the master of a program's terminal goes, and which descriptors of the caller's it keeps:
//! `--console-socket`, `--detach`, `--preserve-fds` and `LISTEN_FDS`, the same for `create`, `run` and
//! `exec`.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use berth_runtime::record::Failure;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use oci_spec::runtime::Process;

use crate::commands::bad_usage;
use crate::commands::foreground::{Session, own_terminal};
use crate::failure::{broken, from_spec, system};
use crate::launch::errno_of;
use crate::spec::invalid;
use crate::sys::terminal;

/// What receivers of a terminal are told that it is called; they need a name, and look only at the
/// descriptor.
const MASTER_NAME: &[u8] = b"/dev/ptmx";

/// Where the master of a terminal goes.
#[derive(Debug)]
pub enum Console {
    /// There is no terminal.
    None,
    /// To whoever listens at the console socket.
    Socket { peer: OwnedFd, size: Option<(u16, u16)> },
    /// It is connected with the person's own.
    Foreground { person: OwnedFd, size: Option<(u16, u16)> },
}

impl Console {
    /// By what the process asks for and the options say; before anything is built.
    pub fn choose(
        process: &Process,
        socket: Option<&Path>,
        detached: bool,
    ) -> Result<Self, Failure> {
        if process.terminal() != Some(true) {
            // consoleSize "MUST be ignored" then (config.md).
            return match socket {
                None => Ok(Self::None),
                Some(_) => Err(bad_usage(
                    "--console-socket: the process has no terminal (process.terminal is not true)"
                        .to_owned(),
                )),
            };
        }
        let size = size_of(process)?;
        match (socket, detached) {
            (Some(path), true) => Ok(Self::Socket { peer: connect_to(path)?, size }),
            (None, false) => Ok(Self::Foreground { person: own_terminal()?, size }),
            (Some(_), false) => Err(bad_usage(
                "--console-socket: a command in the foreground connects the terminal itself; give \
                 --detach as well"
                    .to_owned(),
            )),
            (None, true) => Err(bad_usage(
                "process.terminal: a detached process that wants one needs --console-socket, for its \
                 other end"
                    .to_owned(),
            )),
        }
    }

    /// Gives the master of the terminal that was made to where it goes.
    pub fn take(self, master: Option<OwnedFd>) -> Result<Option<Session>, Failure> {
        let made = || master.ok_or_else(|| broken("the terminal was not made"));
        match self {
            Self::None => Ok(None),
            Self::Socket { peer, size } => {
                let master = made()?;
                resize(&master, size)?;
                terminal::send_descriptor(peer.as_fd(), MASTER_NAME, master.as_fd())
                    .map_err(|errno| system("send the terminal to --console-socket", errno))?;
                Ok(None)
            }
            Self::Foreground { person, size } => {
                let master = made()?;
                resize(&master, size)?;
                Session::begin(master, person, size.is_some()).map(Some)
            }
        }
    }
}

fn resize(master: &OwnedFd, size: Option<(u16, u16)>) -> Result<(), Failure> {
    let Some((columns, rows)) = size else { return Ok(()) };
    terminal::set_size(master, columns, rows)
        .map_err(|errno| system("set the terminal's size", errno))
}

/// `process.consoleSize`: columns and rows.
fn size_of(process: &Process) -> Result<Option<(u16, u16)>, Failure> {
    let Some(size) = process.console_size() else { return Ok(None) };
    match (u16::try_from(size.width()), u16::try_from(size.height())) {
        (Ok(columns), Ok(rows)) => Ok(Some((columns, rows))),
        _ => {
            let (width, height) = (size.width(), size.height());
            let text = format!("{width}x{height} is more than 65535 columns or rows");
            Err(from_spec(invalid("process.consoleSize", text)))
        }
    }
}

/// By descriptor of its directory: an address holds 107 bytes, and the path may be longer.
fn connect_to(path: &Path) -> Result<OwnedFd, Failure> {
    let failed = |errno| system(&format!("connect to --console-socket {}", path.display()), errno);
    let name = path.file_name().ok_or_else(|| failed(nix::errno::Errno::EISDIR))?;
    let directory = File::open(path.parent().unwrap_or(Path::new("/")))
        .map_err(|error| failed(errno_of(&error)))?;
    let address = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    let flags = SockFlag::SOCK_CLOEXEC;
    let peer = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(failed)?;
    connect(peer.as_raw_fd(), &UnixAddr::new(&address).map_err(failed)?).map_err(failed)?;
    Ok(peer)
}

/// The caller's descriptors from 3 on that the program keeps: first the sockets of socket activation
/// (sd_listen_fds(3)), then those of `--preserve-fds`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kept {
    /// Of socket activation.
    pub listeners: u32,
    /// All together.
    pub count: u32,
}

impl Kept {
    /// Checks that each is open; before this process opens any of its own.
    pub fn check(listeners: u32, preserved: u32) -> Result<Self, Failure> {
        let kept = Self { listeners, count: listeners.saturating_add(preserved) };
        for number in (3..).take(kept.count as usize) {
            if fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
                return Err(bad_usage(format!(
                    "--preserve-fds {preserved}, LISTEN_FDS {listeners}: descriptor {number} is not \
                     open"
                )));
            }
        }
        Ok(kept)
    }

    /// What the program is told of its listeners: it is process 1 of its namespace.
    pub fn add_to(self, process: &mut Process) {
        if self.listeners > 0 {
            let mut variables = process.env().clone().unwrap_or_default();
            variables.push(format!("LISTEN_FDS={}", self.listeners));
            variables.push("LISTEN_PID=1".to_owned());
            process.set_env(Some(variables));
        }
    }
}

/// How many sockets the service manager has opened for this very process.
pub fn activation_sockets() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match number("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => number("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}
