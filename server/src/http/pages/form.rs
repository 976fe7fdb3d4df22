//! What people type into forms, and the API's field errors led back to the field that they are
//! about. Pure.

use std::collections::HashMap;

use berth_web::format;

use crate::error::{Error, FieldError, Refusal};

/// A posted form; of a name that comes twice the last one counts.
#[derive(Debug, Default)]
pub(super) struct Posted(HashMap<String, String>);

/// Field errors by pointer, in the API's own words.
#[derive(Debug, Default)]
pub(super) struct Wrong(Vec<FieldError>);

impl Posted {
    /// Of the pairs that a form sends.
    pub(super) fn new(pairs: Vec<(String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// Puts a text into a field.
    pub(super) fn set(&mut self, name: &str, value: String) {
        self.0.insert(name.to_owned(), value);
    }

    /// A field's text, without the space around it.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |value| value.trim())
    }

    /// A field as it was typed: passwords may begin or end with a space.
    pub(super) fn exact(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A field's text, if there is any.
    pub(super) fn optional(&self, name: &str) -> Option<String> {
        let text = self.text(name);
        (!text.is_empty()).then(|| text.to_owned())
    }
}

impl Wrong {
    /// The field errors of a refusal; `None` when it is of another kind.
    pub(super) fn of(error: &Error) -> Option<Self> {
        match error {
            Error::Invalid { fields, .. } if !fields.is_empty() => Some(Self(fields.clone())),
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
