//! What a configuration becomes on either layout, seen on directories that look like the kernel's; and the
//! order of writes on files that behave like some of its.

use std::fs;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::write::Form;
use super::*;

/// A tree with a cgroup `/c` that has these files, removed at the end of the test.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let name = format!("berth-resources-{}-{name}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("c")).expect("make the cgroup");
        for directory in [&root, &root.join("c")] {
            fs::write(directory.join("cgroup.controllers"), "cpu memory io pids\n").expect("write");
            fs::write(directory.join("cgroup.subtree_control"), "cpu memory io pids\n")
                .expect("write");
        }
        for (file, text) in files {
            fs::write(root.join("c").join(file), text).expect("write a file");
        }
        Self { root }
    }

    fn v2(&self) -> Cgroup {
        Cgroup::at(&Hierarchy::V2 { root: self.root.clone() }, "/c").expect("a good path")
    }

    /// Every controller in one directory, as no kernel has it; the files' names tell them apart.
    fn v1(&self) -> Cgroup {
        let all = [
            Controller::Cpu,
            Controller::Memory,
            Controller::Io,
            Controller::Pids,
            Controller::Hugetlb,
            Controller::NetCls,
            Controller::NetPrio,
            Controller::Rdma,
            Controller::Cpuset,
        ];
        let controllers = all.map(|controller| (controller, self.root.clone())).to_vec();
        let hierarchy = Hierarchy::V1 { controllers, unified: None };
        Cgroup::at(&hierarchy, "/c").expect("a good path")
    }

    fn says(&self, file: &str) -> String {
        fs::read_to_string(self.root.join("c").join(file)).expect("read a file")
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).expect("remove the tree");
    }
}

fn resources(value: Value) -> LinuxResources {
    serde_json::from_value(value).expect("good resources")
}

/// The writes as `file=value`, in their order.
fn planned(cgroup: &Cgroup, value: Value) -> Result<Vec<String>, String> {
    let resources = resources(value);
    let mut plan = Plan { cgroup, writes: Vec::new() };
    let done = check::check(&resources).and_then(|()| match cgroup.hierarchy {
        Hierarchy::V1 { .. } => v1::plan(&mut plan, &resources),
        Hierarchy::V2 { .. } => v2::plan(&mut plan, &resources),
    });
    done.map_err(|error| error.to_string())?;
    let line = |write: &Write| {
        let file = write.file.file_name().expect("a file").to_string_lossy().into_owned();
        format!("{file}={}", write.value)
    };
    Ok(plan.writes.iter().map(line).collect())
}

const V2_FILES: [(&str, &str); 14] = [
    ("cpu.weight", "100\n"),
    ("cpu.max", "max 100000\n"),
    ("cpu.max.burst", "0\n"),
    ("cpu.idle", "0\n"),
    ("cpuset.cpus", "\n"),
    ("cpuset.mems", "\n"),
    ("memory.max", "max\n"),
    ("memory.low", "0\n"),
    ("memory.swap.max", "max\n"),
    ("memory.current", "1048576\n"),
    ("io.weight", "default 100\n"),
    ("io.max", ""),
    ("pids.max", "max\n"),
    ("hugetlb.2MB.max", "max\n"),
];

