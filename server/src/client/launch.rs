//! `berth run`: makes a container and starts it, shows what it writes, and ends as its program does.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::api::Api;
use super::attach::{self, Parting};
use super::error::{Failure, Outcome, by_signal};
use super::logs::{self, Wanted};
use super::output::{say, tell};
use super::session::Manner;
use super::show::{number, text};
use super::terminal::Ends;
use super::{Name, Server, data_sets, harmless, pull, units, volumes};

/// Making and starting a container.
const CREATE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one wait for its end may take at the server, in seconds, and here.
const WAIT_SECS: &str = "20";
const WAIT_TIMEOUT: Duration = Duration::from_secs(35);
/// Waits that fail, one after another, before the end is given up.
const WAITS_FAILED_MAX: u32 = 60;
const PAUSE: Duration = Duration::from_secs(1);
/// Between the coming of its image and its start.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(60);
const BEGIN_PAUSE: Duration = Duration::from_millis(100);

/// No container has come to run (docker-run(1), "Exit Status").
const NOT_RUN: u8 = 125;

/// What `run` takes.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    server: Server,
    /// Leave it running, and print its name.
    #[arg(short, long)]
    detach: bool,
    /// Give it the standard input; with -d, keep its own open for `berth attach`.
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal; with -i, your keys are its own, and Ctrl-P Ctrl-Q leaves it running.
    #[arg(short, long)]
    tty: bool,
    /// Remove the container, its files and its log when this command ends; left, or if this is killed, it
    /// stays.
    #[arg(long, conflicts_with = "detach")]
    rm: bool,
    /// Write the program's own bytes to a terminal too, control sequences included.
    #[arg(long)]
    raw: bool,
    /// As JSON: the container that was made.
    #[arg(long, requires = "detach")]
    json: bool,
    /// What it is called; made up from the image's name if nothing is said.
    #[arg(long)]
    name: Option<String>,
    /// A variable of its environment; without a value, your own one's.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The working directory, an absolute path inside.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who it runs as, names or numbers.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// A program in place of the image's entrypoint; the command is its arguments.
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// The host name inside; the container's name if nothing is said.
    #[arg(long)]
    hostname: Option<String>,
    /// A label.
    #[arg(short, long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Memory at most, such as 512m.
    #[arg(short, long, value_parser = units::bytes)]
    memory: Option<u64>,
    /// Swap beside the memory, such as 512m.
    #[arg(long, value_parser = units::bytes)]
    swap: Option<u64>,
    /// Processor time in cores, such as 0.5.
    #[arg(long, value_parser = units::cpus)]
    cpus: Option<u32>,
    /// Share of the processors under contention; 100 is neutral.
    #[arg(long, value_name = "1-10000")]
    cpu_weight: Option<u32>,
    /// Processes and threads at most.
    #[arg(long, visible_alias = "pids-limit")]
    pids: Option<u32>,
    /// When it is started again: no, on-failure, on-failure:N, always, unless-stopped.
    #[arg(long, value_name = "POLICY", requires = "detach", value_parser = restart)]
    restart: Option<Value>,
    /// How long it runs until it is stopped, as in 90m, 8h or 2d.
    #[arg(long, value_name = "TIME", value_parser = units::secs)]
    lifetime: Option<u64>,
    /// Its network.
    #[arg(long, value_enum)]
    network: Option<NetworkKind>,
    /// A port of the host that leads to one of its own: 8080 for a free one, 20080:8080 for that, 53/udp.
    #[arg(short, long, value_name = "[HOST:]PORT[/udp]", value_parser = port)]
    publish: Vec<Value>,
    /// A volume of yours at a place inside; made before by `berth volume create`.
    #[arg(short, long, value_name = "NAME:/PATH[:ro]", value_parser = volumes::mount)]
    volume: Vec<Value>,
    /// A data set at a place inside, read-only; `berth data-sets` lists them.
    #[arg(long, value_name = "NAME:/PATH", value_parser = data_sets::mount)]
    data_set: Vec<Value>,
    /// Mount its root read-only.
    #[arg(long)]
    read_only: bool,
    /// Asks the program to end, such as TERM.
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// A reference, as one would pull it, or an image's id.
    image: String,
    /// Program and arguments, or arguments to the image's entrypoint.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// A container's network.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum NetworkKind {
    /// An address on your own bridge, and the way out.
    Private,
    /// Loopback only.
    None,
}

/// `berth run`.
///
/// # Errors
/// When the command line is wrong; what the server refuses is told, with docker's exit codes.
pub async fn run(args: RunArgs) -> Outcome {
    if !args.detach {
        attach::check(manner(&args))?;
    }
    let body = request(&args)?;
    match launched(&args, &body).await {
        Ok(code) => Ok(code),
        Err(failure @ (Failure::Unread | Failure::Signal(_))) => Err(failure),
        Err(failure) => {
            tell(&failure.told().unwrap_or_default());
            Ok(failure.program_code().unwrap_or(NOT_RUN))
        }
    }
}

