//! `berth start`, `stop`, `kill` and `rm`: one act on each of some containers. Those that fail are told,
//! the others are done.

use std::time::Duration;

use clap::Args;
use reqwest::Method;

use super::api::{Api, CALL_TIMEOUT};
use super::error::{Failure, Outcome, REFUSED};
use super::output::{Output, say};
use super::show::number;
use super::{Name, Server, harmless};

/// What the server itself takes for an act, beside a container's own grace.
const ACT_TIMEOUT: Duration = Duration::from_secs(60);

/// Which containers.
#[derive(Args)]
pub struct Which {
    #[command(flatten)]
    server: Server,
    /// Their names or ids.
    #[arg(required = true)]
    containers: Vec<Name>,
}

/// What `stop` takes.
#[derive(Args)]
pub struct StopArgs {
    #[command(flatten)]
    which: Which,
    /// Seconds until it is killed, in place of its own.
    #[arg(short, long = "grace", visible_alias = "time", value_name = "SECONDS")]
    grace: Option<u32>,
}

/// What `kill` takes.
#[derive(Args)]
pub struct KillArgs {
    #[command(flatten)]
    which: Which,
    /// The signal, by name or number; KILL ends every process.
    #[arg(short, long, default_value = "KILL")]
    signal: String,
}

/// What `extend` takes.
#[derive(Args)]
pub struct ExtendArgs {
    #[command(flatten)]
    which: Which,
    /// How long from now, as in 90m, 8h or 2d; as long as is usual when left out.
    #[arg(long = "for", value_name = "TIME", value_parser = super::units::secs)]
    secs: Option<u64>,
}

/// What `rm` takes.
#[derive(Args)]
pub struct RmArgs {
    #[command(flatten)]
    which: Which,
    /// Also when it runs.
    #[arg(short, long)]
    force: bool,
}

/// `berth start`.
///
/// # Errors
/// When nothing can be asked of the server.
pub async fn start(args: Which) -> Outcome {
    each(&args, async |api, name| {
        api.act(Method::POST, &["containers", name, "start"], &[], None, ACT_TIMEOUT).await
    })
    .await
}

/// `berth stop`: waits for as long as the container may take.
///
/// # Errors
/// When nothing can be asked of the server.
pub async fn stop(args: StopArgs) -> Outcome {
    let grace = args.grace.map(|grace| grace.to_string());
    each(&args.which, async |api, name| {
        let shown = api.get(&["containers", name], &[]).await?;
        let own = number(&shown["stop_grace_secs"]);
        let secs = args.grace.map_or(own, u64::from);
        let query: Vec<_> = grace.iter().map(|grace| ("grace_secs", grace.as_str())).collect();
        let limit = ACT_TIMEOUT + Duration::from_secs(secs);
        api.act(Method::POST, &["containers", name, "stop"], &query, None, limit).await
    })
    .await
}

/// `berth extend`.
///
/// # Errors
/// When nothing can be asked of the server.
pub async fn extend(args: ExtendArgs) -> Outcome {
    let secs = args.secs.map(|secs| secs.to_string());
    let query: Vec<_> = secs.iter().map(|secs| ("secs", secs.as_str())).collect();
    each(&args.which, async |api, name| {
        api.act(Method::POST, &["containers", name, "extend"], &query, None, CALL_TIMEOUT).await
    })
    .await
}

/// `berth kill`.
///
/// # Errors
/// When nothing can be asked of the server.
pub async fn kill(args: KillArgs) -> Outcome {
    let query = [("signal", args.signal.as_str())];
    each(&args.which, async |api, name| {
        api.act(Method::POST, &["containers", name, "kill"], &query, None, CALL_TIMEOUT).await
    })
    .await
}

/// `berth rm`.
///
/// # Errors
/// When nothing can be asked of the server.
pub async fn rm(args: RmArgs) -> Outcome {
    let query: &[(&str, &str)] = if args.force { &[("force", "true")] } else { &[] };
    each(&args.which, async |api, name| {
        api.act(Method::DELETE, &["containers", name], query, None, ACT_TIMEOUT).await
    })
    .await
}

async fn each<T>(which: &Which, act: impl AsyncFn(&Api, &str) -> Result<T, Failure>) -> Outcome {
    let api = which.server.api()?;
    let mut code = 0;
    for name in &which.containers {
        match act(&api, name.as_str()).await {
            Ok(_) => say(&harmless::line(name.as_str()))?,
            Err(failure) => {
                let failure = failure.while_doing(name.as_str());
                let text = failure.told().unwrap_or_default();
                Output::Stderr.write(format!("berth: {text}\n").as_bytes())?;
                code = REFUSED;
            }
        }
    }
    Ok(code)
}
