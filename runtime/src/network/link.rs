//! Interfaces: a person's bridge, a container's pair, and what is set on them.
//!
//! The container's end is made in its own namespace at once. The host's end is a port of the bridge
//! that learns nothing and is locked: frames pass it only with the hardware address that a static
//! entry of the bridge's table binds to it (bridge(8), "locked").

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::{Pool6, Subnet, hardware_address};
use super::netlink::Connection;
use super::{Attachment, Error};

/// The container's interface.
const INSIDE_NAME: &str = "eth0";
const LOOPBACK_INDEX: u32 = 1;

/// An interface of the host's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// The bridge that it is a port of.
    pub bridge: Option<u32>,
}

/// Every interface of the namespace that `connection` belongs to.
pub fn list(connection: &mut Connection) -> Result<Vec<Link>, Error> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let found = connection.dump(request, "list the interfaces")?;
    Ok(found.into_iter().filter_map(link).collect())
}

/// The interface of that name, if there is one.
pub fn find(connection: &mut Connection, name: &str) -> Result<Option<Link>, Error> {
    let request = RouteNetlinkMessage::GetLink(named(name));
    Ok(connection.get(request, &format!("look for interface {name}"))?.and_then(link))
}

fn link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link { index: message.header.index, name: String::new(), bridge: None };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(index) => link.bridge = Some(index),
            _ => {}
        }
    }
    Some(link)
}

/// Makes a person's bridge, up and with the gateway's address, and gives its index; a bridge that is
/// there is completed.
pub fn ensure_bridge(
    connection: &mut Connection,
    name: &str,
    subnet: Subnet,
    pool6: Option<Pool6>,
) -> Result<u32, Error> {
    let gateway = subnet.gateway();
    let index = match find(connection, name)? {
        Some(bridge) => bridge.index,
        None => {
            let mut message = named(name);
            message.attributes.push(LinkAttribute::Address(hardware_address(gateway).to_vec()));
            message.attributes.push(LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Bridge),
                LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
            ]));
            let request = RouteNetlinkMessage::NewLink(message);
            connection.request(
                request,
                NLM_F_CREATE | NLM_F_EXCL,
                &format!("add bridge {name}"),
            )?;
            find(connection, name)?.ok_or_else(|| vanished(name))?.index
        }
    };
    // Before it is up: no IPv6 of the host's on it, or nothing that follows by itself; the host answers for its
    // address on this bridge only, not for all it has; and it says nothing of better routes.
    set_ipv6(name, pool6.is_some())?;
    setting(&format!("ipv4/conf/{name}/arp_ignore"), "1")?;
    setting(&format!("ipv4/conf/{name}/rp_filter"), "1")?;
    setting(&format!("ipv4/conf/{name}/send_redirects"), "0")?;
    set_addresses(connection, (index, name), (gateway, subnet), pool6)?;
    set_up(connection, (index, name))?;
    Ok(index)
}

/// Makes a container's pair of interfaces: `host_name` here as a port of the bridge, down, and the
/// container's end in its namespace. A pair of that name left by somebody else is replaced.
pub fn add_pair(
    connection: &mut Connection,
    host_name: &str,
    bridge: u32,
    (netns, address): (BorrowedFd<'_>, Ipv4Addr),
) -> Result<u32, Error> {
    let mut peer = named(INSIDE_NAME);
    peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    peer.attributes.push(LinkAttribute::Address(hardware_address(address).to_vec()));
    let mut message = named(host_name);
    message.attributes.push(LinkAttribute::Controller(bridge));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let request = RouteNetlinkMessage::NewLink(message);
    let action = format!("add interfaces {host_name} and {INSIDE_NAME}");
    connection.request(request, NLM_F_CREATE | NLM_F_EXCL, &action)?;
    let found = find(connection, host_name)?;
    Ok(found.ok_or_else(|| vanished(host_name))?.index)
}

/// Makes the host's end the one port for the container's hardware address and no other, then up.
pub fn secure_port(
    connection: &mut Connection,
    (index, name): (u32, &str),
    address: Ipv4Addr,
) -> Result<(), Error> {
    setting(&format!("ipv6/conf/{name}/disable_ipv6"), "1")?;
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::Locked(true),
            InfoBridgePort::Learning(false),
            InfoBridgePort::UnicastFlood(false),
        ])),
    ]));
    let request = RouteNetlinkMessage::NewLink(message);
    connection.request(request, 0, &format!("lock bridge port {name}"))?;
    let mut entry = NeighbourMessage::default();
    entry.header.family = AddressFamily::Bridge;
    entry.header.ifindex = index;
    entry.header.state = NeighbourState::Noarp;
    entry.header.flags = NeighbourFlags::Controller;
    entry.attributes.push(NeighbourAttribute::LinkLayerAddress(hardware_address(address).to_vec()));
    let request = RouteNetlinkMessage::NewNeighbour(entry);
    let action = format!("bind the hardware address of {address} to {name}");
    connection.request(request, NLM_F_CREATE | NLM_F_REPLACE, &action)
}

