//! First programs that people are with, by the wire: F03 for them, and that they wait for nobody.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use berth_runtime::console::{ConsoleEvent, ConsoleOrder, MESSAGE_BYTES_MAX};
use berth_runtime::wire::TerminalSize;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::Pid;
use serde_json::{Value, json};
use system_tests::requires_root;
use system_tests::supervisor::{LIMIT, Run, Supervisor, id};

/// With a first program.
struct Console(OwnedFd);

/// What it has said.
#[derive(Default)]
struct Heard {
    output: Vec<u8>,
    lost: u64,
    exited: Option<(Option<i32>, Option<i32>)>,
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let last = &self.output[self.output.len().saturating_sub(200)..];
        let last = String::from_utf8_lossy(last);
        write!(
            text,
            "{} bytes, lost {}, {:?}: …{last:?}",
            self.output.len(),
            self.lost,
            self.exited
        )
    }
}

impl Console {
    fn attach(berth: &Supervisor, container: &str) -> Self {
        let request = json!({"op": "container_attach", "container": container});
        let (answer, mut fds) = berth.call_with(&request, &[]);
        assert_eq!(answer["answer"], "done", "{answer}\n{}", berth.log());
        Self(fds.remove(0))
    }

    fn order(&self, order: ConsoleOrder<'_>) {
        let mut message = Vec::new();
        order.write(&mut message);
        self.send(&message).expect("the monitor listens");
    }

    fn send(&self, message: &[u8]) -> nix::Result<()> {
        berth_runtime::send_message(&self.0, message, &[])
    }

    /// The next message; nothing at the end.
    fn next(&self, heard: &mut Heard) -> bool {
        let mut polled = [PollFd::new(std::os::fd::AsFd::as_fd(&self.0), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(LIMIT).expect("half a minute fits");
        assert_eq!(poll(&mut polled, limit), Ok(1), "nothing came within {LIMIT:?}: {heard:?}");
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let length = match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) | Err(_) => return false,
            Ok(length) => length,
        };
        match ConsoleEvent::read(&buffer[..length]).expect("a message") {
            ConsoleEvent::Stdout(bytes) | ConsoleEvent::Stderr(bytes) => {
                heard.output.extend_from_slice(bytes);
            }
            ConsoleEvent::Lost(bytes) => heard.lost += bytes,
            ConsoleEvent::Exited { code, signal } => heard.exited = Some((code, signal)),
        }
        true
    }

    fn until(&self, heard: &mut Heard, wanted: &str) {
        while !String::from_utf8_lossy(&heard.output).contains(wanted) {
            assert!(self.next(heard), "the end came before {wanted:?}: {heard:?}");
        }
    }
}

fn started<'a>(berth: &'a Supervisor, name: &str, script: &str, console: Value) -> Run<'a> {
    let mut request = berth.start_request(&id(name), 1, &["sh", "-c", script]);
    request["console"] = console;
    berth.started(&request)
}

fn terminal() -> Value {
    json!({"terminal": {"columns": 80, "rows": 24}, "stdin": true})
}

#[test]
fn a_program_waits_for_nobody_who_is_with_it() {
    requires_root!();
    let berth = Supervisor::start();
    let script = "read go; head -c 3000000 /dev/zero; echo; echo written; read end; exit 4";
    let run = started(&berth, "talker", script, json!({"terminal": null, "stdin": true}));
    let idle = Console::attach(&berth, &run.container);
    let quick = Console::attach(&berth, &run.container);
    quick.order(ConsoleOrder::Input(b"go\n"));
    let mut heard = Heard::default();
    quick.until(&mut heard, "written\n");
    assert_eq!(heard.output.len() as u64 + heard.lost, 3_000_009);
    // The one that has read nothing is told how much it was not sent.
    quick.order(ConsoleOrder::Input(b"end\n"));
    let mut late = Heard::default();
    while idle.next(&mut late) {}
    assert!(late.lost > 1_000_000, "{late:?}");
    assert_eq!(late.output.len() as u64 + late.lost, 3_000_009, "{late:?}");
    assert!(late.output.ends_with(b"\nwritten\n"), "the newest is never lost: {late:?}");
    while quick.next(&mut heard) {}
    assert_eq!(heard.exited, Some((Some(4), None)));
    run.wait_exit();
}

