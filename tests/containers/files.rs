//! Files of volumes and containers over the API: listed, downloaded whole and in part, uploaded at once and in
//! parts, removed; who may, and what is written down of it.

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::{act, import, in_status, log_with, run};
use system_tests::{Answer, Check, Client, TestServer, requires_root};

/// A path in a query.
fn encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

async fn put(client: &Client, base: &str, path: &str, more: &str, content: &[u8]) -> Answer {
    let path = format!("{base}/files/content?path={}{more}", encoded(path));
    send(client.request("PUT", &path).body(content.to_vec())).await
}

async fn get(client: &Client, base: &str, path: &str) -> Answer {
    client.get(&format!("{base}/files/content?path={}", encoded(path))).await
}

async fn names(client: &Client, base: &str, path: &str) -> Vec<String> {
    let listed = client.get(&format!("{base}/files?path={}", encoded(path))).await;
    let listed = listed.expect_status(200).json();
    let items = listed["items"].as_array().expect("a list").clone();
    items.iter().map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
}

async fn volume(client: &Client, name: &str) -> String {
    let made = client.post("/api/v1/volumes", &json!({"name": name})).await.expect_status(201);
    format!("/api/v1/volumes/{}", made.json()["id"].as_str().expect("an id"))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[tokio::test]
async fn files_of_a_volume_go_up_and_down() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let base = volume(&anna, "data").await;
    assert!(names(&anna, &base, "/").await.is_empty(), "it was never used");
    let made = put(&anna, &base, "/report.txt", "&mode=0640", b"0123456789").await;
    let made = made.expect_status(200).json();
    let seen = (text(&made, "name"), text(&made, "kind"), text(&made, "mode"), &made["bytes"]);
    assert_eq!(seen, ("report.txt", "file", "0640", &json!(10)), "{made}");
    let whole = get(&anna, &base, "/report.txt").await.expect_status(200);
    assert_eq!(whole.text, "0123456789");
    let head = |answer: &Answer, name: &'static str| answer.header(name).to_owned();
    assert_eq!(head(&whole, "content-type"), "application/octet-stream");
    assert_eq!(head(&whole, "x-content-type-options"), "nosniff");
    assert_eq!(head(&whole, "content-length"), "10");
    let disposition = head(&whole, "content-disposition");
    assert!(disposition.starts_with("attachment; filename=\"report.txt\""), "{disposition}");
    for (range, status, expected) in [
        ("bytes=4-6", 206, "456"),
        ("bytes=-3", 206, "789"),
        ("bytes=8-", 206, "89"),
        ("bytes=10-", 416, ""),
        ("bytes=0-1,3-4", 200, "0123456789"),
    ] {
        let path = format!("{base}/files/content?path=/report.txt");
        let answer = send(anna.request("GET", &path).header("range", range)).await;
        assert_eq!(answer.status, status, "{range}");
        assert!(status == 416 || answer.text == expected, "{range}: {}", answer.text);
    }
    names_and_folders(&server, &anna, &base).await;
}

/// A name that nobody sees through, folders, pages of one, an archive, what is not there, the audit.
async fn names_and_folders(server: &TestServer, anna: &Client, base: &str) {
    // A name that nobody sees through is none in a header.
    let hostile = "/a\"; x=\u{1b}[2J<b>é.html";
    put(anna, base, hostile, "", b"<script>").await.expect_status(200);
    let answer = get(anna, base, hostile).await.expect_status(200);
    let disposition = answer.header("content-disposition").to_owned();
    assert!(disposition.ends_with("%1B%5B2J%3Cb%3E%C3%A9.html"), "{disposition}");
    assert_eq!(disposition.matches('"').count(), 2, "{disposition}");
    let folder = format!("{base}/files/folder");
    anna.post(&folder, &json!({"path": "/sub"})).await.expect_status(201);
    let again = anna.post(&folder, &json!({"path": "/sub"})).await;
    assert_eq!((again.status, again.code()), (409, "files.exists".to_owned()));
    put(anna, base, "/sub/inner", "", b"inner").await.expect_status(200);
    assert_eq!(names(anna, base, "/").await.len(), 3);
    // Page by page.
    let page = anna.get(&format!("{base}/files?limit=2")).await.expect_status(200).json();
    let next = page["next"].as_str().expect("there is more");
    let rest = anna.get(&format!("{base}/files?limit=2&after={next}")).await.json();
    assert_eq!(
        (page["items"].as_array().map(Vec::len), &rest["items"][0]["name"]),
        (Some(2), &json!("sub"))
    );
    let entry = anna.get(&format!("{base}/files/entry?path=/sub")).await.expect_status(200).json();
    assert_eq!(text(&entry, "kind"), "folder");
    let path = format!("{base}/files/archive?path=/sub");
    let response = anna.request("GET", &path).send().await.expect("an answer");
    let bytes = response.bytes().await.expect("all of it");
    let mut archive = tar::Archive::new(bytes.as_ref());
    let paths: Vec<String> = archive
        .entries()
        .expect("entries")
        .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
        .collect();
    assert_eq!(paths, ["sub/", "sub/inner"]);
    refused_and_removed(anna, base).await;
    // What was done is written down, with its path.
    let olga = server.operator();
    let audit = olga.get("/api/v1/audit?limit=500").await.expect_status(200).json();
    let rows = audit["items"].as_array().expect("rows");
    for (action, path) in [
        ("file.write", "/report.txt"),
        ("file.read", "/report.txt"),
        ("file.read", "/sub"),
        ("file.make-folder", "/sub"),
        ("file.remove", "/sub"),
        ("file.write", "x=\u{fffd}[2J"),
    ] {
        let found = rows
            .iter()
            .any(|row| text(row, "action") == action && text(row, "subject").contains(path));
        assert!(found, "{action} {path}");
    }
}

