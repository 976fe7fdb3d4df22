//! Who did what: one row per change that a caller asked for, refused ones included; and what was done to
//! objects that nobody asked for, by kernel, policy or the server itself.
//!
//! Rows are only appended, each linked to the one before ([`chain`]), in the transaction of what they tell
//! of. What is dropped for its age or number is listed and sealed ([`prune`]).

mod begin;
pub mod chain;
pub mod prune;
pub mod verify;
pub mod walk;

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use sqlx::{Row as _, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use crate::auth::{Actor, Visibility};
use crate::clock::Time;
use crate::error::Result;
pub(super) use begin::chain_older;
use chain::{Fields, Hash, Link};

/// A row to be written.
#[derive(Debug, Clone)]
pub struct Row {
    at: Time,
    actor: Option<PrincipalId>,
    actor_name: String,
    via: &'static str,
    action: String,
    /// What kind of object it was about.
    pub subject_kind: &'static str,
    /// Which.
    pub subject: String,
    /// Whose.
    pub owner: Option<PrincipalId>,
    outcome: String,
    address: String,
    request_id: String,
    times: u32,
}

/// What does something to an object that nobody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The kernel.
    Kernel,
    /// The restart policy of the object.
    Policy,
    /// The server.
    Server,
}

/// Whose rows are counted together where there are too many: a person's, with what happened by itself to
/// what is theirs; else an address's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Charged {
    /// This person's.
    Person(PrincipalId),
    /// Nobody's who had signed in, from this address.
    Address(String),
}

/// What two rows have in common that tell of the same: all but time and request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Essence {
    actor: Option<PrincipalId>,
    actor_name: String,
    via: &'static str,
    action: String,
    subject: String,
    owner: Option<PrincipalId>,
    outcome: String,
    address: String,
}

/// A row as operators and auditors read it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Its number: one more than that of the row before, which may have been dropped.
    pub id: i64,
    /// When; of what was done more than once, the last time.
    pub at: Time,
    /// Who; null when nobody had signed in.
    #[schema(value_type = Option<u32>)]
    pub actor: Option<PrincipalId>,
    /// Their name as it was then.
    pub actor_name: String,
    /// What proved it: `session`, `token`, `root_socket` or `nothing`. Of what nobody asked for, what did
    /// it: `kernel`, `policy` or `server`.
    pub via: String,
    /// What, such as `container.stop`; of refused requests method and route.
    pub action: String,
    /// What kind of object.
    pub subject_kind: String,
    /// Which.
    pub subject: String,
    /// Whose; null when it is nobody's or not known.
    #[schema(value_type = Option<u32>)]
    pub owner: Option<PrincipalId>,
    /// Their name, if they are still known. It is today's, so the hash does not cover it.
    pub owner_name: Option<String>,
    /// `done`, or the problem's code.
    pub outcome: String,
    /// Where the request came from; empty for Unix sockets.
    pub address: String,
    /// The request's id.
    pub request_id: String,
    /// How often, within a minute: what is the same is counted from its second time on.
    pub times: u32,
    /// The hash of the row before.
    #[schema(value_type = Option<String>)]
    pub prev: Option<Hash>,
    /// SHA-256 over that and all fields but `owner_name`.
    #[schema(value_type = Option<String>)]
    pub hash: Option<Hash>,
}

impl By {
    /// The word in `via`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Policy => "policy",
            Self::Server => "server",
        }
    }
}

impl Row {
    /// A row for a change that will be made.
    pub fn of(actor: &Actor, action: &str) -> Self {
        Self {
            at: Time::now(),
            actor: actor.principal,
            actor_name: actor.name.clone(),
            via: actor.via.as_str(),
            action: action.to_owned(),
            subject_kind: "",
            subject: String::new(),
            owner: None,
            outcome: "done".to_owned(),
            address: actor.address.map(|address| address.to_string()).unwrap_or_default(),
            request_id: actor.request_id.clone(),
            times: 1,
        }
    }

