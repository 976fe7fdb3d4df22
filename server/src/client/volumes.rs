//! `berth volume`: directories that outlive containers. And what `run` takes of them.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::CALL_TIMEOUT;
use super::error::{Outcome, REFUSED};
use super::output::{Table, say, tell};
use super::show::{age, number, short, text};
use super::units::shown_bytes;
use super::{Name, Server, harmless};

/// What `volume` takes.
#[derive(Args)]
pub struct VolumeArgs {
    #[command(subcommand)]
    act: Act,
}

/// What is done with volumes.
#[derive(Subcommand)]
enum Act {
    /// List volumes.
    Ls(ListArgs),
    /// Make volumes.
    Create(Which),
    /// Show who has a volume, and what it holds.
    Inspect(InspectArgs),
    /// Give a volume another name; containers that have it keep it.
    Rename(RenameArgs),
    /// Give a volume to somebody else, with all that is in it (operators).
    HandOver(HandOverArgs),
    /// Remove volumes that no container has, with all that is in them.
    Rm(Which),
}

/// Which volumes.
#[derive(Args)]
struct Which {
    #[command(flatten)]
    server: Server,
    /// Their names.
    #[arg(required = true)]
    volumes: Vec<Name>,
}

/// What `volume ls` takes.
#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: Server,
    /// Only names.
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// What `volume inspect` takes.
#[derive(Args)]
struct InspectArgs {
    #[command(flatten)]
    which: Which,
    /// As JSON: a list of all that the server says of each.
    #[arg(long)]
    json: bool,
}

/// What `volume rename` takes.
#[derive(Args)]
struct RenameArgs {
    #[command(flatten)]
    server: Server,
    /// What it is called.
    volume: Name,
    /// What it is to be called.
    name: String,
}

/// What `volume hand-over` takes.
#[derive(Args)]
struct HandOverArgs {
    #[command(flatten)]
    server: Server,
    /// Its id, or its owner's name, a slash and its own.
    volume: Name,
    /// The name that they sign in with.
    #[arg(long, value_name = "PERSON")]
    to: String,
}

/// `berth volume`.
///
/// # Errors
/// When nothing can be asked of the server.
pub async fn volume(args: VolumeArgs) -> Outcome {
    match args.act {
        Act::Ls(args) => list(args).await,
        Act::Create(which) => {
            each(&which, |name| {
                (Method::POST, vec!["volumes".to_owned()], Some(json!({"name": name})))
            })
            .await
        }
        Act::Inspect(args) => inspect(args).await,
        Act::Rename(args) => rename(args).await,
        Act::HandOver(args) => hand_over(args).await,
        Act::Rm(which) => {
            each(&which, |name| (Method::DELETE, vec!["volumes".to_owned(), name.to_owned()], None))
                .await
        }
    }
}

async fn list(args: ListArgs) -> Outcome {
    let items = args.server.api()?.list(&["volumes"], &[]).await?;
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
    let mut table = Table::new(&["NAME", "ID", "CONTAINERS", "SIZE", "CREATED", "OWNER"]);
    for item in &items {
        table.row([
            text(&item["name"]).to_owned(),
            short(&item["id"]),
            number(&item["containers"]).to_string(),
            size(&item["used"]),
            age(&item["created_at"]),
            text(&item["owner"]["name"]).to_owned(),
        ]);
    }
    say(&table.text())?;
    Ok(0)
}

async fn inspect(args: InspectArgs) -> Outcome {
    let api = args.which.server.api()?;
    let mut found = Vec::new();
    for name in &args.which.volumes {
        found.push(api.get(&["volumes", name.as_str()], &[]).await?);
    }
    if args.json {
        say(&harmless::json(&Value::Array(found)))?;
        return Ok(0);
    }
    let texts: Vec<String> = found.iter().map(summary).collect();
    say(&texts.join("\n\n"))?;
    Ok(0)
}

