//! W04: every text that somebody can put into Berth, hostile, on every page of the route table in a
//! real browser, beside the same pages of a second instance with harmless text: no element, attribute,
//! link or request more, nothing run, nothing refused by the content security policy.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::instance::PASSWORD;
use system_tests::{Check, Client, Options, TestServer, requires_root, sample, times};

use crate::browser::{Browser, Driver, Script};
use crate::every::{self, Seen, first_id, pages, visits, watch};
use crate::image::{Image, text};
use crate::signed_in;

/// What would run, lead elsewhere or break out, if it were ever more than text.
const HOSTILE: [&str; 16] = [
    "</script><script>window.owned=1</script>",
    "\"><img src=x onerror=window.owned=1>",
    "\" onmouseover=\"window.owned=1\" autofocus onfocus=\"window.owned=1",
    "' onx='window.owned=1",
    "javascript:window.owned=1//",
    "</title></textarea></style><svg onload=window.owned=1>",
    "<iframe srcdoc=\"<script>parent.owned=1</script>\">",
    "<a href=//evil.example>x</a><base href=//evil.example>",
    "{{7*7}}${7*7}#{7*7}<%=7*7%>",
    "\u{2028}\u{2029};window.owned=1//",
    "\u{202e}gnp.exe\u{2066}\u{200f}",
    "&lt;script&gt;&#x3c;img src=x&#x3e;%3Cscript%3E",
    "<!--<![CDATA[]]><script>owned=1//",
    "=cmd|'/c calc'!A1,+1+1,@SUM(1)",
    "data:text/html,<script>window.owned=1</script>",
    "`;window.owned=1;`",
];
/// For where control characters are taken.
const TERMINAL: &str = "\u{1b}[31m\u{1b}]52;c;aGk=\u{7}\u{1b}]8;;javascript:window.owned=1\u{7}x";

