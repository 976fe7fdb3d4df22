//! IPv6, where the operator has given containers a network of it: the same reach and the same guards as by IPv4.

use std::net::{Ipv4Addr, Ipv6Addr};

use berth_runtime::wire::{PortLease, PortProtocol};
use system_tests::requires_root;
use system_tests::supervised::{Start, wait_for};

use crate::host::{Container, Host, INTERNET6, METADATA6, UPLINK, UPLINK6};
use crate::{PORT, networked};

const LEASED: u16 = 20_080;
const BOTH: &str =
    "network_pool6 = \"fd5e:1c2a:9b44::/96\"\nport_addresses = [\"0.0.0.0\", \"::\"]";

fn published(person: u32) -> Start {
    let lease = PortLease { protocol: PortProtocol::Tcp, host: LEASED, container: PORT };
    Start { ports: vec![lease], ..networked(person) }
}

fn own(container: &Container) -> Ipv6Addr {
    container.address6.expect("an IPv6 address")
}

/// The host's address on a container's bridge, which is the first of its network.
fn gateway_of(host: &Host, container: &Container) -> Ipv6Addr {
    let low = u128::from(u32::from(host.gateway_of(container)));
    let pool = u128::from(own(container)) & !u128::from(u32::MAX);
    Ipv6Addr::from(pool | low)
}

#[test]
fn each_container_has_the_address_that_follows_from_its_other_one() {
    requires_root!();
    Host::with(BOTH, |host| {
        let container = host.container(networked(1000));
        let [a, b, c, d] = container.address.octets();
        let low = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
        let expected = Ipv6Addr::new(0xfd5e, 0x1c2a, 0x9b44, 0, 0, 0, low[0], low[1]);
        assert_eq!(own(&container), expected);
        // Loopback's and this one; nothing that comes by itself.
        let addresses = container.ipv6_addresses();
        assert_eq!(addresses.lines().count(), 2, "{addresses}");
        let server = host.listen_on_the_internet(PORT);
        assert!(container.connects(INTERNET6, PORT));
        assert_eq!(server.last_peer(), Some(UPLINK6.into()), "the address is translated");
        // One person's containers see each other; what runs ends without a trace.
        let second = host.container(networked(1000));
        let _seconds = second.listen(PORT);
        assert!(container.connects(own(&second), PORT));
        host.supervised.remove(&container.id);
        host.supervised.remove(&second.id);
        wait_for("nothing to be left", || host.leftovers().is_empty().then_some(()));
    });
}

#[test]
fn a_leased_port_leads_to_its_container_by_ipv6_too() {
    requires_root!();
    Host::with(BOTH, |host| {
        assert!(!host.internet_connects(UPLINK6, LEASED), "the control: nothing is there");
        let container = host.container(published(1000));
        let server = container.listen(PORT);
        assert!(host.internet_connects(UPLINK6, LEASED));
        assert_eq!(server.last_peer(), Some(INTERNET6.into()), "the source is kept");
        assert!(host.connects(UPLINK6, LEASED), "from the host itself");
        assert!(host.internet_connects(UPLINK, LEASED), "by IPv4 as ever");
        assert!(host.connects(Ipv4Addr::LOCALHOST, LEASED));
        assert!(!host.internet_connects(UPLINK6, PORT), "nothing else of it is open");
        assert!(!host.internet_connects(own(&container), PORT), "past the host");
        host.supervised.restart();
        assert!(host.internet_connects(UPLINK6, LEASED), "after a kill");
        host.flush_all_rules();
        let back = || host.internet_connects(UPLINK6, LEASED).then_some(());
        wait_for("the lease's return", back);
        host.forbid_forwarding(true);
        assert!(!host.internet_connects(UPLINK6, LEASED), "the host's own firewall holds");
        host.forbid_forwarding(false);
        host.supervised.remove(&container.id);
        assert!(!host.internet_connects(UPLINK6, LEASED));
    });
}

#[test]
fn neither_host_nor_others_nor_a_clouds_secrets_are_reached_by_ipv6() {
    requires_root!();
    Host::with(BOTH, |host| {
        let mine = host.container(networked(1000));
        let other = host.container(networked(1001));
        let _api = host.listen_on_the_host(PORT);
        let _others = other.listen(PORT);
        let _secrets = host.listen_on_the_internet(PORT);
        let (gateway, others_gateway) = (gateway_of(host, &mine), gateway_of(host, &other));
        let closed = [gateway, others_gateway, UPLINK6, own(&other), METADATA6];
        for address in closed {
            assert!(!mine.connects(address, PORT), "{address}");
        }
        host.without_table(|| {
            for address in closed {
                assert!(mine.connects(address, PORT), "the control: {address}");
            }
        });
        assert!(mine.connects(INTERNET6, PORT), "what is open stays open");
    });
}

#[test]
fn a_forged_ipv6_address_goes_nowhere() {
    requires_root!();
    Host::with(BOTH, |host| {
        let mine = host.container(networked(1000));
        let other = host.container(networked(1000));
        let internet = host.receive_on_the_internet6(PORT);
        let link_local = "fe80::1".parse().expect("an address");
        for forged in [own(&other), INTERNET6, UPLINK6, link_local] {
            mine.send_udp6((mine.hardware, forged), INTERNET6, PORT, "forged");
        }
        mine.send_udp6((other.hardware, own(&other)), INTERNET6, PORT, "forged");
        // What is sent later over the same way tells that the earlier is lost.
        mine.send_udp6((mine.hardware, own(&mine)), INTERNET6, PORT, "end");
        assert_eq!(internet.until("end"), ["end"]);
        host.without_table(|| {
            mine.send_udp6((mine.hardware, own(&other)), INTERNET6, PORT, "control");
            internet.until("control");
        });
    });
}
