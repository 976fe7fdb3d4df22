//! The forms of the pages, field by field: what the table of routes says a form may hold.
//!
//! A form sets what the API sets, by the same service; so a row says what the field is there, and what
//! is refused here is what a form makes of it: text.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::{Answer, Check, Client, TestServer, image, programs, requires_root, sample};

/// What may stand in a field.
#[derive(Clone, Copy)]
enum Kind {
    /// What comes out of the API's own check: these are refused.
    Judged(&'static [&'static str]),
    /// One of a list.
    Choice,
    /// Where to go on to, or what is only shown: never an error, never elsewhere.
    Way,
    /// A secret that is compared: wrong, whatever it is.
    Secret,
}

use Kind::{Choice, Judged, Secret, Way};

const NUMBER: Kind = Judged(&["-1", "1e308", "18446744073709551616", "1.5", "many", "\0", "a\nb"]);
const SIZE: Kind =
    Judged(&["-1", "1e308", "18446744073709551616 GiB", "many", "1 XiB", "NaN", "\0"]);
const LENGTH: Kind = Judged(&[
    "-1",
    "1e308",
    "18446744073709551616 d",
    "many",
    "1 x",
    "1.5 h",
    "1",
    "2 years",
    "\0",
]);
const LINES: Kind = Judged(&["no sign", "\0", "=\0"]);
const NAME: Kind = Judged(&["-a", "..", "a b", "<script>", "a\0", "А"]);
const HOST: Kind = Judged(&["", "a b", "../x", "http://a", "\0"]);
const REFERENCE: Kind = Judged(&["", "A b", "a/../b", "a@sha256:x", "\0"]);

/// Field by field; where a name means different things, the route stands before it.
const ROWS: &[(&str, Kind)] = &[
    ("image", REFERENCE),
    // Empty: kept without a name of one's own.
    ("POST /images/{id}/keep reference", Judged(&["A b", "a/../b", "a@sha256:x", "\0"])),
    ("POST /images/import archive", Way),
    ("name", NAME),
    ("POST /invitation name", Way),
    ("POST /sign-in name", Secret),
    ("command", Judged(&["'", "a\0b"])),
    ("entrypoint", Judged(&["'", "a\0b"])),
    ("env", LINES),
    ("labels", LINES),
    ("tmpfs", Judged(&["/a", "/proc=1 MiB", "/a=1", "/a=many", "/../x=1 MiB"])),
    ("ulimits", Judged(&["nofile", "nofile=-1", "nofile=2:1", "nope=1", "nofile=1e308"])),
    ("workdir", Judged(&["a", "/a/../b", "/a\0"])),
    ("user", Judged(&["-1", "65536", "4294967296", "00", "a b", "a\0"])),
    ("hostname", Judged(&["-h", "h.h", "a b", "h\0"])),
    ("cpu", Judged(&["-1", "1e308", "many", "NaN", "0", "4294967296"])),
    ("cpu_weight", NUMBER),
    ("memory", SIZE),
    ("swap", SIZE),
    ("shm", SIZE),
    ("pids", NUMBER),
    ("containers", NUMBER),
    ("network", Choice),
    ("POST /people/allowance ports", NUMBER),
    ("POST /people/{id}/allowance ports", NUMBER),
    ("POST /groups/{id}/allowance ports", NUMBER),
    ("images", NUMBER),
    ("image_bytes", SIZE),
    ("data", SIZE),
    ("io_weight", NUMBER),
    ("io_read", SIZE),
    ("io_write", SIZE),
    ("net", SIZE),
    ("lifetime", LENGTH),
    ("lifetime_default", LENGTH),
    ("idle", LENGTH),
    ("look", Way),
    ("limit", Choice),
    ("wanted", NUMBER),
    ("granted", NUMBER),
    ("until", Judged(&["a", "-1", "2020-01-01", "2090-13-01", "9999-01-01", "\0"])),
    ("answer", Judged(&["a\0b", "a\nb"])),
    ("csv", Judged(&["", "a", "name", "name\n\"", "name,name\na,b", "name\rdriven", "\0"])),
    ("add", Way),
    ("things", Choice),
    ("expires", Judged(&["a", "-1", "0", "2020-01-01", "2090-13-01", "9999-01-01", "\0"])),
    ("ports", Judged(&["a", "0", "70000", "-1", "80:80", "1:2:3", "80/sctp", "\0"])),
    (
        "volumes",
        Judged(&["data", "none:/data", "/etc:/etc", "a:b", "a:/proc", "a:/x:y", "../x:/y", "\0"]),
    ),
    (
        "data_sets",
        Judged(&[
            "kept",
            "none:/data",
            "others:/x",
            "/etc:/etc",
            "kept:b",
            "kept:/proc",
            "kept:/x:ro",
            "\0",
        ]),
    ),
    ("restart", Choice),
    ("restart_attempts", NUMBER),
    ("stop_signal", Judged(&["0", "65", "SIGNOPE", "-9"])),
    ("stop_grace", NUMBER),
    ("capabilities", Judged(&["EVERYTHING", "CAP_", "\0"])),
    ("read_only_root", Choice),
    ("terminal", Choice),
    ("start", Choice),
    ("size", Way),
    ("etag", Way),
    ("path", Way),
    ("file", Way),
    ("back", Way),
    ("next", Way),
    ("typed", Way),
    ("confirmed", Way),
    ("usual", Way),
    ("column", Way),
    ("id", Way),
    ("theme", Way),
    ("role", Choice),
    ("member", NAME),
    ("grantee", Judged(&["", "-a", "..", "a b", "<script>", "a\0", "А", "olga"])),
    ("level", Choice),
    ("POST /containers/{id}/sharing kind", Choice),
    ("reason", Judged(&["", " ", "a\0b", "a\nb"])),
    ("POST /volumes/{id}/sharing kind", Choice),
    ("POST /images/{id}/sharing kind", Choice),
    ("POST /volumes/{id}/hand-over to", Judged(&["", "nobody", "olga", "a\0b"])),
    ("end", Judged(&["", "a", "everybody:a"])),
    ("group", Judged(&["", "a", "-1", "4294967296"])),
    ("note", Judged(&["a\0b", "a\nb"])),
    ("host_user", Judged(&["root", "-x", "a:b", "a\0b", "a b"])),
    ("token_name", Judged(&["", "a\nb", "a\0"])),
    ("scope", Choice),
    ("days", NUMBER),
    ("registry", HOST),
    // For the browser's own keeper of passwords.
    ("POST /account/password username", Way),
    ("POST /account/second-factor username", Way),
    ("username", Judged(&["", "a:b", "a\0", "a\nb"])),
    ("POST /account/registries password", Judged(&["", "a\0", "a\nb"])),
    ("password", Secret),
    ("current", Secret),
    ("code", Secret),
    ("again", Secret),
    ("secret", Secret),
    ("token", Secret),
    ("reference", REFERENCE),
    ("unneeded_days", NUMBER),
    ("tagged", Choice),
    ("everyone", Choice),
    ("message", Judged(&["", "a\0b", "a\nb"])),
];

