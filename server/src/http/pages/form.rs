//! What people type into forms, and the API's field errors led back to the field that they are
//! about. Pure.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use berth_web::format;

use crate::error::{Error, FieldError, Refusal, Result};
use crate::http::extract::read_form_body;
use crate::http::routes::FormFields;
use crate::inventory::allowances::Bounded;

/// A form: what was posted, or what a page's own address says.
#[derive(Debug, Default, Clone)]
pub(super) struct Posted {
    once: HashMap<String, String>,
    /// What may come many times, in order.
    many: Vec<(String, String)>,
}

/// Field errors by pointer, in the API's own words.
#[derive(Debug, Default)]
pub(super) struct Wrong(Vec<FieldError>);

impl Posted {
    /// Of the pairs that a form sends.
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        Self { once: pairs.into_iter().collect(), many: Vec::new() }
    }

    /// Puts a text into a field.
    pub(super) fn set(&mut self, name: &str, value: String) {
        self.once.insert(name.to_owned(), value);
    }

    /// A field's text, without the space around it.
    pub(super) fn text(&self, name: &str) -> &str {
        self.once.get(name).map_or("", |value| value.trim())
    }

    /// A field as it was typed: passwords may begin or end with a space.
    pub(super) fn exact(&self, name: &str) -> &str {
        self.once.get(name).map_or("", String::as_str)
    }

    /// A field's text, if there is any.
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        let text = self.text(name);
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl Posted {
    /// Of the pairs that came, each of which the form must know.
    fn read(pairs: Vec<(String, String)>, fields: FormFields) -> Result<Self> {
        let mut posted = Self::default();
        for (name, value) in pairs {
            if fields.many.contains(&name.as_str()) {
                posted.many.push((name, value));
            } else if !fields.once.contains(&name.as_str()) {
                return Err(Error::field(format!("/{name}"), "this form has no such field"));
            } else if posted.once.insert(name.clone(), value).is_some() {
                return Err(Error::field(format!("/{name}"), "is there twice"));
            }
        }
        Ok(posted)
    }

    /// Every value of a field that may come many times.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.many.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Posted {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        // Put there by `read_form`, which stands before every handler that a form is sent to.
        parts.extensions.remove::<Self>().ok_or_else(|| Error::defect("find the posted form"))
    }
}

/// Reads the form before its handler runs; also of those who take nothing from it.
pub(in crate::http) async fn read_form(
    State(fields): State<FormFields>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let read = read_form_body(&parts.headers, body).await;
    match read.and_then(|pairs| Posted::read(pairs, fields)) {
        Ok(posted) => {
            parts.extensions.insert(posted);
            next.run(Request::from_parts(parts, axum::body::Body::empty())).await
        }
        Err(error) => error.into_response(),
    }
}

impl Wrong {
    /// The field errors of a refusal; `None` when it is of another kind.
    pub(super) fn of(error: &Error) -> Option<Self> {
        match error {
            Error::Invalid { fields, .. } if !fields.is_empty() => Some(Self(fields.clone())),
            // An allowance stands in the way of one limit of a container.
            Error::Reached { refusal, reached } => {
                let pointer = match reached.limit {
                    Bounded::CpuMillis => "/limits/cpu_millis",
                    Bounded::MemoryBytes => "/limits/memory_bytes",
                    Bounded::SwapBytes => "/limits/swap_bytes",
                    Bounded::Pids => "/limits/pids",
                    Bounded::ContainersMax
                    | Bounded::PortsMax
                    | Bounded::ImagesMax
                    | Bounded::ImagesBytes
                    | Bounded::DataBytes
                    | Bounded::IoReadBytesPerSec
                    | Bounded::IoWriteBytesPerSec
                    | Bounded::NetBytesPerSec => return None,
                };
                let detail = refusal.detail.clone();
                Some(Self(vec![FieldError { pointer: pointer.to_owned(), detail }]))
            }
            _ => None,
        }
    }

    /// What is wrong at or below `pointer`; each is said once.
    pub(super) fn take(&mut self, pointer: &str) -> String {
        let mut said = Vec::new();
        self.0.retain(|error| {
            let below = error.pointer.strip_prefix(pointer);
            let here = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if here {
                said.push(error.detail.clone());
            }
            !here
        });
        let said = said.join("; ");
        if pointer.ends_with("_bytes") { in_sizes(&said) } else { said }
    }

