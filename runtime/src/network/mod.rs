//! A container's network: a place on its owner's bridge, with egress by NAT and nothing else.
//!
//! [`Network::attach`] gives a waiting container its interface and address, [`Network::detach`] takes
//! them away and everything else with the last container, [`Network::sweep`] makes the kernel agree
//! with the supervisor's record after a crash. All can be repeated. Who has which subnet and address
//! is the supervisor's record ([`Pool::choose`], [`choose_address`]); every name follows from them:
//!
//! - `<instance>-<slot>`: a person's bridge;
//! - `<instance>_<lower 24 bits of the address>`: the host's end of a container's pair;
//! - `<instance>`: the nftables table (see `table`), whose elements follow from those interfaces;
//! - `<instance>_ports`: that of the host's ports which lead to containers (see `ports`);
//! - `<instance>_rates`: that of how fast containers may send and receive (see `rates`).
//!
//! Invariants: the guard (table elements, locked port) is in force before an interface is up; IPv6 is
//! off on ports, and on bridges and in containers where no network of it is configured; every change is made under the instance's lock, so that
//! the last container of one person cannot take the table from the first of another.

mod address;
mod changes;
mod link;
pub mod moving;
mod netlink;
mod ports;
pub mod rates;
mod resolver;
mod table;

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_runtime::config::RuntimeConfig;
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::PortLease;
use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns};

pub use address::{Pool, Pool6, Subnet, choose_address};
pub use changes::Changes;
pub use resolver::resolv_conf;
pub use table::program as nft_program;

use link::Link;
use netlink::Connection;
use ports::Leases;
use table::Member;

