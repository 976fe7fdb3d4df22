//! The OCI command line (runtime-spec, runtime.md; and what engines written for runc expect of it).
//!
//! Global options, then a command, then its own. A failure is one line on standard error, one in the
//! log file when `--log` names one, and exit status 1.

mod console;
mod create;
mod describe;
mod events;
mod exec;
mod foreground;
mod lifecycle;
mod privilege;
mod stats;
mod update;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use berth_runtime::record::{Failure, FailureClass};
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;

/// What precedes the command.
#[derive(Debug)]
pub struct Global {
    /// Where the records of containers are.
    pub root: PathBuf,
    /// Where failures are written as well.
    log: Option<PathBuf>,
    log_json: bool,
    /// Whether cgroups are scopes that systemd makes.
    systemd_cgroup: bool,
}

const USAGE: &str = "berth-runtime [--root DIR] [--log FILE] [--log-format text|json]
              [--systemd-cgroup] COMMAND

Options of a command may stand before or after the container's id. All but spec and features need root.

  create [-b BUNDLE] [--pid-file FILE] ID      build a container that waits
      --console-socket SOCKET  --preserve-fds N
  start ID                                     run its program
  run [-b BUNDLE] [--pid-file FILE] [-d] ID    create, start, wait, delete
      --console-socket SOCKET (with -d)  --preserve-fds N
  state ID                                     show it as JSON
  kill ID [SIGNAL] [--all]                     signal its first process, or all
  delete [--force] ID                          remove it
  exec [options] ID COMMAND [ARGS]             run another program in it
      --process FILE  --cwd DIR  -u USER[:GROUP]  -g GID  -e NAME=VALUE  -c CAPABILITY
      --no-new-privs  --apparmor PROFILE  --ignore-paused  --pid-file FILE  -d
      -t  --console-socket SOCKET (with -d)  --preserve-fds N
  pause ID, resume ID                          freeze and thaw it
  update [options] ID                          change its resources
      -r FILE|-  --memory BYTES  --memory-swap BYTES  --memory-reservation BYTES
      --cpu-quota US  --cpu-period US  --cpu-burst US  --cpu-share N  --cpu-idle 0|1
      --cpu-rt-runtime US  --cpu-rt-period US  --cpuset-cpus LIST  --cpuset-mems LIST
      --pids-limit N  --blkio-weight N
  events [--stats] [--interval SECS] ID        its use and lack of memory, as lines of JSON
  list [-q] [-f table|json]                    show all
  ps [-f table|json] ID                        show its processes
  spec [-b BUNDLE] [--first-id ID]             write a config.json of the default profile
  features                                     show what is supported, as JSON
";

