//! Programs beside a container's first one: answered at once, and attached to by a WebSocket.

use std::time::Instant;

use serde_json::{Value, json};
use system_tests::containers::{LIMIT, act, import, in_status, run, until};
use system_tests::socket::{Socket, open, text};
use system_tests::{Check, Client, Options, TestServer, requires_root};

/// A container that waits.
async fn waiting(client: &Client, name: &str, more: Value) -> String {
    let id = run(client, name, "while :; do sleep 1000; done", more).await;
    in_status(client, &id, "running").await;
    id
}

async fn once(client: &Client, id: &str, body: Value) -> Value {
    client.post(&format!("/api/v1/containers/{id}/exec"), &body).await.expect_status(200).json()
}

/// The command lines in the container once `good`.
pub(crate) async fn commands_until(client: &Client, id: &str, good: impl Fn(&[String]) -> bool) {
    let commands = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().into_iter().flatten();
        items.map(|item| item["command"].as_str().unwrap_or("").to_owned()).collect()
    };
    let path = format!("/api/v1/containers/{id}/processes");
    until(client, &path, |list| good(&commands(list))).await;
}

#[tokio::test]
async fn a_program_is_run_to_its_end_and_answered() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let more = json!({"env": {"MINE": "container"}, "working_dir": "/tmp", "user": "7:8"});
    let id = waiting(&anna, "host", more).await;
    let program = |command: Value| json!({"program": {"command": command}});

    let script = "echo out; echo err >&2; id -u; busybox pwd; echo $MINE $FROM; exit 3";
    let said = once(&anna, &id, program(json!(["sh", "-c", script]))).await;
    assert_eq!((&said["exit_code"], &said["exit_signal"]), (&json!(3), &json!(null)), "{said}");
    assert_eq!(said["stdout"], "out\n7\n/tmp\ncontainer image\n");
    assert_eq!(said["stderr"], "err\n");
    assert_eq!((&said["timed_out"], &said["truncated"]), (&json!(false), &json!(false)));

    let body = json!({"program": {"command": ["sh", "-c", "id -u; busybox pwd; echo $MINE"],
                      "user": "0", "working_dir": "/", "env": {"MINE": "program"}}});
    assert_eq!(once(&anna, &id, body).await["stdout"], "0\n/\nprogram\n");

    let said = once(&anna, &id, program(json!(["sh", "-c", "kill -9 $$"]))).await;
    assert_eq!((&said["exit_code"], &said["exit_signal"]), (&json!(null), &json!("KILL")));

    // Bytes that are no text go both ways.
    let body = json!({"program": {"command": ["cat"]}, "stdin": "/wD+", "encoding": "base64"});
    assert_eq!(once(&anna, &id, body).await["stdout"], "/wD+");
    // Nobody reads it: that is no failure.
    let body = json!({"program": {"command": ["true"]}, "stdin": "x".repeat(500_000)});
    assert_eq!(once(&anna, &id, body).await["exit_code"], 0);

    let script = "head -c 600000 /dev/zero; echo short >&2";
    let said = once(&anna, &id, program(json!(["sh", "-c", script]))).await;
    assert_eq!(said["stdout"].as_str().map(str::len), Some(512 << 10));
    assert_eq!((&said["truncated"], &said["stderr"]), (&json!(true), &json!("short\n")));

    // Longer than it may take: what there is comes, and it is gone.
    let body = json!({"program": {"command": ["sh", "-c", "echo begun; sleep 7777"]},
                      "timeout_secs": 1});
    let said = once(&anna, &id, body).await;
    assert_eq!((&said["timed_out"], &said["stdout"]), (&json!(true), &json!("begun\n")));
    commands_until(&anna, &id, |all| !all.iter().any(|one| one.contains("7777"))).await;

    let path = format!("/api/v1/containers/{id}/exec");
    let refused = anna.post(&path, &program(json!(["no-such-program"]))).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.text.contains("no-such-program"), "{refused:?}");
    let activity = anna.get(&format!("/api/v1/containers/{id}/activity")).await.json();
    assert_eq!(activity["items"][0]["kind"], "container.exec", "{activity}");
    act(&anna, &id, "pause").await.expect_status(200);
    let refused = anna.post(&path, &program(json!(["true"]))).await;
    assert_eq!((refused.status, refused.code()), (409, "container.paused".to_owned()));
    act(&anna, &id, "resume").await.expect_status(200);
    act(&anna, &id, "stop").await.expect_status(200);
    let refused = anna.post(&path, &program(json!(["true"]))).await;
    assert_eq!((refused.status, refused.code()), (409, "container.not-running".to_owned()));
}

