//! Samples, their medians and spread, and the one table that is printed.

use std::fmt;
use std::time::Duration;

/// Measurements of one thing.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    unit: &'static str,
    values: Vec<f64>,
}

impl Samples {
    /// None yet.
    pub(crate) fn new(unit: &'static str) -> Self {
        Self { unit, values: Vec::new() }
    }

    /// One value that was measured once.
    pub(crate) fn one(unit: &'static str, value: f64) -> Self {
        Self { unit, values: vec![value] }
    }

    /// One more.
    pub(crate) fn add(&mut self, value: f64) {
        self.values.push(value);
    }

    /// One more, in milliseconds.
    pub(crate) fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1000.0);
    }

    /// All of another's.
    pub(crate) fn extend(&mut self, other: Self) {
        self.values.extend(other.values);
    }

    fn at(&self, share: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a share between 0 and 1 of a small count"
        )]
        let index = (last as f64 * share).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }
}

/// Median, and the tenth and ninetieth of a hundred.
impl fmt::Display for Samples {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = if self.median() < 100.0 { 1 } else { 0 };
        write!(out, "{:.places$} {}", self.median(), self.unit)?;
        if self.values.len() > 1 {
            write!(out, " ({:.places$}–{:.places$})", self.at(0.1), self.at(0.9))?;
        }
        Ok(())
    }
}

struct Row {
    what: String,
    berth: String,
    peer: String,
    theirs: String,
    ratio: String,
}

/// The table.
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new(), notes: Vec::new() }
    }

    /// Something that one has to know to read it.
    pub(crate) fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    /// A measurement of Berth's alone.
    pub(crate) fn alone(&mut self, what: &str, berth: &Samples) {
        self.row(what, berth.to_string(), "", String::new(), String::new());
    }

    /// A measurement beside a peer's; the ratio is Berth's median over the peer's.
    pub(crate) fn beside(&mut self, what: &str, berth: &Samples, peer: &str, theirs: &Samples) {
        let ratio = berth.median() / theirs.median();
        self.row(what, berth.to_string(), peer, theirs.to_string(), format!("{ratio:.2}"));
    }

    fn row(&mut self, what: &str, berth: String, peer: &str, theirs: String, ratio: String) {
        let row = Row { what: what.to_owned(), berth, peer: peer.to_owned(), theirs, ratio };
        crate::say(&format!(
            "  {}: {} {} {} {}",
            row.what, row.berth, row.peer, row.theirs, row.ratio
        ));
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["measured", "Berth", "beside", "theirs", "ratio"];
        let cells: Vec<[&str; 5]> = self
            .rows
            .iter()
            .map(|row| [&*row.what, &*row.berth, &*row.peer, &*row.theirs, &*row.ratio])
            .collect();
        let width = |column: usize| {
            let all = cells.iter().chain([&heads]).map(|row| row[column].chars().count());
            all.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..5).map(width).collect();
        let rule = widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>();
        let rule: [&str; 5] = std::array::from_fn(|column| &*rule[column]);
        writeln!(out, "\nmedian (10th–90th percentile); ratio: Berth's median over the other's\n")?;
        for row in [heads, rule].iter().chain(&cells) {
            write!(out, "|")?;
            for (cell, width) in row.iter().zip(&widths) {
                write!(out, " {cell:width$} |")?;
            }
            writeln!(out)?;
        }
        writeln!(out)?;
        for note in &self.notes {
            writeln!(out, "- {note}")?;
        }
        Ok(())
    }
}
