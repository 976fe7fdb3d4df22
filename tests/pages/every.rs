//! Every page of the route table, narrow and wide, light and dark: axe-core finds nothing serious,
//! nothing was refused by the content security policy, no script failed, nothing is wider than the
//! screen. A page without a visit fails the suite.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};
use system_tests::check::sample;
use system_tests::{Options, TestServer, programs, requires_root};

use crate::browser::{Browser, Driver, Script};
use crate::image::text;
use crate::{axe, launched, signed_in};

/// Widths in pixels: a telephone, a small laptop.
const WIDTHS: [u32; 2] = [390, 1280];
const SCHEMES: [&str; 2] = ["light", "dark"];
/// As long as a name may be.
const LONG: &str = "a-name-as-long-as-any-that-somebody-may-give-to-a-container-123";

/// The parts of the manual.
const TOPICS: [&str; 8] =
    ["start", "containers", "images", "command-line", "scripts", "operators", "runtime", "keys"];

/// What the image that is looked at is called.
const BUSYBOX: &str = "docker.io/tools/busybox:1";

/// Routes that are no page to look at.
const NOT_LOOKED_AT: [&str; 2] = ["/", "/assets/{name}"];

/// Objects to look at.
pub(crate) struct Seen {
    pub(crate) container: String,
    pub(crate) ended: String,
    pub(crate) image: String,
    pub(crate) volume: String,
    pub(crate) person: String,
    pub(crate) operation: String,
    pub(crate) token: String,
}

