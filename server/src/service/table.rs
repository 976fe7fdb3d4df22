//! Tables that people hand in: CSV as RFC 4180 has it, and no looser, so that no cell is guessed at. Pure.
//!
//! Lines end with CR LF or LF; a cell in quotes may hold commas, line ends and doubled quotes. Empty lines
//! are left out; the mark with which some programs begin a file is taken away.

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The line that it begins in, the first being 1.
    pub line: u32,
    /// Its cells.
    pub cells: Vec<String>,
}

/// Reads a table of at most `rows_max` rows.
///
/// # Errors
/// Which line is wrong, and how.
pub fn read(text: &str, rows_max: usize) -> Result<Vec<Row>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rows = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while !rest.is_empty() {
        let begun = line;
        let (cells, left) = row(rest, &mut line)?;
        rest = left;
        if cells.iter().all(String::is_empty) && cells.len() == 1 {
            continue;
        }
        if rows.len() == rows_max {
            return Err(format!("line {begun}: a table has {rows_max} rows at most"));
        }
        rows.push(Row { line: begun, cells });
    }
    Ok(rows)
}

/// The cells of the row that `text` begins with, and what follows it.
fn row<'a>(text: &'a str, line: &mut u32) -> Result<(Vec<String>, &'a str), String> {
    let (mut cells, mut rest) = (Vec::new(), text);
    loop {
        let (cell, after) = match rest.strip_prefix('"') {
            Some(inside) => quoted(inside, line)?,
            None => plain(rest, *line)?,
        };
        cells.push(cell);
        if let Some(next) = after.strip_prefix(',') {
            rest = next;
            continue;
        }
        let end = after.strip_prefix("\r\n").or_else(|| after.strip_prefix('\n'));
        return match end {
            Some(next) => {
                *line += 1;
                Ok((cells, next))
            }
            None if after.is_empty() => Ok((cells, after)),
            None => Err(format!("line {line}: a comma or the line's end must follow a cell")),
        };
    }
}

fn plain(text: &str, line: u32) -> Result<(String, &str), String> {
    let end = text.find([',', '\n', '\r', '"']).unwrap_or(text.len());
    let (cell, rest) = text.split_at(end);
    if rest.starts_with('"') {
        return Err(format!("line {line}: a cell with a quote in it must be in quotes"));
    }
    Ok((cell.to_owned(), rest))
}

/// The cell whose opening quote was read.
fn quoted<'a>(text: &'a str, line: &mut u32) -> Result<(String, &'a str), String> {
    let (begun, mut cell, mut rest) = (*line, String::new(), text);
    loop {
        let Some(end) = rest.find('"') else {
            return Err(format!("line {begun}: a quote is opened and not closed"));
        };
        let (part, after) = (&rest[..end], &rest[end + 1..]);
        *line += u32::try_from(part.matches('\n').count()).unwrap_or(u32::MAX);
        cell.push_str(part);
        match after.strip_prefix('"') {
            Some(next) => {
                cell.push('"');
                rest = next;
            }
            None => return Ok((cell, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(text: &str) -> Result<Vec<Vec<String>>, String> {
        Ok(read(text, 3)?.into_iter().map(|row| row.cells).collect())
    }

    #[test]
    fn a_table_is_read_as_rfc_4180_has_it() {
        for (text, expected) in [
            ("", vec![]),
            ("a,b", vec![vec!["a", "b"]]),
            ("a,b\r\nc,\r\n", vec![vec!["a", "b"], vec!["c", ""]]),
            ("\u{feff}a\n\n\r\nb\n", vec![vec!["a"], vec!["b"]]),
            ("\"a,\"\"b\"\"\r\nc\",d\n", vec![vec!["a,\"b\"\r\nc", "d"]]),
            ("\"\",\n", vec![vec!["", ""]]),
            (" a , b", vec![vec![" a ", " b"]]),
        ] {
            assert_eq!(cells(text).expect(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_it_does_not_have_is_refused_with_its_line() {
        for (text, expected) in [
            ("a\n\"b", "line 2: a quote is opened"),
            ("\"a\nb\"\nc\"d", "line 3: a cell with a quote"),
            ("a\n\"b\"c", "line 2: a comma"),
            ("a\rb", "line 1: a comma"),
            ("1\n2\n3\n4", "line 4: a table has 3 rows"),
        ] {
            let error = cells(text).expect_err(text);
            assert!(error.starts_with(expected), "{text:?}: {error}");
        }
        let rows = read("a\n\"b\nc\"\nd", 9).expect("a table");
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 2, 4]);
    }
}
