//! `berth groups`: groups of people, who is in them, and what they may use together.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, CALL_TIMEOUT};
use super::error::{Failure, Outcome};
use super::limits::{LimitsArgs, each, limits};
use super::output::{Table, say};
use super::people::id_of as person;
use super::show::{age, text};
use super::{Server, harmless};

/// What `groups` takes.
#[derive(Args)]
pub struct GroupsArgs {
    #[command(subcommand)]
    act: Act,
}

/// What is done with groups.
#[derive(Subcommand)]
enum Act {
    /// List groups: those that you are in, or all for operators and auditors.
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Make one (operators).
    Add(AddArgs),
    /// Delete groups that nobody counts to (operators).
    Rm(ManyArgs),
    /// List who is in one (its managers, operators, auditors).
    Members(MembersArgs),
    /// Add members, who have what is shared with it (its managers, operators).
    Join(JoinArgs),
    /// Take members out.
    Leave(LeaveArgs),
    /// Have people's resources count to it, while nothing of theirs runs (operators).
    Count(LeaveArgs),
    /// Show what a group's people may use together, or change it (operators).
    Limits(GroupLimitsArgs),
}

/// What `groups ls` takes.
#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: Server,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// What `groups add` takes.
#[derive(Args)]
struct AddArgs {
    #[command(flatten)]
    server: Server,
    /// Its name.
    name: String,
    /// What it is for.
    #[arg(long, default_value = "")]
    note: String,
}

/// Some groups.
#[derive(Args)]
struct ManyArgs {
    #[command(flatten)]
    server: Server,
    /// Their names.
    #[arg(required = true, value_name = "GROUP")]
    names: Vec<String>,
}

/// What `groups members` takes.
#[derive(Args)]
struct MembersArgs {
    #[command(flatten)]
    list: ListArgs,
    /// Which group.
    group: String,
}

/// People of a group.
#[derive(Args)]
struct LeaveArgs {
    #[command(flatten)]
    server: Server,
    /// Which group.
    group: String,
    /// Who, by the names that they sign in with.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// What `groups join` takes.
#[derive(Args)]
struct JoinArgs {
    #[command(flatten)]
    who: LeaveArgs,
    /// As managers, who see who is in it, add members and take them out (operators).
    #[arg(long)]
    manager: bool,
}

/// What `groups limits` takes.
#[derive(Args)]
struct GroupLimitsArgs {
    #[command(flatten)]
    server: Server,
    /// Which group.
    group: String,
    #[command(flatten)]
    limits: LimitsArgs,
}

/// `berth groups`.
///
/// # Errors
/// When the server refuses, or nothing can be asked of it.
pub async fn groups(args: GroupsArgs) -> Outcome {
    match args.act {
        Act::Ls(args) => list(args).await,
        Act::Add(args) => add(args).await,
        Act::Rm(args) => remove(args).await,
        Act::Members(args) => members(args).await,
        Act::Join(args) => join(args).await,
        Act::Leave(args) => leave(args).await,
        Act::Count(args) => count(args).await,
        Act::Limits(args) => {
            let api = args.server.api()?;
            let id = id_of(&api, &args.group).await?;
            limits(&api, &["groups", &id, "allowance"], &args.limits).await
        }
    }
}

async fn id_of(api: &Api, name: &str) -> Result<String, Failure> {
    let all = api.list(&["groups"], &[]).await?;
    let group = all.iter().find(|group| text(&group["name"]) == name);
    let none = || Failure::Here(format!("you see no group named {}", harmless::line(name)));
    group.map(|group| group["id"].to_string()).ok_or_else(none)
}

async fn list(args: ListArgs) -> Outcome {
    let items = args.server.api()?.list(&["groups"], &[]).await?;
    if args.json {
        say(&harmless::json(&Value::Array(items)))?;
        return Ok(0);
    }
    let mut table = Table::new(&["NAME", "PEOPLE", "MEMBERS", "CONTAINERS", "YOU", "FOR", "MADE"]);
    for group in &items {
        let number = |value: &Value| value.as_u64().map(|n| n.to_string()).unwrap_or_default();
        table.row([
            text(&group["name"]).to_owned(),
            number(&group["members"]),
            number(&group["joined"]),
            number(&group["containers"]),
            text(&group["role"]).to_owned(),
            text(&group["note"]).to_owned(),
            age(&group["created_at"]),
        ]);
    }
    say(&table.text())?;
    Ok(0)
}

async fn add(args: AddArgs) -> Outcome {
    let body = json!({"name": args.name, "note": args.note});
    let made = args.server.api()?.post(&["groups"], Some(&body)).await?;
    say(&harmless::line(text(&made["name"])))?;
    Ok(0)
}

async fn remove(args: ManyArgs) -> Outcome {
    let api = &args.server.api()?;
    each(&args.names, async |name| {
        let id = id_of(api, &name).await?;
        api.act(Method::DELETE, &["groups", &id], &[], None, CALL_TIMEOUT).await?;
        Ok(name)
    })
    .await
}

async fn members(args: MembersArgs) -> Outcome {
    let api = args.list.server.api()?;
    let id = id_of(&api, &args.group).await?;
    let items = api.list(&["groups", &id, "members"], &[]).await?;
    if args.list.json {
        say(&harmless::json(&Value::Array(items)))?;
        return Ok(0);
    }
    let mut table = Table::new(&["NAME", "AS", "COUNTS TO IT"]);
    for member in &items {
        table.row([
            text(&member["name"]).to_owned(),
            text(&member["role"]).to_owned(),
            if member["counts"] == true { "yes" } else { "no" }.to_owned(),
        ]);
    }
    say(&table.text())?;
    Ok(0)
}

async fn join(args: JoinArgs) -> Outcome {
    let api = &args.who.server.api()?;
    let id = &id_of(api, &args.who.group).await?;
    let role = if args.manager { "manager" } else { "member" };
    each(&args.who.names, async |name| {
        let body = json!({"name": name, "role": role});
        let place = ["groups", id.as_str(), "members"];
        api.act(Method::PUT, &place, &[], Some(&body), CALL_TIMEOUT).await?;
        Ok(name)
    })
    .await
}

async fn leave(args: LeaveArgs) -> Outcome {
    let api = &args.server.api()?;
    let id = &id_of(api, &args.group).await?;
    each(&args.names, async |name| {
        let place = ["groups", id.as_str(), "members"];
        let query = [("name", name.as_str())];
        api.act(Method::DELETE, &place, &query, None, CALL_TIMEOUT).await?;
        Ok(name)
    })
    .await
}

async fn count(args: LeaveArgs) -> Outcome {
    let api = &args.server.api()?;
    let id = id_of(api, &args.group).await?;
    let number: u64 = id.parse().map_err(|_| Failure::Here(format!("{id} is no number")))?;
    each(&args.names, async |name| {
        let person = person(api, &name).await?;
        let body = json!({"group": number});
        api.act(Method::PATCH, &["people", &person], &[], Some(&body), CALL_TIMEOUT).await?;
        Ok(name)
    })
    .await
}
