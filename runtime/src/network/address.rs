//! Arithmetic of IP networks: pools, subnets, addresses, and the names and hardware addresses that
//! follow from them. Pure; who holds which subnet and address is the supervisor's record.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::Error;

/// A network: an address with all host bits clear, and a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    network: u32,
    prefix: u8,
}

impl Subnet {
    /// The network of `prefix` bits (0 to 32) that `address` lies in.
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Self {
        let prefix = prefix.min(32);
        Self { network: u32::from(address) & mask(prefix), prefix }
    }

    /// The network address.
    pub fn network(self) -> Ipv4Addr {
        self.network.into()
    }

    /// The prefix length.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The host's own address in it: the first one.
    pub fn gateway(self) -> Ipv4Addr {
        (self.network + 1).into()
    }

    /// The last address, for everybody.
    pub fn broadcast(self) -> Ipv4Addr {
        (self.network | !mask(self.prefix)).into()
    }

    /// Whether `address` lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.network
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let shorter = mask(self.prefix.min(other.prefix));
        self.network & shorter == other.network & shorter
    }

    /// The addresses that containers may have: all but network, gateway and broadcast.
    pub fn container_addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let last = u32::from(self.broadcast());
        (self.network.saturating_add(2)..last).map(Ipv4Addr::from)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Pool(format!("{text:?} is not a network such as 10.201.0.0/16"));
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let (address, prefix): (Ipv4Addr, u8) =
            (address.parse().map_err(|_| bad())?, prefix.parse().map_err(|_| bad())?);
        let subnet = Self::containing(address, prefix);
        if prefix > 32 || subnet.network() != address {
            return Err(bad());
        }
        Ok(subnet)
    }
}

/// The network that people's subnets are cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    whole: Subnet,
    subnet_prefix: u8,
}

impl Pool {
    /// A pool from its configuration: `network_pool` and `network_prefix`.
    pub fn new(whole: &str, subnet_prefix: u8) -> Result<Self, Error> {
        let whole: Subnet = whole.parse()?;
        if !(22..=29).contains(&subnet_prefix) {
            let text = format!("network_prefix is {subnet_prefix}, not 22 to 29");
            return Err(Error::Pool(text));
        }
        // At least a /8: names of interfaces are made from the lower 24 bits of addresses.
        if whole.prefix() < 8 || whole.prefix() > subnet_prefix {
            let text = format!("network_pool {whole} has no prefix from 8 to {subnet_prefix}");
            return Err(Error::Pool(text));
        }
        if !whole.network().is_private() {
            let text = format!("network_pool {whole} is not a private network (RFC 1918)");
            return Err(Error::Pool(text));
        }
        Ok(Self { whole, subnet_prefix })
    }

    /// All of it.
    pub fn whole(self) -> Subnet {
        self.whole
    }

    /// Its subnets, lowest first.
    pub fn subnets(self) -> impl Iterator<Item = Subnet> {
        let count = 1_u32 << (self.subnet_prefix - self.whole.prefix());
        let bytes = 32 - self.subnet_prefix;
        (0..count).map(move |index| Subnet {
            network: self.whole.network | index << bytes,
            prefix: self.subnet_prefix,
        })
    }

    /// The first subnet that nobody holds and that no route of the host leads to.
    pub fn choose(self, held: &[Subnet], host_routes: &[Subnet]) -> Result<Subnet, Error> {
        let free = |subnet: &Subnet| {
            let taken = |other: &Subnet| other.prefix() > 0 && other.overlaps(*subnet);
            !held.iter().any(taken) && !host_routes.iter().any(taken)
        };
        let exhausted = || Error::Exhausted(format!("every subnet of {} is in use", self.whole));
        self.subnets().find(free).ok_or_else(exhausted)
    }
}

/// The IPv6 network in which every container has, beside its IPv4 address, that address once more: its lower 32
/// bits. So who has which IPv6 address needs no record, and what is bound to the one is bound to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool6 {
    network: u128,
}

impl Pool6 {
    /// Bits of it; the others are the IPv4 address.
    const PREFIX: u8 = 96;

