//! What is dropped of the audit, so that it does not grow without end: rows that are too old; and where
//! there are too many, the oldest of whoever has the most, so that nobody's noise takes what others did.
//!
//! What is dropped is listed, and the list sealed by a row of the chain (`audit.prune`), in the same commit.

use std::time::Duration;

use sqlx::{Row as _, SqliteConnection, SqlitePool};

use super::Row;
use super::chain::{PRUNE, seal};
use crate::clock::Time;
use crate::error::Result;
use crate::inventory::Inventory;

/// Rows dropped by one commit at most: others wait for it.
const BATCH: u32 = 4096;
/// Commits of one pruning at most; what is left waits for the next.
const COMMITS_MAX: u32 = 64;
/// Where there are too many, this part of what may be kept goes, too, so that it is not looked for each time.
const SLACK: u32 = 64;

/// What is kept.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Nothing older.
    pub days: u32,
    /// No more.
    pub rows_max: u32,
}

/// Drops what is not to be kept.
///
/// # Errors
/// As the inventory's; what was dropped until then stays so.
pub async fn prune(inventory: &Inventory, keep: Keep) -> Result<()> {
    let oldest = Time::now().before(Duration::from_secs(u64::from(keep.days) * 86_400));
    let mut commits = 0;
    while commits < COMMITS_MAX {
        let ids = aged(inventory.read(), oldest).await?;
        if ids.is_empty() {
            break;
        }
        drop_rows(inventory, &ids).await?;
        commits += 1;
    }
    for (who, mut surplus) in too_many(inventory.read(), keep.rows_max).await? {
        while surplus > 0 && commits < COMMITS_MAX {
            let ids = oldest_of(inventory.read(), who, surplus.min(BATCH)).await?;
            if ids.is_empty() {
                break;
            }
            surplus = surplus.saturating_sub(u32::try_from(ids.len()).unwrap_or(surplus));
            drop_rows(inventory, &ids).await?;
            commits += 1;
        }
    }
    Ok(())
}

/// The ranges of rows that were dropped, in order.
pub(super) async fn gaps(db: &mut SqliteConnection) -> Result<Vec<(i64, i64)>> {
    let rows = sqlx::query("select first, last from audit_gaps order by first").fetch_all(db);
    let rows = rows.await?;
    rows.iter().map(|row| Ok((row.try_get("first")?, row.try_get("last")?))).collect()
}

/// Of the oldest rows those that are too old: times are in the order of numbers, as long as no clock is
/// set back.
async fn aged(db: &SqlitePool, oldest: Time) -> Result<Vec<i64>> {
    let ids = sqlx::query_scalar(
        "select id from (select id, at from audit order by id limit ?1) where at < ?2 order by id",
    );
    Ok(ids.bind(BATCH).bind(oldest).fetch_all(db).await?)
}

/// Whoever has more rows than are left to each, where there are more than `rows_max`, and how many more.
async fn too_many(db: &SqlitePool, rows_max: u32) -> Result<Vec<(i64, u32)>> {
    let mut tx = db.begin().await?;
    let kept: i64 = sqlx::query_scalar(
        "select coalesce((select seq from sqlite_sequence where name = 'audit'), 0) \
         - coalesce((select sum(last - first + 1) from audit_gaps), 0)",
    )
    .fetch_one(&mut *tx)
    .await?;
    if kept <= i64::from(rows_max) {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "select coalesce(actor, owner, 0) as who, count(*) as rows from audit group by who",
    )
    .fetch_all(&mut *tx)
    .await?;
    let counts = rows.iter().map(|row| Ok((row.try_get("who")?, row.try_get("rows")?)));
    let counts: Vec<(i64, u32)> = counts.collect::<Result<_>>()?;
    Ok(surplus(&counts, rows_max - rows_max / SLACK))
}