/// Elements that do something by being there.
const ACTING: [&str; 14] = [
    "script", "img", "iframe", "base", "form", "svg", "object", "embed", "link", "meta", "style",
    "input", "button", "textarea",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seed {
    Harmless,
    Hostile,
}

impl Seed {
    /// The text of this number: hostile, or as many harmless letters.
    fn text(self, number: usize) -> String {
        let hostile = HOSTILE[number % HOSTILE.len()];
        match self {
            Self::Hostile => hostile.to_owned(),
            Self::Harmless => {
                let letter = char::from(b'a' + u8::try_from(number % 26).unwrap_or(0));
                let letters = "harmless".chars().cycle().take(hostile.chars().count() - 1);
                std::iter::once(letter).chain(letters).collect()
            }
        }
    }

    fn terminal(self) -> String {
        match self {
            Self::Hostile => TERMINAL.to_owned(),
            Self::Harmless => "plain text on a terminal".to_owned(),
        }
    }

    fn all(self) -> Vec<String> {
        (0..HOSTILE.len()).map(|number| self.text(number)).collect()
    }
}

/// What a page is made of, as the browser has it.
#[derive(Debug)]
struct Anatomy {
    /// How often there is which element with which attributes.
    kinds: BTreeMap<String, u64>,
    /// Paths that were asked for, without ids.
    asked: Vec<String>,
    /// What leads elsewhere, runs, or was refused.
    wrong: Vec<String>,
    /// Whether the hostile or harmless text is to be read on it.
    shows: bool,
}

const ANATOMY: &str = r"
    const kinds = {}, wrong = [];
    for (const element of document.querySelectorAll('*')) {
        const names = [...element.attributes].map((one) => one.name);
        if (names.some((name) => name.startsWith('on') || name === 'srcdoc' || name === 'style'))
            wrong.push(element.outerHTML.slice(0, 200));
        for (const name of ['href', 'src', 'action', 'formaction', 'data']) {
            const value = element.getAttribute(name);
            if (value === null) continue;
            const url = URL.parse(value, location.href);
            if (!url || url.origin !== location.origin) wrong.push(`${element.localName} ${name} ${value.slice(0, 100)}`);
        }
        if (element.closest('svg')) continue;
        const kind = `${element.localName}[${names.sort().join(' ')}]`;
        kinds[kind] = (kinds[kind] || 0) + 1;
    }
    for (const one of window.refused || []) wrong.push(`refused: ${one}`);
    if (window.owned !== undefined) wrong.push('a script has run');
    const asked = performance.getEntriesByType('resource').map((one) => new URL(one.name));
    return {
        kinds, wrong,
        asked: [...new Set(asked.map((url) => (url.origin === location.origin ? '' : url.origin) + url.pathname))],
        text: document.documentElement.textContent + [...document.querySelectorAll('input, textarea')].map((one) => one.value).join(' '),
    };";

async fn anatomy(browser: &Browser) -> Anatomy {
    let found = browser.client.execute(ANATOMY, Vec::new()).await.expect("look at the page");
    let list = |key: &str| -> Vec<String> {
        let all = found[key].as_array().expect("a list").iter();
        all.map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
    };
    let kinds = found["kinds"].as_object().expect("an object").iter();
    let text = found["text"].as_str().unwrap_or_default();
    let mut asked: Vec<String> = list("asked").iter().map(|path| without_ids(path)).collect();
    asked.sort();
    asked.dedup();
    Anatomy {
        kinds: kinds.map(|(kind, count)| (kind.clone(), count.as_u64().unwrap_or(0))).collect(),
        asked,
        wrong: list("wrong"),
        shows: text.contains("owned=1") || text.contains("harmless"),
    }
}

/// A path whose parts that differ between two instances do not.
fn without_ids(path: &str) -> String {
    let part = |part: &str| {
        let id = part.len() >= 8 && part.chars().all(|c| c.is_ascii_hexdigit());
        if id || part.parse::<u32>().is_ok() { "{id}".to_owned() } else { part.to_owned() }
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// One instance full of texts, and a browser in it.
struct Furnished {
    server: TestServer,
    browser: Browser,
    seen: Seen,
}

/// `said`: the numbers of the texts that requests say of themselves, the same ones on both sides.
async fn furnished(driver: &Driver, seed: Seed, said: &[usize]) -> Furnished {
    let registry = registry(seed);
    let sections = format!("[registries]\ninsecure = [\"{registry}\"]\n");
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let olga = server.operator();
    let seen = furnish(&server, &olga, seed, said, &registry).await;
    let browser = signed_in(driver, &server, "olga", Script::On).await;
    watch(&browser).await;
    Furnished { server, browser, seen }
}

/// A registry that refuses, in words of its own choice.
fn registry(seed: Seed) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("find a free port");
    let host = listener.local_addr().expect("know it").to_string();
    let words = seed.all().join(" ");
    let body = json!({"errors": [{"code": seed.text(0), "message": words, "detail": words}]});
    let body = body.to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 4096];
            if stream.read(&mut request).is_err() {
                continue;
            }
            let head = format!(
                "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n",
                body.len()
            );
            drop(
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())),
            );
        }
    });
    host
}

/// An image whose configuration holds the texts wherever it holds one.
fn image(seed: Seed) -> Image {
    let all = seed.all();
    let labels = labels(&all);
    let history: Vec<Value> = all
        .iter()
        .map(|text| json!({"created_by": text, "comment": text, "author": text, "created": "2026-01-01T00:00:00Z"}))
        .collect();
    Image::saying(json!({
        "author": seed.text(1), "created": "2026-01-01T00:00:00Z",
        "config": {
            "Cmd": ["/bin/sh", "-c", all.join(" ")],
            "Entrypoint": ["/bin/busybox", "env", "--", seed.text(2)],
            "Env": ["PATH=/bin".to_owned(), format!("A={}", seed.text(0)), format!("B={}", seed.text(5))],
            "Labels": labels, "StopSignal": seed.text(3), "User": "0", "WorkingDir": "/",
            "ExposedPorts": {seed.text(4): {}}, "Volumes": {seed.text(6): {}},
        },
        "history": history,
    }))
}