async fn launched(args: &RunArgs, body: &Value) -> Outcome {
    let api = args.server.api()?;
    let mut ends = Ends::listen()?;
    let made = api.act(Method::POST, &["containers"], &[], Some(body), CREATE_TIMEOUT).await?;
    let id = Name::of(text(&made["id"]));
    let name = text(&made["name"]).to_owned();
    if let Some(operation) = made["operation"].as_str() {
        let pulled = pull::finish(&api, operation, &mut ends).await;
        if let Err(failure) = pulled {
            remove(&api, id.as_str()).await;
            return Err(failure);
        }
        begun(&api, id.as_str()).await?;
    }
    if args.detach {
        let text = match args.json {
            true => harmless::json(&made),
            false => harmless::line(&name).into_owned(),
        };
        say(&text)?;
        return Ok(0);
    }
    let ended = match args.interactive || args.tty {
        true => match been_with(&api, &id, &name, args).await {
            // It is wanted, so it stays; --rm is for what is over.
            Ok(Parting::Left) => return Ok(0),
            Ok(Parting::Ended(code)) => Ok(code),
            Ok(Parting::Unseen) => said_all(&api, &id, args).await,
            Err(failure) => Err(failure),
        },
        false => watched(&api, &id, &name, args.raw, &mut ends).await,
    };
    if args.rm {
        remove(&api, id.as_str()).await;
    }
    ended
}

fn manner(args: &RunArgs) -> Manner {
    Manner { interactive: args.interactive, terminal: args.tty, raw: args.raw }
}

/// Is with its program until that ends or is left; one that was quicker has ended unseen.
async fn been_with(api: &Api, id: &Name, name: &str, args: &RunArgs) -> Result<Parting, Failure> {
    match attach::be_with(api, id.as_str(), name, manner(args)).await {
        Err(Failure::Refused(problem)) if problem.code == "container.not-running" => {
            Ok(Parting::Unseen)
        }
        ended => ended,
    }
}

/// What a program that was quicker has said, from its log, and how it ended.
async fn said_all(api: &Api, id: &Name, args: &RunArgs) -> Outcome {
    let shown = rested(api, id.as_str()).await?;
    let wanted = Wanted { raw: args.raw || args.tty, ..Wanted::default() };
    logs::show(api, id.as_str(), &wanted).await?;
    outcome(&shown)
}

/// Waits until a container whose image has come was started, or could not be.
async fn begun(api: &Api, id: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + BEGIN_TIMEOUT;
    loop {
        let shown = api.get(&["containers", id], &[]).await?;
        let started = number(&shown["run"]) > 0 && shown["status"] != "starting";
        if started || shown["status"] == "failed" {
            return Ok(());
        }
        if Instant::now() > deadline {
            let secs = BEGIN_TIMEOUT.as_secs();
            return Err(Failure::Here(format!("{id} was not started within {secs} seconds")));
        }
        tokio::time::sleep(BEGIN_PAUSE).await;
    }
}

/// Shows what it writes until it rests. The first Ctrl-C is the program's, as is what else is sent;
/// the second leaves it alone.
async fn watched(api: &Api, id: &Name, name: &str, raw: bool, ends: &mut Ends) -> Outcome {
    let wanted = Wanted { follow: true, raw, ..Wanted::default() };
    let to_the_end = async {
        logs::show(api, id.as_str(), &wanted).await?;
        rested(api, id.as_str()).await
    };
    tokio::pin!(to_the_end);
    let mut passed_on = 0;
    loop {
        let number = tokio::select! {
            ended = &mut to_the_end => return outcome(&ended?),
            number = ends.next() => number,
        };
        passed_on += 1;
        if passed_on > 1 {
            tell(&format!("{name} may still run; `berth stop {name}` ends it"));
            return Err(Failure::Signal(number));
        }
        let signal = number.to_string();
        let query = [("signal", signal.as_str())];
        let parts = ["containers", id.as_str(), "kill"];
        let sent = api.act(Method::POST, &parts, &query, None, CREATE_TIMEOUT).await;
        // One that has just ended has no use for it.
        if let Err(failure @ Failure::Unreachable(_)) = sent {
            return Err(failure);
        }
    }
}