#[test]
fn v2_has_names_and_numbers_of_its_own() {
    let tree = Tree::new("v2", &V2_FILES);
    let plan = |value| planned(&tree.v2(), value).expect("it can be held");
    let cpu = json!({ "shares": 1024, "quota": 5000, "period": 10_000, "burst": 0, "idle": 0,
        "cpus": "0-1", "mems": "0" });
    let expected = [
        "cpu.weight=100",
        "cpu.max.burst=0",
        "cpu.max=5000 10000",
        "cpu.idle=0",
        "cpuset.cpus=0-1",
        "cpuset.mems=0",
    ];
    assert_eq!(plan(json!({ "cpu": cpu })), expected);
    // Quota and period are each as they were when only the other is given.
    assert_eq!(plan(json!({ "cpu": { "quota": -1 } })), ["cpu.max=max 100000"]);
    assert_eq!(plan(json!({ "cpu": { "period": 5000 } })), ["cpu.max=max 5000"]);
    let memory = json!({ "limit": 8192, "swap": 12288, "reservation": 4096, "kernel": 7 });
    let expected = ["memory.swap.max=4096", "memory.max=8192", "memory.low=4096"];
    assert_eq!(plan(json!({ "memory": memory })), expected);
    let expected = ["memory.swap.max=max", "memory.max=max"];
    assert_eq!(plan(json!({ "memory": { "limit": -1 } })), expected);
    let block = json!({
        "weight": 100,
        "weightDevice": [{ "major": 8, "minor": 0, "weight": 1000 }],
        "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1024 }],
        "throttleWriteIOPSDevice": [{ "major": 8, "minor": 16, "rate": 0 }],
    });
    let expected =
        ["io.weight=910", "io.weight=8:0 10000", "io.max=8:0 rbps=1024", "io.max=8:16 wiops=max"];
    assert_eq!(plan(json!({ "blockIO": block })), expected);
    let pages = json!([{ "pageSize": "2MB", "limit": 4_194_304 }]);
    assert_eq!(plan(json!({ "hugepageLimits": pages })), ["hugetlb.2MB.max=4194304"]);
    let unified = json!({ "pids.max": "5", "io.max": "8:0 rbps=1\n8:16 wbps=2" });
    let expected = ["io.max=8:0 rbps=1", "io.max=8:16 wbps=2", "pids.max=5"];
    assert_eq!(plan(json!({ "unified": unified })), expected);
    let line = |key: &str, none| Form::Line { key: key.to_owned(), none };
    assert_eq!(v2::form_of("io.weight", "8:0 50"), line("8:0", "default"));
    assert_eq!(v2::form_of("rdma.max", "mlx5_0 hca_handle=2"), line("mlx5_0", v1::RDMA_NONE));
    assert_eq!(v2::form_of("io.weight", "50"), Form::Lines);
    assert_eq!(
        plan(json!({ "cpu": { "shares": 0, "cpus": "" }, "pids": { "limit": 0 } })),
        [""; 0]
    );
}

#[test]
fn v2_says_what_it_cannot_hold() {
    let tree = Tree::new("v2-not", &V2_FILES);
    for (value, said) in [
        (json!({ "cpu": { "realtimeRuntime": 5 } }), "cpu.realtimeRuntime: 5 cannot be held"),
        (json!({ "memory": { "swappiness": 5 } }), "memory.swappiness: 5 cannot be held"),
        (json!({ "memory": { "disableOOMKiller": true } }), "disableOOMKiller: true cannot be"),
        (json!({ "memory": { "swap": 4096 } }), "memory.swap: 4096 is memory and swap together"),
        (json!({ "network": { "classID": 5 } }), "network.classID: 5 cannot be held"),
        (json!({ "blockIO": { "leafWeight": 50 } }), "blockIO.leafWeight: 50 cannot be held"),
        (
            json!({ "rdma": { "mlx5_0": { "hcaHandles": 2 } } }),
            "rdma: mlx5_0 hca_handle=2 cannot be held: the rdma controller is not available",
        ),
        (
            json!({ "hugepageLimits": [{ "pageSize": "1GB", "limit": 0 }] }),
            "hugepageLimits[0]: 0 cannot be held: the hugetlb controller is not available",
        ),
        (
            json!({ "unified": { "memory.nosuch": "1" } }),
            "unified[\"memory.nosuch\"]: \"1\" cannot be held: the kernel has no memory.nosuch",
        ),
        (
            json!({ "memory": { "limit": 1_048_576, "checkBeforeUpdate": true } }),
            "memory.limit: 1048576 is refused",
        ),
    ] {
        let text = planned(&tree.v2(), value.clone()).expect_err("it cannot be held");
        assert!(text.contains(said), "{value}: {text}");
    }
    let unset = json!({ "memory": { "swappiness": u64::MAX, "disableOOMKiller": false } });
    assert_eq!(planned(&tree.v2(), unset), Ok(Vec::new()), "as Docker writes it");
    // Without the check the kernel is left to do what it does.
    let small = json!({ "memory": { "limit": 1_048_576 } });
    assert_eq!(planned(&tree.v2(), small), Ok(vec!["memory.max=1048576".to_owned()]));
}

