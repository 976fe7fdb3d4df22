//! `berth people`: who is here, added, disabled and enabled, and what they may use (operators).

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::api::{Api, CALL_TIMEOUT};
use super::error::{Failure, Outcome};
use super::limits::{LimitsArgs, each, limits};
use super::output::{Table, say};
use super::show::{age, text};
use super::{Server, harmless};
use crate::clock::Time;

/// What `people` takes.
#[derive(Args)]
pub struct PeopleArgs {
    #[command(subcommand)]
    act: Act,
}

/// What is done with people.
#[derive(Subcommand)]
enum Act {
    /// List everybody (operators, auditors).
    #[command(visible_alias = "list")]
    Ls(ListArgs),
    /// Add a person, and print the link by which they set their password; it is shown this once.
    Add(AddArgs),
    /// Make a new link for somebody, who sets another password by it.
    Invite(OneArgs),
    /// Let people sign in no more; what is theirs stays, and runs on.
    Disable(ManyArgs),
    /// Let them sign in again.
    Enable(ManyArgs),
    /// Show what somebody may use together, or change it.
    Limits(PersonLimitsArgs),
}

/// What `people ls` takes.
#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: Server,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// What `people add` takes.
#[derive(Args)]
struct AddArgs {
    #[command(flatten)]
    server: Server,
    /// The name that they sign in with.
    name: String,
    /// What they may do.
    #[arg(long, value_enum, default_value_t = Role::User)]
    role: Role,
    /// The last day of their account in UTC, or a time; never when left out.
    #[arg(long, value_name = "DAY")]
    expires: Option<String>,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// One person.
#[derive(Args)]
struct OneArgs {
    #[command(flatten)]
    server: Server,
    /// The name that they sign in with.
    name: String,
}

/// Some people.
#[derive(Args)]
struct ManyArgs {
    #[command(flatten)]
    server: Server,
    /// The names that they sign in with.
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// What `people limits` takes.
#[derive(Args)]
struct PersonLimitsArgs {
    #[command(flatten)]
    server: Server,
    /// The name that they sign in with.
    #[arg(required_unless_present = "everybody")]
    name: Option<String>,
    /// What applies to all who have none of their own.
    #[arg(long, conflicts_with = "name")]
    everybody: bool,
    /// Take what is theirs alone away: what applies to everybody applies again.
    #[arg(long, conflicts_with_all = ["everybody", "set"])]
    reset: bool,
    #[command(flatten)]
    limits: LimitsArgs,
}

/// What somebody may do.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Own images and containers.
    User,
    /// Sees what there is, changes nothing.
    Auditor,
    /// Manages people and the machine.
    Operator,
}

/// `berth people`.
///
/// # Errors
/// When the server refuses, or nothing can be asked of it.
pub async fn people(args: PeopleArgs) -> Outcome {
    match args.act {
        Act::Ls(args) => list(args).await,
        Act::Add(args) => add(args).await,
        Act::Invite(args) => invite(args).await,
        Act::Disable(args) => switch(args, true).await,
        Act::Enable(args) => switch(args, false).await,
        Act::Limits(args) => of_person(args).await,
    }
}

/// The number of a person, as text.
///
/// # Errors
/// There is nobody of this name, or one may not look.
pub async fn id_of(api: &Api, name: &str) -> Result<String, Failure> {
    let everybody = api.list(&["people"], &[]).await?;
    let person = everybody.iter().find(|person| text(&person["name"]) == name);
    let nobody = || Failure::Here(format!("there is nobody named {}", harmless::line(name)));
    person.map(|person| person["id"].to_string()).ok_or_else(nobody)
}

async fn list(args: ListArgs) -> Outcome {
    let api = args.server.api()?;
    let items = api.list(&["people"], &[]).await?;
    if args.json {
        say(&harmless::json(&Value::Array(items)))?;
        return Ok(0);
    }
    let groups = api.list(&["groups"], &[]).await?;
    let group = |person: &Value| {
        let found = groups.iter().find(|group| group["id"] == person["group"]);
        found.map_or_else(|| person["group"].to_string(), |group| text(&group["name"]).to_owned())
    };
    let mut table = Table::new(&["NAME", "ROLE", "STATE", "GROUP", "ENDS", "ADDED"]);
    for person in &items {
        table.row([
            text(&person["name"]).to_owned(),
            text(&person["role"]).to_owned(),
            state(person).to_owned(),
            group(person),
            text(&person["expires_at"]).to_owned(),
            age(&person["created_at"]),
        ]);
    }
    say(&table.text())?;
    Ok(0)
}

fn state(person: &Value) -> &'static str {
    match () {
        () if !person["disabled_at"].is_null() => "disabled",
        () if is_past(&person["expires_at"]) => "ended",
        () if person["has_password"] == false => "invited",
        () => "active",
    }
}

fn is_past(time: &Value) -> bool {
    Time::parse(text(time)).is_some_and(|at| at <= Time::now())
}

async fn add(args: AddArgs) -> Outcome {
    let api = args.server.api()?;
    let mut body = Map::new();
    let role = args.role.to_possible_value();
    body.insert("name".to_owned(), json!(args.name));
    body.insert("role".to_owned(), json!(role.as_ref().map(|role| role.get_name())));
    body.extend(args.expires.map(|expires| ("expires_at".to_owned(), json!(expires))));
    let made = api.post(&["people"], Some(&Value::Object(body))).await?;
    if args.json {
        say(&harmless::json(&made))?;
        return Ok(0);
    }
    link(&api, &made["invitation"])
}

async fn invite(args: OneArgs) -> Outcome {
    let api = args.server.api()?;
    let id = id_of(&api, &args.name).await?;
    let made = api.post(&["people", &id, "invitation"], None).await?;
    link(&api, &made)
}

/// Prints a link; over a socket only its path is known.
fn link(api: &Api, invitation: &Value) -> Outcome {
    let origin = api.origin();
    let origin = if origin.starts_with("http") { origin } else { String::new() };
    say(&harmless::line(&format!("{origin}{}", text(&invitation["path"]))))?;
    Ok(0)
}

async fn switch(args: ManyArgs, disabled: bool) -> Outcome {
    let api = &args.server.api()?;
    each(&args.names, async |name| {
        let id = id_of(api, &name).await?;
        let body = json!({"disabled": disabled});
        api.act(Method::PATCH, &["people", &id], &[], Some(&body), CALL_TIMEOUT).await?;
        Ok(name)
    })
    .await
}

async fn of_person(args: PersonLimitsArgs) -> Outcome {
    let api = args.server.api()?;
    let Some(name) = args.name else { return limits(&api, &["allowance"], &args.limits).await };
    let id = id_of(&api, &name).await?;
    let place = ["people", &*id, "allowance"];
    if args.reset {
        api.act(Method::DELETE, &place, &[], None, CALL_TIMEOUT).await?;
    }
    limits(&api, &place, &args.limits).await
}