/// The container once it rests.
pub async fn rested(api: &Api, id: &str) -> Result<Value, Failure> {
    let query = [("timeout_secs", WAIT_SECS)];
    let mut failed = 0;
    loop {
        match api.act(Method::GET, &["containers", id, "wait"], &query, None, WAIT_TIMEOUT).await {
            Ok(shown) if is_at_rest(text(&shown["status"])) => return Ok(shown),
            Ok(_) => failed = 0,
            Err(failure) if failure.is_passing() && failed < WAITS_FAILED_MAX => {
                failed += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn is_at_rest(status: &str) -> bool {
    matches!(status, "exited" | "failed" | "removing")
}

/// Its end as an exit code.
pub fn outcome(shown: &Value) -> Outcome {
    let exit = &shown["exit"];
    let lost = number(&exit["log_bytes_lost"]);
    if lost > 0 {
        tell(&format!("{lost} bytes of its output could not be kept"));
    }
    match (exit["code"].as_i64(), exit["signal"].as_i64(), text(&exit["cause"])) {
        (Some(code), _, "exited" | "killed") => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        (_, Some(signal), cause) => {
            if cause == "out_of_memory" {
                tell(text(&shown["status_text"]));
            }
            Ok(by_signal(i32::try_from(signal).unwrap_or(i32::MAX)))
        }
        (Some(code), ..) if text(&exit["cause"]) != "start_failed" => {
            Ok(u8::try_from(code).unwrap_or(u8::MAX))
        }
        _ => {
            tell(text(&shown["status_text"]));
            Ok(NOT_RUN)
        }
    }
}

/// Removes a container that this command has made; told when it cannot be.
async fn remove(api: &Api, id: &str) {
    let parts = ["containers", id];
    let gone = api.act(Method::DELETE, &parts, &[("force", "true")], None, CREATE_TIMEOUT).await;
    if let Err(failure) = gone {
        tell(&format!("{id} was not removed: {}", failure.told().unwrap_or_default()));
    }
}

/// The body of the request; what is left out is the server's to choose.
fn request(args: &RunArgs) -> Result<Value, Failure> {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            body.insert(name.to_owned(), value);
        }
    };
    put("image", json!(args.image));
    put("start", json!(true));
    put("name", json!(args.name));
    put("working_dir", json!(args.workdir));
    put("user", json!(args.user));
    put("hostname", json!(args.hostname));
    put("stop_signal", json!(args.stop_signal));
    put("entrypoint", json!(args.entrypoint.as_ref().map(|program| [program])));
    if !args.command.is_empty() {
        put("command", json!(args.command));
    }
    put("env", Value::Object(environment(&args.env)?));
    put("labels", Value::Object(pairs(&args.label, "--label")?));
    put("restart", json!(args.restart));
    put("lifetime_secs", json!(args.lifetime));
    put("read_only_root", json!(args.read_only));
    put("terminal", json!(args.tty));
    put("stdin", json!(args.interactive));
    put(
        "network",
        match args.network {
            None => Value::Null,
            Some(NetworkKind::Private) => json!("private"),
            Some(NetworkKind::None) => json!("none"),
        },
    );
    if !args.publish.is_empty() {
        put("ports", json!(args.publish));
    }
    if !args.volume.is_empty() {
        put("mounts", json!(args.volume));
    }
    if !args.data_set.is_empty() {
        put("data_sets", json!(args.data_set));
    }
    let limits = json!({
        "memory_bytes": args.memory, "swap_bytes": args.swap, "cpu_millis": args.cpus,
        "cpu_weight": args.cpu_weight, "pids": args.pids,
    });
    put("limits", limits);
    Ok(Value::Object(body))
}

/// Variables; one without a value is the caller's own, if there is one.
pub fn environment(words: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut found = Map::new();
    for word in words {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), std::env::var(word).ok()),
        };
        if name.is_empty() {
            return Err(Failure::Usage(format!("--env {word:?} has no name")));
        }
        if let Some(value) = value {
            found.insert(name.to_owned(), value.into());
        }
    }
    Ok(found)
}

fn pairs(words: &[String], option: &str) -> Result<Map<String, Value>, Failure> {
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.into())),
        _ => Err(Failure::Usage(format!("{option} {word:?} is not NAME=VALUE"))),
    };
    words.iter().map(pair).collect()
}

/// A port as the API has it.
fn port(text: &str) -> Result<Value, String> {
    let wrong = || format!("{text:?} is not 8080, 20080:8080 or 53/udp");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp") {
        return Err(wrong());
    }
    let read = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let mut port = json!({"protocol": protocol});
    match ports.split_once(':') {
        Some((host, container)) => {
            port["host_port"] = json!(read(host)?);
            port["container_port"] = json!(read(container)?);
        }
        None => port["container_port"] = json!(read(ports)?),
    }
    Ok(port)
}

/// A restart policy as the API has it.
fn restart(text: &str) -> Result<Value, String> {
    let (name, most) = match text.split_once(':') {
        Some((name @ "on-failure", most)) => (name, Some(most)),
        Some(_) => return Err("only on-failure takes a number".to_owned()),
        None => (text, None),
    };
    if !["no", "on-failure", "always", "unless-stopped"].contains(&name) {
        return Err("use no, on-failure, on-failure:N, always or unless-stopped".to_owned());
    }
    let Some(most) = most else { return Ok(json!({"name": name})) };
    let most: u32 = most.parse().map_err(|_| format!("{most:?} is no number"))?;
    Ok(json!({"name": name, "max_attempts": most}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_variables_are_read() {
        let policy = json!({"name": "on-failure", "max_attempts": 3});
        assert_eq!(restart("on-failure:3"), Ok(policy));
        assert_eq!(restart("always"), Ok(json!({"name": "always"})));
        assert!(restart("always:3").is_err() && restart("on-failure:x").is_err());
        let words = ["A=b=c".to_owned(), "E=".to_owned()];
        let found = environment(&words).expect("they are good");
        assert_eq!(Value::Object(found), json!({"A": "b=c", "E": ""}));
        assert!(environment(&["=x".to_owned()]).is_err());
    }
}
