//! Making the writes of a plan: former values first, one after the other, put back where one is refused.

use std::path::PathBuf;

use super::{Before, refused};
use crate::cgroup::{Error, files};

/// The unit of memory that the kernel counts in.
const PAGE_BYTES: u64 = 4096;

/// One value to be written to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    /// The field below `linux.resources`.
    pub(super) field: String,
    /// Its value there.
    pub(super) asked: String,
    pub(super) file: PathBuf,
    /// What is written.
    pub(super) value: String,
    pub(super) form: Form,
    /// Whether the kernel holds it against another value of the same change, such as a quota against its
    /// period: refused, it is tried again when the others are in force.
    pub(super) bound: bool,
}

/// What a file shows of what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// The value and nothing else; a change that shows another value has failed.
    Exact,
    /// A number of bytes, rounded down to a multiple of the unit.
    Bytes(u64),
    /// The value in the kernel's own words.
    Text,
    /// One line for each device, beginning with this name; the line that says "none" of it.
    Line { key: String, none: &'static str },
    /// `name value` lines, of which this one is the value's.
    Named(&'static str),
    /// As many lines as the kernel likes, or nothing that can be read.
    Lines,
}

impl Form {
    /// Memory in whole pages.
    pub(super) const PAGES: Self = Self::Bytes(PAGE_BYTES);
}

impl Write {
    /// What would have to be written to have the present value again.
    pub(super) fn former(&self) -> Result<Vec<String>, Error> {
        if self.form == Form::Lines {
            // Of a file that only takes commands there is nothing to be put back.
            let text = files::read(&self.file).unwrap_or_default();
            return Ok(text.lines().map(str::to_owned).collect());
        }
        let text = files::read(&self.file)?;
        let value = match &self.form {
            Form::Line { key, none } => {
                let line = text.lines().find(|line| line.split(' ').next() == Some(key));
                line.map_or_else(|| format!("{key} {none}"), str::to_owned)
            }
            Form::Named(name) => named(&text, name).unwrap_or_default().to_owned(),
            // Some files begin with the value for every device (cgroup-v2.rst, "io.weight").
            _ => text.lines().next().unwrap_or_default().trim_start_matches("default ").to_owned(),
        };
        Ok(vec![value])
    }

    fn write(&self, value: &str) -> Result<(), Error> {
        // A write of no bytes is none at all; an empty line empties a list.
        let value = if value.is_empty() { "\n" } else { value };
        files::write(&self.file, value).map_err(|error| match &error {
            Error::Write { source, .. } if source.raw_os_error() == Some(libc::EBUSY) => {
                self.in_use().unwrap_or(error)
            }
            _ => error,
        })
    }

    /// v1's refusal of less memory than is in use, said as such.
    fn in_use(&self) -> Option<Error> {
        let name = self.file.file_name()?.to_str()?.strip_suffix("limit_in_bytes")?;
        let used = files::read_number(&self.file.with_file_name(format!("{name}usage_in_bytes")));
        let (used, wanted) = (used.ok()?, self.value.parse().ok()?);
        Some(Error::MemoryInUse { path: self.file.clone(), wanted, used })
    }

    /// Whether the kernel has made of it what was asked for.
    pub(super) fn verify(&self) -> Result<(), Error> {
        let found = files::read(&self.file)?;
        let holds = match &self.form {
            Form::Exact => found.trim_start_matches("default ") == self.value,
            Form::Named(name) => named(&found, name) == Some(&self.value),
            Form::Bytes(unit) => match (self.value.parse::<u64>(), found.parse::<u64>()) {
                // More than can be counted is no limit.
                (Ok(_), Err(_)) => found == "max",
                (Ok(value), Ok(found)) => found <= value && value - found < *unit || found > MOST,
                (Err(_), _) => true,
            },
            Form::Text | Form::Line { .. } | Form::Lines => true,
        };
        if holds {
            return Ok(());
        }
        let reason = format!("{} says {found:?} after it was set", self.file.display());
        Err(Error::Lacking { field: self.field.clone(), asked: self.asked.clone(), reason })
    }

    fn said(&self, error: Error) -> Error {
        match error {
            Error::Lacking { .. } => error,
            other => refused(&self.field, &self.asked, other),
        }
    }
}

/// What v1 shows of "no limit" is about this, and depends on the size of a page.
const MOST: u64 = i64::MAX as u64 / (1 << 20) * (1 << 20) - (1 << 20);

fn named<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

/// Makes every write, or none.
pub(super) fn make(writes: &[Write], before: Before) -> Result<(), Error> {
    if before == Before::New {
        return run(writes, &mut Vec::new());
    }
    let former = writes
        .iter()
        .map(|write| write.former().map_err(|error| write.said(error)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut made = Vec::new();
    let Err(error) = run(writes, &mut made) else { return Ok(()) };
    if made.is_empty() {
        return Err(error);
    }
    let first = error.to_string();
    undo(writes, &former, &made)
        .map_err(|source| Error::Undo { first, source: Box::new(source) })?;
    Err(Error::PutBack { count: made.len(), source: Box::new(error) })
}

/// Makes the writes and checks them; `made` is which of them were, in order, whatever the result.
fn run(writes: &[Write], made: &mut Vec<usize>) -> Result<(), Error> {
    let mut later = Vec::new();
    for (index, write) in writes.iter().enumerate() {
        match write.write(&write.value) {
            Err(error) if write.bound && is_invalid(&error) => later.push(index),
            other => {
                other.map_err(|error| write.said(error))?;
                made.push(index);
            }
        }
    }
    for index in later {
        let write = &writes[index];
        write.write(&write.value).map_err(|error| write.said(error))?;
        made.push(index);
    }
    writes.iter().try_for_each(|write| write.verify().map_err(|error| write.said(error)))
}

/// Writes former values back, last written first, with the same second try.
fn undo(writes: &[Write], former: &[Vec<String>], made: &[usize]) -> Result<(), Error> {
    let back = |index: usize| {
        let lines = former[index].iter();
        lines.map(|line| line.as_str()).try_for_each(|line| writes[index].write(line))
    };
    let mut later = Vec::new();
    for &index in made.iter().rev() {
        match back(index) {
            Err(error) if writes[index].bound && is_invalid(&error) => later.push(index),
            other => other?,
        }
    }
    later.into_iter().try_for_each(back)
}

fn is_invalid(error: &Error) -> bool {
    matches!(error, Error::Write { source, .. } if source.raw_os_error() == Some(libc::EINVAL))
}