/// Runs one OCI command.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let mut global = Global {
        root: PathBuf::from("/run/berth-oci"),
        log: None,
        log_json: false,
        systemd_cgroup: false,
    };
    match dispatch(arguments, &mut global) {
        Ok(code) => code,
        Err(failure) => {
            report(&global, &failure.message);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[OsString], global: &mut Global) -> Result<ExitCode, Failure> {
    let mut parser = lexopt::Parser::from_args(arguments);
    loop {
        match parser.next().map_err(usage)? {
            Some(Long("root")) => global.root = parser.value().map_err(usage)?.into(),
            Some(Long("log")) => global.log = Some(parser.value().map_err(usage)?.into()),
            Some(Long("log-format")) => {
                let format = parser.value().and_then(|value| value.string()).map_err(usage)?;
                global.log_json = match format.as_str() {
                    "json" => true,
                    "text" => false,
                    _ => return Err(bad_usage(format!("--log-format: {format:?} is not known"))),
                };
            }
            Some(Long("debug")) => {}
            Some(Long("systemd-cgroup")) => global.systemd_cgroup = true,
            Some(Long("rootless")) => {
                let value = parser.value().and_then(|value| value.string()).map_err(usage)?;
                if !matches!(value.as_str(), "false" | "auto") {
                    let text = format!("--rootless {value}: running without root is not here yet");
                    return Err(bad_usage(text));
                }
            }
            Some(Long("version") | Short('v')) => {
                let (own, spec) = (env!("CARGO_PKG_VERSION"), describe::OCI_VERSION);
                print(&format!("berth-runtime {own}\nspec: {spec}\n"))?;
                return Ok(ExitCode::SUCCESS);
            }
            Some(Long("help") | Short('h')) | None => {
                print(USAGE)?;
                return Ok(ExitCode::SUCCESS);
            }
            Some(Value(word)) => return command(&word.to_string_lossy(), parser, global),
            Some(other) => return Err(usage(other.unexpected())),
        }
    }
}

fn command(word: &str, parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    match word {
        // `exec` has an exit status of its own for what it refuses.
        "create" | "run" => privilege::need_power(word)?,
        "start" | "kill" | "delete" | "pause" | "resume" | "events" | "update" | "state"
        | "list" | "ps" => privilege::need_root(word)?,
        _ => {}
    }
    match word {
        "create" => create::create(parser, global),
        "run" => create::run(parser, global),
        "start" => lifecycle::start(parser, global),
        "kill" => lifecycle::kill(parser, global),
        "delete" => lifecycle::delete(parser, global),
        "pause" => lifecycle::pause(parser, global),
        "resume" => lifecycle::resume(parser, global),
        "exec" => exec::exec(parser, global),
        "events" => events::events(parser, global),
        "update" => update::update(parser, global),
        "checkpoint" | "restore" => {
            let text = format!("{word}: saving and restoring running containers is not here yet");
            Err(bad_usage(text))
        }
        "state" => describe::state(parser, global),
        "list" => describe::list(parser, global),
        "ps" => describe::ps(parser, global),
        "spec" => describe::spec(parser),
        "features" => describe::features(parser),
        _ => Err(bad_usage(format!("unknown command {word:?}; see --help"))),
    }
}

/// The one argument of commands that take a container and nothing else.
fn only_id(mut parser: lexopt::Parser) -> Result<String, Failure> {
    let mut id = None;
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Value(value) if id.is_none() => id = Some(value.string().map_err(usage)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    id.ok_or_else(missing_id)
}

fn missing_id() -> Failure {
    bad_usage("a container id is needed".to_owned())
}

fn usage(error: lexopt::Error) -> Failure {
    bad_usage(error.to_string())
}

fn bad_usage(text: String) -> Failure {
    Failure::new(FailureClass::Invalid, "usage", text)
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| {
        let text = format!("write to standard output: {error}");
        Failure::new(FailureClass::Broken, "output", text)
    })
}

/// Says a failure wherever it can be said; there is nobody to tell that it cannot. The log's lines are
/// what engines read of runc's: `time`, `level`, `msg`.
fn report(global: &Global, message: &str) {
    say(global, "error", message);
}

/// Says what has gone wrong and hinders nothing.
fn warn(global: &Global, failures: &[Failure]) {
    for failure in failures {
        say(global, "warning", &failure.message);
    }
}

/// To the log, if there is one, and on standard error: an error always, else only without a log, since
/// what engines give as that is what the container writes to.
fn say(global: &Global, level: &str, message: &str) {
    let tell = || {
        let line = format!("berth-runtime: {message}\n");
        std::io::stderr().write_all(line.as_bytes()).is_ok()
    };
    let told = (level == "error" || global.log.is_none()) && tell();
    let Some(path) = &global.log else { return };
    let time = crate::log::time_of(std::time::SystemTime::now());
    let line = if global.log_json {
        let fields = serde_json::json!({ "level": level, "msg": message, "time": time });
        format!("{fields}\n")
    } else {
        format!("time={time:?} level={level} msg={message:?}\n")
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    if written.is_err() && !told && !tell() {
        std::process::abort();
    }
}
