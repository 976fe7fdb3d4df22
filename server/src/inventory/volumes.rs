//! Volumes: whose they are, what they are called, and which containers have them where.

use berth_runtime::id::{ContainerId, PrincipalId, VolumeId};
use serde::Deserialize;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqliteExecutor, SqlitePool};

use crate::auth::{Caller, Granted, Kind, Rights, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};

/// A volume.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Names it for ever.
    pub id: VolumeId,
    /// Whose it is.
    pub owner: PrincipalId,
    /// Their name.
    pub owner_name: String,
    /// Whose resources its owner's count to.
    pub group: PrincipalId,
    /// What was shared of it with whoever the row was read for.
    pub granted: Option<Granted>,
    /// Unique among its owner's.
    pub name: String,
    /// How many containers have it, running or not, of those that the row is for.
    pub containers: u32,
    /// When it was made.
    pub created_at: Time,
    /// Whose it is to be, while it is given to somebody else.
    pub heir: Option<PrincipalId>,
}

impl Volume {
    /// What `caller` may do with it, for whom the row was read.
    pub fn rights(&self, caller: &Caller) -> Rights {
        caller.rights((Kind::Volume, self.owner), self.granted)
    }
}

/// A volume at a place in a container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Mount {
    /// The volume.
    pub volume: VolumeId,
    /// What it is called now: of somebody else's, their name and a slash first; its id when it is not there for the
    /// container's owner any more.
    #[serde(default)]
    pub name: String,
    /// Whose it is, where that is somebody else than the container's owner.
    #[serde(default)]
    pub owner: Option<String>,
    /// Absolute path inside.
    pub target: String,
    /// Whether nothing can be written to it there.
    pub read_only: bool,
    /// A part of it instead of the whole.
    pub sub_path: Option<String>,
}

/// A container that has a volume.
#[derive(Debug, Clone)]
pub struct User {
    /// Its id.
    pub container: ContainerId,
    /// Its name.
    pub container_name: String,
    /// Whose it is.
    pub owner: PrincipalId,
    /// Their name.
    pub owner_name: String,
    /// Where it has it.
    pub mount: Mount,
}

/// For the caller ?3, who sees what is of ?2: everybody's containers are counted for whoever oversees and for the
/// owner, who may not remove what others use; for the others their own.
const FOR_CALLER: &str = "with mine as materialized (select object, max(files) as files, \
    max(write) as write from granted where object_kind = 'volume' and person = ?3 group by object) \
    select v.id, v.owner, v.name, v.created_at, v.heir, \
    coalesce(p.name, 'system') as owner_name, coalesce(p.group_id, 2) as group_id, \
    mine.object is not null as is_granted, mine.files, mine.write, \
    (select count(distinct m.container) from container_volumes m join containers c \
     on c.id = m.container where m.volume = v.id \
     and (?2 is null or v.owner = ?3 or c.owner = ?3)) as containers \
    from volumes v left join people p on p.id = v.owner left join mine on mine.object = v.id \
    where v.removed = 0 and (?2 is null or v.owner = ?2 or mine.object is not null) ";

/// The same of every volume, for the server's own work.
const COLUMNS: &str = "select v.id, v.owner, v.name, v.created_at, v.heir, \
    coalesce(p.name, 'system') as owner_name, coalesce(p.group_id, 2) as group_id, \
    0 as is_granted, 0 as files, 0 as write, 0 as containers \
    from volumes v left join people p on p.id = v.owner ";

/// One volume that `caller` sees, by id, by name among their own, or by its owner's name, a slash and its name.
pub async fn find(
    db: impl SqliteExecutor<'_>,
    visible: Visibility,
    caller: PrincipalId,
    key: &str,
) -> Result<Volume> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{FOR_CALLER} and (v.id = ?1 or (v.name = ?1 and v.owner = ?3) \
         or p.name || '/' || v.name = ?1)"
    )))
    .bind(key)
    .bind(visible.owner())
    .bind(i64::from(caller.0))
    .fetch_optional(db)
    .await?;
    volume(&row.ok_or(Error::NotFound("volume"))?)
}

