//! Containers: what was asked for, by whom, and how the last run ended.
//!
//! Every update names the state that it expects and touches one row or fails, so that the database
//! asserts a second time what the service has decided.

use berth_runtime::digest::Digest;
use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::{ExitRecord, Failure};
use berth_runtime::wire::{Limits, PortLease};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};

use super::data_sets;
use super::volumes::Mount;
use crate::auth::{Caller, Granted, Kind, Rights, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};

/// What people want a container to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(rename_all = "snake_case")]
pub enum Intent {
    /// Wait for its image.
    Pulling,
    /// Nothing yet.
    Created,
    /// Run.
    Running,
    /// Not run.
    Stopped,
    /// Be gone.
    Removed,
}

/// How its end was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(rename_all = "snake_case")]
pub enum StopKind {
    /// By its stop signal.
    Stop,
    /// At once.
    Kill,
    /// By removing it with force.
    Remove,
    /// To be started again.
    Restart,
}

/// The rule by which a container was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// So many seconds had passed since it began.
    Lifetime(u64),
    /// Nothing was seen of its use for so many seconds.
    Idle(u64),
}

/// After how many seconds without use a container is stopped.
#[derive(Debug, Clone)]
pub struct IdleRule {
    /// Which.
    pub id: ContainerId,
    /// Whose.
    pub owner: PrincipalId,
    /// Seconds.
    pub secs: u32,
}

/// How long the runs of a container go on that follow from one start that somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// When the first began.
    pub began_at: Time,
    /// When it is stopped; `None` for never.
    pub ends_at: Option<Time>,
}

/// A life that ends.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Whose life.
    pub id: ContainerId,
    /// Whose container.
    pub owner: PrincipalId,
    /// When.
    pub ends_at: Time,
}

/// A row.
#[derive(Debug, Clone)]
pub struct Container {
    pub id: ContainerId,
    pub owner: PrincipalId,
    pub owner_name: String,
    /// What of it was shared with whom the row was read for; never of one read for the server's own work.
    pub granted: Option<Granted>,
    /// Whose resources it counts to.
    pub group: PrincipalId,
    pub name: String,
    pub image_reference: String,
    pub image_id: Option<String>,
    /// JSON; the service knows its form.
    pub request: String,
    /// JSON; the service knows its form.
    pub spec: Option<String>,
    pub limits: Limits,
    /// Ports of the host that lead to it.
    pub ports: Vec<PortLease>,
    /// Its volumes, in the order in which they were asked for.
    pub mounts: Vec<Mount>,
    /// Its data sets, in the same way.
    pub data_sets: Vec<data_sets::Mount>,
    /// Whether the kernel is known to hold them.
    pub limits_applied: bool,
    pub intent: Intent,
    pub run: u64,
    pub operation: Option<String>,
    pub start_when_pulled: bool,
    pub restart_policy: String,
    pub restart_attempts_max: Option<u32>,
    pub restart_attempts: u32,
    pub next_attempt_at: Option<Time>,
    pub stopped_by_name: Option<String>,
    pub stop_kind: Option<StopKind>,
    pub stop_deadline_at: Option<Time>,
    pub last_exit: Option<ExitRecord>,
    pub failure: Option<Failure>,
    pub created_at: Time,
    pub started_at: Option<Time>,
    /// Seconds that were asked for when it was made.
    pub lifetime_secs: Option<u32>,
    pub life_began_at: Option<Time>,
    /// When it is stopped, while it is to run.
    pub ends_at: Option<Time>,
    /// Why a rule has stopped its newest run.
    pub stop_why: Option<Why>,
}

/// A row to be written.
#[derive(Debug)]
pub struct NewContainer<'a> {
    pub id: &'a ContainerId,
    pub owner: PrincipalId,
    pub name: &'a str,
    pub image_reference: &'a str,
    pub request: String,
    pub limits: Limits,
    pub intent: Intent,
    pub start_when_pulled: bool,
    pub restart_policy: &'static str,
    pub restart_attempts_max: Option<u32>,
    pub lifetime_secs: Option<u32>,
    /// Of its first run.
    pub life: Life,
    /// Known when the image is here.
    pub image: Option<ImagePart<'a>>,
}

