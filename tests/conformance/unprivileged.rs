//! What the command line says to whoever is not root. Other runtimes try, with user namespaces.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use system_tests::programs;

use crate::case::{Case, is_passed_over, runtime, said};

/// The user "nobody" of every distribution.
const NOBODY: u32 = 65_534;

/// The runtime in the hands of an ordinary user, who could not reach where it was built.
fn call(case: &Case, arguments: &str) -> Output {
    let program = case.directory.join("runtime");
    if !program.exists() {
        programs::copy(&runtime(), &program);
    }
    let mut command = Command::new(program);
    command.args(arguments.split(' ')).uid(NOBODY).gid(NOBODY);
    command.current_dir(case.directory.join("own")).output().expect("run the runtime")
}

fn case(name: &str) -> Option<Case> {
    let case = if is_passed_over() { return None } else { Case::new(name)? };
    let own = case.directory.join("own");
    fs::create_dir(&own).expect("make a directory");
    chown(&own, Some(NOBODY), Some(NOBODY)).expect("give it to the user");
    Some(case)
}

#[test]
fn each_command_that_needs_root_says_so_and_what_to_do() {
    let Some(case) = case("unprivileged") else { return };
    let words = "create run start kill delete exec pause resume update events state list ps";
    for word in words.split(' ') {
        let arguments = match word {
            "list" => word.to_owned(),
            "exec" => format!("{word} some true"),
            _ => format!("{word} some"),
        };
        let output = call(&case, &arguments);
        let text = said(&output);
        let told = [format!("{word} needs root"), format!("sudo berth-runtime {word}")];
        assert!(told.iter().all(|part| text.contains(part)), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(output.status.code(), Some(if word == "exec" { 255 } else { 1 }), "{text}");
    }
    assert_eq!(
        fs::read_dir(case.directory.join("own")).expect("list").count(),
        0,
        "nothing is made"
    );
}

#[test]
fn what_needs_no_root_works_without() {
    let Some(case) = case("unprivileged-able") else { return };
    for (arguments, told) in [
        ("--help", "need root"),
        ("--version", "spec: "),
        ("features", "\"ociVersionMax\""),
        ("spec", ""),
    ] {
        let output = call(&case, arguments);
        assert!(output.status.success() && said(&output).contains(told), "{}", said(&output));
    }
    let spec =
        fs::read(case.directory.join("own/config.json")).expect("a configuration is written");
    let spec: serde_json::Value = serde_json::from_slice(&spec).expect("it is JSON");
    assert!(spec["process"]["args"].is_array(), "{spec}");
}

/// Root that has lost its power: it is told which one.
#[test]
fn root_without_the_capability_is_told() {
    let Some(case) = case("unprivileged-root") else { return };
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]);
    let output = command.arg(runtime()).args(["run", "some"]).current_dir(&case.directory).output();
    let output = output.expect("run setpriv");
    assert!(said(&output).contains("run needs CAP_SYS_ADMIN"), "{}", said(&output));
    assert_eq!(output.status.code(), Some(1));
}
