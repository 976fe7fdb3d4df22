//! My space: what one uses of what one may, now and lately.

use askama::Template;

use crate::charts::{Chart, FigureRow};
use crate::format::Moment;
use crate::parts::{Meter, Scope};
use crate::shell::Shell;

/// What is one's own.
#[derive(Debug, Clone, Default, Template)]
#[template(path = "space.html")]
pub struct SpacePage {
    /// The frame.
    pub shell: Shell,
    /// Each limit.
    pub limits: Vec<LimitRow>,
    /// How far back.
    pub spans: Vec<Scope>,
    /// The charts; none when there are no figures.
    pub charts: Vec<Chart>,
    /// Words under the axis.
    pub axis: Vec<String>,
    /// The same figures as a table, newest first: processor, memory, containers.
    pub rows: Vec<FigureRow>,
    /// What ends by itself.
    pub ends: Vec<EndRow>,
    /// What takes the disk.
    pub largest: Vec<ThingRow>,
}

/// A limit.
#[derive(Debug, Clone, Default)]
pub struct LimitRow {
    /// Its name.
    pub name: &'static str,
    /// What is in use.
    pub used: String,
    /// What may be.
    pub allowed: String,
    /// The same as a bar, where both are known.
    pub meter: Option<Meter>,
    /// Where one asks for more; none where nothing bounds it or one cannot.
    pub ask: Option<String>,
}

/// Something that ends by itself.
#[derive(Debug, Clone)]
pub struct EndRow {
    /// What.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// When.
    pub at: Moment,
    /// Where it is.
    pub path: &'static str,
}

/// Something that takes the disk.
#[derive(Debug, Clone, Default)]
pub struct ThingRow {
    /// What.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Its size.
    pub size: String,
}
