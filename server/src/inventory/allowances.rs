//! What people may use together, as operators have decided.

use std::collections::HashMap;

use berth_runtime::id::PrincipalId;
use berth_runtime::wire::Total;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};
use utoipa::ToSchema;

use super::asks::{self, Extra};
use crate::clock::Time;
use crate::error::{Error, Result};

/// What all that runs for a person may use together; what is left out, or null, is not bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// Processor time in thousandths of a core, from 10.
    #[serde(default)]
    pub cpu_millis: Option<u32>,
    /// Share of the processor when several people want it, 1 to 10000; 100 is the neutral value.
    #[serde(default = "neutral")]
    pub cpu_weight: u32,
    /// Memory in bytes, page cache included, from 16 MiB.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Swap in bytes beside the memory. On cgroup v1 it is held together with a bound of memory only.
    #[serde(default)]
    pub swap_bytes: Option<u64>,
    /// Processes and threads, from 8. Each container, and each program run in one, counts one more.
    #[serde(default)]
    pub pids: Option<u32>,
    /// Containers, running or not; null is what the configuration says.
    #[serde(default)]
    pub containers_max: Option<u32>,
    /// Ports of the host that lead to containers; null is what the configuration says.
    #[serde(default)]
    pub ports_max: Option<u32>,
    /// Images; null is no bound.
    #[serde(default)]
    pub images_max: Option<u32>,
    /// Bytes of images, from 1 MiB: the layers of each, stored and unpacked. A layer in several images of one person
    /// counts once, and in full to each person who holds it.
    #[serde(default)]
    pub images_bytes: Option<u64>,
    /// Bytes on disk, from 32 MiB: what containers have written, volumes, uploads. They are set aside at once. Only
    /// people have such a bound, not groups.
    #[serde(default)]
    pub data_bytes: Option<u64>,
    /// Share of the disk when several people want it, 1 to 10000; 100 is the neutral value, null leaves it as it is.
    /// It takes a disk whose scheduler looks at it.
    #[serde(default)]
    pub io_weight: Option<u32>,
    /// Bytes per second that are read from the disk, from 1 MiB. cgroup v1 cannot hold it.
    #[serde(default)]
    pub io_read_bytes_per_sec: Option<u64>,
    /// Bytes per second that are written to the disk, from 1 MiB. cgroup v1 cannot hold it.
    #[serde(default)]
    pub io_write_bytes_per_sec: Option<u64>,
    /// Bytes per second that containers send to others than the same person's, and as many that they receive, from
    /// 16 KiB. What is above that is dropped; who was quiet may catch up for a second.
    #[serde(default)]
    pub net_bytes_per_sec: Option<u64>,
    /// Seconds that a container may run, from each start that somebody asks for, 10 to 31536000. At the end it is
    /// stopped, and stays. Of a person's and their group's the smaller one holds.
    #[serde(default)]
    pub lifetime_secs: Option<u32>,
    /// Seconds that a container runs when nobody has said how long, 10 to 31536000; a person's before their group's.
    #[serde(default)]
    pub lifetime_default_secs: Option<u32>,
    /// Seconds without processor, disk, network or an open program after which a container is stopped, 30 to
    /// 31536000. Of a person's and their group's the smaller one holds.
    #[serde(default)]
    pub idle_secs: Option<u32>,
}

/// What an allowance bounds, by the name that it has there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub enum Bounded {
    /// Processor time, in thousandths of a core.
    CpuMillis,
    /// Memory, in bytes.
    MemoryBytes,
    /// Swap, in bytes.
    SwapBytes,
    /// Processes and threads.
    Pids,
    /// Containers.
    ContainersMax,
    /// Ports of the host.
    PortsMax,
    /// Images.
    ImagesMax,
    /// Layers of images, stored and unpacked, in bytes.
    ImagesBytes,
    /// What is kept on disk, in bytes.
    DataBytes,
    /// What is read from the disk, in bytes per second.
    IoReadBytesPerSec,
    /// What is written to the disk, in bytes per second.
    IoWriteBytesPerSec,
    /// What is sent, and as much received, in bytes per second.
    NetBytesPerSec,
}

