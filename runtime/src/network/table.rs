//! The instance's nftables table: who may send what where.
//!
//! One table, named after the instance, made by the `nft` program in one transaction; after that only
//! set elements change, by messages of our own, because starting `nft` costs more than starting a
//! container. Its elements follow from the links that the kernel has, so the whole table can be made
//! anew at any time without a moment in which it is not in force.
//!
//! - `members` and `members6` hold (bridge, hardware address, address) of every container: whatever else comes
//!   in from a bridge is dropped before anything looks at it: forged addresses, neighbour discovery, and IPv6
//!   where containers have none. The hardware address is bound to the container's port by the bridge itself (see `link`).
//! - Nothing that comes in from a bridge reaches the host itself, at any of its addresses, but answers to
//!   what the host has asked of a leased port (see `ports`).
//! - Nothing goes from one bridge to another, nor to where clouds keep what a machine may know: link-local
//!   networks, and `fd00:ec2::/32`.
//! - Towards containers only what answers them is let through, and what was sent to a port of the host that
//!   is leased to them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use super::netlink::Connection;
use super::{Error, address};

/// Where `nft` may be.
const NFT_PATHS: [&str; 3] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_GETTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 1;
const NFT_MSG_DELTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 2;
pub(super) const NFT_MSG_GETSET: u16 = NFNL_SUBSYS_NFTABLES << 8 | 10;
pub(super) const NFT_MSG_NEWSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 12;
pub(super) const NFT_MSG_DELSETELEM: u16 = NFNL_SUBSYS_NFTABLES << 8 | 14;
const NFPROTO_INET: u8 = 1;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_CREATE: u16 = 0x400;
/// Attributes that hold attributes are marked.
const NLA_F_NESTED: u16 = 0x8000;
const NAME_BYTES: usize = 16;

/// One container as the table knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The bridge's name.
    pub bridge: String,
    /// The container's address; its hardware address follows from it.
    pub address: Ipv4Addr,
    /// The one of IPv6, where containers have any.
    pub address6: Option<Ipv6Addr>,
}

impl Member {
    /// The sets that it is in, and its key there: each part filled up to 4 bytes, as the kernel concatenates them.
    fn keys(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut key = padded_name(&self.bridge);
        key.extend(address::hardware_address(self.address));
        key.extend([0, 0]);
        let key6 = self.address6.map(|address| [&key[..], &address.octets()].concat());
        key.extend(self.address.octets());
        let mut keys = vec![("members", key)];
        keys.extend(key6.map(|key| ("members6", key)));
        keys
    }
}

/// Makes the table as it should be with these members, in one transaction, whatever was there.
pub fn replace(instance: &str, members: &[Member]) -> Result<(), Error> {
    run_nft(&ruleset(instance, members))
}

/// Lets a container's packets in (or says again that they are). Without the table: an error for which
/// [`Error::is_absent`] is true.
pub fn add(instance: &str, member: &Member) -> Result<(), Error> {
    let pair = [padded_name(&member.bridge), padded_name(&member.bridge)].concat();
    let action = format!("add {} of {} to nft table {instance}", member.address, member.bridge);
    let mut batch = Batch::new();
    batch.element(NFT_MSG_NEWSETELEM, NLM_F_CREATE, instance, ("bridges", &pair, None));
    for (set, key) in member.keys() {
        batch.element(NFT_MSG_NEWSETELEM, NLM_F_CREATE, instance, (set, &key, None));
    }
    batch.run(&action)
}

/// Lets a container's packets in no more; success when they are not.
pub fn remove(instance: &str, member: &Member) -> Result<(), Error> {
    let action = format!("remove {} from nft table {instance}", member.address);
    for (set, key) in member.keys() {
        // One by one: a batch in which one is not there does nothing.
        let mut batch = Batch::new();
        batch.element(NFT_MSG_DELSETELEM, 0, instance, (set, &key, None));
        absent_is_done(batch.run(&action))?;
    }
    Ok(())
}

/// Forgets a bridge; success when it is not known.
pub fn remove_bridge(instance: &str, bridge: &str) -> Result<(), Error> {
    let pair = [padded_name(bridge), padded_name(bridge)].concat();
    let mut batch = Batch::new();
    batch.element(NFT_MSG_DELSETELEM, 0, instance, ("bridges", &pair, None));
    absent_is_done(batch.run(&format!("remove {bridge} from nft table {instance}")))
}

/// Removes the table; success when it is gone.
pub fn delete(instance: &str) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.message(NFT_MSG_DELTABLE, NLM_F_ACK, &attribute(1, &text(instance)));
    absent_is_done(batch.run(&format!("delete nft table {instance}")))
}

/// Whether the kernel has the table.
pub fn exists(instance: &str) -> Result<bool, Error> {
    find(NFT_MSG_GETTABLE, &[instance], &format!("look for nft table {instance}"))
}

