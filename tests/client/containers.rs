//! `run`, `ps`, `logs`, `stats`, `inspect`, `start`, `stop`, `kill`, `rm`, `images`.

use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};
use system_tests::containers::{IMAGE, import, in_status, log_with, run, show, until};
use system_tests::registry::DockerRegistry;
use system_tests::{Client, Options, TestServer, image, requires_root};

use crate::{LIMIT, Person};

/// A server, somebody by the command line, and the same person by the API.
async fn furnished(name: &str) -> (TestServer, Person, Client) {
    furnished_with(Options::default(), name).await
}

async fn furnished_with(options: Options, name: &str) -> (TestServer, Person, Client) {
    let server = TestServer::with(options).await;
    let client = server.person(name, "user").await;
    import(&client).await;
    let person = Person::at(&server.url());
    person.sign_in(name).await;
    (server, person, client)
}

#[tokio::test]
async fn run_ends_as_its_program_does() {
    requires_root!();
    let (_server, person, client) = furnished("anna").await;
    let script = "echo out; echo err >&2; exit 7";
    let done = person.does(&["run", "--name", "a", IMAGE, "sh", "-c", script], "").await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(7), "out\n"), "{done:?}");
    assert_eq!(done.stderr, "err\n");
    // The program's own bytes, whatever they are.
    let words = ["run", "--name", "b", IMAGE, "sh", "-c", "printf '\\033]0;x\\007\\n'"];
    assert_eq!(person.gets(&words).await, "\u{1b}]0;x\u{7}\n");
    // Killed from outside, it ends as a shell says of a signal.
    let words = ["run", "--name", "c", IMAGE, "sh", "-c", "echo here; sleep 600"];
    let ends = async {
        until(&client, "/api/v1/containers/c", |shown| shown["status"] == "running").await;
        person.gets(&["kill", "c"]).await
    };
    let (done, _) = tokio::join!(person.does(&words, ""), ends);
    assert_eq!(done.code, Some(137), "{done:?}");
    let words = ["run", "--name", "d", "-m", "16m", "--cpus", "0.5", "--pids", "20", "-e", "A=b c"];
    let words = [&words[..], &["-w", "/tmp", "-u", "1:2", IMAGE]].concat();
    let script = "echo $A; pwd 2>&1; id -u; id -g";
    let words = [&words[..], &["sh", "-c", script]].concat();
    assert_eq!(person.gets(&words).await, "b c\n/tmp\n1\n2\n");
    let limits = show(&client, "d").await["limits"].clone();
    let is = json!([limits["memory_bytes"], limits["cpu_millis"], limits["pids"]]);
    assert_eq!(is, json!([16 << 20, 500, 20]));
    let words = ["run", "-d", "--name", "e", "-p", "8080", "-p", "53/udp", IMAGE, "sleep", "600"];
    person.gets(&words).await;
    let ports = show(&client, "e").await["ports"].clone();
    let host = |index: usize| ports[index]["host_port"].as_u64().expect("a port");
    let shown = format!("{}->8080/tcp, {}->53/udp", host(0), host(1));
    assert!(person.gets(&["ps"]).await.contains(&shown), "{ports}");
    person.does(&["run", "-p", "80/sctp", IMAGE], "").await.fails(2, "20080:8080");
}

