//! F01: a process is killed at its k-th state-changing system call, for every k until the operation
//! ends. Then, as a service manager would, it is started again.

use std::time::{Duration, Instant};

use system_tests::containers::ready;
use system_tests::reality::{disagreements, integrity, snapshot};
use system_tests::{Check, Dice, is_long, requires_root, sample};

use super::acts::{Act, Stage, Subject};
use super::injector::Injector;

/// How soon everything is known again.
const READY_LIMIT: Duration = Duration::from_secs(5);
/// How long a request may have to be sent again.
const RETRY_LIMIT: Duration = Duration::from_secs(30);
macro_rules! killed_in {
    ($($name:ident: $act:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            requires_root!();
            kill_everywhere($act).await;
        }
    )*};
}

killed_in! {
    f01_a_kill_in_a_pull_loses_and_leaves_nothing: Act::Pull;
    f01_a_kill_in_an_import_loses_and_leaves_nothing: Act::Import;
    f01_a_kill_in_a_create_loses_and_leaves_nothing: Act::Create;
    f01_a_kill_in_a_start_loses_and_leaves_nothing: Act::Start;
    f01_a_kill_in_a_change_loses_and_leaves_nothing: Act::Update;
    f01_a_kill_in_a_stop_loses_and_leaves_nothing: Act::Stop;
    f01_a_kill_in_a_removal_loses_and_leaves_nothing: Act::Remove;
}

/// Every call of every process in full, else one.
async fn kill_everywhere(act: Act) {
    let stage = Stage::set().await;
    let mut wrong = Vec::new();
    let mut number = 0;
    for role in sample(act.roles(), 1) {
        if is_long() {
            for nth in 1.. {
                number += 1;
                let Some(found) = strike(&stage, act, role, nth, number).await else { break };
                wrong.extend(found);
            }
            continue;
        }
        let calls = count(&stage, act, role, number + 1).await;
        number += 2;
        if calls > 0 {
            // A run may make fewer calls than the one before.
            let nth = 1 + Dice::new().below(calls);
            wrong.extend(strike(&stage, act, role, nth, number).await.unwrap_or_default());
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// How many calls the process makes in the act.
async fn count(stage: &Stage, act: Act, role: &str, number: usize) -> usize {
    let subject = stage.prepare(act, number).await;
    let injector = Injector::start(&pids(stage, role).await, role, 0, "kill");
    stage.perform(act, &subject).await.unwrap_or_else(|error| panic!("{act:?}: {error}"));
    let seen = injector.finish()["seen"].as_u64().expect("a count");
    stage.tidy(act, &subject).await;
    usize::try_from(seen).expect("a count")
}

/// Kills at one call; what is wrong then, or nothing, if the act was over before.
async fn strike(
    stage: &Stage,
    act: Act,
    role: &str,
    nth: usize,
    number: usize,
) -> Option<Vec<String>> {
    let subject = stage.prepare(act, number).await;
    let injector = Injector::start(&pids(stage, role).await, role, nth, "kill");
    let (acknowledged, struck) = {
        let performed = stage.perform(act, &subject);
        tokio::pin!(performed);
        let mut struck = None;
        let answer = loop {
            tokio::select! {
                answer = &mut performed => break answer,
                () = tokio::time::sleep(Duration::from_millis(5)), if struck.is_none() => {
                    struck = injector.struck();
                    if struck.is_some() {
                        start_again(stage, role).await;
                    }
                }
            }
        };
        if struck.is_none() {
            let said = injector.finish();
            struck = said.get("call").is_some().then_some(said);
            if struck.is_some() {
                start_again(stage, role).await;
            }
        }
        (answer, struck)
    };
    let Some(struck) = struck else {
        acknowledged.unwrap_or_else(|error| panic!("{act:?} without a fault: {error}"));
        stage.tidy(act, &subject).await;
        return None;
    };
    let control = format!("killed at {}, {}", struck["call"], struck["about"]);
    let variant = format!("{act:?} {role} {nth}");
    let wrong = judge(stage, act, &subject, acknowledged.is_ok()).await.join("; ");
    let check = Check { id: "F01", variant: &variant, control: &control };
    stage.tidy(act, &subject).await;
    let holds = check.holds("", &wrong);
    Some(if holds { Vec::new() } else { vec![format!("{variant}, {control}: {wrong}")] })
}

/// The processes to trace, so that the role is among them or their children.
async fn pids(stage: &Stage, role: &str) -> Vec<u32> {
    let server = &stage.server;
    match role {
        "server" => server.server_pid().into_iter().collect(),
        "monitor" => server.monitors().into_iter().chain(server.supervisor_pid()).collect(),
        _ => server.supervisor_pid().into_iter().collect(),
    }
}

/// Does what the service manager does, for the two processes that it looks after.
async fn start_again(stage: &Stage, role: &str) {
    let begun = Instant::now();
    match role {
        "server" => {
            stage.server.kill_server();
            assert_eq!(integrity(&stage.server), "ok", "the inventory");
            stage.server.start_server().await;
        }
        "supervisor" => {
            stage.server.kill_supervisor();
            stage.server.start_supervisor().await;
        }
        _ => return,
    }
    ready(&stage.server).await;
    assert!(begun.elapsed() < READY_LIMIT, "{role}: ready after {:?}", begun.elapsed());
}

/// Everything that is wrong after a fault.
async fn judge(stage: &Stage, act: Act, subject: &Subject, acknowledged: bool) -> Vec<String> {
    let mut wrong = disagreements(&stage.server).await;
    if acknowledged && !stage.is_done(act, subject).await {
        wrong.push("what was acknowledged is not so".to_owned());
    }
    // The same again: a start of what runs by now is refused, and that is no failure.
    let deadline = Instant::now() + RETRY_LIMIT;
    while let Err(error) = stage.perform(act, subject).await {
        if !matches!(act, Act::Create | Act::Pull | Act::Import)
            && stage.is_done(act, subject).await
        {
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
    let before = snapshot(&stage.server).await;
    for role in ["supervisor", "server"] {
        start_again(stage, role).await;
    }
    wrong.extend(disagreements(&stage.server).await);
    let after = snapshot(&stage.server).await;
    if before != after {
        wrong.push(format!("another restart changed {before:?} to {after:?}"));
    }
    wrong
}
