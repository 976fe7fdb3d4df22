//! The server's own newest warnings and errors, kept in memory for operators who have no shell: what
//! the log says at these levels, and nothing below.

use std::collections::VecDeque;
use std::fmt::{Debug, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use utoipa::ToSchema;

use crate::clock::Time;

/// Warnings kept.
pub const KEPT_MAX: usize = 200;
/// One warning's bytes at most.
const TEXT_BYTES_MAX: usize = 2000;

static KEPT: LazyLock<Mutex<VecDeque<Warning>>> = LazyLock::new(Mutex::default);

/// One line of the server's log.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Warning {
    /// When.
    pub at: Time,
    /// `warning` or `error`.
    pub level: &'static str,
    /// What, with its fields.
    pub text: String,
}

/// Keeps what passes at these levels.
#[derive(Debug)]
pub struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => return,
        };
        let mut line = Line::default();
        event.record(&mut line);
        let mut text = line.message + &line.fields;
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(Warning { at: Time::now(), level, text });
    }
}

/// What is kept, newest first.
pub fn newest() -> Vec<Warning> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).iter().rev().cloned().collect()
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn warnings_are_kept_newest_first_and_nothing_below() {
        let subscriber = tracing_subscriber::registry().with(Keep);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not kept");
            for number in 0..=KEPT_MAX {
                tracing::warn!(number, "kept");
            }
            tracing::error!(error = "no disk", "a request failed");
        });
        let kept = newest();
        assert_eq!(kept.len(), KEPT_MAX);
        assert_eq!(
            (kept[0].level, kept[0].text.as_str()),
            ("error", "a request failed error=no disk")
        );
        assert_eq!(kept[1].text, format!("kept number={KEPT_MAX}"));
    }
}
