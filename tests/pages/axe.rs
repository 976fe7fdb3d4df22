//! axe-core, which looks for what keeps people out: contrast, names, roles, order. It comes from npm
//! once, into a cache outside the tree.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::browser::Browser;

const VERSION: &str = "4.14.1";

/// Its source.
///
/// # Errors
/// Why it cannot be had.
pub(crate) fn source() -> Result<String, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("berth-tests")
        .join(format!("axe-core-{VERSION}"));
    let path = cache.join("node_modules/axe-core/axe.min.js");
    if !path.exists() {
        std::fs::create_dir_all(&cache).map_err(|error| format!("make a cache: {error}"))?;
        let got = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
            .arg(&cache)
            .arg(format!("axe-core@{VERSION}"))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("npm cannot be run: {error}"))?;
        if !got.status.success() {
            let words = String::from_utf8_lossy(&got.stderr);
            return Err(format!("npm does not get axe-core: {}", words.trim()));
        }
    }
    std::fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))
}

/// What it finds serious or critical on the open page, one line each.
pub(crate) async fn findings(browser: &Browser, source: &str) -> Vec<String> {
    let script = format!(
        "const done = arguments[arguments.length - 1];
         if (!window.axe) {{ {source} }}
         axe.run(document, {{ resultTypes: ['violations'], preload: false }}).then(
           (found) => done(found.violations
             .filter((rule) => ['serious', 'critical'].includes(rule.impact))
             .flatMap((rule) => rule.nodes.map((node) =>
               `${{rule.id}}: ${{node.html.slice(0, 200)}}: ${{node.failureSummary.slice(0, 300)}}`))),
           (error) => done([`axe failed: ${{error}}`]));"
    );
    let found = browser.client.execute_async(&script, Vec::new()).await.expect("axe answers");
    let lines = found.as_array().expect("axe answers with a list");
    lines.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