/// What an image adds to a row.
#[derive(Debug)]
pub struct ImagePart<'a> {
    pub id: &'a str,
    pub layers: &'a [Digest],
    pub spec: String,
}

/// Which containers are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Part of the name.
    pub name: Option<String>,
    /// Part of the image's reference.
    pub image: Option<String>,
    /// Whose.
    pub owner: Option<PrincipalId>,
    /// Only the caller's own, or only what was shared with them.
    pub whose: Option<Whose>,
    /// Only those before (`created_at`, `id`), newest first.
    pub before: Option<(Time, ContainerId)>,
}

/// A part of what somebody sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Their own.
    Mine,
    /// What others have shared with them.
    Shared,
}

/// An asked-for end.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    pub by: PrincipalId,
    pub kind: StopKind,
    pub deadline_at: Option<Time>,
    /// The rule that asks.
    pub why: Option<Why>,
}

/// A start.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// The number of the run before.
    pub run_before: u64,
    /// Restarts by policy in a row.
    pub attempts: u32,
    /// How long it goes on.
    pub life: Life,
}

/// Ports as the type's own JSON.
macro_rules! ports {
    () => {
        "(select json_group_array(json_object('protocol', l.protocol, 'host', l.host_port, \
         'container', l.container_port)) from port_leases l where l.container = c.id) as ports, "
    };
}

/// Volumes as the type's own JSON. One of somebody else's has its owner's name before its own, as long as it is
/// shared with the container's owner; after that, or when it is gone, it has its id alone.
macro_rules! mounts {
    () => {
        "(select json_group_array(json_object('volume', m.volume, \
         'name', coalesce(iif(v.owner = c.owner, v.name, w.name || '/' || v.name), m.volume), \
         'owner', w.name, \
         'target', m.target, 'read_only', json(iif(m.read_only, 'true', 'false')), \
         'sub_path', m.sub_path)) from (select * from container_volumes \
         where container = c.id order by position) m \
         left join volumes v on v.id = m.volume and v.removed = 0 \
         left join people w on w.id = v.owner and w.id <> c.owner and exists \
         (select 1 from granted where object_kind = 'volume' and object = v.id \
         and person = c.owner)) as mounts, "
    };
}

/// Data sets as the type's own JSON.
macro_rules! data_sets {
    () => {
        "(select json_group_array(json_object('name', d.name, 'target', d.target)) \
         from (select * from container_data_sets where container = c.id order by position) d) \
         as data_sets, "
    };
}

/// What of each container was shared with ?3, once for the whole query.
macro_rules! mine {
    () => {
        "with mine as materialized (select object, max(logs) as logs, max(terminal) as terminal, \
         max(files) as files, max(manage) as manage from granted \
         where object_kind = 'container' and person = ?3 group by object) "
    };
}

/// That as the type's own JSON.
macro_rules! granted {
    () => {
        "iif(mine.object is null, null, json_object('logs', json(iif(mine.logs, 'true', 'false')), \
         'terminal', json(iif(mine.terminal, 'true', 'false')), \
         'files', json(iif(mine.files, 'true', 'false')), \
         'manage', json(iif(mine.manage, 'true', 'false')))) as granted, "
    };
}

/// What the caller ?3 may see, when they see what is of ?2.
const VISIBLE: &str = "(?2 is null or c.owner = ?2 or mine.object is not null) ";

const FOR_CALLER: &str = concat!(
    mine!(),
    "select c.*, ",
    ports!(),
    mounts!(),
    data_sets!(),
    granted!(),
    "coalesce(p.name, 'system') as owner_name, \
     coalesce(p.group_id, 2) as group_id, coalesce(s.name, 'system') as stopped_by_name \
     from containers c left join people p on p.id = c.owner \
     left join people s on s.id = c.stopped_by left join mine on mine.object = c.id ",
);

const COLUMNS: &str = concat!(
    "select c.*, null as granted, ",
    ports!(),
    mounts!(),
    data_sets!(),
    "coalesce(p.name, 'system') as owner_name, \
     coalesce(p.group_id, 2) as group_id, coalesce(s.name, 'system') as stopped_by_name \
     from containers c left join people p on p.id = c.owner \
     left join people s on s.id = c.stopped_by ",
);

impl Container {
    /// What `caller` may do with it, for whom the row was read.
    pub fn rights(&self, caller: &Caller) -> Rights {
        caller.rights((Kind::Container, self.owner), self.granted)
    }
}

