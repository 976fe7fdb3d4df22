//! F10: trees of processes that do not want to end: bombs, the unreaped, the deaf, the stopped, the frozen,
//! the detached. A stop ends each within its grace and five seconds, and nothing of it is left.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use system_tests::containers::{act, import, log_with, run, show};
use system_tests::{Check, Client, TestServer, requires_root, sample, times};

use crate::footprint;

const GRACE_SECS: u64 = 1;
const BEYOND: Duration = Duration::from_secs(5);

/// A tree and how it is made worse from outside.
#[derive(Debug, Clone, Copy)]
enum Tree {
    Bomb,
    Unreaped,
    Deaf,
    Stopped,
    Paused,
    FrozenByTheHost,
    Detached,
}

const ALL: [Tree; 7] = [
    Tree::Bomb,
    Tree::Unreaped,
    Tree::Deaf,
    Tree::Stopped,
    Tree::Paused,
    Tree::FrozenByTheHost,
    Tree::Detached,
];

impl Tree {
    fn pids(self) -> usize {
        // The full number of the bar, where the host can have as many.
        if matches!(self, Self::Unreaped) { times(10_100, 400) } else { 64 }
    }

    fn script(self) -> String {
        let deaf = "trap '' TERM INT HUP";
        match self {
            Self::Bomb => {
                // A shell that cannot fork ends: the first process forks once, before there is a bomb.
                format!(
                    "{deaf}; f() {{ f & f & wait; }}; \
                     (for i in 1 2 3 4; do (while :; do f; done) & done; wait) & exec sleep 100000"
                )
            }
            // Whoever they are children of by then waits for nobody.
            Self::Unreaped => format!(
                "{deaf}; i=0; while [ $i -lt {} ]; do usleep {} & i=$((i+1)); done; echo ready; \
                 exec sleep 100000",
                self.pids() - 50,
                times(60_000_000, 3_000_000)
            ),
            Self::Detached => format!(
                "{deaf}; for i in 1 2 3 4; do (busybox setsid sh -c '{deaf}; (sleep 100000 &) ; sleep 100000' &) ; \
                 done; echo ready; while :; do sleep 100000; done"
            ),
            _ => format!(
                "{deaf}; sh -c '{deaf}; while :; do usleep 20000; done' & echo ready; \
                 while :; do usleep 20000; done"
            ),
        }
    }
}

#[tokio::test]
async fn whatever_tree_it_is_a_stop_ends_all_of_it_in_time() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let neighbour = run(&anna, "neighbour", "while :; do usleep 50000; done", json!({})).await;
    let before = footprint::of(&server);
    for tree in sample(&ALL, 2) {
        end_one(&server, &anna, tree).await;
    }
    assert_eq!(show(&anna, &neighbour).await["status"], "running", "a neighbour was hurt");
    let left =
        footprint::differences(&server, &before, &["cgroups", "monitors", "zombies", "links"]);
    let check =
        Check { id: "F10", variant: "what is left of all trees", control: "each was seen full" };
    check.finds_nothing(&left);
}

async fn end_one(server: &TestServer, anna: &Client, tree: Tree) {
    let limits = json!({"pids": tree.pids(), "memory_bytes": 4_u64 << 30});
    let more = json!({"stop_grace_secs": GRACE_SECS, "limits": limits});
    let id = run(anna, "tree", &tree.script(), more).await;
    if !matches!(tree, Tree::Bomb) {
        log_with(anna, &id, "ready").await;
    }
    let shown = show(anna, &id).await;
    let pids = PathBuf::from(shown["cgroup"]["pids"].as_str().expect("a cgroup of pids"));
    let control = make_worse(anna, &id, tree, &pids, &shown).await;
    let check = |variant: &str, expected: &str, observed: String| {
        let variant = format!("{tree:?}: {variant}");
        Check { id: "F10", variant: &variant, control: &control }.sees(expected, observed);
    };
    let forks = Command::new("true").status().is_ok_and(|status| status.success());
    check("the host forks", "true", forks.to_string());
    let begun = Instant::now();
    let stopped = act(anna, &id, "stop").await;
    let took = begun.elapsed();
    let in_time = took <= Duration::from_secs(GRACE_SECS) + BEYOND;
    let said = if in_time { "200 in time".to_owned() } else { format!("{took:?}") };
    check("stop", "200 in time", said.replace("200", &stopped.status.to_string()));
    let removed = anna.delete(&format!("/api/v1/containers/{id}")).await;
    check("remove", "204", removed.status.to_string());
    let deadline = Instant::now() + BEYOND;
    while pids.exists() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    check("its cgroup", "gone", if pids.exists() { "there" } else { "gone" }.to_owned());
    let answers = server.anonymous().get("/healthz").await.status;
    check("the server", "200", answers.to_string());
}

/// Waits until the tree is as bad as it gets; how that was seen.
async fn make_worse(
    anna: &Client,
    id: &str,
    tree: Tree,
    pids: &std::path::Path,
    shown: &Value,
) -> String {
    let number = |name: &str| {
        let text = fs::read_to_string(pids.join(name)).unwrap_or_default();
        text.trim().parse::<usize>().unwrap_or(0)
    };
    let first = i32::try_from(shown["pid"].as_i64().expect("it runs")).expect("a pid fits");
    match tree {
        Tree::Bomb | Tree::Unreaped => {
            let full = if matches!(tree, Tree::Bomb) { tree.pids() } else { tree.pids() - 50 };
            let deadline = Instant::now() + Duration::from_secs(150);
            let dead = || !matches!(tree, Tree::Unreaped) || footprint::pids_in(pids).len() < 4;
            // A fork that was refused, as pids.events counts it, says so too.
            let refused = || {
                let text = fs::read_to_string(pids.join("pids.events")).unwrap_or_default();
                matches!(tree, Tree::Bomb) && text.starts_with("max ") && text.trim() != "max 0"
            };
            while !refused() && number("pids.current") < full || !dead() {
                assert!(
                    Instant::now() < deadline,
                    "{tree:?}: {} of {full}",
                    number("pids.current")
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            format!("{} of {} processes", number("pids.current"), number("pids.max"))
        }
        Tree::Stopped => {
            for pid in footprint::pids_in(pids) {
                let pid = Pid::from_raw(i32::try_from(pid).expect("a pid fits"));
                kill(pid, Signal::SIGSTOP).expect("one of the container's");
            }
            let deadline = Instant::now() + BEYOND;
            let stat = || fs::read_to_string(format!("/proc/{first}/stat")).expect("it lives");
            while !stat().contains(") T ") {
                assert!(Instant::now() < deadline, "it is not stopped: {}", stat());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            "every process is in state T".to_owned()
        }
        Tree::Paused => {
            act(anna, id, "pause").await.expect_status(200);
            "frozen by its owner".to_owned()
        }
        Tree::FrozenByTheHost => {
            let freezer = PathBuf::from(pids.to_string_lossy().replacen("/pids/", "/freezer/", 1));
            let v1 = freezer.join("freezer.state");
            let (file, word) = match v1.exists() {
                true => (v1, "FROZEN"),
                false => (freezer.join("cgroup.freeze"), "1"),
            };
            fs::write(&file, word).expect("freeze it");
            format!("{word} in {}", file.display())
        }
        Tree::Deaf => "TERM is ignored by both".to_owned(),
        Tree::Detached => {
            let count = footprint::pids_in(pids).len();
            assert!(count > 4, "{count} processes");
            format!("{count} processes, sessions of their own")
        }
    }
}