#[tokio::test]
async fn every_page_is_open_to_everybody_and_refuses_nothing() {
    requires_root!();
    let axe = match axe::source() {
        Ok(source) => source,
        Err(reason) => {
            system_tests::programs::skip(&reason);
            return;
        }
    };
    let sections = "[runtime.data_sets.licences]\npath = \"/usr/share/common-licenses\"\n\
                    description = \"The texts of licences\"\ngroups = [\"everybody\"]\n";
    let options = Options { sections: sections.to_owned(), ..Options::default() };
    let server = TestServer::with(options).await;
    let driver = Driver::start().await;
    let seen = furnish(&server).await;
    let visits = visits(&seen);
    let browser = signed_in(&driver, &server, "olga", Script::On).await;
    watch(&browser).await;
    let mut wrong = Vec::new();
    for route in pages() {
        let Some(paths) = visits.get(route.as_str()) else {
            wrong.push(format!("{route} has no visit: add it to tests/pages/every.rs"));
            continue;
        };
        for path in paths {
            wrong.extend(look(&browser, path, &axe).await);
        }
    }
    // What is refused or not there is a page, too.
    for path in ["/containers/none", "/nothing/here"] {
        wrong.extend(look(&browser, path, &axe).await);
    }
    browser.close().await;
    let stranger = driver.browser("stranger", server.anonymous().base(), Script::On).await;
    watch(&stranger).await;
    for path in
        ["/sign-in", "/invitation/none", "/nothing/here", "/help/start", "/problems/not-found"]
    {
        wrong.extend(look(&stranger, path, &axe).await);
    }
    stranger.close().await;
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn an_empty_machine_is_open_to_everybody_too() {
    requires_root!();
    let Ok(axe) = axe::source() else {
        system_tests::programs::skip("npm does not get axe-core");
        return;
    };
    let server = TestServer::with(Options { fresh: true, ..Options::default() }).await;
    let driver = Driver::start().await;
    let browser = driver.browser("first", server.anonymous().base(), Script::On).await;
    watch(&browser).await;
    let mut wrong = look(&browser, "/setup", &axe).await;
    server.set_up("olga").await;
    browser.open("/sign-in").await;
    browser.fill("name", "olga").await;
    browser.fill("password", system_tests::instance::PASSWORD).await;
    browser.press("Sign in").await;
    browser.sees("First steps").await;
    for path in [
        "/home",
        "/containers",
        "/images",
        "/volumes",
        "/operations",
        "/account",
        "/launch",
        "/people",
    ] {
        wrong.extend(look(&browser, path, &axe).await);
    }
    browser.close().await;
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

/// Where each page is looked at, by its route.
#[expect(clippy::too_many_lines, reason = "a table, a row for each page")]
pub(crate) fn visits(seen: &Seen) -> BTreeMap<&'static str, Vec<String>> {
    let one = |path: &str| vec![path.to_owned()];
    let of = |rest: &str| vec![format!("/containers/{}{rest}", seen.container)];
    BTreeMap::from([
        ("/home", one("/home")),
        ("/setup", one("/setup")),
        ("/sign-in", one("/sign-in")),
        ("/invitation/{secret}", one("/invitation/none")),
        ("/account", one("/account")),
        ("/help", one("/help")),
        ("/help/{topic}", TOPICS.map(|topic| format!("/help/{topic}")).into()),
        ("/help/api", one("/help/api")),
        ("/help/api/{resource}", vec!["/help/api/containers".into(), "/help/api/keys".into()]),
        ("/help/problems", one("/help/problems")),
        ("/problems/{code}", one("/problems/not-found")),
        ("/people", one("/people")),
        ("/people/allowance", one("/people/allowance")),
        ("/asks", vec!["/asks".into(), "/asks?limit=containers_max".into()]),
        ("/space", vec!["/space".into(), "/space?span=week".into()]),
        ("/people/import", one("/people/import")),
        ("/volumes", one("/volumes")),
        ("/volumes/{id}", vec![format!("/volumes/{}", seen.volume)]),
        ("/volumes/{id}/sharing", vec![format!("/volumes/{}/sharing", seen.volume)]),
        ("/volumes/{id}/remove", vec![format!("/volumes/{}/remove", seen.volume)]),
        ("/volumes/{id}/files", vec![format!("/volumes/{}/files", seen.volume)]),
        (
            "/volumes/{id}/files/remove",
            vec![format!("/volumes/{}/files/remove?path=/kept", seen.volume)],
        ),
        ("/containers/{id}/files", of("/files")),
        ("/containers/{id}/files/remove", of("/files/remove?path=/bin")),
        ("/groups", one("/groups")),
        ("/groups/{id}", one("/groups/2")),
        ("/groups/{id}/delete", one("/groups/2/delete")),
        ("/usage", vec!["/usage".into(), "/usage?days=365".into()]),
        ("/system/maintenance", one("/system/maintenance")),
        ("/people/{id}", vec![format!("/people/{}", seen.person)]),
        ("/people/{id}/offboarding", vec![format!("/people/{}/offboarding", seen.person)]),
        ("/people/{id}/second-factor", vec![format!("/people/{}/second-factor", seen.person)]),
        ("/people/{id}/end-access", vec![format!("/people/{}/end-access", seen.person)]),
        ("/events", one("/events")),
        ("/audit", one("/audit")),
        ("/registries", one("/registries")),
        ("/system", one("/system")),
        ("/system/doctor", one("/system/doctor")),
        ("/system/warnings", one("/system/warnings")),
        ("/operations", one("/operations")),
        ("/operations/{id}", vec![format!("/operations/{}", seen.operation)]),
        ("/containers", vec!["/containers".into(), "/containers?q=state%3Afailed".into()]),
        ("/containers/{id}", vec![of("").remove(0), format!("/containers/{}", seen.ended)]),
        ("/containers/{id}/logs", of("/logs")),
        ("/containers/{id}/processes", of("/processes")),
        ("/containers/{id}/posture", of("/posture")),
        ("/containers/{id}/terminal", of("/terminal")),
        ("/containers/{id}/settings", of("/settings")),
        ("/containers/{id}/sharing", of("/sharing")),
        ("/containers/{id}/activity", of("/activity")),
        ("/containers/{id}/raw", of("/raw")),
        ("/containers/{id}/remove", of("/remove")),
        ("/launch", one("/launch")),
        ("/images", one("/images")),
        ("/images/unneeded", one("/images/unneeded?everyone=true&tagged=true&unneeded_days=0")),
        ("/images/{id}", vec![format!("/images/{}", seen.image)]),
        ("/images/{id}/sharing", vec![format!("/images/{}/sharing", seen.image)]),
        ("/images/{id}/untag", vec![format!("/images/{}/untag?reference={BUSYBOX}", seen.image)]),
        ("/account/tokens/{id}/revoke", vec![format!("/account/tokens/{}/revoke", seen.token)]),
        (
            "/account/registries/remove",
            one("/account/registries/remove?registry=registry.lab:5000"),
        ),
        ("/images/{id}/remove", vec![format!("/images/{}/remove", seen.image)]),
    ])
}

/// The paths of all pages that can be opened, from the server itself.
pub(crate) fn pages() -> Vec<String> {
    let told = Command::new(programs::berth())
        .args(["openapi", "--routes"])
        .output()
        .expect("ask the server for its routes");
    let table: Value = serde_json::from_slice(&told.stdout).expect("the table is JSON");
    let rows = table.as_array().expect("the table is a list");
    let open = rows.iter().filter(|row| row["surface"] == "page" && row["method"] == "GET");
    let paths = open.map(|row| text(row, "path").to_owned());
    paths.filter(|path| !NOT_LOOKED_AT.contains(&path.as_str())).collect()
}

/// Containers that run, ended and failed; an image; a person with a link; names as long as may be.
async fn furnish(server: &TestServer) -> Seen {
    let olga = server.operator();
    let container =
        launched(&olga, LONG, &["sh", "-c", "echo hello; echo bad >&2; sleep 900"]).await;
    let ended = launched(&olga, "ended-badly", &["sh", "-c", "exit 3"]).await;
    for number in 0..3 {
        launched(&olga, &format!("train-{number}"), &["sleep", "900"]).await;
    }
    let tom = server.person("tom", "user").await;
    launched(&tom, "toms", &["sleep", "900"]).await;
    let body = json!({"name": "kim", "role": "auditor"});
    let kim = olga.post("/api/v1/people", &body).await.expect_status(201).json();
    let operations = olga.get("/api/v1/operations").await.expect_status(200).json();
    let token = json!({"name": LONG, "scope": "read", "days": 1});
    let token = olga.post("/api/v1/tokens", &token).await.expect_status(201).json();
    let login = json!({"registry": "registry.lab:5000", "username": LONG, "password": "secret"});
    olga.put("/api/v1/registries", &login).await.expect_status(200);
    let share = json!({"kind": "person", "name": "tom", "rights": ["state", "terminal"]});
    olga.put(&format!("/api/v1/containers/{container}/grants"), &share).await.expect_status(200);
    let more = json!({"limit": "containers_max", "wanted": 99_000, "reason": LONG});
    tom.post("/api/v1/asks", &more).await.expect_status(201);
    let images = olga.get("/api/v1/images").await.expect_status(200).json();
    let volume =
        olga.post("/api/v1/volumes", &json!({"name": LONG})).await.expect_status(201).json();
    let kept = format!("/api/v1/volumes/{}/files/content?path=/kept", text(&volume, "id"));
    system_tests::client::send(olga.request("PUT", &kept).body("x")).await.expect_status(200);
    let mounts =
        json!([{"volume": LONG, "target": "/data", "read_only": true, "sub_path": "part"}]);
    let with = json!({"image": BUSYBOX, "name": "with-a-volume", "command": ["true"],
        "mounts": mounts});
    olga.post("/api/v1/containers", &with).await.expect_status(201);
    Seen {
        container,
        ended,
        image: first_id(&images),
        volume: text(&volume, "id").to_owned(),
        person: kim["person"]["id"].to_string(),
        operation: first_id(&operations),
        token: text(&token["token"], "id").to_owned(),
    }
}

pub(crate) fn first_id(list: &Value) -> String {
    list["items"][0]["id"].as_str().expect("a first item has an id").to_owned()
}

/// Notes what the content security policy refuses, from now on, on each page that is opened.
pub(crate) async fn watch(browser: &Browser) {
    let source = "window.refused = []; addEventListener('securitypolicyviolation', (event) => \
         window.refused.push(`${event.violatedDirective} ${event.blockedURI}`));";
    browser.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": source})).await;
}

/// Looks at one page in every width; with axe in one width and scheme, in `tests/long` in all of them.
async fn look(browser: &Browser, path: &str, axe: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    browser.open(path).await;
    let looks: Vec<_> =
        WIDTHS.iter().flat_map(|width| SCHEMES.map(|scheme| (*width, scheme))).collect();
    let looks = sample(&looks, 1);
    for width in WIDTHS {
        let metrics = json!({
            "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        browser.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        let over = "return document.documentElement.scrollWidth - window.innerWidth";
        let over = browser.client.execute(over, Vec::new()).await.expect("measure the page");
        if over.as_i64().unwrap_or(0) > 0 {
            wrong.push(format!("{path} at {width} px is {over} px wider than the screen"));
        }
        for (_, scheme) in looks.iter().filter(|look| look.0 == width) {
            let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            browser.devtools("Emulation.setEmulatedMedia", media).await;
            for finding in axe::findings(browser, axe).await {
                wrong.push(format!("{path} at {width} px, {scheme}: {finding}"));
            }
        }
    }
    let refused = browser.client.execute("return window.refused", Vec::new()).await;
    for what in refused.expect("ask what was refused").as_array().into_iter().flatten() {
        wrong.push(format!("{path}: the policy refused {what}"));
    }
    wrong.extend(browser.complaints().await.into_iter().map(|line| format!("{path}: {line}")));
    wrong
}

/// A path for people to read.
pub(crate) fn without_id(path: &str, id: &str) -> String {
    path.replace(id, "{id}")
}