impl Bounded {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::CpuMillis,
        Self::MemoryBytes,
        Self::SwapBytes,
        Self::Pids,
        Self::ContainersMax,
        Self::PortsMax,
        Self::ImagesMax,
        Self::ImagesBytes,
        Self::DataBytes,
        Self::IoReadBytesPerSec,
        Self::IoWriteBytesPerSec,
        Self::NetBytesPerSec,
    ];

    /// Its name in an allowance.
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuMillis => "cpu_millis",
            Self::MemoryBytes => "memory_bytes",
            Self::SwapBytes => "swap_bytes",
            Self::Pids => "pids",
            Self::ContainersMax => "containers_max",
            Self::PortsMax => "ports_max",
            Self::ImagesMax => "images_max",
            Self::ImagesBytes => "images_bytes",
            Self::DataBytes => "data_bytes",
            Self::IoReadBytesPerSec => "io_read_bytes_per_sec",
            Self::IoWriteBytesPerSec => "io_write_bytes_per_sec",
            Self::NetBytesPerSec => "net_bytes_per_sec",
        }
    }
}

/// Whose sum an allowance bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// One person's.
    Person,
    /// That of all who count to a group.
    Group,
}

/// A sum that somebody's things are in.
#[derive(Debug, Clone)]
pub struct Sum {
    /// Whose.
    pub of: Whose,
    /// The person's or the group's id.
    pub id: PrincipalId,
    /// What they are called.
    pub name: String,
    /// What applies to it.
    pub allowance: Allowance,
}

fn neutral() -> u32 {
    Total::FREE.cpu_weight
}

impl Allowance {
    /// Nothing is bounded.
    pub const FREE: Self = Self {
        cpu_millis: None,
        cpu_weight: Total::FREE.cpu_weight,
        memory_bytes: None,
        swap_bytes: None,
        pids: None,
        containers_max: None,
        ports_max: None,
        images_max: None,
        images_bytes: None,
        data_bytes: None,
        io_weight: None,
        io_read_bytes_per_sec: None,
        io_write_bytes_per_sec: None,
        net_bytes_per_sec: None,
        lifetime_secs: None,
        lifetime_default_secs: None,
        idle_secs: None,
    };

    /// One of its bounds, in its unit; `None` where there is none.
    pub fn bound(&self, which: Bounded) -> Option<u64> {
        match which {
            Bounded::CpuMillis => self.cpu_millis.map(u64::from),
            Bounded::MemoryBytes => self.memory_bytes,
            Bounded::SwapBytes => self.swap_bytes,
            Bounded::Pids => self.pids.map(u64::from),
            Bounded::ContainersMax => self.containers_max.map(u64::from),
            Bounded::PortsMax => self.ports_max.map(u64::from),
            Bounded::ImagesMax => self.images_max.map(u64::from),
            Bounded::ImagesBytes => self.images_bytes,
            Bounded::DataBytes => self.data_bytes,
            Bounded::IoReadBytesPerSec => self.io_read_bytes_per_sec,
            Bounded::IoWriteBytesPerSec => self.io_write_bytes_per_sec,
            Bounded::NetBytesPerSec => self.net_bytes_per_sec,
        }
    }

    /// The same with another bound; what does not fit into its field is the most that does.
    pub fn with_bound(mut self, which: Bounded, value: u64) -> Self {
        let small = || Some(u32::try_from(value).unwrap_or(u32::MAX));
        match which {
            Bounded::CpuMillis => self.cpu_millis = small(),
            Bounded::MemoryBytes => self.memory_bytes = Some(value),
            Bounded::SwapBytes => self.swap_bytes = Some(value),
            Bounded::Pids => self.pids = small(),
            Bounded::ContainersMax => self.containers_max = small(),
            Bounded::PortsMax => self.ports_max = small(),
            Bounded::ImagesMax => self.images_max = small(),
            Bounded::ImagesBytes => self.images_bytes = Some(value),
            Bounded::DataBytes => self.data_bytes = Some(value),
            Bounded::IoReadBytesPerSec => self.io_read_bytes_per_sec = Some(value),
            Bounded::IoWriteBytesPerSec => self.io_write_bytes_per_sec = Some(value),
            Bounded::NetBytesPerSec => self.net_bytes_per_sec = Some(value),
        }
        self
    }