fn labels(all: &[String]) -> serde_json::Map<String, Value> {
    let label = |(number, text): (usize, &String)| (format!("label{number}"), json!(text));
    all.iter().enumerate().map(label).collect()
}

/// Puts a text wherever one can be put.
async fn furnish(
    server: &TestServer,
    olga: &Client,
    seed: Seed,
    said: &[usize],
    registry: &str,
) -> Seen {
    let (all, image) = (seed.all(), image(seed));
    let labels = labels(&all);
    let path = "/api/v1/images/import?reference=tools/busybox:1";
    let begun = send(olga.request("POST", path).body(image.archive("tools/busybox:1"))).await;
    ended(olga, text(&begun.expect_status(202).json(), "id")).await;
    let quoted = all.iter().map(|text| format!("'{}'", text.replace('\'', "'\\''")));
    let script = format!(
        "printf '%s\\n' {} '{}'; /bin/busybox sleep 900",
        quoted.collect::<Vec<_>>().join(" "),
        seed.terminal()
    );
    let env: serde_json::Map<String, Value> =
        all.iter().enumerate().map(|(number, text)| (format!("E{number}"), json!(text))).collect();
    let launch = async |name: &str, command: Vec<String>| {
        let body = json!({
            "name": name, "image": "tools/busybox:1", "entrypoint": ["/bin/busybox"], "start": true,
            "command": command, "env": env, "labels": labels,
        });
        olga.post("/api/v1/containers", &body).await
    };
    let mut command = vec!["sh".to_owned(), "-c".to_owned(), script];
    command.extend(all.clone());
    let container = launch("runs", command).await.expect_status(201).json();
    let failed = launch("failed", vec!["sh".into(), "-c".into(), "exit 3".into()]).await;
    let ended_one = failed.expect_status(201).json();
    // A start that fails, whose reason names its program.
    let body = json!({"name": "no-start", "image": "tools/busybox:1", "entrypoint": [seed.text(1)],
        "start": true});
    olga.post("/api/v1/containers", &body).await;
    for (number, hostile) in all.iter().enumerate() {
        let name: String = hostile.chars().filter(|c| !c.is_control()).take(64).collect();
        let body = json!({"name": name.trim(), "scope": "read", "days": 1});
        let made = olga.post("/api/v1/tokens", &body).await;
        assert!(matches!(made.status, 201 | 422), "{made:?}");
        let login = json!({"registry": format!("r{number}.lab:5000"),
            "username": hostile.replace(':', ";"), "password": "secret"});
        let kept = olga.put("/api/v1/registries", &login).await;
        assert!(matches!(kept.status, 200 | 422), "{kept:?}");
    }
    // Sessions show what browsers say of themselves; the log shows hosts; refusals are audited.
    for hostile in said.iter().map(|number| &all[*number]) {
        let request =
            server.anonymous().raw("POST", "/api/v1/sessions").header("user-agent", hostile);
        send(request.json(&json!({"name": "olga", "password": PASSWORD}))).await.expect_status(201);
        let request = server.anonymous().raw("GET", "/healthz").header("host", hostile);
        drop(request.send().await);
    }
    let pull = json!({"reference": format!("{registry}/tools/none:1")});
    let pull = olga.post("/api/v1/images/pull", &pull).await.expect_status(202).json();
    ended(olga, text(&pull, "id")).await;
    let kim = olga.post("/api/v1/people", &json!({"name": "kim", "role": "auditor"})).await;
    let tokens = olga.get("/api/v1/tokens").await.expect_status(200).json();
    let images = olga.get("/api/v1/images").await.expect_status(200).json();
    let volume = olga.post("/api/v1/volumes", &json!({"name": "data"})).await.expect_status(201);
    let volume = volume.json();
    upload(olga, text(&volume, "id"), &all).await;
    for (limit, reason) in [("containers_max", 0), ("ports_max", 1)] {
        let more = json!({"limit": limit, "wanted": 60_000, "reason": seed.text(reason)});
        olga.post("/api/v1/asks", &more).await.expect_status(201);
    }
    Seen {
        container: text(&container, "id").to_owned(),
        ended: text(&ended_one, "id").to_owned(),
        image: first_id(&images),
        volume: text(&volume, "id").to_owned(),
        person: kim.expect_status(201).json()["person"]["id"].to_string(),
        operation: text(&pull, "id").to_owned(),
        token: first_id(&tokens),
    }
}

