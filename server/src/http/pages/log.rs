//! A container's log: its last lines, searched and narrowed by the server, followed by the script.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::Method;
use axum::response::Response;
use berth_web::containers::{LogLine, LogsPage, Tab};
use berth_web::parts::Scope;
use berth_web::shell::ApiCall;
use futures_util::StreamExt;
use serde::Deserialize;

use super::container::shell;
use super::frame::{Frame, encoded};
use super::shown;
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::routes::{Access, Routes};
use crate::service::containers;
use crate::service::containers::output::{self, LogPart, SEARCH_TEXT_BYTES_MAX};
use crate::service::logs::{LogEntry, LogSelection, LogStream, SEARCH_BYTES_MAX};

/// Lines shown when nothing is said, and at most.
const TAIL: u32 = 200;
const TAIL_MAX: u32 = 5000;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    routes.page(read, Method::GET, "/containers/{id}/logs", logs)
}

#[derive(Debug, Default, Clone, Deserialize)]
struct LogsQuery {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    tail: String,
    #[serde(default)]
    find: String,
    #[serde(default)]
    since: String,
    /// The form was sent: a box that is not there was not ticked.
    #[serde(default)]
    set: String,
    #[serde(default)]
    times: String,
    #[serde(default)]
    wrap: String,
}

/// A query with its values read.
struct Wanted {
    stream: Option<LogStream>,
    word: &'static str,
    tail: u32,
    find: String,
    since: &'static str,
    back: Option<Duration>,
    times: bool,
    wrap: bool,
}

impl Wanted {
    fn read(query: &LogsQuery) -> Result<Self> {
        let (stream, word) = match query.stream.as_str() {
            "stdout" => (Some(LogStream::Stdout), "stdout"),
            "stderr" => (Some(LogStream::Stderr), "stderr"),
            _ => (None, "all"),
        };
        let (since, minutes) = match query.since.as_str() {
            "15m" => ("15m", 15),
            "1h" => ("1h", 60),
            "24h" => ("24h", 24 * 60),
            _ => ("", 0),
        };
        let find = query.find.trim().to_owned();
        if find.len() > SEARCH_TEXT_BYTES_MAX {
            let text = format!("the text to find is longer than {SEARCH_TEXT_BYTES_MAX} bytes");
            return Err(Error::invalid("request.invalid", text));
        }
        Ok(Self {
            stream,
            word,
            tail: query.tail.parse().unwrap_or(TAIL).clamp(1, TAIL_MAX),
            find,
            since,
            back: (minutes > 0).then(|| Duration::from_secs(minutes * 60)),
            times: query.set.is_empty() || !query.times.is_empty(),
            wrap: query.set.is_empty() || !query.wrap.is_empty(),
        })
    }

    fn selection(&self) -> LogSelection {
        LogSelection {
            stream: self.stream,
            since: self.back.map(|back| Time::now().before(back).to_string()),
            // One more tells whether there are more.
            tail: usize::try_from(self.tail + 1).ok(),
            from: None,
            contains: Some(self.find.clone()).filter(|find| !find.is_empty()),
        }
    }