fn row(route: &str, field: &str) -> Option<Kind> {
    let here = format!("{route} {field}");
    let find = |name: &str| ROWS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    find(&here).or_else(|| find(field))
}

/// Every form: its route, the fields that come once and those that come many times.
fn forms() -> BTreeMap<String, (Vec<String>, Vec<String>)> {
    let output = std::process::Command::new(programs::berth())
        .args(["openapi", "--routes"])
        .output()
        .expect("run berth openapi");
    let table: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a table in JSON");
    let posts = table.iter().filter(|row| row["surface"] == "page" && row["method"] == "POST");
    let list = |value: &Value| -> Vec<String> {
        let all = value.as_array().expect("the route says what its form may hold");
        all.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    };
    posts
        .map(|row| {
            let route = format!("POST {}", row["path"].as_str().expect("a path"));
            (route, (list(&row["form"]["once"]), list(&row["form"]["many"])))
        })
        .collect()
}

/// A form that is taken, but for the field that is tried.
fn base(route: &str) -> Vec<(&'static str, &'static str)> {
    match route {
        "POST /launch" | "POST /launch/preview" => {
            vec![("image", "lab/app:v1"), ("command", "a"), ("name", "driven"), ("start", "no")]
        }
        "POST /containers/{id}/settings" => vec![("name", "seen")],
        "POST /people" => vec![("name", "driven"), ("role", "user"), ("expires", "")],
        "POST /system/maintenance" => vec![("message", "driven")],
        "POST /people/import" => vec![("csv", "name\ndriven")],
        "POST /people/{id}/offboarding" => vec![("things", "keep")],
        "POST /people/{id}/expiry" => vec![("expires", "2090-01-01")],
        "POST /people/{id}/role" => vec![("role", "user")],
        "POST /people/{id}/group" => vec![("group", "2")],
        "POST /groups" => vec![("name", "driven"), ("note", "")],
        "POST /groups/{id}" => vec![("name", "driven"), ("note", "")],
        "POST /groups/{id}/members" | "POST /groups/{id}/members/remove" => {
            vec![("member", "tried")]
        }
        "POST /containers/{id}/sharing" => {
            vec![("kind", "person"), ("grantee", "tried"), ("level", "view")]
        }
        "POST /containers/{id}/looks" => vec![("reason", "driven")],
        "POST /asks" => {
            vec![("limit", "ports_max"), ("wanted", "60000"), ("reason", "driven")]
        }
        "POST /asks/{id}/approve" => vec![("granted", "99000")],
        "POST /volumes/{id}/sharing" => {
            vec![("kind", "person"), ("grantee", "tried"), ("level", "read")]
        }
        "POST /images/{id}/sharing" => {
            vec![("kind", "person"), ("grantee", "tried"), ("level", "use")]
        }
        "POST /containers/{id}/sharing/end"
        | "POST /volumes/{id}/sharing/end"
        | "POST /images/{id}/sharing/end" => vec![("end", "person:tried")],
        "POST /volumes" => vec![("name", "driven")],
        "POST /volumes/{id}" => vec![("name", "kept")],
        "POST /people/{id}/host-user" => vec![("host_user", "driven")],
        "POST /account/tokens" => vec![("token_name", "driven"), ("scope", "read"), ("days", "1")],
        "POST /account/registries" => {
            vec![("registry", "driven.lab"), ("username", "a"), ("password", "b")]
        }
        "POST /account/second-factor" => vec![("current", "wrong wrong")],
        "POST /account/password" => vec![("current", "wrong wrong"), ("password", "another one")],
        "POST /setup" => vec![("secret", "x"), ("name", "x"), ("password", "another one")],
        "POST /sign-in" => vec![("name", "nobody"), ("password", "wrong wrong")],
        "POST /invitation" => {
            vec![("token", "x"), ("password", "another one"), ("again", "another one")]
        }
        _ => Vec::new(),
    }
}