#[tokio::test]
async fn whoever_hangs_up_on_a_program_ends_it() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = waiting(&anna, "host", json!({})).await;
    let path = format!("/api/v1/containers/{id}/exec");
    let body = json!({"program": {"command": ["sleep", "7777"]}, "timeout_secs": 50});
    let asked = tokio::spawn({
        let anna = anna.clone();
        async move { anna.post(&path, &body).await }
    });
    commands_until(&anna, &id, |all| all.iter().any(|one| one == "sleep 7777")).await;
    asked.abort();
    commands_until(&anna, &id, |all| !all.iter().any(|one| one == "sleep 7777")).await;
}

#[tokio::test]
async fn a_program_whose_end_nobody_saw_has_not_run_out_of_time() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = waiting(&anna, "host", json!({})).await;
    let body = json!({"program": {"command": ["sleep", "7777"]}, "timeout_secs": 50});
    let asked = tokio::spawn({
        let (anna, id) = (anna.clone(), id.clone());
        async move { once(&anna, &id, body).await }
    });
    commands_until(&anna, &id, |all| all.iter().any(|one| one == "sleep 7777")).await;
    let record = server.run_dir().join(format!("containers/{id}/execs/1"));
    let record = std::fs::read_to_string(&record).expect("the program's record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    let pid = record["monitor"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let pid = nix::unistd::Pid::from_raw(pid.expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("it lives");
    let said = asked.await.expect("it was answered");
    assert_eq!((&said["timed_out"], &said["exit_code"]), (&json!(false), &json!(null)), "{said}");
    assert_eq!(said["exit_signal"], Value::Null);
    commands_until(&anna, &id, |all| !all.iter().any(|one| one == "sleep 7777")).await;
}

#[tokio::test]
async fn a_terminal_is_used_left_and_come_back_to() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = waiting(&anna, "host", json!({})).await;
    let path = open(&anna, &id, "exec sh", true).await;
    let attach = format!("{path}/attach");
    let mut socket = Socket::attach(&anna, &attach).await;
    socket.write("busybox stty size; echo $TERM\n").await;
    socket.until_shown("24 80\r\nxterm-256color\r\n").await;
    socket.order(json!({"resize": {"columns": 132, "rows": 43}})).await;
    // The order and what is typed go by different ways: it may be asked before it is so.
    let deadline = Instant::now() + LIMIT;
    while !text(&socket.stdout).contains("43 132\r\n") {
        assert!(Instant::now() < deadline, "{}", text(&socket.stdout));
        socket.stdout.clear();
        socket.write("busybox stty size; echo do''ne\n").await;
        socket.until_shown("done\r\n").await;
    }
    for wrong in [json!({"resize": {"columns": 0, "rows": 43}}), json!({"signal": 99}), json!(1)] {
        let before = socket.said.len();
        socket.order(wrong).await;
        socket.until(|socket| socket.said.len() > before).await;
        assert!(socket.said[before]["refused"]["code"].is_string(), "{:?}", socket.said);
    }
    // ^C is the foreground's, not the shell's end.
    socket.write("sleep 7777\n").await;
    commands_until(&anna, &id, |all| all.iter().any(|one| one == "sleep 7777")).await;
    socket.write([3]).await;
    socket.write("echo go''es on\n").await;
    socket.until_shown("goes on").await;

    let shown = anna.get(&path).await.expect_status(200).json();
    assert_eq!((&shown["running"], &shown["attached"]), (&json!(true), &json!(true)), "{shown}");
    // It writes while nobody is there; whoever comes back has all of it, once and in order.
    socket.write("seq 1 3000; echo en''d\n").await;
    socket.until_shown("\n17\r\n").await;
    let (first, from) = (socket.stdout.clone(), socket.received);
    socket.hang_up();
    until(&anna, &path, |shown| shown["attached"] == false).await;
    let mut socket = Socket::attach(&anna, &format!("{attach}?from={from}")).await;
    socket.until_shown("end\r\n").await;
    let whole = format!("{}{}", text(&first), text(&socket.stdout));
    let numbers: String = (1..=3000).map(|number| format!("{number}\r\n")).collect();
    assert!(whole.contains(&numbers), "not whole: {whole}");
    // Beyond its end there is nothing to go on from.
    assert_eq!(
        Socket::try_attach(&anna, &format!("{attach}?from=99999999"), OURS).await.err(),
        Some(422)
    );

    // Another takes one's place.
    let mut second = Socket::attach(&anna, &attach).await;
    while socket.next().await {}
    assert_eq!(socket.closed, Some(4001));
    second.write("exit 5\n").await;
    assert_eq!(second.exit().await, json!({"code": 5, "signal": null}));
    assert_eq!(second.closed, Some(1000));
    // The end waits for whoever comes back, too.
    let shown = anna.get(&path).await.expect_status(200).json();
    assert_eq!((&shown["running"], &shown["exit_code"]), (&json!(false), &json!(5)), "{shown}");
    let mut late = Socket::attach(&anna, &attach).await;
    assert_eq!(late.exit().await, json!({"code": 5, "signal": null}));
    assert!(text(&late.stdout).contains("goes on"), "what was written stays");
    anna.delete(&path).await.expect_status(204);
    assert_eq!(anna.get(&path).await.status, 404);
}