/// Files of a volume, each called like one of the texts: any bytes but two make a name.
async fn upload(olga: &Client, volume: &str, all: &[String]) {
    let names = all.iter().enumerate();
    let names = names.map(|(number, text)| format!("{number}{}", text.replace(['/', '\0'], "_")));
    for name in names.chain(["kept".to_owned()]) {
        let name: String = name.chars().take(60).collect();
        let path: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/volumes/{volume}/files/content?path=/{path}");
        send(olga.request("PUT", &path).body("x")).await;
    }
}

async fn ended(client: &Client, operation: &str) {
    let deadline = std::time::Instant::now() + crate::browser::LIMIT;
    while client.get(&format!("/api/v1/operations/{operation}")).await.json()["state"] == "running"
    {
        assert!(std::time::Instant::now() < deadline, "the operation does not end");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// A page that repeats one of the texts, whatever else is there.
const TELLING: &str = "/events?subject= 0";

/// Every page of the route table, and those that show what was asked for.
fn paths(seen: &Seen, seed: Seed) -> Vec<(String, String)> {
    let visits = visits(seen);
    let mut all: Vec<(String, String)> = Vec::new();
    for route in pages() {
        let paths = visits.get(route.as_str()).cloned().unwrap_or_default();
        all.extend(paths.into_iter().map(|path| (route.clone(), path)));
    }
    for (number, base) in [
        "/containers?q=",
        "/images?q=",
        "/operations?q=",
        "/events?subject=",
        "/events?kind=",
        "/audit?actor=",
        "/audit?action=",
        "/audit?since=",
        "/launch?image=",
        "/sign-in?next=",
        "/account?registry=",
        "/containers?sort=",
        "/people?after=",
        "/nothing/",
    ]
    .iter()
    .enumerate()
    {
        for offset in [0, 1, 4] {
            // What no kind of event is called is refused, in any words.
            let words = match seed {
                Seed::Harmless if base.ends_with("kind=") => "no kind".to_owned(),
                seed => seed.text(number + offset),
            };
            let query: String = words.bytes().map(|byte| format!("%{byte:02X}")).collect();
            all.push((format!("{base} {offset}"), format!("{base}{query}")));
        }
    }
    all
}

/// Charts are there once a container has been looked at twice, on one machine sooner than on the other.
async fn wait_for_charts(side: &Furnished) {
    let deadline = std::time::Instant::now() + 3 * crate::browser::LIMIT;
    loop {
        side.browser.open(&format!("/containers/{}", side.seen.container)).await;
        if side.browser.count("figure").await > 0 {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "no chart of a container that runs");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn hostile_text_adds_nothing_to_any_page() {
    requires_root!();
    let (driver, other) = (Driver::start().await, Driver::start().await);
    let plain: Vec<_> = (0..HOSTILE.len()).filter(|number| HOSTILE[*number].is_ascii()).collect();
    let said = sample(&plain, 3);
    let hostile = furnished(&driver, Seed::Hostile, &said).await;
    let harmless = furnished(&other, Seed::Harmless, &said).await;
    let pairs: Vec<_> = paths(&hostile.seen, Seed::Hostile)
        .into_iter()
        .zip(paths(&harmless.seen, Seed::Harmless))
        .collect();
    let (mut wrong, mut shown) = (Vec::new(), 0);
    let control = control(&harmless.browser).await;
    for side in [&hostile, &harmless] {
        wait_for_charts(side).await;
        // The audit's page tells of a check of its chain, once there was one.
        side.server.operator().get("/api/v1/audit/verify").await.expect_status(200);
    }
    // One that shows a text for certain, and of all others a few.
    let (mut chosen, others): (Vec<_>, Vec<_>) =
        pairs.into_iter().partition(|((route, _), _)| route == TELLING);
    chosen.extend(sample(&others, 7));
    for ((route, path), (_, beside)) in chosen {
        harmless.browser.open(&beside).await;
        hostile.browser.open(&path).await;
        let (mine, plain) = (anatomy(&hostile.browser).await, anatomy(&harmless.browser).await);
        shown += usize::from(mine.shows);
        let mut found = mine.wrong.clone();
        for (kind, count) in &mine.kinds {
            let before = plain.kinds.get(kind).copied().unwrap_or(0);
            // How many rows a list has may differ between two machines; what acts may not.
            let acts = ACTING.iter().any(|name| kind.starts_with(&format!("{name}[")));
            if before == 0 || acts && *count > before {
                found.push(format!("{count} {kind} where there were {before}"));
            }
        }
        // The icon of the browser's tab is got when the browser likes.
        let more = mine.asked.iter().filter(|one| !plain.asked.contains(one));
        found.extend(more.filter(|one| !one.starts_with("/assets/mark-")).cloned());
        // A time that is none is not shown by the field for it, and the browser says so.
        let said = hostile.browser.complaints().await.into_iter();
        found.extend(said.filter(|line| !line.contains("does not conform to the required format")));
        let seen = if found.is_empty() { "nothing more".to_owned() } else { found.join("; ") };
        if !(Check { id: "W04", variant: &route, control: &control }.notes("nothing more", &seen)) {
            wrong.push(format!("{route} ({path}): {seen}"));
        }
    }
    assert!(wrong.is_empty(), "{} of them\n{}", wrong.len(), wrong.join("\n"));
    assert!(shown > times(2, 0), "the texts are to be read on {shown} pages only");
    downloads(&hostile).await;
    hostile.browser.close().await;
    harmless.browser.close().await;
}

/// What the same texts do to a page when they are put in as they are: how many elements come of them.
async fn control(browser: &Browser) -> String {
    browser.open("/help/start").await;
    let before: u64 = anatomy(browser).await.kinds.values().sum();
    let script = "document.querySelector('main').insertAdjacentHTML('beforeend', arguments[0])";
    for text in HOSTILE {
        browser.client.execute(script, vec![json!(text)]).await.expect("put it in");
    }
    let after = anatomy(browser).await;
    let more = after.kinds.values().sum::<u64>().saturating_sub(before);
    assert!(more > 3 && !after.wrong.is_empty(), "the control finds {after:?}");
    // What the policy refused here is the control's.
    browser.complaints().await;
    format!("put in unescaped, the texts are {more} elements")
}

/// Files come as attachments, and no answer is taken for a page that it is not.
async fn downloads(furnished: &Furnished) {
    let olga = furnished.server.operator();
    let container = &furnished.seen.container;
    for (path, attached) in [
        (format!("/api/v1/containers/{container}/logs?download=true"), true),
        (format!("/api/v1/images/{}/export", furnished.seen.image), true),
        ("/api/v1/events/export".to_owned(), true),
        ("/api/v1/audit/export".to_owned(), true),
        (format!("/api/v1/containers/{container}/stats/history?format=csv"), true),
        (format!("/api/v1/containers/{container}/logs"), false),
        (format!("/api/v1/containers/{container}"), false),
        ("/containers/%3Cscript%3E".to_owned(), false),
    ] {
        let answer = olga.head_of(olga.request("GET", &path)).await;
        let kind = answer.header("content-type").to_owned();
        let page = !path.starts_with("/api/");
        let policy = answer.header("content-security-policy");
        let seen = [
            ("nosniff", answer.header("x-content-type-options") == "nosniff"),
            ("its own kind", kind.starts_with("text/html") == page),
            ("no frame", policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe")),
            (
                "attached",
                !attached || answer.header("content-disposition").starts_with("attachment"),
            ),
        ];
        let lacks: Vec<&str> =
            seen.iter().filter(|(_, held)| !held).map(|(what, _)| *what).collect();
        let control = "a page without these is shown in a frame, or guessed to be HTML";
        let variant = every::without_id(&path, container);
        Check { id: "W04", variant: &variant, control }.finds_nothing(&lacks);
    }
}
