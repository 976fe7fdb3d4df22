//! What an instance holds of the machine, counted from outside: descriptors, memory, tasks, mounts,
//! cgroups, links, firewall, files, rows. Two counts that differ are a leak, or a life going on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use system_tests::TestServer;

/// How long what is being undone may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Counts by name.
pub(crate) type Footprint = BTreeMap<String, u64>;

/// Everything that is to be the same whenever the same containers are there. Memory is in KiB.
pub(crate) fn of(server: &TestServer) -> Footprint {
    let mut found = Footprint::new();
    let mut add = |name: &str, count: u64| {
        *found.entry(name.to_owned()).or_default() += count;
    };
    for (name, pid) in processes(server) {
        add(&format!("{name}: descriptors"), entries(&format!("/proc/{pid}/fd")));
        add(&format!("{name}: threads"), entries(&format!("/proc/{pid}/task")));
        add(&format!("{name}: mounts"), mounts(pid, &server.instance));
        add(&format!("{name}: zombies"), zombies_of(pid));
        add(&format!("{name}: memory"), memory_kib(pid));
    }
    let groups = groups(server);
    add("cgroups", count(groups.len()));
    let monitors: Vec<u32> = monitors(server);
    add("monitors", count(monitors.len()));
    for pid in monitors {
        add("monitors: descriptors", entries(&format!("/proc/{pid}/fd")));
    }
    add("links", links(&server.instance));
    add("nft: lines", nft_lines(&server.instance));
    add("run directory: files", tree(&server.run_dir()).0);
    for name in ["layers", "people", "state", "store"] {
        let (files, bytes) = tree(&server.data_dir().join(name));
        add(&format!("{name}: files"), files);
        add(&format!("{name}: bytes"), bytes);
    }
    found
}

/// Server and supervisor.
pub(crate) fn processes(server: &TestServer) -> Vec<(&'static str, u32)> {
    let pids = [("server", server.server_pid()), ("supervisor", server.supervisor_pid())];
    pids.into_iter().filter_map(|(name, pid)| Some((name, pid?))).collect()
}

/// The monitors that run.
pub(crate) fn monitors(server: &TestServer) -> Vec<u32> {
    let mut pids: Vec<u32> = groups(server)
        .iter()
        .filter(|group| group.file_name().is_some_and(|name| name == "monitors"))
        .flat_map(|group| pids_in(group))
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The processes that a cgroup names.
pub(crate) fn pids_in(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// The instance's cgroups, of all hierarchies.
pub(crate) fn groups(server: &TestServer) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let mut found: Vec<PathBuf> = std::iter::once(top.to_owned())
        .chain(folders(top))
        .map(|root| root.join(&server.instance))
        .filter(|group| group.is_dir())
        .collect();
    let mut next = 0;
    while let Some(group) = found.get(next) {
        let below = folders(group);
        found.extend(below);
        next += 1;
    }
    found
}

/// Memory of a process that is nobody else's (`Private_Clean` aside: that is the program's file).
pub(crate) fn memory_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Resident memory at its highest.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Waits until none of these counts is more than `then`, or less; answers what is still when the time is
/// over.
pub(crate) fn differences(server: &TestServer, then: &Footprint, of_names: &[&str]) -> Vec<String> {
    settle(server, then, of_names, |before, now| before == now)
}

/// The same, of counts that may have grown by so much.
pub(crate) fn growth(
    server: &TestServer,
    then: &Footprint,
    of_names: &[&str],
    most: u64,
) -> Vec<String> {
    settle(server, then, of_names, |before, now| now <= before + most)
}

fn settle(
    server: &TestServer,
    then: &Footprint,
    of_names: &[&str],
    is_good: impl Fn(u64, u64) -> bool,
) -> Vec<String> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let now = of(server);
        let differ = |(name, count): (&String, &u64)| {
            let watched = of_names.iter().any(|part| name.contains(part));
            let before = then.get(name).copied().unwrap_or(0);
            (watched && !is_good(before, *count)).then(|| format!("{name}: {before} -> {count}"))
        };
        let found: Vec<String> = now.iter().filter_map(differ).collect();
        if found.is_empty() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Rows of every table.
pub(crate) fn rows(server: &TestServer) -> Footprint {
    let tables = sql(server, "select name from sqlite_schema where type = 'table'");
    let tables =
        tables.lines().filter(|name| !name.starts_with("_sqlx") && !name.starts_with("sqlite"));
    let count = |name: &str| sql(server, &format!("select count(*) from {name}"));
    tables.map(|name| (name.to_owned(), count(name).trim().parse().expect("a count"))).collect()
}

/// Asks the inventory beside the server.
pub(crate) fn sql(server: &TestServer, statement: &str) -> String {
    let file = server.data_dir().join("db/berth.db");
    let mut command = Command::new("sqlite3");
    command.args(["-readonly", "-cmd", ".timeout 10000"]).arg(file).arg(statement);
    let output = command.output().expect("sqlite3 is installed");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{statement}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

fn zombies_of(parent: u32) -> u64 {
    let is_one = |entry: &fs::DirEntry| {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
        let mut fields = fields.split(' ');
        fields.next() == Some("Z") && fields.next() == Some(parent.to_string().as_str())
    };
    let entries = fs::read_dir("/proc").expect("there is a /proc");
    count(entries.flatten().filter(is_one).count())
}

fn links(instance: &str) -> u64 {
    let prefix = format!("{instance}-");
    let names = fs::read_dir("/sys/class/net").expect("the kernel lists links").flatten();
    count(names.filter(|link| link.file_name().to_string_lossy().starts_with(&prefix)).count())
}

/// Lines of the instance's table, rules and elements of sets a line each.
fn nft_lines(instance: &str) -> u64 {
    let output = Command::new("nft").args(["-j", "list", "table", "inet", instance]).output();
    let text = output.expect("nft is installed").stdout;
    let tree: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    fn leaves(value: &serde_json::Value) -> u64 {
        match value {
            serde_json::Value::Array(list) => list.iter().map(leaves).sum(),
            serde_json::Value::Object(fields) => fields.values().map(leaves).sum(),
            _ => 1,
        }
    }
    // A rule that counts holds numbers: how many leaves there are does not depend on them.
    leaves(&tree)
}

/// Files and directories below, and what they take on disk.
pub(crate) fn tree(top: &Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let (mut files, mut bytes) = (0, 0);
    let mut todo = vec![top.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = fs::symlink_metadata(entry.path()) else { continue };
            files += 1;
            bytes += found.blocks() * 512;
            if found.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    (files, bytes)
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn entries(path: &str) -> u64 {
    count(fs::read_dir(path).into_iter().flatten().count())
}

/// Mounts of the instance in a process's mount namespace; others' come and go.
fn mounts(pid: u32, instance: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    count(text.lines().filter(|line| line.contains(instance)).count())
}

fn count(number: usize) -> u64 {
    u64::try_from(number).expect("a usize fits")
}
