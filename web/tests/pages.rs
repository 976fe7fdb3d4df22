//! Renders every page with sample data (empty, three rows, a thousand, longest and hostile names,
//! errors) and checks what must hold for all of them: nothing inline that the policy forbids, and
//! nothing a person has typed that became markup.
//!
//! With `BERTH_PREVIEW_DIR` set the pages and the assets are also written there, to be looked at.

mod samples;

use std::path::Path;

use berth_web::assets;

const HOSTILE: &str = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'\u{2028}";

#[test]
fn every_page_renders_and_holds_nothing_inline() {
    let pages = samples::all(HOSTILE);
    assert!(pages.len() > 20);
    for (name, html) in &pages {
        assert!(html.starts_with("<!doctype html>"), "{name} starts with {:?}", &html[..40]);
        assert!(html.trim_end().ends_with("</html>"), "{name} has an end");
        for forbidden in [" style=", "<style", "javascript:", " onclick=", " onload=", "<img"] {
            assert!(!html.contains(forbidden), "{name} contains {forbidden}");
        }
        assert_eq!(html.matches("<script").count(), 1, "{name} has its one script");
        assert_eq!(html.matches("<h1").count(), 1, "{name} has one main heading");
    }
    if let Some(folder) = std::env::var_os("BERTH_PREVIEW_DIR") {
        write_preview(Path::new(&folder), &pages);
    }
}

#[test]
fn hostile_text_stays_text() {
    let pages = samples::all(HOSTILE);
    let hostile: Vec<_> = pages.iter().filter(|(name, _)| name.starts_with("hostile")).collect();
    assert!(hostile.len() >= 5);
    for (name, html) in hostile {
        assert!(html.contains("&#60;script&#62;alert(1)"), "{name} shows the text");
        assert!(!html.contains("<script>alert"), "{name} has no such element");
        assert!(!html.contains("\"><sc"), "{name} breaks out of no attribute");
    }
}

/// Without a script a page is opened again whole: marks, open menus and typed text are lost.
#[test]
fn no_page_reloads_itself_under_what_somebody_fills_in() {
    let pages = samples::all("x");
    let reloading = pages.iter().filter(|(_, html)| html.contains("http-equiv=\"refresh\""));
    let mut seen = 0;
    for (name, html) in reloading {
        seen += 1;
        let fields =
            html.split("<input ").skip(1).filter(|rest| !rest.starts_with("type=\"hidden\""));
        assert_eq!(fields.count(), 0, "{name} has a field");
        assert!(!html.contains("<textarea") && !html.contains("<select"), "{name} has a field");
    }
    assert!(seen > 0, "one that is only watched does");
}

#[test]
fn every_icon_that_a_page_names_is_drawn() {
    let icons =
        assets::all().iter().find(|asset| asset.path.contains("/icons.")).expect("the sprite");
    for (name, html) in samples::all("x") {
        for rest in html.split(".svg#").skip(1) {
            let icon = &rest[..rest.find('"').expect("the attribute ends")];
            let symbol = format!("<symbol id=\"{icon}\"");
            assert!(icons.body.contains(&symbol), "{name} names the icon {icon:?}");
        }
    }
}

fn write_preview(folder: &Path, pages: &[(String, String)]) {
    std::fs::create_dir_all(folder.join("assets")).expect("make the preview's folder");
    for (name, html) in pages {
        std::fs::write(folder.join(format!("{name}.html")), html).expect("write a page");
    }
    for asset in assets::all() {
        let path = asset.path.trim_start_matches('/');
        std::fs::write(folder.join(path), asset.body).expect("write an asset");
    }
}
