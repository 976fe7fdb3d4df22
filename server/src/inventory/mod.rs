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

pub mod audit;
pub mod containers;
pub mod events;
pub mod idempotency;
pub mod image_shares;
pub mod images;
pub mod keys;
pub mod operations;
pub mod people;
pub mod registries;
pub mod sessions;
pub mod tokens;
pub mod usage;

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

/// Written into the file's header, so that another program's file is never taken for ours.
const APPLICATION_ID: i32 = 1113944692;
/// The server's secret key lies beside the inventory, and is made after it.
pub const KEY_FILE: &str = "token.key";
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS_MAX: u32 = 4;
/// KiB of pages that each connection keeps; the kernel's own cache is right behind.
const CACHE_KIB: u32 = 512;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// The database.
pub struct Inventory {
    read: SqlitePool,
    durable: SqlitePool,
    lazy: SqlitePool,
    turn: Arc<Mutex<()>>,
    appended: watch::Sender<u64>,
}

/// A write in progress: dropped, it never was.
pub struct Write {
    tx: Transaction<'static, Sqlite>,
    _turn: OwnedMutexGuard<()>,
    audit: Option<audit::Row>,
    appended: watch::Sender<u64>,
    has_events: bool,
}

impl Inventory {
    /// Opens the file, makes it when there is none, checks it and brings its schema up to date.
    ///
    /// # Errors
    /// When it is damaged, newer than this program, another program's, or not writable.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        create_if_absent(path).await?;
        let options = options(path);
        let one = || SqlitePoolOptions::new().max_connections(1).idle_timeout(None);
        let durable = one()
            .connect_with(options.clone().synchronous(SqliteSynchronous::Full))
            .await
            .with_context(|| format!("open {shown}"))?;
        check(&durable).await.with_context(|| {
            format!(
                "{shown} cannot be used; it was left as it is. Restore a backup or move it away"
            )
        })?;
        MIGRATIONS.run(&durable).await.with_context(|| {
            format!("bring the schema of {shown} up to date (is it a newer version's?)")
        })?;
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
        Ok(Self { read, durable, lazy, turn: Arc::new(Mutex::new(())), appended })
    }

    /// The readers.
    pub fn read(&self) -> &SqlitePool {
        &self.read
    }

    /// A write that a caller asked for. `action` is what the audit says, such as `person.add`.
    ///
    /// # Errors
    /// When the database is locked by another program or the disk fails.
    pub async fn change(&self, actor: &Actor, action: &'static str) -> Result<Write> {
        let mut write = self.begin(&self.durable).await?;
        write.audit = Some(audit::Row::of(actor, action));
        Ok(write)
    }

    /// A write of the server's own that must survive a power cut.
    ///
    /// # Errors
    /// As [`Inventory::change`].
    pub async fn record(&self) -> Result<Write> {
        self.begin(&self.durable).await
    }

    /// A write of the server's own that a power cut may take back; it waits for no disk.
    ///
    /// # Errors
    /// As [`Inventory::change`].
    pub async fn observe(&self) -> Result<Write> {
        self.begin(&self.lazy).await
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
        let turn = self.turn.clone().lock_owned().await;
        let tx = pool.begin_with("begin immediate").await?;
        let appended = self.appended.clone();
        Ok(Write { tx, _turn: turn, audit: None, appended, has_events: false })
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

    /// Appends an event that the object's owner may read.
    ///
    /// # Errors
    /// As the database's.
    pub async fn event(&mut self, event: events::NewEvent<'_>) -> Result<()> {
        self.has_events = true;
        events::insert(&mut self.tx, event).await
    }

    /// Makes it so: on disk when this returns (but for [`Inventory::observe`]).
    ///
    /// # Errors
    /// As the database's; then nothing has changed.
    pub async fn commit(mut self) -> Result<()> {
        if let Some(row) = self.audit.take() {
            audit::insert(&mut self.tx, &row).await?;
        }
        self.tx.commit().await?;
        if self.has_events {
            self.appended.send_modify(|number| *number = number.wrapping_add(1));
        }
        Ok(())
    }
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
    for trace in [path.with_extension("db-wal"), directory.join(KEY_FILE)] {
        ensure!(
            !trace.exists(),
            "{shown} is gone, but {} shows that there was one: restore a backup, or move that away \
             to begin with an empty inventory",
            trace.display()
        );
    }
    let new = path.with_extension("new");
    for suffix in ["", "-wal", "-shm"] {
        let mut left = new.clone().into_os_string();
        left.push(suffix);
        match std::fs::remove_file(&left) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
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
            .and_then(|code| code.parse::<u32>().ok())
            .map(|code| code & 0xff);
        match code {
            Some(5 | 6) => Self::unavailable("inventory.busy", "the inventory is busy"),
            Some(8) => Self::unavailable("inventory.read-only", "the inventory cannot be written"),
            Some(13) => Self::exhausted("disk.full", "the disk of the inventory is full"),
            _ if matches!(error, sqlx::Error::PoolTimedOut) => {
                Self::unavailable("inventory.busy", "the inventory is busy")
            }
            _ => Self::broken("ask the inventory", error),
        }
    }
}
