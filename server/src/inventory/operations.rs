//! Long work: its start and its end. Progress lives in memory (`service::operations`).

use std::time::Duration;

use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use crate::auth::Visibility;
use crate::clock::Time;
use crate::error::{Error, Result};

/// How an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub enum OperationState {
    /// Going on.
    Running,
    /// Done; the result is there.
    Succeeded,
    /// Failed; the failure says why.
    Failed,
    /// Ended by somebody's wish.
    Cancelled,
    /// The server stopped while it went on; what it had begun was finished or undone.
    Interrupted,
}

/// Why an operation failed.
#[derive(ToSchema)]
#[schema(as = OperationFailure)]
#[expect(dead_code, reason = "it describes what is kept as JSON")]
struct FailureShape {
    /// What one may do about it: `not_found`, `conflict`, `invalid`, `denied`, `exhausted`,
    /// `unavailable` or `broken`.
    class: String,
    /// The code of the same problem.
    code: String,
    /// One sentence.
    message: String,
}

/// Long work, such as a pull.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Operation {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Whose.
    #[schema(value_type = u32)]
    pub owner: PrincipalId,
    /// Their name; null for the system's.
    pub owner_name: Option<String>,
    /// What, such as `image.pull`.
    pub kind: String,
    /// What kind of object it is about.
    pub subject_kind: String,
    /// Which, as the kind names them.
    pub subject: String,
    /// How it stands.
    pub state: OperationState,
    /// How far it is; what is in it depends on the kind.
    pub progress: Value,
    /// What it made, once succeeded.
    pub result: Option<Value>,
    /// Why not, once failed.
    #[schema(value_type = Option<FailureShape>)]
    pub failure: Option<Value>,
    /// When it began.
    pub created_at: Time,
    /// When it ended.
    pub ended_at: Option<Time>,
}

/// An operation to be started.
#[derive(Debug, Clone)]
pub struct NewOperation<'a> {
    /// 32 hexadecimal digits.
    pub id: &'a str,
    /// Whose.
    pub owner: PrincipalId,
    /// What, such as `image.pull`.
    pub kind: &'static str,
    /// What kind of object it is about.
    pub subject_kind: &'static str,
    /// Which.
    pub subject: &'a str,
}

/// How an operation ended.
#[derive(Debug, Clone)]
pub struct End {
    /// Not [`OperationState::Running`].
    pub state: OperationState,
    /// The last progress.
    pub progress: Value,
    /// What it made.
    pub result: Option<Value>,
    /// Why not.
    pub failure: Option<Value>,
}

/// Which operations are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those in this state.
    pub state: Option<OperationState>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those about this object.
    pub subject: Option<String>,
    /// Only this person's, by name.
    pub owner: Option<String>,
    /// Only those with this in what they are about.
    pub words: Option<String>,
    /// Only those before (`created_at`, `id`), newest first.
    pub before: Option<(Time, String)>,
}

const COLUMNS: &str = "select id, owner, (select name from people where people.id = owner) \
    as owner_name, kind, subject_kind, subject, state, progress, result, failure, created_at, \
    ended_at from operations ";

/// Whether one of this kind goes on.
pub async fn is_running(db: &mut SqliteConnection, kind: &str) -> Result<bool> {
    let query = "select exists (select 1 from operations where kind = ? and state = 'running')";
    Ok(sqlx::query_scalar(query).bind(kind).fetch_one(db).await?)
}

/// Writes down that it begins.
pub async fn insert(db: &mut SqliteConnection, new: &NewOperation<'_>) -> Result<()> {
    sqlx::query(
        "insert into operations (id, owner, kind, subject_kind, subject, state, created_at) \
         values (?, ?, ?, ?, ?, 'running', ?)",
    )
    .bind(new.id)
    .bind(i64::from(new.owner.0))
    .bind(new.kind)
    .bind(new.subject_kind)
    .bind(new.subject)
    .bind(Time::now())
    .execute(db)
    .await?;
    Ok(())
}

/// Writes down how it ended; an operation ends once.
pub async fn end(db: &mut SqliteConnection, id: &str, end: &End) -> Result<()> {
    sqlx::query(
        "update operations set state = ?, progress = ?, result = ?, failure = ?, ended_at = ? \
         where id = ? and state = 'running'",
    )
    .bind(end.state)
    .bind(end.progress.to_string())
    .bind(end.result.as_ref().map(Value::to_string))
    .bind(end.failure.as_ref().map(Value::to_string))
    .bind(Time::now())
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// Marks what was running when the server stopped.
pub async fn interrupt_all(db: &mut SqliteConnection) -> Result<u64> {
    let done = sqlx::query(
        "update operations set state = 'interrupted', ended_at = ? where state = 'running'",
    )
    .bind(Time::now())
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// One operation.
pub async fn find(db: &SqlitePool, visible: Visibility, id: &str) -> Result<Operation> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where id = ?1 and (?2 is null or owner = ?2)"
    )))
    .bind(id)
    .bind(visible.owner())
    .fetch_optional(db)
    .await?;
    operation(&row.ok_or(Error::NotFound("operation"))?)
}

/// Operations, newest first.
pub async fn list(
    db: &SqlitePool,
    visible: Visibility,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<Operation>> {
    let (before, before_id) = match &filter.before {
        Some((at, id)) => (Some(*at), Some(id.as_str())),
        None => (None, None),
    };
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where (?1 is null or owner = ?1) and (?2 is null or state = ?2) \
         and (?3 is null or kind = ?3) and (?4 is null or subject = ?4) \
         and (?5 is null or (created_at, id) < (?5, ?6)) \
         and (?8 is null or owner = (select id from people where name = ?8)) \
         and (?9 is null or instr(lower(subject), lower(?9)) > 0) \
         order by created_at desc, id desc limit ?7"
    )))
    .bind(visible.owner())
    .bind(filter.state)
    .bind(filter.kind.as_deref())
    .bind(filter.subject.as_deref())
    .bind(before)
    .bind(before_id)
    .bind(limit)
    .bind(filter.owner.as_deref())
    .bind(filter.words.as_deref())
    .fetch_all(db)
    .await?;
    rows.iter().map(operation).collect()
}

/// Drops ended ones older than `days` or more than `rows_max`.
pub async fn prune(db: &mut SqliteConnection, days: u32, rows_max: u32) -> Result<()> {
    let oldest = Time::now().before(Duration::from_secs(u64::from(days) * 86_400));
    sqlx::query(
        "delete from operations where state <> 'running' and (created_at < ?1 or id in \
         (select id from operations order by created_at desc, id desc limit -1 offset ?2))",
    )
    .bind(oldest)
    .bind(rows_max)
    .execute(db)
    .await?;
    Ok(())
}

fn operation(row: &sqlx::sqlite::SqliteRow) -> Result<Operation> {
    let json = |text: String| {
        serde_json::from_str::<Value>(&text)
            .map_err(|source| Error::broken("read an operation", source))
    };
    Ok(Operation {
        id: row.try_get("id")?,
        owner: super::principal(row, "owner")?,
        owner_name: row.try_get("owner_name")?,
        kind: row.try_get("kind")?,
        subject_kind: row.try_get("subject_kind")?,
        subject: row.try_get("subject")?,
        state: row.try_get("state")?,
        progress: json(row.try_get("progress")?)?,
        result: row.try_get::<Option<String>, _>("result")?.map(json).transpose()?,
        failure: row.try_get::<Option<String>, _>("failure")?.map(json).transpose()?,
        created_at: row.try_get("created_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}