type Headers<'a> = &'a [(&'a str, &'a str)];

/// Headers of our own page.
const OURS: Headers = &[("sec-fetch-site", "same-origin")];

#[tokio::test]
async fn pipes_are_kept_apart_and_the_end_of_input_is_told() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = waiting(&anna, "host", json!({})).await;
    let script = "[ -t 0 ] && exit 9; echo err >&2; cat; echo after; exit 4";
    let path = open(&anna, &id, script, false).await;
    let mut socket = Socket::attach(&anna, &format!("{path}/attach")).await;
    let sent: Vec<u8> = (0..300_000u32).map(|number| (number % 251) as u8).collect();
    for piece in sent.chunks(50_000) {
        socket.write(piece).await;
    }
    socket.order(json!({"resize": {"columns": 80, "rows": 24}})).await;
    socket.order(json!({"eof": true})).await;
    assert_eq!(socket.exit().await, json!({"code": 4, "signal": null}));
    assert_eq!(text(&socket.stderr), "err\n");
    assert_eq!(socket.stdout, [sent.as_slice(), b"after\n"].concat());
    let refused = &socket.said[0]["refused"]["detail"];
    assert!(refused.as_str().is_some_and(|text| text.contains("no terminal")), "{refused}");

    let path = open(&anna, &id, "trap 'echo got; exit 6' USR1; echo on; cat", false).await;
    let mut socket = Socket::attach(&anna, &format!("{path}/attach")).await;
    socket.until_shown("on\n").await;
    socket.order(json!({"signal": 10})).await;
    // The shell takes it when what it waits for has ended.
    socket.order(json!({"eof": true})).await;
    assert_eq!(socket.exit().await, json!({"code": 6, "signal": null}));

    // What ends the container ends all that is in it.
    let path = open(&anna, &id, "sleep 7777", true).await;
    let mut socket = Socket::attach(&anna, &format!("{path}/attach")).await;
    act(&anna, &id, "stop").await.expect_status(200);
    assert_eq!(socket.exit().await, json!({"code": null, "signal": 9}));
}

#[tokio::test]
async fn the_end_comes_to_whoever_is_still_writing() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = waiting(&anna, "host", json!({})).await;
    let path = open(&anna, &id, "echo all; exit 3", false).await;
    let mut socket = Socket::attach(&anna, &format!("{path}/attach")).await;
    until(&anna, &path, |shown| shown["running"] == false).await;
    // All was said by now. On a connection that was closed at once, writing would fail.
    for _ in 0..300 {
        socket.order(json!({"received": 0})).await;
    }
    assert_eq!(socket.exit().await, json!({"code": 3, "signal": null}));
    assert_eq!(text(&socket.stdout), "all\n");
}

#[tokio::test]
async fn a_reader_who_takes_nothing_holds_the_program_up_and_loses_nothing() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = waiting(&anna, "host", json!({})).await;
    const BYTES: u64 = 2_000_000;
    let script = format!("read go; head -c {BYTES} /dev/zero; : > /tmp/written");
    let path = open(&anna, &id, &script, false).await;
    let mut socket = Socket::attach(&anna, &format!("{path}/attach")).await;
    socket.order(json!({"received": 0})).await;
    socket.write("go\n").await;
    let window = 128 << 10;
    socket.until(|socket| socket.received >= window).await;
    let read = |shown: &Value| shown["output_bytes"].as_u64().expect("a number");
    let held = anna.get(&path).await.expect_status(200).json();
    assert!(held["running"] == true && read(&held) <= 2 * window, "it ran on: {held}");
    let listed = once(&anna, &id, json!({"program": {"command": ["ls", "/tmp"]}})).await;
    assert_eq!(listed["stdout"], "", "it has come to its end");
    // The control: what is taken makes room.
    while socket.received < BYTES {
        assert!(socket.next().await, "the end came first");
        socket.take().await;
    }
    assert_eq!(socket.exit().await, json!({"code": 0, "signal": null}));
    assert_eq!((socket.received, socket.stdout.len() as u64), (BYTES, BYTES));
    assert!(!socket.said.iter().any(|said| said["lost"].is_number()), "{:?}", socket.said);
    let listed = once(&anna, &id, json!({"program": {"command": ["ls", "/tmp"]}})).await;
    assert_eq!(listed["stdout"], "written\n");
}

