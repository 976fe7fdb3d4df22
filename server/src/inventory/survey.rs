//! How much of what there is, for a report that leaves the machine: numbers and the words that this program
//! has itself, nothing that anybody has typed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{Row, SqlitePool};

use crate::clock::Time;

/// Failed operations that are told of, newest first.
const FAILURES_MAX: i64 = 50;
/// Refused requests that are counted, the newest ones.
const REFUSALS_MAX: i64 = 10_000;
/// No word of ours is longer.
const WORD_CHARS_MAX: usize = 60;

/// The numbers.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Survey {
    /// The newest of its migrations.
    pub schema: i64,
    /// Rows by table, and of some by state.
    pub counts: BTreeMap<String, i64>,
    /// Operations that failed last.
    pub failures: Vec<FailedOperation>,
    /// Refused requests by the code of their problem.
    pub refusals: BTreeMap<String, i64>,
}

/// An operation that failed: what kind, when and why, but not of whom nor of what.
#[derive(Debug, Clone, Serialize)]
pub struct FailedOperation {
    /// What, such as `image.pull`.
    pub kind: String,
    /// What one may do about it.
    pub class: String,
    /// The problem's code.
    pub code: String,
    /// When it ended.
    pub ended_at: Option<Time>,
}

/// What is counted: a name, and a query for its rows or for its rows by a word.
const COUNTS: &[(&str, &str)] = &[
    (
        "people",
        "select role || iif(disabled_at is null, '', '-disabled'), count(*) from people group by 1",
    ),
    ("group_members", "select role, count(*) from group_members group by 1"),
    ("invitations", "select '', count(*) from invitations"),
    ("sessions", "select '', count(*) from sessions"),
    ("tokens", "select scope, count(*) from tokens group by 1"),
    ("registry_credentials", "select '', count(*) from registry_credentials"),
    (
        "second_factors",
        "select iif(confirmed_at is null, 'begun', 'on'), count(*) from second_factors group by 1",
    ),
    ("images", "select source, count(*) from images group by 1"),
    ("image_references", "select kind, count(*) from image_references group by 1"),
    ("image_layers", "select compression, count(*) from image_layers group by 1"),
    ("containers", "select intent, count(*) from containers group by 1"),
    ("restart_policies", "select restart_policy, count(*) from containers group by 1"),
    ("volumes", "select iif(removed, 'leaving', ''), count(*) from volumes group by 1"),
    (
        "grants",
        "select object_kind || '-' || grantee_kind || iif(grantee is null, '-nobody', ''), count(*) \
         from grants group by 1",
    ),
    ("port_leases", "select protocol, count(*) from port_leases group by 1"),
    ("operations", "select kind || '.' || state, count(*) from operations group by 1"),
    ("events", "select kind, count(*) from events group by 1"),
    ("audit", "select '', count(*) from audit"),
];

/// Counts what is in an inventory, in use or not.
///
/// # Errors
/// When it cannot be opened, or lacks a table.
pub async fn take(path: &Path) -> Result<Survey> {
    super::check_header(path)?;
    let one = SqlitePoolOptions::new().max_connections(1);
    let db = one.connect_with(super::options(path).read_only(true)).await.context("open it")?;
    let mut survey = Survey {
        schema: sqlx::query_scalar("select coalesce(max(version), 0) from _sqlx_migrations")
            .fetch_one(&db)
            .await
            .context("look for its version")?,
        ..Survey::default()
    };
    for (name, sql) in COUNTS {
        for (which, count) in pairs(&db, sql).await? {
            let key = if which.is_empty() { (*name).to_owned() } else { format!("{name}.{which}") };
            survey.counts.insert(key, count);
        }
    }
    let refusals = format!(
        "select outcome, count(*) from (select outcome from audit where outcome != 'done' \
         order by id desc limit {REFUSALS_MAX}) group by 1"
    );
    survey.refusals = pairs(&db, &refusals).await?.into_iter().collect();
    survey.failures = failures(&db).await?;
    db.close().await;
    Ok(survey)
}

async fn pairs(db: &SqlitePool, sql: &str) -> Result<Vec<(String, i64)>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).fetch_all(db).await;
    rows.context("count its rows")?
        .iter()
        .map(|row| Ok((word(row.try_get(0)?), row.try_get(1)?)))
        .collect()
}

async fn failures(db: &SqlitePool) -> Result<Vec<FailedOperation>> {
    let rows = sqlx::query(
        "select kind, coalesce(json_extract(failure, '$.class'), ''), \
         coalesce(json_extract(failure, '$.code'), ''), ended_at from operations \
         where state = 'failed' order by created_at desc, id desc limit ?",
    )
    .bind(FAILURES_MAX)
    .fetch_all(db)
    .await
    .context("look for failed operations")?;
    rows.iter()
        .map(|row| {
            Ok(FailedOperation {
                kind: word(row.try_get(0)?),
                class: word(row.try_get(1)?),
                code: word(row.try_get(2)?),
                ended_at: row.try_get(3)?,
            })
        })
        .collect()
}

/// A word of this program's vocabulary: what does not look like one is not told.
fn word(text: String) -> String {
    let fine = |byte: u8| byte.is_ascii_lowercase() || b"-_.".contains(&byte);
    match text.len() <= WORD_CHARS_MAX && text.bytes().all(fine) {
        true => text,
        false => "other".to_owned(),
    }
}
