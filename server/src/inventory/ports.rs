//! Leases of the host's ports.

use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::wire::{PortLease, PortProtocol};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};

use crate::auth::Visibility;
use crate::error::{Error, Result};

/// A lease, and what it belongs to.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The ports.
    pub ports: PortLease,
    /// The container's id.
    pub container: String,
    /// Its name.
    pub container_name: String,
    /// Whose it is.
    pub owner: PrincipalId,
    /// Their name.
    pub owner_name: String,
}

const COLUMNS: &str = "select l.protocol, l.host_port, l.container_port, l.container, \
    c.name as container_name, c.owner, coalesce(p.name, 'system') as owner_name \
    from port_leases l join containers c on c.id = l.container \
    left join people p on p.id = c.owner ";

/// Leases, by protocol and port of the host.
pub async fn list(
    db: &SqlitePool,
    visible: Visibility,
    after: Option<(PortProtocol, u16)>,
    limit: u32,
) -> Result<Vec<Lease>> {
    let (protocol, port) = after.unzip();
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where (?1 is null or c.owner = ?1) \
         and (?2 is null or (l.protocol, l.host_port) > (?2, ?3)) \
         order by l.protocol, l.host_port limit ?4"
    )))
    .bind(visible.owner())
    .bind(protocol.map(PortProtocol::as_str))
    .bind(port)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(lease).collect()
}

/// Whose a port of the host is.
pub async fn holder(
    db: &mut SqliteConnection,
    protocol: PortProtocol,
    host: u16,
) -> Result<Option<Lease>> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{COLUMNS} where l.protocol = ? and l.host_port = ?"
    )))
    .bind(protocol.as_str())
    .bind(host)
    .fetch_optional(db)
    .await?;
    row.as_ref().map(lease).transpose()
}

/// The ports of the host that are leased, in order.
pub async fn held(db: &mut SqliteConnection, protocol: PortProtocol) -> Result<Vec<u16>> {
    let query = sqlx::query_scalar(
        "select host_port from port_leases where protocol = ? order by host_port",
    );
    Ok(query.bind(protocol.as_str()).fetch_all(db).await?)
}

/// Leases a port to a container.
pub async fn insert(
    db: &mut SqliteConnection,
    container: &ContainerId,
    ports: PortLease,
) -> Result<()> {
    sqlx::query(
        "insert into port_leases (protocol, host_port, container, container_port) \
         values (?, ?, ?, ?)",
    )
    .bind(ports.protocol.as_str())
    .bind(ports.host)
    .bind(container.as_str())
    .bind(ports.container)
    .execute(db)
    .await?;
    Ok(())
}

fn lease(row: &SqliteRow) -> Result<Lease> {
    let protocol: String = row.try_get("protocol")?;
    Ok(Lease {
        ports: PortLease {
            protocol: match protocol.as_str() {
                "tcp" => PortProtocol::Tcp,
                "udp" => PortProtocol::Udp,
                _ => return Err(Error::defect("read a lease's protocol")),
            },
            host: row.try_get("host_port")?,
            container: row.try_get("container_port")?,
        },
        container: row.try_get("container")?,
        container_name: row.try_get("container_name")?,
        owner: super::principal(row, "owner")?,
        owner_name: row.try_get("owner_name")?,
    })
}
