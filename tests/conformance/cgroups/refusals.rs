//! Values that cannot be: an error that names field and value, and no container.

use serde_json::{Value, json};

use super::is_v2;
use crate::case::{Case, is_berths};

#[test]
fn impossible_values_are_named() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: other runtimes name the file, or nothing");
        return;
    }
    let throttle = |major: i64| json!([{ "major": major, "minor": 0, "rate": 1 }]);
    let cases: Vec<(&str, &str, Value)> = vec![
        ("cpu.quota", "999", json!({ "cpu": { "quota": 999 } })),
        ("cpu.quota", "-2", json!({ "cpu": { "quota": -2 } })),
        ("cpu.period", "999", json!({ "cpu": { "period": 999 } })),
        ("cpu.period", "1000001", json!({ "cpu": { "period": 1_000_001 } })),
        ("cpu.burst", "50001", json!({ "cpu": { "quota": 50_000, "burst": 50_001 } })),
        ("cpu.idle", "2", json!({ "cpu": { "idle": 2 } })),
        ("cpu.cpus", "0-", json!({ "cpu": { "cpus": "0-" } })),
        ("cpu.cpus", "9999", json!({ "cpu": { "cpus": "9999" } })),
        ("cpu.mems", "1..2", json!({ "cpu": { "mems": "1..2" } })),
        ("memory.limit", "-2", json!({ "memory": { "limit": -2 } })),
        ("memory.swap", "4096", json!({ "memory": { "limit": 8192, "swap": 4096 } })),
        ("memory.swappiness", "101", json!({ "memory": { "swappiness": 101 } })),
        ("memory.useHierarchy", "false", json!({ "memory": { "useHierarchy": false } })),
        ("pids.limit", "-3", json!({ "pids": { "limit": -3 } })),
        ("pids.limit", "9999999999", json!({ "pids": { "limit": 9_999_999_999_u64 } })),
        ("blockIO.weight", "9", json!({ "blockIO": { "weight": 9 } })),
        ("blockIO.weight", "1001", json!({ "blockIO": { "weight": 1001 } })),
        ("blockIO.leafWeight", "500", json!({ "blockIO": { "leafWeight": 500 } })),
        (
            "blockIO.throttleReadBpsDevice[0]",
            "-1:0",
            json!({ "blockIO": { "throttleReadBpsDevice": throttle(-1) } }),
        ),
        (
            "blockIO.throttleWriteIOPSDevice[0]",
            "4000:0",
            json!({ "blockIO": { "throttleWriteIOPSDevice": throttle(4000) } }),
        ),
        (
            "hugepageLimits[0].pageSize",
            "../x",
            json!({ "hugepageLimits": [{ "pageSize": "../x", "limit": 1 }] }),
        ),
        (
            "hugepageLimits[0]",
            "7",
            json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 7 }] }),
        ),
        (
            "network.priorities[0].name",
            "a b",
            json!({ "network": { "priorities": [{ "name": "a b", "priority": 1 }] } }),
        ),
        ("rdma", "a b", json!({ "rdma": { "a b": { "hcaHandles": 1 } } })),
        ("unified[\"cgroup.procs\"]", "1", json!({ "unified": { "cgroup.procs": "1" } })),
        ("unified[\"../x.y\"]", "1", json!({ "unified": { "../x.y": "1" } })),
        ("unified[\"nosuch.max\"]", "1", json!({ "unified": { "nosuch.max": "1" } })),
    ];
    let Some(mut case) = Case::new("impossible") else { return };
    let shares = if is_v2() { None } else { Some(("cpu.shares", "1")) };
    let shares = shares.map(|(field, value)| (field, value, json!({ "cpu": { "shares": 1 } })));
    for (field, value, resources) in cases.into_iter().chain(shares) {
        case.config["linux"]["resources"] = resources;
        let text = case.create_refused();
        assert!(text.contains(&format!("linux.resources.{field}")), "{field}: {text}");
        assert!(text.contains(value), "{field}: {text}");
        assert!(!super::path(&case, "memory", "").exists(), "{field}: the cgroup is left");
    }
}
