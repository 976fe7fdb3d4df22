//! What an instance says it has against what the kernel and the disk show: [`disagreements`].

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::TestServer;
use crate::instance::SERVER_USER;

/// How long a server may take to make the two agree.
const LIMIT: Duration = Duration::from_secs(20);

/// Everything in which inventory, kernel and disk differ: containers against processes, cgroups,
/// interfaces, nftables elements, records and folders; images against layers and blobs; nothing of the
/// instance in the host's mount table. Waits for what is on its way.
pub async fn disagreements(server: &TestServer) -> Vec<String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = look(server).await;
        if found.is_empty() || Instant::now() > deadline {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Rows of the inventory, columns parted by `|`, read beside the running server.
///
/// # Panics
/// When the statement fails.
pub fn inventory(server: &TestServer, sql: &str) -> Vec<String> {
    let mut command = Command::new("sqlite3");
    command.arg("-readonly").arg(server.data_dir().join("db/berth.db"));
    command.args(["-cmd", ".timeout 5000"]).arg(sql);
    // As the server's user: a file that root made there would lock the server out.
    command.uid(SERVER_USER.1).gid(SERVER_USER.2);
    let output = command.output().expect("run sqlite3");
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// What SQLite says of a copy of the inventory's files; `ok`, if they are whole. For a stopped server.
pub fn integrity(server: &TestServer) -> String {
    let copy = server.dir.join("integrity");
    fs::create_dir_all(&copy).expect("make a directory");
    for entry in
        fs::read_dir(server.data_dir().join("db")).expect("the database is there").flatten()
    {
        // The index of the write-ahead log is made anew.
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), copy.join(entry.file_name())).expect("copy the database");
        }
    }
    let output = Command::new("sqlite3")
        .arg(copy.join("berth.db"))
        .arg("pragma integrity_check; pragma foreign_key_check;")
        .output()
        .expect("run sqlite3");
    fs::remove_dir_all(&copy).expect("remove the copy");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What outlives a restart: everything that is listed, without what may change by itself.
pub async fn snapshot(server: &TestServer) -> Vec<String> {
    let mut lines = Vec::new();
    for one in containers(server).await {
        let field = |name: &str| one[name].to_string();
        let fields = ["id", "name", "owner", "image", "status", "run", "limits", "restart", "exit"];
        lines.push(fields.map(field).join(" "));
    }
    lines.extend(inventory(server, "select id, owner, manifest_digest from images order by id"));
    lines.extend(inventory(server, "select id, owner, kind, state from operations order by id"));
    lines.extend(inventory(server, "select id, name, role from people order by 1"));
    lines.extend(layers_on_disk(server));
    lines
}

/// Every container, as the operator sees them.
pub async fn containers(server: &TestServer) -> Vec<Value> {
    let operator = server.operator();
    let mut all = Vec::new();
    let mut path = "/api/v1/containers?limit=100".to_owned();
    loop {
        let page = operator.get(&path).await.expect_status(200).json();
        all.extend(page["items"].as_array().expect("a list").iter().cloned());
        match page["next"].as_str() {
            Some(next) => path = format!("/api/v1/containers?limit=100&after={next}"),
            None => return all,
        }
    }
}

async fn look(server: &TestServer) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, said: &BTreeSet<String>, shown: &BTreeSet<String>| {
        for one in said.difference(shown) {
            found.push(format!("{what}: {one} is missing"));
        }
        for one in shown.difference(said) {
            found.push(format!("{what}: {one} is too much"));
        }
    };
    let all = containers(server).await;
    let ids = |wanted: &dyn Fn(&&Value) -> bool| -> BTreeSet<String> {
        let chosen = all.iter().filter(|one| wanted(one));
        chosen.map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
    };
    let known = ids(&|_| true);
    let live = ids(&|one| matches!(one["status"].as_str(), Some("running" | "paused")));
    let busy = ids(&|one| match one["status"].as_str() {
        Some("running" | "paused" | "created" | "failed") => false,
        // Its end is known, and not yet how it ended.
        Some("exited") => one["exit"].is_null(),
        _ => true,
    });
    differ("settled containers", &BTreeSet::new(), &busy);
    for (hierarchy, groups) in cgroups(&server.instance) {
        differ(&format!("cgroups of {hierarchy}"), &live, &groups);
    }
    differ("run directories", &live, &names(&server.run_dir().join("containers")));
    let data = server.data_dir();
    let started = ids(&|one| one["run"].as_u64() != Some(0));
    let mut records = names(&data.join("state/containers"));
    // A first start that failed before it could be written down has left nothing.
    records.extend(ids(&|one| one["run"] == 1 && one["exit"]["cause"] == "start_failed"));
    differ("records", &started, &records);
    let (mut writable, mut logs) = (BTreeSet::new(), BTreeSet::new());
    for person in names(&data.join("people")) {
        writable.extend(names(&data.join("people").join(&person).join("containers")));
        logs.extend(names(&data.join("people").join(&person).join("logs")));
    }
    // A start that ended early has made neither.
    let ran = ids(&|one| !one["exit"]["code"].is_null() || !one["exit"]["signal"].is_null());
    for (what, shown) in [("writable layers", &mut writable), ("logs", &mut logs)] {
        let early = started.iter().filter(|id| !ran.contains(*id) && !live.contains(*id));
        shown.extend(early.cloned());
        differ(what, &started, shown);
    }
    let addressed: BTreeSet<String> = all
        .iter()
        .filter(|one| live.contains(one["id"].as_str().unwrap_or_default()))
        .filter_map(|one| one["address"].as_str().map(str::to_owned))
        .collect();
    let (links, members) = network(&server.instance);
    differ("addresses let through", &addressed, &members);
    if links != addressed.len() {
        found.push(format!("{links} interfaces for {} addresses", addressed.len()));
    }
    let monitors = monitors(&server.instance).len();
    if monitors != live.len() {
        found.push(format!("{monitors} monitors for {} runs", live.len()));
    }
    found.extend(strays(server, &known));
    found
}