/// Why the network could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured pool cannot be used.
    #[error("use the network pool: {0}")]
    Pool(String),
    /// No subnet or address is left.
    #[error("{0}")]
    Exhausted(String),
    /// The kernel refused a step.
    #[error("{action}")]
    Kernel {
        action: String,
        #[source]
        source: io::Error,
    },
    /// The `nft` program refused the table.
    #[error("make the nftables table: {0}")]
    Nft(String),
    /// A file of `/proc/sys/net` could not be written.
    #[error("write {value:?} to {path}")]
    Setting {
        path: String,
        value: String,
        #[source]
        source: io::Error,
    },
    /// A network namespace could not be entered or left.
    #[error("{step} the container's network namespace")]
    Namespace {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    /// The lock could not be taken.
    #[error("lock {path}")]
    Lock {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether it says that the object is not there.
    fn is_absent(&self) -> bool {
        matches!(self, Self::Kernel { source, .. }
            if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (class, code) = match &error {
            Error::Exhausted(_) => (FailureClass::Exhausted, "network.exhausted"),
            Error::Pool(_) => (FailureClass::Invalid, "network.pool"),
            Error::Nft(_) => (FailureClass::Unavailable, "network.nftables"),
            _ => (FailureClass::Broken, "network.broken"),
        };
        let cause = std::error::Error::source(&error);
        let message = cause.map_or(error.to_string(), |cause| format!("{error}: {cause}"));
        Self::new(class, code, message)
    }
}

/// A container's place on its owner's bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The owner's slot: the number of their id range in the block.
    pub slot: u32,
    /// The owner's subnet.
    pub subnet: Subnet,
    /// The container's address in it.
    pub address: Ipv4Addr,
    /// The host's ports that lead to it.
    pub ports: Vec<PortLease>,
}

/// An instance's networks.
#[derive(Debug, Clone)]
pub struct Network {
    instance: String,
    pool: Pool,
    pool6: Option<Pool6>,
    /// The host's addresses whose ports can be leased.
    port_addresses: Vec<IpAddr>,
    lock_path: PathBuf,
}

/// The networks that the host has routes to, for [`Pool::choose`].
pub fn host_routes() -> Result<Vec<Subnet>, Error> {
    link::routes(&mut Connection::route()?, &[])
}

/// Sets up the network namespace of a container without network: loopback, no IPv6.
pub fn loopback_only(netns: BorrowedFd<'_>) -> Result<(), Error> {
    link::set_up_loopback(&mut inside(netns, false)?)
}

impl Network {
    /// The networks of a configured instance; nothing is made yet.
    pub fn new(config: &RuntimeConfig) -> Result<Self, Error> {
        let pool = Pool::new(&config.network_pool, config.network_prefix)?;
        let lock_path = config.run_dir.join("network.lock");
        let pool6 = config.network_pool6.as_deref().map(Pool6::new).transpose()?;
        let port_addresses = config.port_addresses.clone();
        Ok(Self { instance: config.instance.clone(), pool, pool6, port_addresses, lock_path })
    }

    /// The IPv6 address of whoever has this one, where containers have any.
    pub fn address6(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        self.pool6.map(|pool| pool.of(address))
    }

    /// The pool that subnets are cut from.
    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// The networks that the host has routes to by other interfaces than this instance's bridges.
    pub fn foreign_routes(&self) -> Result<Vec<Subnet>, Error> {
        let mut host = Connection::route()?;
        let prefix = format!("{}-", self.instance);
        let ours: Vec<u32> = link::list(&mut host)?
            .into_iter()
            .filter(|link| link.name.starts_with(&prefix))
            .map(|link| link.index)
            .collect();
        link::routes(&mut host, &ours)
    }

    /// Gives the container whose namespace is `netns` its place. Its first process must still be
    /// waiting. What was made is undone when a step fails.
    pub fn attach(&self, netns: BorrowedFd<'_>, at: &Attachment) -> Result<(), Error> {
        let _lock = self.lock()?;
        let mut host = Connection::route()?;
        let done = self.attach_locked(&mut host, netns, at);
        if done.is_err() {
            // The first error says more than one met while undoing; a sweep ends what is left.
            let _ = self.detach_locked(&mut host, at);
        }
        done
    }

    /// Takes the container's place away, and with the owner's last container their bridge, and with
    /// the last of all the table. Success when it is gone already.
    pub fn detach(&self, at: &Attachment) -> Result<(), Error> {
        let _lock = self.lock()?;
        self.detach_locked(&mut Connection::route()?, at)
    }

    /// The interfaces (by index, which the kernel does not give again) of containers that are not
    /// among `live`. To be asked before anything new is attached, which would look the same.
    pub fn stale(&self, live: &[Attachment]) -> Result<Vec<u32>, Error> {
        let wanted: Vec<String> = live.iter().map(|at| self.port_name(at.address)).collect();
        let prefix = format!("{}_", self.instance);
        let stale = |link: &Link| link.name.starts_with(&prefix) && !wanted.contains(&link.name);
        let links = link::list(&mut Connection::route()?)?;
        Ok(links.into_iter().filter(stale).map(|link| link.index).collect())
    }

    /// Makes the kernel agree with the record, whose places are `live`: interfaces that were found stale go,
    /// and so do bridges without ports; the tables are made anew for those that stay. For the supervisor's
    /// start.
    pub fn sweep(&self, stale: &[u32], live: &[Attachment]) -> Result<(), Error> {
        let _lock = self.lock()?;
        let mut host = Connection::route()?;
        for index in stale {
            link::delete_index(&mut host, *index)?;
        }
        self.delete_empty_bridges(&mut host)?;
        self.guard(&mut host)?;
        self.leases().replace(live)
    }

    /// Makes tables again that somebody has taken away; for when [`Network::guarded`] says no. A container
    /// that has come since `live` was listed keeps what it has, and one that has gone since gets nothing: its port
    /// may be another's by now.
    pub fn restore(&self, live: &[Attachment]) -> Result<(), Error> {
        let _lock = self.lock()?;
        let mut host = Connection::route()?;
        self.guard(&mut host)?;
        let links = link::list(&mut host)?;
        let is_there = |at: &&Attachment| {
            let name = self.port_name(at.address);
            links.iter().any(|link| link.name == name)
        };
        let there: Vec<Attachment> = live.iter().filter(is_there).cloned().collect();
        let leases = there.iter().any(|at| !at.ports.is_empty());
        if leases { self.leases().complete(&there) } else { Ok(()) }
    }

    /// Makes the table for the containers that have an interface.
    fn guard(&self, host: &mut Connection) -> Result<(), Error> {
        let members = self.members(&link::list(host)?);
        match members.is_empty() {
            true => table::delete(&self.instance),
            false => table::replace(&self.instance, &members),
        }
    }

    /// Whether the tables are in force, as they must be while any container has a network, and `leases` says
    /// whether one has a port. Somebody's `nft flush ruleset` (a restart of the nftables service) takes them
    /// away.
    pub fn guarded(&self, leases: bool) -> Result<bool, Error> {
        Ok(table::exists(&self.instance)? && (!leases || ports::is_complete(&self.instance)?))
    }

    fn attach_locked(
        &self,
        host: &mut Connection,
        netns: BorrowedFd<'_>,
        at: &Attachment,
    ) -> Result<(), Error> {
        let mut inside = inside(netns, self.pool6.is_some())?;
        let bridge_name = self.bridge_name(at.slot);
        let member = self.member(bridge_name.clone(), at.address);
        match table::add(&self.instance, &member) {
            Err(error) if error.is_absent() => {
                let mut members = self.members(&link::list(host)?);
                members.push(member);
                table::replace(&self.instance, &members)?;
            }
            done => done?,
        }
        let bridge = link::ensure_bridge(host, &bridge_name, at.subnet, self.pool6)?;
        let port_name = self.port_name(at.address);
        // One that a crash has left would still be wired to a dying container.
        link::delete(host, &port_name)?;
        let port = link::add_pair(host, &port_name, bridge, (netns, at.address))?;
        link::secure_port(host, (port, &port_name), at.address)?;
        link::bind_neighbour(host, bridge, at.address, self.pool6)?;
        link::set_up_inside(&mut inside, at, self.pool6)?;
        enable_forwarding()?;
        if self.pool6.is_some() {
            enable_forwarding6()?;
        }
        if !at.ports.is_empty() {
            // What the host asks of its loopback goes out by the bridge then (ip-sysctl.rst, route_localnet);
            // what comes in by it for loopback is dropped like all else for the host.
            link::setting(&format!("ipv4/conf/{bridge_name}/route_localnet"), "1")?;
        }
        self.leases().add(at)
    }

    fn detach_locked(&self, host: &mut Connection, at: &Attachment) -> Result<(), Error> {
        let bridge_name = self.bridge_name(at.slot);
        self.leases().remove(at)?;
        link::delete(host, &self.port_name(at.address))?;
        table::remove(&self.instance, &self.member(bridge_name.clone(), at.address))?;
        if let Some(bridge) = link::find(host, &bridge_name)? {
            link::unbind_neighbour(host, bridge.index, at.address, self.pool6)?;
        }
        if self.delete_empty_bridges(host)? {
            return Ok(());
        }
        ports::delete(&self.instance)?;
        table::delete(&self.instance)
    }

    /// Removes the instance's bridges that have no port; says whether others are left.
    fn delete_empty_bridges(&self, host: &mut Connection) -> Result<bool, Error> {
        let links = link::list(host)?;
        let prefix = format!("{}-", self.instance);
        let mut left = false;
        for bridge in links.iter().filter(|link| link.name.starts_with(&prefix)) {
            if links.iter().any(|link| link.bridge == Some(bridge.index)) {
                left = true;
            } else {
                link::delete(host, &bridge.name)?;
                table::remove_bridge(&self.instance, &bridge.name)?;
            }
        }
        Ok(left)
    }

    /// The containers that have a port, from the interfaces.
    fn members(&self, links: &[Link]) -> Vec<Member> {
        let prefix = format!("{}_", self.instance);
        let high = u32::from(self.pool.whole().network()) & 0xff00_0000;
        let member = |port: &Link| {
            let low = u32::from_str_radix(port.name.strip_prefix(&prefix)?, 16).ok()?;
            let bridge = links.iter().find(|link| Some(link.index) == port.bridge)?;
            Some(self.member(bridge.name.clone(), Ipv4Addr::from(high | low)))
        };
        links.iter().filter_map(member).collect()
    }

    fn member(&self, bridge: String, address: Ipv4Addr) -> Member {
        Member { bridge, address, address6: self.address6(address) }
    }

    fn leases(&self) -> Leases<'_> {
        let Self { instance, port_addresses, pool6, .. } = self;
        Leases { instance, addresses: port_addresses, pool6: *pool6 }
    }

    fn bridge_name(&self, slot: u32) -> String {
        format!("{}-{slot}", self.instance)
    }

    fn port_name(&self, address: Ipv4Addr) -> String {
        format!("{}_{:06x}", self.instance, u32::from(address) & 0x00ff_ffff)
    }

    fn lock(&self) -> Result<Flock<File>, Error> {
        let failed = |source| Error::Lock { path: self.lock_path.clone(), source };
        // Root's alone: whoever may open a file may lock it (flock(2)), and so hold up everybody.
        let mut options = File::options();
        options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&self.lock_path).map_err(failed)?;
        // One that an earlier version has made.
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))
    }
}