    /// A row for what `by` did, unasked, to an object: its kind, which, and whose.
    pub fn unasked(by: By, action: &str, object: (&'static str, &str, PrincipalId)) -> Self {
        let (subject_kind, subject, owner) = object;
        Self {
            at: Time::now(),
            actor: None,
            actor_name: "system".to_owned(),
            via: by.as_str(),
            action: action.to_owned(),
            subject_kind,
            subject: subject.to_owned(),
            owner: Some(owner),
            outcome: "done".to_owned(),
            address: String::new(),
            request_id: String::new(),
            times: 1,
        }
    }

    /// A row of the server's own about so many rows of the audit, which `seal` stands for.
    fn mark(action: &str, seal: String, times: u32) -> Self {
        let object = ("audit", seal.as_str(), PrincipalId::SYSTEM);
        Self {
            actor: Some(PrincipalId::SYSTEM),
            owner: None,
            times,
            ..Self::unasked(By::Server, action, object)
        }
    }

    /// This many times.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// The same without what it was: for more kinds at once than are told apart.
    #[must_use]
    pub fn various(self) -> Self {
        Self {
            action: "various".to_owned(),
            subject_kind: "",
            subject: String::new(),
            outcome: "various".to_owned(),
            ..self
        }
    }

    /// Whose it is where there are too many.
    pub fn charged(&self) -> Charged {
        match self.actor.or(self.owner) {
            Some(person) => Charged::Person(person),
            None => Charged::Address(self.address.clone()),
        }
    }

    /// How often it was.
    pub fn count(&self) -> u32 {
        self.times
    }

    /// When it was.
    pub fn at(&self) -> Time {
        self.at
    }

    /// What it has in common with others of its kind.
    pub fn essence(&self) -> Essence {
        Essence {
            actor: self.actor,
            actor_name: self.actor_name.clone(),
            via: self.via,
            action: self.action.clone(),
            subject: self.subject.clone(),
            owner: self.owner,
            outcome: self.outcome.clone(),
            address: self.address.clone(),
        }
    }

    fn fields(&self, id: i64) -> Fields<'_> {
        Fields {
            id,
            at: self.at,
            actor: self.actor.map(|id| i64::from(id.0)),
            actor_name: &self.actor_name,
            via: self.via,
            action: &self.action,
            subject_kind: self.subject_kind,
            subject: &self.subject,
            owner: self.owner.map(|id| i64::from(id.0)),
            outcome: &self.outcome,
            address: &self.address,
            request_id: &self.request_id,
            times: self.times.into(),
        }
    }

    /// A row for a request that was refused.
    pub fn refused(actor: &Actor, action: &str, code: &str) -> Self {
        Self { outcome: code.to_owned(), ..Self::of(actor, action) }
    }
}

/// Appends a row, linked to the one before; its number.
pub async fn insert(db: &mut SqliteConnection, row: &Row) -> Result<i64> {
    let last = last(db).await?;
    let id = last.id + 1;
    let hash = row.fields(id).hash(last.hash);
    sqlx::query(
        "insert into audit (id, at, actor, actor_name, via, action, subject_kind, subject, owner, \
         outcome, address, request_id, times, prev, hash) \
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id)
    .bind(row.at)
    .bind(row.actor.map(|id| i64::from(id.0)))
    .bind(&row.actor_name)
    .bind(row.via)
    .bind(&row.action)
    .bind(row.subject_kind)
    .bind(&row.subject)
    .bind(row.owner.map(|id| i64::from(id.0)))
    .bind(&row.outcome)
    .bind(&row.address)
    .bind(&row.request_id)
    .bind(row.times)
    .bind(&last.hash.0[..])
    .bind(&hash.0[..])
    .execute(db)
    .await?;
    Ok(id)
}

/// The number that was given last, and the hash of the newest row.
async fn last(db: &mut SqliteConnection) -> Result<Link> {
    let row = sqlx::query(
        "select coalesce((select seq from sqlite_sequence where name = 'audit'), 0) as id, \
         (select hash from audit order by id desc limit 1) as hash",
    )
    .fetch_one(db)
    .await?;
    Ok(Link { id: row.try_get("id")?, hash: hash(&row, "hash")?.unwrap_or_default() })
}

/// The number that was given last, whether or not that row is still there.
async fn newest(db: &mut SqliteConnection) -> Result<i64> {
    Ok(last(db).await?.id)
}

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// By this person: an id or a name.
    pub actor: Option<String>,
    /// About this person's objects: an id or a name.
    pub owner: Option<String>,
    /// This action; one that ends in `*` stands for all that begin so.
    pub action: Option<String>,
    /// About this object.
    pub subject: Option<String>,
    /// `done`, `refused` for all others, or a problem's code.
    pub outcome: Option<String>,
    /// Not before.
    pub since: Option<Time>,
    /// Before.
    pub until: Option<Time>,
}

/// What a row holds, its hashes last.
const COLUMNS: &str = "id, at, actor, actor_name, via, action, subject_kind, subject, owner, outcome, \
     address, request_id, times, prev, hash";
