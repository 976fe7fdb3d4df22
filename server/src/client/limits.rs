//! `berth people limits` and `berth groups limits`: what somebody, a group or everybody may use together.

use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::api::{Api, CALL_TIMEOUT};
use super::asks::Limit;
use super::error::{Failure, Outcome, REFUSED};
use super::harmless;
use super::output::{Table, say, tell};
use super::show::{number, text};

/// Lines of who would be over, at most.
const LINES_MAX: usize = 60;

/// What is done with limits.
#[derive(Args)]
pub struct LimitsArgs {
    /// Change one: memory=16g, cpus=1.5, containers=none. Can be given several times; the others stay.
    #[arg(long, value_name = "LIMIT=AMOUNT", value_parser = change)]
    set: Vec<Change>,
    /// Change them though somebody would be over; else it is said who, and nothing is changed.
    #[arg(long, requires = "set")]
    force: bool,
    /// Only say who would be over.
    #[arg(long, requires = "set", conflicts_with = "force")]
    dry_run: bool,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// A limit, and what it is to be; none is no bound.
#[derive(Debug, Clone, Copy)]
struct Change {
    name: &'static str,
    amount: Option<u64>,
}

fn change(given: &str) -> Result<Change, String> {
    let (name, amount) = given
        .split_once('=')
        .ok_or_else(|| format!("{given:?} has no \"=\"; write it like memory=16g"))?;
    let limit = Limit::parse(name)?;
    let amount = match amount.trim() {
        "none" => None,
        amount => Some(limit.read(amount)?),
    };
    Ok(Change { name: limit.name(), amount })
}

/// Shows the limits at this place of the API, or changes them.
///
/// # Errors
/// When the server refuses, or nothing can be asked of it.
pub async fn limits(api: &Api, place: &[&str], args: &LimitsArgs) -> Outcome {
    let now = api.get(place, &[]).await?;
    if args.set.is_empty() {
        return show(&now, args.json);
    }
    let mut wanted = match now {
        Value::Object(wanted) => wanted,
        _ => Map::new(),
    };
    // What the server says beside the allowance is not part of it.
    wanted.remove("own");
    wanted.remove("extras");
    for change in &args.set {
        wanted.insert(change.name.to_owned(), json!(change.amount));
    }
    let wanted = Value::Object(wanted);
    if !args.force {
        let asked: Vec<&str> = place.iter().copied().chain(["preview"]).collect();
        let preview = api.post(&asked, Some(&wanted)).await?;
        if args.dry_run && args.json {
            say(&harmless::json(&preview))?;
            return Ok(0);
        }
        let changed: Vec<&str> = args.set.iter().map(|change| change.name).collect();
        let over = over(&preview, &changed);
        if args.dry_run {
            let nobody = "nobody would be over".to_owned();
            say(&if over.is_empty() { nobody } else { over.join("\n") })?;
            return Ok(0);
        }
        if !over.is_empty() {
            for line in &over {
                tell(line);
            }
            return Err(Failure::Here(
                "nothing is changed; --force changes it all the same".to_owned(),
            ));
        }
    }
    let done = api.act(Method::PUT, place, &[], Some(&wanted), CALL_TIMEOUT).await?;
    for one in done["over"].as_array().into_iter().flatten() {
        tell(&format!("{} uses more memory now, and keeps what they had until then", text(one)));
    }
    let lacks: Vec<&Value> = done["held"].as_array().into_iter().flatten().collect();
    for one in lacks.into_iter().filter(|one| one["held"] == false) {
        tell(&format!("{} is not held here: {}", text(&one["name"]), text(&one["reason"])));
    }
    show(&done, args.json)
}

fn show(allowance: &Value, as_json: bool) -> Outcome {
    if as_json {
        say(&harmless::json(allowance))?;
        return Ok(0);
    }
    let mut table = Table::new(&["LIMIT", "ALLOWED"]);
    for limit in Limit::ALL {
        let most = allowance[limit.name()].as_u64();
        let mut text = most.map_or_else(|| "-".to_owned(), |most| limit.shown(most));
        for extra in allowance["extras"].as_array().into_iter().flatten() {
            if extra["limit"] == limit.name() {
                let until = extra["ends_at"].as_str().unwrap_or_default();
                text = format!("{text} ({} until {until})", limit.shown(number(&extra["granted"])));
            }
        }
        table.row([limit.word(), text]);
    }
    say(&table.text())?;
    Ok(0)
}

/// Who would be over in what is changed, and what would happen, a line each.
fn over(preview: &Value, changed: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    let is_changed = |one: &&Value| changed.contains(&text(&one["limit"]));
    for one in preview["over"].as_array().into_iter().flatten() {
        let name = text(&one["name"]);
        let limits = one["limits"].as_array().into_iter().flatten().filter(is_changed);
        lines.extend(limits.map(|limit| format!("{name}: {}", text(&limit["detail"]))));
        let containers = one["containers"].as_array().into_iter().flatten().filter(is_changed);
        lines.extend(containers.map(|container| {
            let container = text(&container["name"]);
            format!("{name}: {container} asks for more alone; it runs on, and is not started again")
        }));
    }
    let more = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// Does the same to each, all that can be done; 1 when one of them could not.
///
/// # Errors
/// What concerns all of them.
pub async fn each(
    names: &[String],
    act: impl AsyncFn(String) -> Result<String, Failure>,
) -> Outcome {
    let mut code = 0;
    for name in names {
        match act(name.clone()).await {
            Ok(said) => say(&harmless::line(&said))?,
            Err(failure @ (Failure::Refused(_) | Failure::Here(_))) => {
                tell(&format!("{name}: {}", failure.told().unwrap_or_default()));
                code = REFUSED;
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(code)
}
