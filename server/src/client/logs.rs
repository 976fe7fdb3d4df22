//! `berth logs`, and what `berth run` shows: a container's log, once or until it rests.
//!
//! A person at a terminal gets the log as records, each shown harmlessly on a line of its own; such a
//! reader goes on where it was when the connection breaks. Everybody else, and whoever says `--raw`, gets
//! the program's own bytes, its two outputs apart.

use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::api::Api;
use super::error::{Failure, Outcome};
use super::events::Event;
use super::harmless::{self, Flow};
use super::output::{Output, tell};
use super::{Name, Server};

/// A connection that broke is made again for so long.
const AWAY_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// A record at most.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What `logs` takes.
#[derive(Args)]
pub struct LogsArgs {
    #[command(flatten)]
    server: Server,
    /// Go on until the container rests.
    #[arg(short, long)]
    follow: bool,
    /// The last so many lines only.
    #[arg(short = 'n', long, value_name = "LINES")]
    tail: Option<usize>,
    /// Nothing older: a time (RFC 3339) or seconds since 1970.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Begin each line with its time.
    #[arg(short, long)]
    timestamps: bool,
    /// Write the program's own bytes to a terminal too, control sequences included.
    #[arg(long)]
    raw: bool,
    /// One JSON record a line.
    #[arg(long, conflicts_with_all = ["raw", "timestamps"])]
    json: bool,
    /// Its name or id.
    container: Name,
}

/// What of a log is wanted, and how it is shown.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Until the container rests.
    pub follow: bool,
    /// The last so many lines.
    pub tail: Option<String>,
    /// Nothing older.
    pub since: Option<String>,
    /// With the time of each line.
    pub timestamps: bool,
    /// As bytes, to a terminal too.
    pub raw: bool,
}

/// `berth logs`.
///
/// # Errors
/// When there is no such container, or its log is not the caller's to read.
pub async fn logs(args: LogsArgs) -> Outcome {
    let api = args.server.api()?;
    let name = args.container.as_str();
    let wanted = Wanted {
        follow: args.follow,
        tail: args.tail.map(|lines| lines.to_string()),
        since: args.since,
        timestamps: args.timestamps,
        raw: args.raw,
    };
    if args.json {
        let mut lines = Lines::of(&api, name, &wanted).await?;
        while let Some(line) = lines.next().await? {
            let line = harmless::json_text(&format!("{}\n", String::from_utf8_lossy(&line)));
            Output::Stdout.write_aside(line.into_bytes()).await?;
        }
        return Ok(0);
    }
    show(&api, name, &wanted).await?;
    Ok(0)
}

/// Shows a log on the standard streams.
///
/// # Errors
/// When it cannot be read, or nobody reads what is written.
pub async fn show(api: &Api, name: &str, wanted: &Wanted) -> Result<(), Failure> {
    let for_a_person = Output::Stdout.is_terminal() && !wanted.raw;
    if for_a_person && wanted.follow {
        return follow(api, name, wanted).await;
    }
    if for_a_person {
        let mut lines = Lines::of(api, name, wanted).await?;
        while let Some(line) = lines.next().await? {
            record_shown(&record(&line)?, wanted.timestamps).await?;
        }
        return Ok(());
    }
    let of = |stream: &'static str| {
        let mut query = wanted.query();
        query.push(("stream", stream));
        if wanted.timestamps {
            query.push(("timestamps", "true"));
        }
        query
    };
    let (stdout, stderr) = (of("stdout"), of("stderr"));
    tokio::try_join!(
        copy(api, name, &stdout, Output::Stdout, flow(Output::Stdout, wanted)),
        copy(api, name, &stderr, Output::Stderr, flow(Output::Stderr, wanted)),
    )?;
    Ok(())
}

impl Wanted {
    fn query(&self) -> Vec<(&'static str, &str)> {
        let mut query = Vec::new();
        query.extend(self.tail.as_deref().map(|tail| ("tail", tail)));
        query.extend(self.since.as_deref().map(|since| ("since", since)));
        if self.follow {
            query.push(("follow", "true"));
        }
        query
    }
}

