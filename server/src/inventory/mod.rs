//! The inventory: what people asked for, in SQLite. The only folder with SQL.
//!
//! - Readers use a small pool. There is one writer at a time, in `BEGIN IMMEDIATE`, behind a queue.
//! - [`Inventory::change`] is for what a caller asked for: its audit row is written by the same
//!   commit, which is on disk when it returns (WAL, `synchronous=FULL`).
//! - [`Inventory::record`] is for what the server itself does and must not lose;
//!   [`Inventory::observe`] for what can be read again from the kernel or is only a convenience: its
//!   commit waits for no disk.
//! - Every object has an owner; every query that serves a caller binds [`crate::auth::Visibility`].
//! - A damaged or newer file is refused at open, never replaced.
//! - One that lacks what was acknowledged is refused, too ([`mark`]).
//! - On a full disk what ends or removes something can still be written ([`room`]).

pub mod allowances;
pub mod asks;
pub mod audit;
pub mod containers;
pub mod copy;
pub mod data_sets;
pub mod events;
pub mod factors;
pub mod grants;
pub mod groups;
pub mod idempotency;
pub mod image_shares;
pub mod images;
pub mod keys;
pub mod layer_checks;
pub mod looks;
pub mod maintenance;
mod mark;
pub mod offboardings;
pub mod operations;
pub mod people;
pub mod ports;
pub mod registries;
mod room;
pub mod sessions;
pub mod survey;
pub mod tokens;
pub mod unneeded;
pub mod usage;
pub mod usage_days;
pub mod volumes;

use std::fmt::Display;
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use berth_runtime::id::PrincipalId;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ColumnIndex, Connection, Row, Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use crate::auth::Actor;
use crate::error::{Error, Result};
use mark::{Mark, Newest};
use room::Room;

/// Written into the file's header, so that another program's file is never taken for ours.
const APPLICATION_ID: i32 = 1113944692;
/// The server's secret key lies beside the inventory, and is made after it.
pub const KEY_FILE: &str = "token.key";
/// What the write-ahead log is cut to when it can begin anew.
const LOG_BYTES_MAX: u64 = 16 << 20;
const IOERR_SHMSIZE: u32 = 4874;
/// A disk that takes no writes: the file system became read-only, or the device fails.
const IOERR_WRITES: [u32; 4] = [778, 1034, 1290, 1546];
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS_MAX: u32 = 4;
/// KiB of pages that each connection keeps; the kernel's own cache is right behind.
const CACHE_KIB: u32 = 512;

/// What may use the room that is kept for a full disk: it ends or removes something, or lets somebody in
/// to do that.
const RELIEVING: [&str; 24] = [
    "container.stop",
    "container.kill",
    "container.signal",
    "container.pause",
    "container.resume",
    "container.remove",
    "image.remove",
    "image.untag",
    "volume.remove",
    "file.read",
    "file.remove",
    "inventory.copy-remove",
    "gc.remove",
    "operation.cancel",
    "session.open",
    "session.end",
    "token.end",
    "person.end-access",
    "group.member-remove",
    "container.unshare",
    "container.look-end",
    "ask.end",
    "volume.unshare",
    "image.unshare",
];

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// The database.
pub struct Inventory {
    read: SqlitePool,
    durable: SqlitePool,
    lazy: SqlitePool,
    turn: Arc<Mutex<()>>,
    appended: watch::Sender<u64>,
    room: Room,
    progress: Arc<Progress>,
}

/// How far it has come.
struct Progress {
    mark: Mark,
    newest: std::sync::Mutex<Newest>,
}

/// A write in progress: dropped, it never was.
pub struct Write {
    tx: Transaction<'static, Sqlite>,
    _turn: OwnedMutexGuard<()>,
    audit: Option<audit::Row>,
    notes: Vec<audit::Row>,
    appended: watch::Sender<u64>,
    newest: Newest,
    /// For what is acknowledged when it is committed.
    progress: Option<Arc<Progress>>,
}

