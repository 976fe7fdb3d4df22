//! The host's ports that lead to containers: who reaches them and who does not, that the container sees who
//! asks, and that leases come and go with what they belong to.

use std::net::Ipv4Addr;

use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::{NetworkMode, PortLease, PortProtocol};
use system_tests::requires_root;
use system_tests::supervised::{Start, wait_for};

use crate::host::{Host, INTERNET, UPLINK};
use crate::{PORT, networked};

/// A port of the range that is leased.
const LEASED: u16 = 20_080;
const EVERYWHERE: &str = "port_addresses = [\"0.0.0.0\"]";

fn lease(protocol: PortProtocol, host: u16, container: u16) -> PortLease {
    PortLease { protocol, host, container }
}

fn published(person: u32, ports: &[PortLease]) -> Start {
    Start { ports: ports.to_vec(), ..networked(person) }
}

const fn tcp() -> PortLease {
    PortLease { protocol: PortProtocol::Tcp, host: LEASED, container: PORT }
}

#[test]
fn a_leased_port_leads_to_its_container_which_sees_who_asks() {
    requires_root!();
    Host::with(EVERYWHERE, |host| {
        let plain = host.container(networked(1000));
        assert!(!host.internet_connects(UPLINK, LEASED), "the control: nothing is there");
        let container = host.container(published(1000, &[tcp()]));
        let server = container.listen(PORT);
        assert!(host.internet_connects(UPLINK, LEASED));
        assert_eq!(server.last_peer(), Some(INTERNET.into()), "the source is kept");
        // From the host itself: by its own address, and by loopback.
        for address in [UPLINK, Ipv4Addr::LOCALHOST] {
            assert!(host.connects(address, LEASED), "{address}");
        }
        // Nothing else of it is open, and nobody else's port is.
        assert!(!host.internet_connects(UPLINK, PORT));
        assert!(!host.internet_connects(container.address, PORT), "past the host");
        let _other = plain.listen(PORT);
        assert!(!host.internet_connects(plain.address, PORT));
        // It ends with the container, and the other's place is untouched.
        host.supervised.remove(&container.id);
        assert!(!host.internet_connects(UPLINK, LEASED));
        assert!(plain.is_guarded(host));
        host.supervised.remove(&plain.id);
        wait_for("nothing to be left", || host.leftovers().is_empty().then_some(()));
    });
}

#[test]
fn datagrams_find_their_way_and_the_answers_theirs() {
    requires_root!();
    Host::with(EVERYWHERE, |host| {
        let udp = lease(PortProtocol::Udp, LEASED, PORT);
        let container = host.container(published(1000, &[udp]));
        let receiver = container.receive(PORT);
        host.internet_sends(UPLINK, LEASED, "asked");
        assert_eq!(receiver.first(), ("asked".to_owned(), INTERNET.into()));
        let _server = container.listen(PORT);
        assert!(!host.internet_connects(UPLINK, LEASED), "of the other protocol there is no lease");
    });
}

#[test]
fn ports_are_on_loopback_alone_unless_the_operator_says_more() {
    requires_root!();
    Host::run(|host| {
        let container = host.container(published(1000, &[tcp()]));
        let _server = container.listen(PORT);
        assert!(host.connects(Ipv4Addr::LOCALHOST, LEASED));
        assert!(!host.internet_connects(UPLINK, LEASED));
    });
}

