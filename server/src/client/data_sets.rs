//! `berth data-sets`: directories of the server's machine that containers can be given to read. And what `run` takes of
//! them.

use clap::Args;
use serde_json::{Value, json};

use super::error::Outcome;
use super::output::{Table, say};
use super::show::{number, text};
use super::{Server, harmless};

/// What `data-sets` takes.
#[derive(Args)]
pub struct DataSetsArgs {
    #[command(flatten)]
    server: Server,
    /// Only names.
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// `berth data-sets`.
///
/// # Errors
/// When nothing can be asked of the server.
pub async fn data_sets(args: DataSetsArgs) -> Outcome {
    let items = args.server.api()?.list(&["data-sets"], &[]).await?;
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
    let mut table = Table::new(&["NAME", "IN CONTAINERS", "DESCRIPTION"]);
    for item in &items {
        table.row([
            text(&item["name"]).to_owned(),
            number(&item["places"]).to_string(),
            text(&item["description"]).to_owned(),
        ]);
    }
    say(&table.text())?;
    Ok(0)
}

/// Reads `NAME:/PATH`.
///
/// # Errors
/// What it should be.
pub fn mount(words: &str) -> Result<Value, String> {
    let wrong = || format!("{words:?} is not NAME:/path; a data set is always read-only");
    let (name, target) = words.split_once(':').ok_or_else(wrong)?;
    if name.is_empty() || name.contains('/') || !target.starts_with('/') || target.contains(':') {
        return Err(wrong());
    }
    Ok(json!({"name": name, "target": target}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_sets_are_named() {
        assert_eq!(mount("dogs:/data"), Ok(json!({"name": "dogs", "target": "/data"})));
        for bad in ["", "dogs", ":/x", "dogs:x", "/srv/dogs:/x", "../dogs:/x", "dogs:/x:rw"] {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }
}