#[test]
fn every_field_of_a_form_has_a_row() {
    let forms = forms();
    assert!(forms.len() > 40, "the control: {} forms", forms.len());
    let mut used = BTreeSet::new();
    for (route, (once, many)) in &forms {
        for name in once.iter().chain(many) {
            assert!(
                row(route, name).is_some(),
                "{route} {name}: add a row to tests/api/fields/forms.rs"
            );
            used.insert(name.as_str());
        }
    }
    for (name, _) in ROWS {
        let name = name.rsplit(' ').next().unwrap_or(name);
        assert!(used.contains(name), "no form has a field {name}");
    }
}

#[tokio::test]
async fn each_field_of_a_form_takes_what_it_may_and_no_form_takes_another() {
    requires_root!();
    let server = TestServer::with(super::generous()).await;
    let olga = server.operator();
    let archive = image::archive("lab/app:v1", &[("a", 0o755, b"a")]);
    let image = image::import(&olga, archive).await;
    let body = json!({"name": "seen", "image": image, "command": ["a"]});
    let made = olga.post("/api/v1/containers", &body).await.expect_status(201).json();
    let person = json!({"name": "tried", "role": "user"});
    let person = olga.post("/api/v1/people", &person).await.expect_status(201).json();
    let container = made["id"].as_str().expect("an id").to_owned();
    let volume = olga.post("/api/v1/volumes", &json!({"name": "kept"})).await.expect_status(201);
    let volume = volume.json()["id"].as_str().expect("an id").to_owned();
    let more = json!({"limit": "containers_max", "wanted": 99_000, "reason": "driven"});
    let ask = olga.post("/api/v1/asks", &more).await.expect_status(201).json()["id"].to_string();
    let (person, mut wrong) = (person["person"]["id"].to_string(), Vec::new());
    for (route, (once, many)) in forms() {
        if route == "POST /images/import" || route.ends_with("/files") {
            continue;
        }
        let path = route.trim_start_matches("POST ");
        let path = match path {
            path if path.starts_with("/people/") => path.replace("{id}", &person),
            path if path.starts_with("/asks/") => path.replace("{id}", &ask),
            path if path.starts_with("/groups/") => path.replace("{id}", "2"),
            "/volumes/{id}"
            | "/volumes/{id}/hand-over"
            | "/volumes/{id}/sharing"
            | "/volumes/{id}/sharing/end" => path.replace("{id}", &volume),
            path if path.starts_with("/images/") && !path.ends_with("/remove") => {
                path.replace("{id}", &image)
            }
            path if path.ends_with("/settings")
                || path.contains("/sharing")
                || path.ends_with("/looks") =>
            {
                path.replace("{id}", &container)
            }
            // What is done to a container takes no more than the way back: nothing is done here.
            path => path.replace("{id}", "0123456789abcdef0123456789abcdef"),
        };
        let mut tries = Vec::new();
        for name in once.iter().chain(&many) {
            let kind = row(&route, name).expect("looked at above");
            tries.extend(values(kind).into_iter().map(|value| (name.clone(), value, kind)));
        }
        for (name, value, kind) in sample(&tries, 12) {
            let mut pairs = base(&route);
            pairs.retain(|(known, _)| *known != name);
            pairs.push((&name, &value));
            let answer = post(&olga, &path, &pairs).await;
            let why = judge(&name, kind, &path, &answer);
            if route == "POST /launch" && matches!(kind, Way) {
                olga.delete("/api/v1/containers/driven?force=true").await;
            }
            let said = why.unwrap_or_else(|| "as it must be".to_owned());
            let shown: String = value.escape_debug().take(30).collect();
            let variant = format!("{route} {name} is {shown}");
            let control = "the form without it is taken";
            if !(Check { id: "A02", variant: &variant, control }.notes("as it must be", &said)) {
                wrong.push(format!("{variant}: {said}"));
            }
        }
        wrong.extend(unknown(&olga, &route, &path, &once).await);
    }
    assert!(wrong.is_empty(), "{} of them\n{}", wrong.len(), wrong.join("\n"));
    let list = olga.get("/api/v1/containers").await.json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "something was made: {list}");
    assert_eq!(list["items"][0]["status"], "created", "{list}");
    // The control: the base of the launch is taken.
    post(&olga, "/launch", &base("POST /launch")).await.expect_status(303);
}

