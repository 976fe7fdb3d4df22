//! Whether the block of ids that people's ranges come from is free.

use std::fs;

use berth_runtime::config::{RANGE_IDS, RuntimeConfig};
use berth_runtime::wire::DoctorCheck;

use super::{blocker, fine, lack};

/// Layers, monitors and one person: below this many free ranges nobody can be added.
const RANGES_MIN: u32 = 3;

/// First and last id that somebody else has, and who.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    first: u32,
    last: u32,
    by: String,
}

pub(super) fn block(config: &RuntimeConfig) -> DoctorCheck {
    let mut taken = Vec::new();
    for (path, subordinate) in [
        ("/etc/subuid", true),
        ("/etc/subgid", true),
        ("/etc/passwd", false),
        ("/etc/group", false),
    ] {
        let text = fs::read_to_string(path).unwrap_or_default();
        taken.extend(text.lines().filter_map(|line| parse(path, line, subordinate)));
    }
    judge(config.id_first, config.id_last, &taken)
}

fn judge(first: u32, last: u32, taken: &[Taken]) -> DoctorCheck {
    let id = "ids.block";
    let ranges = (last.saturating_sub(first).saturating_add(1)) / RANGE_IDS;
    let overlaps = |range: u32, other: &Taken| {
        let start = first + range * RANGE_IDS;
        other.first <= start + (RANGE_IDS - 1) && other.last >= start
    };
    let lost =
        (0..ranges).filter(|range| taken.iter().any(|other| overlaps(*range, other))).count();
    let lost = u32::try_from(lost).unwrap_or(u32::MAX);
    let free = ranges - lost.min(ranges);
    let span = format!("{first} to {last}");
    let mend = "set [runtime] id_first and id_last to a block that nobody uses";
    if free < RANGES_MIN {
        let found = format!("{free} free ranges of {RANGE_IDS} ids in {span}");
        return blocker(id, found, "no person can be given ids of their own", mend);
    }
    if lost > 0 {
        let mut by: Vec<&str> = taken
            .iter()
            .filter(|other| other.last >= first && other.first <= last)
            .map(|other| other.by.as_str())
            .collect();
        by.dedup();
        by.truncate(3);
        let found = format!("{free} free ranges in {span}; {lost} overlap with {}", by.join(", "));
        return lack(id, found, "those ranges are passed over", mend);
    }
    fine(id, format!("{ranges} ranges of {RANGE_IDS} ids in {span}, all free"))
}

/// A line of subuid(5) (`name:first:count`) or of passwd(5) and group(5) (`name:x:id:…`).
fn parse(path: &str, line: &str, subordinate: bool) -> Option<Taken> {
    let mut fields = line.split(':');
    let by = format!("{} in {path}", fields.next()?);
    let (second, third) = (fields.next()?, fields.next()?.trim());
    if subordinate {
        let (first, count): (u32, u32) = (second.parse().ok()?, third.parse().ok()?);
        return Some(Taken { first, last: first.saturating_add(count.checked_sub(1)?), by });
    }
    let id = third.parse().ok()?;
    Some(Taken { first: id, last: id, by })
}

#[cfg(test)]
mod tests {
    use berth_runtime::wire::DoctorStatus;

    use super::*;

    #[test]
    fn others_ids_are_seen_at_both_ends() {
        let first = 1_000_000 / RANGE_IDS * RANGE_IDS;
        let last = first + 4 * RANGE_IDS - 1;
        let taken = |from, to| [Taken { first: from, last: to, by: "x in /etc/subuid".into() }];
        let status = |from, to| judge(first, last, &taken(from, to)).status;
        assert_eq!(status(first - 5, first - 1), DoctorStatus::Ok);
        assert_eq!(status(last + 1, last + 5), DoctorStatus::Ok);
        assert_eq!(status(first - 5, first), DoctorStatus::Lack);
        assert_eq!(status(last, last), DoctorStatus::Lack);
        assert_eq!(status(first, last - RANGE_IDS), DoctorStatus::Blocker);
        assert_eq!(status(0, u32::MAX), DoctorStatus::Blocker);
    }

    #[test]
    fn both_kinds_of_lines_are_read() {
        let subordinate = parse("/etc/subuid", "tester:100000:65536", true);
        let wanted = Taken { first: 100_000, last: 165_535, by: "tester in /etc/subuid".into() };
        assert_eq!(subordinate, Some(wanted));
        assert_eq!(parse("/etc/subuid", "tester:5:0", true), None);
        let user = parse("/etc/passwd", "root:x:0:0:root:/root:/bin/sh", false);
        assert_eq!(user.map(|user| (user.first, user.last)), Some((0, 0)));
        assert_eq!(parse("/etc/passwd", "+", false), None);
    }
}