/// Whether the kernel has an object: its table's name, then its own.
pub(super) fn find(kind: u16, names: &[&str], action: &str) -> Result<bool, Error> {
    let mut bytes = Vec::new();
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let attributes: Vec<u8> =
        (1..).zip(names).flat_map(|(number, name)| attribute(number, &text(name))).collect();
    push_message(&mut bytes, (kind, flags, 1), 0, &attributes);
    match Connection::netfilter()?.request_raw(&bytes, 1, action) {
        Ok(()) => Ok(true),
        Err(error) if error.is_absent() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The table as text for `nft -f -`.
fn ruleset(instance: &str, members: &[Member]) -> String {
    let mut bridges: Vec<&str> = members.iter().map(|member| member.bridge.as_str()).collect();
    bridges.sort_unstable();
    bridges.dedup();
    let pairs = bridges.iter().map(|bridge| format!("\"{bridge}\" . \"{bridge}\""));
    let row = |member: &Member, address: IpAddr| {
        let mut hardware = String::new();
        for byte in address::hardware_address(member.address) {
            let separator = if hardware.is_empty() { "" } else { ":" };
            // Writing to a string cannot fail.
            write!(hardware, "{separator}{byte:02x}").expect("a string takes everything");
        }
        format!("\"{}\" . {hardware} . {address}", member.bridge)
    };
    let rows = members.iter().map(|member| row(member, member.address.into()));
    let rows6 = members.iter().filter_map(|member| Some(row(member, member.address6?.into())));
    let pairs = elements(pairs.collect());
    let rows = elements(rows.collect());
    let rows6 = elements(rows6.collect());
    // The first two lines make what follows the whole truth, also when the table was there.
    format!(
        r#"table inet {instance}
delete table inet {instance}
table inet {instance} {{
    set bridges {{
        typeof iifname . oifname
        {pairs}
    }}
    set members {{
        typeof iifname . ether saddr . ip saddr
        {rows}
    }}
    set members6 {{
        typeof iifname . ether saddr . ip6 saddr
        {rows6}
    }}
    chain genuine {{
        type filter hook prerouting priority -310; policy accept;
        iifname != "{instance}-*" accept
        iifname . ether saddr . ip saddr @members accept
        iifname . ether saddr . ip6 saddr @members6 accept
        counter drop
    }}
    chain host {{
        type filter hook input priority -10; policy accept;
        iifname "{instance}-*" ct status dnat ct direction reply accept
        iifname "{instance}-*" counter drop
    }}
    chain between {{
        type filter hook forward priority -10; policy accept;
        iifname . oifname @bridges accept
        iifname "{instance}-*" oifname "{instance}-*" counter drop
        iifname "{instance}-*" ip daddr 169.254.0.0/16 counter drop
        iifname "{instance}-*" ip6 daddr {{ fe80::/10, fd00:ec2::/32 }} counter drop
        oifname "{instance}-*" ct state established,related accept
        oifname "{instance}-*" ct status dnat accept
        oifname "{instance}-*" counter drop
    }}
    chain egress {{
        type nat hook postrouting priority srcnat; policy accept;
        iifname "{instance}-*" oifname != "{instance}-*" masquerade
    }}
}}
"#
    )
}

pub(super) fn elements(rows: Vec<String>) -> String {
    if rows.is_empty() { String::new() } else { format!("elements = {{ {} }}", rows.join(", ")) }
}

/// The `nft` program, wherever this process's environment would look for it.
pub fn program() -> Option<&'static str> {
    NFT_PATHS.into_iter().find(|path| Path::new(path).exists())
}

pub(super) fn run_nft(script: &str) -> Result<(), Error> {
    let program = NFT_PATHS.iter().find(|path| Path::new(path).exists());
    let program =
        program.ok_or_else(|| Error::Nft("the nft program is not installed".to_owned()))?;
    let failed = |source| Error::Kernel { action: format!("run {program}"), source };
    let mut child = Command::new(program)
        .args(["-f", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take().expect("stdin is a pipe, as asked for above");
    // A child that fails early closes the pipe; its own words on standard error say more then.
    let written = stdin.write_all(script.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Nft(words.chars().take(2000).collect()));
    }
    written.map_err(failed)
}

/// A transaction of nfnetlink: all of it is done or nothing.
pub(super) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::new();
        push_message(
            &mut bytes,
            (NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 0),
            NFNL_SUBSYS_NFTABLES,
            &[],
        );
        Self { bytes, sequence: 0 }
    }

    fn message(&mut self, kind: u16, flags: u16, attributes: &[u8]) {
        self.sequence += 1;
        push_message(&mut self.bytes, (kind, NLM_F_REQUEST | flags, self.sequence), 0, attributes);
    }

    /// Adds or removes the element `key` of `set`; of a map with what it leads to.
    pub(super) fn element(
        &mut self,
        kind: u16,
        flags: u16,
        table: &str,
        (set, key, data): (&str, &[u8], Option<&[u8]>),
    ) {
        let mut value = attribute(NLA_F_NESTED | 1, &attribute(1, key));
        if let Some(data) = data {
            value.extend(attribute(NLA_F_NESTED | 2, &attribute(1, data)));
        }
        let list = attribute(NLA_F_NESTED | 1, &value);
        let attributes = [
            attribute(1, &text(table)),
            attribute(2, &text(set)),
            attribute(NLA_F_NESTED | 3, &list),
        ];
        self.message(kind, NLM_F_ACK | flags, &attributes.concat());
    }

    /// Sends it and waits for the word on its last message.
    pub(super) fn run(mut self, action: &str) -> Result<(), Error> {
        let end = (NFNL_MSG_BATCH_END, NLM_F_REQUEST, self.sequence + 1);
        push_message(&mut self.bytes, end, NFNL_SUBSYS_NFTABLES, &[]);
        Connection::netfilter()?.request_raw(&self.bytes, self.sequence, action)
    }
}

/// A netlink header (type, flags, sequence), nfnetlink's own header, and attributes.
fn push_message(bytes: &mut Vec<u8>, header: (u16, u16, u32), resource: u16, attributes: &[u8]) {
    let (kind, flags, sequence) = header;
    let length = u32::try_from(20 + attributes.len()).expect("a message is a few hundred bytes");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([if resource == 0 { NFPROTO_INET } else { 0 }, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attributes);
}

/// An attribute: length, type, value, filled up to 4 bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("an attribute is a few hundred bytes");
    let mut bytes = Vec::with_capacity(value.len() + 8);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn padded_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(NAME_BYTES, 0);
    bytes
}

pub(super) fn absent_is_done(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}
