//! The runtime on its own command line, beside runc and crun on the same bundle, and beside what the
//! kernel alone needs for it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use system_tests::programs;

use crate::Options;
use crate::peers::{Crun, PROGRAM};
use crate::table::{Samples, Table};

/// A runtime and its figures.
struct Contender {
    name: &'static str,
    /// Its command line.
    words: String,
    run: Samples,
    create: Samples,
    exec: Samples,
    delete: Samples,
    call: Samples,
}

impl Contender {
    fn new(name: &'static str, words: &str) -> Self {
        let none = || Samples::new("ms");
        Self {
            name,
            words: words.to_owned(),
            run: none(),
            create: none(),
            exec: none(),
            delete: none(),
            call: Samples::new("ns"),
        }
    }

    /// One round of everything: a container that ends at once, and one that is made, used and removed.
    fn turn(&mut self, whole: &mut Crun, waiting: &mut Crun, round: usize) {
        let (words, id) = (&self.words, format!("bench-{}-{round}", self.name));
        self.run.add_time(whole.timed(&format!("{words} run {id}")));
        self.create.add_time(waiting.timed(&format!("{words} create {id} && {words} start {id}")));
        self.exec.add_time(waiting.timed(&format!("{words} exec {id} /bin/busybox true")));
        self.delete.add_time(waiting.timed(&format!("{words} delete --force {id}")));
    }

    /// What a system call costs under a filter that this runtime has made.
    fn call(&mut self, filtered: &mut Crun, round: usize) {
        let id = format!("bench-{}-c{round}", self.name);
        filtered.timed(&format!("{} run {id} >nanoseconds", self.words));
        let text = fs::read_to_string(filtered.directory().join("nanoseconds"));
        let text = text.expect("the program has said its figure");
        self.call.add(text.trim().parse().expect("a number"));
    }
}

pub(crate) fn measure(options: &Options, table: &mut Table) {
    let bundles =
        (Crun::new(&["/bin/busybox", "true"]), Crun::new(&PROGRAM), Crun::new(&["/bin/calls"]));
    let (Some(mut whole), Some(mut waiting), Some(mut filtered)) = bundles else {
        table.note("left out: the runtime's command line (no crun here, whose bundle all run)");
        return;
    };
    let source = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("bench").join(name);
    let compiled = |name| programs::compile(&source(name), &["-static", "-O2", "-Wall"]);
    programs::install(&compiled("floor.c"), &whole.directory().join("floor"));
    programs::install(&compiled("calls.c"), &filtered.directory().join("rootfs/bin/calls"));
    filtered.change(|spec| spec["linux"]["seccomp"] = profile());
    let ours = programs::berth_runtime();
    let ours = format!("{}", ours.canonicalize().expect("it is there").display());
    let mut contenders = vec![Contender::new("berth", &ours)];
    if options.peers {
        contenders.extend(["crun", "runc"].map(|name| Contender::new(name, name)));
    }
    let (mut floor, mut free) = (Samples::new("ms"), Samples::new("ns"));
    let rounds = options.rounds;
    // The first round warms every cache and does not count.
    for round in 0..=rounds {
        if round == 1 {
            for contender in &mut contenders {
                *contender = Contender::new(contender.name, &contender.words);
            }
            floor = Samples::new("ms");
        }
        for index in order(contenders.len(), round) {
            contenders[index].turn(&mut whole, &mut waiting, round);
        }
        floor.add_time(whole.timed("./floor /bin/busybox true"));
        if round <= rounds.div_ceil(4) {
            for contender in &mut contenders {
                contender.call(&mut filtered, round);
            }
            filtered.timed("./rootfs/bin/calls >nanoseconds");
            let text = fs::read_to_string(filtered.directory().join("nanoseconds"));
            free.add(text.expect("a figure").trim().parse().expect("a number"));
        }
    }
    let (berth, peers) = contenders.split_first().expect("ours is one of them");
    table.beside("run, OCI", &berth.run, "clone3, execve, wait alone", &floor);
    for peer in peers {
        let rows = [
            ("run, OCI", &berth.run, &peer.run),
            ("create + start, OCI", &berth.create, &peer.create),
            ("exec, OCI", &berth.exec, &peer.exec),
            ("delete --force, OCI", &berth.delete, &peer.delete),
            ("a system call under Berth's profile", &berth.call, &peer.call),
        ];
        for (what, ours, theirs) in rows {
            table.beside(what, ours, peer.name, theirs);
        }
    }
    table.beside("a system call under Berth's profile", &berth.call, "no filter", &free);
    table.note(
        "OCI: the bundle of `crun spec` for all, each command a process of its own, from a shell's fork to its \
         end; a system call: the quickest round of getppid(2), the same rules handed to each",
    );
}

/// Who comes when: nobody always after the same other one, whose network namespace the kernel is still taking
/// down and whose moves between cgroups spare the next their grace period.
fn order(contenders: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contenders).collect();
    order.rotate_left(round % contenders);
    if (round / contenders) % 2 == 1 {
        order.reverse();
    }
    order
}

/// The system calls of Berth's default profile, as a configuration has them.
fn profile() -> Value {
    let directory = std::env::temp_dir().join(format!("berth-bench-spec-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("make a directory");
    let mut command = Command::new(programs::berth_runtime());
    crate::peers::done(command.arg("spec").arg("-b").arg(&directory));
    let text = fs::read(directory.join("config.json")).expect("it was written");
    fs::remove_dir_all(&directory).expect("remove it");
    let spec: Value = serde_json::from_slice(&text).expect("it is JSON");
    spec["linux"]["seccomp"].clone()
}
