//! Terminals (config.md, "Process": `terminal`, `consoleSize`; runc's `docs/terminals.md`), and the
//! descriptors that a program keeps.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command};
use std::time::Instant;

use berth_runtime::receive_message;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::json;

use crate::case::{Case, LIMIT, runtime};

/// Somebody's terminal, seen from the far side.
struct Person {
    master: fs::File,
    slave: OwnedFd,
    seen: String,
}

impl Person {
    fn new() -> Self {
        let size = Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).expect("make a terminal");
        Self { master: pair.master.into(), slave: pair.slave, seen: String::new() }
    }

    fn of(master: OwnedFd) -> Self {
        let slave = fs::File::open("/dev/null").expect("open the null device").into();
        Self { master: master.into(), slave, seen: String::new() }
    }

    /// Runs a command of the runtime in this terminal.
    fn runs(&self, mut command: Command) -> Child {
        let end = || self.slave.try_clone().expect("copy the terminal");
        command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("run the runtime")
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("type");
    }

    /// Reads until what was seen since the last call has `text`, and gives it.
    fn sees(&mut self, text: &str) -> String {
        let begin = Instant::now();
        while !self.seen.contains(text) {
            assert!(begin.elapsed() < LIMIT, "{text:?} is not in {:?}", self.seen);
            let mut ready = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            poll(&mut ready, PollTimeout::from(100u8)).expect("wait for output");
            if ready[0].any() == Some(true) {
                let mut bytes = [0; 1024];
                let length = self.master.read(&mut bytes).unwrap_or(0);
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..length]));
            }
        }
        std::mem::take(&mut self.seen)
    }

    fn is_canonical(&self) -> bool {
        let now = tcgetattr(&self.slave).expect("read the terminal's modes");
        now.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }
}

fn code_of(child: &mut Child) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait for the runtime") {
            return status.code();
        }
        assert!(begin.elapsed() < LIMIT, "the runtime does not end");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn with_terminal(case: Case) -> Case {
    case.with("/process/terminal", true.into())
}

/// `terminal`: standard input, output and error are one new terminal, which `/dev/console` is too, of
/// the size of the person's; what is typed arrives, and the exit code is the program's.
#[test]
fn run_connects_the_persons_terminal_with_the_programs() {
    let Some(case) = Case::new("tty-run") else { return };
    let script = "tty; stty size; stty -F /dev/console size; test -t 1 && test -t 2 && echo both; \
        echo ready; read line; echo got $line; exit 7";
    let case = with_terminal(case.script(script));
    let mut person = Person::new();
    assert!(person.is_canonical());
    let mut run = person.runs(case.command(&["run", &case.id]));
    let text = person.sees("ready\r\n");
    assert_eq!(text, "/dev/pts/0\r\n33 101\r\n33 101\r\nboth\r\nready\r\n");
    assert!(!person.is_canonical(), "what is typed is not for the person's own terminal");
    person.types("words\r");
    assert!(person.sees("got words").contains("words\r\n"), "the program's terminal echoes");
    assert_eq!(code_of(&mut run), Some(7));
    assert!(person.is_canonical(), "the person's terminal is as it was");
    case.refused("state ID");
}

/// Ctrl-C is the program's; a new size of the person's terminal is given on.
#[test]
fn keys_and_sizes_reach_the_program() {
    let Some(case) = Case::new("tty-keys") else { return };
    let script = "trap 'echo interrupted; exit 3' INT; trap 'stty size' WINCH; echo ready; \
        while :; do sleep 0.05; done";
    let case = with_terminal(case.script(script));
    let mut person = Person::new();
    let mut run = person.runs(case.command(&["run", &case.id]));
    person.sees("ready");
    let end = person.slave.try_clone().expect("copy the terminal");
    let resized = Command::new("stty").args(["rows", "44", "cols", "132"]).stdin(end).status();
    assert!(resized.expect("run stty").success());
    let pid = Pid::from_raw(run.id().cast_signed());
    kill(pid, Signal::SIGWINCH).expect("say that the size has changed");
    person.sees("44 132");
    person.types("\u{3}");
    person.sees("interrupted");
    assert_eq!(code_of(&mut run), Some(3));
}

