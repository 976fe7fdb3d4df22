//! Later programs of running containers, by the wire: their streams or terminal, who they run as, how
//! they end (by themselves, with their container, when nobody listens, when something is killed), how
//! many there may be; and F02/F03 for them: whatever is killed, nothing runs on that nobody knows of.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use system_tests::requires_root;
use system_tests::supervisor::{LIMIT, PERSON, Supervisor, id, receive, send};

/// A request for an exec with everything usual in it.
pub(crate) fn exec_request(container: &str, number: u64, args: &[&str]) -> Value {
    json!({
        "op": "container_exec", "container": container, "exec": number, "person": PERSON,
        "args": args, "env": ["PATH=/bin"], "cwd": "/", "user": "", "terminal": null,
    })
}

/// An exec that was started.
pub(crate) struct Exec {
    pub(crate) control: OwnedFd,
    pub(crate) streams: Vec<fs::File>,
}

impl Exec {
    /// Starts one that is to start.
    pub(crate) fn start(berth: &Supervisor, request: &Value) -> Self {
        let (answer, mut fds) = berth.call_with(request, &[]);
        assert_eq!(answer["answer"], "exec_started", "{answer}\n{}", berth.log());
        let control = fds.remove(0);
        Self { control, streams: fds.into_iter().map(fs::File::from).collect() }
    }

