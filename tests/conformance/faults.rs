//! Each verb with its k-th state-changing system call failing, or its process killed there, for every k
//! until it ends. However it went, the container can be deleted then, nothing of it is left, and the same
//! again succeeds.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use system_tests::injector::{Injector, Struck};
use system_tests::{Check, Dice, is_long, sample};

use crate::case::{Case, LIMIT, is_berths};

const FAULTS: &[&str] = &["kill", "EIO", "ENOSPC", "EINTR", "ENOMEM", "EMFILE"];

/// What is struck: words of the command line, as in [`Case::call`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Start,
    Exec,
    Kill,
    Delete,
    DeleteByForce,
}

macro_rules! strikes {
    ($($name:ident: $verb:ident;)*) => {$(
        #[test]
        fn $name() {
            strike_everywhere(Verb::$verb);
        }
    )*};
}

strikes! {
    a_fault_in_create_leaves_nothing_that_delete_does_not_remove: Create;
    a_fault_in_start_leaves_nothing_that_delete_does_not_remove: Start;
    a_fault_in_exec_leaves_nothing_that_delete_does_not_remove: Exec;
    a_fault_in_kill_leaves_nothing_that_delete_does_not_remove: Kill;
    a_fault_in_delete_leaves_nothing_that_delete_does_not_remove: Delete;
    a_fault_in_delete_by_force_leaves_nothing_that_it_does_not_remove: DeleteByForce;
}

impl Verb {
    fn words(self) -> &'static str {
        match self {
            Self::Create => "create ID",
            Self::Start => "start ID",
            Self::Exec => "exec ID touch /tmp/made",
            Self::Kill => "kill ID KILL",
            Self::Delete => "delete ID",
            Self::DeleteByForce => "delete --force ID",
        }
    }

    /// Brings about what it needs.
    fn prepare(self, case: Case) -> Case {
        fs::create_dir_all(case.directory.join("rootfs/tmp")).expect("make a directory");
        match self {
            Self::Create => case,
            Self::Start => case.created(),
            Self::Exec | Self::Kill | Self::DeleteByForce => case.started(),
            Self::Delete => {
                let case = case.started();
                case.done("kill ID KILL");
                case.wait_for("stopped");
                case
            }
        }
    }

    /// Whether it is so, after success was said.
    fn is_done(self, case: &Case) -> bool {
        let is = |status| case.state()["status"] == status;
        match self {
            Self::Create => is("created"),
            Self::Start => is("running"),
            Self::Exec => case.directory.join("rootfs/tmp/made").exists(),
            Self::Kill => {
                case.wait_for("stopped");
                true
            }
            Self::Delete | Self::DeleteByForce => !case.call("state ID").status.success(),
        }
    }
}