/// What belongs to no container: mounts, half-written files, content that no image has.
fn strays(server: &TestServer, known: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let dir = server.dir.display().to_string();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    let ours = mounts.lines().filter(|line| line.contains(&dir) && !line.contains("/disk-"));
    found.extend(ours.map(|line| format!("mounted on the host: {line}")));
    let data = server.data_dir();
    let half = names(&data.join("layers/tmp"));
    found.extend(half.iter().map(|name| format!("a half layer: {name}")));
    let wanted: BTreeSet<String> =
        inventory(server, "select blob from image_layers union select layer from container_layers")
            .into_iter()
            .collect();
    for layer in layers_on_disk(server) {
        if !wanted.contains(&format!("sha256:{layer}")) {
            found.push(format!("a layer of no image: {layer}"));
        }
    }
    let present = layers_on_disk(server);
    for layer in &wanted {
        if !present.contains(layer.trim_start_matches("sha256:")) {
            found.push(format!("a layer that is listed and not there: {layer}"));
        }
    }
    for waiting in inventory(server, "select id from containers where intent = 'removed'") {
        found.push(format!("a removal that does not end: {waiting}, of {}", known.len()));
    }
    found
}

fn layers_on_disk(server: &TestServer) -> BTreeSet<String> {
    names(&server.data_dir().join("layers/sha256"))
}

/// The containers' cgroups of each hierarchy that the instance uses.
fn cgroups(instance: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut roots = vec![Path::new("/sys/fs/cgroup").to_owned()];
    roots.extend(names(&roots[0]).iter().map(|name| Path::new("/sys/fs/cgroup").join(name)));
    // Controllers that share a hierarchy have two names for it.
    roots.retain(|root| !root.is_symlink() && root.join(instance).is_dir());
    let mut all = Vec::new();
    for root in roots {
        let mut groups = BTreeSet::new();
        for group in below(&root.join(instance)) {
            for person in below(&group) {
                let found = names(&person);
                groups.extend(
                    found
                        .iter()
                        .filter_map(|name| name.strip_prefix('c'))
                        .filter(|id| id.len() == 32)
                        .map(str::to_owned),
                );
            }
        }
        all.push((root.display().to_string(), groups));
    }
    all
}

/// How many host ends of containers' interfaces there are, and the addresses that the table lets through.
fn network(instance: &str) -> (usize, BTreeSet<String>) {
    let prefix = format!("{instance}_");
    let links = names(Path::new("/sys/class/net"));
    let links = links.iter().filter(|name| name.starts_with(&prefix)).count();
    let output = Command::new("nft")
        .args(["-j", "list", "set", "inet", instance, "members"])
        .output()
        .expect("run nft");
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let mut members = BTreeSet::new();
    for part in listed["nftables"].as_array().into_iter().flatten() {
        for element in part["set"]["elem"].as_array().into_iter().flatten() {
            let parts = element["concat"].as_array().into_iter().flatten();
            members.extend(parts.last().and_then(Value::as_str).map(str::to_owned));
        }
    }
    (links, members)
}

/// The processes in the instance's monitors' cgroups.
pub(crate) fn monitors(instance: &str) -> Vec<u32> {
    let top = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let top = top.iter().map(|root| Path::new(root).join(instance)).find(|path| path.is_dir());
    let mut found = Vec::new();
    for group in top.iter().flat_map(|top| below(top)) {
        for person in below(&group) {
            let pids = fs::read_to_string(person.join("monitors/cgroup.procs")).unwrap_or_default();
            found.extend(pids.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
    }
    found
}

fn below(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// The names in a directory; none, when it is not there.
pub fn names(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
