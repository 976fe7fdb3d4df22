//! `berth pull`, and the wait of `berth run` for an image: an operation that is followed, and cancelled
//! by Ctrl-C.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::api::Api;
use super::error::{Failure, Outcome, Problem};
use super::output::{Output, say, tell};
use super::show::{number, text};
use super::terminal::Ends;
use super::units::shown_bytes;
use super::{Server, harmless};

/// Before the operation's stream is asked for again.
const PAUSE: Duration = Duration::from_millis(500);
/// Streams that end without the operation's end, one after another.
const BREAKS_MAX: u32 = 120;

/// What `pull` takes.
#[derive(Args)]
pub struct PullArgs {
    #[command(flatten)]
    server: Server,
    /// As JSON: the operation when it has ended.
    #[arg(long)]
    json: bool,
    /// What is pulled, such as alpine, ghcr.io/a/b:1 or busybox@sha256:…
    image: String,
}

/// `berth pull`.
///
/// # Errors
/// When the pull fails or is refused.
pub async fn pull(args: PullArgs) -> Outcome {
    let api = args.server.api()?;
    let body = json!({"reference": args.image});
    let operation = api.post(&["images", "pull"], Some(&body)).await?;
    let mut ends = Ends::listen()?;
    let ended = finish(&api, text(&operation["id"]), &mut ends).await?;
    match args.json {
        true => say(&harmless::json(&ended))?,
        false => say(&harmless::line(&args.image))?,
    }
    Ok(0)
}

/// What an operation is called, and how far it is in words.
pub type Words = (&'static str, fn(&Value) -> String);

/// The pull once it has succeeded. A signal cancels it.
///
/// # Errors
/// When it fails, or is cancelled.
pub async fn finish(api: &Api, id: &str, ends: &mut Ends) -> Result<Value, Failure> {
    finish_work(api, id, ("pull", progress), ends).await
}

/// The same of any operation.
///
/// # Errors
/// When it fails, or is cancelled.
pub async fn finish_work(
    api: &Api,
    id: &str,
    words: Words,
    ends: &mut Ends,
) -> Result<Value, Failure> {
    let mut line = Line::default();
    let name = words.0;
    tokio::select! {
        ended = followed(api, id, words, &mut line) => {
            line.clear();
            judged(name, ended?)
        }
        number = ends.next() => {
            line.clear();
            // It may have ended in this moment.
            drop(api.post(&["operations", id, "cancel"], None).await);
            tell(&format!("the {name} was cancelled"));
            Err(Failure::Signal(number))
        }
    }
}

async fn followed(
    api: &Api,
    id: &str,
    (name, shown): Words,
    line: &mut Line,
) -> Result<Value, Failure> {
    let mut breaks = 0;
    loop {
        let failure = match api.events(&["operations", id, "events"], &[], "").await {
            Ok(mut events) => loop {
                match events.next().await {
                    Ok(Some(event)) => {
                        breaks = 0;
                        let operation: Value =
                            serde_json::from_str(&event.data).unwrap_or_default();
                        if operation["state"] != "running" {
                            return Ok(operation);
                        }
                        line.show(&shown(&operation["progress"]));
                    }
                    Ok(None) => {
                        break Failure::Unreachable(format!("the {name}’s stream has ended"));
                    }
                    Err(failure) => break failure,
                }
            },
            Err(failure) => failure,
        };
        breaks += 1;
        if !failure.is_passing() || breaks > BREAKS_MAX {
            return Err(failure.while_doing(&format!("the {name} goes on at the server, but")));
        }
        sleep(PAUSE).await;
    }
}

fn judged(name: &str, operation: Value) -> Result<Value, Failure> {
    if operation["state"] == "succeeded" {
        return Ok(operation);
    }
    let failure = &operation["failure"];
    let detail = match text(&failure["message"]) {
        "" => format!("the {name} was {}", text(&operation["state"])),
        words => words.to_owned(),
    };
    Err(Failure::Refused(Problem { status: 0, code: text(&failure["code"]).to_owned(), detail }))
}

fn progress(progress: &Value) -> String {
    let layers = progress["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sum = |name: &str| layers.iter().map(|layer| number(&layer[name])).sum();
    let done = layers.iter().filter(|layer| matches!(text(&layer["state"]), "done" | "present"));
    let (done, all) = (done.count(), layers.len());
    let (bytes, of) = (shown_bytes(sum("downloaded_bytes")), shown_bytes(sum("total_bytes")));
    match all {
        0 => "asking the registry".to_owned(),
        _ => format!("{done} of {all} layers, {bytes} of {of}"),
    }
}

/// A line at a terminal that is written again and again; nothing elsewhere.
#[derive(Default)]
struct Line {
    shown: bool,
}

impl Line {
    fn show(&mut self, text: &str) {
        if Output::Stderr.is_terminal() {
            self.shown = true;
            drop(Output::Stderr.write(format!("\r\u{1b}[K{text}").as_bytes()));
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            drop(Output::Stderr.write(b"\r\x1b[K"));
        }
    }
}
