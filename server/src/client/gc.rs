//! `berth gc`: what nothing needs any more goes, when it is said; and why the rest stays.

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::api::CALL_TIMEOUT;
use super::error::Outcome;
use super::output::{Table, say, tell};
use super::show::{number, text};
use super::units::shown_bytes;
use super::{Server, harmless};

/// What `gc` takes.
#[derive(Args)]
pub struct GcArgs {
    #[command(flatten)]
    server: Server,
    /// Have it go; else it is only shown.
    #[arg(long)]
    remove: bool,
    /// For how many days nothing has needed it.
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    days: u32,
    /// Images that have a tag, too.
    #[arg(long)]
    tagged: bool,
    /// Everybody's and the system's, and the inventory's old copies (operators).
    #[arg(long)]
    everyone: bool,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// `berth gc`.
///
/// # Errors
/// When the server refuses.
pub async fn gc(args: GcArgs) -> Outcome {
    let api = args.server.api()?;
    let (days, tagged, everyone) = (args.days, args.tagged, args.everyone);
    let found = match args.remove {
        true => {
            let body = json!({"unneeded_days": days, "tagged": tagged, "everyone": everyone});
            api.act(Method::POST, &["gc"], &[], Some(&body), CALL_TIMEOUT).await?
        }
        false => {
            let [days, tagged, everyone] =
                [days.to_string(), tagged.to_string(), everyone.to_string()];
            let query = [("unneeded_days", &*days), ("tagged", &*tagged), ("everyone", &*everyone)];
            api.get(&["gc"], &query).await?
        }
    };
    if args.json {
        say(&harmless::json(&found))?;
        return Ok(0);
    }
    let items = found["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    say(&table(items, everyone))?;
    let goes = |item: &&Value| matches!(text(&item["verdict"]), "remove" | "removed");
    let count = items.iter().filter(goes).count();
    let freed = shown_bytes(number(&found["frees_bytes"]));
    tell(&match (count, args.remove) {
        (0, _) => "Nothing goes.".to_owned(),
        (count, true) => format!("{count} removed, which frees {freed} at most."),
        (count, false) => format!("{count} would go and free {freed} at most: add --remove."),
    });
    if found["more"] == true {
        tell("There is more than is shown; what goes of it goes with the next call.");
    }
    Ok(0)
}

fn table(items: &[Value], everyone: bool) -> String {
    let mut headings = vec!["VERDICT", "NAME", "ID", "SIZE"];
    if everyone {
        headings.push("OWNER");
    }
    headings.push("WHY");
    let mut table = Table::new(&headings);
    for item in items {
        let verdict = match text(&item["verdict"]) {
            "remove" => "goes",
            "removed" => "removed",
            _ => "stays",
        };
        let id: String = match text(&item["kind"]) {
            "image" => text(&item["id"]).chars().take(12).collect(),
            _ => text(&item["id"]).to_owned(),
        };
        let size = shown_bytes(number(&item["bytes"]));
        let mut row = vec![verdict.to_owned(), text(&item["name"]).to_owned(), id, size];
        if everyone {
            row.push(item["owner_name"].as_str().unwrap_or("system").to_owned());
        }
        row.push(text(&item["why"]).to_owned());
        table.row(row);
    }
    table.text()
}
