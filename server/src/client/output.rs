//! The standard streams, and tables on them.

use std::io::{IsTerminal, Write, stderr, stdout};

use super::error::Failure;
use super::harmless;

/// One of the standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For what was asked for.
    Stdout,
    /// For everything else.
    Stderr,
}

impl Output {
    /// Whether a person looks at it.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => stdout().is_terminal(),
            Self::Stderr => stderr().is_terminal(),
        }
    }

    /// Writes all of it now.
    ///
    /// # Errors
    /// When nobody reads, or the disk behind it is full.
    pub fn write(self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout => {
                let mut out = stdout().lock();
                out.write_all(bytes)?;
                out.flush()?;
            }
            Self::Stderr => stderr().lock().write_all(bytes)?,
        }
        Ok(())
    }

    /// The same where whoever reads slowly must hold nothing else up.
    pub async fn write_aside(self, bytes: Vec<u8>) -> Result<(), Failure> {
        let written = tokio::task::spawn_blocking(move || self.write(&bytes)).await;
        written.map_err(|error| Failure::Here(format!("write: {error}")))?
    }
}

/// Writes lines to the standard output.
///
/// # Errors
/// As for [`Output::write`].
pub fn say(text: &str) -> Result<(), Failure> {
    Output::Stdout.write(format!("{text}\n").as_bytes())
}

/// Tells a person beside the output; that they cannot be told stops nothing.
pub fn tell(text: &str) {
    drop(Output::Stderr.write(format!("berth: {}\n", harmless::line(text)).as_bytes()));
}

/// Columns of text that is foreign until it is shown.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        let cells = cells.into_iter().map(|cell| {
            let cell: String = cell.into();
            if cell.is_empty() { "-".to_owned() } else { harmless::line(&cell).into_owned() }
        });
        self.rows.push(cells.collect());
    }

    /// The lines.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_cannot_leave_its_place() {
        let mut table = Table::new(&["NAME", "IMAGE"]);
        table.row(["a\nb\u{1b}[1A", ""]);
        assert_eq!(table.text(), "NAME          IMAGE\na\\nb\\x1b[1A   -");
    }
}