    /// A pool from its configuration, `network_pool6`.
    pub fn new(text: &str) -> Result<Self, Error> {
        let bad = || {
            let text = format!(
                "network_pool6 {text:?} is no unique local network of 96 bits (RFC 4193) such as \
                 fd5e:1c2a:9b44::/96"
            );
            Error::Pool(text)
        };
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv6Addr = address.parse().map_err(|_| bad())?;
        let network = u128::from(address);
        let is_local = address.octets()[0] == 0xfd;
        if prefix != "96" || network & u128::from(u32::MAX) != 0 || !is_local {
            return Err(bad());
        }
        Ok(Self { network })
    }

    /// The IPv6 address that goes with an IPv4 one.
    pub fn of(self, address: Ipv4Addr) -> Ipv6Addr {
        (self.network | u128::from(u32::from(address))).into()
    }

    /// The prefix length of the IPv6 subnet that goes with an IPv4 one.
    pub fn prefix(self, subnet: Subnet) -> u8 {
        Self::PREFIX + subnet.prefix()
    }
}

/// The first free address of a subnet after `last`, going round: a container's successor does not get
/// the address at once that somebody may still be talking to.
pub fn choose_address(
    subnet: Subnet,
    held: &[Ipv4Addr],
    last: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, Error> {
    let free = |address: &Ipv4Addr| !held.contains(address);
    let after = |address: &Ipv4Addr| last.is_some_and(|last| *address > last);
    let mut later = subnet.container_addresses().filter(after).filter(free);
    let exhausted = || Error::Exhausted(format!("every address of {subnet} is in use"));
    let first = || subnet.container_addresses().find(free);
    later.next().or_else(first).ok_or_else(exhausted)
}

/// The hardware address that goes with an address: locally administered, unicast, and as unique.
pub fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0xbe, a, b, c, d]
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().expect("a good network")
    }

    #[test]
    fn networks_are_parsed_strictly() {
        assert_eq!(subnet("0.0.0.0/0").broadcast(), Ipv4Addr::BROADCAST);
        assert_eq!(subnet("10.1.2.64/26").gateway(), Ipv4Addr::new(10, 1, 2, 65));
        assert_eq!(subnet("10.1.2.64/26").broadcast(), Ipv4Addr::new(10, 1, 2, 127));
        assert_eq!(subnet("10.1.2.64/26").container_addresses().count(), 61);
        for bad in ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/33", "10.0.0/8", "::/8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_subnet_avoids_what_is_held_and_where_the_host_goes() {
        let pool = Pool::new("10.201.0.0/16", 26).expect("a good pool");
        assert_eq!(pool.subnets().count(), 1024);
        let held = [subnet("10.201.0.0/26")];
        let routes = [subnet("0.0.0.0/0"), subnet("10.201.0.64/27"), subnet("10.201.0.128/25")];
        let chosen = pool.choose(&held, &routes).expect("there is room");
        assert_eq!(chosen, subnet("10.201.1.0/26"));
        assert!(pool.choose(&held, &[subnet("10.200.0.0/14")]).is_err());
        for (whole, prefix) in [("10.0.0.0/7", 26), ("8.8.0.0/16", 26), ("10.0.0.0/27", 26)] {
            assert!(Pool::new(whole, prefix).is_err(), "{whole}");
        }
    }

    #[test]
    fn each_address_has_one_of_ipv6() {
        let pool = Pool6::new("fd5e:1c2a:9b44::/96").expect("a good pool");
        let address = pool.of(Ipv4Addr::new(10, 201, 0, 66));
        assert_eq!(address.to_string(), "fd5e:1c2a:9b44::ac9:42");
        assert_eq!(pool.prefix(subnet("10.201.0.64/26")), 122);
        for bad in ["fd00::/64", "2001:db8::/96", "fc00::/96", "fd00::1/96", "fd00::", "10.0.0.0/8"]
        {
            assert!(Pool6::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_go_round() {
        let net = subnet("10.201.0.0/29");
        let address = |last| Ipv4Addr::new(10, 201, 0, last);
        let choose = |held: &[Ipv4Addr], last| choose_address(net, held, last).ok();
        assert_eq!(choose(&[], None), Some(address(2)));
        assert_eq!(choose(&[address(3)], Some(address(2))), Some(address(4)));
        assert_eq!(choose(&[address(2)], Some(address(6))), Some(address(3)));
        let all: Vec<_> = net.container_addresses().collect();
        assert_eq!((all.len(), choose(&all, None)), (5, None));
    }
}
