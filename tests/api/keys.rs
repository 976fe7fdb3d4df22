//! Signing keys: rotated while everybody stays signed in, retired at once; forged key names.

use std::process::{Command, Output};

use serde_json::{Value, json};
use system_tests::instance::PASSWORD;
use system_tests::{Client, Options, TestServer, programs, requires_root};

fn plain() -> Options {
    Options { no_supervisor: true, ..Options::default() }
}

fn keys(server: &TestServer, arguments: &[&str]) -> Output {
    Command::new(programs::berth())
        .arg("keys")
        .args(arguments)
        .arg("--config")
        .arg(server.config_path())
        .env_clear()
        .output()
        .expect("run berth keys")
}

fn names(server: &TestServer) -> Vec<String> {
    let output = keys(server, &["list"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
}

async fn status_of(client: &Client) -> u16 {
    client.get("/api/v1/me").await.status
}

fn token_of(client: &Client) -> String {
    let request = client.raw("GET", "/").build().expect("a request");
    let value = request.headers()["authorization"].to_str().expect("ASCII").to_owned();
    value.trim_start_matches("Bearer ").to_owned()
}

/// A token's head.
fn head_of(token: &str) -> Value {
    let head = token.split('.').next().expect("a head");
    let output = Command::new("python3")
        .args([
            "-c",
            "import base64,sys; s=sys.argv[1]; \
            sys.stdout.buffer.write(base64.urlsafe_b64decode(s+'='*(-len(s)%4)))",
            head,
        ])
        .output()
        .expect("run python3");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The token's claims under another head, signed by a secret of the key file as `digest` does.
fn forged(token: &str, head: &Value, secret: &str, digest: &str) -> String {
    let script = "import base64,hashlib,hmac,sys\n\
        head,body,secret,digest=sys.argv[1:]\n\
        text=lambda b: base64.urlsafe_b64encode(b).decode().rstrip('=')\n\
        key=hashlib.sha256(b'berth key\\0jwt\\0'+base64.b64decode(secret)).digest()\n\
        whole=text(head.encode())+'.'+body\n\
        sign=hmac.new(key,whole.encode(),digest).digest() if digest!='none' else b''\n\
        print(whole+'.'+text(sign),end='')\n";
    let body = token.split('.').nth(1).expect("a body");
    let output = Command::new("python3")
        .args(["-c", script, &head.to_string(), body, secret, digest])
        .output()
        .expect("run python3");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("ASCII")
}

#[tokio::test]
async fn a_rotation_signs_nobody_out_and_a_retirement_does() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let anna = server.person("anna", "user").await;
    let old = anna.token("manage").await;
    let first = names(&server);
    assert_eq!(first.len(), 1);
    let pid = server.server_pid();
    let output = keys(&server, &["rotate"]);
    assert!(output.status.success(), "{output:?}");
    let now = names(&server);
    assert_eq!((now.len(), &now[1]), (2, &first[0]));
    assert_eq!(server.server_pid(), pid, "it was restarted");
    let new = old.token("manage").await;
    assert_eq!(head_of(&token_of(&old))["kid"], json!(first[0]));
    assert_eq!(head_of(&token_of(&new))["kid"], json!(now[0]));
    for client in [&anna, &old, &new] {
        assert_eq!(status_of(client).await, 200, "signed out by a rotation");
    }
    // So it stays after a restart: what is in memory is in the file.
    server.stop_server();
    server.start_server().await;
    for client in [&anna, &old, &new] {
        assert_eq!(status_of(client).await, 200, "signed out by a restart");
    }
    // A stolen key: gone at once, with all that it signed.
    let refused = keys(&server, &["retire", &now[0]]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("rotate first"), "{words}");
    assert!(keys(&server, &["retire", &first[0]]).status.success());
    for client in [&anna, &old] {
        assert_eq!(status_of(client).await, 401, "a retired key's still count");
    }
    assert_eq!(status_of(&new).await, 200, "the control");
    let tokens = new.get("/api/v1/tokens").await.expect_status(200).json();
    assert_eq!(tokens["items"].as_array().map(Vec::len), Some(1), "{tokens}");
    let again = server.sign_in("anna", PASSWORD).await.expect_status(201);
    let again = server.anonymous().with_cookies_of(&again);
    assert_eq!(status_of(&again).await, 200);
    // All at once.
    assert!(keys(&server, &["rotate", "--retire"]).status.success());
    assert_eq!((status_of(&new).await, status_of(&again).await), (401, 401));
    assert_eq!(names(&server).len(), 1);
    let key_file = server.data_dir().join("db/token.key");
    let text = std::fs::read_to_string(&key_file).expect("the key file");
    assert!(!text.contains(&now[0]), "a retired key is still in the file");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&key_file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_token_is_verified_with_the_key_it_names_or_not_at_all() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let token = token_of(&server.operator().token("manage").await);
    let old = head_of(&token)["kid"].clone();
    // Somebody has read the key file, and signs what they like with it.
    let text = std::fs::read_to_string(server.data_dir().join("db/token.key")).expect("the file");
    let stolen: Value = serde_json::from_str(&text).expect("JSON");
    let stolen = stolen["keys"][0]["secret"].as_str().expect("a secret").to_owned();
    assert!(keys(&server, &["rotate"]).status.success());
    let new = names(&server)[0].clone();
    let anonymous = server.anonymous();
    let status = async |head: Value, digest: &str| {
        let token = forged(&token, &head, &stolen, digest);
        status_of(&anonymous.with_bearer(&token)).await
    };
    let own = json!({"alg": "HS256", "typ": "JWT", "kid": old});
    assert_eq!(status(own.clone(), "sha256").await, 200, "the control: a stolen key signs");
    for (head, digest) in [
        (json!({"alg": "HS256", "typ": "JWT", "kid": new}), "sha256"),
        (json!({"alg": "HS256", "typ": "JWT"}), "sha256"),
        (json!({"alg": "HS256", "typ": "JWT", "kid": "0123456789abcdef"}), "sha256"),
        (json!({"alg": "HS256", "typ": "JWT", "kid": ""}), "sha256"),
        (json!({"alg": "HS256", "typ": "JWT", "kid": "../../dev/null"}), "sha256"),
        (json!({"alg": "HS256", "typ": "JWT", "kid": "' or 1=1 --"}), "sha256"),
        (json!({"alg": "HS512", "typ": "JWT", "kid": old}), "sha512"),
        (json!({"alg": "none", "kid": old}), "none"),
        (json!({"alg": "RS256", "kid": old, "jku": "http://127.0.0.1:1/keys"}), "sha256"),
    ] {
        assert_eq!(status(head.clone(), digest).await, 401, "{head}");
    }
    // Retired, it signs no more.
    let id = old.as_str().expect("a name").to_owned();
    assert!(keys(&server, &["retire", &id]).status.success());
    assert_eq!(status(own, "sha256").await, 401, "a retired key still signs");
}

#[tokio::test]
async fn the_first_versions_key_file_is_taken_up() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    server.stop_server();
    // Thirty-two bytes and nothing else; sessions of another key are nobody's then.
    let key_file = server.data_dir().join("db/token.key");
    std::fs::write(&key_file, [9; 32]).expect("write the key file");
    server.start_server().await;
    let olga = server.sign_in("olga", PASSWORD).await.expect_status(201);
    let olga = server.anonymous().with_cookies_of(&olga);
    let token = olga.token("read").await;
    assert!(head_of(&token_of(&token))["kid"].is_null(), "as the first version wrote them");
    assert!(keys(&server, &["rotate"]).status.success());
    let new = olga.token("read").await;
    for client in [&olga, &token, &new] {
        assert_eq!(status_of(client).await, 200);
    }
    assert!(keys(&server, &["retire", &names(&server)[1]]).status.success());
    for (client, status) in [(&olga, 401), (&token, 401), (&new, 200)] {
        assert_eq!(status_of(client).await, status);
    }
}
