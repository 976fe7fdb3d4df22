//! `berth share`: what others may do with a container, a volume or an image of one's own.

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::CALL_TIMEOUT;
use super::error::Outcome;
use super::output::{Table, say};
use super::show::{age, text};
use super::{Name, Server, harmless};

/// What `share` takes.
#[derive(Args)]
pub struct ShareArgs {
    #[command(subcommand)]
    act: Act,
}

/// What is done with shares.
#[derive(Subcommand)]
enum Act {
    /// List with whom a container, volume or image is shared.
    Ls(ListArgs),
    /// Share a container, volume or image, in place of what was shared with them before.
    Add(AddArgs),
    /// Share it with them no more: what they are at in it ends at once; a volume stays in what runs until that ends.
    Rm(RemoveArgs),
}

/// With whom.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// A person, by the exact name that they sign in with. A name that nobody has is taken, too, and leads nowhere.
    #[arg(long, value_name = "NAME")]
    person: Option<String>,
    /// A group that you are in.
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
}

/// What is shared.
#[derive(Args)]
struct What {
    /// Its name or id; an image's id.
    name: Name,
    /// It is a volume, not a container.
    #[arg(long)]
    volume: bool,
    /// It is an image, not a container.
    #[arg(long, conflicts_with = "volume")]
    image: bool,
}

impl What {
    /// Where the API has its shares.
    fn parts(&self) -> [&str; 3] {
        let kind = match (self.volume, self.image) {
            (true, _) => "volumes",
            (_, true) => "images",
            _ => "containers",
        };
        [kind, self.name.as_str(), "grants"]
    }
}

/// What `share ls` takes.
#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    what: What,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// What `share add` takes.
#[derive(Args)]
struct AddArgs {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    whom: Whom,
    /// What they may do with it: view, logs, use or manage a container; read or write a volume; read an image, which is
    /// to launch from it and to keep it, too. The least when left out.
    #[arg(long, value_enum)]
    may: Option<Level>,
}

/// What `share rm` takes.
#[derive(Args)]
struct RemoveArgs {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    whom: Whom,
}

/// How much is shared.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// See its state and what it uses.
    View,
    /// Read its log, too.
    Logs,
    /// Run programs in it, and see its environment and processes, too.
    Use,
    /// Start, stop and limit it, too.
    Manage,
    /// Read a volume, in their containers too; read an image, launch from it and keep it.
    Read,
    /// Write to a volume, too.
    Write,
}

impl Level {
    /// The rights as the API has them.
    fn rights(self) -> &'static [&'static str] {
        match self {
            Self::View => &["state"],
            Self::Logs => &["state", "logs"],
            Self::Use => &["state", "logs", "terminal", "files"],
            Self::Manage => &["state", "logs", "terminal", "files", "manage"],
            Self::Read => &["state", "files"],
            Self::Write => &["state", "files", "write"],
        }
    }
}

impl Whom {
    /// Kind and name as the API has them.
    fn parts(&self) -> (&'static str, &str) {
        match (&self.person, &self.group) {
            (Some(name), _) => ("person", name),
            (None, Some(name)) => ("group", name),
            (None, None) => ("person", ""),
        }
    }
}

/// `berth share`.
///
/// # Errors
/// When the server refuses, or nothing can be asked of it.
pub async fn share(args: ShareArgs) -> Outcome {
    match args.act {
        Act::Ls(args) => list(args).await,
        Act::Add(args) => add(args).await,
        Act::Rm(args) => remove(args).await,
    }
}

async fn list(args: ListArgs) -> Outcome {
    let parts = args.what.parts();
    let mut found = args.server.api()?.get(&parts, &[]).await?;
    let items = match found["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    if args.json {
        say(&harmless::json(&Value::Array(items)))?;
        return Ok(0);
    }
    let mut table = Table::new(&["WITH", "NAME", "MAY", "SINCE"]);
    for item in &items {
        let rights: Vec<&str> = item["rights"].as_array().into_iter().flatten().map(text).collect();
        table.row([
            text(&item["kind"]).to_owned(),
            text(&item["name"]).to_owned(),
            rights.join(", "),
            age(&item["given_at"]),
        ]);
    }
    say(&table.text())?;
    Ok(0)
}

async fn add(args: AddArgs) -> Outcome {
    let (kind, name) = args.whom.parts();
    let parts = args.what.parts();
    let least = if args.what.volume || args.what.image { Level::Read } else { Level::View };
    let may = args.may.unwrap_or(least);
    let body = json!({"kind": kind, "name": name, "rights": may.rights()});
    args.server.api()?.act(Method::PUT, &parts, &[], Some(&body), CALL_TIMEOUT).await?;
    say(&harmless::line(name))?;
    Ok(0)
}

async fn remove(args: RemoveArgs) -> Outcome {
    let (kind, name) = args.whom.parts();
    let parts = args.what.parts();
    let query = [("kind", kind), ("name", name)];
    args.server.api()?.act(Method::DELETE, &parts, &query, None, CALL_TIMEOUT).await?;
    say(&harmless::line(name))?;
    Ok(0)
}
