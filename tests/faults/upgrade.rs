//! F16: the server stopped under load, an upgrade that is killed at any of its steps, a version that is too
//! old for its inventory, a backup put back. Containers live on; no inventory is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::containers::{IMAGE, identity, import, in_status, ready, run, show};
use system_tests::{Check, Client, Options, TestServer, is_long, requires_root, sample, times};

use crate::damage::{Snapshot, sqlite};
use crate::footprint;

/// The same inventory as versions before left it: what the newest migrations made is taken away.
const OLDER: &str = "
    drop index containers_image;
    alter table sessions drop column key_id;
    alter table tokens drop column key_id;
    drop index events_subject;
    drop index audit_subject;
    alter table containers drop column execs;
    drop trigger people_asks;
    drop table asks;
    drop table allowances;
    drop index containers_end;
    alter table containers drop column lifetime_secs;
    alter table containers drop column life_began_at;
    alter table containers drop column ends_at;
    alter table containers drop column end_told;
    alter table containers drop column stop_why;
    drop trigger audit_is_appended_to;
    drop trigger audit_is_not_changed;
    drop trigger audit_is_not_cut;
    drop table audit_gaps;
    alter table audit drop column times;
    alter table audit drop column prev;
    alter table audit drop column hash;
    drop table maintenance;
    drop trigger containers_image_needed;
    alter table images drop column last_needed_at;
    drop table port_leases;
    drop table layer_checks;
    drop trigger containers_grants;
    drop trigger volumes_grants;
    drop trigger images_grants;
    drop trigger groups_grants;
    drop trigger containers_looks;
    drop trigger volumes_looks;
    drop view granted;
    drop table looks;
    drop view memberships;
    drop table grants;
    drop table group_members;
    drop table container_data_sets;
    drop table container_volumes;
    drop table volumes;
    drop table recovery_codes;
    drop table second_factors;
    drop table usage_counters;
    drop table usage_days;
    drop table usage_quarters;
    drop table offboarding_steps;
    drop table offboardings;
    drop index people_expires;
    alter table people drop column expires_at;
    alter table people drop column ended_at;
    drop index people_local_user;
    alter table people drop column local_user;
    drop index people_group;
    drop table groups;
    delete from _sqlx_migrations where version >= 5;";
/// What a process does to a disk.
const CALLS: &str = "pwrite64,fdatasync,fsync,ftruncate,fallocate,rename,unlink";
/// Runs the server as its user; a file for what is seen follows.
const STRACE: [&str; 6] = ["/usr/bin/strace", "-f", "-q", "-u", "nobody", "-o"];

#[tokio::test]
async fn a_server_that_is_stopped_under_load_keeps_what_it_has_acknowledged() {
    requires_root!();
    let server = TestServer::with(Options { one_subnet: true, ..Default::default() }).await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let lives = run(&anna, "lives", "while :; do usleep 20000; done", json!({})).await;
    let before = identity(&anna, &lives).await;
    let over = Arc::new(AtomicBool::new(false));
    let work = |number: usize| {
        let (anna, over) = (anna.clone(), over.clone());
        tokio::spawn(async move { work_on(&anna, number, &over).await })
    };
    let workers: Vec<_> = (0..4).map(work).collect();
    let rounds = times(20, 2);
    for round in 0..rounds {
        // Each time in the middle of something else.
        tokio::time::sleep(Duration::from_millis(150 + 37 * round as u64)).await;
        server.stop_server();
        if round % 2 == 1 {
            server.kill_supervisor();
            server.start_supervisor().await;
        }
        server.start_server().await;
        ready(&server).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeMap::new();
    for worker in workers {
        acknowledged.extend(worker.await.expect("a worker"));
    }
    let control =
        format!("{rounds} stops, {} containers acknowledged meanwhile", acknowledged.len());
    let check = |variant| Check { id: "F16", variant, control: &control };
    let mut wrong = Vec::new();
    for (name, expected) in &acknowledged {
        let answer = anna.get(&format!("/api/v1/containers/{name}")).await;
        match expected.as_str() {
            "removed" if answer.status == 404 => {}
            "running" if answer.status == 200 => drop(in_status(&anna, name, "running").await),
            _ => wrong.push(format!("{name}: {expected}, but {}", answer.text)),
        }
    }
    check("what was acknowledged is not so").finds_nothing(&wrong);
    check("the one that lives").sees(true, identity(&anna, &lives).await == before);
    // What was cut short is one or the other by now: as many monitors as containers that run.
    let list = anna.get("/api/v1/containers?state=running&limit=100").await.json();
    let running = list["items"].as_array().map_or(0, Vec::len);
    check("running beside the kernel's").sees(footprint::monitors(&server).len(), running);
}

/// Makes, starts and removes; what was acknowledged last of each.
async fn work_on(anna: &Client, number: usize, over: &AtomicBool) -> BTreeMap<String, String> {
    let mut acknowledged = BTreeMap::new();
    let mut kept = Vec::new();
    for turn in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("w{number}-{turn}");
        let body = json!({"name": name, "image": IMAGE, "start": true, "stop_grace_secs": 1,
            "command": ["sh", "-c", "while :; do usleep 50000; done"]});
        if status(anna.request("POST", "/api/v1/containers").json(&body)).await == Some(201) {
            acknowledged.insert(name.clone(), "running".to_owned());
            kept.push(name);
        }
        if kept.len() > 4 {
            let oldest = kept.remove(0);
            let path = format!("/api/v1/containers/{oldest}?force=true");
            // One whose answer is lost may be there or not.
            acknowledged.remove(&oldest);
            if status(anna.request("DELETE", &path)).await == Some(204) {
                acknowledged.insert(oldest, "removed".to_owned());
            }
        }
    }
    acknowledged
}

