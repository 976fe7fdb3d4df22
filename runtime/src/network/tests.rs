//! What the kernel does, as root, in network namespaces of the test's own. The attacks that it must
//! withstand are in `tests/network`.

use std::process::Command;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, poll};

use super::*;

/// A namespace without any process, kept by its descriptor.
fn new_namespace() -> File {
    let made = std::thread::spawn(|| {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        File::open("/proc/thread-self/ns/net").expect("its descriptor")
    });
    made.join().expect("the thread ends well")
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs the test in a host of its own, which goes with the thread.
fn on_own_host(test: impl FnOnce(&Network) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED network: needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        let run_dir = std::env::temp_dir().join(format!("berth-net-{}", nix::unistd::gettid()));
        fs::create_dir(&run_dir).expect("a run directory");
        let config = RuntimeConfig {
            instance: "nettest".to_owned(),
            run_dir: run_dir.clone(),
            ..RuntimeConfig::default()
        };
        test(&Network::new(&config).expect("a good pool"));
        fs::remove_dir_all(run_dir).expect("the run directory goes");
    });
    thread.join().expect("the test passes");
}

fn place(network: &Network, slot: u32, host: usize) -> Attachment {
    let index = usize::try_from(slot).expect("small");
    let subnet = network.pool().subnets().nth(index).expect("in the pool");
    let address = subnet.container_addresses().nth(host).expect("in the subnet");
    Attachment { slot, subnet, address, ports: Vec::new() }
}

fn sweep(network: &Network, live: &[Attachment]) {
    let stale = network.stale(live).expect("interfaces are listed");
    network.sweep(&stale, live).expect("swept");
}

#[test]
fn everything_comes_with_the_first_container_and_goes_with_the_last() {
    on_own_host(|network| {
        let (one, two, three) = (new_namespace(), new_namespace(), new_namespace());
        let (at_one, at_two, at_three) =
            (place(network, 2, 0), place(network, 2, 1), place(network, 3, 0));
        assert!(!network.guarded(false).expect("known"));
        network.attach(one.as_fd(), &at_one).expect("attached");
        network.attach(two.as_fd(), &at_two).expect("attached");
        network.attach(three.as_fd(), &at_three).expect("attached");
        assert!(network.guarded(false).expect("known"));
        let table = output("nft", &["list", "table", "inet", "nettest"]);
        for at in [&at_one, &at_two, &at_three] {
            assert!(table.contains(&format!(". {}", at.address)), "{table}");
        }
        let port =
            output("bridge", &["-d", "link", "show", "dev", &network.port_name(at_one.address)]);
        assert!(port.contains("locked on") && port.contains("learning off"), "{port}");
        assert!(output("ip", &["-6", "addr"]).is_empty(), "no IPv6 on the host's side");
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read"), "1\n");

        // Somebody flushes all rules: told, seen, and made good with every container in it.
        let changes = Changes::listen().expect("listening");
        let told = || poll(&mut [PollFd::new(changes.as_fd(), PollFlags::POLLIN)], 0_u8);
        assert_eq!(told(), Ok(0), "nothing has changed yet");
        output("nft", &["flush", "ruleset"]);
        assert_eq!(told(), Ok(1));
        changes.drain();
        assert_eq!(told(), Ok(0));
        assert!(!network.guarded(false).expect("known"));
        sweep(network, &[at_one.clone(), at_two.clone(), at_three.clone()]);
        assert_eq!(output("nft", &["list", "table", "inet", "nettest"]), table);
        network.detach(&at_two).expect("detached");
        network.detach(&at_two).expect("detached twice");
        // A container that the record does not know is a leftover.
        sweep(network, std::slice::from_ref(&at_three));
        let links = output("ip", &["-br", "link"]);
        assert!(links.contains("nettest-3") && !links.contains("nettest-2"), "{links}");
        network.detach(&at_three).expect("detached");
        assert!(!output("ip", &["-br", "link"]).contains("nettest"), "no interface is left");
        assert_eq!(output("nft", &["list", "ruleset"]), "", "no rule is left");
        // The last container's namespace is all that is left to attach again.
        network.attach(three.as_fd(), &at_three).expect("attached again");
        sweep(network, &[]);
        assert_eq!(output("nft", &["list", "ruleset"]), "");
    });
}

#[test]
fn a_failed_attachment_leaves_nothing() {
    on_own_host(|network| {
        let namespace = new_namespace();
        let at = place(network, 2, 0);
        network.attach(namespace.as_fd(), &at).expect("attached");
        // A second interface of the same name cannot be made in the container.
        let again = place(network, 2, 1);
        let error = network.attach(namespace.as_fd(), &again).expect_err("refused");
        assert!(
            matches!(&error, Error::Kernel { action, .. } if action.contains("eth0")),
            "{error}"
        );
        let table = output("nft", &["list", "table", "inet", "nettest"]);
        assert!(!table.contains(&again.address.to_string()), "{table}");
        assert!(output("ip", &["-br", "link"]).contains(&network.port_name(at.address)));
        network.detach(&at).expect("detached");
    });
}

#[test]
fn attaching_is_quick() {
    on_own_host(|network| {
        let mut times = Vec::new();
        let keeper = new_namespace();
        network.attach(keeper.as_fd(), &place(network, 2, 0)).expect("attached");
        for host in 1..20 {
            let namespace = new_namespace();
            let at = place(network, 2, host);
            let start = Instant::now();
            network.attach(namespace.as_fd(), &at).expect("attached");
            times.push(start.elapsed());
            network.detach(&at).expect("detached");
        }
        sweep(network, &[]);
        times.sort_unstable();
        eprintln!(
            "attach: median {:?}, worst {:?}",
            times[times.len() / 2],
            times[times.len() - 1]
        );
        // The target is 3 ms; a busy machine gets more before this is called a defect.
        assert!(times[times.len() / 2].as_millis() < 500, "{times:?}");
    });
}
