//! create, start, state, kill, delete, run, exec, list, ps, pause, resume.

use std::fs;
use std::path::Path;

use crate::bundle::{Bundle, is_root, said};

#[test]
fn a_container_goes_through_its_states() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("states");
    let name = bundle.name();
    bundle.program(&["sh", "-c", "echo started; exec sleep 1000"]);
    bundle.succeed(bundle.create());
    assert_eq!(bundle.state()["status"], "created");
    assert_eq!(fs::read_to_string(bundle.outside("output")).expect("read"), "");
    bundle.refuse(bundle.create(), "exists already");
    bundle.refuse(bundle.command(&["delete", name]), "is created, not stopped");
    bundle.succeed(bundle.command(&["start", name]));
    assert_eq!(bundle.state()["status"], "running");
    bundle.wait_for_output("started\n");
    bundle.refuse(bundle.command(&["start", name]), "is running, not created");
    let pid = bundle.pid();

    bundle.succeed(bundle.command(&["pause", name]));
    assert_eq!(bundle.state()["status"], "paused");
    bundle.refuse(bundle.exec(&[], "true"), "is paused");
    bundle.succeed(bundle.command(&["resume", name]));
    assert_eq!(bundle.state()["status"], "running");

    let processes = bundle.succeed(bundle.command(&["ps", "-f", "json", name]));
    assert_eq!(processes.split_whitespace().collect::<String>(), format!("[{pid}]"));
    let listed = bundle.succeed(bundle.command(&["list", "-q"]));
    assert_eq!(listed.trim(), name);

    bundle.succeed(bundle.command(&["kill", name, "KILL"]));
    bundle.wait_for("stopped");
    bundle.refuse(bundle.command(&["kill", name, "TERM"]), "container not running");
    assert_eq!(fs::read_to_string(bundle.outside("output")).expect("read"), "started\n");
    bundle.succeed(bundle.command(&["delete", name]));
    bundle.refuse(bundle.command(&["state", name]), "does not exist");
    bundle.refuse(bundle.command(&["delete", name]), "does not exist");
    bundle.succeed(bundle.command(&["delete", "--force", name]));
    assert_eq!(left_in_cgroups(name), Vec::<String>::new());
}

/// Directories of this name in any hierarchy.
fn left_in_cgroups(name: &str) -> Vec<String> {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(top).expect("list the hierarchies").flatten();
    let roots = hierarchies.map(|entry| entry.path()).chain([top.to_owned()]);
    roots
        .map(|root| root.join("berth-test").join(name))
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect()
}

#[test]
fn run_gives_the_programs_output_and_exit_code_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("run");
    let output = bundle.run("echo out; echo err >&2; exit 7");
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(bundle.run("kill -TERM $$; sleep 9").status.code(), Some(0), "init ignores TERM");
    bundle.refuse(bundle.command(&["state", bundle.name()]), "does not exist");
    assert_eq!(left_in_cgroups(bundle.name()), Vec::<String>::new());
}

#[test]
fn exec_runs_in_the_container_with_its_own_environment_and_directory() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("exec");
    bundle.sleep();
    let text = bundle.succeed(bundle.exec(
        &["--cwd", "/etc", "-e", "A=1 2", "-u", "app"],
        "echo $A; pwd; id -u; id -G; echo $HOME; cat /proc/1/cmdline | tr '\\0' ' '",
    ));
    assert_eq!(text, "1 2\n/etc\n33\n44 55 66\n/srv/app\nsleep 1000 ");
    assert_eq!(bundle.exec(&[], "exit 5").status.code(), Some(5));
    assert_eq!(bundle.exec(&[], "kill -9 $$").status.code(), Some(137));
    bundle.refuse(bundle.command(&["exec", bundle.name(), "nosuch"]), "no such file or directory");
    let process = bundle.outside("process.json");
    let text = r#"{"user":{"uid":5,"gid":6,"additionalGids":[7]},"args":["/bin/id"],"cwd":"/",
        "noNewPrivileges":true}"#;
    fs::write(&process, text).expect("write the process");
    let path = process.to_str().expect("temporary paths are UTF-8");
    let text = bundle.succeed(bundle.command(&["exec", "--process", path, bundle.name()]));
    assert_eq!(text, "uid=5 gid=6 groups=7\n");
}

#[test]
fn what_is_not_supported_is_named() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("unsupported");
    type Change = fn(&mut serde_json::Value);
    let cases: [(&str, Change); 8] = [
        ("process.apparmorProfile", |config| config["process"]["apparmorProfile"] = "x".into()),
        ("vm", |config| config["vm"] = serde_json::json!({ "kernel": { "path": "/kernel" } })),
        ("linux.namespaces[0].path", |config| {
            config["linux"]["namespaces"][0]["path"] = "/proc/1/ns/net".into();
        }),
        ("mounts[0].type", |config| config["mounts"][0]["type"] = "nosuch".into()),
        ("mounts[0].options", |config| config["mounts"][0]["options"] = ["iversion"][..].into()),
        ("linux.sysctl[\"kernel.core_pattern\"]", |config| {
            config["linux"]["sysctl"]["kernel.core_pattern"] = "|/bin/x".into();
        }),
        ("linux.resources.unified", |config| {
            config["linux"]["resources"] = serde_json::json!({ "unified": { "a": "b" } });
        }),
        ("linux.rootfsPropagation", |config| {
            config["linux"]["rootfsPropagation"] = "sideways".into()
        }),
    ];
    let path = bundle.outside("config.json");
    let fair = fs::read(&path).expect("read the configuration");
    for (field, change) in cases {
        fs::write(&path, &fair).expect("write the configuration");
        bundle.change(change);
        bundle.refuse(bundle.create(), field);
    }
    fs::write(&path, &fair).expect("write the configuration");
    bundle.succeed(bundle.run("true"));
}
