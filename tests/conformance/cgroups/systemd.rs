//! `--systemd-cgroup`: `cgroupsPath` is `slice:prefix:name`, and the cgroup a scope that systemd made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::case::{Case, is_berths, is_passed_over, said};

/// A case for systemd, in a slice of its own, which is gone at the end.
fn case(name: &str) -> Option<(Case, Slice)> {
    let case = Case::new(name)?;
    let slice = Slice(case.id.replace('-', ""));
    let path = format!("{}-sub.slice:berth:{}", slice.0, case.id);
    Some((case.with("/linux/cgroupsPath", path.into()), slice))
}

/// The upper of two slices. systemd keeps them when they are empty, and on v1 others make directories in
/// the trees that it does not use.
struct Slice(String);

impl Drop for Slice {
    fn drop(&mut self) {
        if !runs() {
            return;
        }
        let stopped =
            Command::new("systemctl").arg("stop").arg(format!("{}.slice", self.0)).status();
        let (upper, lower) = (format!("{}.slice", self.0), format!("{}-sub.slice", self.0));
        for path in [Path::new(&upper).join(lower), PathBuf::from(upper)] {
            for place in places(&path) {
                // Also where systemd was faster.
                fs::remove_dir(place).ok();
            }
        }
        assert!(stopped.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Where a path of cgroups is: in each tree of v1, or in the one of v2.
fn places(path: &Path) -> Vec<PathBuf> {
    let trees = fs::read_dir("/sys/fs/cgroup").expect("list").flatten().map(|tree| tree.path());
    let trees = trees.chain([PathBuf::from("/sys/fs/cgroup")]);
    trees.map(|tree| tree.join(path)).filter(|place| place.is_dir()).collect()
}

fn runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// `create`, whose container holds its own end of what it writes to.
fn create(case: &Case) -> std::process::Output {
    let open = |name| fs::File::create(case.directory.join(name)).expect("make a file");
    let mut command = case.command(&["--systemd-cgroup", "create", &case.id]);
    let status = command.stdout(open("output")).stderr(open("error")).status();
    let stderr = fs::read(case.directory.join("error")).expect("read what was said");
    std::process::Output { status: status.expect("run the runtime"), stdout: Vec::new(), stderr }
}

/// What systemd says of the scope's properties, one a line.
fn properties(case: &Case, names: &str) -> String {
    let mut command = Command::new("systemctl");
    command.args(["show", &scope(case), "--property", names]);
    let output = command.output().expect("run systemctl");
    String::from_utf8(output.stdout).expect("properties are text")
}

fn scope(case: &Case) -> String {
    format!("berth-{}.scope", case.id)
}

/// Where the container's first process is in systemd's tree.
fn home(case: &Case) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", case.state()["pid"]));
    let text = text.expect("the process is there");
    let of =
        |first: &str| text.lines().find_map(|line| line.split_once(first)).map(|(_, path)| path);
    let path = of("name=systemd:").or(of("0::")).expect("systemd has a tree");
    PathBuf::from(path)
}

#[test]
fn a_scope_is_made_in_its_slice_and_ends_with_the_container() {
    let Some((case, slice)) = case("sd-scope") else { return };
    if !runs() {
        eprintln!("SKIPPED conformance: systemd does not run here");
        return;
    }
    let resources = json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 1 },
        "cpu": { "quota": 25_000, "period": 100_000 } });
    let case = case.with("/linux/resources", resources);
    let output = create(&case);
    assert!(output.status.success(), "{}", said(&output));
    let path = home(&case);
    let upper = &slice.0;
    let end = format!("{upper}.slice/{upper}-sub.slice/{}", scope(&case));
    assert!(path.ends_with(&end), "{}", path.display());
    let names = "MemoryMax,TasksMax,CPUQuotaPerSecUSec,Slice,Delegate,ActiveState";
    let shown = properties(&case, names);
    for line in [
        "MemoryMax=67108864",
        "TasksMax=1",
        "CPUQuotaPerSecUSec=250ms",
        &format!("Slice={upper}-sub.slice"),
        "Delegate=yes",
        "ActiveState=active",
    ] {
        // On v1 runc tells of memory by its older name.
        let other = !is_berths() && line.starts_with("MemoryMax");
        assert!(other || shown.contains(line), "{line}: {shown}");
    }
    case.done("--systemd-cgroup start ID");
    case.done("--systemd-cgroup update --memory 32m --pids-limit 9 ID");
    let shown = properties(&case, "MemoryMax,TasksMax");
    assert!(!is_berths() || shown.contains("MemoryMax=33554432"), "{shown}");
    assert!(shown.contains("TasksMax=9"), "{shown}");
    if is_berths() {
        // The name is taken for as long as the scope is there; runc 1.1 puts both into it.
        let mut other = Case::new("sd-other").expect("cases can run");
        other.config["linux"]["cgroupsPath"] = case.config["linux"]["cgroupsPath"].clone();
        let output = create(&other);
        assert!(
            !output.status.success() && said(&output).contains("UnitExists"),
            "{}",
            said(&output)
        );
    }
    case.done("--systemd-cgroup delete --force ID");
    assert!(properties(&case, "ActiveState").contains("inactive"));
    let left = places(path.strip_prefix("/").expect("it is absolute"));
    assert!(left.is_empty(), "{left:?}");
}

/// A container that cannot be made leaves no scope, and one that ends by itself none after `delete`.
#[test]
fn no_scope_is_left() {
    let Some((mut case, _slice)) = case("sd-left") else { return };
    if !runs() {
        eprintln!("SKIPPED conformance: systemd does not run here");
        return;
    }
    case.config["root"]["path"] = "nosuch".into();
    assert!(!create(&case).status.success());
    assert!(properties(&case, "ActiveState").contains("inactive"));
    case.config["root"]["path"] = "rootfs".into();
    case.config["linux"]["resources"] = json!({ "pids": { "limit": 9_999_999_999_u64 } });
    assert!(!create(&case).status.success());
    assert!(properties(&case, "ActiveState").contains("inactive"));
    case.config["linux"]["resources"] = json!({});
    let case = case.script("echo here");
    assert_eq!(case.done("--systemd-cgroup run ID"), "here\n");
    assert!(properties(&case, "ActiveState").contains("inactive"));
}

/// A path of another form, or a host without systemd, is refused in words, and leaves nothing.
#[test]
fn what_is_no_scope_is_refused() {
    let Some(case) = Case::new("sd-not") else { return };
    let output = create(&case);
    assert!(!output.status.success(), "{}", said(&output));
    case.refused("state ID");
    if is_passed_over() {
        return;
    }
    assert!(said(&output).contains("slice:prefix:name"), "{}", said(&output));
    let case = case.with("/linux/cgroupsPath", "a.slice:b:c".into());
    let text = case.refused("create ID");
    assert!(text.contains("--systemd-cgroup"), "{text}");
    if !runs() {
        let output = create(&case);
        assert!(!output.status.success());
        assert!(said(&output).contains("systemd does not run"), "{}", said(&output));
        case.refused("state ID");
    }
}