    /// As the refusal of a request.
    pub(super) fn into_error(self) -> Error {
        let refusal = Refusal::new("request.invalid", "some of it cannot be read");
        Error::Invalid { refusal, fields: self.0 }
    }

    /// What no field was found for.
    pub(super) fn rest(self) -> String {
        let rest = self.0.into_iter();
        let lines: Vec<_> = rest
            .map(|error| format!("{}: {}", error.pointer.trim_start_matches('/'), error.detail))
            .collect();
        lines.join("; ")
    }

    /// Whether nothing is wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One thing more is wrong.
    pub(super) fn add(&mut self, pointer: &str, detail: impl Into<String>) {
        self.0.push(FieldError { pointer: pointer.to_owned(), detail: detail.into() });
    }

    /// A size; empty is none.
    pub(super) fn size(&mut self, posted: &Posted, name: &str, pointer: &str) -> Option<u64> {
        let text = posted.text(name);
        if text.is_empty() {
            return None;
        }
        let read = format::read_bytes(text);
        if read.is_none() {
            self.add(pointer, format!("{text:?} is no size, such as 512 MiB"));
        }
        read
    }

    /// How long, in seconds; empty is none.
    pub(super) fn length(&mut self, posted: &Posted, name: &str, pointer: &str) -> Option<u32> {
        let text = posted.text(name);
        if text.is_empty() {
            return None;
        }
        let read = format::read_span(text).and_then(|secs| u32::try_from(secs).ok());
        if read.is_none() {
            self.add(pointer, format!("{text:?} is no length of time, such as 8 h or 1 d 30 min"));
        }
        read
    }

    /// A whole number; empty is none.
    pub(super) fn number(&mut self, posted: &Posted, name: &str, pointer: &str) -> Option<u32> {
        let text = posted.text(name);
        if text.is_empty() {
            return None;
        }
        let read = text.parse().ok();
        if read.is_none() {
            self.add(pointer, format!("{text:?} is no whole number"));
        }
        read
    }

    /// One of a list; empty is its first.
    pub(super) fn choice<T: Copy>(
        &mut self,
        posted: &Posted,
        name: &str,
        pointer: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let text = posted.text(name);
        let found = match text.is_empty() {
            true => choices.first(),
            false => choices.iter().find(|(word, _)| *word == text),
        };
        if found.is_none() {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.add(pointer, format!("choose one of {}", words.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A box that is ticked or not.
    pub(super) fn flag(&mut self, posted: &Posted, name: &str, pointer: &str) -> bool {
        let choices = [("false", false), ("true", true)];
        self.choice(posted, name, pointer, &choices).unwrap_or_default()
    }

    /// A command line; empty is none.
    pub(super) fn words(
        &mut self,
        posted: &Posted,
        name: &str,
        pointer: &str,
    ) -> Option<Vec<String>> {
        match split_words(posted.text(name)) {
            Some(words) if words.is_empty() => None,
            Some(words) => Some(words),
            None => {
                self.add(pointer, "a quote is not closed");
                None
            }
        }
    }
}

/// The API speaks in bytes; people read sizes.
fn in_sizes(text: &str) -> String {
    let word = |word: &str| match word.parse() {
        Ok(count) if count >= 4096 => format::bytes(count),
        _ => word.to_owned(),
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Splits as a shell does with quotes and backslashes, and expands nothing. `None` when a quote is
/// not closed.
pub(super) fn split_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return None;
    }
    words.extend(word);
    Some(words)
}

/// Words as one line that [`split_words`] reads back.
pub(super) fn join_words<S: AsRef<str>>(words: &[S]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    let quoted = words.iter().map(AsRef::as_ref).map(|word| {
        if !word.is_empty() && word.chars().all(plain) {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does_without_expanding() {
        let split = |text: &str| split_words(text).map(|words| words.join("|"));
        assert_eq!(
            split("sh -c 'echo \"$HOME\"; ls'").as_deref(),
            Some("sh|-c|echo \"$HOME\"; ls")
        );
        assert_eq!(split("a \"b \\\" c\" d\\ e ''").as_deref(), Some("a|b \" c|d e|"));
        assert_eq!(split("  ").as_deref(), Some(""));
        assert_eq!(split("sh -c 'echo"), None);
        for words in [&["sh", "-c", "it's"][..], &["", "a b"], &["x\\y"]] {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            assert_eq!(split_words(&join_words(&words)), Some(words));
        }
    }
}
