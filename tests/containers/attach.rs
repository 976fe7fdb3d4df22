//! Being with a container's first program: its terminal or standard input, left and come back to.

use serde_json::{Value, json};
use system_tests::containers::{act, import, in_status, log, log_with, run};
use system_tests::socket::{Socket, text};
use system_tests::{Check, Client, TestServer, requires_root};

use crate::execs::commands_until;

const SAME_SITE: &[(&str, &str)] = &[("sec-fetch-site", "same-origin")];

async fn attached(client: &Client, id: &str) -> Socket {
    Socket::attach(client, &format!("/api/v1/containers/{id}/attach")).await
}

/// A container whose program is a shell on a terminal.
async fn shell(client: &Client, name: &str) -> String {
    let id = run(client, name, "exec sh", json!({"terminal": true})).await;
    in_status(client, &id, "running").await;
    id
}

#[tokio::test]
async fn a_program_with_a_terminal_is_typed_at_left_and_come_back_to() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = shell(&anna, "desk").await;
    let shown = anna.get(&format!("/api/v1/containers/{id}")).await.json();
    assert_eq!((&shown["terminal"], &shown["stdin"]), (&json!(true), &json!(true)));

    let mut socket = attached(&anna, &id).await;
    // The prompt was there before anybody came.
    socket.until_shown("# ").await;
    socket.order(json!({"resize": {"columns": 97, "rows": 31}})).await;
    socket.write("echo si''ze $(stty size) $TERM; tty\n").await;
    socket.until_shown("size 31 97 xterm-256color\r\n").await;
    socket.until_shown("/dev/").await;
    // Its log has it line by line, without the terminal's returns.
    log_with(&anna, &id, "size 31 97 xterm-256color\n").await;
    assert!(!log(&anna, &id, "").await.contains("\r\n"));

    // Ctrl-C ends what is in front, not the shell.
    socket.write("sleep 7777; echo un''til\n").await;
    commands_until(&anna, &id, |all| all.iter().any(|one| one == "sleep 7777")).await;
    socket.write("\u{3}").await;
    socket.until(|socket| text(&socket.stdout).contains("^C")).await;
    socket.write("echo af''ter\n").await;
    socket.until_shown("after\r\n").await;

    // Whoever comes back is told what they have missed, and no more than that.
    let received = socket.received;
    socket.write("echo mis''sed\n").await;
    socket.hang_up();
    log_with(&anna, &id, "missed\n").await;
    let path = format!("/api/v1/containers/{id}/attach?from={received}");
    let mut socket = Socket::attach(&anna, &path).await;
    socket.until_shown("missed\r\n").await;
    assert!(!text(&socket.stdout).contains("after\r\n"), "{:?}", text(&socket.stdout));

    // A second one takes the place of the first.
    let mut second = attached(&anna, &id).await;
    while socket.next().await {}
    assert_eq!(socket.closed, Some(4001));

    second.write("exit 7\n").await;
    assert_eq!(second.exit().await, json!({"code": 7, "signal": null}));
    let ended = in_status(&anna, &id, "exited").await;
    assert_eq!(ended["exit"]["code"], 7, "{ended}");
    let path = format!("/api/v1/containers/{id}/attach");
    let refused = Socket::try_attach(&anna, &path, SAME_SITE).await;
    assert_eq!(refused.err(), Some(409));
    // And again, with a terminal of its own.
    act(&anna, &id, "start").await.expect_status(200);
    attached(&anna, &id).await.until_shown("# ").await;
}

#[tokio::test]
async fn an_open_standard_input_is_written_to_and_ended() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let script = "echo ready; echo apart >&2; cat; echo done; exit 3";
    let id = run(&anna, "filter", script, json!({"stdin": true})).await;
    in_status(&anna, &id, "running").await;
    let mut socket = attached(&anna, &id).await;
    socket.until(|socket| !socket.stderr.is_empty() && !socket.stdout.is_empty()).await;
    assert_eq!((text(&socket.stdout), text(&socket.stderr)), ("ready\n".into(), "apart\n".into()));
    socket.order(json!({"resize": {"columns": 80, "rows": 24}})).await;
    socket.until(|socket| !socket.said.is_empty()).await;
    assert_eq!(socket.said.remove(0)["refused"]["code"], "request.invalid");

    // More than any buffer on the way holds, and all of it comes back.
    let line = "x".repeat(1023) + "\n";
    for _ in 0..600 {
        socket.write(line.clone()).await;
        let wanted = socket.stdout.len() + line.len();
        socket.until(|socket| socket.stdout.len() >= wanted).await;
    }
    socket.order(json!({"eof": true})).await;
    assert_eq!(socket.exit().await, json!({"code": 3, "signal": null}));
    assert!(text(&socket.stdout).ends_with("x\ndone\n"));
    assert_eq!(socket.stdout.len(), "ready\n".len() + 600 * 1024 + "done\n".len());
}

