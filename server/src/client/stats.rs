//! `berth stats`: what running containers use beside what they may, again and again at a terminal, else
//! once.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::sleep;

use super::api::Api;
use super::error::{Failure, Outcome};
use super::output::{Output, Table, say};
use super::show::{number, text};
use super::units::{shown_bytes, shown_cpus};
use super::{Name, Server, harmless};
use crate::clock::Time;

/// Between two looks; a processor's rate is what lies between them.
const PAUSE: Duration = Duration::from_secs(2);
/// Before the second look when there are only two.
const PAUSE_ONCE: Duration = Duration::from_millis(500);
/// Containers that are looked at.
const SHOWN_MAX: usize = 200;

/// What `stats` takes.
#[derive(Args)]
pub struct StatsArgs {
    #[command(flatten)]
    server: Server,
    /// Look once, at a terminal too.
    #[arg(long)]
    no_stream: bool,
    /// As JSON: one look, with all that the server says.
    #[arg(long)]
    json: bool,
    /// Their names or ids; all that run if nothing is said.
    containers: Vec<Name>,
}

/// A container and the newest look at it.
struct Look {
    name: String,
    stats: Value,
}

/// `berth stats`.
///
/// # Errors
/// When the server refuses.
pub async fn stats(args: StatsArgs) -> Outcome {
    let api = args.server.api()?;
    let mut before = BTreeMap::new();
    if args.json {
        let found = look(&api, &args.containers).await?;
        say(&harmless::json(&found.into_iter().map(|look| look.stats).collect()))?;
        return Ok(0);
    }
    remember(&mut before, &look(&api, &args.containers).await?);
    let again = Output::Stdout.is_terminal() && !args.no_stream;
    loop {
        sleep(if again { PAUSE } else { PAUSE_ONCE }).await;
        let found = look(&api, &args.containers).await?;
        let table = table(&found, &before);
        if !again {
            say(&table)?;
            return Ok(0);
        }
        // Home, then each line with what was behind it, then what was below.
        let lines: String = table.lines().map(|line| format!("{line}\u{1b}[K\n")).collect();
        Output::Stdout.write(format!("\u{1b}[H{lines}\u{1b}[J").as_bytes())?;
        remember(&mut before, &found);
    }
}

/// Looks at those that are named, or at all that run. Of these, some may end meanwhile.
async fn look(api: &Api, names: &[Name]) -> Result<Vec<Look>, Failure> {
    let mut found = Vec::new();
    if names.is_empty() {
        let running = api.list(&["containers"], &[("state", "running,paused")]).await?;
        for item in running.iter().take(SHOWN_MAX) {
            match api.get(&["containers", text(&item["id"]), "stats"], &[]).await {
                Ok(stats) => found.push(Look { name: text(&item["name"]).to_owned(), stats }),
                Err(Failure::Refused(problem)) if matches!(problem.status, 404 | 409) => {}
                Err(failure) => return Err(failure),
            }
        }
        return Ok(found);
    }
    for name in names {
        let stats = api.get(&["containers", name.as_str(), "stats"], &[]).await;
        let stats = stats.map_err(|failure| failure.while_doing(name.as_str()))?;
        found.push(Look { name: name.as_str().to_owned(), stats });
    }
    Ok(found)
}

/// Processor time used, in microseconds, and when that was, in milliseconds, by container and run.
type Before = BTreeMap<(String, u64), (u64, i64)>;

fn remember(before: &mut Before, found: &[Look]) {
    *before = found.iter().filter_map(|look| Some((key(look), point(look)?))).collect();
}

fn key(look: &Look) -> (String, u64) {
    (text(&look.stats["id"]).to_owned(), number(&look.stats["run"]))
}

fn point(look: &Look) -> Option<(u64, i64)> {
    let sample = &look.stats["sample"];
    Some((number(&sample["cpu"]["usage_usec"]), Time::parse(text(&sample["time"]))?.0))
}

/// Thousandths of a core between two points.
fn rate(before: (u64, i64), now: (u64, i64)) -> Option<u64> {
    let passed = u64::try_from(now.1 - before.1).ok().filter(|passed| *passed > 0)?;
    // Microseconds a millisecond are thousandths.
    Some(now.0.saturating_sub(before.0) / passed)
}

fn table(found: &[Look], before: &Before) -> String {
    let mut table = Table::new(&["NAME", "CPUS", "MEMORY", "PIDS", "READ", "WRITTEN"]);
    for look in found {
        let (sample, limits) = (&look.stats["sample"], &look.stats["limits"]);
        let rate = before.get(&key(look)).and_then(|before| rate(*before, point(look)?));
        let of = |used: String, limit: String| format!("{used} / {limit}");
        table.row([
            look.name.clone(),
            of(
                rate.map_or_else(|| "-".to_owned(), shown_cpus),
                shown_cpus(number(&limits["cpu_millis"])),
            ),
            of(
                shown_bytes(number(&sample["memory"]["used_bytes"])),
                shown_bytes(number(&limits["memory_bytes"])),
            ),
            of(number(&sample["pids"]).to_string(), number(&limits["pids"]).to_string()),
            shown_bytes(number(&sample["io"]["read_bytes"])),
            shown_bytes(number(&sample["io"]["write_bytes"])),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_lies_between_two_looks() {
        assert_eq!(rate((1_000_000, 10_000), (2_000_000, 12_000)), Some(500));
        assert_eq!(rate((0, 10_000), (1, 10_000)), None, "no time has passed");
        assert_eq!(rate((5, 0), (0, 10)), Some(0), "a counter that fell");
    }
}