#[tokio::test]
async fn volumes_are_made_mounted_shown_and_removed() {
    requires_root!();
    let (_server, person, client) = furnished("anna").await;
    assert_eq!(person.gets(&["volume", "create", "data", "sets"]).await, "data\nsets\n");
    person.does(&["volume", "create", "data"], "").await.fails(1, "data");
    let words = ["run", "--name", "a", "-v", "data:/d", "-v", "sets:/s:ro", IMAGE];
    let script = "echo kept > /d/f; echo no > /s/f";
    let words = [&words[..], &["sh", "-c", script]].concat();
    let done = person.does(&words, "").await;
    assert!(done.stderr.contains("Read-only file system"), "{done:?}");
    let words = ["run", "--rm", "--volume", "data:/e", IMAGE, "cat", "/e/f"];
    assert_eq!(person.gets(&words).await, "kept\n");
    let shown = person.gets(&["inspect", "a"]).await;
    assert!(shown.contains("data:/d, sets:/s:ro"), "{shown}");
    let shown = person.gets(&["volume", "inspect", "data"]).await;
    assert!(shown.contains("a on /d") && shown.contains("Files              1"), "{shown}");
    let listed = person.gets(&["volume", "ls"]).await;
    assert!(listed.contains("data") && listed.contains("anna"), "{listed}");
    assert_eq!(person.gets(&["volume", "ls", "-q"]).await, "data\nsets\n");
    person.does(&["volume", "rm", "data"], "").await.fails(1, "in use by a");
    // Nothing of a host's is mounted, and the refusal says what is instead.
    for path in ["/etc:/x", "./x:/x", "../x:/x:ro", "~/x:/x"] {
        let refused = person.does(&["run", "-v", path, IMAGE], "").await;
        refused.fails(2, "nothing of a host's can be mounted");
    }
    person.does(&["run", "-v", "none:/x", IMAGE], "").await.fails(125, "you have no volume");
    person.gets(&["rm", "a"]).await;
    assert_eq!(person.gets(&["volume", "rename", "data", "results"]).await, "results\n");
    assert_eq!(person.gets(&["volume", "rm", "results", "sets"]).await, "results\nsets\n");
    let left = client.get("/api/v1/volumes").await.json();
    assert_eq!(left["items"], json!([]));
}

#[tokio::test]
async fn data_sets_are_listed_and_read_in_a_container() {
    requires_root!();
    let sections = "[runtime.data_sets.licences]\npath = \"/usr/share/common-licenses\"\n\
                    description = \"Texts of licences\"\n[runtime.data_sets.theirs]\n\
                    path = \"/usr/share\"\ngroups = [\"others\"]\n";
    let options = Options { sections: sections.to_owned(), ..Options::default() };
    let (_server, person, _) = furnished_with(options, "anna").await;
    assert_eq!(person.gets(&["data-sets", "-q"]).await, "licences\n");
    let listed = person.gets(&["data-sets"]).await;
    assert!(listed.contains("Texts of licences") && !listed.contains("theirs"), "{listed}");
    let words = ["run", "--name", "a", "--data-set", "licences:/l", IMAGE];
    let script = "ls /l/GPL-3; echo no > /l/mine";
    let done = person.does(&[&words[..], &["sh", "-c", script]].concat(), "").await;
    assert!(done.stdout == "/l/GPL-3\n" && done.stderr.contains("Read-only"), "{done:?}");
    let shown = person.gets(&["inspect", "a"]).await;
    assert!(shown.contains("licences:/l"), "{shown}");
    let listed: Value =
        serde_json::from_str(&person.gets(&["data-sets", "--json"]).await).expect("JSON");
    assert_eq!((&listed[0]["places"], &listed[0]["path"]), (&json!(1), &Value::Null), "{listed}");
    for (mount, code, text) in [
        ("theirs:/l", 125, "no data set"),
        ("/usr/share:/l", 2, "NAME:/path"),
        ("licences:/l:rw", 2, "always read-only"),
    ] {
        person.does(&["run", "--data-set", mount, IMAGE], "").await.fails(code, text);
    }
}