/// What makes bytes harmless for an output that a person looks at, unless they asked for them as they are.
fn flow(output: Output, wanted: &Wanted) -> Option<Flow> {
    (output.is_terminal() && !wanted.raw).then(Flow::default)
}

/// The bytes of an answer, as they come.
async fn copy(
    api: &Api,
    name: &str,
    query: &[(&str, &str)],
    output: Output,
    mut flow: Option<Flow>,
) -> Result<(), Failure> {
    let mut answer = api.bytes(&["containers", name, "logs"], query).await?;
    while let Some(bytes) = answer.chunk().await.map_err(|_| broken())? {
        let shown = match &mut flow {
            Some(flow) => flow.push(&bytes).into_bytes(),
            None => bytes.into(),
        };
        output.write_aside(shown).await?;
    }
    Ok(())
}

/// The records of a log, one a line.
struct Lines {
    answer: reqwest::Response,
    unread: Vec<u8>,
}

impl Lines {
    async fn of(api: &Api, name: &str, wanted: &Wanted) -> Result<Self, Failure> {
        let mut query = wanted.query();
        query.push(("format", "json"));
        let answer = api.bytes(&["containers", name, "logs"], &query).await?;
        Ok(Self { answer, unread: Vec::new() })
    }

    /// The next one, without its end.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.unread.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.unread.len() > LINE_BYTES_MAX {
                return Err(Failure::Unreachable("a record of the log is too long".into()));
            }
            match self.answer.chunk().await.map_err(|_| broken())? {
                Some(bytes) => self.unread.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

fn broken() -> Failure {
    Failure::Unreachable("the connection broke before the log’s end".to_owned())
}

fn record(bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|_| Failure::Unreachable("a record of the log is no JSON".into()))
}

/// The records of a log, until the container rests; over connections that break.
async fn follow(api: &Api, name: &str, wanted: &Wanted) -> Result<(), Failure> {
    let parts = ["containers", name, "logs", "events"];
    let mut query: Vec<(&str, &str)> = wanted.query();
    query.retain(|(name, _)| *name != "follow");
    let mut last = String::new();
    let mut lost_at: Option<Instant> = None;
    loop {
        let broken = match api.events(&parts, &query, &last).await {
            Ok(mut events) => loop {
                match events.next().await {
                    Ok(Some(event)) if event.name == "end" => return Ok(()),
                    Ok(Some(event)) => {
                        lost_at = None;
                        if !event.id.is_empty() {
                            event.id.clone_into(&mut last);
                            // Where it goes on says more than how many lines it began with.
                            query.retain(|(name, _)| *name != "tail");
                        }
                        event_shown(&event, wanted.timestamps).await?;
                    }
                    Ok(None) => break Failure::Unreachable("the log’s stream has ended".into()),
                    Err(failure) => break failure,
                }
            },
            Err(failure) => failure,
        };
        let since = *lost_at.get_or_insert_with(Instant::now);
        if !broken.is_passing() || since.elapsed() > AWAY_MAX {
            return Err(broken);
        }
        sleep(PAUSE).await;
    }
}

async fn event_shown(event: &Event, timestamps: bool) -> Result<(), Failure> {
    match event.name.as_str() {
        "gap" => {
            tell("some lines were rotated away before they could be read");
            Ok(())
        }
        "stdout" | "stderr" => record_shown(&record(event.data.as_bytes())?, timestamps).await,
        _ => Ok(()),
    }
}

/// One record on the output that it came from.
async fn record_shown(record: &Value, timestamps: bool) -> Result<(), Failure> {
    let text = |name: &str| record[name].as_str().unwrap_or_default();
    let output = match text("stream") {
        "stdout" => Output::Stdout,
        "stderr" => Output::Stderr,
        _ => return Ok(()),
    };
    let mut line = String::new();
    if timestamps {
        line.push_str(&harmless::line(text("time")));
        line.push(' ');
    }
    line.push_str(&harmless::log(text("text")));
    if timestamps || record["partial"] != true {
        line.push('\n');
    }
    output.write_aside(line.into_bytes()).await
}
