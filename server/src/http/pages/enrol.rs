//! People from a table, for operators: what would become of each line, then their links, once.

use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use berth_web::parts::{Badge, Field};
use berth_web::people::{ImportLine, ImportPage};
use berth_web::shell::{ApiCall, Section, Tone};

use super::form::Posted;
use super::frame::{Frame, sentence};
use super::people::fresh;
use super::person::last_day;
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::error::Result;
use crate::http::export;
use crate::http::routes::{Access, FormFields, Routes};
use crate::service::enrol::{self, Added, Line, Verdict};

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let manage = Access::Operator(TokenScope::Manage);
    routes.page(manage, Method::GET, "/people/import", begin).form(
        manage,
        "/people/import",
        FormFields::once(&["csv", "add"]),
        import,
    )
}

async fn begin(frame: Frame) -> Result<Response> {
    let csv = Field::new(format!("{}\n", enrol::COLUMNS.join(",")));
    frame.page(&ImportPage { csv, ..page(&frame) })
}

async fn import(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let text = posted.exact("csv");
    let csv = Field::new(text);
    let error = if posted.text("add") == "yes" {
        match enrol::add(&app, &caller, text).await {
            Ok(added) => {
                let view = with_links(&frame, &added);
                return frame.page_with(StatusCode::CREATED, &view);
            }
            Err(error) => error,
        }
    } else {
        match enrol::look(&app, text).await {
            Ok(lines) => return frame.page(&ImportPage { csv, ..with_lines(&frame, &lines) }),
            Err(error) => error,
        }
    };
    let (status, mut wrong, error) = frame.refusal(error)?;
    let csv = Field { error: sentence(&wrong.take("/csv")), ..csv };
    frame.page_with(status, &ImportPage { csv, error, ..page(&frame) })
}

fn page(frame: &Frame) -> ImportPage {
    let mut shell = frame.shell("People from a table", Section::People);
    shell.path = "/people/import".to_owned();
    let body = "{\"csv\": \"name,role\\nkim,user\\n\", \"dry_run\": true}";
    let path = "/api/v1/people/import";
    shell.calls = vec![ApiCall::send("Say what would happen", "POST", path, Some(body.to_owned()))];
    ImportPage { shell, ..ImportPage::default() }
}

fn with_lines(frame: &Frame, lines: &[Line]) -> ImportPage {
    let all_new = lines.iter().all(|line| line.verdict == Verdict::New);
    ImportPage {
        lines: lines.iter().map(shown).collect(),
        ready: if all_new { lines.len() } else { 0 },
        ..page(frame)
    }
}

fn shown(line: &Line) -> ImportLine {
    let (tone, icon, word) = match line.verdict {
        Verdict::New => (Tone::Good, "check", "new"),
        Verdict::Exists => (Tone::Attention, "attention", "exists already"),
        Verdict::Duplicate => (Tone::Bad, "failed", "twice"),
        Verdict::BadName => (Tone::Bad, "failed", "no name"),
        Verdict::BadRole => (Tone::Bad, "failed", "no role"),
        Verdict::NoGroup => (Tone::Bad, "failed", "no such group"),
        Verdict::BadEnd => (Tone::Bad, "failed", "no end"),
        Verdict::BadCells => (Tone::Bad, "failed", "cells"),
    };
    let new = line.verdict == Verdict::New;
    let reason = if new { String::new() } else { line.said.clone() };
    let mut what = Vec::new();
    if new {
        what.extend(line.role.map(|role| role.as_str().to_owned()));
        what.extend(line.group.as_ref().map(|group| format!("in {group}")));
        what.extend(line.expires_at.map(|at| format!("through {}", last_day(at))));
    }
    ImportLine {
        number: line.line,
        name: line.name.clone(),
        verdict: Badge { tone, icon, word: word.to_owned(), reason },
        what: what.join(", "),
    }
}

/// The links, to be read and as a file that no spreadsheet calculates with.
fn with_links(frame: &Frame, added: &[Added]) -> ImportPage {
    let links: Vec<_> = added.iter().map(|one| fresh(frame, &one.name, &one.invitation)).collect();
    let mut file = export::line(["name", "link", "until"].map(str::to_owned).into_iter());
    for (link, one) in links.iter().zip(added) {
        let until = one.invitation.expires_at.to_string();
        file.push_str(&export::line([link.name.clone(), link.link.clone(), until].into_iter()));
    }
    let file = format!("data:text/csv;charset=utf-8;base64,{}", STANDARD.encode(file));
    ImportPage { links, file: Some(file), ..page(frame) }
}
