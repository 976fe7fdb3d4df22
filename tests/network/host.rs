//! A host in a network namespace, the internet in another, and containers in theirs.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use berth_runtime::id::ContainerId;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use system_tests::supervised::{PATIENCE, Start, Supervised};

/// The host's address on its uplink.
pub(crate) const UPLINK: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// A machine on the internet.
pub(crate) const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The same by IPv6.
pub(crate) const UPLINK6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The same machine by IPv6.
pub(crate) const INTERNET6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// Where a cloud tells a machine its secrets by IPv6; that machine has it, too.
pub(crate) const METADATA6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
/// Where clouds tell a machine its secrets; that machine has it too.
pub(crate) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// How long a connection may take to be made; what is dropped takes all of it.
const CONNECT_LIMIT: Duration = Duration::from_millis(1500);

/// A host with its supervisor.
pub(crate) struct Host {
    pub(crate) supervised: Supervised,
    namespace: File,
    internet: File,
}

/// A running container, seen from its network namespace.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) address: Ipv4Addr,
    pub(crate) address6: Option<Ipv6Addr>,
    pub(crate) hardware: [u8; 6],
    pid: i32,
    namespace: File,
}

/// A TCP server that accepts and hangs up, until dropped.
pub(crate) struct Server {
    peer: Arc<Mutex<Option<IpAddr>>>,
    over: Arc<AtomicBool>,
}

