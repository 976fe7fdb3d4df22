//! The data of the parts that many pages share; `templates/parts.html` draws each of them once.

use crate::shell::Tone;

/// A state in words, with its sign and its reason.
#[derive(Debug, Clone, Default)]
pub struct Badge {
    /// The colour.
    pub tone: Tone,
    /// A symbol of `icons.svg`.
    pub icon: &'static str,
    /// The word.
    pub word: String,
    /// Why, in a few words; may be empty.
    pub reason: String,
}

/// A use beside its limit.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    /// A short name, also the key under which the script remembers samples.
    pub key: &'static str,
    /// What is measured, `Memory`.
    pub label: String,
    /// The figure with its limit, `3.1 of 8 GiB`.
    pub text: String,
    /// 0 to 100; none while nothing is measured.
    pub percent: Option<u8>,
    /// A second line, such as `peak 4.2 GiB`; may be empty.
    pub note: String,
}

impl Meter {
    /// The CSS class of its level: it turns at 80 and at 95 per cent. A busy processor is only
    /// slow, so it never turns red; memory and processes at their limit end things.
    pub(crate) fn level(&self) -> &'static str {
        match self.percent.unwrap_or(0) {
            0..80 => "normal",
            95.. if self.key == "cpu" => "high",
            80..95 if self.key == "cpu" => "normal",
            80..95 => "high",
            _ => "full",
        }
    }

    /// The figure itself, before its limit.
    pub(crate) fn lead(&self) -> &str {
        self.text.split_at(self.limit_at()).0
    }

    /// The limit, with the word before it; empty where there is none.
    pub(crate) fn rest(&self) -> &str {
        self.text.split_at(self.limit_at()).1
    }

    fn limit_at(&self) -> usize {
        self.text.find(" of ").unwrap_or(self.text.len())
    }

    /// The bar's width in per cent.
    pub(crate) fn width(&self) -> u8 {
        self.percent.unwrap_or(0)
    }
}

/// One field of a form: what was typed, and what is wrong with it.
#[derive(Debug, Clone, Default)]
pub struct Field {
    /// What is in it.
    pub value: String,
    /// What is wrong with it; empty when nothing is.
    pub error: String,
}

impl Field {
    /// A field with a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: value.into(), error: String::new() }
    }
}

/// Something that can be done to an object.
#[derive(Debug, Clone)]
pub struct Act {
    /// What it is called.
    pub label: &'static str,
    /// A symbol of `icons.svg`.
    pub icon: &'static str,
    /// Where its form posts to, or the page that asks first.
    pub path: String,
    /// Whether `path` is a page that asks first.
    pub asks: bool,
    /// Whether something is lost by it.
    pub danger: bool,
}

/// A link that narrows a list.
#[derive(Debug, Clone)]
pub struct Scope {
    /// What it shows.
    pub label: &'static str,
    /// How many there are; none when not counted.
    pub count: Option<u64>,
    /// Where it leads.
    pub path: String,
    /// Whether it is the one shown.
    pub current: bool,
}

/// One line of a key-value list.
#[derive(Debug, Clone)]
pub struct Fact {
    /// The key.
    pub key: &'static str,
    /// The value.
    pub value: String,
    /// How the value is drawn.
    pub kind: FactKind,
    /// Shown on hover, or copied in place of the value; may be empty.
    pub exact: String,
}

/// How a fact's value is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactKind {
    /// As running text.
    Text,
    /// In the monospace face.
    Code,
    /// In the monospace face, with a button that copies `exact`.
    Copy,
}

impl Fact {
    /// A fact in running text.
    pub fn text(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, value: value.into(), kind: FactKind::Text, exact: String::new() }
    }

    /// A fact in the monospace face.
    pub fn code(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, value: value.into(), kind: FactKind::Code, exact: String::new() }
    }

    /// A fact that can be copied in full.
    pub fn copy(key: &'static str, value: impl Into<String>, exact: impl Into<String>) -> Self {
        Self { key, value: value.into(), kind: FactKind::Copy, exact: exact.into() }
    }

    /// The same with an exact form on hover.
    #[must_use]
    pub fn with_exact(mut self, exact: impl Into<String>) -> Self {
        self.exact = exact.into();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_told_from_its_limit() {
        let of = |text: &str| Meter { text: text.to_owned(), ..Meter::default() };
        let both = |meter: &Meter| (meter.lead().to_owned(), meter.rest().to_owned());
        assert_eq!(both(&of("3.1 of 8 GiB")), ("3.1".into(), " of 8 GiB".into()));
        assert_eq!(both(&of("41 %")), ("41 %".into(), String::new()));
        assert_eq!(both(&of("")), (String::new(), String::new()));
    }
}
