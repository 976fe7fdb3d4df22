//! `berth` at a real terminal (pty(7)): raw and back, sizes, keys, and what must not be obeyed.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::json;
use system_tests::containers::{import, log_with, run};
use system_tests::instance::PASSWORD;
use system_tests::{Options, TestServer, requires_root};

use crate::{LIMIT, Person};

/// Somebody's terminal, seen from the far side.
struct Screen {
    master: fs::File,
    slave: OwnedFd,
    seen: String,
}

impl Screen {
    fn new() -> Self {
        let size = Winsize { ws_row: 33, ws_col: 101, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).expect("make a terminal");
        Self { master: pair.master.into(), slave: pair.slave, seen: String::new() }
    }

    fn runs(&self, mut command: Command) -> Child {
        let end = || self.slave.try_clone().expect("copy the terminal");
        command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("run berth")
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

    fn is_as_it_was(&self) -> bool {
        let now = tcgetattr(&self.slave).expect("read the terminal's modes");
        now.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    fn resize(&self, columns: u16, rows: u16, child: &Child) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let fd = self.master.as_raw_fd();
        // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
        let done = unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(done, 0);
        // The kernel tells whoever has it as controlling terminal; here nobody has.
        signal(child, Signal::SIGWINCH);
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
    kill(pid, signal).expect("it lives");
}

fn code_of(child: &mut Child) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait for berth") {
            return status.code();
        }
        assert!(begin.elapsed() < LIMIT, "berth does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn furnished() -> (TestServer, Person) {
    let server = TestServer::start().await;
    let client = server.person("anna", "user").await;
    import(&client).await;
    run(&client, "box", "sleep 600", json!({})).await;
    let person = Person::at(&server.url());
    person.sign_in("anna").await;
    (server, person)
}

#[tokio::test]
async fn a_shell_behaves_as_at_home_and_the_terminal_is_as_it_was() {
    requires_root!();
    let (_server, person) = furnished().await;
    let mut screen = Screen::new();
    let mut child = screen.runs(person.command(&["exec", "-it", "box", "sh"]));
    screen.types("busybox stty size\n");
    screen.sees("33 101\r\n");
    assert!(!screen.is_as_it_was(), "the control: it is raw now");
    screen.resize(60, 20, &child);
    let begin = Instant::now();
    loop {
        screen.types("busybox stty size; echo en''d\n");
        if screen.sees("end\r\n").contains("20 60\r\n") {
            break;
        }
        assert!(begin.elapsed() < LIMIT, "the size did not arrive");
    }
    // Ctrl-C is for what runs inside, and not for us.
    let patient =
        "trap \"echo cau''ght; exit 3\" INT; echo wai''ts; while true; do usleep 20000; done";
    screen.types(&format!("sh -c '{patient}'\n"));
    screen.sees("waits\r\n");
    screen.types("\u{3}");
    screen.sees("caught\r\n");
    screen.types("echo $?; echo al''ive\n");
    assert!(screen.sees("alive\r\n").contains("3\r\n"));
    screen.types("exit 6\n");
    assert_eq!(code_of(&mut child), Some(6));
    assert!(screen.is_as_it_was());
}

#[tokio::test]
async fn a_session_is_left_and_come_back_to() {
    requires_root!();
    let (_server, person) = furnished().await;
    let mut screen = Screen::new();
    let mut child = screen.runs(person.command(&["exec", "-it", "box", "sh"]));
    screen.types("A=kept; echo rea''dy\n");
    screen.sees("ready\r\n");
    screen.types("\u{10}\u{11}");
    assert_eq!(code_of(&mut child), Some(0));
    assert!(screen.is_as_it_was());
    let told = screen.sees("--attach");
    let number = told.split_once("session ").and_then(|(_, rest)| rest.split(' ').next());
    let number = number.unwrap_or_else(|| panic!("no number in {told:?}")).to_owned();
    let mut child = screen.runs(person.command(&["exec", "-it", "--attach", &number, "box"]));
    screen.types("echo $A $A\n");
    screen.sees("kept kept\r\n");
    // Asked to end from outside, it leaves the terminal as it was too.
    signal(&child, Signal::SIGTERM);
    assert_eq!(code_of(&mut child), Some(143));
    assert!(screen.is_as_it_was());
}

#[tokio::test]
async fn what_a_container_says_is_not_obeyed_by_a_terminal() {
    requires_root!();
    let (server, person) = furnished().await;
    let client = server.sign_in("anna", PASSWORD).await.expect_status(201);
    let client = server.anonymous().with_cookies_of(&client);
    let script = "printf 'a\\033]52;c;eA==\\007b\\302\\2332Jc\\n'";
    let id = run(&client, "evil", script, json!({})).await;
    log_with(&client, &id, "eA==").await;
    let shown = "a\\x1b]52;c;eA==\\x07b\\u{9b}2Jc\r\n";
    let sent = "a\u{1b}]52;c;eA==\u{7}b\u{9b}2Jc\r\n";
    for (words, expected) in [
        (&["logs", "evil"][..], shown),
        (&["logs", "-f", "evil"], shown),
        (&["exec", "box", "sh", "-c", script], shown),
        // The controls: it is what the program has written, and comes when it is asked for.
        (&["logs", "--raw", "evil"], sent),
        (&["exec", "-t", "box", "sh", "-c", script], sent),
    ] {
        let mut screen = Screen::new();
        let mut child = screen.runs(person.command(words));
        assert_eq!(code_of(&mut child), Some(0), "{words:?}");
        assert_eq!(screen.sees("c\r\n"), expected, "{words:?}");
    }
    // An output of its own that a person looks at, while the other goes into a file.
    let id = run(&client, "aside", &format!("{script} >&2"), json!({})).await;
    log_with(&client, &id, "eA==").await;
    let mut screen = Screen::new();
    let mut command = person.command(&["logs", "aside"]);
    let end = screen.slave.try_clone().expect("copy the terminal");
    let mut child = command.stdout(Stdio::null()).stderr(end).spawn().expect("run berth");
    assert_eq!(code_of(&mut child), Some(0));
    assert_eq!(screen.sees("c\r\n"), shown);
    // What people choose as names and labels goes to tables and JSON.
    let body = json!({
        "name": "odd", "image": "berth/busybox:1", "command": ["echo", "\u{1b}[2J\u{9b}x"],
    });
    client.post("/api/v1/containers", &body).await.expect_status(201);
    let text = person.gets(&["inspect", "odd"]).await;
    assert!(text.contains("echo \\x1b[2J\\u{9b}x"), "{text}");
    let text = person.gets(&["inspect", "--json", "odd"]).await;
    assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
    let value = person.gets_json(&["inspect", "odd"]).await;
    assert_eq!(value[0]["content"]["args"][1], "\u{1b}[2J\u{9b}x");
}

#[tokio::test]
async fn a_password_is_typed_unseen() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    server.person("anna", "user").await;
    let person = Person::at(&server.url());
    let login = person.command(&["login", &person.url]);
    // A session of its own, with this terminal as the one to ask at.
    let at_it = || {
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(login.get_program()).args(login.get_args());
        command.env_clear().env("HOME", &person.home);
        command
    };
    let mut screen = Screen::new();
    let mut child = screen.runs(at_it());
    screen.sees("Name at ");
    screen.types("anna\n");
    screen.sees("Password of anna: ");
    assert!(!screen.is_as_it_was(), "the control: there is no echo");
    screen.types(&format!("{PASSWORD}\n"));
    assert!(!screen.sees("signed in at").contains(PASSWORD));
    assert_eq!(code_of(&mut child), Some(0));
    assert!(screen.is_as_it_was());
    // Ctrl-C at the question.
    let mut screen = Screen::new();
    let mut child = screen.runs(at_it());
    screen.sees("Name at ");
    screen.types("anna\n");
    screen.sees("Password of anna: ");
    screen.types("\u{3}");
    assert_eq!(code_of(&mut child), Some(130));
    assert!(screen.is_as_it_was());
}

