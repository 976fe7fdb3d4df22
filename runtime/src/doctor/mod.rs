//! What this host has and lacks for Berth: one check per thing, what a lack costs, how to mend it.
//!
//! What can be read is read; what must be tried is tried, in a child with a time limit (`probe`), so
//! that nothing hangs or changes this process, and everything made is removed again. A report takes
//! a second or so: the supervisor, which never blocks, makes it in a task.

mod cgroups;
mod firewall;
mod host;
mod ids;
mod probe;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use berth_runtime::config::RuntimeConfig;
use berth_runtime::wire::{DoctorCheck, DoctorReport, DoctorStatus};

/// One check that found nothing to complain of.
fn fine(id: &str, found: impl Into<String>) -> DoctorCheck {
    let none = String::new;
    let (id, found) = (id.to_owned(), found.into());
    DoctorCheck { id, status: DoctorStatus::Ok, found, costs: none(), mend: none() }
}

/// One check that found something missing, without which Berth runs.
fn lack(id: &str, found: impl Into<String>, costs: &str, mend: &str) -> DoctorCheck {
    let status = DoctorStatus::Lack;
    let (costs, mend) = (costs.to_owned(), mend.to_owned());
    DoctorCheck { id: id.to_owned(), status, found: found.into(), costs, mend }
}

/// One check that found something missing, without which Berth cannot run.
fn blocker(id: &str, found: impl Into<String>, costs: &str, mend: &str) -> DoctorCheck {
    DoctorCheck { status: DoctorStatus::Blocker, ..lack(id, found, costs, mend) }
}

/// `berth-runtime doctor [--config FILE] [--json]`: 0 when Berth can run, 1 when it cannot.
pub fn main(arguments: &[OsString]) -> ExitCode {
    match run(arguments) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("berth-runtime doctor: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[OsString]) -> Result<ExitCode, String> {
    use lexopt::prelude::{Long, ValueExt as _};
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut path, mut place): (Option<PathBuf>, Option<PathBuf>) = (None, None);
    let (mut json, mut probe): (bool, Option<String>) = (false, None);
    let mut settings: Option<RuntimeConfig> = None;
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let value = |parser: &mut lexopt::Parser| parser.value().map_err(|error| error.to_string());
        match argument {
            Long("json") => json = true,
            Long("config") => path = Some(value(&mut parser)?.into()),
            Long("settings") => {
                let text = value(&mut parser)?.string().map_err(|error| error.to_string())?;
                settings = Some(serde_json::from_str(&text).map_err(|error| error.to_string())?);
            }
            Long("place") => place = Some(value(&mut parser)?.into()),
            Long("probe") => {
                let name = value(&mut parser)?.string().map_err(|error| error.to_string())?;
                probe = Some(name);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    if let (Some(name), Some(place), Some(settings)) = (probe, place, settings) {
        return probe::main(&name, &place, &settings);
    }
    let config = RuntimeConfig::load(path.as_deref()).map_err(|error| error.to_string())?;
    let report = report(&config);
    if json {
        let text = serde_json::to_string(&report).map_err(|error| error.to_string())?;
        println!("{text}");
    } else {
        for check in &report.checks {
            println!("{}", line(check));
        }
    }
    let blocked = report.checks.iter().any(|check| check.status == DoctorStatus::Blocker);
    Ok(if blocked { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// Everything that is looked at, most basic first.
pub fn report(config: &RuntimeConfig) -> DoctorReport {
    let mut checks = vec![host::kernel(), host::privilege()];
    // Without root nothing can be tried, which the second row says once for all.
    let root = nix::unistd::geteuid().is_root();
    if root {
        checks.push(host::calls());
    }
    checks.push(cgroups::layout());
    if root {
        checks.extend(cgroups::checks(config));
    }
    checks.extend(host::namespaces());
    if root {
        checks.extend(probe::mounts(config));
    }
    checks.push(ids::block(config));
    checks.extend([host::seccomp(), host::landlock(), host::apparmor(config)]);
    checks.extend(host::rlimits());
    checks.push(host::reserve(config));
    checks.extend(host::disk(config));
    checks.push(host::data(config));
    if root {
        checks.extend(probe::data_sets(config));
        checks.push(probe::network(config));
        checks.push(firewall::others(config));
    }
    checks.extend([firewall::pool(config), firewall::forwarding(), firewall::resolver(config)]);
    DoctorReport { checks }
}

fn line(check: &DoctorCheck) -> String {
    let word = match check.status {
        DoctorStatus::Ok => "ok",
        DoctorStatus::Lack => "lack",
        DoctorStatus::Blocker => "BLOCKER",
    };
    let mut line = format!("{word:<8}{:<22}{}", check.id, check.found);
    for (name, text) in [("costs", &check.costs), ("mend", &check.mend)] {
        if !text.is_empty() {
            line.push_str(&format!("\n        {name}: {text}"));
        }
    }
    line
}
