//! The embedded assets: style sheet, script, icons and favicons, each under a name that carries the
//! hash of its content, so that it can be cached for good. No file is ever read at run time.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// How long a hashed asset may be kept by a browser.
pub const CACHE_CONTROL: &str = "public, max-age=31536000, immutable";
/// The first part of every asset's path.
pub const PREFIX: &str = "/assets/";

const STYLE_SHEET: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// One embedded file.
#[derive(Debug)]
pub struct Asset {
    /// Its path, `/assets/app.0123456789ab.css`.
    pub path: String,
    /// Its media type.
    pub content_type: &'static str,
    /// Its content.
    pub body: &'static str,
}

// Tokens, frame and parts come first; then each family of pages in a file of its own.
static STYLE: &str = concat!(
    include_str!("../static/tokens.css"),
    include_str!("../static/shell.css"),
    include_str!("../static/parts.css"),
    include_str!("../static/home.css"),
    include_str!("../static/containers.css"),
    include_str!("../static/container.css"),
    include_str!("../static/terminal.css"),
    include_str!("../static/charts.css"),
    include_str!("../static/launch.css"),
    include_str!("../static/images.css"),
    include_str!("../static/operations.css"),
    include_str!("../static/account.css"),
    include_str!("../static/people.css"),
    include_str!("../static/events.css"),
    include_str!("../static/registries.css"),
    include_str!("../static/system.css"),
    include_str!("../static/help.css"),
    include_str!("../static/entry.css"),
);
static SCRIPT: &str = concat!(
    include_str!("../static/live.js"),
    include_str!("../static/ui.js"),
    include_str!("../static/container.js"),
    include_str!("../static/launch.js"),
);

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let svg = "image/svg+xml";
    vec![
        asset("app", "css", STYLE_SHEET, STYLE),
        asset("app", "js", JAVASCRIPT, SCRIPT),
        asset("terminal", "js", JAVASCRIPT, include_str!("../static/terminal.js")),
        // Others' work, as they give it out: xterm.js and its addon (MIT, see static/vendor).
        asset("xterm", "js", JAVASCRIPT, include_str!("../static/vendor/xterm.js")),
        asset("xterm-fit", "js", JAVASCRIPT, include_str!("../static/vendor/xterm-fit.js")),
        asset("xterm", "css", STYLE_SHEET, include_str!("../static/vendor/xterm.css")),
        // For operators, who import it into Grafana.
        asset("grafana", "json", "application/json", include_str!("../static/grafana.json")),
        asset("icons", "svg", svg, include_str!("../static/icons.svg")),
        asset("mark-idle", "svg", svg, include_str!("../static/mark-idle.svg")),
        asset("mark-running", "svg", svg, include_str!("../static/mark-running.svg")),
        asset("mark-attention", "svg", svg, include_str!("../static/mark-attention.svg")),
    ]
});

/// Finds an asset by the last part of its path.
pub fn find(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path.strip_prefix(PREFIX) == Some(name))
}

/// All assets.
pub fn all() -> &'static [Asset] {
    &ASSETS
}

/// The path of the asset with this stem and extension, for templates.
pub(crate) fn path(stem: &str, extension: &str) -> &'static str {
    ASSETS
        .iter()
        .map(|asset| asset.path.as_str())
        .find(|path| {
            path.strip_prefix(PREFIX)
                .and_then(|name| name.strip_prefix(stem))
                .is_some_and(|rest| rest.starts_with('.') && rest.ends_with(extension))
        })
        .unwrap_or_default()
}

fn asset(stem: &str, extension: &str, content_type: &'static str, body: &'static str) -> Asset {
    let hash = Sha256::digest(body.as_bytes());
    let digits: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Asset { path: format!("{PREFIX}{stem}.{digits}.{extension}"), content_type, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_asset_is_found_by_its_hashed_name_only() {
        for asset in all() {
            let name = asset.path.strip_prefix(PREFIX).expect("the prefix");
            assert_eq!(find(name).map(|found| found.body), Some(asset.body));
            assert!(!asset.body.is_empty());
        }
        assert!(find("app.css").is_none());
        assert!(find("../app.css").is_none());
        assert!(!path("app", "css").is_empty());
        assert!(path("nothing", "css").is_empty());
    }

    #[test]
    fn the_script_stays_small() {
        assert!(SCRIPT.len() < 60 * 1024, "app.js is {} bytes", SCRIPT.len());
    }
}
