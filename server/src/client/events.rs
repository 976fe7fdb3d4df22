//! Server-sent events (WHATWG HTML, 9.2), as far as the API sends them: lines end with a line feed, and
//! each event has a name.

use std::time::Duration;

use reqwest::Response;

use super::api::causes;
use super::error::Failure;

/// A stream of events says something every fifteen seconds.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// An event at most; a record of a log is the largest.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// A stream of events.
pub struct Events {
    response: Response,
    unread: Vec<u8>,
}

/// One of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Where a stream goes on after it; empty when it says none.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it says.
    pub data: String,
}

impl Events {
    /// Those of an answer.
    pub fn of(response: Response) -> Self {
        Self { response, unread: Vec::new() }
    }

    /// The next event; `None` when the stream has ended.
    ///
    /// # Errors
    /// When it breaks, is silent for too long, or sends what is no event.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            while let Some(end) = end_of_event(&self.unread) {
                let event: Vec<u8> = self.unread.drain(..end).collect();
                if let Some(event) = read_event(&String::from_utf8_lossy(&event)) {
                    return Ok(Some(event));
                }
            }
            if self.unread.len() > EVENT_BYTES_MAX {
                return Err(Failure::Unreachable("the server sends too long an event".into()));
            }
            let chunk = tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await;
            let chunk = chunk
                .map_err(|_| Failure::Unreachable("the server has fallen silent".into()))?
                .map_err(|error| {
                    Failure::Unreachable(format!("the connection broke: {}", causes(&error)))
                })?;
            match chunk {
                Some(bytes) => self.unread.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

fn end_of_event(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair == b"\n\n").map(|at| at + 2)
}

/// Reads an event; `None` for one that is only a comment.
fn read_event(text: &str) -> Option<Event> {
    let mut event = Event::default();
    for line in text.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => value.clone_into(&mut event.id),
            "event" => value.clone_into(&mut event.name),
            "data" => {
                if !event.data.is_empty() {
                    event.data.push('\n');
                }
                event.data.push_str(value);
            }
            _ => {}
        }
    }
    (!event.name.is_empty()).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_comments_are_not() {
        let event = read_event("id: 7\nevent: stdout\ndata: {\"a\":1}\n\n").expect("an event");
        let is = Event { id: "7".into(), name: "stdout".into(), data: "{\"a\":1}".into() };
        assert_eq!(event, is);
        assert_eq!(read_event(":\n\n"), None);
        assert_eq!(end_of_event(b"event: a\n\nevent"), Some(10));
    }
}