#[tokio::test]
async fn a_container_is_run_at_the_terminal_left_and_come_back_to() {
    requires_root!();
    let (_server, person) = furnished().await;
    let mut screen = Screen::new();
    // --rm is for what is over.
    let words = ["run", "-it", "--rm", "--name", "mine", "berth/busybox:1", "sh"];
    let mut child = screen.runs(person.command(&words));
    screen.sees("# ");
    screen.types("A=kept; busybox stty size; echo rea''dy\n");
    assert!(screen.sees("ready\r\n").contains("33 101\r\n"));
    assert!(!screen.is_as_it_was(), "the control: it is raw now");
    screen.types("\u{10}\u{11}");
    assert_eq!(code_of(&mut child), Some(0));
    assert!(screen.is_as_it_was());
    screen.sees("berth attach mine");
    let mut child = screen.runs(person.command(&["attach", "mine"]));
    // What it wrote last comes first.
    screen.sees("ready\r\n");
    screen.types("echo $A $A\n");
    screen.sees("kept kept\r\n");
    screen.types("exit 7\n");
    assert_eq!(code_of(&mut child), Some(7));
    assert!(screen.is_as_it_was());
    let shown = person.gets_json(&["inspect", "mine"]).await;
    assert_eq!(shown[0]["exit"]["code"], 7, "{shown}");
    // One that is over before anybody could be with it has said what it had to say.
    let words = ["run", "-t", "--rm", "berth/busybox:1", "sh", "-c", "echo bri''ef; exit 4"];
    let mut child = screen.runs(person.command(&words));
    assert_eq!(code_of(&mut child), Some(4));
    screen.sees("brief");
}
