//! Names and properties; what systemd does with them is seen where systemd runs.

use serde_json::json;

use super::*;

#[test]
fn units_are_named_by_slice_prefix_and_name() {
    let of = |path: &str| Unit::of(path, "c1").map(|unit| (unit.slice, unit.name));
    let unit = |slice: &str, name: &str| Ok((slice.to_owned(), name.to_owned()));
    assert_eq!(of(""), unit("system.slice", "berth-c1.scope"));
    assert_eq!(of("user-1.slice:docker:abc"), unit("user-1.slice", "docker-abc.scope"));
    assert_eq!(of(":libpod:abc"), unit("system.slice", "libpod-abc.scope"));
    assert_eq!(of("-.slice::abc"), unit("-.slice", "abc.scope"));
    for wrong in [
        "/a/b",
        "a:b",
        "a.slice:b:c:d",
        "a:b:c",
        ".slice:b:c",
        "a--b.slice:b:c",
        "a.slice::",
        "a/b.slice:b:c",
        "a.slice:b:c/d",
        "a.slice:b:c d",
    ] {
        let text = of(wrong).expect_err(wrong).to_string();
        assert!(text.contains("linux.cgroupsPath"), "{wrong}: {text}");
    }
}

#[test]
fn properties_are_what_systemd_keeps_of_resources() {
    let of = |value: serde_json::Value| {
        let resources: LinuxResources = serde_json::from_value(value).expect("good resources");
        let mut all = of_resources(&resources);
        all.extend(tasks(&resources));
        all
    };
    let number = |name, number| (name, Value::Number(number));
    let memory = json!({ "limit": 8192, "swap": 12288, "reservation": 4096 });
    let expected =
        [number("MemoryMax", 8192), number("MemoryLow", 4096), number("MemorySwapMax", 4096)];
    assert_eq!(of(json!({ "memory": memory })), expected);
    let cpu = json!({ "shares": 1024, "quota": 25_000, "period": 60_000, "cpus": "0,9" });
    let expected = [
        number("CPUWeight", 100),
        // 416,666 microseconds of a second, in steps of 10,000.
        number("CPUQuotaPerSecUSec", 420_000),
        number("CPUQuotaPeriodUSec", 60_000),
        ("AllowedCPUs", Value::Bits(vec![1, 2])),
    ];
    assert_eq!(of(json!({ "cpu": cpu })), expected);
    let none = json!({ "memory": { "limit": -1, "swap": -1 }, "cpu": { "quota": -1 },
        "pids": { "limit": -1 } });
    let expected = ["MemoryMax", "MemorySwapMax", "CPUQuotaPerSecUSec", "TasksMax"]
        .map(|name| number(name, u64::MAX));
    assert_eq!(of(none), expected);
    assert_eq!(of(json!({ "pids": { "limit": 0 }, "cpu": { "shares": 0, "cpus": "" } })), []);
}