/// Sets up the container's end: loopback, addresses, default routes. `inside` belongs to its namespace.
pub fn set_up_inside(
    inside: &mut Connection,
    at: &Attachment,
    pool6: Option<Pool6>,
) -> Result<(), Error> {
    set_up(inside, (LOOPBACK_INDEX, "lo"))?;
    let eth0 = find(inside, INSIDE_NAME)?.ok_or_else(|| vanished(INSIDE_NAME))?.index;
    set_addresses(inside, (eth0, INSIDE_NAME), (at.address, at.subnet), pool6)?;
    set_up(inside, (eth0, INSIDE_NAME))?;
    let gateway = at.subnet.gateway();
    bind_neighbour(inside, eth0, gateway, pool6)?;
    for gateway in both(gateway, pool6) {
        add_default_route(inside, eth0, gateway)?;
    }
    Ok(())
}

fn add_default_route(inside: &mut Connection, eth0: u32, gateway: IpAddr) -> Result<(), Error> {
    let mut route = RouteMessage::default();
    let (family, by) = match gateway {
        IpAddr::V4(gateway) => (AddressFamily::Inet, RouteAddress::Inet(gateway)),
        IpAddr::V6(gateway) => (AddressFamily::Inet6, RouteAddress::Inet6(gateway)),
    };
    route.header.address_family = family;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes.push(RouteAttribute::Gateway(by));
    route.attributes.push(RouteAttribute::Oif(eth0));
    let request = RouteNetlinkMessage::NewRoute(route);
    let action = format!("add the container's default route by {gateway}");
    inside.request(request, NLM_F_CREATE | NLM_F_REPLACE, &action)
}

/// Brings up loopback, all that a container without network has.
pub fn set_up_loopback(inside: &mut Connection) -> Result<(), Error> {
    set_up(inside, (LOOPBACK_INDEX, "lo"))
}

/// An address, and the one of IPv6 that goes with it.
fn both(address: Ipv4Addr, pool6: Option<Pool6>) -> impl Iterator<Item = IpAddr> {
    let other = pool6.map(|pool| IpAddr::V6(pool.of(address)));
    std::iter::once(IpAddr::V4(address)).chain(other)
}

/// Binds an address to its hardware address, so that no ARP of a neighbour can claim it, and nobody need be asked
/// for it: of neighbour discovery (RFC 4861) containers say and hear nothing.
pub fn bind_neighbour(
    connection: &mut Connection,
    interface: u32,
    address: Ipv4Addr,
    pool6: Option<Pool6>,
) -> Result<(), Error> {
    let hardware = hardware_address(address).to_vec();
    for address in both(address, pool6) {
        let mut entry = neighbour(interface, address);
        entry.header.state = NeighbourState::Permanent;
        entry.attributes.push(NeighbourAttribute::LinkLayerAddress(hardware.clone()));
        let request = RouteNetlinkMessage::NewNeighbour(entry);
        let action = format!("bind {address} to its hardware address");
        connection.request(request, NLM_F_CREATE | NLM_F_REPLACE, &action)?;
    }
    Ok(())
}