/// The answer's status; `None` when the server went away.
async fn status(request: reqwest::RequestBuilder) -> Option<u16> {
    match request.send().await {
        Ok(response) => Some(response.status().as_u16()),
        Err(_) => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            None
        }
    }
}

/// An inventory of a version before, with something in it, and nobody at it.
pub(crate) async fn older() -> (TestServer, Client, Snapshot) {
    let server = TestServer::with(Options { no_supervisor: true, ..Default::default() }).await;
    let operator = server.operator();
    let body = json!({"name": "anna", "role": "user"});
    operator.post("/api/v1/people", &body).await.expect_status(201);
    server.stop_server();
    let folder = server.data_dir().join("db");
    sqlite(&folder.join("berth.db"), OLDER);
    let snapshot = Snapshot::of(&folder);
    (server, operator, snapshot)
}

#[tokio::test]
async fn an_upgrade_that_is_killed_at_any_step_can_be_done_again() {
    requires_root!();
    let (server, operator, snapshot) = older().await;
    let folder = server.data_dir().join("db");
    let steps = steps(&server, &snapshot).await;
    for (call, nth) in sample(&steps, 3) {
        snapshot.put_back();
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        let trace = format!("trace={call}");
        let struck = server
            .try_start_server_by(
                &[&STRACE[..], &["/dev/null", "-e", &trace, "-e", &inject]].concat(),
            )
            .await;
        let Some(struck) = struck else {
            // That many such calls came in another thread this time.
            stop_traced(&server);
            continue;
        };
        let control = format!("strace: killed at {call} number {nth} ({struck})");
        let again = server.try_start_server().await;
        let variant = format!("an upgrade killed at {call} number {nth}");
        let check = |observed: String| {
            Check { id: "F16", variant: &variant, control: &control }
                .sees("upgraded, everybody there, the version before kept", observed);
        };
        if again.is_some() {
            check(format!("does not start: {}", server.server_log()));
        }
        let people = operator.get("/api/v1/people").await.expect_status(200).json();
        let names = people["items"].as_array().map_or(0, Vec::len);
        let copy = folder.join("berth.db.version-4");
        let kept = sqlite(
            &copy,
            "pragma integrity_check; select max(version) from _sqlx_migrations; \
            select count(*) from people",
        );
        server.kill_server();
        check(match (names, kept.as_str()) {
            (2, "ok\n4\n2") => "upgraded, everybody there, the version before kept".to_owned(),
            other => format!("{other:?}"),
        });
    }
    if !is_long() {
        return;
    }
    // And the version before is one to go back to.
    snapshot.put_back();
    server.start_server().await;
    server.stop_server();
    fs::copy(folder.join("berth.db.version-4"), folder.join("berth.db")).expect("put it back");
    server.start_server().await;
    operator.get("/api/v1/people").await.expect_status(200);
}

/// The calls of a whole upgrade until the server answers, numbered as strace counts: by thread and name.
async fn steps(server: &TestServer, snapshot: &Snapshot) -> Vec<(String, usize)> {
    snapshot.put_back();
    let out = server.dir.join("calls");
    let trace = format!("trace={CALLS}");
    let by = [&STRACE[..], &[out.to_str().expect("a path"), "-e", &trace]].concat();
    assert!(server.try_start_server_by(&by).await.is_none(), "{}", server.server_log());
    stop_traced(server);
    let text = fs::read_to_string(&out).expect("strace wrote it");
    let mut seen = BTreeMap::<(String, String), usize>::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        *seen.entry((call.to_owned(), pid.to_owned())).or_default() += 1;
    }
    let mut most = BTreeMap::<String, usize>::new();
    for ((call, _), count) in seen {
        let known = most.entry(call).or_default();
        *known = count.max(*known);
    }
    most.into_iter()
        .flat_map(|(call, most)| (1..=most).map(move |nth| (call.clone(), nth)))
        .collect()
}