impl Inventory {
    /// Opens the file, makes it when there is none, checks it and brings its schema up to date.
    ///
    /// # Errors
    /// When it is damaged, newer than this program, another program's, or not writable.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        room::make_way(path);
        create_if_absent(path).await?;
        // Before SQLite, and for as long.
        let room = Room::open(path).with_context(|| format!("open {shown}"))?;
        let options = options(path);
        let one = writers;
        let durable = one()
            .connect_with(options.clone().synchronous(SqliteSynchronous::Full))
            .await
            .with_context(|| format!("open {shown}"))?;
        check(&durable).await.with_context(|| {
            format!(
                "{shown} cannot be used; it was left as it is. Restore a backup or move it away"
            )
        })?;
        keep_a_copy(path, &durable).await?;
        MIGRATIONS.run(&durable).await.with_context(|| {
            format!("bring the schema of {shown} up to date (is it a newer version's?)")
        })?;
        audit::chain_older(&durable).await.with_context(|| format!("bring {shown} up to date"))?;
        let (mark, newest) =
            Mark::open(path, &durable).await.with_context(|| format!("use {shown}"))?;
        let progress = Arc::new(Progress { mark, newest: std::sync::Mutex::new(newest) });
        let lazy = one()
            .connect_with(options.clone().synchronous(SqliteSynchronous::Normal))
            .await
            .with_context(|| format!("open {shown}"))?;
        let read = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .connect_with(options.read_only(true))
            .await
            .with_context(|| format!("open {shown} for reading"))?;
        let (appended, _) = watch::channel(0);
        Ok(Self { read, durable, lazy, turn: Arc::new(Mutex::new(())), appended, room, progress })
    }

    /// The readers.
    pub fn read(&self) -> &SqlitePool {
        &self.read
    }

    /// A write that a caller asked for. `action` is what the audit says, such as `person.add`.
    ///
    /// # Errors
    /// When the database is locked by another program, or the disk fails or is full.
    pub async fn change(&self, actor: &Actor, action: &'static str) -> Result<Write> {
        if self.is_low() && !RELIEVING.contains(&action) {
            return Err(disk_full());
        }
        let mut write = self.record().await?;
        write.audit = Some(audit::Row::of(actor, action));
        Ok(write)
    }

    /// A write of the server's own that must survive a power cut.
    ///
    /// # Errors
    /// As [`Inventory::change`].
    pub async fn record(&self) -> Result<Write> {
        let mut write = self.begin(&self.durable).await?;
        write.progress = Some(self.progress.clone());
        Ok(write)
    }

    /// A write of the server's own that a power cut may take back; it waits for no disk.
    ///
    /// # Errors
    /// As [`Inventory::change`].
    pub async fn observe(&self) -> Result<Write> {
        self.begin(&self.lazy).await
    }

    /// Whether the disk is as good as full: what can wait must not be written.
    pub fn is_low(&self) -> bool {
        self.room.is_low()
    }

    /// Changes whenever events were appended.
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }

    /// Whether the inventory can be written to now.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&self) -> Result<()> {
        let mut write = self.observe().await?;
        sqlx::query("update principals set created_at = created_at where id = 1")
            .execute(write.db())
            .await?;
        write.commit().await
    }

    /// Closes it, so that nothing is left in the write-ahead log.
    pub async fn close(&self) {
        self.read.close().await;
        self.lazy.close().await;
        self.durable.close().await;
    }

    async fn begin(&self, pool: &SqlitePool) -> Result<Write> {
        // Whoever waits behind a lock of another program's does not wait for all before it, too.
        let turn = tokio::time::timeout(BUSY_TIMEOUT, self.turn.clone().lock_owned());
        let turn = turn.await.map_err(|_| busy())?;
        let tx = pool.begin_with("begin immediate").await?;
        let appended = self.appended.clone();
        let newest = Newest::default();
        Ok(Write {
            tx,
            _turn: turn,
            audit: None,
            notes: Vec::new(),
            appended,
            newest,
            progress: None,
        })
    }
}

