//! `berth ask` and `berth asks`: more of a limit, asked for and decided.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::error::{Failure, Outcome};
use super::output::{Table, say};
use super::show::{age, number, text};
use super::units::{self, shown_bytes, shown_cpus};
use super::{Server, harmless};

/// What `ask` takes.
#[derive(Args)]
pub struct AskArgs {
    #[command(flatten)]
    server: Server,
    /// Of what.
    #[arg(value_enum)]
    limit: Limit,
    /// How much you would have in all: 16g, 1.5 cores as 1.5, or 10.
    amount: String,
    /// Why; operators read it.
    #[arg(long)]
    reason: String,
    /// Until when: a day in UTC, through which it holds, or a time; for good when left out.
    #[arg(long, value_name = "DAY")]
    until: Option<String>,
}

/// What `asks` takes.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AsksArgs {
    #[command(subcommand)]
    act: Option<Act>,
    #[command(flatten)]
    list: ListArgs,
}

/// What is done with asks.
#[derive(Subcommand)]
enum Act {
    /// List what waits for an answer: your own, or everybody's for operators and auditors.
    Ls(ListArgs),
    /// Take back what you have asked for.
    Withdraw(OneArgs),
    /// Grant it, or less than that (operators).
    Approve(ApproveArgs),
    /// Say no (operators).
    Decline(DeclineArgs),
    /// End what was granted for a time before its hour (operators).
    End(OneArgs),
}

/// What `asks ls` takes.
#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    server: Server,
    /// Those that were answered or withdrawn, too.
    #[arg(short, long)]
    all: bool,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// One ask.
#[derive(Args)]
struct OneArgs {
    #[command(flatten)]
    server: Server,
    /// Its number.
    id: u32,
}

/// What `asks approve` takes.
#[derive(Args)]
struct ApproveArgs {
    #[command(flatten)]
    one: OneArgs,
    /// How much in all; as asked for when left out.
    #[arg(long, value_name = "AMOUNT")]
    give: Option<String>,
    /// Until when: a day in UTC, or a time; as asked for when left out.
    #[arg(long, value_name = "DAY", conflicts_with = "for_good")]
    until: Option<String>,
    /// For good, whatever was asked for.
    #[arg(long)]
    for_good: bool,
    /// A word to whoever asked.
    #[arg(long, default_value = "")]
    answer: String,
}

/// What `asks decline` takes.
#[derive(Args)]
struct DeclineArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Why; whoever asked reads it.
    #[arg(long)]
    reason: String,
}

/// A limit as people name it here.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Limit {
    /// Processors.
    Cpus,
    /// Memory.
    Memory,
    /// Swap.
    Swap,
    /// Processes and threads.
    Pids,
    /// Containers.
    Containers,
    /// Ports of the host.
    Ports,
    /// Images.
    Images,
    /// Size of all images.
    ImageBytes,
    /// What is kept on disk.
    Disk,
    /// Bytes a second read from the disk.
    Read,
    /// Bytes a second written to the disk.
    Write,
    /// Bytes a second over the network.
    Network,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Cpus,
        Self::Memory,
        Self::Swap,
        Self::Pids,
        Self::Containers,
        Self::Ports,
        Self::Images,
        Self::ImageBytes,
        Self::Disk,
        Self::Read,
        Self::Write,
        Self::Network,
    ];

    /// As the API has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpus => "cpu_millis",
            Self::Memory => "memory_bytes",
            Self::Swap => "swap_bytes",
            Self::Pids => "pids",
            Self::Containers => "containers_max",
            Self::Ports => "ports_max",
            Self::Images => "images_max",
            Self::ImageBytes => "images_bytes",
            Self::Disk => "data_bytes",
            Self::Read => "io_read_bytes_per_sec",
            Self::Write => "io_write_bytes_per_sec",
            Self::Network => "net_bytes_per_sec",
        }
    }

    /// That of this name in the API.
    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|limit| limit.name() == name)
    }

    /// An amount as people write it.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn read(self, amount: &str) -> Result<u64, String> {
        match self {
            Self::Cpus => units::cpus(amount).map(u64::from),
            Self::Pids | Self::Containers | Self::Ports | Self::Images => {
                amount.trim().parse().map_err(|_| format!("{amount:?} is no whole number"))
            }
            _ => units::bytes(amount),
        }
    }

    /// As people write it here.
    ///
    /// # Errors
    /// Says which there are.
    pub fn parse(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|limit| limit.word() == word);
        let all = || Self::ALL.map(Self::word).join(", ");
        found.ok_or_else(|| format!("{word:?} is no limit; there are {}", all()))
    }

    /// Its name here.
    pub fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// An amount for a table.
    pub fn shown(self, amount: u64) -> String {
        match self {
            Self::Cpus => shown_cpus(amount),
            Self::Pids | Self::Containers | Self::Ports | Self::Images => amount.to_string(),
            Self::Read | Self::Write | Self::Network => format!("{}/s", shown_bytes(amount)),
            _ => shown_bytes(amount),
        }
    }
}