#[tokio::test]
async fn only_its_owner_and_our_own_page_attach() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, eve) = (server.person("anna", "user").await, server.person("eve", "user").await);
    let (olga, argus) = (server.operator(), server.person("argus", "auditor").await);
    import(&anna).await;
    let id = waiting(&anna, "host", json!({})).await;
    let path = open(&anna, &id, "cat", true).await;
    let attach = format!("{path}/attach");
    let own = server.url();
    let token = anna.token("operate").await;
    let reading = anna.token("read").await;
    let sibling = format!("http://127.0.0.1:{}", server.address.port() ^ 1);
    let control = "her own page and her token attach";
    let tries: [(&str, &Client, Headers, u16); 11] = [
        ("a stranger", &eve, OURS, 404),
        ("an operator", &olga, OURS, 403),
        ("an auditor", &argus, OURS, 403),
        ("nobody", &server.anonymous(), OURS, 401),
        ("a token that may read", &reading, &[], 403),
        ("another site's page", &anna, &[("sec-fetch-site", "cross-site")], 403),
        ("a sibling's page", &anna, &[("sec-fetch-site", "same-site")], 403),
        ("a page typed in", &anna, &[("sec-fetch-site", "none")], 403),
        ("a foreign origin", &anna, &[("origin", "http://evil.example")], 403),
        ("a sibling's origin", &anna, &[("origin", &sibling)], 403),
        ("a cookie without an origin", &anna, &[], 403),
    ];
    for (variant, client, headers, status) in tries {
        let found = Socket::try_attach(client, &attach, headers).await.err().unwrap_or(101);
        Check { id: "W01", variant: &format!("attach by {variant}"), control }.sees(status, found);
    }
    for (client, headers) in
        [(&anna, OURS), (&anna, &[("origin", own.as_str())][..]), (&token, &[][..])]
    {
        let mut socket = Socket::attach_with(client, &attach, headers).await;
        socket.write("me\n").await;
        socket.until_shown("me\r\n").await;
    }
    let plain = anna.get(&attach).await;
    assert_eq!((plain.status, plain.code()), (400, "request.no-websocket".to_owned()));
}

#[tokio::test]
async fn the_end_of_the_right_to_it_ends_a_program() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, olga) = (server.person("anna", "user").await, server.operator());
    import(&anna).await;
    let id = waiting(&anna, "host", json!({})).await;
    let token = anna.token("operate").await;
    let path = open(&token, &id, "sleep 7777", true).await;
    let other = open(&anna, &id, "sleep 8888", true).await;
    let mut socket = Socket::attach_with(&token, &format!("{path}/attach"), &[]).await;
    let mut stays = Socket::attach(&anna, &format!("{other}/attach")).await;
    let tokens = anna.get("/api/v1/tokens").await.json();
    let number = tokens["items"][0]["id"].as_str().expect("a token");
    anna.delete(&format!("/api/v1/tokens/{number}")).await.expect_status(204);
    while socket.next().await {}
    assert_eq!(socket.closed, Some(1008));
    commands_until(&anna, &id, |all| !all.iter().any(|one| one == "sleep 7777")).await;
    // The control: hers by her session goes on, until that ends, attached to or not.
    stays.order(json!({"resize": {"columns": 99, "rows": 24}})).await;
    assert_eq!(anna.get(&other).await.json()["running"], true);
    stays.hang_up();
    let me = anna.get("/api/v1/me").await.json()["id"].to_string();
    let body = json!({"disabled": true});
    olga.patch(&format!("/api/v1/people/{me}"), &body).await.expect_status(200);
    let deadline = Instant::now() + LIMIT;
    loop {
        let list = olga.get(&format!("/api/v1/containers/{id}/processes")).await.json();
        let items = list["items"].as_array().map_or(0, Vec::len);
        // The first program and its sleep, or nothing when the container has been stopped with her.
        if items <= 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{list}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_program_that_nobody_comes_for_ends() {
    requires_root!();
    let server = "[containers]\nunattended_secs = 1\n".to_owned();
    let server = TestServer::with(Options { sections: server, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = waiting(&anna, "host", json!({})).await;
    let path = open(&anna, &id, "sleep 7777", true).await;
    let kept = open(&anna, &id, "sleep 8888", true).await;
    let _attached = Socket::attach(&anna, &format!("{kept}/attach")).await;
    commands_until(&anna, &id, |all| !all.iter().any(|one| one == "sleep 7777")).await;
    let deadline = Instant::now() + LIMIT;
    while anna.get(&path).await.status != 404 {
        assert!(Instant::now() < deadline, "it is still listed");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // The control: somebody is there.
    assert_eq!(anna.get(&kept).await.expect_status(200).json()["running"], true);
    // A server that is killed takes them along, and leaves the container.
    server.kill_server();
    server.start_server().await;
    commands_until(&anna, &id, |all| !all.iter().any(|one| one == "sleep 8888")).await;
    let again = once(&anna, &id, json!({"program": {"command": ["echo", "on"]}})).await;
    assert_eq!(again["stdout"], "on\n");
}