    /// The same with what was granted for a time on top: a bound is never lower for that, and none stays none, but
    /// where the configuration has one instead.
    pub fn with_extras(mut self, extras: &[Extra]) -> Self {
        for extra in extras {
            let configured = matches!(extra.limit, Bounded::ContainersMax | Bounded::PortsMax);
            let raises = match self.bound(extra.limit) {
                Some(now) => extra.granted > now,
                None => configured,
            };
            if raises {
                self = self.with_bound(extra.limit, extra.granted);
            }
        }
        self
    }

    /// What the kernel is to hold of it.
    pub fn total(&self) -> Total {
        Total {
            cpu_millis: self.cpu_millis,
            cpu_weight: self.cpu_weight,
            memory_bytes: self.memory_bytes,
            swap_bytes: self.swap_bytes,
            pids: self.pids,
            io_weight: self.io_weight,
            io_read_bytes_per_sec: self.io_read_bytes_per_sec,
            io_write_bytes_per_sec: self.io_write_bytes_per_sec,
            net_bytes_per_sec: self.net_bytes_per_sec,
        }
    }
}

/// A person's, or everybody's default.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// Whether it is this person's own.
    pub own: bool,
    /// What it says.
    pub allowance: Allowance,
}

const COLUMNS: &str = "select principal, cpu_millis, cpu_weight, memory_bytes, swap_bytes, pids, \
     containers_max, ports_max, images_max, images_bytes, data_bytes, io_weight, \
     io_read_bytes_per_sec, io_write_bytes_per_sec, net_bytes_per_sec, lifetime_secs, \
     lifetime_default_secs, idle_secs from allowances ";

/// What holds for a person now: what applies to them, and what was granted them for a time; the system itself is not
/// bounded.
pub async fn of(db: &mut SqliteConnection, person: PrincipalId) -> Result<Found> {
    let extras = asks::extras_of(&mut *db, person, Time::now()).await?;
    let Found { own, allowance } = base(db, person).await?;
    Ok(Found { own, allowance: allowance.with_extras(&extras) })
}

/// What applies to a person without what was granted for a time.
pub async fn base(db: &mut SqliteConnection, person: PrincipalId) -> Result<Found> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where principal in (?, 1) order by principal desc limit 1"
    )))
    .bind(i64::from(person.0))
    .fetch_optional(db)
    .await?;
    let found = rows.as_ref().map(read).transpose()?;
    Ok(match found {
        _ if person == PrincipalId::SYSTEM => Found { own: false, allowance: Allowance::FREE },
        Some((principal, allowance)) => Found { own: principal == person, allowance },
        None => Found { own: false, allowance: Allowance::FREE },
    })
}

/// What applies to a group; without a row of its own it is not bounded.
pub async fn of_group(db: &mut SqliteConnection, group: PrincipalId) -> Result<Found> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} where principal = ?")))
        .bind(i64::from(group.0))
        .fetch_optional(db)
        .await?;
    let found = row.as_ref().map(read).transpose()?;
    Ok(match found {
        Some((_, allowance)) => Found { own: true, allowance },
        None => Found { own: false, allowance: Allowance::FREE },
    })
}

/// The sums that a person's things are in: their own, then their group's. The system's are in none of a group.
pub async fn sums(db: &mut SqliteConnection, person: PrincipalId) -> Result<Vec<Sum>> {
    let row = sqlx::query(
        "select p.name, g.id as group_id, g.name as group_name from people p \
         join groups g on g.id = p.group_id where p.id = ?",
    )
    .bind(i64::from(person.0))
    .fetch_optional(&mut *db)
    .await?;
    let own = |name, allowance| Sum { of: Whose::Person, id: person, name, allowance };
    let allowance = of(&mut *db, person).await?.allowance;
    let Some(row) = row else { return Ok(vec![own("system".to_owned(), allowance)]) };
    let group = super::principal(&row, "group_id")?;
    let groups = Sum {
        of: Whose::Group,
        id: group,
        name: row.try_get("group_name")?,
        allowance: of_group(db, group).await?.allowance,
    };
    Ok(vec![own(row.try_get("name")?, allowance), groups])
}

