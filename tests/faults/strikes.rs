//! F01: a process is killed at its k-th state-changing system call, for every k until the act ends.
//! F08: that call fails instead. Whatever has ended is started again, as a service manager would.

use std::time::{Duration, Instant};

use system_tests::containers::ready;
use system_tests::injector::{Injector, Struck};
use system_tests::reality::{disagreements, integrity, snapshot};
use system_tests::{Check, Dice, TestServer, is_long, requires_root, sample};

use super::acts::{Act, Stage, Subject};

/// How soon everything is known again.
const READY_LIMIT: Duration = Duration::from_secs(5);
/// How long a request may have to be sent again.
const RETRY_LIMIT: Duration = Duration::from_secs(30);
const KILL: &[&str] = &["kill"];
const ERRORS: &[&str] = &["EIO", "ENOSPC", "EINTR", "ENOMEM", "EMFILE"];

macro_rules! strikes {
    ($($name:ident: $act:expr, $faults:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            requires_root!();
            strike_everywhere($act, $faults).await;
        }
    )*};
}

strikes! {
    f01_a_kill_in_a_pull_loses_and_leaves_nothing: Act::Pull, KILL;
    f01_a_kill_in_an_import_loses_and_leaves_nothing: Act::Import, KILL;
    f01_a_kill_in_a_create_loses_and_leaves_nothing: Act::Create, KILL;
    f01_a_kill_in_a_start_loses_and_leaves_nothing: Act::Start, KILL;
    f01_a_kill_in_a_change_loses_and_leaves_nothing: Act::Update, KILL;
    f01_a_kill_in_a_stop_loses_and_leaves_nothing: Act::Stop, KILL;
    f01_a_kill_in_a_removal_loses_and_leaves_nothing: Act::Remove, KILL;
    f08_an_error_in_a_pull_loses_and_leaves_nothing: Act::Pull, ERRORS;
    f08_an_error_in_an_import_loses_and_leaves_nothing: Act::Import, ERRORS;
    f08_an_error_in_a_create_loses_and_leaves_nothing: Act::Create, ERRORS;
    f08_an_error_in_a_start_loses_and_leaves_nothing: Act::Start, ERRORS;
    f08_an_error_in_a_change_loses_and_leaves_nothing: Act::Update, ERRORS;
    f08_an_error_in_a_stop_loses_and_leaves_nothing: Act::Stop, ERRORS;
    f08_an_error_in_a_removal_loses_and_leaves_nothing: Act::Remove, ERRORS;
}

/// One fault.
#[derive(Debug, Clone, Copy)]
struct Blow {
    act: Act,
    role: &'static str,
    fault: &'static str,
    /// Which call; 0 for none.
    nth: usize,
}