/// What a program wrote last is not lost, however much it is.
#[test]
fn all_output_arrives_before_the_command_ends() {
    let Some(case) = Case::new("tty-output") else { return };
    let script = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; \
        i=$((i+1)); done; printf end";
    let case = with_terminal(case.script(script));
    let mut person = Person::new();
    let mut run = person.runs(case.command(&["run", &case.id]));
    let text = person.sees("end");
    assert_eq!(text.matches("0123456789\r\n").count(), 3000);
    assert_eq!(code_of(&mut run), Some(0));
}

/// Receives a terminal as conmon and containerd's shim do: one message with a name and a descriptor.
fn receive(listener: &UnixListener) -> Person {
    listener.set_nonblocking(true).expect("do not wait for ever");
    let (peer, _) = listener.accept().expect("the runtime has come");
    let (name, mut fds) = receive_message(&peer).expect("a message");
    assert!(!name.is_empty(), "receivers take an empty message for a hang-up");
    assert_eq!(fds.len(), 1);
    Person::of(fds.pop().expect("one"))
}

/// `--console-socket`: `create` and a detached `exec` give the master away; `consoleSize` holds.
#[test]
fn a_console_socket_is_given_the_master() {
    let Some(case) = Case::new("tty-socket") else { return };
    let script = "stty size; echo ready; read line; echo got $line; exec sleep 1000";
    let case = with_terminal(case.script(script));
    let case = case.with("/process/consoleSize", json!({ "height": 21, "width": 77 }));
    let socket = case.directory.join("console.sock");
    let listener = UnixListener::bind(&socket).expect("listen");
    case.done("create --console-socket console.sock ID");
    let mut person = receive(&listener);
    case.done("start ID");
    assert_eq!(person.sees("ready\r\n"), "21 77\r\nready\r\n");
    person.types("words\r");
    person.sees("got words");
    let exec = ["exec", "-d", "-t", "--console-socket", "console.sock", &case.id, "/bin/sh"];
    let null = fs::File::create("/dev/null").expect("open the null device");
    let status = case.command(&exec).stdout(null).status().expect("run the runtime");
    assert!(status.success());
    let mut second = receive(&listener);
    second.types("tty; exit\r");
    second.sees("/dev/pts/1");
}

/// `exec --tty` in the foreground; without it there is no terminal, though the container has one.
#[test]
fn exec_has_a_terminal_when_it_is_asked_for() {
    let Some(case) = Case::new("tty-exec") else { return };
    let case = case.started();
    let mut person = Person::new();
    let script = "tty; stty size; exit 5";
    let command = case.command(&["exec", "-t", &case.id, "/bin/sh", "-c", script]);
    let mut exec = person.runs(command);
    assert_eq!(person.sees("33 101\r\n"), "/dev/pts/0\r\n33 101\r\n");
    assert_eq!(code_of(&mut exec), Some(5));
    assert!(person.is_canonical());
    let output = case.call("exec ID tty");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "not a tty\n");
}

/// A terminal whose other end nobody has is refused, and so is a socket for no terminal; nothing is left.
#[test]
fn a_terminal_needs_somebody_at_its_other_end() {
    let Some(case) = Case::new("tty-refused") else { return };
    let socket = case.directory.join("console.sock");
    let _listener = UnixListener::bind(&socket).expect("listen");
    case.refused("create --console-socket console.sock ID");
    case.refused("state ID");
    let case = with_terminal(case);
    case.refused("create ID");
    case.refused("run -d ID");
    case.refused("run --console-socket console.sock ID");
    case.refused("create --console-socket nosuch.sock ID");
    case.refused("state ID");
}

