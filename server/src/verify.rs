//! `berth audit verify`: whether the audit is what was written, read from the inventory's file itself, while
//! the server runs or not; or from a file that was exported.
//!
//! Nothing is asked of the server, so that whoever does not believe it can look.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::config;
use crate::inventory::audit::chain::{Fault, FaultKind, Found, Link};
use crate::inventory::audit::verify::{AuditCheck, CheckState, check_file};

/// A line of an exported file at most.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What to do with the audit.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Say whether the audit is what was written: none of its rows changed, removed, put in or moved.
    /// Ends with 0 when it is, 1 when it is not, 2 when it could not be looked at.
    Verify(VerifyArgs),
}

/// The arguments of `berth audit verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Also look for a head that was kept: a row's number, a colon and its hash. Without it nothing shows
    /// that the end was cut off, or that all of the chain was made anew.
    #[arg(long, value_name = "ID:HASH")]
    head: Option<Link>,
    /// Look at this inventory, such as one of a backup, instead of the configuration's.
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    /// Look at a file that was exported as JSON instead. What it leaves out is only counted.
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    file: Option<PathBuf>,
}

/// What was found.
struct Verdict {
    words: String,
    good: bool,
}

/// Runs the command.
pub(crate) fn run(command: &AuditCommand, config: Option<&Path>) -> ExitCode {
    let AuditCommand::Verify(args) = command;
    match verify(args, config) {
        Ok(verdict) => {
            println!("{}", verdict.words);
            if verdict.good { ExitCode::SUCCESS } else { ExitCode::from(1) }
        }
        Err(error) => {
            eprintln!("berth audit verify: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn verify(args: &VerifyArgs, config: Option<&Path>) -> Result<Verdict> {
    if let Some(file) = &args.file {
        return exported(file, args.head);
    }
    let database = match &args.database {
        Some(database) => database.clone(),
        None => config::load(config, std::iter::empty())?.config.db_dir().join("berth.db"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let check = runtime.context("start a thread")?.block_on(check_file(&database, args.head))?;
    Ok(Verdict { words: in_words(&check, args.head), good: check.state == CheckState::Whole })
}

fn in_words(check: &AuditCheck, wanted: Option<Link>) -> String {
    let mut lines = Vec::new();
    if let Some(fault) = &check.fault {
        lines.push(told(fault));
        lines.push(format!("the {} rows before it hold", check.rows));
        return lines.join("\n");
    }
    lines.push(format!("whole: {} rows hold what was written, in their places", check.rows));
    if check.dropped > 0 {
        lines.push(format!("{} rows were dropped by the pruning, as it has sealed", check.dropped));
    }
    if let Some(to) = check.chained_later_to {
        lines.push(format!(
            "rows up to {to} are older than the chain: what was done to them before it is not shown"
        ));
    }
    if let Some(wanted) = wanted {
        lines.push(format!("the head of row {} that was kept is in the chain", wanted.id));
    }
    if let Some(head) = &check.head {
        lines.push(format!("head {head}"));
        lines.push("keep the head elsewhere: only it shows an end that was cut off".to_owned());
    }
    lines.join("\n")
}

fn told(fault: &Fault) -> String {
    let kind = match fault.kind {
        FaultKind::Changed => "changed",
        FaultKind::Removed => "removed",
        FaultKind::Inserted => "inserted",
        FaultKind::Moved => "moved",
        FaultKind::Head => "not the head",
    };
    let when = fault.at.map_or_else(|| "an unknown time".to_owned(), |at| at.to_string());
    let near = if fault.kind == FaultKind::Removed { "after" } else { "of" };
    format!("broken: row {} ({near} {when}) {kind}: {}", fault.id, fault.text)
}

/// Looks at the rows of an exported file: each by itself, and each beside its neighbour where both are in it.
fn exported(file: &Path, head: Option<Link>) -> Result<Verdict> {
    let shown = file.display();
    let open = File::open(file).with_context(|| format!("open {shown}"))?;
    let mut lines = BufReader::new(open);
    let (mut rows, mut left_out, mut seen) = (0_u64, 0_u64, head.is_none());
    let mut newer: Option<Found> = None;
    loop {
        let mut line = Vec::new();
        let count = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if count.with_context(|| format!("read {shown}"))? == 0 {
            break;
        }
        rows += 1;
        let row: Found = serde_json::from_slice(&line).with_context(|| {
            format!("line {rows} of {shown} is no row of the audit (export it as JSON)")
        })?;
        let found = match beside(&row, newer.as_ref()) {
            Ok(found) => found,
            Err(fault) => {
                let words = format!("{}\nline {rows} of {shown}", told(&fault));
                return Ok(Verdict { words, good: false });
            }
        };
        left_out += u64::from(found == Beside::Apart);
        if let Some(head) = head.filter(|head| head.id == row.id) {
            if row.hash != Some(head.hash) {
                let fault = row.fault(FaultKind::Head, "its hash is another than the one kept");
                return Ok(Verdict { words: told(&fault), good: false });
            }
            seen = true;
        }
        newer = Some(row);
    }
    if rows == 0 {
        bail!("{shown} has no rows");
    }
    let mut words = format!("whole: each of {rows} rows holds what was written");
    if left_out > 0 {
        words.push_str(&format!("\nin {left_out} places rows are left out, as by a filter"));
    }
    if !seen {
        words.push_str("\nthe row of the head that was kept is not in the file");
    }
    Ok(Verdict { words, good: seen })
}

/// How a row stands to the one before it in the file, which is newer.
#[derive(PartialEq, Eq)]
enum Beside {
    /// It is the next older one, or the first of the file.
    Next,
    /// Others are between.
    Apart,
}

fn beside(row: &Found, newer: Option<&Found>) -> Result<Beside, Fault> {
    let (_, hash) = row.intact()?;
    match newer {
        Some(newer) if row.id >= newer.id => {
            Err(row.fault(FaultKind::Moved, format!("it stands after row {}", newer.id)))
        }
        Some(newer) if newer.id == row.id + 1 && newer.prev != Some(hash) => {
            let text = format!("row {} was written after another", newer.id);
            Err(row.fault(FaultKind::Changed, text))
        }
        Some(newer) if newer.id > row.id + 1 => Ok(Beside::Apart),
        _ => Ok(Beside::Next),
    }
}