fn summary(item: &Value) -> String {
    let users = item["used_by"].as_array().into_iter().flatten().map(|user| {
        let way = if user["read_only"] == true { ", read-only" } else { "" };
        format!("{} on {}{way}", text(&user["container_name"]), text(&user["target"]))
    });
    let lines = [
        ("Name", text(&item["name"]).to_owned()),
        ("Id", text(&item["id"]).to_owned()),
        ("Owner", text(&item["owner"]["name"]).to_owned()),
        ("Created", text(&item["created_at"]).to_owned()),
        ("Size", size(&item["used"])),
        ("Files", item["used"]["entries"].as_u64().map(|n| n.to_string()).unwrap_or_default()),
        ("Looked at", text(&item["used"]["measured_at"]).to_owned()),
        ("Used by", users.collect::<Vec<_>>().join("; ")),
    ];
    let shown = lines.iter().map(|(name, value)| {
        let value = if value.is_empty() { "-" } else { value };
        format!("{name:<18} {}", harmless::line(value))
    });
    shown.collect::<Vec<_>>().join("\n")
}

/// What it held; empty when nobody has looked.
fn size(used: &Value) -> String {
    let Some(bytes) = used["bytes"].as_u64() else { return String::new() };
    let more = if used["is_whole"] == true { "" } else { "more than " };
    format!("{more}{}", shown_bytes(bytes))
}

async fn rename(args: RenameArgs) -> Outcome {
    let api = args.server.api()?;
    let (parts, body) = (["volumes", args.volume.as_str()], json!({"name": args.name}));
    let changed = api.act(Method::PATCH, &parts, &[], Some(&body), CALL_TIMEOUT).await?;
    say(&harmless::line(text(&changed["name"])))?;
    Ok(0)
}

async fn hand_over(args: HandOverArgs) -> Outcome {
    let api = args.server.api()?;
    let (parts, body) = (["volumes", args.volume.as_str(), "hand-over"], json!({"to": args.to}));
    api.act(Method::POST, &parts, &[], Some(&body), CALL_TIMEOUT).await?;
    say(&harmless::line(args.volume.as_str()))?;
    Ok(0)
}

/// One act on each; those that fail are told, the others are done.
async fn each(
    which: &Which,
    act: impl Fn(&str) -> (Method, Vec<String>, Option<Value>),
) -> Outcome {
    let api = which.server.api()?;
    let mut code = 0;
    for name in &which.volumes {
        let (method, parts, body) = act(name.as_str());
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match api.act(method, &parts, &[], body.as_ref(), CALL_TIMEOUT).await {
            Ok(_) => say(&harmless::line(name.as_str()))?,
            Err(failure) => {
                tell(&failure.while_doing(name.as_str()).told().unwrap_or_default());
                code = REFUSED;
            }
        }
    }
    Ok(code)
}

/// `NAME:/path[:ro]` as the API has it.
///
/// # Errors
/// What is wrong with it; paths of a host are none of anybody's.
pub fn mount(text: &str) -> Result<Value, String> {
    let wrong = || format!("{text:?} is not NAME:/path, or NAME:/path:ro");
    let mut parts = text.split(':');
    let (Some(volume), Some(target)) = (parts.next(), parts.next()) else { return Err(wrong()) };
    if volume.starts_with(['/', '.', '~']) {
        return Err(format!(
            "{volume:?} is a path: nothing of a host's can be mounted. Make a volume (`berth volume create \
             data`) and use it by its name: data:{target}"
        ));
    }
    let read_only = match (parts.next(), parts.next()) {
        (None | Some("rw"), None) => false,
        (Some("ro"), None) => true,
        _ => return Err(wrong()),
    };
    if volume.is_empty() || !target.starts_with('/') {
        return Err(wrong());
    }
    Ok(json!({"volume": volume, "target": target, "read_only": read_only}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_named_and_hosts_paths_refused() {
        let expected = json!({"volume": "data", "target": "/d", "read_only": false});
        assert_eq!(mount("data:/d"), Ok(expected.clone()));
        assert_eq!(mount("data:/d:rw"), Ok(expected));
        assert_eq!(mount("data:/d:ro").expect("good")["read_only"], true);
        assert_eq!(mount("anna/data:/d").expect("good")["volume"], "anna/data");
        for bad in ["", "data", ":/d", "data:d", "data:/d:x", "data:/d:ro:x"] {
            assert!(mount(bad).is_err(), "{bad}");
        }
        for path in ["/x:/y", "./x:/y", "~/x:/y", "../x:/y:ro"] {
            let why = mount(path).expect_err(path);
            assert!(why.contains("is a path") && why.contains("berth volume create"), "{why}");
        }
    }
}
