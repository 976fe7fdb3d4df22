//! The installer as an operator uses it, on this machine without systemd, below a prefix of its own:
//! install with proof, upgrade with a container running, death of both programs, uninstall, purge.
//!
//! The path with systemd is tested in the virtual machine (`tests/vm`).

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

const READY_SECS_MAX: u64 = 30;

/// An instance below a temporary folder; purged at the end, whatever the test came to.
struct Installed {
    prefix: PathBuf,
    user: String,
}

impl Installed {
    fn new() -> Result<Self> {
        let pid = std::process::id();
        let prefix = std::env::temp_dir().join(format!("berth-install-{pid}"));
        let installed = Self { prefix, user: format!("berth{pid}") };
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let prefix = installed.prefix.display();
        // A file that somebody has written: the installer must leave it as it is.
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:{port}\"\n\n[runtime]\ninstance = \"i{id}\"\n\
             data_dir = \"{prefix}/var/lib/berth\"\nrun_dir = \"{prefix}/run/berth\"\n\
             server_user = \"{user}\"\nnetwork_pool = \"10.{octet}.0.0/16\"\n",
            id = pid % 1_000_000,
            user = installed.user,
            octet = 128 + pid % 64,
        );
        let config = installed.config();
        std::fs::create_dir_all(config.parent().context("the file has a folder")?)?;
        std::fs::write(&config, text)?;
        Ok(installed)
    }

    fn config(&self) -> PathBuf {
        self.prefix.join("etc/berth/berth.toml")
    }

    fn path(&self, below: &str) -> PathBuf {
        self.prefix.join(below)
    }

    fn installer(&self, arguments: &[&str]) -> Result<Output> {
        Command::new(top().join("Dockerfile-free-install.sh"))
            .arg("--prefix")
            .arg(&self.prefix)
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .context("run the installer")
    }

    fn install(&self) -> Result<String> {
        let programs = programs();
        let from = programs.to_str().context("a path in UTF-8")?;
        succeeded(&self.installer(&["--from", from])?)
    }

    /// A call over root's own socket.
    fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "60"])
            .args(["-X", method, "-H", "Content-Type: application/json", "--unix-socket"])
            .arg(self.path("run/berth/server/root.sock"));
        if let Some(body) = body {
            curl.args(["--data", &body.to_string()]);
        }
        let text = succeeded(&curl.arg(format!("http://localhost{path}")).output()?)?;
        if text.is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }

    fn pid_file(&self, name: &str) -> Result<u32> {
        let text = std::fs::read_to_string(self.path("run/berth").join(format!("{name}.pid")))?;
        text.trim().parse().context("a pid file holds a pid")
    }

    fn start_container(&self, name: &str) -> Result<String> {
        let body = json!({
            "name": name,
            "image": "berth/starter:latest",
            "command": ["sh", "-c", "while :; do sleep 1; done"],
            "network": "none",
            "start": true,
        });
        let created = self.api("POST", "/api/v1/containers", Some(&body))?;
        Ok(created["id"].as_str().context("a created container has an id")?.to_owned())
    }

    /// The container's first process, by pid and start time.
    fn process(&self, id: &str) -> Result<(u64, String)> {
        let container = self.api("GET", &format!("/api/v1/containers/{id}"), None)?;
        let pid = container["pid"].as_u64().with_context(|| format!("no pid in {container}"))?;
        Ok((pid, start_time(pid)?))
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Err(error) = self.installer(&["--uninstall", "--purge"]) {
            eprintln!("purge {}: {error:#}", self.prefix.display());
        }
        if let Err(error) = std::fs::remove_dir_all(&self.prefix) {
            eprintln!("remove {}: {error}", self.prefix.display());
        }
    }
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package has a parent").to_owned()
}

/// The folder with both programs.
fn programs() -> PathBuf {
    let berth = system_tests::programs::berth();
    berth.parent().expect("a program lies in a folder").to_owned()
}

fn succeeded(output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    Ok(text)
}