#[tokio::test]
async fn containers_are_shared_used_by_others_and_shared_no_more() {
    requires_root!();
    let (server, anna, client) = furnished("anna").await;
    let tom = Person::signed_in(&server, "tom").await;
    anna.gets(&["run", "-d", "--name", "a", IMAGE, "sh", "-c", "echo said; sleep 900"]).await;
    let id =
        client.get("/api/v1/containers/a").await.json()["id"].as_str().expect("an id").to_owned();
    tom.does(&["exec", &id, "true"], "").await.fails(1, "no such container");
    anna.does(&["share", "add", "a"], "").await.fails(2, "--person");
    anna.does(&["share", "add", "a", "--group", "none"], "").await.fails(1, "no group named none");
    assert_eq!(anna.gets(&["share", "add", "a", "--person", "tom", "--may", "use"]).await, "tom\n");
    assert_eq!(tom.gets(&["exec", &id, "echo", "ran"]).await, "ran\n");
    assert_eq!(tom.gets(&["logs", &id]).await, "said\n");
    assert!(tom.gets(&["ps"]).await.contains(&id[..12]), "it is among his");
    tom.does(&["stop", &id], "").await.fails(1, "you may not");
    let listed = anna.gets(&["share", "ls", "a"]).await;
    assert!(listed.contains("tom") && listed.contains("state, logs, terminal, files"), "{listed}");
    assert_eq!(anna.gets(&["share", "rm", "a", "--person", "tom"]).await, "tom\n");
    tom.does(&["logs", &id], "").await.fails(1, "no such container");
    assert_eq!(anna.gets_json(&["share", "ls", "a"]).await, json!([]));
    // A volume the same way.
    anna.gets(&["volume", "create", "data"]).await;
    let share = ["share", "add", "data", "--volume", "--person", "tom"];
    assert_eq!(anna.gets(&share).await, "tom\n");
    let listed = tom.gets(&["volume", "ls"]).await;
    assert!(listed.contains("data") && listed.contains("anna"), "{listed}");
    assert!(tom.gets(&["volume", "inspect", "anna/data"]).await.contains("anna"), "by its name");
    anna.does(&["share", "add", "data", "--volume", "--person", "tom", "--may", "logs"], "")
        .await
        .fails(1, "files (to read it) and write can be shared");
    let listed = anna.gets(&["share", "ls", "data", "--volume"]).await;
    assert!(listed.contains("tom") && listed.contains("state, files"), "{listed}");
    anna.gets(&["share", "rm", "data", "--volume", "--person", "tom"]).await;
    assert!(!tom.gets(&["volume", "ls"]).await.contains("data"), "it is gone");
}

#[tokio::test]
async fn what_cannot_be_run_is_told_with_dockers_exit_codes() {
    requires_root!();
    let (_server, person, client) = furnished("anna").await;
    let words = ["run", "--rm", IMAGE, "no-such-program"];
    person.does(&words, "").await.fails(127, "no-such-program");
    let words = ["run", "--rm", IMAGE, "/etc/passwd"];
    person.does(&words, "").await.fails(126, "berth: ");
    run(&client, "taken", "sleep 600", json!({})).await;
    let words = ["run", "-d", "--name", "taken", IMAGE];
    person.does(&words, "").await.fails(125, "taken");
    person.does(&["run", "--name", "Bad Name", IMAGE], "").await.fails(125, "/name");
    person.does(&["run", "-it", IMAGE, "sh"], "").await.fails(2, "no terminal");
    person.does(&["run", "-m", "much", IMAGE], "").await.fails(2, "512m");
    person.does(&["run"], "").await.fails(2, "Usage");
    person.does(&["logs", "nobody"], "").await.fails(1, "berth: ");
    person.does(&["rm", ".."], "").await.fails(2, "no name");
    // Of many, those that can be are done.
    let done = person.does(&["stop", "--grace", "0", "nobody", "taken"], "").await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), "taken\n"), "{done:?}");
}

#[tokio::test]
async fn rm_at_the_end_leaves_nothing_behind() {
    requires_root!();
    let (_server, person, client) = furnished("anna").await;
    let words = ["run", "--rm", "--name", "gone", IMAGE, "sh", "-c", "echo here; exit 3"];
    let done = person.does(&words, "").await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(3), "here\n"), "{done:?}");
    assert_eq!(client.get("/api/v1/containers/gone").await.status, 404);
    person.does(&["run", "-d", "--rm", IMAGE], "").await.fails(2, "--detach");
}

