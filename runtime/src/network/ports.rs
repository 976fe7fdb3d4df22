//! The host's ports that lead to containers: a table of their own, `<instance>_ports`, in which one map says
//! which port of the host is which container's.
//!
//! The destination is translated (nft(8), "NAT STATEMENTS") and the source kept, so a container sees who
//! asks; only what the host asks of its own loopback gets the bridge's address. After that a packet is one
//! that is passed on: the host's own chains at the forward hook see it, and what they drop stays dropped.
//! What comes from containers is not translated, so no lease opens a way from one person to another.
//!
//! The map's elements come from the supervisor's record, not from links as those of `members` do: a
//! container's own are added with its interface. Whoever finds no table makes it, with what they know; that
//! all is in it is said by a set, [`COMPLETE`], which the supervisor alone makes.

use std::net::Ipv4Addr;

use berth_runtime::wire::{PortLease, PortProtocol};

use super::table::{
    self, Batch, NFT_MSG_DELSETELEM, NFT_MSG_GETSET, NFT_MSG_NEWSETELEM, NLM_F_CREATE,
};
use super::{Attachment, Error};

/// The map's name.
const LEASED: &str = "leased";
/// The set that is there when the map holds what the record holds.
const COMPLETE: &str = "complete";

/// What is written into the map for one lease.
struct Element {
    lease: PortLease,
    to: Ipv4Addr,
}

impl Element {
    /// Protocol and port of the host, each filled up to 4 bytes, as the kernel concatenates them.
    fn key(&self) -> Vec<u8> {
        let protocol = match self.lease.protocol {
            PortProtocol::Tcp => libc::IPPROTO_TCP,
            PortProtocol::Udp => libc::IPPROTO_UDP,
        };
        let [high, low] = self.lease.host.to_be_bytes();
        // Both are below 256.
        vec![protocol.to_le_bytes()[0], 0, 0, 0, high, low, 0, 0]
    }

    /// Address and port of the container, filled up alike.
    fn target(&self) -> Vec<u8> {
        let [high, low] = self.lease.container.to_be_bytes();
        [&self.to.octets()[..], &[high, low, 0, 0]].concat()
    }

    fn text(&self) -> String {
        let PortLease { protocol, host, container } = self.lease;
        format!("{} . {host} : {} . {container}", protocol.as_str(), self.to)
    }
}

fn elements(places: &[Attachment]) -> Vec<Element> {
    let of = |at: &Attachment| {
        let to = at.address;
        at.ports.clone().into_iter().map(move |lease| Element { lease, to })
    };
    places.iter().flat_map(of).collect()
}

/// Has the host's ports lead to a container.
pub(super) fn add(instance: &str, addresses: &[Ipv4Addr], at: &Attachment) -> Result<(), Error> {
    if at.ports.is_empty() {
        return Ok(());
    }
    match insert(instance, &elements(std::slice::from_ref(at))) {
        Err(error) if error.is_absent() => {
            table::run_nft(&ruleset(instance, addresses, std::slice::from_ref(at), false))
        }
        done => done,
    }
}

/// Has them lead there no more; success when they do not.
pub(super) fn remove(instance: &str, at: &Attachment) -> Result<(), Error> {
    let name = table_name(instance);
    for element in elements(std::slice::from_ref(at)) {
        // One by one: a batch in which one is not there does nothing.
        let mut batch = Batch::new();
        batch.element(NFT_MSG_DELSETELEM, 0, &name, (LEASED, &element.key(), None));
        let action = format!("end the lease of port {}", element.lease.host);
        table::absent_is_done(batch.run(&action))?;
    }
    Ok(())
}

/// Makes the table as it should be with these places, whatever was there.
pub(super) fn replace(
    instance: &str,
    addresses: &[Ipv4Addr],
    places: &[Attachment],
) -> Result<(), Error> {
    if places.iter().all(|at| at.ports.is_empty()) {
        return delete(instance);
    }
    let name = table_name(instance);
    // The first two lines make what follows the whole truth, also when the table was there.
    let gone = format!("table inet {name}\ndelete table inet {name}\n");
    table::run_nft(&(gone + &ruleset(instance, addresses, places, true)))
}

/// Puts into the table what it lacks of these places, and takes nothing away: somebody may have come since
/// they were listed.
pub(super) fn complete(
    instance: &str,
    addresses: &[Ipv4Addr],
    places: &[Attachment],
) -> Result<(), Error> {
    let name = table_name(instance);
    if !table::exists(&name)? {
        return table::run_nft(&ruleset(instance, addresses, places, true));
    }
    insert(instance, &elements(places))?;
    table::run_nft(&format!("add set inet {name} {COMPLETE} {{ type inet_service; }}\n"))
}

/// Whether the table holds what the record holds.
pub(super) fn is_complete(instance: &str) -> Result<bool, Error> {
    let name = table_name(instance);
    table::find(NFT_MSG_GETSET, &[&name, COMPLETE], &format!("look for the leases of {instance}"))
}

/// Removes the table; success when it is gone.
pub(super) fn delete(instance: &str) -> Result<(), Error> {
    table::delete(&table_name(instance))
}

fn table_name(instance: &str) -> String {
    format!("{instance}_ports")
}

fn insert(instance: &str, elements: &[Element]) -> Result<(), Error> {
    if elements.is_empty() {
        return Ok(());
    }
    let name = table_name(instance);
    let mut batch = Batch::new();
    for element in elements {
        let value = (LEASED, &*element.key(), Some(&*element.target()));
        batch.element(NFT_MSG_NEWSETELEM, NLM_F_CREATE, &name, value);
    }
    batch.run(&format!("lease {} ports of the host", elements.len()))
}

/// The table as text for `nft -f -`.
fn ruleset(
    instance: &str,
    addresses: &[Ipv4Addr],
    places: &[Attachment],
    complete: bool,
) -> String {
    let name = table_name(instance);
    let rows = table::elements(elements(places).iter().map(Element::text).collect());
    let complete =
        if complete { format!("set {COMPLETE} {{ type inet_service; }}") } else { String::new() };
    let here = match addresses.contains(&Ipv4Addr::UNSPECIFIED) {
        true => "fib daddr type local".to_owned(),
        false => {
            let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("ip daddr {{ {} }}", listed.join(", "))
        }
    };
    format!(
        r#"table inet {name} {{
    {complete}
    map {LEASED} {{
        typeof meta l4proto . th dport : ip daddr . th dport
        {rows}
    }}
    chain arriving {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "{instance}-*" return
        {here} dnat ip to meta l4proto . th dport map @{LEASED}
    }}
    chain asked_here {{
        type nat hook output priority -100; policy accept;
        {here} dnat ip to meta l4proto . th dport map @{LEASED}
    }}
    chain from_loopback {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 127.0.0.0/8 oifname "{instance}-*" masquerade
    }}
}}
"#
    )
}