/// Forgets what [`bind_neighbour`] did; success when it is forgotten.
pub fn unbind_neighbour(
    connection: &mut Connection,
    interface: u32,
    address: Ipv4Addr,
    pool6: Option<Pool6>,
) -> Result<(), Error> {
    for address in both(address, pool6) {
        let request = RouteNetlinkMessage::DelNeighbour(neighbour(interface, address));
        match connection.request(request, 0, &format!("unbind {address}")) {
            Err(error) if !error.is_absent() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn neighbour(interface: u32, address: IpAddr) -> NeighbourMessage {
    let mut entry = NeighbourMessage::default();
    let (family, address) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    entry.header.family = family;
    entry.header.ifindex = interface;
    entry.attributes.push(NeighbourAttribute::Destination(address));
    entry
}

/// Removes an interface, and its peer with it; success when it is gone.
pub fn delete(connection: &mut Connection, name: &str) -> Result<(), Error> {
    let request = RouteNetlinkMessage::DelLink(named(name));
    let done = connection.request(request, 0, &format!("delete interface {name}"));
    done.or_else(|error| if error.is_absent() { Ok(()) } else { Err(error) })
}

/// Removes an interface by its index; success when it is gone.
pub fn delete_index(connection: &mut Connection, index: u32) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let request = RouteNetlinkMessage::DelLink(message);
    let done = connection.request(request, 0, &format!("delete interface {index}"));
    done.or_else(|error| if error.is_absent() { Ok(()) } else { Err(error) })
}

/// The networks that this namespace has routes to, in any table, default routes included, but for
/// those by the interfaces `except`.
pub fn routes(connection: &mut Connection, except: &[u32]) -> Result<Vec<Subnet>, Error> {
    let mut request = RouteMessage::default();
    request.header.address_family = AddressFamily::Inet;
    let found = connection.dump(RouteNetlinkMessage::GetRoute(request), "list the routes")?;
    let mut networks = Vec::new();
    for message in found {
        let RouteNetlinkMessage::NewRoute(route) = message else { continue };
        let by_one_of = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Oif(index) if except.contains(index));
        if route.attributes.iter().any(by_one_of) {
            continue;
        }
        let destination = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
            _ => None,
        });
        let destination = destination.unwrap_or(Ipv4Addr::UNSPECIFIED);
        networks.push(Subnet::containing(destination, route.header.destination_prefix_length));
    }
    Ok(networks)
}

fn set_addresses(
    connection: &mut Connection,
    (index, name): (u32, &str),
    (address, subnet): (Ipv4Addr, Subnet),
    pool6: Option<Pool6>,
) -> Result<(), Error> {
    for address in both(address, pool6) {
        let mut message = AddressMessage::default();
        message.header.scope = AddressScope::Universe;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        match (address, pool6) {
            (IpAddr::V6(_), Some(pool)) => {
                message.header.family = AddressFamily::Inet6;
                message.header.prefix_len = pool.prefix(subnet);
                // Nobody else can have it: it is good at once (RFC 4862, duplicate address detection).
                message.header.flags = AddressHeaderFlags::Nodad;
            }
            _ => {
                message.header.family = AddressFamily::Inet;
                message.header.prefix_len = subnet.prefix();
                message.attributes.push(AddressAttribute::Broadcast(subnet.broadcast()));
            }
        }
        let request = RouteNetlinkMessage::NewAddress(message);
        let action = format!("add address {address} to {name}");
        connection.request(request, NLM_F_CREATE | NLM_F_REPLACE, &action)?;
    }
    Ok(())
}

/// Turns IPv6 off for an interface of the namespace that this process is in (`all` and `default` are names too),
/// or on without anything that comes by itself: no router is heard, no address made (ip-sysctl.rst).
pub fn set_ipv6(name: &str, is_on: bool) -> Result<(), Error> {
    if is_on {
        for quiet in ["accept_ra", "autoconf", "accept_redirects", "router_solicitations"] {
            setting(&format!("ipv6/conf/{name}/{quiet}"), "0")?;
        }
        if name != "all" {
            // No link-local address.
            setting(&format!("ipv6/conf/{name}/addr_gen_mode"), "1")?;
        }
    }
    setting(&format!("ipv6/conf/{name}/disable_ipv6"), if is_on { "0" } else { "1" })
}

/// Brings an interface up.
pub fn set_up(connection: &mut Connection, (index, name): (u32, &str)) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    let request = RouteNetlinkMessage::NewLink(message);
    connection.request(request, 0, &format!("bring up {name}"))
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn vanished(name: &str) -> Error {
    let source = io::Error::from_raw_os_error(libc::ENODEV);
    Error::Kernel { action: format!("find interface {name}, just made"), source }
}

/// Writes a file of `/proc/sys/net` of the namespace that this process is in; what belongs to a
/// protocol that the kernel does not have needs no setting.
pub fn setting(name: &str, value: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/net/{name}");
    match fs::write(&path, value) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Setting { path, value: value.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}