#[tokio::test]
async fn a_slow_reader_is_told_what_they_were_not_sent_and_the_log_has_it() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let script = "read go; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); \
        echo $i:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done; read end";
    let id = run(&anna, "talker", script, json!({"stdin": true})).await;
    in_status(&anna, &id, "running").await;
    let mut socket = attached(&anna, &id).await;
    // From here on the server sends no more than 128 KiB ahead of what it is told has come.
    socket.order(json!({"received": 0})).await;
    socket.write("go\n").await;
    // The program has written all of it although nobody has read it, and waits for its end.
    log_with_last(&anna, &id, "20000:").await;
    let mut lost = 0;
    while !text(&socket.stdout).contains("\n20000:") {
        socket.take().await;
        assert!(socket.next().await, "{:?}", socket.closed);
        for said in socket.said.drain(..) {
            let bytes = said["lost"].as_u64().unwrap_or_else(|| panic!("{said}"));
            socket.received += bytes;
            lost += bytes;
        }
    }
    assert!(lost > 500_000, "{lost} of {}", socket.received);
    assert!(text(&log(&anna, &id, "").await.into_bytes()).contains("\n10000:"));
    socket.write("end\n").await;
    assert_eq!(socket.exit().await["code"], 0);
}

/// Waits for the log's last line.
async fn log_with_last(client: &Client, id: &str, text: &str) {
    let deadline = std::time::Instant::now() + system_tests::containers::LIMIT;
    while !log(client, id, "tail=1").await.contains(text) {
        assert!(std::time::Instant::now() < deadline, "{text:?} is not in the log");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_program_outlives_whoever_is_with_it_and_the_server() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = shell(&anna, "desk").await;
    let mut socket = attached(&anna, &id).await;
    socket.write("here=st''ill\n").await;
    socket.until_shown("st''ill").await;
    server.stop_server();
    while socket.next().await {}
    assert_eq!(socket.closed, Some(1001), "{:?}", socket.said);
    server.start_server().await;
    let mut socket = attached(&anna, &id).await;
    // What was there comes first.
    socket.until_shown("st''ill").await;
    socket.write("echo $here $$\n").await;
    socket.until_shown("still 1\r\n").await;
}

#[tokio::test]
async fn only_its_owner_is_with_it_and_only_if_it_was_made_for_that() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    let eve = server.person("eve", "user").await;
    import(&anna).await;
    let id = shell(&anna, "desk").await;
    let path = format!("/api/v1/containers/{id}/attach");
    for (who, client, status) in [("another person", &eve, 404), ("an operator", &olga, 403)] {
        let refused = Socket::try_attach(client, &path, SAME_SITE).await.err();
        let variant = format!("{who} attaches to somebody's program");
        let control = "its owner does, and types";
        let seen = refused.map_or_else(|| "let in".to_owned(), |status| status.to_string());
        Check { id: "W04", variant: &variant, control }.sees(status, seen);
    }
    attached(&anna, &id).await.until_shown("# ").await;

    let plain = run(&anna, "plain", "sleep 7777", Value::Null).await;
    in_status(&anna, &plain, "running").await;
    let refused = anna.get(&format!("/api/v1/containers/{plain}/attach")).await;
    assert_eq!((refused.status, refused.code()), (400, "request.no-websocket".to_owned()));
    let path = format!("/api/v1/containers/{plain}/attach");
    assert_eq!(Socket::try_attach(&anna, &path, SAME_SITE).await.err(), Some(409));
    let listed = anna.get(&format!("/api/v1/containers/{id}/execs")).await.json();
    assert_eq!(listed["items"], json!([]), "it is no program beside the first");
    let gone = anna.get(&format!("/api/v1/containers/{id}/execs/0")).await;
    assert_eq!(gone.status, 404, "{gone:?}");
}