/// Volumes that `caller` sees by name, after a name and an id.
pub async fn list(
    db: &SqlitePool,
    (visible, caller): (Visibility, PrincipalId),
    after: Option<(&str, &str)>,
    limit: u32,
) -> Result<Vec<Volume>> {
    let (name, id) = after.unzip();
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{FOR_CALLER} and (?1 is null or (v.name, v.id) > (?1, ?4)) \
         order by v.name, v.id limit ?5"
    )))
    .bind(name)
    .bind(visible.owner())
    .bind(i64::from(caller.0))
    .bind(id)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(volume).collect()
}

/// Whether there is such a volume, for the server's own work.
pub async fn is_there(db: &SqlitePool, id: &VolumeId) -> Result<bool> {
    let query =
        sqlx::query_scalar("select exists (select 1 from volumes where id = ? and removed = 0)");
    Ok(query.bind(id.as_str()).fetch_one(db).await?)
}

/// Volumes that are to be gone and are not yet, for the server's own work.
pub async fn leaving(db: &SqlitePool) -> Result<Vec<Volume>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} where v.removed = 1")))
        .fetch_all(db)
        .await?;
    rows.iter().map(volume).collect()
}

/// Volumes that are being given to somebody else, for the server's own work.
pub async fn moving(db: &SqlitePool) -> Result<Vec<Volume>> {
    let query = format!("{COLUMNS} where v.removed = 0 and v.heir is not null");
    let rows = sqlx::query(sqlx::AssertSqlSafe(query)).fetch_all(db).await?;
    rows.iter().map(volume).collect()
}