/// `berth ask`.
///
/// # Errors
/// When the server refuses, or nothing can be asked of it.
pub async fn ask(args: AskArgs) -> Outcome {
    let mut body = Map::new();
    body.insert("limit".to_owned(), json!(args.limit.name()));
    body.insert("wanted".to_owned(), json!(args.limit.read(&args.amount).map_err(Failure::Usage)?));
    body.insert("reason".to_owned(), json!(args.reason));
    body.extend(args.until.map(|until| ("until".to_owned(), json!(until))));
    let made = args.server.api()?.post(&["asks"], Some(&Value::Object(body))).await?;
    say(&number(&made["id"]).to_string())?;
    Ok(0)
}

/// `berth asks`.
///
/// # Errors
/// When the server refuses, or nothing can be asked of it.
pub async fn asks(args: AsksArgs) -> Outcome {
    match args.act {
        None => list(args.list).await,
        Some(Act::Ls(args)) => list(args).await,
        Some(Act::Withdraw(args)) => act(&args, "withdraw", None).await,
        Some(Act::Approve(args)) => approve(args).await,
        Some(Act::Decline(args)) => {
            act(&args.one, "decline", Some(json!({"reason": args.reason}))).await
        }
        Some(Act::End(args)) => act(&args, "end", None).await,
    }
}

async fn list(args: ListArgs) -> Outcome {
    let query: &[(&str, &str)] = if args.all { &[] } else { &[("state", "open")] };
    let items = args.server.api()?.list(&["asks"], query).await?;
    if args.json {
        say(&harmless::json(&Value::Array(items)))?;
        return Ok(0);
    }
    let mut table = Table::new(&[
        "ID", "WHO", "OF", "WANTED", "ALLOWED", "USED", "UNTIL", "STATE", "ASKED", "WHY",
    ]);
    for item in &items {
        let limit = Limit::of(text(&item["limit"]));
        let shown = |value: &Value| match (limit, value.as_u64()) {
            (Some(limit), Some(amount)) => limit.shown(amount),
            _ => String::new(),
        };
        let until = if item["ends_at"].is_null() { &item["until"] } else { &item["ends_at"] };
        table.row([
            number(&item["id"]).to_string(),
            text(&item["person"]["name"]).to_owned(),
            limit.map_or_else(|| text(&item["limit"]).to_owned(), Limit::word),
            shown(&item["wanted"]),
            shown(&item["now"]["allowed"]),
            shown(&item["now"]["used"]),
            if until.is_null() { "for good".to_owned() } else { text(until).to_owned() },
            text(&item["state"]).to_owned(),
            age(&item["asked_at"]),
            text(&item["reason"]).to_owned(),
        ]);
    }
    say(&table.text())?;
    Ok(0)
}

async fn approve(args: ApproveArgs) -> Outcome {
    let mut body = Map::new();
    if let Some(amount) = &args.give {
        let id = args.one.id.to_string();
        let ask = args.one.server.api()?.get(&["asks", &id], &[]).await?;
        let limit = Limit::of(text(&ask["limit"])).ok_or_else(|| {
            Failure::Here(format!("this program does not know {}", text(&ask["limit"])))
        })?;
        body.insert("granted".to_owned(), json!(limit.read(amount).map_err(Failure::Usage)?));
    }
    body.extend(args.until.map(|until| ("until".to_owned(), json!(until))));
    body.insert("for_good".to_owned(), json!(args.for_good));
    body.insert("answer".to_owned(), json!(args.answer));
    act(&args.one, "approve", Some(Value::Object(body))).await
}

async fn act(one: &OneArgs, verb: &str, body: Option<Value>) -> Outcome {
    let id = one.id.to_string();
    one.server.api()?.post(&["asks", &id, verb], body.as_ref()).await?;
    say(&id)?;
    Ok(0)
}
