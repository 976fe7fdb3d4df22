//! Why a command of the client failed, and the exit code that says so.

use super::harmless;

/// The server, or something on this machine, refused.
pub const REFUSED: u8 = 1;
/// The command line asks for what cannot be.
pub const USAGE: u8 = 2;
/// As of a program that SIGPIPE has ended (signal(7)): nobody reads any more.
const NOBODY_READS: u8 = 128 + 13;

/// What a command comes to: its exit code.
pub type Outcome = Result<u8, Failure>;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The server said no (RFC 9457).
    Refused(Problem),
    /// The server cannot be reached, or what it says cannot be understood.
    Unreachable(String),
    /// The command line asks for what cannot be.
    Usage(String),
    /// Something on this machine.
    Here(String),
    /// Nobody reads what is written.
    Unread,
    /// A signal has ended it (its number).
    Signal(i32),
}

/// A refusal.
#[derive(Debug, Default)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The end of its `type`, such as `container.name-taken`; empty when it is no problem document.
    pub code: String,
    /// In a sentence, wrong fields included.
    pub detail: String,
}

/// The exit code that says which signal has ended a program, as a shell has it.
pub fn by_signal(number: i32) -> u8 {
    u8::try_from(number.saturating_add(128)).unwrap_or(u8::MAX)
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Unreachable(_) | Self::Here(_) => REFUSED,
            Self::Usage(_) => USAGE,
            Self::Unread => NOBODY_READS,
            Self::Signal(number) => by_signal(*number),
        }
    }

    /// Whether the same may be tried again: the connection is to blame, not what was asked.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused(problem) => matches!(problem.status, 429 | 502..=504),
            _ => false,
        }
    }

    /// The exit code that says why a program was not run, as shells and docker-run(1), "Exit Status", have
    /// it; `None` when the program is not to blame.
    pub fn program_code(&self) -> Option<u8> {
        let Self::Refused(problem) = self else { return None };
        match problem.code.as_str() {
            "container.program-not-found" => Some(127),
            "container.program-not-executable" => Some(126),
            _ => None,
        }
    }

    /// The same with what was being done in front.
    #[must_use]
    pub fn while_doing(self, what: &str) -> Self {
        match self {
            Self::Refused(mut problem) => {
                problem.detail = format!("{what}: {}", problem.detail);
                Self::Refused(problem)
            }
            Self::Unreachable(text) => Self::Unreachable(format!("{what}: {text}")),
            Self::Usage(text) => Self::Usage(format!("{what}: {text}")),
            Self::Here(text) => Self::Here(format!("{what}: {text}")),
            Self::Unread | Self::Signal(_) => self,
        }
    }

    /// What a person is told: one line that no terminal obeys. `None` when there is nobody to tell.
    pub fn told(&self) -> Option<String> {
        let text = match self {
            Self::Refused(problem) => &problem.detail,
            Self::Unreachable(text) | Self::Usage(text) | Self::Here(text) => text,
            Self::Unread | Self::Signal(_) => return None,
        };
        Some(harmless::line(text).into_owned())
    }
}

impl From<std::io::Error> for Failure {
    /// For the standard streams; whatever has a name is told with it.
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Here(format!("write: {error}")),
        }
    }
}