/// All that there are, by principal, without what was granted for a time; the system's is everybody's default.
pub async fn all(db: &SqlitePool) -> Result<HashMap<PrincipalId, Allowance>> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(COLUMNS.to_owned())).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// Everybody's default.
pub async fn default(db: &SqlitePool) -> Result<Allowance> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("{COLUMNS} where principal = 1")))
        .fetch_optional(db)
        .await?;
    Ok(row.as_ref().map(read).transpose()?.map_or(Allowance::FREE, |(_, allowance)| allowance))
}

/// Writes a person's own, or as the system's everybody's default.
pub async fn set(
    db: &mut SqliteConnection,
    principal: PrincipalId,
    allowance: &Allowance,
) -> Result<()> {
    let number = |value: u64| {
        i64::try_from(value).map_err(|source| Error::broken("write an allowance", source))
    };
    sqlx::query(
        "insert or replace into allowances (principal, cpu_millis, cpu_weight, memory_bytes, \
         swap_bytes, pids, containers_max, ports_max, images_max, images_bytes, data_bytes, io_weight, \
         io_read_bytes_per_sec, io_write_bytes_per_sec, net_bytes_per_sec, lifetime_secs, \
         lifetime_default_secs, idle_secs, changed_at) \
         values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(i64::from(principal.0))
    .bind(allowance.cpu_millis)
    .bind(allowance.cpu_weight)
    .bind(allowance.memory_bytes.map(number).transpose()?)
    .bind(allowance.swap_bytes.map(number).transpose()?)
    .bind(allowance.pids)
    .bind(allowance.containers_max)
    .bind(allowance.ports_max)
    .bind(allowance.images_max)
    .bind(allowance.images_bytes.map(number).transpose()?)
    .bind(allowance.data_bytes.map(number).transpose()?)
    .bind(allowance.io_weight)
    .bind(allowance.io_read_bytes_per_sec.map(number).transpose()?)
    .bind(allowance.io_write_bytes_per_sec.map(number).transpose()?)
    .bind(allowance.net_bytes_per_sec.map(number).transpose()?)
    .bind(allowance.lifetime_secs)
    .bind(allowance.lifetime_default_secs)
    .bind(allowance.idle_secs)
    .bind(Time::now())
    .execute(db)
    .await?;
    Ok(())
}

/// Removes a person's own; whether there was one.
pub async fn remove(db: &mut SqliteConnection, principal: PrincipalId) -> Result<bool> {
    let done = sqlx::query("delete from allowances where principal = ?")
        .bind(i64::from(principal.0))
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

fn read(row: &SqliteRow) -> Result<(PrincipalId, Allowance)> {
    let bytes = |column: &str| -> Result<Option<u64>> {
        let value: Option<i64> = row.try_get(column)?;
        let wide = |value: i64| {
            u64::try_from(value).map_err(|source| Error::broken("read an allowance", source))
        };
        value.map(wide).transpose()
    };
    let allowance = Allowance {
        cpu_millis: row.try_get("cpu_millis")?,
        cpu_weight: row.try_get("cpu_weight")?,
        memory_bytes: bytes("memory_bytes")?,
        swap_bytes: bytes("swap_bytes")?,
        pids: row.try_get("pids")?,
        containers_max: row.try_get("containers_max")?,
        ports_max: row.try_get("ports_max")?,
        images_max: row.try_get("images_max")?,
        images_bytes: bytes("images_bytes")?,
        data_bytes: bytes("data_bytes")?,
        io_weight: row.try_get("io_weight")?,
        io_read_bytes_per_sec: bytes("io_read_bytes_per_sec")?,
        io_write_bytes_per_sec: bytes("io_write_bytes_per_sec")?,
        net_bytes_per_sec: bytes("net_bytes_per_sec")?,
        lifetime_secs: row.try_get("lifetime_secs")?,
        lifetime_default_secs: row.try_get("lifetime_default_secs")?,
        idle_secs: row.try_get("idle_secs")?,
    };
    Ok((super::principal(row, "principal")?, allowance))
}