/// What people try first: the bundle that `runc spec` writes, but for the cgroup's name, so that none is left.
#[test]
fn the_bundle_that_runc_writes_runs() {
    let Some(case) = Case::new("runc-spec") else { return };
    let bundle = case.directory.join("bundle");
    fs::create_dir(&bundle).expect("make a bundle");
    fs::rename(case.directory.join("rootfs"), bundle.join("rootfs")).expect("move the root");
    let written = Command::new("runc").arg("spec").current_dir(&bundle).status();
    if !written.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED conformance: there is no runc here to write a bundle");
        return;
    }
    let path = bundle.join("config.json");
    let text = fs::read_to_string(&path).expect("read the configuration");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config["linux"]["cgroupsPath"] = case.config["linux"]["cgroupsPath"].clone();
    fs::write(&path, config.to_string()).expect("write the configuration");
    let mut person = Person::new();
    let mut run = person.runs(case.command(&["run", "--bundle", "bundle", &case.id]));
    person.sees("# ");
    person.types("hostname; exit 4\r");
    person.sees("\r\nrunc\r\n");
    assert_eq!(code_of(&mut run), Some(4));
    case.refused("state ID");
}

/// A case's command with files as descriptors 3 and 4, and what a shell is to do before.
fn with_files(case: &Case, before: &str, arguments: &[&str]) -> Command {
    for name in ["three", "four"] {
        fs::write(case.directory.join(name), format!("{name}\n")).expect("write a file");
    }
    let plain = case.command(arguments);
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(format!("{before} exec \"$0\" \"$@\" 3<three 4<four"));
    command.arg(runtime()).args(plain.get_args()).current_dir(&case.directory);
    command.stdin(std::process::Stdio::null());
    command
}

const READ: &str = "for n in 3 4; do eval \"cat <&$n\" 2>/dev/null || echo no $n; done";

fn output_of(mut command: Command) -> String {
    let output = command.output().expect("run the runtime");
    assert!(output.status.success(), "{}", crate::case::said(&output));
    String::from_utf8(output.stdout).expect("output is UTF-8")
}

/// `--preserve-fds`: so many from 3 on, under their numbers, and no other.
#[test]
fn descriptors_are_kept_as_many_as_asked_for() {
    let Some(case) = Case::new("preserve") else { return };
    let case = case.script(READ);
    let id = case.id.clone();
    assert_eq!(output_of(with_files(&case, "", &["run", &id])), "no 3\nno 4\n");
    let one = ["run", "--preserve-fds", "1", &id];
    assert_eq!(output_of(with_files(&case, "", &one)), "three\nno 4\n");
    let two = ["run", "--preserve-fds", "2", &id];
    assert_eq!(output_of(with_files(&case, "", &two)), "three\nfour\n");
    let more = with_files(&case, "", &["run", "--preserve-fds", "1000", &id]).output();
    assert!(!more.expect("run the runtime").status.success(), "not all of them are open");
    case.refused("state ID");
    let case = case.script("exec sleep 1000").started();
    let exec = ["exec", "--preserve-fds", "2", &id, "/bin/sh", "-c", READ];
    assert_eq!(output_of(with_files(&case, "", &exec)), "three\nfour\n");
}

/// Socket activation: the program is told of what the runtime was given.
#[test]
fn activation_sockets_come_first() {
    let Some(case) = Case::new("activation") else { return };
    let case = case.script(&format!("echo $LISTEN_FDS $LISTEN_PID; {READ}"));
    let before = "export LISTEN_FDS=1 LISTEN_PID=$$;";
    let run = ["run", "--preserve-fds", "1", &case.id];
    assert_eq!(output_of(with_files(&case, before, &run)), "1 1\nthree\nfour\n");
    let run = ["run", &case.id];
    assert_eq!(output_of(with_files(&case, before, &run)), "1 1\nthree\nno 4\n");
    let other = "export LISTEN_FDS=1 LISTEN_PID=1;";
    assert_eq!(output_of(with_files(&case, other, &run)), "\nno 3\nno 4\n");
}