#[test]
fn v1_has_the_names_of_the_configuration() {
    let tree = Tree::new(
        "v1",
        &[
            ("hugetlb.2MB.limit_in_bytes", "9223372036854771712\n"),
            ("hugetlb.2MB.rsvd.limit_in_bytes", "9223372036854771712\n"),
            ("net_cls.classid", "0\n"),
            ("net_prio.ifpriomap", "lo 0\neth0 3\n"),
            ("rdma.max", "mlx5_0 hca_handle=max hca_object=max\n"),
            ("blkio.bfq.weight", "100\n"),
            ("blkio.weight_device", ""),
            ("blkio.leaf_weight_device", ""),
        ],
    );
    let plan = |value| planned(&tree.v1(), value).expect("it can be held");
    let pages = json!([{ "pageSize": "2MB", "limit": 4_194_304 }]);
    let expected =
        ["hugetlb.2MB.limit_in_bytes=4194304", "hugetlb.2MB.rsvd.limit_in_bytes=4194304"];
    assert_eq!(plan(json!({ "hugepageLimits": pages })), expected);
    let network =
        json!({ "classID": 1_048_577, "priorities": [{ "name": "eth0", "priority": 7 }] });
    let expected = ["net_cls.classid=1048577", "net_prio.ifpriomap=eth0 7"];
    assert_eq!(plan(json!({ "network": network })), expected);
    let rdma = json!({ "mlx5_0": { "hcaHandles": 2, "hcaObjects": 3 } });
    assert_eq!(plan(json!({ "rdma": rdma })), ["rdma.max=mlx5_0 hca_handle=2 hca_object=3"]);
    let block = json!({ "weight": 30, "weightDevice":
        [{ "major": 8, "minor": 1, "weight": 40, "leafWeight": 50 }] });
    let expected =
        ["blkio.bfq.weight=30", "blkio.weight_device=8:1 40", "blkio.leaf_weight_device=8:1 50"];
    assert_eq!(plan(json!({ "blockIO": block })), expected);
    let text = planned(&tree.v1(), json!({ "unified": { "pids.max": "1" } }));
    assert!(text.is_err_and(|text| text.contains("unified[\"pids.max\"]")));
}

/// A value that is not the file's any more was rounded or clamped by the kernel, or by nobody.
#[test]
fn what_the_kernel_made_of_a_value_is_read_back() {
    let tree = Tree::new("round", &[("memory.max", "max"), ("pids.max", "max")]);
    let write = |file: &str, value: &str, form| Write {
        field: "x".to_owned(),
        asked: value.to_owned(),
        file: tree.root.join("c").join(file),
        value: value.to_owned(),
        form,
        bound: false,
    };
    // An ordinary file keeps what a shorter value leaves, as a kernel that clamps would show another.
    fs::write(tree.root.join("c/cpu.shares"), "1024").expect("write");
    let error = write::make(&[write("cpu.shares", "1", Form::Exact)], Before::New);
    let text = error.expect_err("it reads 1024").to_string();
    assert!(
        text.contains("linux.resources.x: 1 cannot be held") && text.contains("1024"),
        "{text}"
    );
    for (value, found, holds) in [
        ("8191", "4096", true),
        ("8192", "4096", false),
        ("4095", "4096", false),
        ("5000", "max", true),
    ] {
        fs::write(tree.root.join("c/memory.max"), found).expect("write");
        let checked = write("memory.max", value, Form::PAGES).verify();
        assert_eq!(checked.is_ok(), holds, "{value} as {found}");
    }
}

/// A later refusal puts what was set before it back, as it was.
#[test]
fn a_refused_change_is_undone() {
    let tree = Tree::new(
        "undo",
        &[
            ("cpu.weight", "100\n"),
            ("io.max", "8:0 rbps=9 wbps=max riops=max wiops=max\n"),
            ("pids.max", "max\n"),
        ],
    );
    let value = json!({ "cpu": { "shares": 512 }, "pids": { "limit": 5 } });
    // An ordinary file shows "5x\n" after a write of one byte over "max\n": not what was asked for.
    let error = tree.v2().set_resources(&resources(value), Before::InForce);
    let text = error.expect_err("it cannot be held").to_string();
    assert!(text.starts_with("nothing is changed (values put back: 2)"), "{text}");
    assert!(tree.says("cpu.weight").starts_with("100"), "{}", tree.says("cpu.weight"));
    assert!(tree.says("pids.max").starts_with("max"), "{}", tree.says("pids.max"));
}

