//! Lists of numbers as the kernel writes them, `0-3,7` (cpuset(7), "List format").

use std::path::Path;

/// Bytes of the kernel's lists that are read at most.
const LIST_BYTES_MAX: u64 = 64 << 10;

/// The ranges of a list, both ends in them; `None` for what is no list.
pub fn parse(text: &str) -> Option<Vec<(u32, u32)>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| text.parse::<u32>().ok()).flatten()
        };
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some((first, last))
    };
    text.split(',').map(range).collect()
}

/// The numbers of a list, all of which must be in the list that `path`, a file of the kernel's, holds.
///
/// # Errors
/// What is wrong with the list, `what` being the word for what it counts.
pub fn among(text: &str, path: &Path, what: &str) -> Result<Vec<u32>, String> {
    let ranges = parse(text).ok_or_else(|| {
        format!("{text:?} is not a list of numbers and ranges, as 0-3,7, from low to high")
    })?;
    let held = read(path).map_err(|error| format!("read {}: {error}", path.display()))?;
    let there = parse(held.trim()).unwrap_or_default();
    let mut numbers = Vec::new();
    for (first, last) in ranges {
        let whole = there.iter().any(|(low, high)| (*low..=*high).contains(&first));
        let outside = match whole {
            false => Some(first),
            // A range that is longer than what there is ends in something that is not.
            true => (first..=last)
                .find(|number| !there.iter().any(|(low, high)| (*low..=*high).contains(number))),
        };
        if let Some(number) = outside {
            return Err(format!("{text:?}: there is no {what} {number}, only {}", held.trim()));
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LIST_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse("0-3,7"), Some(vec![(0, 3), (7, 7)]));
        for bad in ["", ",", "1,", "-1", "1-", "3-1", "+1", " 1", "a", "4294967296", "1-2-3"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let path = std::env::temp_dir().join(format!("berth-ranges-{}", std::process::id()));
        std::fs::write(&path, "0-1,4\n").expect("written");
        assert_eq!(among("0-1,4", &path, "processor"), Ok(vec![0, 1, 4]));
        for (text, absent) in [("0-4294967295", "2"), ("3", "3"), ("1,5-6", "5")] {
            let said = among(text, &path, "processor").expect_err(text);
            assert!(said.contains(&format!("no processor {absent}, only 0-1,4")), "{said}");
        }
        std::fs::remove_file(&path).expect("removed");
    }
}