#[test]
fn what_is_no_order_ends_the_connection_alone() {
    requires_root!();
    let berth = Supervisor::start();
    let run = started(&berth, "strict", "exec cat", terminal());
    let long = vec![b'i'; MESSAGE_BYTES_MAX + 1];
    let wrong: [&[u8]; 6] = [b"i", b"e!", b"r\0\0\0\0", b"r\xff\xff\xff\xff", b"\0", &long];
    for message in wrong {
        let console = Console::attach(&berth, &run.container);
        console.send(message).expect("it listens");
        let mut heard = Heard::default();
        while console.next(&mut heard) {}
        assert_eq!(heard.exited, None, "{message:?}");
    }
    // More than there is room for: the oldest go, and the newest is served.
    let many: Vec<Console> = (0..20).map(|_| Console::attach(&berth, &run.container)).collect();
    let newest = many.last().expect("there are some");
    newest.order(ConsoleOrder::Resize(TerminalSize { columns: 1, rows: 1 }));
    newest.order(ConsoleOrder::Input(b"here\n"));
    newest.until(&mut Heard::default(), "here\r\nhere\r\n");
    let mut heard = Heard::default();
    while many[0].next(&mut heard) {}
    // A program that does not read holds up nobody but its writers.
    let deaf = started(&berth, "deaf", "exec sleep 7777", json!({"stdin": true}));
    let writer = Console::attach(&berth, &deaf.container);
    let deadline = Instant::now() + LIMIT;
    let piece = vec![b'i'; MESSAGE_BYTES_MAX];
    while writer.send(&piece) != Err(nix::errno::Errno::EAGAIN) {
        assert!(Instant::now() < deadline, "it takes input without end");
    }
    drop(writer);
    let again = Console::attach(&berth, &deaf.container);
    berth.call(&json!({"op": "container_kill", "container": deaf.container}));
    let mut heard = Heard::default();
    while again.next(&mut heard) {}
    assert_eq!(heard.exited, Some((None, Some(9))));
    deaf.wait_exit();
}

#[test]
fn the_next_supervisor_finds_the_way_to_it_and_a_killed_monitor_ends_it() {
    requires_root!();
    let mut berth = Supervisor::start();
    let run = started(&berth, "kept", "exec sh", terminal());
    let container = run.container.clone();
    let record = berth.run_dir().join(format!("containers/{container}/init/live.json"));
    let record = std::fs::read_to_string(record).expect("a running container has a record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    drop(run);
    let first = Console::attach(&berth, &container);
    first.order(ConsoleOrder::Input(b"x=ke''pt\n"));
    first.until(&mut Heard::default(), "ke''pt");
    berth.kill();
    berth.launch();
    let second = Console::attach(&berth, &container);
    for console in [&first, &second] {
        console.order(ConsoleOrder::Input(b"echo $x\n"));
        console.until(&mut Heard::default(), "\nkept\r\n");
    }
    let pid = record["monitor"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let pid = pid.expect("it names its monitor");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    let mut heard = Heard::default();
    while first.next(&mut heard) {}
    assert_eq!(heard.exited, None, "nobody has seen its end");
    berth.wait_state(&container, "the end", |state| state["exit"].is_object());
}

#[test]
fn a_program_that_was_not_made_for_it_is_not_attached_to() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("plain", &["sleep", "7777"]);
    let attach =
        |container: &str| berth.call(&json!({"op": "container_attach", "container": container}));
    let refused = attach(&run.container);
    assert_eq!(
        (&refused["class"], &refused["code"]),
        (&json!("conflict"), &json!("container.no-console"))
    );
    assert_eq!(attach(&id("nobody"))["class"], "not_found");
    let mut request = berth.start_request(&id("ended"), 1, &["true"]);
    request["console"] = terminal();
    let ended = berth.started(&request);
    ended.wait_exit();
    assert_eq!(attach(&ended.container)["code"], "container.not-running");
}
