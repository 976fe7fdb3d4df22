//! What has happened and who did what, for those who oversee the machine.

use askama::Template;

use crate::format::Moment;
use crate::parts::{Badge, Field, Scope};
use crate::shell::Shell;

/// Events of objects.
#[derive(Debug, Clone, Template)]
#[template(path = "events/events.html")]
pub struct EventsPage {
    /// The frame.
    pub shell: Shell,
    /// The two views.
    pub tabs: Vec<Scope>,
    /// What is wrong with the filter; may be empty.
    pub error: String,
    /// Kinds, as typed.
    pub kind: Field,
    /// Whose, as typed.
    pub owner: Field,
    /// Which object, as typed.
    pub subject: Field,
    /// Not before, as typed.
    pub since: Field,
    /// Before, as typed.
    pub until: Field,
    /// The events.
    pub rows: Vec<EventRow>,
    /// The same as files.
    pub exports: Exports,
    /// The next page's address.
    pub next: Option<String>,
    /// Whether any filter is set.
    pub filtered: bool,
}

/// An event.
#[derive(Debug, Clone)]
pub struct EventRow {
    /// When.
    pub at: Moment,
    /// What, `container.started`.
    pub kind: String,
    /// The object.
    pub object: Object,
    /// Whose it is.
    pub owner: String,
    /// A few facts more, in words.
    pub facts: String,
}

/// An object, with the way to it while it may have a page.
#[derive(Debug, Clone, Default)]
pub struct Object {
    /// What kind it is.
    pub kind: String,
    /// Which, in full.
    pub id: String,
    /// Its page; empty when it has none.
    pub path: String,
}

/// Where the same rows are had as files.
#[derive(Debug, Clone, Default)]
pub struct Exports {
    /// As CSV.
    pub csv: String,
    /// As JSON.
    pub json: String,
    /// Rows at most.
    pub most: u32,
}

/// Who did what.
#[derive(Debug, Clone, Template)]
#[template(path = "events/audit.html")]
pub struct AuditPage {
    /// The frame.
    pub shell: Shell,
    /// The two views.
    pub tabs: Vec<Scope>,
    /// What is wrong with the filter; may be empty.
    pub error: String,
    /// Who, as typed.
    pub actor: Field,
    /// Whose, as typed.
    pub owner: Field,
    /// What, as typed.
    pub action: Field,
    /// Which object, as typed.
    pub subject: Field,
    /// With what result, as chosen.
    pub outcome: Field,
    /// Not before, as typed.
    pub since: Field,
    /// Before, as typed.
    pub until: Field,
    /// Whether the rows are as they were written; none until that was looked at.
    pub chain: Option<Chain>,
    /// The rows.
    pub rows: Vec<AuditRow>,
    /// The same as files.
    pub exports: Exports,
    /// The next page's address.
    pub next: Option<String>,
    /// Whether any filter is set.
    pub filtered: bool,
}

/// One act.
#[derive(Debug, Clone)]
pub struct AuditRow {
    /// When.
    pub at: Moment,
    /// Who.
    pub actor: String,
    /// What proved it, in words.
    pub via: String,
    /// What.
    pub action: String,
    /// The object.
    pub object: Object,
    /// Whose it is.
    pub owner: String,
    /// With what result.
    pub outcome: Badge,
    /// Where the request came from.
    pub address: String,
    /// The request's id.
    pub request_id: String,
    /// How often.
    pub times: u32,
}

/// Whether the rows of the audit are as they were written.
#[derive(Debug, Clone)]
pub struct Chain {
    /// In a word.
    pub state: Badge,
    /// Rows that were looked at.
    pub rows: u64,
    /// The first that does not hold, and why.
    pub fault: Option<String>,
    /// The newest row's number and hash, to be kept elsewhere.
    pub head: Option<String>,
    /// When that was looked at.
    pub at: Moment,
}

impl Object {
    /// The id as a table shows it.
    pub(crate) fn shown(&self) -> &str {
        if self.id.len() > 24 { crate::format::short(&self.id) } else { &self.id }
    }
}

#[cfg(test)]
mod tests {
    use super::Object;

    #[test]
    fn long_ids_are_shortened_and_names_are_not() {
        let shown = |id: &str| Object { id: id.to_owned(), ..Object::default() }.shown().to_owned();
        assert_eq!(shown("0123456789abcdef0123456789abcdef"), "0123456789ab");
        assert_eq!(shown("registry.lab:5000"), "registry.lab:5000");
    }
}