impl Write {
    /// The connection, inside the transaction.
    pub fn db(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// What the audit row is about, once it is known.
    pub fn subject(&mut self, kind: &'static str, id: impl Display, owner: PrincipalId) {
        if let Some(audit) = &mut self.audit {
            audit.subject_kind = kind;
            audit.subject = id.to_string();
            audit.owner = Some(owner);
        }
    }

    /// Adds a row to the audit about what nobody asked for.
    pub fn note(&mut self, row: audit::Row) {
        self.notes.push(row);
    }

    /// Appends an event that the object's owner may read.
    ///
    /// # Errors
    /// As the database's.
    pub async fn event(&mut self, event: events::NewEvent<'_>) -> Result<()> {
        self.newest.event = events::insert(&mut self.tx, event).await?;
        Ok(())
    }

    /// Makes it so: on disk when this returns (but for [`Inventory::observe`]).
    ///
    /// # Errors
    /// As the database's; then nothing has changed.
    pub async fn commit(mut self) -> Result<()> {
        for row in self.audit.take().into_iter().chain(std::mem::take(&mut self.notes)) {
            self.newest.audit = audit::insert(&mut self.tx, &row).await?;
        }
        self.tx.commit().await?;
        if let Some(progress) = self.progress.take() {
            progress.note(self.newest);
        }
        if self.newest.event > 0 {
            self.appended.send_modify(|number| *number = number.wrapping_add(1));
        }
        Ok(())
    }
}

impl Progress {
    fn note(&self, newest: Newest) {
        let mut known = self.newest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = known.max(newest);
        if now != *known {
            *known = now;
            self.mark.note(now);
        }
    }
}

/// A pool of one connection. A transaction that SQLite has given up by itself, as it does when the disk is
/// full, is one that sqlx can neither end nor begin another beside: such a connection is closed, and the
/// next write has a new one.
fn writers() -> SqlitePoolOptions {
    let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None);
    pool.after_release(|db, _| {
        Box::pin(async move {
            // After whatever roll-back is under way.
            db.ping().await?;
            Ok(!db.is_in_transaction())
        })
    })
}

fn busy() -> Error {
    Error::unavailable("inventory.busy", "the inventory is busy")
}

fn disk_full() -> Error {
    Error::exhausted("disk.full", "the disk of the inventory is full")
}

/// Makes the file when there is none: whole and migrated under another name, then renamed, so that
/// whatever bears the name once is an inventory, and a short or empty file is a damaged one.
async fn create_if_absent(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) => {
            ensure!(found.is_file(), "{shown} is not a file");
            if found.permissions().mode() & 0o077 != 0 {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
                    .with_context(|| format!("close {shown} to others"))?;
            }
            return check_header(path);
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("look at {shown}")),
    }
    let directory = path.parent().context("find the inventory's directory")?;
    let traces =
        [path.with_extension("db-wal"), directory.join(KEY_FILE), directory.join(mark::FILE)];
    for trace in traces {
        ensure!(
            !trace.exists(),
            "{shown} is gone, but {} shows that there was one: restore a backup, or move that away \
             to begin with an empty inventory",
            trace.display()
        );
    }
    let new = path.with_extension("new");
    remove_unfinished(&new)?;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .with_context(|| format!("create {}", new.display()))?;
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options(&new).synchronous(SqliteSynchronous::Full))
        .await?;
    sqlx::query("pragma application_id = 1113944692").execute(&pool).await?;
    MIGRATIONS.run(&pool).await?;
    pool.close().await;
    std::fs::rename(&new, path).with_context(|| format!("name {shown}"))?;
    std::fs::File::open(directory)?.sync_all()?;
    Ok(())
}