/// One container that `caller` sees, by id, or by name among their own.
pub async fn find(
    db: &SqlitePool,
    visible: Visibility,
    caller: PrincipalId,
    key: &str,
) -> Result<Container> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{FOR_CALLER} where (c.id = ?1 or (c.name = ?1 and c.owner = ?3)) and {VISIBLE}"
    )))
    .bind(key)
    .bind(visible.owner())
    .bind(i64::from(caller.0))
    .fetch_optional(db)
    .await?;
    container(&row.ok_or(Error::NotFound("container"))?)
}

/// One container, for the server's own work.
pub async fn find_any(db: &SqlitePool, id: &ContainerId) -> Result<Option<Container>> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} where c.id = ?1")))
        .bind(id.as_str())
        .fetch_optional(db)
        .await?;
    row.as_ref().map(container).transpose()
}

/// Containers that `caller` sees, newest first.
pub async fn list(
    db: &SqlitePool,
    (visible, caller): (Visibility, PrincipalId),
    filter: &Filter,
    limit: u32,
) -> Result<Vec<Container>> {
    let (before, before_id) = match &filter.before {
        Some((at, id)) => (Some(*at), Some(id.as_str())),
        None => (None, None),
    };
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{FOR_CALLER} where (?1 is null or c.owner = ?1) and {VISIBLE} \
         and (?4 is null or instr(c.name, ?4) > 0) \
         and (?5 is null or instr(c.image_reference, ?5) > 0) \
         and (?6 is null or (c.created_at, c.id) < (?6, ?7)) \
         and (?9 is null or iif(?9, c.owner = ?3, c.owner <> ?3 and mine.object is not null)) \
         order by c.created_at desc, c.id desc limit ?8"
    )))
    .bind(filter.owner.map(|id| i64::from(id.0)))
    .bind(visible.owner())
    .bind(i64::from(caller.0))
    .bind(filter.name.as_deref())
    .bind(filter.image.as_deref())
    .bind(before)
    .bind(before_id)
    .bind(limit)
    .bind(filter.whose.map(|whose| whose == Whose::Mine))
    .fetch_all(db)
    .await?;
    rows.iter().map(container).collect()
}

/// Containers without what is in them (their requests and specs are empty), newest first: for long
/// lists, which would read megabytes of JSON otherwise.
pub async fn light(
    db: &SqlitePool,
    visible: Visibility,
    caller: PrincipalId,
    limit: u32,
) -> Result<Vec<Container>> {
    let rows = sqlx::query(concat!(
        mine!(),
        "select ",
        granted!(),
        ports!(),
        mounts!(),
        data_sets!(),
        "c.id, c.owner, c.name, c.image_reference, c.image_id, '' as request, \
         null as spec, c.cpu_millis, c.cpu_weight, c.memory_bytes, c.swap_bytes, c.pids, \
         c.limits_applied, c.intent, c.run, c.operation, c.start_when_pulled, c.restart_policy, \
         c.restart_attempts_max, c.restart_attempts, c.next_attempt_at, c.stopped_by, \
         c.stop_kind, c.stop_deadline_at, c.last_exit, c.failure, c.created_at, c.started_at, \
         c.lifetime_secs, c.life_began_at, c.ends_at, c.stop_why, \
         coalesce(p.name, 'system') as owner_name, coalesce(p.group_id, 2) as group_id, \
         coalesce(s.name, 'system') as stopped_by_name \
         from containers c left join people p on p.id = c.owner \
         left join people s on s.id = c.stopped_by left join mine on mine.object = c.id \
         where (?2 is null or c.owner = ?2 or mine.object is not null) \
         order by c.created_at desc, c.id desc limit ?1",
    ))
    .bind(limit)
    .bind(visible.owner())
    .bind(i64::from(caller.0))
    .fetch_all(db)
    .await?;
    rows.iter().map(container).collect()
}

/// Every container, for the server's own work.
pub async fn all(db: &SqlitePool) -> Result<Vec<Container>> {
    let rows =
        sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} order by c.id"))).fetch_all(db).await?;
    rows.iter().map(container).collect()
}