impl Server {
    fn new(listener: TcpListener) -> Self {
        let server = Self { peer: Arc::default(), over: Arc::default() };
        let (peer, over) = (Arc::clone(&server.peer), Arc::clone(&server.over));
        listener.set_nonblocking(true).expect("it can poll");
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((_, from)) => {
                        *peer.lock().expect("unpoisoned") = Some(from.ip().to_canonical());
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        server
    }

    /// Who connected last.
    pub(crate) fn last_peer(&self) -> Option<IpAddr> {
        *self.peer.lock().expect("unpoisoned")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Which way a transfer goes, from a container.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// To the internet.
    Out,
    /// From it.
    In,
}

/// A UDP receiver on the internet.
pub(crate) struct Receiver(UdpSocket);

impl Receiver {
    fn new(namespace: &File, address: impl Into<IpAddr>, port: u16) -> Self {
        let address = address.into();
        let socket =
            inside(namespace, move || UdpSocket::bind((address, port)).expect("a free port"));
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        Self(socket)
    }

    /// Whether something has come by now.
    pub(crate) fn has_some(&self) -> bool {
        self.0.set_nonblocking(true).expect("it can poll");
        let some = self.0.recv(&mut [0; 256]).is_ok();
        self.0.set_nonblocking(false).expect("it can wait");
        some
    }

    /// What comes first, and from whom.
    pub(crate) fn first(&self) -> (String, IpAddr) {
        let mut buffer = [0; 256];
        let (length, from) = self.0.recv_from(&mut buffer).expect("it comes");
        (String::from_utf8_lossy(&buffer[..length]).into_owned(), from.ip())
    }

    /// What comes, up to and with the text `last`.
    pub(crate) fn until(&self, last: &str) -> Vec<String> {
        let mut texts = Vec::new();
        loop {
            let mut buffer = [0; 256];
            let length = self.0.recv(&mut buffer).expect("the last text comes");
            texts.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            if texts.last().is_some_and(|text| text == last) {
                return texts;
            }
        }
    }
}

impl Host {
    /// Runs a test on a new host, in a thread whose namespace it is.
    pub(crate) fn run(test: impl FnOnce(&mut Self) + Send + 'static) {
        Self::with("", test);
    }

    /// The same, with more lines of the supervisor's configuration.
    pub(crate) fn with(lines: &'static str, test: impl FnOnce(&mut Self) + Send + 'static) {
        let thread = std::thread::spawn(move || {
            let internet = new_namespace();
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
            let namespace = own_namespace();
            wire(&internet);
            let supervised = Supervised::with(lines);
            test(&mut Self { supervised, namespace, internet });
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    /// Starts a container.
    pub(crate) fn container(&self, start: Start) -> Container {
        let (id, live) = self.supervised.run(start);
        let namespace = File::open(format!("/proc/{}/ns/net", live.pid)).expect("its namespace");
        let address = live.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let (address6, pid) = (live.address6, live.pid);
        let mut container = Container { id, address, address6, hardware: [0; 6], pid, namespace };
        if live.address.is_some() {
            container.hardware = container.read_hardware();
        }
        container
    }

    /// The host's address on a container's bridge.
    pub(crate) fn gateway_of(&self, container: &Container) -> Ipv4Addr {
        let routes = container.command("ip", &["-4", "route", "show", "default"]);
        routes.split_whitespace().nth(2).expect("a gateway").parse().expect("an address")
    }

    /// A server on every address of the host, as Berth's API may be.
    pub(crate) fn listen_on_the_host(&self, port: u16) -> Server {
        Server::new(inside(&self.namespace, move || {
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a free port")
        }))
    }

    /// A server on every address of the internet's machine.
    pub(crate) fn listen_on_the_internet(&self, port: u16) -> Server {
        Server::new(inside(&self.internet, move || {
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a free port")
        }))
    }

    /// Bytes per second that a transfer between a container and the internet's machine makes, after the first `skipped`,
    /// over the `counted` that follow.
    pub(crate) fn pace(
        &self,
        container: &Container,
        way: Way,
        (skipped, counted): (u64, u64),
    ) -> f64 {
        let (near, far) = connection(&container.namespace, &self.internet, INTERNET);
        match way {
            Way::Out => transfer(near, far, skipped, counted),
            Way::In => transfer(far, near, skipped, counted),
        }
    }

    /// The same from one container to another.
    pub(crate) fn pace_to(
        &self,
        from: &Container,
        to: &Container,
        (skipped, counted): (u64, u64),
    ) -> f64 {
        let (near, far) = connection(&from.namespace, &to.namespace, to.address);
        transfer(near, far, skipped, counted)
    }

    /// A receiver of datagrams on the internet's machine.
    pub(crate) fn receive_on_the_internet(&self, port: u16) -> Receiver {
        Receiver::new(&self.internet, INTERNET, port)
    }

    /// The same by IPv6.
    pub(crate) fn receive_on_the_internet6(&self, port: u16) -> Receiver {
        Receiver::new(&self.internet, INTERNET6, port)
    }

    /// Whether the internet's machine can connect to an address.
    pub(crate) fn internet_connects(&self, address: impl Into<IpAddr>, port: u16) -> bool {
        let address = address.into();
        inside(&self.internet, move || connects(address, port))
    }

    /// Whether the host itself can.
    pub(crate) fn connects(&self, address: impl Into<IpAddr>, port: u16) -> bool {
        let address = address.into();
        inside(&self.namespace, move || connects(address, port))
    }

    /// A receiver of datagrams on the host's loopback.
    pub(crate) fn receive_on_loopback(&self, port: u16) -> Receiver {
        Receiver::new(&self.namespace, Ipv4Addr::LOCALHOST, port)
    }

    /// Sends a datagram from the internet's machine.
    pub(crate) fn internet_sends(&self, to: Ipv4Addr, port: u16, text: &'static str) {
        inside(&self.internet, move || {
            let socket = UdpSocket::bind((INTERNET, 0)).expect("a free port");
            socket.send_to(text.as_bytes(), (to, port)).expect("it is sent");
        });
    }

    /// Has the host's own firewall drop what is passed on, or no more.
    pub(crate) fn forbid_forwarding(&self, forbid: bool) {
        if forbid {
            let chain = "{ type filter hook forward priority filter; policy drop; }";
            run("nft", &["add", "table", "inet", "firewall"]);
            run("nft", &["add", "chain", "inet", "firewall", "forward", chain]);
        } else {
            run("nft", &["delete", "table", "inet", "firewall"]);
        }
    }

    /// Takes the table away for as long as `control` runs. The supervisor is stopped meanwhile, which
    /// would else put it back.
    pub(crate) fn without_table(&self, control: impl FnOnce()) {
        let table = ["inet", self.supervised.instance()];
        let rules = run("nft", &["list", "table", table[0], table[1]]);
        kill(self.supervised.pid(), Signal::SIGSTOP).expect("the supervisor is stopped");
        run("nft", &["delete", "table", table[0], table[1]]);
        control();
        let file = std::env::temp_dir().join(format!("{}-rules", table[1]));
        fs::write(&file, rules).expect("rules written");
        run("nft", &["-f", file.to_str().expect("a plain path")]);
        fs::remove_file(file).expect("rules removed");
        kill(self.supervised.pid(), Signal::SIGCONT).expect("the supervisor goes on");
    }

    /// What a restart of the nftables service does.
    pub(crate) fn flush_all_rules(&self) {
        run("nft", &["flush", "ruleset"]);
    }

    /// Takes the guard of a container's bridge port away.
    pub(crate) fn unlock_port(&self, container: &Container) {
        let low = u32::from(container.address) & 0x00ff_ffff;
        let port = format!("{}_{low:06x}", self.supervised.instance());
        run("bridge", &["link", "set", "dev", &port, "locked", "off", "learning", "on"]);
    }

    /// Every interface and table of the instance.
    pub(crate) fn leftovers(&self) -> String {
        let instance = self.supervised.instance();
        let all = run("ip", &["-brief", "link"]) + &run("nft", &["list", "tables"]);
        all.lines().filter(|line| line.contains(instance)).collect()
    }

    /// IPv6 addresses of this host's interfaces, but for loopback's and the uplink's.
    pub(crate) fn ipv6_addresses_but_uplinks(&self) -> String {
        let all = run("ip", &["-6", "-oneline", "addr"]);
        let ours = |line: &&str| !line.contains(": lo ") && !line.contains(": uplink ");
        all.lines().filter(ours).collect()
    }
}

impl Container {
    /// Whether a connection can be made from it.
    pub(crate) fn connects(&self, address: impl Into<IpAddr>, port: u16) -> bool {
        let address = address.into();
        inside(&self.namespace, move || connects(address, port))
    }

    /// A server in it.
    pub(crate) fn listen(&self, port: u16) -> Server {
        Server::new(inside(&self.namespace, move || {
            TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a free port")
        }))
    }

    /// A receiver of datagrams in it.
    pub(crate) fn receive(&self, port: u16) -> Receiver {
        Receiver::new(&self.namespace, Ipv4Addr::UNSPECIFIED, port)
    }

    /// Sends one UDP datagram as a frame of our own making, from whomever it says.
    pub(crate) fn send_udp(
        &self,
        (hardware, from): ([u8; 6], Ipv4Addr),
        to: Ipv4Addr,
        port: u16,
        text: &str,
    ) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let gateway = self.command("ip", &["neigh", "show", "nud", "permanent"]);
        let gateway = gateway.split_whitespace().nth(4).expect("the gateway's hardware address");
        let script = "\
import socket, struct, sys
source, gateway, sender, target, port, text = sys.argv[1:]
data = struct.pack('!HHHH', 4000, int(port), 8 + len(text), 0) + text.encode()
head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0,
                   socket.inet_aton(sender), socket.inet_aton(target))
total = sum(struct.unpack('!10H', head))
total = (total & 0xffff) + (total >> 16)
total = ~((total & 0xffff) + (total >> 16)) & 0xffff
head = head[:10] + struct.pack('!H', total) + head[12:]
frame = bytes.fromhex(gateway.replace(':', '')) + bytes.fromhex(source) + b'\\x08\\x00' + head + data
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(('eth0', 0))
out.send(frame)
";
        let (from, to, port) = (from.to_string(), to.to_string(), port.to_string());
        let source = hex(&hardware);
        self.command("python3", &["-c", script, &source, gateway, &from, &to, &port, text]);
    }

    /// The same by IPv6.
    pub(crate) fn send_udp6(
        &self,
        (hardware, from): ([u8; 6], Ipv6Addr),
        to: Ipv6Addr,
        port: u16,
        text: &str,
    ) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let gateway = self.command("ip", &["-6", "neigh", "show", "nud", "permanent"]);
        let gateway = gateway.split_whitespace().nth(4).expect("the gateway's hardware address");
        let script = "\
import socket, struct, sys
source, gateway, sender, target, port, text = sys.argv[1:]
sender, target = (socket.inet_pton(socket.AF_INET6, it) for it in (sender, target))
data = text.encode()
length = 8 + len(data)
def checked(value):
    return struct.pack('!HHHH', 4000, int(port), length, value) + data
summed = sender + target + struct.pack('!II', length, 17) + checked(0)
summed += b'\\0' * (len(summed) % 2)
total = sum(struct.unpack('!%dH' % (len(summed) // 2), summed))
while total >> 16:
    total = (total & 0xffff) + (total >> 16)
head = struct.pack('!IHBB', 6 << 28, length, 17, 64) + sender + target
frame = bytes.fromhex(gateway.replace(':', '')) + bytes.fromhex(source) + b'\\x86\\xdd'
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(('eth0', 0))
out.send(frame + head + checked((~total & 0xffff) or 0xffff))
";
        let (from, to, port) = (from.to_string(), to.to_string(), port.to_string());
        let source = hex(&hardware);
        self.command("python3", &["-c", script, &source, gateway, &from, &to, &port, text]);
    }

    /// `/proc/net/if_inet6` of its namespace.
    pub(crate) fn ipv6_addresses(&self) -> String {
        fs::read_to_string(format!("/proc/{}/net/if_inet6", self.pid)).unwrap_or_default()
    }

    /// What no container can do to itself: its `/proc/sys` is read-only.
    pub(crate) fn enable_ipv6(&self) {
        inside(&self.namespace, || {
            fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0").expect("written");
        });
    }

    /// Whether the table still knows it.
    pub(crate) fn is_guarded(&self, host: &Host) -> bool {
        let instance = host.supervised.instance();
        run("nft", &["list", "table", "inet", instance]).contains(&format!(". {}", self.address))
    }

    fn read_hardware(&self) -> [u8; 6] {
        let text = self.command("ip", &["-brief", "link", "show", "dev", "eth0"]);
        let text = text.split_whitespace().nth(2).expect("a hardware address").to_owned();
        let bytes: Vec<u8> =
            text.split(':').map(|part| u8::from_str_radix(part, 16).expect("hex")).collect();
        bytes.try_into().expect("six bytes")
    }

    /// Runs one of this machine's programs in the container's network.
    fn command(&self, program: &str, arguments: &[&str]) -> String {
        let (program, arguments) =
            (program.to_owned(), arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
        inside(&self.namespace, move || {
            run(&program, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
        })
    }
}

/// The uplink: the host's end here, the other end on the internet, with routes both ways.
fn wire(internet: &File) {
    let far = format!("/proc/{}/fd/{}", std::process::id(), internet.as_raw_fd());
    run("ip", &["link", "set", "lo", "up"]);
    run("ip", &["link", "add", "uplink", "type", "veth", "peer", "name", "far", "netns", &far]);
    run("ip", &["addr", "add", "203.0.113.1/24", "dev", "uplink"]);
    run("ip", &["link", "set", "uplink", "up"]);
    run("ip", &["addr", "add", "2001:db8::1/64", "dev", "uplink", "nodad"]);
    run("ip", &["route", "add", "169.254.0.0/16", "dev", "uplink"]);
    run("ip", &["-6", "route", "add", "fd00:ec2::/32", "dev", "uplink"]);
    inside(internet, || {
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["addr", "add", "203.0.113.2/24", "dev", "far"]);
        run("ip", &["addr", "add", "169.254.169.254/32", "dev", "far"]);
        run("ip", &["addr", "add", "2001:db8::2/64", "dev", "far", "nodad"]);
        run("ip", &["addr", "add", "fd00:ec2::254/128", "dev", "far", "nodad"]);
        run("ip", &["link", "set", "far", "up"]);
        run("ip", &["route", "add", "10.0.0.0/8", "via", "203.0.113.1"]);
        run("ip", &["-6", "route", "add", "fd5e::/16", "via", "2001:db8::1"]);
    });
}

/// A connection from one namespace to an address in another; its two ends.
fn connection(from: &File, to: &File, address: Ipv4Addr) -> (TcpStream, TcpStream) {
    let listener = inside(to, move || TcpListener::bind((address, 0)).expect("a free port"));
    let port = listener.local_addr().expect("an address").port();
    let near = inside(from, move || TcpStream::connect((address, port)).expect("a connection"));
    let (far, _) = listener.accept().expect("it has come");
    (near, far)
}

fn transfer(mut from: TcpStream, mut to: TcpStream, skipped: u64, counted: u64) -> f64 {
    to.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let sender = std::thread::spawn(move || {
        // Until the other end is closed.
        while from.write_all(&[0; 65_536]).is_ok() {}
    });
    let mut buffer = vec![0; 65_536];
    let mut receive = |bytes: u64| {
        let (begun, mut come) = (Instant::now(), 0);
        while come < bytes {
            come += to.read(&mut buffer).expect("something comes") as u64;
        }
        come as f64 / begun.elapsed().as_secs_f64()
    };
    receive(skipped);
    let pace = receive(counted);
    drop(to);
    sender.join().expect("the sender ends");
    pace
}

fn connects(address: IpAddr, port: u16) -> bool {
    let address = SocketAddr::from((address, port));
    match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
        // Accepted and hung up on.
        Ok(mut stream) => stream.read(&mut [0; 1]).is_ok(),
        Err(_) => false,
    }
}

fn new_namespace() -> File {
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        own_namespace()
    });
    made.join().expect("the thread ends well")
}

fn own_namespace() -> File {
    File::open("/proc/thread-self/ns/net").expect("this thread's namespace")
}

/// Runs `act` in a thread that is in another network namespace.
fn inside<T: Send + 'static>(namespace: &File, act: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = namespace.try_clone().expect("a descriptor");
    let thread = std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).expect("the namespace is entered");
        act()
    });
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs a program; its standard output.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {words}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