fn values(kind: Kind) -> Vec<String> {
    let own = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let mut values = match kind {
        Judged(refused) => own(refused),
        Choice => own(&["host", "Operator", "true ; x", "\0", "1e308"]),
        Way => own(&[
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "javascript:alert(1)",
            "/\u{1}",
            "/\u{7f}",
            "/a\r\nSet-Cookie: a=b",
            "\0",
            "/\u{202e}",
        ]),
        Secret => own(&["", "\0", "a\nb", "\u{202e}"]),
    };
    values.push("x".repeat(100_000));
    values
}

/// What is wrong with an answer.
fn judge(name: &str, kind: Kind, path: &str, answer: &Answer) -> Option<String> {
    let say = |why: &str| Some(format!("{why}: {} {}", answer.status, super::cut(&answer.text)));
    if answer.status >= 500 {
        return say("broken");
    }
    let to = answer.header("location");
    if !to.is_empty() && (!to.starts_with('/') || to.starts_with("//") || to.contains('\\')) {
        return say(&format!("leads to {to}"));
    }
    if answer
        .headers
        .get_all("set-cookie")
        .iter()
        .any(|cookie| cookie.as_bytes().starts_with(b"a="))
    {
        return say("a cookie was planted");
    }
    let refused = match answer.status {
        // A notice beside the way on says so; a preview shows the form with what is wrong.
        303 => is_refusal(answer),
        200 => path.ends_with("/preview"),
        status => (400..500).contains(&status),
    };
    match kind {
        Judged(_) | Choice | Secret if !refused => say(&format!("{name} was taken")),
        _ => None,
    }
}

/// Whether the notice that comes with a way on is one of a refusal: base64url of text that begins
/// with `-`.
fn is_refusal(answer: &Answer) -> bool {
    let cookies = answer.headers.get_all("set-cookie").iter().filter_map(|one| one.to_str().ok());
    let mut notices = cookies.filter_map(|one| one.split_once("_flash=")).map(|(_, value)| value);
    notices.any(|value| value.starts_with('L'))
}

/// Names that no form has: they are refused, and so is a field that comes twice.
async fn unknown(client: &Client, route: &str, path: &str, once: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    // Some are names of other engines' that a form of ours has as well.
    let known = |name: &&str| once.iter().any(|field| field == name);
    for name in sample(&crate::beside::NAMES, 2).into_iter().filter(|name| !known(name)) {
        let mut pairs = base(route);
        pairs.push((name, "true"));
        let answer = post(client, path, &pairs).await;
        let said = match answer.status == 422 && names(&answer.text, name) {
            true => "refused by name".to_owned(),
            false => format!("{} {}", answer.status, super::cut(&answer.text)),
        };
        let variant = format!("{route} {name}");
        let control = "the form without it is taken";
        if !(Check { id: "A03", variant: &variant, control }.notes("refused by name", &said)) {
            wrong.push(format!("{variant}: {said}"));
        }
    }
    if let Some(name) = once.first() {
        let answer = post(client, path, &[(name, "a"), (name, "b")]).await;
        if answer.status != 422 {
            wrong.push(format!("{route} {name} twice: {}", answer.status));
        }
    }
    wrong
}

/// Pages begin their sentences with a capital.
fn names(text: &str, name: &str) -> bool {
    text.to_ascii_lowercase().contains(&name.to_ascii_lowercase())
}

async fn post(client: &Client, path: &str, pairs: &[(&str, &str)]) -> Answer {
    let mut body = String::new();
    for (name, value) in pairs {
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        body.push_str(&format!("{}{name}={encoded}", if body.is_empty() { "" } else { "&" }));
    }
    let request = client.request("POST", path);
    send(request.header("content-type", "application/x-www-form-urlencoded").body(body)).await
}
