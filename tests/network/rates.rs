//! How fast somebody's containers send and receive: a person's together, a group's together, each way.

use berth_runtime::id::PrincipalId;
use berth_runtime::record::LimitState;
use berth_runtime::wire::{Answer, Request, Total};
use system_tests::requires_root;
use system_tests::supervised::wait_for;

use super::host::{Container, Host, Way};
use super::networked;

const RATE: u64 = 2_000_000;

fn allowed(rate: Option<u64>) -> Total {
    Total { net_bytes_per_sec: rate, ..Total::FREE }
}

fn ask(host: &Host, request: Request) -> Vec<LimitState> {
    match host.supervised.ask(request) {
        Ok(Answer::Limits { limits }) => limits,
        other => panic!("to a total came {other:?}"),
    }
}

fn persons(host: &Host, person: u32, rate: Option<u64>) -> Vec<LimitState> {
    ask(host, Request::PersonTotal { person: PrincipalId(person), total: allowed(rate) })
}

fn groups(host: &Host, rate: Option<u64>) -> Vec<LimitState> {
    ask(host, Request::GroupTotal { group: PrincipalId::DEFAULT_GROUP, total: allowed(rate) })
}

/// A transfer's pace as a part of the rate, after what may come at once.
fn part(host: &Host, container: &Container, way: Way) -> f64 {
    host.pace(container, way, (RATE * 3 / 2, RATE * 3)) / RATE as f64
}

/// Two transfers at once, together: twice the slower one, since whoever is done first leaves the other all there is.
fn sum(host: &Host, [one, two]: [&Container; 2], way: Way) -> f64 {
    std::thread::scope(|scope| {
        let other = scope.spawn(|| part(host, two, way));
        2.0 * part(host, one, way).min(other.join().expect("it is transferred"))
    })
}

/// The machine may be busy with other things for a moment, and nobody is held to less than the rate.
fn is_held(what: &str, mut pace: impl FnMut() -> f64) {
    wait_for(what, || (pace() - 1.0).abs().le(&0.1).then_some(()));
}

fn is_free(what: &str, mut pace: impl FnMut() -> f64) {
    wait_for(what, || (pace() > 2.0).then_some(()));
}

#[test]
fn the_sum_of_what_a_person_sends_and_of_what_they_receive_is_held() {
    requires_root!();
    Host::run(|host| {
        // What is asked for before anything runs is held from the first container on.
        let early = host.container(networked(1000));
        assert!(
            persons(host, 1000, Some(RATE)).iter().any(|state| state.name == "net" && state.held)
        );
        let late = host.container(networked(1000));
        let other = host.container(networked(1001));
        for way in [Way::Out, Way::In] {
            is_held("one alone", || part(host, &early, way));
            wait_for("two together", || (sum(host, [&early, &late], way) < 1.2).then_some(()));
            is_free("another person’s", || part(host, &other, way));
        }
        is_free("one’s own among each other", || {
            host.pace_to(&early, &late, (RATE * 3 / 2, RATE * 3)) / RATE as f64
        });
        // The control.
        persons(host, 1000, None);
        for way in [Way::Out, Way::In] {
            is_free("without a rate", || part(host, &early, way));
        }
    });
}

#[test]
fn a_groups_rate_is_that_of_all_its_people() {
    requires_root!();
    Host::run(|host| {
        groups(host, Some(RATE));
        let one = host.container(networked(1000));
        let two = host.container(networked(1001));
        is_held("one alone", || part(host, &one, Way::Out));
        wait_for("both", || (sum(host, [&one, &two], Way::Out) < 1.2).then_some(()));
        // A person's own rate within it, and after it.
        persons(host, 1001, Some(RATE / 2));
        wait_for("half of it", || (part(host, &two, Way::In) < 0.6).then_some(()));
        groups(host, None);
        is_free("the group’s other", || part(host, &one, Way::In));
        wait_for("still half of it", || (part(host, &two, Way::In) < 0.6).then_some(()));
    });
}

#[test]
fn a_rate_outlives_the_supervisor_and_a_flush_and_ends_with_the_network() {
    requires_root!();
    Host::run(|host| {
        persons(host, 1000, Some(RATE));
        let container = host.container(networked(1000));
        is_held("from the first container on", || part(host, &container, Way::Out));
        host.supervised.restart();
        is_held("after a restart", || part(host, &container, Way::Out));
        host.flush_all_rules();
        // Both: a connection that was begun without a translation would not outlive its beginning.
        let tables = || host.leftovers().matches("table inet").count();
        wait_for("the tables", || (tables() == 2).then_some(()));
        is_held("after a flush", || part(host, &container, Way::Out));
        host.supervised.remove(&container.id);
        wait_for("the end of all tables", || host.leftovers().is_empty().then_some(()));
        // What was written down is held again.
        let container = host.container(networked(1000));
        is_held("from the next on", || part(host, &container, Way::In));
    });
}
