//! A02, A03: every field of every request has a row, made from the code (the API's document, the
//! table of routes), and each row is driven: what lies at the bound is taken, what lies beyond it and
//! what is absurd is refused by a 4xx that names the field, and nothing is made of it.
//!
//! # Your field needs a row
//! In [`json`] for a body, in [`query`] for a parameter, in [`forms`] for a page's form:
//! ```ignore
//! field("limits.pids").at([json!(1), json!(64)]).beyond([json!(0)]).may_be(&["null"])
//! ```
//! - `at`: values at the bounds, which are taken.
//! - `beyond`: one further, which is refused.
//! - `may_be`: which of the absurd values ([`ABSURD`]) are none for this field.

mod forms;
mod json;
mod query;
mod who;

use serde_json::{Value, json};
use system_tests::{Answer, Options};

/// One field.
struct Field {
    name: &'static str,
    at: Vec<Value>,
    beyond: Vec<Value>,
    may_be: &'static [&'static str],
}

fn field(name: &'static str) -> Field {
    Field { name, at: Vec::new(), beyond: Vec::new(), may_be: &[] }
}

impl Field {
    fn at(self, at: impl Into<Vec<Value>>) -> Self {
        Self { at: at.into(), ..self }
    }

    fn beyond(self, beyond: impl Into<Vec<Value>>) -> Self {
        Self { beyond: beyond.into(), ..self }
    }

    fn may_be(self, may_be: &'static [&'static str]) -> Self {
        Self { may_be, ..self }
    }

    /// What is refused: what lies beyond, and what is absurd for it.
    fn refused(&self) -> Vec<(String, Value)> {
        let beyond = self.beyond.iter().enumerate();
        let beyond = beyond.map(|(number, value)| (format!("beyond {number}"), value.clone()));
        let absurd = absurd().into_iter().filter(|(name, _)| !self.may_be.contains(name));
        beyond.chain(absurd.map(|(name, value)| (name.to_owned(), value))).collect()
    }
}

/// What no field takes unless its row says so.
fn absurd() -> Vec<(&'static str, Value)> {
    vec![
        ("negative", json!(-1)),
        ("huge number", json!(1e308)),
        ("2^64", serde_json::from_str("18446744073709551616").expect("a number")),
        ("fraction", json!(1.5)),
        ("true", json!(true)),
        ("null", json!(null)),
        ("list", json!([[]])),
        ("object", json!({"a": {"b": 1}})),
        ("empty", json!("")),
        ("huge text", json!("x".repeat(200_000))),
        ("NUL", json!("a\u{0}b")),
        ("newline", json!("a\nb: c")),
        ("turned text", json!("a\u{202e}b")),
    ]
}

/// What is wrong with the answer to a value that had to be refused.
fn judge(pointer: &str, answer: &Answer) -> Option<String> {
    if !(400..500).contains(&answer.status) {
        return Some(format!("{} {}", answer.status, cut(&answer.text)));
    }
    // The whole answer is short, whatever was sent.
    if answer.text.len() > 64 * 1024 && !answer.text.contains("<html") {
        return Some(format!("answered with {} bytes", answer.text.len()));
    }
    let leaf = pointer.rsplit('/').next().unwrap_or(pointer);
    let leaf =
        if leaf.parse::<u32>().is_ok() { pointer.rsplit('/').nth(1).unwrap_or(leaf) } else { leaf };
    let named = match serde_json::from_str::<Value>(&answer.text) {
        Ok(problem) => {
            let fields = problem["fields"].as_array().cloned().unwrap_or_default();
            fields.iter().any(|one| {
                let said = one["pointer"].as_str().unwrap_or_default();
                !said.is_empty() && (said.starts_with(pointer) || pointer.starts_with(said))
            }) || problem["detail"].as_str().is_some_and(|detail| detail.contains(leaf))
        }
        Err(_) => answer.text.contains(leaf),
    };
    (!named).then(|| format!("does not name {pointer}: {}", cut(&answer.text)))
}

/// The beginning of a text; of a page only what it is.
fn cut(text: &str) -> String {
    match text.split_once("<title>") {
        Some((_, rest)) => rest.chars().take(60).collect(),
        None => text.chars().take(300).collect(),
    }
}

/// Budgets that no test of fields uses up.
pub(crate) fn generous() -> Options {
    let sections = "[rates]\nperson_per_min = 100000\nchanges_per_min = 100000\n\
                    costly_per_min = 100000\n\
                    [runtime.data_sets.kept]\npath = \"/usr/share\"\n\
                    [runtime.data_sets.others]\npath = \"/usr/share\"\ngroups = [\"none\"]\n";
    Options { sections: sections.into(), ..Options::default() }
}