/// Removes a database that was not finished, and what SQLite would roll back into the next of its name.
fn remove_unfinished(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let mut left = path.to_owned().into_os_string();
        left.push(suffix);
        match std::fs::remove_file(&left) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Before the schema changes: a copy of the inventory for whoever wants the version before back.
async fn keep_a_copy(path: &Path, db: &SqlitePool) -> anyhow::Result<()> {
    let has: i64 = sqlx::query_scalar("select coalesce(max(version), 0) from _sqlx_migrations")
        .fetch_one(db)
        .await
        .context("look for its version")?;
    if MIGRATIONS.iter().all(|known| known.version <= has) {
        return Ok(());
    }
    let copy = path.with_file_name(format!("berth.db.version-{has}"));
    let shown = copy.display();
    let unfinished = path.with_file_name("berth.db.copy");
    remove_unfinished(&unfinished)?;
    let name = unfinished.to_str().context("name a copy of the inventory")?;
    sqlx::query("vacuum into ?")
        .bind(name)
        .execute(db)
        .await
        .with_context(|| format!("copy the inventory to {shown} before its schema is changed"))?;
    let file = std::fs::File::open(&unfinished)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.sync_all()?;
    std::fs::rename(&unfinished, &copy).with_context(|| format!("name {shown}"))?;
    tracing::info!(copy = %shown, "kept the inventory as it was before its schema is changed");
    Ok(())
}

/// Looks at the header (https://sqlite.org/fileformat.html, 1.3) without SQLite, which would begin to
/// repair what is none of ours or damaged.
fn check_header(path: &Path) -> anyhow::Result<()> {
    let mut header = [0; 72];
    let mut file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let good = file.read_exact(&mut header).is_ok()
        && header.starts_with(b"SQLite format 3\0")
        && header[68..] == APPLICATION_ID.to_be_bytes();
    ensure!(
        good,
        "{} is damaged or no inventory of Berth's; it was left as it is. Restore a backup or move it \
         away",
        path.display()
    );
    Ok(())
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // After a reader that had kept the log from beginning anew.
        .pragma("journal_size_limit", LOG_BYTES_MAX.to_string())
        .pragma("cell_size_check", "on")
        .pragma("trusted_schema", "off")
        .pragma("cache_size", format!("-{CACHE_KIB}"))
}

async fn check(pool: &SqlitePool) -> anyhow::Result<()> {
    let mut db = pool.acquire().await.context("connect")?;
    let problems: Vec<String> = sqlx::query_scalar("pragma integrity_check(5)")
        .fetch_all(&mut *db)
        .await
        .context("check its integrity")?;
    ensure!(problems == ["ok"], "it is damaged: {}", problems.join("; "));
    let dangling = sqlx::query("pragma foreign_key_check").fetch_all(&mut *db).await?;
    ensure!(dangling.is_empty(), "it is damaged: {} rows point nowhere", dangling.len());
    db.ping().await.context("use the connection")?;
    Ok(())
}

/// A principal's id out of a row.
///
/// # Errors
/// When the column is missing or holds no id.
pub fn principal<I: ColumnIndex<sqlx::sqlite::SqliteRow>>(
    row: &sqlx::sqlite::SqliteRow,
    column: I,
) -> Result<PrincipalId> {
    let id: i64 = row.try_get(column)?;
    principal_from(id)
}

/// A principal's id as the inventory holds it.
///
/// # Errors
/// When it is none.
pub fn principal_from(id: i64) -> Result<PrincipalId> {
    u32::try_from(id)
        .map(PrincipalId)
        .map_err(|source| Error::broken("read a principal's id", source))
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        // https://sqlite.org/rescode.html: the low byte is the primary code.
        let code = error
            .as_database_error()
            .and_then(|error| error.code())
            .and_then(|code| code.parse::<u32>().ok());
        // The log's index could not grow.
        if code == Some(IOERR_SHMSIZE) {
            return disk_full();
        }
        if code.is_some_and(|code| IOERR_WRITES.contains(&code)) {
            tracing::error!(%error, "the inventory cannot be written");
            return Self::unavailable("inventory.read-only", "the inventory cannot be written");
        }
        match code.map(|code| code & 0xff) {
            Some(5 | 6) => busy(),
            Some(8) => Self::unavailable("inventory.read-only", "the inventory cannot be written"),
            Some(13) => disk_full(),
            _ if matches!(error, sqlx::Error::PoolTimedOut) => busy(),
            _ => Self::broken("ask the inventory", error),
        }
    }
}
