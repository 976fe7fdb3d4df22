//! A walk along the chain of the audit, from the oldest row that is kept to the newest. Pure.
//!
//! Where rows are missing, the pruning must have dropped exactly those: it lists the ranges, and seals the
//! list by a row of the chain. The row after a range still names the hash of the last one that was dropped.

use super::chain::{BEGIN, Fault, FaultKind, Found, Hash, Link, PRUNE, seal};
use crate::clock::Time;

/// How far a walk has come.
pub struct Walk {
    last: Link,
    at: Option<Time>,
    gaps: Vec<(i64, i64)>,
    next_gap: usize,
    sealed: Option<(i64, String, Time)>,
    head: Option<Link>,
    head_seen: bool,
    /// Rows that were looked at.
    pub rows: u64,
    /// Rows that the pruning has dropped before these.
    pub dropped: u64,
    /// Rows up to this one were there before there was a chain.
    pub chained_later_to: Option<i64>,
}

impl Walk {
    /// A walk over rows between which the pruning dropped `gaps`, which also looks for `head`.
    pub fn new(gaps: Vec<(i64, i64)>, head: Option<Link>) -> Self {
        Self {
            last: Link::default(),
            at: None,
            gaps,
            next_gap: 0,
            sealed: None,
            head,
            head_seen: false,
            rows: 0,
            dropped: 0,
            chained_later_to: None,
        }
    }

    /// The newest row so far.
    pub fn head(&self) -> Option<Link> {
        (self.last.id > 0).then_some(self.last)
    }

    /// Goes on to the next row.
    ///
    /// # Errors
    /// What is wrong there.
    pub fn take(&mut self, row: &Found) -> Result<(), Fault> {
        let skipped = self.skip_to(row.id);
        let gap = self.gaps.get(self.next_gap);
        if row.id <= self.last.id || gap.is_some_and(|(first, _)| *first <= row.id) {
            let text = "the pruning had dropped the row of this number";
            return Err(row.fault(FaultKind::Inserted, text));
        }
        if row.id > self.last.id + 1 {
            return Err(self.missing(row.id - 1));
        }
        let (prev, hash) = row.intact()?;
        if skipped {
            // The last row before was dropped; this one says which it was.
            self.last.hash = prev;
            self.look_at_head(self.last)?;
        } else if prev != self.last.hash {
            return Err(self.rewritten(row));
        }
        self.last = Link { id: row.id, hash };
        self.at = Some(row.at);
        self.rows += 1;
        self.look_at_head(self.last)?;
        if row.is_mark(PRUNE) || row.is_mark(BEGIN) {
            self.sealed = Some((row.id, row.subject.clone(), row.at));
        }
        if row.is_mark(BEGIN) {
            self.chained_later_to = Some(row.id - 1);
        }
        Ok(())
    }

    /// The end, where the newest row ever written had the number `newest`.
    ///
    /// # Errors
    /// What is missing there, or does not fit to the whole.
    pub fn end(&mut self, newest: i64) -> Result<(), Fault> {
        if newest > self.last.id {
            return Err(self.missing(newest));
        }
        self.check_seal()?;
        match self.head {
            Some(head) if head.id > self.last.id => {
                let text = format!(
                    "row {} was there when that head was kept; the chain ends with row {}",
                    head.id, self.last.id
                );
                Err(Fault { id: self.last.id + 1, at: self.at, kind: FaultKind::Removed, text })
            }
            Some(head) if !self.head_seen => {
                let text = "the pruning has dropped this row since: keep a newer head".to_owned();
                Err(Fault { id: head.id, at: None, kind: FaultKind::Head, text })
            }
            _ => Ok(()),
        }
    }

    /// Steps over the ranges that were dropped before `id`.
    fn skip_to(&mut self, id: i64) -> bool {
        let mut skipped = false;
        while let Some((first, last)) = self.gaps.get(self.next_gap).copied()
            && first <= self.last.id + 1
            && last < id
        {
            self.dropped += u64::try_from(last - first + 1).unwrap_or(0);
            self.last = Link { id: self.last.id.max(last), hash: Hash::default() };
            self.next_gap += 1;
            skipped = true;
        }
        skipped
    }

    fn look_at_head(&mut self, here: Link) -> Result<(), Fault> {
        let Some(head) = self.head.filter(|head| head.id == here.id) else { return Ok(()) };
        if head.hash != here.hash {
            let text = format!("its hash is {}, not that of the head that was kept", here.hash);
            return Err(Fault { id: here.id, at: self.at, kind: FaultKind::Head, text });
        }
        self.head_seen = true;
        Ok(())
    }