/// Whose it is to be, or that it stays.
pub async fn set_heir(
    db: &mut SqliteConnection,
    id: &VolumeId,
    heir: Option<PrincipalId>,
) -> Result<()> {
    sqlx::query("update volumes set heir = ? where id = ? and removed = 0")
        .bind(heir.map(|heir| i64::from(heir.0)))
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Whether a principal has a volume of this name.
pub async fn has_name(db: &mut SqliteConnection, owner: PrincipalId, name: &str) -> Result<bool> {
    let query =
        "select exists (select 1 from volumes where owner = ? and name = ? and removed = 0)";
    Ok(sqlx::query_scalar(query).bind(i64::from(owner.0)).bind(name).fetch_one(db).await?)
}

/// It is its heir's now, under this name, and shared with nobody; whether it had one.
pub async fn set_handed_over(db: &mut SqliteConnection, id: &VolumeId, name: &str) -> Result<bool> {
    let done = sqlx::query(
        "update volumes set owner = heir, heir = null, name = ? where id = ? and heir is not null",
    )
    .bind(name)
    .bind(id.as_str())
    .execute(&mut *db)
    .await
    .map_err(|error| taken(error, name))?;
    sqlx::query("delete from grants where object_kind = 'volume' and object = ?")
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// How many volumes a principal has.
pub async fn count(db: &mut SqliteConnection, owner: PrincipalId) -> Result<u32> {
    let query = sqlx::query_scalar("select count(*) from volumes where owner = ? and removed = 0");
    Ok(query.bind(i64::from(owner.0)).fetch_one(db).await?)
}

/// Writes a new one; the name must be free.
pub async fn insert(
    db: &mut SqliteConnection,
    id: &VolumeId,
    owner: PrincipalId,
    name: &str,
) -> Result<()> {
    sqlx::query("insert into volumes (id, owner, name, created_at) values (?, ?, ?, ?)")
        .bind(id.as_str())
        .bind(i64::from(owner.0))
        .bind(name)
        .bind(Time::now())
        .execute(db)
        .await
        .map_err(|error| taken(error, name))?;
    Ok(())
}

/// Gives it another name, which must be free.
pub async fn rename(db: &mut SqliteConnection, id: &VolumeId, name: &str) -> Result<()> {
    sqlx::query("update volumes set name = ? where id = ? and removed = 0")
        .bind(name)
        .bind(id.as_str())
        .execute(db)
        .await
        .map_err(|error| taken(error, name))?;
    Ok(())
}

/// Its removal is wanted; nobody sees it from now on, and it is shared with nobody. Whether no container of its
/// owner's has it, and so it was.
pub async fn set_removed(db: &mut SqliteConnection, id: &VolumeId) -> Result<bool> {
    let done = sqlx::query(
        "update volumes set removed = 1 where id = ?1 and removed = 0 \
         and not exists (select 1 from container_volumes m join containers c on c.id = m.container \
         where m.volume = ?1 and c.owner = volumes.owner)",
    )
    .bind(id.as_str())
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Forgets it; the supervisor holds nothing of it any more.
pub async fn delete(db: &mut SqliteConnection, id: &VolumeId) -> Result<()> {
    sqlx::query("delete from volumes where id = ? and removed = 1")
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// The containers that have it, by name; at most `limit` places.
pub async fn users(db: impl SqliteExecutor<'_>, id: &VolumeId, limit: u32) -> Result<Vec<User>> {
    let rows = sqlx::query(
        "select m.container, c.name as container_name, c.owner, \
         coalesce(p.name, 'system') as owner_name, \
         m.volume, m.target, m.read_only, m.sub_path \
         from container_volumes m join containers c on c.id = m.container \
         left join people p on p.id = c.owner where m.volume = ? \
         order by c.name, m.position limit ?",
    )
    .bind(id.as_str())
    .bind(limit)
    .fetch_all(db)
    .await?;
    let bad = |source| Error::broken("read what has a volume", source);
    let user = |row: &SqliteRow| -> Result<User> {
        let (container, volume): (String, String) =
            (row.try_get("container")?, row.try_get("volume")?);
        Ok(User {
            container: container.parse().map_err(bad)?,
            container_name: row.try_get("container_name")?,
            owner: super::principal(row, "owner")?,
            owner_name: row.try_get("owner_name")?,
            mount: Mount {
                volume: volume.parse().map_err(bad)?,
                name: String::new(),
                owner: None,
                target: row.try_get("target")?,
                read_only: row.try_get("read_only")?,
                sub_path: row.try_get("sub_path")?,
            },
        })
    };
    rows.iter().map(user).collect()
}

/// Gives a new container a volume.
pub async fn attach(
    db: &mut SqliteConnection,
    container: &ContainerId,
    position: u32,
    mount: &Mount,
) -> Result<()> {
    sqlx::query(
        "insert into container_volumes (container, position, volume, target, read_only, sub_path) \
         values (?, ?, ?, ?, ?, ?)",
    )
    .bind(container.as_str())
    .bind(position)
    .bind(mount.volume.as_str())
    .bind(&mount.target)
    .bind(mount.read_only)
    .bind(mount.sub_path.as_deref())
    .execute(db)
    .await?;
    Ok(())
}

fn taken(error: sqlx::Error, name: &str) -> Error {
    match error.as_database_error() {
        Some(inner) if inner.is_unique_violation() => {
            let text = format!("a volume named {name} is there already");
            Error::conflict("volume.name-taken", text)
        }
        _ => error.into(),
    }
}

fn volume(row: &SqliteRow) -> Result<Volume> {
    let id: String = row.try_get("id")?;
    let heir: Option<i64> = row.try_get("heir")?;
    Ok(Volume {
        id: id.parse().map_err(|source| Error::broken("read a volume's id", source))?,
        owner: super::principal(row, "owner")?,
        owner_name: row.try_get("owner_name")?,
        group: super::principal(row, "group_id")?,
        granted: match row.try_get("is_granted")? {
            true => Some(Granted {
                files: row.try_get("files")?,
                write: row.try_get("write")?,
                ..Granted::default()
            }),
            false => None,
        },
        name: row.try_get("name")?,
        containers: row.try_get("containers")?,
        created_at: row.try_get("created_at")?,
        heir: heir.map(super::principal_from).transpose()?,
    })
}
