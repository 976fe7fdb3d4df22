//! `berth doctor`: what this host has and lacks for Berth, one line for each thing.
//!
//! Only root can try most of it, so the report comes from the supervisor where this caller may ask it
//! (root and the server's user), else from `berth-runtime doctor`, the program beside this one. This
//! file only shows it.

mod report;

use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::risks;
use berth_runtime::config::RuntimeConfig;
use berth_runtime::wire::{
    Answer, DoctorCheck, DoctorReport, DoctorStatus, Envelope, PROTOCOL_VERSION, Request,
};
use berth_runtime::{receive_message, send_message};
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};

/// How long the supervisor may take: every probe has ten seconds.
const ANSWER_SECS_MAX: i64 = 60;

/// The arguments of `berth doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Print one JSON document for a report of a defect (as root, for all of it): versions, this report,
    /// settings, counts, sizes and codes of failures; no name, address or secret.
    #[arg(long, conflicts_with = "json")]
    report: bool,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum DoctorError {
    #[error("{0}")]
    Config(#[from] berth_runtime::config::ConfigError),
    #[error("run {program}")]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{program} ended without a report: {words}")]
    NoReport { program: PathBuf, words: String },
    #[error("understand the report")]
    Report(#[from] serde_json::Error),
}

/// Shows the report; 0 when Berth can run, 1 when something keeps it from running, 2 when there is no
/// report.
pub(crate) fn run(args: &DoctorArgs, config: Option<&Path>) -> ExitCode {
    if args.report {
        return tell(config);
    }
    let report = match report(config) {
        Ok(mut report) => {
            // Only warnings that the settings alone give; a wrong file was said by what read it.
            if let Ok(loaded) = crate::config::load(config, std::iter::empty()) {
                report.checks.extend(risks::as_checks(&risks::list(&loaded.config, None)));
            }
            report
        }
        Err(error) => {
            let cause = std::error::Error::source(&error);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            eprintln!("berth doctor: {error}{cause}");
            return ExitCode::from(2);
        }
    };
    if args.json {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("berth doctor: write the report as JSON: {error}");
                return ExitCode::from(2);
            }
        }
    } else {
        print!("{}", render(&report));
    }
    let blocked = count(&report, DoctorStatus::Blocker) > 0;
    if blocked { ExitCode::from(1) } else { ExitCode::SUCCESS }
}

/// The document for strangers. What cannot be found out is null in it: then it is needed most.
fn tell(path: Option<&Path>) -> ExitCode {
    let loaded = crate::config::load(path, std::iter::empty()).ok();
    let document =
        report::document(loaded.as_ref().map(|loaded| &loaded.config), report(path).ok().as_ref());
    match writeln!(io::stdout().lock(), "{document:#}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berth doctor: write the report: {error}");
            ExitCode::from(2)
        }
    }
}

fn report(path: Option<&Path>) -> Result<DoctorReport, DoctorError> {
    let config = RuntimeConfig::load(path)?;
    match ask_supervisor(&config) {
        Some(report) => Ok(report),
        None => run_beside(path),
    }
}

/// The supervisor's report; `None` when it is not there or does not listen to this caller.
fn ask_supervisor(config: &RuntimeConfig) -> Option<DoctorReport> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let connection: OwnedFd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).ok()?;
    let limit = TimeVal::seconds(ANSWER_SECS_MAX);
    setsockopt(&connection, ReceiveTimeout, &limit).ok()?;
    setsockopt(&connection, SendTimeout, &limit).ok()?;
    let address = UnixAddr::new(&config.run_dir.join("supervisor.sock")).ok()?;
    connect(connection.as_raw_fd(), &address).ok()?;
    let envelope = Envelope { version: PROTOCOL_VERSION, request: Request::Doctor {} };
    let message = serde_json::to_vec(&envelope).ok()?;
    send_message(&connection, &message, &[]).ok()?;
    let (answer, _) = receive_message(&connection).ok()?;
    match serde_json::from_slice(&answer).ok()? {
        Answer::Doctor(report) => Some(report),
        _ => None,
    }
}

/// The report of the runtime's program in this program's directory.
fn run_beside(config: Option<&Path>) -> Result<DoctorReport, DoctorError> {
    let program = std::env::current_exe()
        .map(|path| path.with_file_name("berth-runtime"))
        .unwrap_or_else(|_| PathBuf::from("berth-runtime"));
    let mut command = Command::new(&program);
    command.args(["doctor", "--json"]);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    let output =
        command.output().map_err(|source| DoctorError::Run { program: program.clone(), source })?;
    if output.stdout.is_empty() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DoctorError::NoReport { program, words });
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// One line for each check, and below it what a lack costs and how to mend it.
fn render(report: &DoctorReport) -> String {
    let width = report.checks.iter().map(|check| check.id.len()).max().unwrap_or_default();
    let mut text = String::new();
    for DoctorCheck { id, status, found, costs, mend } in &report.checks {
        let (icon, word) = match status {
            DoctorStatus::Ok => ('✓', "ok"),
            DoctorStatus::Lack => ('!', "lack"),
            DoctorStatus::Blocker => ('✗', "blocker"),
        };
        text.push_str(&format!("{icon} {word:<8} {id:<width$}  {found}\n"));
        for (name, words) in [("costs", costs), ("mend", mend)] {
            if !words.is_empty() {
                text.push_str(&format!("             {name}: {words}\n"));
            }
        }
    }
    let (blockers, lacks) =
        (count(report, DoctorStatus::Blocker), count(report, DoctorStatus::Lack));
    let verdict = if blockers > 0 { "Berth cannot run here" } else { "Berth can run here" };
    text.push_str(&format!("\n{verdict}: {blockers} blocking, {lacks} lacking.\n"));
    text
}

fn count(report: &DoctorReport, status: DoctorStatus) -> usize {
    report.checks.iter().filter(|check| check.status == status).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_line_and_a_lack_says_what_to_do() {
        let check = |id: &str, status, costs: &str| DoctorCheck {
            id: id.to_owned(),
            status,
            found: format!("found of {id}"),
            costs: costs.to_owned(),
            mend: if costs.is_empty() { String::new() } else { "do this".to_owned() },
        };
        let report = DoctorReport {
            checks: vec![
                check("kernel", DoctorStatus::Ok, ""),
                check("cgroup.memory", DoctorStatus::Blocker, "no limits"),
            ],
        };
        let text = render(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "✓ ok       kernel         found of kernel");
        assert_eq!(lines[1], "✗ blocker  cgroup.memory  found of cgroup.memory");
        assert_eq!(lines[2..4], ["             costs: no limits", "             mend: do this"]);
        assert_eq!(lines[5], "Berth cannot run here: 1 blocking, 0 lacking.");
    }
}