/// In full each call with each fault, else one call with two.
fn strike_everywhere(verb: Verb) {
    if !is_berths() {
        eprintln!("SKIPPED conformance: the faults strike Berth's runtime");
        return;
    }
    let mut wrong = Vec::new();
    for fault in sample(FAULTS, 2) {
        if is_long() {
            for nth in 1.. {
                match strike(verb, fault, nth) {
                    Some(Ok(found)) => wrong.extend(found),
                    Some(Err(calls)) if calls >= nth => {
                        wrong.push(format!("{verb:?} {fault} {nth}: none of {calls} was struck"));
                    }
                    _ => break,
                }
            }
        } else if let Some(Err(calls @ 1..)) = strike(verb, fault, 0) {
            let nth = 1 + Dice::new().below(calls);
            wrong.extend(strike(verb, fault, nth).and_then(Result::ok).flatten());
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Lets the fault strike; what was wrong then. `None` where cases cannot run.
///
/// # Errors
/// How many calls there were, when it did not.
fn strike(verb: Verb, fault: &str, nth: usize) -> Option<Result<Option<String>, usize>> {
    let case = verb.prepare(Case::new(&format!("{verb:?}-{fault}-{nth}"))?);
    let (struck, success) = perform(&case, verb, fault, nth);
    let call = match struck {
        Struck::Call { call, .. } => call,
        Struck::Nothing { seen } => {
            assert_eq!(success, Some(true), "{verb:?} without a fault");
            return Some(Err(seen));
        }
    };
    let mut wrong = Vec::new();
    match success {
        None => wrong.push("it hangs".to_owned()),
        Some(true) if !verb.is_done(&case) => wrong.push("it is not so".to_owned()),
        Some(_) => {}
    }
    wrong.extend(undeletable(&case));
    wrong.extend(left(&case));
    // The same again, without a fault.
    let case = verb.prepare(case);
    if verb == Verb::Create {
        wrong.extend((!case.create().status.success()).then(|| "no second creation".to_owned()));
    } else {
        case.done(verb.words());
    }
    wrong.extend((!verb.is_done(&case)).then(|| "it is not so the second time".to_owned()));
    wrong.extend(undeletable(&case));
    wrong.extend(left(&case));
    let variant = format!("{verb:?} {fault} {nth}");
    let control = format!("{fault} at {call}: {success:?}");
    let wrong = wrong.join("; ");
    let holds = Check { id: "OCI-F", variant: &variant, control: &control }.holds("", &wrong);
    Some(Ok((!holds).then(|| format!("{variant}, {control}: {wrong}"))))
}

/// What was struck, and whether the command said that it had succeeded; `None` when it has not ended.
fn perform(case: &Case, verb: Verb, fault: &str, nth: usize) -> (Struck, Option<bool>) {
    let open = |name| File::create(case.directory.join(name)).expect("make a file");
    let words: Vec<&str> =
        verb.words().split(' ').map(|word| if word == "ID" { &case.id } else { word }).collect();
    let command = case.command(&words);
    // The tracer has to be there before the program.
    let mut shell = Command::new("sh");
    shell.args(["-c", "read go && exec \"$@\" </dev/null", "sh"]);
    shell.arg(command.get_program()).args(command.get_args()).current_dir(&case.directory);
    let mut shell = shell
        .stdin(Stdio::piped())
        .stdout(open("struck.out"))
        .stderr(open("struck.err"))
        .spawn()
        .expect("run a shell");
    let injector = Injector::start(&[shell.id()], "verb", nth, fault);
    shell.stdin.take().expect("it is a pipe").write_all(b"go\n").expect("let it go");
    let begun = Instant::now();
    let status = loop {
        match shell.try_wait().expect("wait for the shell") {
            Some(status) => break Some(status.success()),
            None if begun.elapsed() > LIMIT => {
                shell.kill().expect("kill it");
                shell.wait().expect("reap it");
                break None;
            }
            None => std::thread::sleep(std::time::Duration::from_millis(2)),
        }
    };
    (injector.finish(), status)
}

/// Why it cannot be deleted.
fn undeletable(case: &Case) -> Option<String> {
    let output = case.call("delete --force ID");
    (!output.status.success()).then(|| format!("delete: {}", crate::case::said(&output)))
}

/// Everything that there still is of a deleted container.
fn left(case: &Case) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let mut left = processes(case);
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read the mounts");
        let directory = case.directory.to_str().expect("UTF-8");
        left.extend(mounts.lines().filter(|line| line.contains(directory)).map(str::to_owned));
        let cgroup = format!("berth-conformance-{}", case.id);
        for tree in fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            let place = tree.path().join(&cgroup);
            left.extend(place.exists().then(|| place.display().to_string()));
        }
        let records = fs::read_dir(case.directory.join("state")).into_iter().flatten().flatten();
        left.extend(records.map(|entry| entry.path().display().to_string()));
        // A killed process takes a moment to be gone.
        if left.is_empty() || begun.elapsed() > LIMIT {
            return left;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Those that are in its cgroup, have its root, or were told its name.
fn processes(case: &Case) -> Vec<String> {
    let root = case.directory.join("rootfs");
    let all = fs::read_dir("/proc").expect("processes").flatten();
    let pids = all.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    pids.filter_map(|entry| {
        let read = |name| fs::read(entry.path().join(name)).unwrap_or_default();
        let text = [read("cgroup"), read("cmdline")].concat();
        let is_of_it = String::from_utf8_lossy(&text).contains(&*case.id)
            || fs::read_link(entry.path().join("root")).is_ok_and(|path| path == root);
        is_of_it.then(|| format!("process {}", entry.path().display()))
    })
    .collect()
}