/// What each has above the greatest share that all can have with `target` rows in all.
fn surplus(counts: &[(i64, u32)], target: u32) -> Vec<(i64, u32)> {
    let fits = |share: u32| {
        let kept: u64 = counts.iter().map(|(_, count)| u64::from(*count.min(&share))).sum();
        kept <= u64::from(target)
    };
    let (mut share, mut over) = (0, target.saturating_add(1));
    while over - share > 1 {
        let middle = share + (over - share) / 2;
        match fits(middle) {
            true => share = middle,
            false => over = middle,
        }
    }
    let above = |(who, count): &(i64, u32)| (*who, count.saturating_sub(share));
    counts.iter().map(above).filter(|(_, above)| *above > 0).collect()
}

async fn oldest_of(db: &SqlitePool, who: i64, most: u32) -> Result<Vec<i64>> {
    let ids = sqlx::query_scalar(
        "select id from audit where coalesce(actor, owner, 0) = ?1 order by id limit ?2",
    );
    Ok(ids.bind(who).bind(most).fetch_all(db).await?)
}

/// Drops these rows, which are in order, lists and seals that.
async fn drop_rows(inventory: &Inventory, ids: &[i64]) -> Result<()> {
    let mut write = inventory.observe().await?;
    let db = write.db();
    let before = gaps(db).await?;
    let ranges = ranges(ids);
    let after = merged(&before, &ranges);
    for (first, last) in after.iter().filter(|gap| before.binary_search(gap).is_err()) {
        sqlx::query("delete from audit_gaps where first between ?1 and ?2")
            .bind(first)
            .bind(last)
            .execute(&mut *db)
            .await?;
        sqlx::query("insert into audit_gaps (first, last) values (?1, ?2)")
            .bind(first)
            .bind(last)
            .execute(&mut *db)
            .await?;
    }
    for (first, last) in &ranges {
        sqlx::query("delete from audit where id between ?1 and ?2")
            .bind(first)
            .bind(last)
            .execute(&mut *db)
            .await?;
    }
    let times = u32::try_from(ids.len()).unwrap_or(u32::MAX);
    write.note(Row::mark(PRUNE, seal(&after), times));
    write.commit().await
}

/// Numbers in order as ranges.
fn ranges(ids: &[i64]) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for id in ids {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *id => *last = *id,
            _ => ranges.push((*id, *id)),
        }
    }
    ranges
}

/// Both lists as one, in which no two ranges touch.
fn merged(one: &[(i64, i64)], other: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let mut all: Vec<(i64, i64)> = one.iter().chain(other).copied().collect();
    all.sort_unstable();
    let mut merged: Vec<(i64, i64)> = Vec::with_capacity(all.len());
    for (first, last) in all {
        match merged.last_mut() {
            Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// The ranges of numbers up to `newest` that have no row: what was dropped before it was listed.
pub(super) fn missing(ids: impl Iterator<Item = i64>, newest: i64) -> Vec<(i64, i64)> {
    let mut missing = Vec::new();
    let mut next = 1;
    for id in ids.chain([newest + 1]) {
        if id > next {
            missing.push((next, id - 1));
        }
        next = id + 1;
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_the_most_loses_first() {
        assert_eq!(surplus(&[(1, 10), (2, 20)], 30), []);
        assert_eq!(surplus(&[(1, 10), (2, 1000), (3, 5)], 100), [(2, 915)]);
        // Two who are as loud share what the quiet one leaves.
        assert_eq!(surplus(&[(1, 500), (2, 400), (3, 10)], 110), [(1, 450), (2, 350)]);
        assert_eq!(surplus(&[(1, 7)], 0), [(1, 7)]);
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(ranges(&[1, 2, 3, 5, 7, 8]), [(1, 3), (5, 5), (7, 8)]);
        assert_eq!(merged(&[(1, 3), (9, 9)], &[(4, 5), (7, 7)]), [(1, 5), (7, 7), (9, 9)]);
        assert_eq!(merged(&[(1, 3), (5, 9)], &[(4, 4)]), [(1, 9)]);
        assert_eq!(missing([3, 4, 7].into_iter(), 9), [(1, 2), (5, 6), (8, 9)]);
        assert_eq!(missing([].into_iter(), 0), []);
        assert_eq!(missing([1, 2].into_iter(), 2), []);
    }
}
