//! `events`: what a container uses (`stats`), and when it lacks memory, as lines of JSON.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use berth_runtime::record::{Failure, Status};
use lexopt::Arg::{Long, Value};
use lexopt::ValueExt;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value as Json, json};

use crate::commands::create::absolute;
use crate::commands::lifecycle::expect;
use crate::commands::stats::stats;
use crate::commands::{Global, bad_usage, missing_id, print, usage};
use crate::failure::system;
use crate::state::Place;

/// Seconds between two looks, unless `--interval` says otherwise; runc's own.
const INTERVAL_SECS: u64 = 5;

/// `events`: with `--stats` once, else until the container ends.
pub fn events(mut parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let (mut id, mut once, mut interval) = (None, false, Duration::from_secs(INTERVAL_SECS));
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("stats") => once = true,
            Long("interval") => {
                let text = parser.value().and_then(|value| value.string()).map_err(usage)?;
                let seconds = text.strip_suffix('s').unwrap_or(&text).parse().unwrap_or(0);
                if seconds == 0 {
                    return Err(bad_usage(format!(
                        "--interval: {text:?} is no whole seconds above 0"
                    )));
                }
                interval = Duration::from_secs(seconds);
            }
            Value(value) if id.is_none() => id = Some(value.string().map_err(usage)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    let place = Place::new(&absolute(&global.root)?, &id.ok_or_else(missing_id)?)?;
    let record = place.read()?;
    expect(&record, &place, &[Status::Running, Status::Created, Status::Paused])?;
    let cgroup = record.cgroup()?;
    if once {
        line(&record.id, "stats", Some(stats(&cgroup)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let init = record.open()?;
    let oom = cgroup.oom_notifier()?;
    let mut kills = cgroup.oom_kills()?;
    let mut next = Instant::now();
    loop {
        if next <= Instant::now() {
            line(&record.id, "stats", Some(stats(&cgroup)))?;
            next += interval;
        }
        let left = next.saturating_duration_since(Instant::now()).as_millis();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut ready = vec![PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        ready.extend(oom.as_ref().map(|oom| PollFd::new(oom.as_fd(), PollFlags::POLLIN)));
        match poll(&mut ready, timeout) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(|errno| system("wait for the container", errno))?,
        };
        let ended = ready[0].any() == Some(true);
        if let Some(oom) = oom.as_ref().filter(|_| ready.get(1).and_then(PollFd::any) == Some(true))
        {
            let mut buffer = [0; 4096];
            // Only that it is empty afterwards matters; what it says is looked up.
            while nix::unistd::read(oom, &mut buffer).is_ok_and(|length| length > 0) {}
        }
        let now = cgroup.oom_kills().unwrap_or(kills);
        if now > kills {
            kills = now;
            line(&record.id, "oom", None)?;
        }
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn line(id: &str, kind: &str, data: Option<Json>) -> Result<(), Failure> {
    let event = match data {
        Some(data) => json!({ "type": kind, "id": id, "data": data }),
        None => json!({ "type": kind, "id": id }),
    };
    print(&format!("{event}\n"))
}
