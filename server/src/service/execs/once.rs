//! A program that is run, waited for, and answered with all that it has written.

use std::os::fd::OwnedFd;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_runtime::wire::ExecEvent;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::request::ProgramRequest;
use super::streams::{Inlet, Outlet, PIECE_BYTES, REST_BYTES_MAX, Read};
use super::{begin, to_run_in};
use crate::app::App;
use crate::auth::{Caller, Right};
use crate::error::{Error, Result};
use crate::runtime_client::ExecEnds;
use crate::service::containers::spec::signal_name;
use crate::service::sessions;
use crate::service::sharing::At;

/// Bytes of each output that an answer holds.
const OUTPUT_BYTES_MAX: usize = 512 << 10;
/// Seconds that a program may take.
const TIMEOUT_SECS_MAX: u64 = 50;
const TIMEOUT_SECS: u64 = 30;

/// A program to be run to its end.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ExecOnce, example = json!({"program": {"command": ["uname", "-a"]}}))]
pub struct OnceRequest {
    /// What is run.
    pub program: ProgramRequest,
    /// Its standard input; none when left out.
    #[serde(default)]
    pub stdin: String,
    /// How `stdin` is written here and the outputs in the answer.
    #[serde(default)]
    pub encoding: Encoding,
    /// Seconds until it is ended, 1 to 50; 30 when left out.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 50)]
    pub timeout_secs: Option<u64>,
}

/// How bytes are written in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// As text; what is no UTF-8 is replaced.
    #[default]
    Text,
    /// As base64 (RFC 4648, with padding).
    Base64,
}

/// What has come of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ExecOnceResult)]
pub struct OnceView {
    /// Its exit code, if it has ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that has ended it, such as `KILL`.
    pub exit_signal: Option<String>,
    /// It was ended because its time was over.
    pub timed_out: bool,
    /// What it has written to its standard output, up to 512 KiB.
    pub stdout: String,
    /// The same of its standard error.
    pub stderr: String,
    /// Whether it has written more.
    pub truncated: bool,
}

/// One output as far as it was read.
#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    truncated: bool,
}

/// Runs a program to its end. Hanging up ends it.
pub async fn run(app: &App, caller: &Caller, key: &str, request: OnceRequest) -> Result<OnceView> {
    let OnceRequest { program, stdin, encoding, timeout_secs } = request;
    let limit = timeout_secs.unwrap_or(TIMEOUT_SECS);
    let row = to_run_in(app, caller, key, &program, None).await?;
    if !(1..=TIMEOUT_SECS_MAX).contains(&limit) {
        return Err(Error::field("/timeout_secs", format!("is not 1 to {TIMEOUT_SECS_MAX}")));
    }
    let stdin = encoding.decode(stdin)?;
    let _place = app.execs.at_once.try_acquire().map_err(|_| {
        Error::unavailable("server.busy", "too many programs at once; try again in a moment")
    })?;
    let at = At::new(&row, Right::Terminal);
    let (_, _, ends) = begin(app, caller, &row, program, None).await?;
    let ExecEnds { line, streams } = ends;
    let broken = |error| Error::broken("wait for a program's streams", error);
    let [input, stdout, stderr]: [OwnedFd; 3] =
        streams.try_into().map_err(|_| Error::defect("count a program's streams"))?;
    let input = Inlet::new(input).map_err(broken)?;
    let (stdout, stderr) = (Outlet::new(stdout), Outlet::new(stderr));
    let (stdout, stderr) = (stdout.map_err(broken)?, stderr.map_err(broken)?);
    let (mut out, mut err) = (Collected::default(), Collected::default());
    let (ended, timed_out) = {
        let talk = async {
            let feed = async move {
                // A program need not read what it is given.
                if let Err(error) = input.write(&stdin).await {
                    tracing::debug!(error = %error, "a program has left input unread");
                }
            };
            tokio::join!(feed, out.fill(&stdout), err.fill(&stderr));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            // None when the program's monitor is gone, and how the program has ended is not known.
            event = line.event() => (event, false),
            () = talk => (None, false),
            // The program ends as its line is dropped.
            () = sessions::right_ends(app, caller, Some(&at)) => return Err(ended(app)),
            () = tokio::time::sleep(Duration::from_secs(limit)) => (None, true),
        }
    };
    out.rest(&stdout);
    err.rest(&stderr);
    let (exit_code, signal) = match ended {
        Some(ExecEvent::Exited { code, signal }) => (code, signal),
        None => (None, None),
    };
    Ok(OnceView {
        exit_code,
        exit_signal: signal.map(signal_name),
        timed_out,
        truncated: out.truncated || err.truncated,
        stdout: encoding.encode(out.bytes),
        stderr: encoding.encode(err.bytes),
    })
}

/// Why there is no answer.
fn ended(app: &App) -> Error {
    match app.stopping.is_cancelled() {
        true => Error::unavailable("server.busy", "the server stops; the program was ended"),
        false => {
            Error::denied("sharing.ended", "the right to run it has ended, and the program with it")
        }
    }
}

impl Collected {
    /// Reads to the end.
    async fn fill(&mut self, outlet: &Outlet) {
        while let Ok(Read::Bytes(bytes)) = outlet.read(PIECE_BYTES).await {
            self.keep(&bytes);
        }
    }

    /// Reads what there still is.
    fn rest(&mut self, outlet: &Outlet) {
        let mut left = REST_BYTES_MAX;
        while let Ok(Read::Bytes(bytes)) = outlet.read_now(PIECE_BYTES) {
            self.keep(&bytes);
            left = left.saturating_sub(bytes.len());
            if left == 0 {
                return;
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = OUTPUT_BYTES_MAX - self.bytes.len();
        self.truncated |= bytes.len() > room;
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl Encoding {
    fn decode(self, text: String) -> Result<Vec<u8>> {
        match self {
            Self::Text => Ok(text.into_bytes()),
            Self::Base64 => STANDARD
                .decode(text)
                .map_err(|error| Error::field("/stdin", format!("is no base64: {error}"))),
        }
    }

    fn encode(self, bytes: Vec<u8>) -> String {
        match self {
            Self::Text => match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            },
            Self::Base64 => STANDARD.encode(bytes),
        }
    }
}
