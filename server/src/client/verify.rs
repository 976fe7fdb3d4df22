//! `berth verify`: whether the stored layers are still what they were.

use clap::Args;
use serde_json::Value;

use super::error::Outcome;
use super::output::{Table, say, tell};
use super::pull::finish_work;
use super::show::{number, text};
use super::terminal::Ends;
use super::units::shown_bytes;
use super::{Server, harmless};

/// What the program ends with when something is harmed.
const HARMED: u8 = 1;

/// What `verify` takes.
#[derive(Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    server: Server,
    /// Only tell what was found the last time.
    #[arg(long)]
    last: bool,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// `berth verify`; ends with 1 when a layer is harmed.
///
/// # Errors
/// When the server refuses.
pub async fn verify(args: VerifyArgs) -> Outcome {
    let api = args.server.api()?;
    let mut skipped = Value::Null;
    if !args.last {
        let operation = api.post(&["layers", "verify"], None).await?;
        let mut ends = Ends::listen()?;
        let words = ("verification", progress as fn(&Value) -> String);
        let ended = finish_work(&api, text(&operation["id"]), words, &mut ends).await?;
        skipped = ended["result"]["skipped_layers"].clone();
    }
    let found = api.get(&["layers"], &[]).await?;
    let harmed = number(&found["harmed"]);
    let code = if harmed > 0 { HARMED } else { 0 };
    if args.json {
        say(&harmless::json(&found))?;
        return Ok(code);
    }
    if harmed > 0 {
        say(&table(found["items"].as_array().map(Vec::as_slice).unwrap_or_default()))?;
    }
    for layer in skipped.as_array().map(Vec::as_slice).unwrap_or_default() {
        let (digest, reason) = (text(&layer["digest"]), text(&layer["reason"]));
        tell(&harmless::line(&format!("not looked at: {digest}: {reason}")));
    }
    let (all, whole) = (number(&found["layers"]), number(&found["whole"]));
    tell(&match harmed {
        0 => format!("{whole} of {all} layers are whole."),
        _ => format!(
            "{whole} of {all} layers are whole, {harmed} are not: nothing starts from a damaged one. Pull or \
             import their images again."
        ),
    });
    Ok(code)
}

fn progress(progress: &Value) -> String {
    let (done, of) = (number(&progress["downloaded_bytes"]), number(&progress["total_bytes"]));
    format!("verified {} of {}", shown_bytes(done), shown_bytes(of))
}

/// Each difference in a row of its own.
fn table(items: &[Value]) -> String {
    let mut table = Table::new(&["LAYER", "STATE", "WHAT", "PATH", "IMAGES"]);
    for item in items {
        let digest: String = text(&item["digest"]).chars().skip("sha256:".len()).take(12).collect();
        let state = if item["state"] == "damaged" { "damaged" } else { "archive damaged" };
        let images = item["images"].as_array().map(Vec::as_slice).unwrap_or_default();
        let images: Vec<String> =
            images.iter().map(|id| text(id).chars().take(12).collect()).collect();
        let images = images.join(" ");
        let shown = item["shown"].as_array().map(Vec::as_slice).unwrap_or_default();
        let row = |what: &str, path: &str| {
            [&*digest, state, what, path, &*images].map(str::to_owned).to_vec()
        };
        for harm in shown {
            table.row(row(text(&harm["harm"]), text(&harm["path"])));
        }
        let left = number(&item["differences"]).saturating_sub(shown.len() as u64);
        if left > 0 || shown.is_empty() {
            let more = if left > 0 { format!("and {left} more") } else { String::new() };
            table.row(row("", &more));
        }
    }
    table.text()
}