    /// The same page with another output or another number of lines.
    fn path(&self, id: &str, stream: &str, tail: u32) -> String {
        let mut path = format!("/containers/{id}/logs?stream={stream}&tail={tail}");
        for (name, value) in [("find", self.find.as_str()), ("since", self.since)] {
            if !value.is_empty() {
                path.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        if !(self.times && self.wrap) {
            path.push_str("&set=yes");
            for (name, on) in [("times", self.times), ("wrap", self.wrap)] {
                path.push_str(&if on { format!("&{name}=yes") } else { String::new() });
            }
        }
        path
    }

    /// What narrows the API's own calls.
    fn narrowing(&self) -> Vec<String> {
        let stream = self.stream.map(|_| format!("stream={}", self.word));
        let find = (!self.find.is_empty()).then(|| format!("contains={}", encoded(&self.find)));
        stream.into_iter().chain(find).collect()
    }
}

async fn logs(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<LogsQuery>,
) -> Result<Response> {
    let detail = containers::inspect(&app, &caller, &id).await?;
    let view = &detail.container;
    let wanted = Wanted::read(&query)?;
    let (entries, cut) = read_log(&app, &caller, &id, wanted.selection()).await?;
    let path = format!("/api/v1/containers/{}/logs", view.id);
    let mut follow = wanted.narrowing();
    follow.extend(entries.last().map(|entry| format!("from={}", entry.next)));
    let mut last = wanted.narrowing();
    last.push(format!("tail={}", wanted.tail));
    let calls = vec![
        ApiCall::get("Its last lines", format!("{path}?{}", last.join("&"))),
        ApiCall::get("Follow it", format!("{path}?follow=true&{}", last.join("&"))),
    ];
    let lines = lines(entries);
    let skipped = lines.len().saturating_sub(wanted.tail as usize);
    let more = wanted.path(view.id.as_str(), wanted.word, TAIL_MAX);
    let mut whole = wanted.narrowing();
    whole.extend(["timestamps=true", "download=true"].map(str::to_owned));
    let page = LogsPage {
        shell: shell(&frame, view, calls),
        head: shown::head(&caller, view, Tab::Logs),
        streams: streams(&wanted, view.id.as_str()),
        stream: wanted.word.to_owned(),
        tail: wanted.tail,
        left_out: left_out(skipped > 0, cut),
        more: (skipped > 0 && wanted.tail < TAIL_MAX).then_some(more),
        lines: lines.into_iter().skip(skipped).collect(),
        follow: format!("{path}/events?{}", follow.join("&")),
        live: shown::is_live(view),
        download: format!("{path}?{}", whole.join("&")),
        find: wanted.find,
        since: wanted.since.to_owned(),
        times: wanted.times,
        wrap: wanted.wrap,
    };
    frame.page(&page)
}

fn streams(wanted: &Wanted, id: &str) -> Vec<Scope> {
    [("all", "All"), ("stdout", "Output"), ("stderr", "Errors")]
        .map(|(word, label)| Scope {
            label,
            count: None,
            path: wanted.path(id, word, wanted.tail),
            current: wanted.word == word,
        })
        .into()
}

fn left_out(skipped: bool, cut: bool) -> String {
    match (skipped, cut) {
        (_, true) => {
            format!(
                "Only the newest {} MiB of the log were looked through.",
                SEARCH_BYTES_MAX >> 20
            )
        }
        (true, false) => "Older lines are left out.".to_owned(),
        (false, false) => String::new(),
    }
}

async fn read_log(
    app: &App,
    caller: &Caller,
    id: &str,
    selection: LogSelection,
) -> Result<(Vec<LogEntry>, bool)> {
    let (_, parts) = output::logs(app, caller, id, selection).await?;
    futures_util::pin_mut!(parts);
    let (mut entries, mut cut) = (Vec::new(), false);
    while let Some(part) = parts.next().await {
        match part? {
            LogPart::Entries(more) => entries.extend(more),
            LogPart::Cut => cut = true,
            LogPart::Gap => {}
        }
    }
    Ok((entries, cut))
}

/// Records made into lines; what was split for its length is put together again.
fn lines(entries: Vec<LogEntry>) -> Vec<LogLine> {
    let mut lines: Vec<LogLine> = Vec::new();
    let mut open: [Option<usize>; 2] = [None, None];
    for entry in entries {
        let stderr = entry.stream == LogStream::Stderr;
        let text = visible(&String::from_utf8_lossy(&entry.content));
        let open = &mut open[usize::from(stderr)];
        match open.and_then(|index| lines.get_mut(index)) {
            Some(line) => line.text.push_str(&text),
            None => {
                *open = Some(lines.len());
                let clock = entry.time.get(11..23).unwrap_or(&entry.time).to_owned();
                lines.push(LogLine { clock, exact: entry.time, stderr, text });
            }
        }
        if !entry.partial {
            *open = None;
        }
    }
    lines
}

/// Control characters drawn instead of obeyed; colour sequences of terminals are left out, and so
/// are marks that turn the direction of text around.
pub(super) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' if rest.as_str().starts_with('[') => {
                let after = rest.as_str();
                let end =
                    after.find(|c: char| !(c == '[' || c == ';' || c == ':' || c.is_ascii_digit()));
                match end.filter(|&end| after[end..].starts_with('m')) {
                    Some(end) => rest = after[end + 1..].chars(),
                    None => out.push('␛'),
                }
            }
            '\t' => out.push(c),
            '\u{7f}' => out.push('␡'),
            '\0'..='\u{1f}' => out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('�')),
            '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push('�')
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn log_text_is_shown_and_not_obeyed() {
        assert_eq!(visible("a\u{1b}[1;31mred\u{1b}[0m b"), "ared b");
        assert_eq!(visible("\u{1b}]52;c;aGk=\u{7}"), "␛]52;c;aGk=␇");
        assert_eq!(visible("\u{1b}["), "␛[");
        assert_eq!(visible("x\u{202e}y\0\r\t"), "x�y␀␍\t");
        assert_eq!(visible("<b>&amp;"), "<b>&amp;");
    }
}
