//! The API's document, as others read it: a validator finds nothing wrong, a generator makes a client
//! from it without a warning, and that client works a real server: every answer is what the document
//! says, no field more. The commands that help shows are run as they stand there.
//!
//! Validator and generator are Python's; they come once into a cache outside the tree.

mod metrics;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use system_tests::{TestServer, image, programs, requires_root};

const REQUIREMENTS: &str = include_str!("requirements.txt");
const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

#[tokio::test]
async fn a_generated_client_works_the_server() {
    requires_root!();
    let python = match python() {
        Ok(python) => python,
        Err(reason) => {
            programs::skip(&reason);
            return;
        }
    };
    let server = TestServer::start().await;
    let olga = server.operator();
    let document = server.anonymous().get("/api/v1/openapi.json").await.expect_status(200);
    let folder = server.dir.join("openapi");
    std::fs::create_dir_all(&folder).expect("make a folder");
    let file = folder.join("openapi.json");
    std::fs::write(&file, &document.text).expect("write the document");

    let validated = run(Command::new(python.with_file_name("openapi-spec-validator")).arg(&file));
    assert!(validated.status.success(), "{}", words(&validated));

    // No formatters: they are not what is looked at. The generator does not know archives as bytes.
    let settings =
        "post_hooks: []\ncontent_type_overrides:\n  application/x-tar: application/octet-stream\n";
    std::fs::write(folder.join("config.yml"), settings).expect("write the settings");
    let generated = run(Command::new(python.with_file_name("openapi-python-client"))
        .args(["generate", "--meta", "none", "--fail-on-warning", "--config"])
        .arg(folder.join("config.yml"))
        .arg("--path")
        .arg(&file)
        .arg("--output-path")
        .arg(folder.join("berth_client")));
    assert!(generated.status.success(), "{}", words(&generated));
    assert!(!words(&generated).contains("WARNING"), "{}", words(&generated));

    let shell = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let archive =
        image::archive("lab/shell:v1", &[("bin/sh", 0o755, &shell), ("bin/sleep", 0o755, &shell)]);
    image::import(&olga, archive).await;
    let body = json!({"name": "generated client", "scope": "manage", "days": 1});
    let token = olga.post("/api/v1/tokens", &body).await.expect_status(201).json();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/client.py");
    let used = run(Command::new(&python)
        .arg(script)
        .env("PYTHONPATH", &folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BERTH_URL", server.url())
        .env("BERTH_TOKEN", token["secret"].as_str().expect("a token has a secret")));
    assert!(used.status.success(), "{}", words(&used));
    assert!(words(&used).contains("all of it was done"), "{}", words(&used));
}

#[tokio::test]
async fn the_commands_of_help_work_as_they_stand() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let shell = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let files: [(&str, u32, &[u8]); 3] =
        [("bin/sh", 0o755, &shell), ("bin/sleep", 0o755, &shell), ("bin/date", 0o755, &shell)];
    image::import(&olga, image::archive("berth/starter:latest", &files)).await;
    let body = json!({"name": "manual", "scope": "manage", "days": 1});
    let token = olga.post("/api/v1/tokens", &body).await.expect_status(201).json();
    let token = token["secret"].as_str().expect("a token has a secret");
    let shell =
        |script: &str| run(Command::new("bash").arg("-c").arg(script).env("BERTH_TOKEN", token));

    let manual = commands(&olga.get("/help/scripts").await.expect_status(200).text);
    let (function, calls) = manual.split_first().expect("the manual has commands");
    let calls: Vec<&String> = calls.iter().filter(|call| call.starts_with("api ")).collect();
    assert_eq!(calls.len(), 5, "{calls:?}");
    for call in calls {
        // What follows events ends when it is told to.
        let (call, ends) = match call.contains(" -N ") {
            true => (call.replace("api -N", "api -N --max-time 1"), 28),
            false => (call.clone(), 0),
        };
        let done = shell(&format!("{function}\n{call}"));
        assert_eq!(done.status.code(), Some(ends), "{call}: {}", words(&done));
        assert!(!words(&done).contains("\"type\":\"/problems/"), "{call}: {}", words(&done));
    }

    let index = olga.get("/help/api").await.expect_status(200).text;
    let resources: Vec<&str> =
        index.split("<h2 id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let mut asked = 0;
    for resource in resources {
        let page = olga.get(&format!("/help/api/{resource}")).await.expect_status(200);
        for command in commands(&page.text) {
            let read = run(Command::new("bash").args(["-n", "-c", &command]));
            assert!(read.status.success(), "{command}: {}", words(&read));
            let acts = ["-X ", "{id}", "…", "/stream", "--unix-socket"];
            if acts.iter().any(|part| command.contains(part)) {
                continue;
            }
            let done = shell(&command);
            assert!(done.status.success(), "{command}: {}", words(&done));
            assert!(!words(&done).contains("\"type\":\"/problems/"), "{command}: {}", words(&done));
            asked += 1;
        }
    }
    assert!(asked > 20, "only {asked} commands were run");
}

/// What a page offers to be copied.
fn commands(page: &str) -> Vec<String> {
    let copied = page.split("data-copy=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let marks = [("&#34;", "\""), ("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&#38;", "&")];
    copied
        .map(|text| {
            marks.iter().fold(text.to_owned(), |text, (mark, sign)| text.replace(mark, sign))
        })
        .collect()
}

#[tokio::test]
async fn every_operation_says_all_of_itself() {
    let document = document();
    let tags: Vec<&Value> = list(&document["tags"]).map(|tag| &tag["name"]).collect();
    let mut ids = std::collections::BTreeSet::new();
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for (path, item) in document["paths"].as_object().expect("the document has paths") {
        for method in METHODS.into_iter().filter(|method| item.get(*method).is_some()) {
            let operation = &item[method];
            looked_at += 1;
            let mut lacks = lacks(method, path, operation);
            if !ids.insert(operation["operationId"].as_str().unwrap_or_default()) {
                lacks.push("an operationId of its own".to_owned());
            }
            if !list(&operation["tags"]).all(|tag| tags.contains(&tag)) {
                lacks.push("a tag that the document describes".to_owned());
            }
            wrong.extend(lacks.into_iter().map(|what| format!("{method} {path} lacks {what}")));
        }
    }
    assert!(looked_at > 50, "only {looked_at} operations: not the document");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // The control: an operation that says nothing lacks all of it.
    let silent =
        lacks("post", "/things/{id}", &json!({"responses": {"200": {"content": {"a": {}}}}}));
    assert_eq!(silent.len(), 9, "{silent:?}");
}

/// What an operation does not say.
fn lacks(method: &str, path: &str, operation: &Value) -> Vec<String> {
    let mut lacks = Vec::new();
    let mut want = |holds: bool, what: &str| {
        if !holds {
            lacks.push(what.to_owned());
        }
    };
    let says = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
    want(says(&operation["summary"]), "a summary");
    want(says(&operation["operationId"]), "an operationId");
    want(list(&operation["tags"]).count() == 1, "its one tag");
    want(operation["security"].is_array(), "who may (security)");
    want(operation["x-access"].is_object(), "who may (x-access)");
    let parameters: Vec<&Value> = list(&operation["parameters"]).collect();
    for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
        let found = parameters.iter().any(|one| one["name"] == name && one["in"] == "path");
        want(found, &format!("the parameter {name} of its path"));
    }
    for one in &parameters {
        let known = says(&one["description"]) && one["schema"].is_object();
        want(known, &format!("meaning and schema of {}", one["name"]));
    }
    if let Some(body) = operation.get("requestBody") {
        let contents = body["content"].as_object();
        let has = contents.is_some_and(|all| all.values().all(|one| one["schema"].is_object()));
        want(has, &format!("the schema of what it takes ({method})"));
    }
    let responses = operation["responses"].as_object();
    for (status, response) in responses.into_iter().flatten() {
        let whole = response.get("$ref").is_some() || says(&response["description"]);
        want(whole, &format!("what {status} says"));
        for (media_type, content) in response["content"].as_object().into_iter().flatten() {
            want(content["schema"].is_object(), &format!("the schema of {status}"));
            let refusal = status.starts_with(['4', '5']);
            let fits = !refusal || media_type == "application/problem+json";
            want(fits, &format!("problem+json for {status}"));
        }
    }
    // 101: what goes on over the connection is no HTTP any more.
    let succeeds = |status: &String| status.starts_with('2') || status == "101";
    let success = responses.is_some_and(|all| all.keys().any(succeeds));
    want(success, "an answer when it succeeds");
    let problem = &operation["responses"]["default"]["$ref"];
    want(problem == "#/components/responses/Problem", "the default answer, a problem");
    lacks
}

/// The document of the program under test.
fn document() -> Value {
    let told = run(Command::new(programs::berth()).arg("openapi"));
    serde_json::from_slice(&told.stdout).expect("the document is JSON")
}

/// A Python that has what is required, from a cache that a change of the requirements renews.
///
/// # Errors
/// Why there is none.
fn python() -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .unwrap_or_else(std::env::temp_dir)
        .join("berth-tests");
    let pins: Vec<&str> = REQUIREMENTS.lines().filter(|line| line.contains("==")).collect();
    let home = cache.join(format!("openapi-{}", pins.join("-").replace("==", "-")));
    let python = home.join("bin/python");
    if home.join("complete").exists() {
        return Ok(python);
    }
    std::fs::create_dir_all(&cache).map_err(|error| format!("make a cache: {error}"))?;
    finished("make a venv", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(pins);
    finished("install by pip", &mut pip)?;
    std::fs::write(home.join("complete"), "").map_err(|error| format!("mark a cache: {error}"))?;
    Ok(python)
}

fn finished(what: &str, command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{what}: {}", words(&output).trim())) }
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("run a program")
}

fn words(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
