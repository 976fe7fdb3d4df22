//! Ports of the host that lead to containers. A container has its own from its making to its removal, so that
//! an address that somebody was told stays good over stops and restarts; the kernel has them while it runs.

use std::net::IpAddr;

use berth_runtime::config::RuntimeConfig;
use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::wire::{PortLease, PortProtocol};
use serde::Serialize;
use sqlx::SqliteConnection;
use utoipa::ToSchema;

use super::containers::spec::{PortRequest, Protocol};
use super::containers::view::OwnerView;
use super::{Listed, Page, admission};
use crate::app::App;
use crate::auth::{Caller, Visibility};
use crate::error::{Error, Result};
use crate::inventory::ports::{self, Lease};

/// Which ports can be leased.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PortPolicy {
    /// The first; absent, as the last is, when none can be.
    pub first: Option<u16>,
    /// The last.
    pub last: Option<u16>,
    /// The host's addresses that they are on; `0.0.0.0` for all of IPv4 that it has, `::` for all of IPv6.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// How many one person may have whose allowance does not say it.
    pub per_person_max: u32,
}

/// A port of the host that leads to one of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Port)]
pub struct PortView {
    /// Of both.
    pub protocol: Protocol,
    /// On the host.
    pub host_port: u16,
    /// In the container.
    pub container_port: u16,
}

/// A lease, and what it belongs to.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = PortLease)]
pub struct LeaseView {
    /// The ports.
    #[serde(flatten)]
    pub ports: PortView,
    /// The container's id.
    pub container: String,
    /// Its name.
    pub container_name: String,
    /// Whose it is.
    pub owner: OwnerView,
}

impl From<PortLease> for PortView {
    fn from(lease: PortLease) -> Self {
        let PortLease { protocol, host, container } = lease;
        Self { protocol: protocol.into(), host_port: host, container_port: container }
    }
}

impl From<Lease> for LeaseView {
    fn from(lease: Lease) -> Self {
        Self {
            ports: lease.ports.into(),
            container: lease.container,
            container_name: lease.container_name,
            owner: OwnerView { id: lease.owner.0, name: lease.owner_name },
        }
    }
}

/// Which ports can be leased.
pub fn policy(app: &App) -> PortPolicy {
    let runtime = &app.config.runtime;
    let range = range(runtime);
    PortPolicy {
        first: range.as_ref().map(|range| *range.start()),
        last: range.as_ref().map(|range| *range.end()),
        addresses: runtime.port_addresses.clone(),
        per_person_max: app.config.containers.ports_per_person_max,
    }
}

/// The leases that the caller sees: their own; everybody's for operators and auditors.
///
/// # Errors
/// When the page is none.
pub async fn list(app: &App, caller: &Caller, page: &Page) -> Result<Listed<LeaseView>> {
    let after = page.after.as_deref().map(position).transpose()?;
    let rows = ports::list(app.inventory.read(), caller.sees(), after, page.rows()).await?;
    let key = |row: &Lease| format!("{} {}", row.ports.protocol.as_str(), row.ports.host);
    let listed = page.cut(rows, key);
    Ok(Listed { items: listed.items.into_iter().map(Into::into).collect(), next: listed.next })
}

/// The ports that can be leased, if any.
pub(crate) fn range(runtime: &RuntimeConfig) -> Option<std::ops::RangeInclusive<u16>> {
    let range = runtime.port_first..=runtime.port_last;
    (!range.is_empty() && !runtime.port_addresses.is_empty()).then_some(range)
}

/// Leases to a new container what was asked for; a free port where none is named.
///
/// # Errors
/// When one is somebody's, none is left, or they are more than a person may have.
pub(crate) async fn lease(
    app: &App,
    caller: &Caller,
    db: &mut SqliteConnection,
    (id, owner): (&ContainerId, PrincipalId),
    wanted: &[PortRequest],
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    admission::check_ports(app, db, owner, wanted.len()).await?;
    // What is named comes first, so that no free one is given away that the same request names.
    let (named, any): (Vec<&PortRequest>, Vec<&PortRequest>) =
        wanted.iter().partition(|port| port.host_port.is_some());
    for port in named.into_iter().chain(any) {
        let protocol = PortProtocol::from(port.protocol);
        let host = match port.host_port {
            Some(host) if is_own(app, protocol, host) => {
                let text = format!("the server itself listens on port {host}; name another");
                return Err(Error::conflict("port.held", text));
            }
            Some(host) => match ports::holder(db, protocol, host).await? {
                None => host,
                Some(lease) => return Err(held(caller, &lease)),
            },
            None => free(app, db, protocol).await?,
        };
        let ports = PortLease { protocol, host, container: port.container_port };
        self::ports::insert(db, id, ports).await?;
    }
    Ok(())
}

async fn free(app: &App, db: &mut SqliteConnection, protocol: PortProtocol) -> Result<u16> {
    let held = ports::held(db, protocol).await?;
    let mut all = range(&app.config.runtime).into_iter().flatten();
    let is_free = |port: &u16| held.binary_search(port).is_err() && !is_own(app, protocol, *port);
    all.find(is_free).ok_or_else(|| {
        let text = format!(
            "every {} port that can be leased is; an operator may widen the range",
            protocol.as_str()
        );
        Error::exhausted("port.none-left", text)
    })
}

/// Whether the server listens there: what is sent to it would be a container's.
fn is_own(app: &App, protocol: PortProtocol, port: u16) -> bool {
    let mut own = app.config.server.listen.addresses().iter();
    protocol == PortProtocol::Tcp && own.any(|address| address.socket.port() == port)
}

/// Whose a port is, is said to those who see it anyhow.
fn held(caller: &Caller, lease: &Lease) -> Error {
    let PortLease { protocol, host, .. } = lease.ports;
    let port = format!("port {host}/{}", protocol.as_str());
    let whose = match caller.sees() {
        Visibility::Everyone => {
            format!(
                "{port} is leased to the container {} of {}",
                lease.container_name, lease.owner_name
            )
        }
        Visibility::Only(id) if id == lease.owner => {
            format!("{port} is leased to your container {}", lease.container_name)
        }
        Visibility::Only(_) => format!("{port} is leased to somebody else"),
    };
    Error::conflict("port.held", format!("{whose}; name another, or none for a free one"))
}

fn position(text: &str) -> Result<(PortProtocol, u16)> {
    let read = || {
        let (protocol, port) = text.split_once(' ')?;
        let protocol = match protocol {
            "tcp" => PortProtocol::Tcp,
            "udp" => PortProtocol::Udp,
            _ => return None,
        };
        Some((protocol, port.parse().ok()?))
    };
    read().ok_or_else(|| Error::field("?after", "no such page"))
}
