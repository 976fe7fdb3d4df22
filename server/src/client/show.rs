//! `berth ps`, `images` and `inspect`: what there is, as a table for people or JSON for programs.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::error::Outcome;
use super::output::{Table, say};
use super::units::{shown_age, shown_bytes, shown_cpus};
use super::{Name, Server, harmless};
use crate::clock::Time;

/// States that `ps` shows when nothing is said.
const LIVELY: &str = "pulling,starting,running,paused,stopping,restarting";

/// What `ps` takes.
#[derive(Args)]
pub struct PsArgs {
    #[command(flatten)]
    server: Server,
    /// Also those that rest.
    #[arg(short, long)]
    all: bool,
    /// Only names.
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// What `images` takes.
#[derive(Args)]
pub struct ImagesArgs {
    #[command(flatten)]
    server: Server,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// What `inspect` takes.
#[derive(Args)]
pub struct InspectArgs {
    #[command(flatten)]
    server: Server,
    /// As JSON: a list of all that the server says of each.
    #[arg(long)]
    json: bool,
    /// Their names or ids.
    #[arg(required = true)]
    containers: Vec<Name>,
}

/// `berth ps`.
///
/// # Errors
/// When the server refuses.
pub async fn ps(args: PsArgs) -> Outcome {
    let api = args.server.api()?;
    let query: &[(&str, &str)] = if args.all { &[] } else { &[("state", LIVELY)] };
    let items = api.list(&["containers"], query).await?;
    if args.json {
        say(&harmless::json(&Value::Array(items)))?;
        return Ok(0);
    }
    if args.quiet {
        for item in &items {
            say(&harmless::line(text(&item["name"])))?;
        }
        return Ok(0);
    }
    let owner = |item: &Value| item["owner"]["id"].as_u64();
    let mixed = items.iter().any(|item| owner(item) != owner(&items[0]));
    let mut headings =
        vec!["NAME", "ID", "IMAGE", "STATUS", "CPUS", "MEMORY", "ADDRESS", "PORTS", "CREATED"];
    if mixed {
        headings.push("OWNER");
    }
    let mut table = Table::new(&headings);
    for item in &items {
        let mut row = vec![
            text(&item["name"]).to_owned(),
            short(&item["id"]),
            text(&item["image"]["reference"]).to_owned(),
            text(&item["status_text"]).to_owned(),
            shown_cpus(number(&item["limits"]["cpu_millis"])),
            shown_bytes(number(&item["limits"]["memory_bytes"])),
            text(&item["address"]).to_owned(),
            ports(item),
            age(&item["created_at"]),
        ];
        if mixed {
            row.push(text(&item["owner"]["name"]).to_owned());
        }
        table.row(row);
    }
    say(&table.text())?;
    Ok(0)
}

/// `berth images`.
///
/// # Errors
/// When the server refuses.
pub async fn images(args: ImagesArgs) -> Outcome {
    let api = args.server.api()?;
    let items = api.list(&["images"], &[]).await?;
    if args.json {
        say(&harmless::json(&Value::Array(items)))?;
        return Ok(0);
    }
    let mut table = Table::new(&["NAME", "ID", "PLATFORM", "SIZE", "CREATED", "OWNER"]);
    for item in &items {
        let names = [&item["tags"], &item["digests"]];
        let mut names: Vec<&str> =
            names.into_iter().filter_map(Value::as_array).flatten().map(text).collect();
        names.truncate(item["tags"].as_array().map_or(0, Vec::len).max(1));
        if names.is_empty() {
            names.push("");
        }
        for name in names {
            table.row([
                name.to_owned(),
                short(&item["id"]),
                text(&item["platform"]).to_owned(),
                shown_bytes(number(&item["unpacked_bytes"])),
                age(&item["created_at"]),
                item["owner_name"].as_str().unwrap_or("everybody").to_owned(),
            ]);
        }
    }
    say(&table.text())?;
    Ok(0)
}

/// `berth inspect`.
///
/// # Errors
/// When one of them is not there.
pub async fn inspect(args: InspectArgs) -> Outcome {
    let api = args.server.api()?;
    let mut found = Vec::new();
    for name in &args.containers {
        found.push(api.get(&["containers", name.as_str()], &[]).await?);
    }
    if args.json {
        say(&harmless::json(&Value::Array(found)))?;
        return Ok(0);
    }
    let texts: Vec<String> = found.iter().map(summary).collect();
    say(&texts.join("\n\n"))?;
    Ok(0)
}

/// What a person wants to know of a container first.
fn summary(item: &Value) -> String {
    let limits = &item["limits"];
    let words = |value: &Value| {
        let words = value.as_array().into_iter().flatten().map(|word| text(word).to_owned());
        words.collect::<Vec<_>>().join(" ")
    };
    let held = item["limits_held"].as_array().into_iter().flatten().map(|limit| {
        let name = text(&limit["name"]);
        match limit["held"] == true {
            true => format!("{name} {}", text(&limit["value"])),
            false => format!("{name} not held: {}", text(&limit["reason"])),
        }
    });
    let lines = [
        ("Name", text(&item["name"]).to_owned()),
        ("Id", text(&item["id"]).to_owned()),
        ("Owner", text(&item["owner"]["name"]).to_owned()),
        ("Image", text(&item["image"]["reference"]).to_owned()),
        ("Command", words(&item["content"]["args"])),
        ("Status", text(&item["status_text"]).to_owned()),
        ("Created", text(&item["created_at"]).to_owned()),
        ("Started", text(&item["started_at"]).to_owned()),
        ("Is stopped", text(&item["ends_at"]).to_owned()),
        ("Address", text(&item["address"]).to_owned()),
        ("Ports", ports(item)),
        ("Volumes", volumes(item)),
        ("Data sets", data_sets(item)),
        ("Network", text(&item["network"]).to_owned()),
        ("CPUs", shown_cpus(number(&limits["cpu_millis"]))),
        ("Memory", shown_bytes(number(&limits["memory_bytes"]))),
        ("Swap", shown_bytes(number(&limits["swap_bytes"]))),
        ("Processes", number(&limits["pids"]).to_string()),
        ("Kernel holds", held.collect::<Vec<_>>().join(", ")),
        ("Restart", text(&item["restart"]["policy"]["name"]).to_owned()),
        ("Killed for memory", number(&item["oom_kills"]).to_string()),
    ];
    let shown = lines.iter().map(|(name, value)| {
        let value = if value.is_empty() { "-" } else { value };
        format!("{name:<18} {}", harmless::line(value))
    });
    shown.collect::<Vec<_>>().join("\n")
}

/// Ports of the host, and what of the container they lead to.
fn ports(item: &Value) -> String {
    let shown = item["ports"].as_array().into_iter().flatten().map(|port| {
        let (host, inside) = (number(&port["host_port"]), number(&port["container_port"]));
        format!("{host}->{inside}/{}", text(&port["protocol"]))
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Data sets, and where they are.
fn data_sets(item: &Value) -> String {
    let one = |mount: &Value| format!("{}:{}", text(&mount["name"]), text(&mount["target"]));
    let all: Vec<String> = item["data_sets"].as_array().into_iter().flatten().map(one).collect();
    all.join(", ")
}

/// Volumes, and where they are.
fn volumes(item: &Value) -> String {
    let shown = item["mounts"].as_array().into_iter().flatten().map(|mount| {
        let way = if mount["read_only"] == true { ":ro" } else { "" };
        format!("{}:{}{way}", text(&mount["volume"]), text(&mount["target"]))
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// A text; empty when it is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A number; 0 when it is none.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

/// As much of an id as tells things apart.
pub fn short(id: &Value) -> String {
    text(id).chars().take(12).collect()
}

/// How long ago something was.
pub fn age(time: &Value) -> String {
    let Some(then) = Time::parse(text(time)) else { return String::new() };
    let passed = Time::now().0.saturating_sub(then.0);
    shown_age(Duration::from_millis(u64::try_from(passed).unwrap_or(0)))
}