    fn missing(&self, to: i64) -> Fault {
        let first = self.last.id + 1;
        let text = match to - first {
            0 => format!("row {first} is missing, and the pruning did not drop it"),
            _ => format!("rows {first} to {to} are missing, and the pruning did not drop them"),
        };
        Fault { id: first, at: self.at, kind: FaultKind::Removed, text }
    }

    /// The row before has a hash that fits to it, but it is not the one that `row` was written after.
    fn rewritten(&self, row: &Found) -> Fault {
        if self.last.id == 0 {
            return row.fault(FaultKind::Changed, "it is not what the chain begins with");
        }
        let text = format!(
            "it was written anew with a hash that fits: row {} was written after another",
            row.id
        );
        Fault { id: self.last.id, at: self.at, kind: FaultKind::Changed, text }
    }

    /// The list of what was dropped is the one that the newest pruning has put into the chain.
    fn check_seal(&self) -> Result<(), Fault> {
        let fault = |id, at, text| Err(Fault { id, at, kind: FaultKind::Removed, text });
        let (sealed, digest, at) = match &self.sealed {
            Some((id, digest, at)) => (*id, digest.as_str(), Some(*at)),
            None => (0, "", None),
        };
        if let Some((first, last)) = self.gaps.iter().find(|(_, last)| *last >= sealed) {
            let text = format!(
                "rows {first} to {last} are missing: they are listed as dropped, but no row of the \
                 pruning came after them"
            );
            return fault(*first, at, text);
        }
        if sealed > 0 && seal(&self.gaps) != digest {
            let text = "the list of what was dropped is not the one that this row of the pruning \
                        has sealed: rows before it were taken out or put in"
                .to_owned();
            return fault(sealed, at, text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::after;
    use super::*;

    fn rows(count: i64) -> Vec<Found> {
        let mut last = Link::default();
        (0..count)
            .map(|_| {
                let row = after(last, "olga", "container.stop");
                last = Link { id: row.id, hash: row.hash.expect("it has one") };
                row
            })
            .collect()
    }

    /// After `rows`, the pruning's own row.
    fn pruned(mut rows: Vec<Found>, gaps: &[(i64, i64)]) -> Vec<Found> {
        let last = rows.last().expect("rows");
        let last = Link { id: last.id, hash: last.hash.expect("it has one") };
        let mut mark = after(last, "system", PRUNE);
        mark.via = "server".into();
        mark.subject = seal(gaps);
        mark.hash = Some(mark_hash(&mark, last.hash));
        rows.push(mark);
        rows.retain(|row| !gaps.iter().any(|(first, last)| (first..=last).contains(&&row.id)));
        rows
    }

    fn mark_hash(row: &Found, prev: Hash) -> Hash {
        super::super::chain::Fields {
            id: row.id,
            at: row.at,
            actor: row.actor,
            actor_name: &row.actor_name,
            via: &row.via,
            action: &row.action,
            subject_kind: &row.subject_kind,
            subject: &row.subject,
            owner: row.owner,
            outcome: &row.outcome,
            address: &row.address,
            request_id: &row.request_id,
            times: row.times,
        }
        .hash(prev)
    }

    fn walk(
        rows: &[Found],
        gaps: &[(i64, i64)],
        (newest, head): (i64, Option<Link>),
    ) -> Result<Walk, (i64, FaultKind)> {
        let mut walk = Walk::new(gaps.to_vec(), head);
        let taken = rows.iter().try_for_each(|row| walk.take(row));
        match taken.and_then(|()| walk.end(newest)) {
            Ok(()) => Ok(walk),
            Err(fault) => Err((fault.id, fault.kind)),
        }
    }

    fn broken(rows: &[Found], gaps: &[(i64, i64)], newest: i64) -> (i64, FaultKind) {
        walk(rows, gaps, (newest, None)).map(|_| ()).expect_err("it is broken")
    }

    #[test]
    fn a_whole_chain_is_whole_with_what_was_dropped_too() {
        let whole = walk(&rows(9), &[], (9, None)).expect("whole");
        assert_eq!((whole.rows, whole.head().expect("rows").id), (9, 9));
        for gaps in [&[(1, 4)][..], &[(2, 3), (5, 5), (9, 9)]] {
            let rows = pruned(rows(9), gaps);
            let whole = walk(&rows, gaps, (10, None)).expect("whole");
            assert_eq!(whole.rows + whole.dropped, 10, "{gaps:?}");
        }
        assert!(walk(&[], &[], (0, None)).is_ok());
    }

    #[test]
    fn the_first_row_that_does_not_hold_is_named() {
        let good = rows(9);
        let mut changed = good.clone();
        changed[4].actor_name = "anna".into();
        assert_eq!(broken(&changed, &[], 9), (5, FaultKind::Changed));
        // With a hash that fits to it.
        changed[4].hash = Some(mark_hash(&changed[4], good[3].hash.expect("it has one")));
        assert_eq!(broken(&changed, &[], 9), (5, FaultKind::Changed));
        let mut removed = good.clone();
        removed.remove(4);
        assert_eq!(broken(&removed, &[], 9), (5, FaultKind::Removed));
        // And listed as dropped.
        assert_eq!(broken(&removed, &[(5, 5)], 9), (5, FaultKind::Removed));
        // Numbered anew.
        for row in &mut removed[4..] {
            row.id -= 1;
        }
        assert_eq!(broken(&removed, &[], 8), (5, FaultKind::Moved));
        let mut moved = good.clone();
        moved.swap(4, 5);
        (moved[4].id, moved[5].id) = (5, 6);
        assert_eq!(broken(&moved, &[], 9), (5, FaultKind::Moved));
        let mut short = good.clone();
        short.pop();
        assert_eq!(broken(&short, &[], 9), (9, FaultKind::Removed));
        let mut more = good;
        more.push(Found { hash: None, ..after(Link { id: 9, ..Link::default() }, "x", "y") });
        assert_eq!(broken(&more, &[], 10), (10, FaultKind::Inserted));
    }

    #[test]
    fn what_the_pruning_dropped_is_sealed() {
        let (good, gaps) = (rows(9), [(2, 4)]);
        let pruned = pruned(good.clone(), &gaps);
        // One more taken out, and listed.
        let mut fewer = pruned.clone();
        fewer.retain(|row| row.id != 6);
        assert_eq!(broken(&fewer, &[(2, 4), (6, 6)], 10), (10, FaultKind::Removed));
        // One put in where one was dropped: with the list as it was, and with one that fits.
        let mut more = pruned.clone();
        more.insert(1, good[1].clone());
        assert_eq!(broken(&more, &gaps, 10).1, FaultKind::Inserted);
        assert_eq!(broken(&more, &[(3, 4)], 10), (10, FaultKind::Removed));
        // Taken out after the pruning.
        let last = &pruned[pruned.len() - 1];
        let last = Link { id: last.id, hash: last.hash.expect("it has one") };
        let mut later = pruned;
        let gone = after(last, "olga", "x");
        let next = Link { id: gone.id, hash: gone.hash.expect("it has one") };
        later.push(after(next, "olga", "y"));
        assert_eq!(broken(&later, &[(2, 4), (11, 11)], 12), (11, FaultKind::Removed));
    }

    #[test]
    fn a_head_that_was_kept_shows_an_end_that_was_cut_and_a_chain_made_anew() {
        let good = rows(9);
        let head = |row: &Found| Link { id: row.id, hash: row.hash.expect("it has one") };
        for row in &good {
            assert!(walk(&good, &[], (9, Some(head(row)))).is_ok());
        }
        let with = |rows: &[Found], gaps: &[(i64, i64)], newest, kept| {
            walk(rows, gaps, (newest, Some(kept))).map(|_| ()).expect_err("not that head")
        };
        // Without the head this would pass.
        assert!(walk(&good[..7], &[], (7, None)).is_ok());
        assert_eq!(with(&good[..7], &[], 7, head(&good[8])), (8, FaultKind::Removed));
        let wrong = Link { id: 5, hash: Hash([1; 32]) };
        assert_eq!(with(&good, &[], 9, wrong), (5, FaultKind::Head));
        // The last of what was dropped is still known; those before it are not.
        let gaps = [(2, 4)];
        let pruned = pruned(good.clone(), &gaps);
        assert!(walk(&pruned, &gaps, (10, Some(head(&good[3])))).is_ok());
        assert_eq!(with(&pruned, &gaps, 10, head(&good[2])), (3, FaultKind::Head));
    }
}
