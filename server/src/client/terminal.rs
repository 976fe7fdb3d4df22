//! The person's terminal (termios(3)): raw while a program in a container has it, and back to what it
//! was at every end; questions that are answered without an echo; what signals say meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::Failure;

/// A password or token at most.
const SECRET_BYTES_MAX: usize = 4096;
/// Columns or rows of a terminal in a container at most.
const SIZE_MAX: u16 = 1000;

/// A terminal in another mode; dropped, it is in the old one again.
pub struct Changed {
    terminal: OwnedFd,
    before: Termios,
}

impl Changed {
    /// Every byte goes to whoever reads, at once: no line editing, no echo, no signals.
    ///
    /// # Errors
    /// When it is no terminal.
    pub fn raw(terminal: impl AsFd) -> std::io::Result<Self> {
        Self::by(terminal, cfmakeraw)
    }

    fn by(terminal: impl AsFd, change: impl FnOnce(&mut Termios)) -> std::io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&terminal)?;
        let mut modes = before.clone();
        change(&mut modes);
        tcsetattr(&terminal, SetArg::TCSADRAIN, &modes)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        // A terminal that is gone has no modes.
        tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before).ok();
    }
}

/// Columns and rows of the terminal on the standard input or output, as a program in a container can
/// have them; 80 and 24 where they are not known.
pub fn size() -> (u16, u16) {
    let found = berth_runtime::terminal_size(stdin())
        .or_else(|_| berth_runtime::terminal_size(std::io::stdout()));
    let (columns, rows) = found.unwrap_or_default();
    let known = |count: u16, otherwise: u16| match count {
        0 => otherwise,
        count => count.min(SIZE_MAX),
    };
    (known(columns, 80), known(rows, 24))
}

/// What ends a command from outside.
pub struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    quit: Signal,
}

impl Ends {
    /// From here on these signals are heard, and end nothing by themselves.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen() -> Result<Self, Failure> {
        let hear = |kind| {
            signal(kind).map_err(|error| Failure::Here(format!("listen for signals: {error}")))
        };
        Ok(Self {
            interrupt: hear(SignalKind::interrupt())?,
            terminate: hear(SignalKind::terminate())?,
            hang_up: hear(SignalKind::hangup())?,
            quit: hear(SignalKind::quit())?,
        })
    }

    /// The next one's number.
    pub async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hang_up.recv() => SignalKind::hangup(),
            _ = self.quit.recv() => SignalKind::quit(),
        };
        kind.as_raw_value()
    }
}

/// Asks at the controlling terminal, and reads a line without showing it. Dropped, it leaves the
/// terminal as it was.
///
/// # Errors
/// When there is no terminal, or nothing is entered.
pub async fn ask_secret(question: &str) -> Result<String, Failure> {
    let terminal = controlling()?;
    let hidden = Changed::by(&terminal, |modes| {
        modes.local_flags.remove(LocalFlags::ECHO);
        modes.local_flags.insert(LocalFlags::ICANON | LocalFlags::ISIG);
    });
    let hidden = hidden.map_err(unasked)?;
    let answer = ask_at(&terminal, question).await;
    drop(hidden);
    (&terminal).write_all(b"\n").map_err(unasked)?;
    answer
}

/// Asks at the controlling terminal, and reads a line.
///
/// # Errors
/// When there is no terminal, or nothing is entered.
pub async fn ask(question: &str) -> Result<String, Failure> {
    let answer = ask_at(&controlling()?, question).await?;
    Ok(answer.trim().to_owned())
}

async fn ask_at(mut terminal: &File, question: &str) -> Result<String, Failure> {
    terminal.write_all(format!("{question}: ").as_bytes()).map_err(unasked)?;
    let mut reader = terminal.try_clone().map_err(unasked)?;
    let line = tokio::task::spawn_blocking(move || read_line(&mut reader)).await;
    let line = line.map_err(|error| unasked(error.into()))?;
    secret(&line.map_err(unasked)?)
}

fn unasked(error: std::io::Error) -> Failure {
    Failure::Here(format!("ask at the terminal: {error}"))
}

/// Reads a secret from the standard input: its first line.
///
/// # Errors
/// When there is none.
pub fn read_secret() -> Result<String, Failure> {
    let line = read_line(&mut stdin().lock());
    secret(&line.map_err(|error| Failure::Here(format!("read the standard input: {error}")))?)
}

fn controlling() -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits());
    options.open("/dev/tty").map_err(|error| {
        Failure::Usage(format!(
            "there is no terminal to ask at ({error}); say --user, and give the password by \
             --password-stdin"
        ))
    })
}

/// One line without its end, byte by byte: what follows is not ours to read.
fn read_line(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < SECRET_BYTES_MAX {
        match from.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(line)
}

fn secret(line: &[u8]) -> Result<String, Failure> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok("") => Err(Failure::Usage("nothing was entered".into())),
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Failure::Usage("what was entered is no UTF-8".into())),
    }
}