    /// Reads a stream (the terminal is 0; stdout 1, stderr 2) until it has `text`, or to its end.
    pub(crate) fn read_until(&mut self, stream: usize, text: &str) -> String {
        let mut seen = Vec::new();
        let deadline = Instant::now() + LIMIT;
        loop {
            let said = String::from_utf8_lossy(&seen).into_owned();
            if !text.is_empty() && said.contains(text) {
                return said;
            }
            assert!(Instant::now() < deadline, "no {text:?} in {said:?}");
            readable(&self.streams[stream]);
            let mut buffer = [0; 4096];
            match self.streams[stream].read(&mut buffer) {
                Ok(0) => return said,
                Ok(count) => seen.extend_from_slice(&buffer[..count]),
                // A terminal whose other end is closed (pty(7)).
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return said,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.streams[0].write_all(text.as_bytes()).expect("it takes a line");
    }

    /// How it ended.
    pub(crate) fn end(&self) -> Value {
        readable(&self.control);
        receive(&self.control).map_or(Value::Null, |(event, _)| event)
    }
}

fn readable(fd: impl AsFd) {
    let mut polled = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(LIMIT).expect("half a minute fits");
    assert_eq!(poll(&mut polled, limit), Ok(1), "nothing came within {LIMIT:?}");
}

/// The processes of a container as the supervisor shows them, by command.
fn commands(berth: &Supervisor, container: &str) -> Vec<(String, char)> {
    let answer = berth.call(&json!({"op": "container_processes", "container": container}));
    let rows = answer["processes"].as_array().cloned().unwrap_or_default();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    rows.iter()
        .map(|row| (text(row, "command"), text(row, "state").chars().next().unwrap_or(' ')))
        .collect()
}

fn wait_gone(berth: &Supervisor, container: &str, command: &str) {
    let deadline = Instant::now() + LIMIT;
    while commands(berth, container).iter().any(|(name, _)| name.contains(command)) {
        let left = commands(berth, container);
        assert!(Instant::now() < deadline, "{command} runs on: {left:?}\n{}", berth.log());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn wait_there(berth: &Supervisor, container: &str, command: &str) {
    let deadline = Instant::now() + LIMIT;
    while !commands(berth, container).iter().any(|(name, _)| name.contains(command)) {
        assert!(Instant::now() < deadline, "{command} does not run");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// What an exec's record says of one of its processes.
fn recorded(berth: &Supervisor, container: &str, number: u64, who: &str) -> Pid {
    let path = berth.run_dir().join(format!("containers/{container}/execs/{number}"));
    let record: Value = serde_json::from_slice(&fs::read(path).expect("an exec has a record"))
        .expect("the record is JSON");
    let pid = record[who]["pid"].as_i64().expect("it names the process");
    Pid::from_raw(i32::try_from(pid).expect("a pid fits"))
}

#[test]
fn a_program_has_its_streams_user_directory_and_environment() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("streams", &["sleep", "1000"]);
    let script = "cat; echo to-stderr >&2; echo $(id -u) $(id -g) $PWD $A $HOSTNAME; exit 7";
    let mut request = exec_request(&run.container, 1, &["sh", "-c", script]);
    request["user"] = json!("user");
    request["cwd"] = json!("/made/here");
    request["env"] = json!(["PATH=/bin", "A=b"]);
    let mut exec = Exec::start(&berth, &request);
    exec.write("line\n");
    // Its standard input ends.
    exec.streams[0] = fs::File::open("/dev/null").expect("there is one");
    assert_eq!(exec.read_until(1, ""), "line\n1000 1000 /made/here b box\n");
    assert_eq!(exec.read_until(2, ""), "to-stderr\n");
    assert_eq!(exec.end(), json!({"event": "exited", "code": 7, "signal": null}));
    let killed = Exec::start(&berth, &exec_request(&run.container, 2, &["sleep", "1000"]));
    let signal = json!({"op": "exec_signal", "container": run.container, "exec": 2, "signal": 10});
    assert_eq!(berth.call(&signal)["answer"], "done");
    assert_eq!(killed.end(), json!({"event": "exited", "code": null, "signal": 10}));
    let (answer, _) = berth.call_with(&exec_request(&run.container, 3, &["no-such-program"]), &[]);
    assert_eq!(answer["code"], "container.program-not-found", "{answer}");
    let zombies: Vec<_> =
        commands(&berth, &run.container).into_iter().filter(|(_, state)| *state == 'Z').collect();
    assert!(zombies.is_empty(), "{zombies:?}");
}

#[test]
fn a_terminal_is_the_containers_own_and_its_users() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("terminal", &["sleep", "1000"]);
    let script = "busybox tty; stat -c %u:%g:%a $(busybox tty); busybox stty size; \
        trap 'busybox stty size; exit 5' WINCH; echo ready; while :; do sleep 0.01; done";
    let mut request = exec_request(&run.container, 1, &["sh", "-c", script]);
    request["user"] = json!("user");
    request["terminal"] = json!({"columns": 100, "rows": 30});
    let mut exec = Exec::start(&berth, &request);
    let said = exec.read_until(0, "ready\r\n");
    assert_eq!(said, "/dev/pts/0\r\n1000:5:620\r\n30 100\r\nready\r\n");
    let resize = json!({"order": "resize", "columns": 90, "rows": 20}).to_string();
    send(&exec.control, resize.as_bytes(), &[]).expect("an order is sent");
    assert_eq!(exec.read_until(0, ""), "20 90\r\n");
    assert_eq!(exec.end()["code"], 5);
    // Ctrl-C is the terminal's: the shell's child is interrupted, and so is the shell.
    let mut request = exec_request(&run.container, 2, &["sh", "-c", "echo ready; sleep 1000"]);
    request["terminal"] = json!({"columns": 80, "rows": 24});
    let mut exec = Exec::start(&berth, &request);
    exec.read_until(0, "ready\r\n");
    exec.write("\u{3}");
    let end = exec.end();
    assert!(end["signal"] == 2 || end["code"] == 130, "{end}");
    // What the container makes of the name does not matter.
    let renamed = berth.run("renamed", &["sh", "-c", "rm /dev/ptmx; sleep 1000"]);
    let mut request = exec_request(&renamed.container, 3, &["busybox", "tty"]);
    request["terminal"] = json!({"columns": 80, "rows": 24});
    let mut exec = Exec::start(&berth, &request);
    assert_eq!(exec.read_until(0, ""), "/dev/pts/0\r\n", "/dev/ptmx is only a name");
}

#[test]
fn whoever_hangs_up_ends_the_session_and_nothing_else() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("hang-up", &["sh", "-c", "sleep 1001 & sleep 1000"]);
    let stubborn = "trap '' HUP TERM; sleep 2002 & sleep 2001";
    for (number, terminal) in [(1, Value::Null), (3, json!({"columns": 80, "rows": 24}))] {
        let mut request = exec_request(&run.container, number, &["sh", "-c", stubborn]);
        request["terminal"] = terminal;
        let exec = Exec::start(&berth, &request);
        wait_there(&berth, &run.container, "sleep 2002");
        wait_there(&berth, &run.container, "sleep 2001");
        drop(exec);
        wait_gone(&berth, &run.container, "sleep 200");
    }
    let left = commands(&berth, &run.container);
    assert!(left.iter().any(|(name, _)| name == "sleep 1001"), "the container's own: {left:?}");
    assert!(left.iter().all(|(_, state)| *state != 'Z'), "a zombie stays: {left:?}");
    // The container ends, and with it the exec, whose number is free again.
    let exec = Exec::start(&berth, &exec_request(&run.container, 3, &["sleep", "3000"]));
    run.act("container_kill");
    assert_eq!(exec.end()["signal"], 9);
    run.wait_exit();
    berth.wait_idle();
    let answer = berth.call(&json!({"op": "container_remove", "container": run.container}));
    assert_eq!(answer["answer"], "done", "{answer}");
}

#[test]
fn an_exec_outlives_the_supervisor_and_is_found_again() {
    requires_root!();
    let mut berth = Supervisor::start();
    let container = berth.run("found", &["sleep", "1000"]).container;
    let mut kept = Exec::start(&berth, &exec_request(&container, 1, &["cat"]));
    let dropped = Exec::start(&berth, &exec_request(&container, 2, &["sleep", "2000"]));
    let orphan = Exec::start(&berth, &exec_request(&container, 3, &["sleep", "3000"]));
    let monitor = recorded(&berth, &container, 3, "monitor");
    berth.kill();
    // While nobody looks, one monitor is killed, and whoever listened to another hangs up.
    kill(monitor, Signal::SIGKILL).expect("it lives");
    drop(dropped);
    kept.write("still here\n");
    assert_eq!(kept.read_until(1, "\n"), "still here\n");
    berth.launch();
    wait_gone(&berth, &container, "sleep 2000");
    wait_gone(&berth, &container, "sleep 3000");
    assert_eq!(orphan.end(), Value::Null, "nobody is left to tell how it ended");
    let again = berth.call(&exec_request(&container, 1, &["true"]));
    assert_eq!(again["code"], "exec.number", "the one that goes on is known: {again}");
    let signal = json!({"op": "exec_signal", "container": container, "exec": 1, "signal": 15});
    assert_eq!(berth.call(&signal)["answer"], "done");
    assert_eq!(kept.end()["signal"], 15);
    // Under a supervisor that lives, a killed monitor takes its program along at once.
    let lost = Exec::start(&berth, &exec_request(&container, 4, &["sleep", "4000"]));
    kill(recorded(&berth, &container, 4, "monitor"), Signal::SIGKILL).expect("it lives");
    assert_eq!(lost.end(), Value::Null);
    wait_gone(&berth, &container, "sleep 4000");
    assert_eq!(berth.state(&container)["status"], "running");
}

#[test]
fn programs_beside_the_first_are_counted_and_need_a_container_that_runs() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("many", &["sleep", "1000"]);
    let start = |number| Exec::start(&berth, &exec_request(&run.container, number, &["cat"]));
    let mut held: Vec<Exec> = (1..=16).map(start).collect();
    let one_more = exec_request(&run.container, 17, &["cat"]);
    let answer = berth.call(&one_more);
    assert_eq!(answer["code"], "exec.too-many", "{answer}");
    assert_eq!(answer["class"], "exhausted", "{answer}");
    drop(held.pop());
    let deadline = Instant::now() + LIMIT;
    while berth.call_with(&one_more, &[]).0["answer"] != "exec_started" {
        assert!(Instant::now() < deadline, "there is room again");
    }
    drop(held);
    run.act("container_pause");
    let paused = berth.call(&exec_request(&run.container, 18, &["true"]));
    assert_eq!(paused["code"], "container.paused", "{paused}");
    run.act("container_resume");
    let foreign = |mut request: Value| {
        request["person"] = json!(PERSON + 1);
        berth.call(&request)
    };
    let answer = foreign(exec_request(&run.container, 19, &["true"]));
    assert_eq!(answer["code"], "container.foreign", "{answer}");
    let answer = berth.call(&exec_request(&id("nothing"), 1, &["true"]));
    assert_eq!(answer["code"], "container.unknown", "{answer}");
    run.act("container_kill");
    run.wait_exit();
    let answer = berth.call(&exec_request(&run.container, 20, &["true"]));
    assert_eq!(answer["code"], "container.not-running", "{answer}");
}

#[test]
fn a_user_that_the_container_has_no_id_for_gets_no_terminal_and_is_told_why() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("no-id", &["sleep", "1000"]);
    for (number, terminal) in [(1, Value::Null), (3, json!({"columns": 80, "rows": 24}))] {
        let mut request = exec_request(&run.container, number, &["true"]);
        request["terminal"] = terminal;
        // The control: the last id that it has.
        request["user"] = json!("65535");
        assert_eq!(Exec::start(&berth, &request).end()["code"], 0);
        // A number of its own: the one before may still be on its way out.
        request["exec"] = json!(number + 1);
        request["user"] = json!("65536");
        let answer = berth.call(&request);
        assert_eq!(answer["code"], "container.user", "{answer}");
    }
}