/// Ends the server that strace runs, and with it strace, which would leave it behind.
fn stop_traced(server: &TestServer) {
    let strace = server.server_pid().expect("strace runs");
    let children = fs::read_to_string(format!("/proc/{strace}/task/{strace}/children"));
    for pid in children.expect("it lives").split_whitespace() {
        let pid = nix::unistd::Pid::from_raw(pid.parse().expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("its own child");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while !server.server_has_ended() {
        assert!(Instant::now() < deadline, "strace goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    server.kill_server();
}

#[tokio::test]
async fn rows_of_the_audit_from_before_there_was_a_chain_are_chained() {
    requires_root!();
    let (server, operator, _) = older().await;
    let file = server.data_dir().join("db/berth.db");
    // One was dropped by the version before, which listed nothing.
    let rows = sqlite(&file, "delete from audit where id = 1; select count(*) from audit");
    server.start_server().await;
    let state = operator.get("/api/v1/audit/verify").await.expect_status(200).json();
    let check = |variant| Check { id: "F16", variant, control: "an audit without hashes" };
    check("the audit after an upgrade").sees("whole", in_text(&state["state"]));
    check("what was there before")
        .sees(&rows, state["chained_later_to"].as_u64().map_or(0, |to| to - 1));
    check("what was dropped before").sees(1, &state["dropped"]);
    server.stop_server();
    sqlite(
        &file,
        "drop trigger audit_is_not_changed; update audit set actor_name = 'tom' where id = 2",
    );
    server.start_server().await;
    let state = operator.get("/api/v1/audit/verify").await.expect_status(200).json();
    check("a row from before, changed after the upgrade").sees(2, &state["fault"]["id"]);
}

#[tokio::test]
async fn a_version_too_old_for_its_inventory_leaves_it_alone() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Default::default() }).await;
    server.stop_server();
    let file = server.data_dir().join("db/berth.db");
    sqlite(
        &file,
        "insert into _sqlx_migrations select 9999, description, installed_on, success, \
        checksum, execution_time from _sqlx_migrations limit 1",
    );
    let before = fs::read(&file).expect("read it");
    server.clear_server_log();
    let refused = server.try_start_server().await.is_some_and(|status| !status.success());
    let check =
        |variant| Check { id: "F16", variant, control: "a migration 9999 is in the inventory" };
    check("a downgrade").sees(true, refused && server.server_log().contains("newer version"));
    check("a downgrade: the inventory").sees(true, fs::read(&file).expect("read it") == before);
    sqlite(&file, "delete from _sqlx_migrations where version = 9999");
    server.start_server().await;
    check("the right version after it")
        .sees(200, server.operator().get("/api/v1/people").await.status);
}

#[tokio::test]
async fn a_backup_is_put_back_and_says_so_when_it_is_not_whole() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let early = run(&anna, "early", "while :; do usleep 20000; done", json!({})).await;
    let before = identity(&anna, &early).await;
    server.stop_server();
    let backup = Snapshot::of(&server.data_dir().join("db"));
    server.start_server().await;
    ready(&server).await;
    let later = run(&anna, "later", "while :; do usleep 20000; done", json!({})).await;
    let (pid, _) = identity(&anna, &later).await;
    server.stop_server();
    let file = server.data_dir().join("db/berth.db");
    let newer = fs::read(&file).expect("read it");
    backup.put_back();
    server.start_server().await;
    ready(&server).await;
    let check =
        |variant| Check { id: "F16", variant, control: "a container was made after the backup" };
    check("a backup: what it holds").sees(true, identity(&anna, &early).await == before);
    check("a backup: what came later").sees(404, anna.get("/api/v1/containers/later").await.status);
    let runs = Path::new(&format!("/proc/{pid}")).exists();
    check("a backup: what it does not know runs on").sees(true, runs);
    let stopped = anna.post(&format!("/api/v1/containers/{early}/stop"), &Value::Null).await;
    check("a backup can be worked with").sees(200, stopped.status);
    check("a backup: the end").sees("exited", in_text(&show(&anna, &early).await["status"]));
    // The inventory alone, without the files beside it.
    server.stop_server();
    fs::write(&file, &newer).expect("the newer one");
    server.start_server().await;
    let body = json!({"name": "last", "image": IMAGE});
    anna.post("/api/v1/containers", &body).await.expect_status(201);
    server.stop_server();
    fs::write(&file, &newer).expect("the older one in its place");
    server.clear_server_log();
    let refused = server.try_start_server().await.is_some();
    let said = server.server_log().contains("changes are missing that were acknowledged");
    check("an older inventory put in place of a newer one").sees(true, refused && said);
}

fn in_text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
