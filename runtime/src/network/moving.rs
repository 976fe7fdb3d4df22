//! Network devices of the host that are moved into a container (config-linux.md, "Network Devices").
//!
//! Devices and names are looked at before the first is moved. What has been moved when a later step fails is
//! left to the kernel: with the namespace, virtual devices end and others come back.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::Error;
use super::link::{find, list, set_up};
use super::netlink::Connection;
use crate::joined::has;
use crate::spec::{SpecError, invalid};

/// `IFNAMSIZ` without the NUL byte (linux/if.h).
const NAME_BYTES_MAX: usize = 15;
/// In a new name, where the kernel puts the lowest number that is free.
const TEMPLATE: &str = "%d";

/// One device: its name on the host, and the one that it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    from: String,
    to: String,
}

/// The devices of a configuration, in the order of their names.
pub fn devices(spec: &Spec) -> Result<Vec<Device>, SpecError> {
    let linux = spec.linux().as_ref();
    let Some(wanted) = linux.and_then(|linux| linux.net_devices().as_ref()) else {
        return Ok(Vec::new());
    };
    if !wanted.is_empty() && !has(spec, LinuxNamespaceType::Network) {
        return Err(invalid(
            "linux.netDevices",
            "the container has no network namespace of its own",
        ));
    }
    let mut devices = Vec::new();
    for (from, device) in wanted {
        let to = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(from);
        let field = format!("linux.netDevices[{from:?}]");
        for (name, of) in [(from.as_str(), ""), (to, ".name")] {
            let plain = |byte: u8| byte.is_ascii_graphic() && !b"/:".contains(&byte);
            let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
            // The kernel takes one template, and in new names only.
            let signs = name.matches('%').count();
            let template = signs == 1 && of == ".name" && name.contains(TEMPLATE);
            if !fits || [".", ".."].contains(&name) || signs > 0 && !template {
                let why = format!("{name:?} is not the name of a network device");
                return Err(invalid(format!("{field}{of}"), why));
            }
        }
        devices.push(Device { from: from.clone(), to: to.to_owned() });
    }
    devices.sort_by(|one, other| one.from.cmp(&other.from));
    let mut names: Vec<&str> = devices.iter().map(|device| device.to.as_str()).collect();
    names.retain(|name| !name.contains(TEMPLATE));
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(invalid("linux.netDevices", format!("two devices get the name {:?}", pair[0])));
    }
    Ok(devices)
}

/// Moves devices into the network namespace of a process, with their lasting addresses, and sets them up.
///
/// # Errors
/// The device, and what of it cannot be.
pub fn move_in(devices: &[Device], pid: Pid) -> Result<(), Error> {
    if devices.is_empty() {
        return Ok(());
    }
    let failed = |step| move |source| Error::Namespace { step, source };
    let path = format!("/proc/{pid}/ns/net");
    let theirs = File::open(path).map_err(failed("open"))?;
    let ours = File::open("/proc/thread-self/ns/net").map_err(failed("open ours beside"))?;
    let inode = |file: &File| file.metadata().map(|facts| facts.ino());
    if inode(&theirs).map_err(failed("look at"))? == inode(&ours).map_err(failed("look at"))? {
        return Err(refused("move network devices", libc::EEXIST, "into the host's own namespace"));
    }
    let mut outside = Connection::route()?;
    setns(&theirs, CloneFlags::CLONE_NEWNET).map_err(|errno| failed("enter")(errno.into()))?;
    let inside = Connection::route();
    setns(&ours, CloneFlags::CLONE_NEWNET).map_err(|errno| failed("leave")(errno.into()))?;
    let mut inside = inside?;
    for device in devices {
        if find(&mut outside, &device.from)?.is_none() {
            let action = format!("move network device {}", device.from);
            return Err(refused(&action, libc::ENODEV, "the host has none of that name"));
        }
        if !device.to.contains(TEMPLATE) && find(&mut inside, &device.to)?.is_some() {
            let action = format!("move network device {} to {}", device.from, device.to);
            return Err(refused(&action, libc::EEXIST, "the container has one of that name"));
        }
    }
    for device in devices {
        move_one(device, (&mut outside, &mut inside), theirs.as_fd())?;
    }
    Ok(())
}

fn refused(action: &str, errno: i32, why: &str) -> Error {
    let source = std::io::Error::from_raw_os_error(errno);
    Error::Kernel { action: format!("{action} ({why})"), source }
}

fn move_one(
    device: &Device,
    (outside, inside): (&mut Connection, &mut Connection),
    theirs: BorrowedFd<'_>,
) -> Result<(), Error> {
    let action = format!("move network device {} to {}", device.from, device.to);
    let Some(link) = find(outside, &device.from)? else {
        return Err(refused(&action, libc::ENODEV, "it is gone"));
    };
    let addresses = lasting_addresses(outside, link.index)?;
    let before = list(inside)?;
    let mut message = LinkMessage::default();
    message.header.index = link.index;
    message.attributes.push(LinkAttribute::IfName(device.to.clone()));
    message.attributes.push(LinkAttribute::NetNsFd(theirs.as_raw_fd()));
    outside.request(RouteNetlinkMessage::NewLink(message), 0, &action)?;
    // Neither its number nor, of a template, its name is known beforehand.
    let moved =
        list(inside)?.into_iter().find(|link| before.iter().all(|old| old.index != link.index));
    let Some(moved) = moved else {
        return Err(refused(&action, libc::ENODEV, "it has not come"));
    };
    for mut address in addresses {
        address.header.index = moved.index;
        let action = format!("give network device {} its address again", moved.name);
        let request = RouteNetlinkMessage::NewAddress(address);
        inside.request(request, NLM_F_CREATE | NLM_F_EXCL, &action)?;
    }
    set_up(inside, (moved.index, &moved.name))
}

/// Permanent addresses of global scope, ready to be added again.
fn lasting_addresses(
    connection: &mut Connection,
    index: u32,
) -> Result<Vec<AddressMessage>, Error> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let found = connection.dump(request, "list the addresses")?;
    let lasting = |message: RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewAddress(found) = message else { return None };
        let header = &found.header;
        let lasts = header.flags.contains(AddressHeaderFlags::Permanent);
        if header.index != index || header.scope != AddressScope::Universe || !lasts {
            return None;
        }
        let mut message = AddressMessage::default();
        message.header.family = header.family;
        message.header.prefix_len = header.prefix_len;
        message.header.scope = header.scope;
        message.attributes = found.attributes.into_iter().filter_map(kept).collect();
        Some(message)
    };
    Ok(found.into_iter().filter_map(lasting).collect())
}

/// A label is of the old name; times are not of permanent addresses; of the flags the kernel sets most.
fn kept(attribute: AddressAttribute) -> Option<AddressAttribute> {
    match attribute {
        AddressAttribute::Flags(flags) => {
            Some(AddressAttribute::Flags(flags & AddressFlags::Noprefixroute))
        }
        AddressAttribute::Address(_)
        | AddressAttribute::Local(_)
        | AddressAttribute::Broadcast(_)
        | AddressAttribute::RoutePriority(_) => Some(attribute),
        _ => None,
    }
}