/// What is not there, and what is none; removal.
async fn refused_and_removed(anna: &Client, base: &str) {
    for (path, status, code) in [
        ("/none", 404, "not-found"),
        ("/sub", 409, "files.not-file"),
        ("/report.txt/x", 409, "files.not-folder"),
        ("/a\0b", 422, "files.path"),
    ] {
        let answer = get(anna, base, path).await;
        assert_eq!((answer.status, answer.code()), (status, code.to_owned()), "{path:?}");
    }
    let remove = |path: &'static str| anna.delete_path(base, path);
    remove("/sub").await.expect_status(204);
    remove("/sub").await.expect_status(404);
    remove("/").await.expect_status(422);
    assert_eq!(names(anna, base, "/").await.len(), 2);
}

/// A removal.
trait DeletePath {
    async fn delete_path(&self, base: &str, path: &str) -> Answer;
}

impl DeletePath for Client {
    async fn delete_path(&self, base: &str, path: &str) -> Answer {
        self.delete(&format!("{base}/files?path={}", encoded(path))).await
    }
}

#[tokio::test]
async fn an_upload_in_parts_goes_on_after_breaks() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let base = volume(&anna, "data").await;
    let upload = "0123456789abcdef0123456789abcdef";
    let part = |offset: u64| format!("&upload={upload}&offset={offset}&total=10");
    let state = |answer: Answer| answer.expect_status(202).json()["bytes"].clone();
    assert_eq!(state(put(&anna, &base, "/big", &part(0), b"").await), 0);
    assert_eq!(state(put(&anna, &base, "/big", &part(0), b"0123").await), 4);
    // Neither twice nor with a gap.
    for offset in [0, 3, 5] {
        let answer = put(&anna, &base, "/big", &part(offset), b"x").await;
        assert_eq!((answer.status, answer.code()), (409, "files.upload-offset".to_owned()));
        assert!(answer.text.contains("4 bytes"), "{}", answer.text);
    }
    assert_eq!(get(&anna, &base, "/big").await.status, 404, "nothing is seen before the end");
    server.kill_server();
    server.start_server().await;
    assert_eq!(state(put(&anna, &base, "/big", &part(0), b"").await), 4);
    let more = put(&anna, &base, "/big", &part(4), b"4567890").await;
    assert_eq!(more.status, 422, "{}", more.text);
    let have = state(put(&anna, &base, "/big", &part(0), b"").await);
    let have = usize::try_from(have.as_u64().expect("a number")).expect("it fits");
    let rest = b"0123456789".get(have..).expect("not more than was announced");
    let done = put(&anna, &base, "/big", &part(have as u64), rest).await.expect_status(200).json();
    assert_eq!(done["bytes"], 10, "{done}");
    assert_eq!(get(&anna, &base, "/big").await.text, "0123456789");
    // All three or none.
    let half = put(&anna, &base, "/big", &format!("&upload={upload}"), b"x").await;
    assert_eq!(half.status, 422, "{}", half.text);
    assert_eq!(get(&anna, &base, "/big").await.text, "0123456789");
}

#[tokio::test]
async fn files_of_a_container_are_reached_before_during_and_after_its_run() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let script = "echo ran > /made; echo said; exec sleep 1000";
    let id = run(&anna, "box", script, json!({})).await;
    let base = format!("/api/v1/containers/{id}");
    log_with(&anna, &id, "said").await;
    assert_eq!(get(&anna, &base, "/made").await.expect_status(200).text, "ran\n");
    assert_eq!(get(&anna, &base, "/proc/1/status").await.code(), "files.kernel");
    put(&anna, &base, "/etc/new", "", b"new").await.expect_status(200);
    act(&anna, &id, "kill").await.expect_status(200);
    in_status(&anna, &id, "exited").await;
    assert_eq!(get(&anna, &base, "/etc/new").await.expect_status(200).text, "new");
    put(&anna, "/api/v1/containers/box", "/late", "", b"late").await.expect_status(200);
    assert!(names(&anna, &base, "/").await.contains(&"late".to_owned()));
    act(&anna, &id, "start").await.expect_status(200);
    in_status(&anna, &id, "running").await;
    assert_eq!(get(&anna, &base, "/late").await.expect_status(200).text, "late");
}

#[tokio::test]
async fn nobody_but_the_owner_sees_or_changes_files() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let bert = server.person("bert", "user").await;
    let vera = server.person("vera", "auditor").await;
    let olga = server.operator();
    let base = volume(&anna, "secret").await;
    put(&anna, &base, "/token", "", b"canary-4d1f").await.expect_status(200);
    let control = "the owner reads the token";
    assert_eq!(get(&anna, &base, "/token").await.text, "canary-4d1f", "{control}");
    for (who, client, status) in
        [("a stranger", &bert, 404), ("an operator", &olga, 403), ("an auditor", &vera, 403)]
    {
        for path in [
            "files?path=/",
            "files/entry?path=/token",
            "files/content?path=/token",
            "files/archive?path=/",
        ] {
            let variant = format!("{who} asks for {path}");
            let answer = client.get(&format!("{base}/{path}")).await;
            assert!(!answer.text.contains("canary-4d1f"), "{variant}");
            let check = Check { id: "A01", variant: &variant, control };
            check.sees(status, answer.status);
        }
        assert_eq!(put(client, &base, "/token", "", b"x").await.status, status, "{who}");
        assert_eq!(client.delete_path(&base, "/token").await.status, status, "{who}");
    }
    assert_eq!(get(&anna, &base, "/token").await.text, "canary-4d1f");
}