/// Field 22 of `/proc/<pid>/stat`.
fn start_time(pid: u64) -> Result<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(')').context("a command in parentheses")?.1;
    Ok(after.split_whitespace().nth(19).context("a start time")?.to_owned())
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(READY_SECS_MAX);
    while !condition() {
        if Instant::now() > deadline {
            bail!("{what}: not within {READY_SECS_MAX} s");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The template's lines with what is commented out taken in.
fn template() -> Result<toml::Table> {
    let script = top().join("Dockerfile-free-install.sh");
    let text = succeeded(&Command::new(script).arg("--print-config").output()?)?;
    let key = |line: &str| {
        let (name, _) = line.split_once(" = ").unwrap_or((line.trim_matches(['[', ']']), ""));
        name.chars().all(|letter| letter.is_ascii_lowercase() || "_.".contains(letter))
    };
    let lines = text.lines().map(|line| match line.strip_prefix('#') {
        Some(rest) if key(rest) => rest,
        _ => line,
    });
    Ok(lines.collect::<Vec<_>>().join("\n").parse()?)
}

/// What the program says of itself, where shells and man(1) look.
const MANUAL: [&str; 3] = [
    "usr/local/share/man/man1/berth-exec.1",
    "usr/local/share/bash-completion/completions/berth",
    "usr/local/share/zsh/site-functions/_berth",
];

#[test]
fn installs_proves_upgrades_and_removes() -> Result<()> {
    if !system_tests::programs::is_root() {
        system_tests::programs::skip("needs root: it installs");
        return Ok(());
    }
    let installed = Installed::new()?;
    let before = std::fs::read_to_string(installed.config())?;
    let shown = installed.install()?;
    ensure!(shown.contains("Hello from process 1, user 0"), "no output in the proof:\n{shown}");
    ensure!(shown.contains("limit:   67108864 bytes of memory (/sys/fs/cgroup/"), "{shown}");
    ensure!(std::fs::read_to_string(installed.config())? == before, "the configuration changed");
    let secret = std::fs::read_to_string(installed.path("etc/berth/setup-secret"))?;
    ensure!(shown.contains(secret.trim()) && secret.trim().len() >= 20, "{shown}");

    for place in MANUAL {
        ensure!(installed.path(place).exists(), "{place} is not there");
    }

    let id = installed.start_container("stays")?;
    let process = installed.process(&id)?;
    let (server, supervisor) = (installed.pid_file("server")?, installed.pid_file("supervisor")?);
    let user = succeeded(
        &Command::new("stat").args(["-c", "%U"]).arg(format!("/proc/{server}")).output()?,
    )?;
    ensure!(user.trim() == installed.user, "the server runs as {user}");

    installed.install()?;
    ensure!(installed.pid_file("server")? != server, "the server is the old process");
    ensure!(installed.pid_file("supervisor")? != supervisor, "the supervisor is the old process");
    ensure!(installed.process(&id)? == process, "the container did not live through the upgrade");

    uninstall(&installed, process.0)
}

fn uninstall(installed: &Installed, container_pid: u64) -> Result<()> {
    let (server, supervisor) = (installed.pid_file("server")?, installed.pid_file("supervisor")?);
    succeeded(&installed.installer(&["--uninstall"])?)?;
    for pid in [u64::from(server), u64::from(supervisor), container_pid] {
        wait_for(&format!("end of process {pid}"), || {
            !Path::new(&format!("/proc/{pid}")).exists()
        })?;
    }
    for place in MANUAL.into_iter().chain(["usr/local/bin/berth"]) {
        ensure!(!installed.path(place).exists(), "{place} is still there");
    }
    ensure!(installed.path("var/lib/berth/db/berth.db").exists(), "the data is gone");

    // Data that was kept is taken up again: the container is known, and stopped.
    installed.install()?;
    let list = installed.api("GET", "/api/v1/containers", None)?;
    let stays =
        list["items"].as_array().and_then(|items| items.iter().find(|c| c["name"] == "stays"));
    ensure!(stays.is_some_and(|container| container["status"] != "running"), "{list}");

    succeeded(&installed.installer(&["--uninstall", "--purge"])?)?;
    ensure!(!installed.path("var/lib/berth").exists(), "the data is still there");
    ensure!(!installed.config().exists(), "the configuration is still there");
    let user = Command::new("getent").args(["passwd", &installed.user]).output()?;
    ensure!(!user.status.success(), "the user is still there");
    Ok(())
}

#[test]
fn the_template_shows_every_default() -> Result<()> {
    let berth = programs().join("berth");
    let empty = std::env::temp_dir().join(format!("berth-empty-{}.toml", std::process::id()));
    std::fs::write(&empty, "")?;
    let printed = Command::new(berth).args(["config", "--print", "--config"]).arg(&empty).output();
    std::fs::remove_file(&empty)?;
    let defaults: toml::Table = succeeded(&printed?)?.parse()?;
    assert_eq!(toml::to_string(&template()?)?, toml::to_string(&defaults)?);
    Ok(())
}

#[test]
fn wrong_use_is_refused_with_a_reason() -> Result<()> {
    for (arguments, reason) in [
        (&["--purge"][..], "--purge goes with --uninstall"),
        (&["--frm", "x"][..], "unknown option '--frm'"),
        (&["--instance", "Not Good", "--check"][..], "lower-case letters"),
    ] {
        let script = top().join("Dockerfile-free-install.sh");
        let output = Command::new(script).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(reason), "{arguments:?}: {said}");
    }
    Ok(())
}
