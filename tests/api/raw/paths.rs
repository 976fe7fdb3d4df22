//! W05 and A05: paths that lead elsewhere when somebody decodes them once more. Assets are embedded
//! and objects are looked up by name: no path of a request is ever one of the host's.

use std::time::Duration;

use system_tests::{Check, Options, TestServer, requires_root, sample};

use super::{bearer, say};

/// What is put behind a prefix.
const TAILS: [&str; 40] = [
    "../etc/passwd",
    "../../../../../../etc/passwd",
    "..%2fetc%2fpasswd",
    "%2e%2e/etc/passwd",
    "%2e%2e%2fetc%2fpasswd",
    "..%252fetc%252fpasswd",
    "%252e%252e%252f",
    "..%5cetc%5cpasswd",
    "..\\etc\\passwd",
    "....//etc/passwd",
    "..;/etc/passwd",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "%00",
    "a%00.css",
    "app.css%00",
    "%0a",
    "%0d%0aSet-Cookie:%20a=b",
    "%ff",
    "%c0%ae%c0%ae%c0%af",
    "%u002e%u002e",
    "%e0%80%ae",
    ".",
    "..",
    "./",
    "%2e",
    "~root",
    "*",
    "?/../..",
    "#/../..",
    "|id",
    ";id",
    "$(id)",
    "file:%2f%2f%2fetc%2fpasswd",
    "C:%5c",
    "CON",
    "..%2f..%2f..%2fproc%2fself%2fenviron",
    "%2e%2e%2f%2e%2e%2fdb%2fberth.db",
    "token.key",
];

/// Where something is looked up by a part of the path.
const PREFIXES: [&str; 10] = [
    "/assets/",
    "/api/v1/containers/",
    "/api/v1/images/",
    "/api/v1/operations/",
    "/api/v1/people/",
    "/containers/",
    "/images/",
    "/help/",
    "/problems/",
    "/invitation/",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_path_leads_out_of_what_is_served() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let bearer = bearer(&server.operator().token("manage").await);
    let key = std::fs::read(server.data_dir().join("db/token.key")).expect("there is a key");
    let key = String::from_utf8_lossy(&key).into_owned();
    let mut all = Vec::new();
    for prefix in PREFIXES {
        all.extend(TAILS.iter().map(|tail| (prefix, *tail)));
    }
    for (prefix, tail) in sample(&all, 120) {
        let head = format!(
            "GET {prefix}{tail} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n\
             Connection: close\r\n\r\n"
        );
        let said = say(server.address, head.as_bytes(), Duration::from_secs(3));
        let text = format!("{said:?}");
        let leaks = ["root:x:0", "SQLite format", "PATH=", "set-cookie: a=b"];
        let leaked = leaks.iter().any(|mark| text.contains(mark)) || text.contains(key.trim());
        // A prefix by itself (`.`, `#`, `?`) may be a page of its own; none shows what lies elsewhere.
        let seen = match said.status() {
            _ if leaked => format!("leaked: {text}"),
            200 | 303 | 400 | 404 | 405 | 422 => "nothing of the host".to_owned(),
            _ => text,
        };
        let variant = format!("{prefix}{tail}");
        let control = "the same client gets what is there by its own name";
        Check { id: "W05", variant: &variant, control }.sees("nothing of the host", seen);
    }
    let good =
        format!("GET /api/v1/me HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n\r\n");
    assert_eq!(say(server.address, good.as_bytes(), Duration::from_secs(3)).status(), 200);
    let page = server.anonymous().get("/sign-in").await.text;
    let (_, asset) = page.split_once("/assets/").expect("a page names an asset");
    let asset: String = asset.chars().take_while(|c| *c != '"').collect();
    let answer = server.anonymous().get(&format!("/assets/{asset}")).await;
    assert_eq!((answer.status, answer.header("x-content-type-options")), (200, "nosniff"));
}
