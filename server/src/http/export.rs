//! Long lists as files: CSV (RFC 4180) or one JSON object a line, written while they are read. A file
//! that ends early for an error ends the connection too, so that it is not taken for a whole one.

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::stream;
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, Result};

/// How a file is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Comma-separated values with a line of names; cells that a spreadsheet would calculate begin
    /// with an apostrophe.
    #[default]
    Csv,
    /// One JSON object a line.
    Json,
}

/// A row of a CSV file.
pub trait Cells {
    /// The names of the columns.
    const NAMES: &'static [&'static str];

    /// The cells, in the order of the names.
    fn cells(&self) -> Vec<String>;
}

/// Answers with a file of `batches`, called `name` with the format's ending.
///
/// # Errors
/// When the caller has too many streams open.
pub fn file<T, S>(
    app: &App,
    caller: &Caller,
    (name, format): (&str, Format),
    batches: S,
) -> Result<Response>
where
    T: Cells + Serialize + Send + 'static,
    S: Stream<Item = Result<Vec<T>>> + Send + 'static,
{
    let (media_type, ending) = match format {
        Format::Csv => ("text/csv; charset=utf-8", "csv"),
        Format::Json => ("application/x-ndjson", "ndjson"),
    };
    let chunks = batches.map(move |batch| write(&batch?, format));
    let head = match format {
        Format::Csv => Bytes::from(line(T::NAMES.iter().map(|name| (*name).to_owned()))),
        Format::Json => Bytes::new(),
    };
    let head = futures_util::stream::once(async move { Ok(head) });
    let body = Body::from_stream(stream::guarded(app, caller, None, head.chain(chunks))?);
    let headers = [
        (CONTENT_TYPE, media_type.to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.{ending}\"")),
    ];
    Ok((headers, body).into_response())
}

fn write<T: Cells + Serialize>(rows: &[T], format: Format) -> Result<Bytes> {
    let mut out = String::new();
    for row in rows {
        match format {
            Format::Csv => out.push_str(&line(row.cells().into_iter())),
            Format::Json => {
                let text = serde_json::to_string(row);
                out.push_str(&text.map_err(|source| Error::broken("write a row", source))?);
                out.push('\n');
            }
        }
    }
    Ok(out.into())
}

/// A line of a CSV file.
pub fn line(cells: impl Iterator<Item = String>) -> String {
    let mut out = cells.map(|cell| quoted(&cell)).collect::<Vec<_>>().join(",");
    out.push_str("\r\n");
    out
}

/// A cell that no spreadsheet takes for a formula, in quotes where it must be.
fn quoted(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let cell = if formula { format!("'{cell}") } else { cell.to_owned() };
    if cell.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", cell.replace('"', "\"\""));
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_no_formula_is_written() {
        assert_eq!(quoted("plain"), "plain");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"hi\""), "\"say \"\"hi\"\"\"");
        assert_eq!(quoted("=cmd|' /C calc'!A0"), "'=cmd|' /C calc'!A0");
        assert_eq!(quoted("-1\n"), "\"'-1\n\"");
        assert_eq!(line(["a".to_owned(), String::new()].into_iter()), "a,\r\n");
    }
}
