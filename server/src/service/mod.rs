//! The verbs of the product. A service function takes the [`crate::app::App`], the caller and parsed
//! values; it authorises, validates, transacts, acts, and undoes what failed.
//!
//! Nothing here knows of HTTP. What a caller may see or change comes from
//! [`crate::auth::Caller`]'s visibility methods and from nowhere else.

pub mod admission;
pub mod allowances;
pub mod asks;
pub mod audit;
pub mod containers;
pub mod data;
pub mod data_sets;
pub mod days;
pub mod edits;
pub mod enrol;
pub mod events;
pub mod execs;
pub mod factor;
pub mod files;
pub mod gc;
pub mod groups;
pub mod history;
pub mod housekeeping;
pub mod idle;
pub mod images;
pub mod in_use;
pub mod invitations;
pub mod keys;
pub mod lifecycle;
pub mod lifetimes;
pub mod logs;
pub mod looks;
pub mod machine;
pub mod maintenance;
pub mod metrics;
pub mod network;
pub mod noise;
pub mod offboard;
pub mod operations;
pub mod people;
pub mod ports;
pub mod preview;
pub mod reconcile;
pub mod registries;
pub mod restart;
pub mod sessions;
pub mod setup;
pub mod sharing;
pub mod space;
pub mod stats;
pub mod system;
mod table;
pub mod tokens;
pub mod usage;
pub mod volumes;

/// A page of a list: the items, and where the next page begins.
#[derive(Debug)]
pub struct Listed<T> {
    /// The items.
    pub items: Vec<T>,
    /// The unsealed position after them, if there are more.
    pub next: Option<String>,
}

/// How much of a list is asked for.
#[derive(Debug, Clone)]
pub struct Page {
    /// Items at most.
    pub limit: u32,
    /// The unsealed position to go on after.
    pub after: Option<String>,
}

impl Page {
    /// The rows to ask the inventory for: one more than shown tells whether there are more.
    pub fn rows(&self) -> u32 {
        self.limit + 1
    }

    /// A page of `rows`, of which `position` is where the next one goes on.
    pub fn cut<T>(&self, mut rows: Vec<T>, position: impl Fn(&T) -> String) -> Listed<T> {
        let more = rows.len() > self.limit as usize;
        rows.truncate(self.limit as usize);
        let next = if more { rows.last().map(position) } else { None };
        Listed { items: rows, next }
    }
}