/// In full each call of each process from the `BERTH_FROM`-th on, else one call of one.
async fn strike_everywhere(act: Act, faults: &[&'static str]) {
    let stage = Stage::set().await;
    let mut wrong = Vec::new();
    let from = std::env::var("BERTH_FROM").ok().map(|text| text.parse().expect("a number"));
    for role in sample(act.roles(), 1) {
        for fault in sample(faults, 1) {
            let mut blow = Blow { act, role, fault, nth: 0 };
            if is_long() {
                blow.nth = from.map_or(0, |from: usize| from.saturating_sub(1));
                loop {
                    blow.nth += 1;
                    let Ok(found) = strike(&stage, blow).await else { break };
                    wrong.extend(found);
                }
            } else if let Err(calls @ 1..) = strike(&stage, blow).await {
                // A run may make fewer calls than the one before.
                blow.nth = 1 + Dice::new().below(calls);
                wrong.extend(strike(&stage, blow).await.unwrap_or_default());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Lets the fault strike.
///
/// # Errors
/// How many calls there were, when it did not.
async fn strike(stage: &Stage, blow: Blow) -> Result<Option<String>, usize> {
    let Blow { act, role, fault, nth } = blow;
    let subject = stage.prepare(act).await;
    let injector = Injector::start(&pids(&stage.server, role), role, nth, fault);
    let mut wrong = Vec::new();
    let answer = {
        let performed = stage.perform(act, &subject);
        tokio::pin!(performed);
        loop {
            tokio::select! {
                answer = &mut performed => break answer,
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
            wrong.extend(start_what_has_ended(&stage.server).await);
        }
    };
    let (call, pid) = match injector.finish() {
        Struck::Call { call, pid } => (call, pid),
        Struck::Nothing { seen } => {
            answer.unwrap_or_else(|error| panic!("{act:?} without a fault: {error}"));
            stage.tidy(act, &subject).await;
            return Err(seen);
        }
    };
    if fault == "kill" {
        wait_for_the_end(&stage.server, pid).await;
    }
    wrong.extend(start_what_has_ended(&stage.server).await);
    wrong.extend(judge(stage, act, &subject, answer.is_ok()).await);
    if fault == "kill" {
        wrong.extend(restart_again(stage).await);
    }
    let wrong = wrong.join("; ");
    stage.tidy(act, &subject).await;
    let variant = format!("{act:?} {role} {fault} {nth}");
    let control =
        format!("{fault} at {call}: {}", answer.map_or_else(|error| error, |_| "ok".into()));
    let id = if fault == "kill" { "F01" } else { "F08" };
    let holds = Check { id, variant: &variant, control: &control }.holds("", &wrong);
    Ok((!holds).then(|| format!("{variant}, {control}: {wrong}")))
}

/// The processes to trace, so that the role is among them or their children.
fn pids(server: &TestServer, role: &str) -> Vec<u32> {
    let monitors = if role == "monitor" { server.monitors() } else { Vec::new() };
    let own = if role == "server" { server.server_pid() } else { server.supervisor_pid() };
    monitors.into_iter().chain(own).collect()
}

/// A killed process takes its time to be gone.
async fn wait_for_the_end(server: &TestServer, pid: u64) {
    let is = |known: Option<u32>| known.map(u64::from) == Some(pid);
    let deadline = Instant::now() + RETRY_LIMIT;
    while (is(server.server_pid()) && !server.server_has_ended())
        || (is(server.supervisor_pid()) && !server.supervisor_has_ended())
    {
        assert!(Instant::now() < deadline, "{pid} was killed and lives on");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Does what the service manager does; what was wrong with it.
async fn start_what_has_ended(server: &TestServer) -> Vec<String> {
    let mut wrong = Vec::new();
    let begun = Instant::now();
    if server.server_has_ended() {
        let found = integrity(server);
        if found != "ok" {
            wrong.push(format!("the inventory: {found}"));
        }
        server.start_server().await;
    } else if server.supervisor_has_ended() {
        server.start_supervisor().await;
    } else {
        return wrong;
    }
    ready(server).await;
    // On a machine that runs other tests, too, this says nothing.
    if is_long() && begun.elapsed() > READY_LIMIT {
        wrong.push(format!("ready after {:?}", begun.elapsed()));
    }
    wrong
}

/// Everything that is wrong after a fault.
async fn judge(stage: &Stage, act: Act, subject: &Subject, acknowledged: bool) -> Vec<String> {
    let mut wrong = disagreements(&stage.server).await;
    if acknowledged
        && !stage.is_done(act, subject).await
        && !stage.was_done_and_is_known_to_have_ended(act, subject).await
    {
        wrong.push("what was acknowledged is not so".to_owned());
    }
    // The same again: a start of what runs by now is refused, and that is no failure.
    let may_be_refused = !matches!(act, Act::Create | Act::Pull | Act::Import);
    let deadline = Instant::now() + RETRY_LIMIT;
    while let Err(error) = stage.perform(act, subject).await {
        if may_be_refused && stage.is_done(act, subject).await {
            break;
        }
        if Instant::now() > deadline {
            wrong.push(format!("sent again: {error}"));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if !stage.is_done(act, subject).await {
        wrong.push("it is not so after being asked for again".to_owned());
    }
    wrong.extend(disagreements(&stage.server).await);
    wrong
}

/// Whatever one more restart of both changes.
async fn restart_again(stage: &Stage) -> Vec<String> {
    let server = &stage.server;
    let before = snapshot(server).await;
    server.kill_supervisor();
    server.start_supervisor().await;
    server.kill_server();
    server.start_server().await;
    ready(server).await;
    let mut wrong = disagreements(server).await;
    let after = snapshot(server).await;
    if before != after {
        wrong.push(format!("another restart changed {before:?} to {after:?}"));
    }
    wrong
}