/// Whether a principal has a container of that name.
pub async fn name_taken(db: &mut SqliteConnection, owner: PrincipalId, name: &str) -> Result<bool> {
    let count: u32 =
        sqlx::query_scalar("select count(*) from containers where owner = ? and name = ?")
            .bind(i64::from(owner.0))
            .bind(name)
            .fetch_one(db)
            .await?;
    Ok(count > 0)
}

/// The number of the next program that is run beside a container's first one.
pub async fn next_exec(db: &mut SqliteConnection, id: &ContainerId) -> Result<u64> {
    let number: Option<i64> =
        sqlx::query_scalar("update containers set execs = execs + 1 where id = ? returning execs")
            .bind(id.as_str())
            .fetch_optional(db)
            .await?;
    number.and_then(|number| u64::try_from(number).ok()).ok_or(Error::NotFound("container"))
}

/// Whether an image is still there.
pub async fn image_is_here(db: &mut SqliteConnection, image: &str) -> Result<bool> {
    let count: u32 = sqlx::query_scalar("select count(*) from images where id = ?")
        .bind(image)
        .fetch_one(db)
        .await?;
    Ok(count > 0)
}

/// Inserts a container; with an intent of running, as its first run.
pub async fn insert(db: &mut SqliteConnection, new: &NewContainer<'_>) -> Result<()> {
    let runs = new.intent == Intent::Running;
    let now = Time::now();
    sqlx::query(
        "insert into containers (id, owner, name, image_reference, image_id, request, spec, \
         cpu_millis, cpu_weight, memory_bytes, swap_bytes, pids, intent, run, \
         start_when_pulled, restart_policy, restart_attempts_max, created_at, started_at, \
         lifetime_secs, life_began_at, ends_at) \
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(new.id.as_str())
    .bind(i64::from(new.owner.0))
    .bind(new.name)
    .bind(new.image_reference)
    .bind(new.image.as_ref().map(|image| image.id))
    .bind(&new.request)
    .bind(new.image.as_ref().map(|image| image.spec.as_str()))
    .bind(new.limits.cpu_millis)
    .bind(new.limits.cpu_weight)
    .bind(signed(new.limits.memory_bytes)?)
    .bind(signed(new.limits.swap_bytes)?)
    .bind(new.limits.pids)
    .bind(new.intent)
    .bind(i64::from(runs))
    .bind(new.start_when_pulled)
    .bind(new.restart_policy)
    .bind(new.restart_attempts_max)
    .bind(now)
    .bind(runs.then_some(now))
    .bind(new.lifetime_secs)
    .bind(runs.then_some(new.life.began_at))
    .bind(new.life.ends_at.filter(|_| runs))
    .execute(&mut *db)
    .await?;
    match &new.image {
        Some(image) => insert_layers(db, new.id, image.layers).await,
        None => Ok(()),
    }
}

/// The image has come: the container is complete.
pub async fn set_image(
    db: &mut SqliteConnection,
    id: &ContainerId,
    image: &ImagePart<'_>,
) -> Result<()> {
    let done = sqlx::query(
        "update containers set image_id = ?, spec = ?, operation = null, intent = 'created', \
         failure = null where id = ? and intent = 'pulling'",
    )
    .bind(image.id)
    .bind(&image.spec)
    .bind(id.as_str())
    .execute(&mut *db)
    .await?;
    one(done.rows_affected())?;
    insert_layers(db, id, image.layers).await
}

/// The image has not come.
pub async fn set_pull_failure(
    db: &mut SqliteConnection,
    id: &ContainerId,
    failure: &Failure,
) -> Result<()> {
    let done = sqlx::query(
        "update containers set failure = ?, operation = null where id = ? and intent = 'pulling'",
    )
    .bind(json(failure)?)
    .bind(id.as_str())
    .execute(db)
    .await?;
    one(done.rows_affected())
}

/// The image is being pulled by this operation now.
pub async fn set_operation(
    db: &mut SqliteConnection,
    id: &ContainerId,
    operation: &str,
) -> Result<()> {
    let done = sqlx::query(
        "update containers set operation = ?, failure = null where id = ? and intent = 'pulling'",
    )
    .bind(operation)
    .bind(id.as_str())
    .execute(db)
    .await?;
    one(done.rows_affected())
}

/// The next run is wanted; answers its number. A warning of an end that stays is not given again.
pub async fn set_running(db: &mut SqliteConnection, id: &ContainerId, start: Start) -> Result<u64> {
    let Start { run_before, attempts, life } = start;
    let done = sqlx::query(
        "update containers set intent = 'running', run = run + 1, restart_attempts = ?, \
         next_attempt_at = null, stopped_by = null, stop_kind = null, stop_deadline_at = null, \
         limits_applied = 1, started_at = ?, stop_why = null, life_began_at = ?, \
         end_told = iif(ends_at is ?, end_told, 0), ends_at = ? \
         where id = ? and run = ? and intent in ('created', 'running', 'stopped')",
    )
    .bind(attempts)
    .bind(Time::now())
    .bind(life.began_at)
    .bind(life.ends_at)
    .bind(life.ends_at)
    .bind(id.as_str())
    .bind(signed(run_before)?)
    .execute(db)
    .await?;
    one(done.rows_affected())?;
    Ok(run_before + 1)
}

/// Its end is wanted.
pub async fn set_stopped(db: &mut SqliteConnection, id: &ContainerId, stop: Stop) -> Result<()> {
    let done = sqlx::query(
        "update containers set intent = 'stopped', next_attempt_at = null, stopped_by = ?, \
         stop_kind = ?, stop_deadline_at = ?, stop_why = ?, ends_at = null, end_told = 0 \
         where id = ? and intent in ('created', 'running', 'stopped')",
    )
    .bind(i64::from(stop.by.0))
    .bind(stop.kind)
    .bind(stop.deadline_at)
    .bind(stop.why.as_ref().map(json).transpose()?)
    .bind(id.as_str())
    .execute(db)
    .await?;
    one(done.rows_affected())
}

/// Those that are to run though their owner's account has ended, at most `limit`.
pub async fn of_ended_owners(db: &SqlitePool, limit: u32) -> Result<Vec<ContainerId>> {
    let rows = sqlx::query(
        "select c.id from people p join containers c on c.owner = p.id \
         where p.expires_at <= ? and c.intent = 'running' order by c.id limit ?",
    )
    .bind(Time::now())
    .bind(limit)
    .fetch_all(db)
    .await?;
    let read = |row: &SqliteRow| -> Result<ContainerId> {
        let id: String = row.try_get("id")?;
        id.parse().map_err(|source| Error::broken("read a container's id", source))
    };
    rows.iter().map(read).collect()
}

/// Those that run though their time is over, at most `limit`.
pub async fn ended_lives(db: &SqlitePool, limit: u32) -> Result<Vec<Ending>> {
    let rows = sqlx::query(
        "select id, owner, ends_at from containers where ends_at <= ? and intent = 'running' \
         order by ends_at limit ?",
    )
    .bind(Time::now())
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(ending).collect()
}

/// Those whose end is near and was not told yet, at most `limit`. `within_ms` is how near at most; of a short life
/// it is a tenth.
pub async fn lives_near_their_end(
    db: &SqlitePool,
    within_ms: i64,
    limit: u32,
) -> Result<Vec<Ending>> {
    let rows = sqlx::query(
        "select id, owner, ends_at from containers where ends_at is not null and end_told = 0 \
         and intent = 'running' and ends_at - min(?1, (ends_at - life_began_at) / 10) <= ?2 \
         order by ends_at limit ?3",
    )
    .bind(within_ms)
    .bind(Time::now())
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(ending).collect()
}

/// Their end was told.
pub async fn set_end_told(db: &mut SqliteConnection, id: &ContainerId) -> Result<()> {
    sqlx::query("update containers set end_told = 1 where id = ? and ends_at is not null")
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// When the next one ends, or the next end is to be told.
pub async fn next_end(db: &SqlitePool, within_ms: i64) -> Result<Option<Time>> {
    let at: Option<i64> = sqlx::query_scalar(
        "select min(iif(end_told, ends_at, ends_at - min(?, (ends_at - life_began_at) / 10))) \
         from containers where ends_at is not null and intent = 'running'",
    )
    .bind(within_ms)
    .fetch_one(db)
    .await?;
    Ok(at.map(Time))
}

/// It ends at another time.
pub async fn set_end(db: &mut SqliteConnection, id: &ContainerId, at: Time) -> Result<()> {
    let done = sqlx::query(
        "update containers set ends_at = ?, end_told = 0, \
         life_began_at = coalesce(life_began_at, started_at) where id = ? and intent = 'running'",
    )
    .bind(at)
    .bind(id.as_str())
    .execute(db)
    .await?;
    one(done.rows_affected())
}

/// What runs ends no later than its owner's and their group's allowances say, counted from now where that is later
/// than from its start. What ends sooner already stays as it is.
pub async fn bound_lives(db: &mut SqliteConnection, now: Time) -> Result<u64> {
    let done = sqlx::query(
        "with most as (select p.id as person, \
         nullif(min(coalesce(iif(o.principal is null, d.lifetime_secs, o.lifetime_secs), ?2), \
         coalesce(g.lifetime_secs, ?2)), ?2) as secs from people p \
         left join allowances o on o.principal = p.id \
         left join allowances d on d.principal = 1 \
         left join allowances g on g.principal = p.group_id) \
         update containers set ends_at = ?1 + 1000 * most.secs, end_told = 0, \
         life_began_at = coalesce(life_began_at, started_at, ?1) from most \
         where most.person = containers.owner and most.secs is not null \
         and intent = 'running' and (ends_at is null or ends_at > ?1 + 1000 * most.secs)",
    )
    .bind(now)
    // More than any bound.
    .bind(i64::from(u32::MAX) * 2)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// The rules for what runs and is stopped when nobody uses it.
pub async fn idle_rules(db: &SqlitePool) -> Result<Vec<IdleRule>> {
    let rows = sqlx::query(
        "with least as (select p.id as person, \
         nullif(min(coalesce(iif(o.principal is null, d.idle_secs, o.idle_secs), ?1), \
         coalesce(g.idle_secs, ?1)), ?1) as secs from people p \
         left join allowances o on o.principal = p.id \
         left join allowances d on d.principal = 1 \
         left join allowances g on g.principal = p.group_id) \
         select c.id, c.owner, least.secs from containers c join least on least.person = c.owner \
         where least.secs is not null and c.intent = 'running'",
    )
    // More than any rule.
    .bind(i64::from(u32::MAX) * 2)
    .fetch_all(db)
    .await?;
    let rule = |row: &SqliteRow| -> Result<IdleRule> {
        let id: String = row.try_get("id")?;
        Ok(IdleRule {
            id: id.parse().map_err(|source| Error::broken("read a container's id", source))?,
            owner: super::principal(row, "owner")?,
            secs: row.try_get("secs")?,
        })
    };
    rows.iter().map(rule).collect()
}

/// The clock was set by so many milliseconds: lives that began by then keep their length.
pub async fn shift_lives(db: &mut SqliteConnection, begun_by: Time, by_ms: i64) -> Result<u64> {
    let done = sqlx::query(
        "update containers set ends_at = ends_at + ?1, life_began_at = life_began_at + ?1 \
         where ends_at is not null and life_began_at <= ?2",
    )
    .bind(by_ms)
    .bind(begun_by)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

fn ending(row: &SqliteRow) -> Result<Ending> {
    let id: String = row.try_get("id")?;
    Ok(Ending {
        id: id.parse().map_err(|source| Error::broken("read a container's id", source))?,
        owner: super::principal(row, "owner")?,
        ends_at: row.try_get("ends_at")?,
    })
}

/// Its removal is wanted.
pub async fn set_removed(
    db: &mut SqliteConnection,
    id: &ContainerId,
    by: PrincipalId,
) -> Result<()> {
    let done = sqlx::query(
        "update containers set intent = 'removed', next_attempt_at = null, operation = null, \
         stopped_by = ?, stop_kind = 'remove' where id = ?",
    )
    .bind(i64::from(by.0))
    .bind(id.as_str())
    .execute(db)
    .await?;
    one(done.rows_affected())
}

/// A run has ended, and its policy leaves it so.
pub async fn set_ended(
    db: &mut SqliteConnection,
    id: &ContainerId,
    exit: &ExitRecord,
) -> Result<()> {
    let done = sqlx::query(
        "update containers set last_exit = ?, next_attempt_at = null, stop_deadline_at = null, \
         ends_at = null, end_told = 0, \
         intent = case intent when 'running' then 'stopped' else intent end where id = ?",
    )
    .bind(json(exit)?)
    .bind(id.as_str())
    .execute(db)
    .await?;
    one(done.rows_affected())
}

/// A run has ended, and its policy starts it again at `at`.
pub async fn set_ended_again_at(
    db: &mut SqliteConnection,
    id: &ContainerId,
    exit: &ExitRecord,
    again: (Time, u32),
) -> Result<()> {
    let done = sqlx::query(
        "update containers set last_exit = ?, next_attempt_at = ?, restart_attempts = ? \
         where id = ? and intent = 'running'",
    )
    .bind(json(exit)?)
    .bind(again.0)
    .bind(again.1)
    .bind(id.as_str())
    .execute(db)
    .await?;
    one(done.rows_affected())
}

/// The supervisor knows a newer run than the inventory (which a power cut has set back).
pub async fn adopt_run(db: &mut SqliteConnection, id: &ContainerId, run: u64) -> Result<()> {
    let done = sqlx::query("update containers set run = ? where id = ? and run < ?")
        .bind(signed(run)?)
        .bind(id.as_str())
        .bind(signed(run)?)
        .execute(db)
        .await?;
    one(done.rows_affected())
}

/// Gives it other limits, which the kernel does not hold yet.
pub async fn set_limits(
    db: &mut SqliteConnection,
    id: &ContainerId,
    limits: &Limits,
) -> Result<()> {
    let done = sqlx::query(
        "update containers set cpu_millis = ?, cpu_weight = ?, memory_bytes = ?, swap_bytes = ?, \
         pids = ?, limits_applied = 0 where id = ?",
    )
    .bind(limits.cpu_millis)
    .bind(limits.cpu_weight)
    .bind(signed(limits.memory_bytes)?)
    .bind(signed(limits.swap_bytes)?)
    .bind(limits.pids)
    .bind(id.as_str())
    .execute(db)
    .await?;
    one(done.rows_affected())
}

/// The kernel holds the limits.
pub async fn set_limits_applied(db: &mut SqliteConnection, id: &ContainerId) -> Result<()> {
    let done = sqlx::query("update containers set limits_applied = 1 where id = ?")
        .bind(id.as_str())
        .execute(db)
        .await?;
    one(done.rows_affected())
}

/// Gives it another restart policy.
pub async fn set_restart(
    db: &mut SqliteConnection,
    id: &ContainerId,
    policy: &str,
    attempts_max: Option<u32>,
) -> Result<()> {
    let done = sqlx::query(
        "update containers set restart_policy = ?, restart_attempts_max = ?, \
         restart_attempts = 0 where id = ?",
    )
    .bind(policy)
    .bind(attempts_max)
    .bind(id.as_str())
    .execute(db)
    .await?;
    one(done.rows_affected())
}

/// Gives it another name, which must be free.
pub async fn rename(db: &mut SqliteConnection, id: &ContainerId, name: &str) -> Result<()> {
    let done = sqlx::query("update containers set name = ? where id = ?")
        .bind(name)
        .bind(id.as_str())
        .execute(db)
        .await?;
    one(done.rows_affected())
}

/// Forgets it; the supervisor holds nothing of it any more.
pub async fn delete(db: &mut SqliteConnection, id: &ContainerId) -> Result<()> {
    let done = sqlx::query("delete from containers where id = ? and intent = 'removed'")
        .bind(id.as_str())
        .execute(db)
        .await?;
    one(done.rows_affected())
}

/// The layers it stands on, lowest first.
pub async fn layers(db: &SqlitePool, id: &ContainerId) -> Result<Vec<Digest>> {
    let rows: Vec<String> = sqlx::query_scalar(
        "select layer from container_layers where container = ? order by position",
    )
    .bind(id.as_str())
    .fetch_all(db)
    .await?;
    let digest = |text: String| {
        text.parse().map_err(|source| Error::broken("read a container's layers", source))
    };
    rows.into_iter().map(digest).collect()
}

/// Writes down the boot; when it is another than before, wants what `always` is to start again,
/// and answers how many that are.
pub async fn note_boot(db: &mut SqliteConnection, boot_id: &str) -> Result<u64> {
    let before: Option<String> = sqlx::query_scalar("select boot_id from boots where id = 1")
        .fetch_optional(&mut *db)
        .await?;
    if before.as_deref() == Some(boot_id) {
        return Ok(0);
    }
    sqlx::query(
        "insert into boots (id, boot_id) values (1, ?) \
         on conflict (id) do update set boot_id = excluded.boot_id",
    )
    .bind(boot_id)
    .execute(&mut *db)
    .await?;
    if before.is_none() {
        return Ok(0);
    }
    let woken = sqlx::query(
        "update containers set intent = 'running', next_attempt_at = ?1, restart_attempts = 0, \
         stopped_by = null, stop_kind = null \
         where restart_policy = 'always' and intent = 'stopped' and run > 0 and stop_why is null \
         and not exists (select 1 from people p where p.id = owner and p.expires_at <= ?1)",
    )
    .bind(Time::now())
    .execute(db)
    .await?;
    Ok(woken.rows_affected())
}

async fn insert_layers(
    db: &mut SqliteConnection,
    id: &ContainerId,
    layers: &[Digest],
) -> Result<()> {
    for (position, layer) in layers.iter().enumerate() {
        sqlx::query("insert into container_layers (container, position, layer) values (?, ?, ?)")
            .bind(id.as_str())
            .bind(signed(position as u64)?)
            .bind(layer.as_str())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

fn container(row: &SqliteRow) -> Result<Container> {
    let id: String = row.try_get("id")?;
    let stopped_by: Option<i64> = row.try_get("stopped_by")?;
    let stopped_by_name: String = row.try_get("stopped_by_name")?;
    let number = |column: &str| -> Result<u64> {
        let value: i64 = row.try_get(column)?;
        u64::try_from(value).map_err(|source| Error::broken("read a container", source))
    };
    Ok(Container {
        id: id.parse().map_err(|source| Error::broken("read a container's id", source))?,
        owner: super::principal(row, "owner")?,
        owner_name: row.try_get("owner_name")?,
        granted: parsed(row, "granted")?,
        group: super::principal(row, "group_id")?,
        name: row.try_get("name")?,
        image_reference: row.try_get("image_reference")?,
        image_id: row.try_get("image_id")?,
        request: row.try_get("request")?,
        spec: row.try_get("spec")?,
        limits: Limits {
            cpu_millis: row.try_get("cpu_millis")?,
            cpu_weight: row.try_get("cpu_weight")?,
            memory_bytes: number("memory_bytes")?,
            swap_bytes: number("swap_bytes")?,
            pids: row.try_get("pids")?,
        },
        ports: parsed(row, "ports")?.unwrap_or_default(),
        mounts: parsed(row, "mounts")?.unwrap_or_default(),
        data_sets: parsed(row, "data_sets")?.unwrap_or_default(),
        limits_applied: row.try_get("limits_applied")?,
        intent: row.try_get("intent")?,
        run: number("run")?,
        operation: row.try_get("operation")?,
        start_when_pulled: row.try_get("start_when_pulled")?,
        restart_policy: row.try_get("restart_policy")?,
        restart_attempts_max: row.try_get("restart_attempts_max")?,
        restart_attempts: row.try_get("restart_attempts")?,
        next_attempt_at: row.try_get("next_attempt_at")?,
        stopped_by_name: stopped_by.map(|_| stopped_by_name),
        stop_kind: row.try_get("stop_kind")?,
        stop_deadline_at: row.try_get("stop_deadline_at")?,
        last_exit: parsed(row, "last_exit")?,
        failure: parsed(row, "failure")?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        lifetime_secs: row.try_get("lifetime_secs")?,
        life_began_at: row.try_get("life_began_at")?,
        ends_at: row.try_get("ends_at")?,
        stop_why: parsed(row, "stop_why")?,
    })
}

fn parsed<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<Option<T>> {
    let text: Option<String> = row.try_get(column)?;
    let parse = |text: String| {
        serde_json::from_str(&text).map_err(|source| Error::broken("read a container", source))
    };
    text.map(parse).transpose()
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|source| Error::broken("write a container", source))
}

fn signed(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|source| Error::broken("write a container", source))
}

/// Exactly one row must have been touched: else somebody else has changed it in between.
fn one(rows: u64) -> Result<()> {
    if rows == 1 {
        return Ok(());
    }
    Err(Error::conflict("container.changed", "the container was changed by somebody else just now"))
}