#[test]
fn former_values_are_those_of_the_device() {
    let tree = Tree::new(
        "former",
        &[
            (
                "io.max",
                "8:16 rbps=1 wbps=max riops=max wiops=max\n8:0 rbps=9 wbps=8 riops=7 wiops=6\n",
            ),
            ("io.weight", "default 300\n8:0 70\n"),
            ("cpu.weight", "100\n"),
        ],
    );
    let former = |file: &str, form| {
        let file = tree.root.join("c").join(file);
        let (field, asked, value) = (String::new(), String::new(), String::new());
        Write { field, asked, file, value, form, bound: false }.former().expect("read")
    };
    let line = |key: &str, none| Form::Line { key: key.to_owned(), none };
    assert_eq!(former("io.max", line("8:0", "none")), ["8:0 rbps=9 wbps=8 riops=7 wiops=6"]);
    assert_eq!(former("io.max", line("8:1", "rbps=max")), ["8:1 rbps=max"]);
    assert_eq!(former("io.weight", line("8:0", "default")), ["8:0 70"]);
    assert_eq!(former("io.weight", Form::Text), ["300"]);
    assert_eq!(former("cpu.weight", Form::Exact), ["100"]);
}

/// A controller that is offered and not enabled is enabled from the root down.
#[test]
fn a_controller_is_enabled_when_it_is_asked_for() {
    let tree = Tree::new("enable", &[]);
    fs::write(tree.root.join("cgroup.controllers"), "cpu hugetlb\n").expect("write");
    fs::write(tree.root.join("cgroup.subtree_control"), "").expect("write");
    let value = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] });
    let text = planned(&tree.v2(), value).expect_err("an ordinary directory gets no files");
    assert!(text.contains("the hugetlb controller is not available"), "{text}");
    let control = fs::read_to_string(tree.root.join("cgroup.subtree_control"));
    assert_eq!(control.expect("read"), "+hugetlb");
}

/// On the kernel's own files: a controller is enabled down to the cgroup, a value is rounded, and what a
/// refused change has set is as it was. Hybrid layouts leave huge pages to the unified tree.
#[test]
fn the_unified_tree_holds_rounds_and_puts_back() {
    let mounts = crate::cgroup::files::read(std::path::Path::new("/proc/self/mountinfo"));
    let unified = mounts.ok().and_then(|text| {
        let mount = text.lines().find(|line| line.contains(" - cgroup2 "))?;
        mount.split(' ').nth(4).map(PathBuf::from)
    });
    let offered = unified.filter(|root| {
        let list = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        list.split_whitespace().any(|word| word == "hugetlb")
    });
    let (true, Some(root)) = (nix::unistd::geteuid().is_root(), offered) else {
        eprintln!("SKIPPED resources: needs root and a unified tree with the hugetlb controller");
        return;
    };
    // Another run of this test would find the controller enabled, and then gone.
    let lock = fs::File::open(&root).expect("open the tree");
    lock.lock().expect("nobody else is at it");
    let control = root.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&control).expect("read").contains("hugetlb");
    let path = format!("/berth-resources-{}", std::process::id());
    let cgroup = Cgroup::at(&Hierarchy::V2 { root: root.clone() }, &format!("{path}/c"));
    let cgroup = cgroup.expect("a good path");
    fs::create_dir_all(cgroup.below(&root)).expect("make the cgroup");
    let file = cgroup.below(&root).join("hugetlb.2MB.max");
    let page = |limit: u64| json!([{ "pageSize": "2MB", "limit": limit }]);
    let set = |value: Value, before| cgroup.set_resources(&resources(value), before);
    let result = std::panic::catch_unwind(|| {
        set(json!({ "hugepageLimits": page(5 << 20) }), Before::New).expect("it can be held");
        assert_eq!(fs::read_to_string(&file).expect("read"), "4194304\n");
        let unified = json!({ "hugetlb.2MB.max": "2097152", "cgroup.max.depth": "3" });
        set(json!({ "unified": unified }), Before::InForce).expect("it can be held");
        assert_eq!(fs::read_to_string(&file).expect("read"), "2097152\n");
        // The later of the two is no number, the first is put back.
        let unified = json!({ "hugetlb.2MB.max": "0", "hugetlb.2MB.rsvd.max": "many" });
        let error = set(json!({ "unified": unified }), Before::InForce).expect_err("it is refused");
        let text = crate::scope::chain(&error);
        assert!(text.starts_with("nothing is changed (values put back: 1)"), "{text}");
        assert!(text.contains("unified[\"hugetlb.2MB.rsvd.max\"]: \"many\" is refused"), "{text}");
        assert_eq!(fs::read_to_string(&file).expect("read"), "2097152\n");
    });
    Cgroup::at(&cgroup.hierarchy, &path).expect("a good path").remove().expect("nothing is left");
    if !enabled {
        fs::write(&control, "-hugetlb").expect("the tree is as it was");
    }
    result.expect("what was seen is as expected");
}