#[tokio::test]
async fn ps_and_inspect_show_containers_to_people_and_programs() {
    requires_root!();
    let (_server, person, _client) = furnished("anna").await;
    let words = ["run", "-d", "--name", "web", "-m", "32m", IMAGE, "sleep", "600"];
    assert_eq!(person.gets(&words).await, "web\n");
    person.does(&["run", "--name", "over", IMAGE, "false"], "").await.fails(1, "");
    let table = person.gets(&["ps"]).await;
    assert!(table.starts_with("NAME") && table.contains("32 MiB"), "{table}");
    assert!(table.contains("web") && !table.contains("over"), "{table}");
    assert_eq!(person.gets(&["ps", "-a", "-q"]).await, "over\nweb\n");
    let items = person.gets_json(&["ps", "-a"]).await;
    assert_eq!((&items[0]["name"], &items[0]["exit"]["code"]), (&json!("over"), &json!(1)));
    let shown = person.gets_json(&["inspect", "web", "over"]).await;
    assert_eq!((&shown[0]["status"], &shown[1]["name"]), (&json!("running"), &json!("over")));
    assert!(person.gets(&["inspect", "web"]).await.contains("sleep 600"));
    let table = person.gets(&["stats"]).await;
    assert!(table.contains("web") && table.contains("/ 32 MiB"), "{table}");
    let stats = person.gets_json(&["stats", "web"]).await;
    assert!(stats[0]["sample"]["memory"]["used_bytes"].is_u64(), "{stats}");
    assert!(person.gets(&["images"]).await.contains(IMAGE));
    let table = person.gets(&["gc", "--days", "0", "--tagged"]).await;
    assert!(
        table.contains("stays") && table.contains("the containers over, web use it"),
        "{table}"
    );
    let shown = person.gets_json(&["gc"]).await;
    assert_eq!(shown["items"][0]["verdict"], "keep", "{shown}");
    person.does(&["gc", "--everyone"], "").await.fails(1, "only operators");

    person.gets(&["kill", "web"]).await;
    let status = || async { person.gets_json(&["inspect", "web"]).await[0]["status"].clone() };
    let begin = Instant::now();
    while status().await != "exited" {
        assert!(begin.elapsed() < LIMIT, "it was not killed");
    }
    assert_eq!(person.gets(&["start", "web"]).await, "web\n");
    assert_eq!(status().await, "running");
    person.does(&["rm", "web"], "").await.fails(1, "web");
    person.does(&["extend", "web"], "").await.fails(1, "without an end");
    assert_eq!(person.gets(&["extend", "--for", "1h30m", "web"]).await, "web\n");
    assert!(person.gets(&["inspect", "web"]).await.contains("Is stopped"));
    assert_eq!(person.gets(&["stop", "--grace", "0", "web"]).await, "web\n");
    assert_eq!(person.gets(&["rm", "web", "over"]).await, "web\nover\n");
    assert_eq!(person.gets(&["ps", "-aq"]).await, "");
    let gone = person.gets(&["gc", "--days", "0", "--tagged", "--remove"]).await;
    assert!(gone.contains("removed"), "{gone}");
    assert!(!person.gets(&["images"]).await.contains(IMAGE));
}