#[test]
fn no_container_gets_to_another_or_to_the_host_by_a_leased_port() {
    requires_root!();
    Host::with(EVERYWHERE, |host| {
        let mine = host.container(published(1000, &[tcp()]));
        let other = host.container(networked(1001));
        let _server = mine.listen(PORT);
        let gateway = host.gateway_of(&other);
        for address in [UPLINK, gateway, mine.address] {
            assert!(!other.connects(address, LEASED), "{address}");
            assert!(!other.connects(address, PORT), "{address}");
        }
        assert!(host.internet_connects(UPLINK, LEASED), "the control: it is open to others");
        // The bridge takes packets for loopback now; what comes from a container is dropped all the same.
        let receiver = host.receive_on_loopback(PORT);
        let internet = host.receive_on_the_internet(PORT);
        let forged = |text: &str| {
            mine.send_udp((mine.hardware, mine.address), Ipv4Addr::LOCALHOST, PORT, text);
            // What is sent later over the same way tells that the earlier is lost.
            mine.send_udp((mine.hardware, mine.address), INTERNET, PORT, "end");
            internet.until("end");
        };
        forged("to loopback");
        assert!(!receiver.has_some(), "a container has reached the host's loopback");
        host.without_table(|| {
            mine.send_udp((mine.hardware, mine.address), Ipv4Addr::LOCALHOST, PORT, "control");
            assert_eq!(receiver.first().0, "control");
        });
    });
}

#[test]
fn the_hosts_own_firewall_holds_for_leased_ports() {
    requires_root!();
    Host::with(EVERYWHERE, |host| {
        let container = host.container(published(1000, &[tcp()]));
        let _server = container.listen(PORT);
        assert!(host.internet_connects(UPLINK, LEASED), "the control");
        host.forbid_forwarding(true);
        assert!(!host.internet_connects(UPLINK, LEASED));
        host.forbid_forwarding(false);
        assert!(host.internet_connects(UPLINK, LEASED));
    });
}

#[test]
fn leases_outlive_the_supervisor_and_come_back_after_a_flush() {
    requires_root!();
    Host::with(EVERYWHERE, |host| {
        let container = host.container(published(1000, &[tcp()]));
        let _server = container.listen(PORT);
        host.supervised.restart();
        assert!(host.internet_connects(UPLINK, LEASED), "after a kill");
        host.flush_all_rules();
        // Somebody comes before the supervisor has looked: what they make is not the whole.
        let second = lease(PortProtocol::Tcp, LEASED + 1, PORT);
        let other = host.container(published(1001, &[second]));
        let _others = other.listen(PORT);
        for port in [LEASED, LEASED + 1] {
            wait_for("the lease's return", || host.internet_connects(UPLINK, port).then_some(()));
        }
        host.supervised.remove(&container.id);
        host.supervised.restart();
        assert!(!host.internet_connects(UPLINK, LEASED));
        assert!(host.internet_connects(UPLINK, LEASED + 1));
    });
}

#[test]
fn what_cannot_be_leased_is_refused() {
    requires_root!();
    Host::with(EVERYWHERE, |host| {
        let _held = host.container(published(1000, &[tcp()]));
        let refused = |start: Start, class: FailureClass, word: &str| {
            let Err(Failure { class: was, message, .. }) = host.supervised.try_start(start) else {
                panic!("{word}: it was taken");
            };
            assert_eq!(was, class, "{message}");
            assert!(message.contains(word), "{message}");
        };
        let of = |host, container| published(1001, &[lease(PortProtocol::Tcp, host, container)]);
        refused(of(LEASED, 80), FailureClass::Conflict, "leads to another container");
        refused(of(22, 22), FailureClass::Invalid, "20000 to 20999");
        refused(of(21_000, 80), FailureClass::Invalid, "20000 to 20999");
        refused(of(LEASED + 1, 0), FailureClass::Invalid, "0 is no port");
        let twice =
            [lease(PortProtocol::Tcp, LEASED + 1, 80), lease(PortProtocol::Tcp, LEASED + 1, 81)];
        refused(published(1001, &twice), FailureClass::Invalid, "twice");
        let alone = Start { network: NetworkMode::None, ..of(LEASED + 1, 80) };
        refused(alone, FailureClass::Invalid, "without a network");
        // The same number of the other protocol is another port.
        let udp = lease(PortProtocol::Udp, LEASED, 53);
        host.container(published(1001, &[udp]));
    });
}
