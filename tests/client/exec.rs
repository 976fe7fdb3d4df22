//! `berth exec` between pipes: bytes both ways, exit codes, and a connection that breaks.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::json;
use system_tests::containers::{import, run};
use system_tests::instance::PASSWORD;
use system_tests::{TestServer, requires_root};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::{LIMIT, Person, url_of};

/// A running container `box` of anna's.
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
async fn a_program_gets_its_input_and_its_end_is_ours() {
    requires_root!();
    let (_server, person) = furnished().await;
    let script = "cat; echo err >&2; exit 5";
    let done = person.does(&["exec", "-i", "box", "sh", "-c", script], "hello").await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(5), "hello"), "{done:?}");
    assert_eq!(done.stderr, "err\n");
    // Without -i there is no input, and no wait for one.
    assert_eq!(person.gets(&["exec", "box", "cat"]).await, "");
    let words =
        ["exec", "-e", "A=b", "-w", "/tmp", "-u", "7", "box", "sh", "-c", "echo $A $PWD; id -u"];
    assert_eq!(person.gets(&words).await, "b /tmp\n7\n");
    let done = person.does(&["exec", "box", "sh", "-c", "kill -KILL $$"], "").await;
    assert_eq!(done.code, Some(137), "{done:?}");
    person.does(&["exec", "box", "no-such-program"], "").await.fails(127, "no-such-program");
    person.does(&["exec", "box", "/etc/passwd"], "").await.fails(126, "berth: ");
    person.does(&["exec", "nobody", "true"], "").await.fails(1, "berth: ");
    person.does(&["exec", "-it", "box", "sh"], "").await.fails(2, "no terminal");
}

#[tokio::test]
async fn a_user_of_the_host_needs_neither_login_nor_password() {
    requires_root!();
    let (server, _) = furnished().await;
    let people = server.operator().get("/api/v1/people").await.expect_status(200).json();
    let people = people["items"].as_array().expect("people").clone();
    let anna = people.iter().find(|person| person["name"] == "anna").expect("anna");
    let page = format!("/api/v1/people/{}", anna["id"]);
    let address = format!("unix:{}", server.run_dir().join("local/berth.sock").display());
    let person = Person::at(&address);
    // Users that every host of ours has (/usr/share/doc/base-passwd).
    let as_user = |uid: u32, words: &[&str]| {
        use std::os::unix::process::CommandExt;
        let mut command = person.command(words);
        let command = command.env("BERTH_SERVER", &address).stdin(Stdio::null());
        command.uid(uid).gid(uid).output().expect("run berth")
    };
    let words = ["exec", "box", "sh", "-c", "echo here; exit 3"];
    let stranger = as_user(1, &words);
    let said = String::from_utf8_lossy(&stranger.stderr).into_owned();
    assert!(stranger.status.code() == Some(1) && said.contains("daemon"), "{stranger:?}");
    server.operator().patch(&page, &json!({"local_user": "daemon"})).await.expect_status(200);
    let done = as_user(1, &words);
    assert_eq!(
        (done.status.code(), done.stdout.as_slice()),
        (Some(3), b"here\n".as_slice()),
        "{done:?}"
    );
    // The control: another user of the host is nobody still.
    assert_eq!(as_user(2, &words).status.code(), Some(1));
}

#[tokio::test]
async fn much_goes_both_ways_at_once() {
    requires_root!();
    let (_server, person) = furnished().await;
    // More than all buffers on the way together hold.
    let sent: String = (0..400_000).map(|number| format!("{number}\n")).collect();
    let done = person.does(&["exec", "-i", "box", "cat"], &sent).await.good();
    assert!(done.stdout == sent, "{} of {} bytes came back", done.stdout.len(), sent.len());
}

#[tokio::test]
async fn a_signal_is_the_programs_first() {
    requires_root!();
    let (_server, person) = furnished().await;
    let script = "trap 'echo caught; exit 9' INT; echo ready; while true; do usleep 20000; done";
    let mut command = person.command(&["exec", "box", "sh", "-c", script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().expect("run berth");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut line = [0; 6];
    stdout.read_exact(&mut line).await.expect("it says that it is ready");
    let pid = i32::try_from(child.id().expect("it runs")).expect("a pid fits");
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it lives");
    let status = tokio::time::timeout(LIMIT, child.wait()).await.expect("it ends");
    assert_eq!(status.expect("wait for berth").code(), Some(9));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.expect("the rest");
    assert_eq!(rest, "caught\n");
}

/// A way to `server` that breaks, with all connections on it, at each change of the value.
async fn breakable(server: SocketAddr) -> (SocketAddr, watch::Sender<u32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("it is bound");
    let (breaks, broken) = watch::channel(0);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut broken = broken.clone();
            broken.borrow_and_update();
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(server).await else { return };
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    _ = broken.changed() => {}
                }
            });
        }
    });
    (address, breaks)
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_again_with_what_was_missed() {
    requires_root!();
    let (server, _person) = furnished().await;
    let (address, breaks) = breakable(server.address).await;
    let person = Person::at(&url_of(address));
    let login = ["login", &person.url, "--user", "anna", "--password-stdin"];
    person.does(&login, PASSWORD).await.good();
    let script = "echo one; read a; echo $a; read b; echo $b; exit 4";
    let mut command = person.command(&["exec", "-i", "box", "sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().expect("run berth");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut line = [0; 4];
    stdout.read_exact(&mut line).await.expect("the first line");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    for (number, word) in [(1, "two\n"), (2, "six\n")] {
        breaks.send(number).expect("somebody is connected");
        // What is typed into a connection that breaks is nobody's.
        for told in ["the connection is lost", "back"] {
            let line = tokio::time::timeout(LIMIT, stderr.next_line()).await.expect("it tells");
            let line = line.expect("read what it tells").expect("it lives");
            assert!(line.contains(told), "{line}");
        }
        stdin.write_all(word.as_bytes()).await.expect("write");
        let back = tokio::time::timeout(LIMIT, stdout.read_exact(&mut line)).await;
        back.expect("it comes back").expect("the next line");
        assert_eq!(std::str::from_utf8(&line), Ok(word));
    }
    let status = tokio::time::timeout(LIMIT, child.wait()).await.expect("it ends");
    assert_eq!(status.expect("wait for berth").code(), Some(4));
}
