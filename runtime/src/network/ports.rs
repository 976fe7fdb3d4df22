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

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_runtime::wire::{PortLease, PortProtocol};

use super::address::Pool6;
use super::table::{
    self, Batch, NFT_MSG_DELSETELEM, NFT_MSG_GETSET, NFT_MSG_NEWSETELEM, NLM_F_CREATE,
};
use super::{Attachment, Error};

/// The maps' names: one for each kind of address.
const LEASED: &str = "leased";
const LEASED6: &str = "leased6";
/// The set that is there when the maps hold what the record holds.
const COMPLETE: &str = "complete";

/// What is written into the map for one lease.
struct Element {
    lease: PortLease,
    to: IpAddr,
}

/// Where an instance's leases are to be found.
pub(super) struct Leases<'a> {
    pub(super) instance: &'a str,
    /// The host's addresses that they are on.
    pub(super) addresses: &'a [IpAddr],
    pub(super) pool6: Option<Pool6>,
}

impl Element {
    fn map(&self) -> &'static str {
        if self.to.is_ipv4() { LEASED } else { LEASED6 }
    }

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
        let port = [high, low, 0, 0];
        match self.to {
            IpAddr::V4(to) => [&to.octets()[..], &port].concat(),
            IpAddr::V6(to) => [&to.octets()[..], &port].concat(),
        }
    }

    fn text(&self) -> String {
        let PortLease { protocol, host, container } = self.lease;
        format!("{} . {host} : {} . {container}", protocol.as_str(), self.to)
    }
}

impl Leases<'_> {
    /// Has the host's ports lead to a container.
    pub(super) fn add(&self, at: &Attachment) -> Result<(), Error> {
        if at.ports.is_empty() {
            return Ok(());
        }
        let alone = std::slice::from_ref(at);
        match self.insert(alone) {
            Err(error) if error.is_absent() => table::run_nft(&self.ruleset(alone, false)),
            done => done,
        }
    }

    /// Has them lead there no more; success when they do not.
    pub(super) fn remove(&self, at: &Attachment) -> Result<(), Error> {
        let name = table_name(self.instance);
        for element in self.elements(std::slice::from_ref(at)) {
            // One by one: a batch in which one is not there does nothing.
            let mut batch = Batch::new();
            batch.element(NFT_MSG_DELSETELEM, 0, &name, (element.map(), &element.key(), None));
            let action = format!("end the lease of port {}", element.lease.host);
            table::absent_is_done(batch.run(&action))?;
        }
        Ok(())
    }

    /// Makes the table as it should be with these places, whatever was there.
    pub(super) fn replace(&self, places: &[Attachment]) -> Result<(), Error> {
        if places.iter().all(|at| at.ports.is_empty()) {
            return delete(self.instance);
        }
        let name = table_name(self.instance);
        // The first two lines make what follows the whole truth, also when the table was there.
        let gone = format!("table inet {name}\ndelete table inet {name}\n");
        table::run_nft(&(gone + &self.ruleset(places, true)))
    }

    /// Puts into the table what it lacks of these places, and takes nothing away: somebody may have come since
    /// they were listed.
    pub(super) fn complete(&self, places: &[Attachment]) -> Result<(), Error> {
        let name = table_name(self.instance);
        if !table::exists(&name)? {
            return table::run_nft(&self.ruleset(places, true));
        }
        self.insert(places)?;
        table::run_nft(&format!("add set inet {name} {COMPLETE} {{ type inet_service; }}\n"))
    }

    fn elements(&self, places: &[Attachment]) -> Vec<Element> {
        let mut elements = Vec::new();
        for at in places {
            let to6 = self.pool6.map(|pool| pool.of(at.address).into());
            for to in std::iter::once(at.address.into()).chain(to6) {
                elements.extend(at.ports.iter().map(|lease| Element { lease: *lease, to }));
            }
        }
        elements
    }

    fn insert(&self, places: &[Attachment]) -> Result<(), Error> {
        let elements = self.elements(places);
        if elements.is_empty() {
            return Ok(());
        }
        let name = table_name(self.instance);
        let mut batch = Batch::new();
        for element in &elements {
            let value = (element.map(), &*element.key(), Some(&*element.target()));
            batch.element(NFT_MSG_NEWSETELEM, NLM_F_CREATE, &name, value);
        }
        batch.run(&format!("lease {} ports of the host", elements.len()))
    }

    /// The table as text for `nft -f -`.
    fn ruleset(&self, places: &[Attachment], complete: bool) -> String {
        let Self { instance, .. } = self;
        let name = table_name(instance);
        let elements = self.elements(places);
        let rows = |map: &str| {
            let of_it = elements.iter().filter(|element| element.map() == map);
            table::elements(of_it.map(Element::text).collect())
        };
        let (rows, rows6) = (rows(LEASED), rows(LEASED6));
        let complete = match complete {
            true => format!("set {COMPLETE} {{ type inet_service; }}"),
            false => String::new(),
        };
        let to_them: Vec<String> = [
            self.here(Ipv4Addr::UNSPECIFIED.into())
                .map(|here| format!("{here} dnat ip to meta l4proto . th dport map @{LEASED}")),
            self.here(Ipv6Addr::UNSPECIFIED.into())
                .map(|here| format!("{here} dnat ip6 to meta l4proto . th dport map @{LEASED6}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        let to_them = to_them.join("\n        ");
        format!(
            r#"table inet {name} {{
    {complete}
    map {LEASED} {{
        typeof meta l4proto . th dport : ip daddr . th dport
        {rows}
    }}
    map {LEASED6} {{
        typeof meta l4proto . th dport : ip6 daddr . th dport
        {rows6}
    }}
    chain arriving {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "{instance}-*" return
        {to_them}
    }}
    chain asked_here {{
        type nat hook output priority -100; policy accept;
        {to_them}
    }}
    chain from_loopback {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 127.0.0.0/8 oifname "{instance}-*" masquerade
    }}
}}
"#
        )
    }

    /// What tells that a packet is for one of the host's addresses that leases are on, of the kind of `any`, which
    /// stands for all of them; none where they are on none.
    fn here(&self, any: IpAddr) -> Option<String> {
        let alike = |address: &&IpAddr| address.is_ipv4() == any.is_ipv4();
        let (family, protocol) = if any.is_ipv4() { ("ip", "ipv4") } else { ("ip6", "ipv6") };
        if self.addresses.contains(&any) {
            // The kernel passes nothing on that comes from ::1, so that nothing is to be led away from there.
            let but = if any.is_ipv6() { " ip6 daddr != ::1" } else { "" };
            return Some(format!("meta nfproto {protocol} fib daddr type local{but}"));
        }
        let listed: Vec<String> =
            self.addresses.iter().filter(alike).map(ToString::to_string).collect();
        let some = !listed.is_empty();
        some.then(|| format!("{family} daddr {{ {} }}", listed.join(", ")))
    }
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
