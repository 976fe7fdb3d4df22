//! What people have used, by day.

use std::collections::HashMap;

use berth_runtime::id::PrincipalId;
use sqlx::{Row, SqliteConnection, SqlitePool};

use crate::auth::Visibility;
use crate::error::Result;

/// Seconds of a quarter of an hour.
pub const QUARTER_SECS: i64 = 900;
/// Quarters of a day.
pub const DAY_QUARTERS: i64 = 96;

/// Sums over some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// Microseconds of processor time.
    pub cpu_usec: u64,
    /// KiB of memory times seconds.
    pub memory_kib_secs: u64,
    /// KiB of images times seconds.
    pub image_kib_secs: u64,
    /// Seconds times running containers.
    pub container_secs: u64,
}

/// One person's day.
#[derive(Debug, Clone)]
pub struct Day {
    /// Days since 1970-01-01, in UTC.
    pub day: i64,
    /// Who.
    pub person: PrincipalId,
    /// Their name now.
    pub name: String,
    /// What they used.
    pub sums: Sums,
}

impl Sums {
    /// Adds `more`; what is too large for the sum stays at the largest.
    pub fn add(&mut self, more: &Self) {
        self.cpu_usec = self.cpu_usec.saturating_add(more.cpu_usec);
        self.memory_kib_secs = self.memory_kib_secs.saturating_add(more.memory_kib_secs);
        self.image_kib_secs = self.image_kib_secs.saturating_add(more.image_kib_secs);
        self.container_secs = self.container_secs.saturating_add(more.container_secs);
    }
}

/// Adds to somebody's day.
pub async fn add(
    db: &mut SqliteConnection,
    (person, day): (PrincipalId, i64),
    sums: &Sums,
) -> Result<()> {
    sqlx::query(
        "insert into usage_days (person, day, cpu_usec, memory_kib_secs, image_kib_secs, container_secs) \
         values (?, ?, ?, ?, ?, ?) on conflict (person, day) do update set \
         cpu_usec = cpu_usec + excluded.cpu_usec, \
         memory_kib_secs = memory_kib_secs + excluded.memory_kib_secs, \
         image_kib_secs = image_kib_secs + excluded.image_kib_secs, \
         container_secs = container_secs + excluded.container_secs",
    )
    .bind(i64::from(person.0))
    .bind(day)
    .bind(whole(sums.cpu_usec))
    .bind(whole(sums.memory_kib_secs))
    .bind(whole(sums.image_kib_secs))
    .bind(whole(sums.container_secs))
    .execute(db)
    .await?;
    Ok(())
}

/// Adds to somebody's quarter of an hour.
pub async fn add_quarter(
    db: &mut SqliteConnection,
    (person, quarter): (PrincipalId, i64),
    sums: &Sums,
) -> Result<()> {
    sqlx::query(
        "insert into usage_quarters (person, quarter, cpu_usec, memory_kib_secs, container_secs) \
         values (?, ?, ?, ?, ?) on conflict (person, quarter) do update set \
         cpu_usec = cpu_usec + excluded.cpu_usec, \
         memory_kib_secs = memory_kib_secs + excluded.memory_kib_secs, \
         container_secs = container_secs + excluded.container_secs",
    )
    .bind(i64::from(person.0))
    .bind(quarter)
    .bind(whole(sums.cpu_usec))
    .bind(whole(sums.memory_kib_secs))
    .bind(whole(sums.container_secs))
    .execute(db)
    .await?;
    Ok(())
}

/// One person's quarters from `first` on, oldest first.
pub async fn quarters(
    db: &SqlitePool,
    person: PrincipalId,
    first: i64,
) -> Result<Vec<(i64, Sums)>> {
    let query = "select * from usage_quarters where person = ? and quarter >= ? order by quarter";
    let rows = sqlx::query(query).bind(i64::from(person.0)).bind(first).fetch_all(db).await?;
    rows.iter()
        .map(|row| {
            let sums = Sums {
                cpu_usec: number(row, "cpu_usec")?,
                memory_kib_secs: number(row, "memory_kib_secs")?,
                image_kib_secs: 0,
                container_secs: number(row, "container_secs")?,
            };
            Ok((row.try_get("quarter")?, sums))
        })
        .collect()
}

/// Drops quarters before `first`.
pub async fn prune_quarters(db: &mut SqliteConnection, first: i64) -> Result<()> {
    sqlx::query("delete from usage_quarters where quarter < ?").bind(first).execute(db).await?;
    Ok(())
}

/// Notes how far somebody's counter was.
pub async fn set_counter(
    db: &mut SqliteConnection,
    person: PrincipalId,
    boot_id: &str,
    cpu_usec: u64,
) -> Result<()> {
    sqlx::query(
        "insert or replace into usage_counters (person, boot_id, cpu_usec) values (?, ?, ?)",
    )
    .bind(i64::from(person.0))
    .bind(boot_id)
    .bind(whole(cpu_usec))
    .execute(db)
    .await?;
    Ok(())
}

/// How far the counters were in this boot.
pub async fn counters(db: &SqlitePool, boot_id: &str) -> Result<HashMap<PrincipalId, u64>> {
    let rows = sqlx::query("select person, cpu_usec from usage_counters where boot_id = ?")
        .bind(boot_id)
        .fetch_all(db)
        .await?;
    rows.iter()
        .map(|row| Ok((super::principal(row, "person")?, number(row, "cpu_usec")?)))
        .collect()
}

/// The days from `first` to `last`, both included, of those who are visible or of one of them; the newest first, and
/// of a day by name. At most `limit`.
pub async fn list(
    db: &SqlitePool,
    visible: Visibility,
    person: Option<PrincipalId>,
    (first, last): (i64, i64),
    limit: u32,
) -> Result<Vec<Day>> {
    let rows = sqlx::query(
        "select d.*, coalesce(p.name, 'system') as name from usage_days d \
         left join people p on p.id = d.person \
         where d.day between ?1 and ?2 and (?3 is null or d.person = ?3) \
         and (?4 is null or d.person = ?4) order by d.day desc, name, d.person limit ?5",
    )
    .bind(first)
    .bind(last)
    .bind(visible.owner())
    .bind(person.map(|person| i64::from(person.0)))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Day {
                day: row.try_get("day")?,
                person: super::principal(row, "person")?,
                name: row.try_get("name")?,
                sums: Sums {
                    cpu_usec: number(row, "cpu_usec")?,
                    memory_kib_secs: number(row, "memory_kib_secs")?,
                    image_kib_secs: number(row, "image_kib_secs")?,
                    container_secs: number(row, "container_secs")?,
                },
            })
        })
        .collect()
}

/// Drops days before `first`.
pub async fn prune(db: &mut SqliteConnection, first: i64) -> Result<()> {
    sqlx::query("delete from usage_days where day < ?").bind(first).execute(db).await?;
    Ok(())
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(row: &sqlx::sqlite::SqliteRow, column: &str) -> Result<u64> {
    Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
}