#[tokio::test]
async fn logs_follow_to_the_end_and_no_secret_is_seen_meanwhile() {
    requires_root!();
    let (_server, person, client) = furnished("anna").await;
    let script = "echo one; while [ ! -e /tmp/on ]; do usleep 20000; done; echo two";
    let id = run(&client, "talks", script, json!({})).await;
    log_with(&client, &id, "one").await;
    assert_eq!(person.gets(&["logs", "talks"]).await, "one\n");
    let mut command = tokio::process::Command::from(person.command(&["logs", "-f", "talks"]));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().expect("run berth");
    let pid = child.id().expect("it runs");
    let token = person.token();
    // It follows: the server counts a stream, and the process has read its credentials.
    let socket = || {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let mut targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.any(|target| target.to_string_lossy().starts_with("socket:"))
    };
    let begin = Instant::now();
    while !socket() {
        assert!(begin.elapsed() < LIMIT, "it does not connect");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    for file in ["cmdline", "environ"] {
        let text = std::fs::read(format!("/proc/{pid}/{file}")).expect("it lives");
        assert!(!text.is_empty());
        assert!(!String::from_utf8_lossy(&text).contains(&token), "the token is in {file}");
    }
    // The container may end before this does, which is killed then.
    let done = person.does(&["exec", "talks", "mkdir", "/tmp/on"], "").await;
    assert!(matches!(done.code, Some(0 | 137)), "{done:?}");
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    let output = output.expect("it ends").expect("wait for berth");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n");
    in_status(&client, &id, "exited").await;
    let last = person.gets_json(&["logs", "-n", "1", "talks"]).await;
    assert_eq!((&last["text"], &last["stream"]), (&json!("two"), &json!("stdout")));
}

#[tokio::test]
async fn what_nobody_reads_ends_quietly() {
    requires_root!();
    let (_server, person, _client) = furnished("anna").await;
    let words = ["run", "--name", "much", IMAGE, "sh", "-c", "seq 1 20000; sleep 600"];
    let berth = person.command(&words);
    let mut shell = tokio::process::Command::new("bash");
    let line = "\"$0\" \"$@\" | head -n 1; echo \"${PIPESTATUS[0]}\"";
    shell.args(["-c", line]).arg(berth.get_program()).args(berth.get_args());
    shell.env("HOME", &person.home).kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, shell.output()).await.expect("it ends");
    let output = output.expect("run bash");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n141\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[tokio::test]
async fn an_image_is_pulled_by_name_or_for_a_run() {
    requires_root!();
    let registry = DockerRegistry::start();
    let options = Options { sections: registry.section(), ..Options::default() };
    let server = TestServer::with(options).await;
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let archive = |name: &str, program: &str| {
        image::archive(name, &[("bin/sh", 0o755, &busybox), (program, 0o755, &busybox)])
    };
    let pulled = registry.push(&archive("lab/one:1", "bin/echo"), "lab/one:1");
    let run = registry.push(&archive("lab/two:1", "bin/sleep"), "lab/two:1");
    let person = Person::signed_in(&server, "anna").await;
    assert_eq!(person.gets(&["pull", &pulled]).await, format!("{pulled}\n"));
    assert!(person.gets(&["images"]).await.contains(&pulled));
    let done = person.does(&["run", "--rm", &run, "sh", "-c", "echo here; exit 3"], "").await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(3), "here\n"), "{done:?}");
    let nothing = format!("{}/lab/nothing:1", registry.address);
    person.does(&["pull", &nothing], "").await.fails(1, "berth: ");
    person.does(&["run", &nothing, "sh"], "").await.fails(125, "berth: ");
    assert_eq!(person.gets(&["ps", "-aq"]).await, "", "a container without an image is left");
}

#[tokio::test]
async fn a_program_that_is_run_gets_its_input() {
    requires_root!();
    let server = TestServer::start().await;
    let client = server.person("anna", "user").await;
    import(&client).await;
    let person = Person::at(&server.url());
    person.sign_in("anna").await;
    let sent: String = (0..5000).map(|number| format!("{number}\n")).collect();
    let words = ["run", "-i", "--name", "filter", IMAGE, "sh", "-c", "cat; exit 3"];
    let done = person.does(&words, &sent).await;
    assert_eq!((done.code, done.stdout.len()), (Some(3), sent.len()), "{}", done.stderr);
    assert_eq!(done.stdout, sent);
    person.does(&["attach", "filter"], "").await.fails(1, "does not run");
    person.gets(&["run", "-d", "--name", "plain", IMAGE, "sleep", "600"]).await;
    person.does(&["attach", "plain"], "").await.fails(1, "follow its log");
}