/// The owner's name of today.
const OWNER_NAME: &str = "coalesce((select name from people where people.id = owner), \
     (select name from offboardings o where o.person = owner)) as owner_name";

/// What every list is narrowed by; the numbers are those of [`bind_filter`].
const FILTERED: &str = "(?1 is null or actor_name = ?1 or cast(actor as text) = ?1) \
     and (?2 is null or cast(owner as text) = ?2 \
     or owner in (select id from people where people.name = ?2 \
     union all select person from offboardings where offboardings.name = ?2)) \
     and (?3 is null or action = ?3 or (substr(?3, -1) = '*' \
     and substr(action, 1, length(?3) - 1) = substr(?3, 1, length(?3) - 1))) \
     and (?4 is null or subject = ?4) \
     and (?5 is null or outcome = ?5 or (?5 = 'refused' and outcome <> 'done')) \
     and (?6 is null or at >= ?6) and (?7 is null or at < ?7) ";

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind_filter<'q>(query: Query<'q>, filter: &'q Filter) -> Query<'q> {
    query
        .bind(filter.actor.as_deref())
        .bind(filter.owner.as_deref())
        .bind(filter.action.as_deref())
        .bind(filter.subject.as_deref())
        .bind(filter.outcome.as_deref())
        .bind(filter.since)
        .bind(filter.until)
}

/// The number of the newest row of all, and how many fit, counted to `most` and no further.
pub async fn extent(db: &SqlitePool, filter: &Filter, most: u32) -> Result<(i64, u32)> {
    let query = sqlx::query(sqlx::AssertSqlSafe(format!(
        "select (select coalesce(max(id), 0) from audit) as newest, \
         (select count(*) from (select 1 from audit where {FILTERED} limit ?8)) as count"
    )));
    let row = bind_filter(query, filter).bind(most).fetch_one(db).await?;
    Ok((row.try_get("newest")?, row.try_get("count")?))
}

/// The newest rows before `before`.
pub async fn list(
    db: &SqlitePool,
    filter: &Filter,
    before: Option<i64>,
    limit: u32,
) -> Result<Vec<AuditEntry>> {
    let query = sqlx::query(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS}, {OWNER_NAME} from audit \
         where {FILTERED} and (?8 is null or id < ?8) order by id desc limit ?9"
    )));
    let rows = bind_filter(query, filter).bind(before).bind(limit).fetch_all(db).await?;
    rows.iter().map(entry).collect()
}

/// The newest rows about one container before `before`. Changes and what nobody asked for are left out:
/// their events know more.
pub async fn list_of(
    db: &SqlitePool,
    visible: Visibility,
    subject: &str,
    before: i64,
    limit: u32,
) -> Result<Vec<AuditEntry>> {
    let seen = super::grants::seen(2);
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS}, {OWNER_NAME} from audit \
         where subject = ?1 and {seen} and id < ?3 \
         and action not in ('container.change', 'container.share', 'container.unshare', \
         'container.look', 'container.look-end') \
         and via not in ('kernel', 'policy', 'server') \
         order by id desc limit ?4"
    )))
    .bind(subject)
    .bind(visible.owner())
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(entry).collect()
}

fn entry(row: &sqlx::sqlite::SqliteRow) -> Result<AuditEntry> {
    let actor: Option<i64> = row.try_get("actor")?;
    let owner: Option<i64> = row.try_get("owner")?;
    Ok(AuditEntry {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        actor: actor.map(super::principal_from).transpose()?,
        actor_name: row.try_get("actor_name")?,
        via: row.try_get("via")?,
        action: row.try_get("action")?,
        subject_kind: row.try_get("subject_kind")?,
        subject: row.try_get("subject")?,
        owner: owner.map(super::principal_from).transpose()?,
        owner_name: row.try_get("owner_name")?,
        outcome: row.try_get("outcome")?,
        address: row.try_get("address")?,
        request_id: row.try_get("request_id")?,
        times: row.try_get("times")?,
        prev: hash(row, "prev")?,
        hash: hash(row, "hash")?,
    })
}

/// A hash in this column; none where there is nothing, or nothing of a hash's length.
fn hash(row: &sqlx::sqlite::SqliteRow, column: &str) -> Result<Option<Hash>, sqlx::Error> {
    let bytes: Option<Vec<u8>> = row.try_get(column)?;
    Ok(bytes.and_then(|bytes| Hash::of(&bytes)))
}