/// A connection to a container's namespace, where IPv6 is turned off on the way, or on for what is configured by
/// hand alone.
///
/// `/proc/sys/net` shows the namespace of whoever opens a file in it, so this process goes there and
/// comes back; it has one thread, and nothing else happens meanwhile.
fn inside(netns: BorrowedFd<'_>, has_ipv6: bool) -> Result<Connection, Error> {
    let failed = |step| move |source| Error::Namespace { step, source };
    let home = File::open("/proc/thread-self/ns/net").map_err(failed("remember ours before"))?;
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| failed("enter")(errno.into()))?;
    let done = link::set_ipv6("all", has_ipv6)
        .and_then(|()| link::set_ipv6("default", has_ipv6))
        .and_then(|()| Connection::route());
    setns(home.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| failed("leave")(errno.into()))?;
    done
}

/// Lets the host pass packets on between interfaces, without which there is no egress. It is a switch
/// of the whole host; what Berth's own table drops stays dropped.
fn enable_forwarding() -> Result<(), Error> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    let now = fs::read_to_string(path);
    let now = now.map_err(|source| Error::Read { path: path.into(), source })?;
    if now.trim() == "1" { Ok(()) } else { link::setting("ipv4/ip_forward", "1") }
}

/// The same for IPv6. A host that passes packets on listens to no router any more (ip-sysctl.rst, accept_ra), so that
/// one which has its own routes from there is told to go on listening first.
fn enable_forwarding6() -> Result<(), Error> {
    let all = "/proc/sys/net/ipv6/conf";
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Read { path, source }
    };
    let switch = Path::new(all).join("all/forwarding");
    if fs::read_to_string(&switch).map_err(failed(&switch))?.trim() == "1" {
        return Ok(());
    }
    for interface in fs::read_dir(all).map_err(failed(Path::new(all)))? {
        let interface = interface.map_err(failed(Path::new(all)))?.file_name();
        let Some(interface) = interface.to_str() else { continue };
        let listens = fs::read_to_string(format!("{all}/{interface}/accept_ra"));
        // One that has gone meanwhile needs nothing.
        if listens.is_ok_and(|value| value.trim() == "1") {
            link::setting(&format!("ipv6/conf/{interface}/accept_ra"), "2")?;
        }
    }
    link::setting("ipv6/conf/all/forwarding", "1")
}

#[cfg(test)]
mod tests;
