//! What a container can reach, and what not (SECURITY-BAR, R20). Each test has a host of its own: a
//! network namespace in which the supervisor runs, with "the internet", another namespace, behind an
//! uplink. Attacks start in the container's own network namespace, by means that a container's seccomp
//! filter and capabilities would not even allow. Each is shown to work where its guard is taken away.

mod host;
mod ipv6;
mod ports;
mod rates;

use std::net::Ipv4Addr;

use berth_runtime::wire::NetworkMode;
use host::{Host, INTERNET, METADATA, UPLINK};
use system_tests::requires_root;
use system_tests::supervised::{Start, wait_for};

/// A port on which something listens wherever a test says so.
const PORT: u16 = 7777;

fn networked(person: u32) -> Start {
    Start { network: NetworkMode::Private, ..Start::script(person, "sleep 1000") }
}

#[test]
fn egress_goes_out_under_the_hosts_address() {
    requires_root!();
    Host::run(|host| {
        let container = host.container(networked(1000));
        let server = host.listen_on_the_internet(PORT);
        assert!(container.connects(INTERNET, PORT));
        assert_eq!(server.last_peer(), Some(UPLINK.into()), "the address is translated");
        // The control: without the table there is no translation. The internet has a route back in
        // these tests, so that a lack of answers is never what makes an attack fail.
        host.without_table(|| assert!(container.connects(INTERNET, PORT)));
        assert_eq!(server.last_peer(), Some(container.address.into()));
    });
}

#[test]
fn no_address_of_the_host_can_be_reached() {
    requires_root!();
    Host::run(|host| {
        let container = host.container(networked(1000));
        let other = host.container(networked(1001));
        let _api = host.listen_on_the_host(PORT);
        let own_gateway = host.gateway_of(&container);
        let others_gateway = host.gateway_of(&other);
        for address in [own_gateway, others_gateway, UPLINK] {
            assert!(!container.connects(address, PORT), "{address} answers");
        }
        host.without_table(|| {
            for address in [own_gateway, others_gateway, UPLINK] {
                assert!(container.connects(address, PORT), "the control: {address}");
            }
        });
        assert!(!container.connects(own_gateway, PORT), "the guard is back");
    });
}

#[test]
fn cloud_metadata_cannot_be_reached() {
    requires_root!();
    Host::run(|host| {
        let container = host.container(networked(1000));
        let _server = host.listen_on_the_internet(PORT);
        assert!(!container.connects(METADATA, PORT));
        host.without_table(|| assert!(container.connects(METADATA, PORT), "the control"));
    });
}

#[test]
fn other_peoples_containers_cannot_be_reached_but_ones_own_can() {
    requires_root!();
    Host::run(|host| {
        let container = host.container(networked(1000));
        let sibling = host.container(networked(1000));
        let other = host.container(networked(1001));
        let (_one, _two) = (sibling.listen(PORT), other.listen(PORT));
        assert!(container.connects(sibling.address, PORT), "one's own");
        assert!(!container.connects(other.address, PORT), "another's");
        assert!(!host.internet_connects(other.address, PORT), "from outside");
        host.without_table(|| {
            assert!(container.connects(other.address, PORT), "the control: another's");
            assert!(host.internet_connects(other.address, PORT), "the control: from outside");
        });
    });
}

#[test]
fn forged_addresses_are_dropped() {
    requires_root!();
    Host::run(|host| {
        let container = host.container(networked(1000));
        let sibling = host.container(networked(1000));
        let receiver = host.receive_on_the_internet(PORT);
        let honest = container.hardware;
        let send = |hardware, address, text: &str| {
            container.send_udp((hardware, address), INTERNET, PORT, text);
            // A frame sent later over the same way tells that the earlier one is lost.
            sibling.send_udp((sibling.hardware, sibling.address), INTERNET, PORT, "end");
            receiver.until("end")
        };
        let said =
            |texts: &[&str]| -> Vec<String> { texts.iter().map(|s| (*s).to_owned()).collect() };
        assert_eq!(send(honest, container.address, "honest"), said(&["honest", "end"]));

        // Another's address, with one's own hardware address: the set's guard.
        assert_eq!(send(honest, sibling.address, "forged address"), said(&["end"]));
        host.without_table(|| {
            let texts = send(honest, sibling.address, "forged address");
            assert_eq!(texts, said(&["forged address", "end"]), "the control");
        });

        // Another hardware address: the port's guard, and the set's. Either is enough.
        let forged = [0x02, 0xbe, 9, 9, 9, 9];
        assert_eq!(send(forged, container.address, "forged hardware"), said(&["end"]));
        host.without_table(|| {
            let texts = send(forged, container.address, "forged hardware");
            assert_eq!(texts, said(&["end"]), "the port alone");
        });
        host.unlock_port(&container);
        let texts = send(forged, container.address, "forged hardware");
        assert_eq!(texts, said(&["end"]), "the set alone");
        host.without_table(|| {
            let texts = send(forged, container.address, "forged hardware");
            assert_eq!(texts, said(&["forged hardware", "end"]), "the control");
        });
    });
}

#[test]
fn there_is_no_ipv6() {
    requires_root!();
    Host::run(|host| {
        let container = host.container(networked(1000));
        assert_eq!(container.ipv6_addresses(), "");
        assert_eq!(host.ipv6_addresses_but_uplinks(), "");
        // The control: it is off, not absent from the kernel.
        container.enable_ipv6();
        wait_for("an IPv6 address", || (!container.ipv6_addresses().is_empty()).then_some(()));
    });
}

#[test]
fn a_container_without_network_has_none() {
    requires_root!();
    Host::run(|host| {
        let _server = host.listen_on_the_internet(PORT);
        let alone = host.container(Start::script(1000, "sleep 1000"));
        let _own = alone.listen(PORT);
        assert!(alone.connects(Ipv4Addr::LOCALHOST, PORT), "loopback is up");
        assert!(!alone.connects(INTERNET, PORT));
        assert_eq!(host.leftovers(), "", "no bridge, no table");
        let container = host.container(networked(1000));
        assert!(container.connects(INTERNET, PORT), "the control");
    });
}

#[test]
fn a_table_that_somebody_takes_away_comes_back() {
    requires_root!();
    Host::run(|host| {
        let container = host.container(networked(1000));
        let _api = host.listen_on_the_host(PORT);
        let gateway = host.gateway_of(&container);
        host.flush_all_rules();
        wait_for("the table's return", || host.leftovers().contains("table inet").then_some(()));
        assert!(container.is_guarded(host));
        assert!(!container.connects(gateway, PORT));
    });
}

#[test]
fn everything_is_gone_with_the_last_container() {
    requires_root!();
    Host::run(|host| {
        let one = host.container(networked(1000));
        let two = host.container(networked(1001));
        assert_ne!(host.leftovers(), "", "bridges and a table are there");
        host.supervised.remove(&one.id);
        assert!(two.is_guarded(host), "the other's stay");
        host.supervised.remove(&two.id);
        wait_for("nothing to be left", || host.leftovers().is_empty().then_some(()));
    });
}
