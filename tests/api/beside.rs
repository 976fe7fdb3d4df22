//! A02 and A03: whatever other engines take that would loosen a container's confinement, asked for by
//! every path that could set it. All of it is refused, by its name, because no request takes a field
//! that it does not know.

use serde_json::{Value, json};
use system_tests::{Check, TestServer, image, requires_root, sample};

/// Names that other engines know, in the ways that people write them.
pub(crate) const NAMES: [&str; 60] = [
    "Privileged",
    "privileged",
    "PRIVILEGED",
    "Binds",
    "binds",
    "Mounts",
    "mounts",
    "Volumes",
    "volumes",
    "VolumesFrom",
    "volumes_from",
    "Devices",
    "devices",
    "DeviceRequests",
    "device_requests",
    "DeviceCgroupRules",
    "device_cgroup_rules",
    "CapAdd",
    "cap_add",
    "capAdd",
    "capabilities_added",
    "CapDrop",
    "PidMode",
    "pid_mode",
    "IpcMode",
    "ipc_mode",
    "UTSMode",
    "uts_mode",
    "UsernsMode",
    "userns_mode",
    "NetworkMode",
    "network_mode",
    "CgroupnsMode",
    "SecurityOpt",
    "security_opt",
    "MaskedPaths",
    "masked_paths",
    "ReadonlyPaths",
    "CgroupParent",
    "cgroup_parent",
    "Runtime",
    "runtime",
    "LogConfig",
    "log_config",
    "Annotations",
    "annotations",
    "Sysctls",
    "sysctls",
    "ExtraHosts",
    "GroupAdd",
    "OomKillDisable",
    "OomScoreAdj",
    "Links",
    "PortBindings",
    "ports",
    "HostConfig",
    "seccomp",
    "apparmor",
    "owner",
    "first_id",
];

#[tokio::test]
async fn no_path_takes_a_setting_that_it_does_not_know() {
    requires_root!();
    let server = TestServer::with(crate::fields::generous()).await;
    let anna = server.person("anna", "user").await;
    let archive = image::archive("lab/app:v1", &[("a", 0o755, b"a")]);
    let image = image::import(&anna, archive).await;
    let made = json!({"name": "changed", "image": image, "command": ["a"]});
    let made = anna.post("/api/v1/containers", &made).await.expect_status(201).json();
    let change = format!("/api/v1/containers/{}", made["id"].as_str().expect("an id"));
    let create = json!({"image": image, "command": ["a"], "limits": {"pids": 8},
        "tmpfs": [{"target": "/a", "size_bytes": 4096}], "ulimits": {"nofile": {"soft": 1, "hard": 1}},
        "restart": {"name": "no"}});
    // Where in a body a stranger may stand: at the top, and inside everything that is an object.
    let paths: [(&str, &str, &Value, &str); 7] = [
        ("POST", "/api/v1/containers", &create, ""),
        ("POST", "/api/v1/containers", &create, "/limits"),
        ("POST", "/api/v1/containers", &create, "/tmpfs/0"),
        ("POST", "/api/v1/containers", &create, "/ulimits/nofile"),
        ("POST", "/api/v1/containers", &create, "/restart"),
        ("PATCH", &change, &json!({"limits": {}}), ""),
        ("PATCH", &change, &json!({"limits": {}}), "/limits"),
    ];
    let mut wrong = Vec::new();
    for name in sample(&NAMES, 8) {
        for (method, path, base, at) in paths {
            for value in
                sample(&[json!(true), json!(["/:/host"]), json!("host"), json!({}), json!(null)], 2)
            {
                let mut body = base.clone();
                let place = body.pointer_mut(at).and_then(Value::as_object_mut);
                place.expect("the base has an object there").insert(name.to_owned(), value.clone());
                let answer = anna.send(method, path, &body).await;
                let named =
                    answer.json()["fields"][0]["pointer"].as_str().unwrap_or("").ends_with(name);
                let said = match answer.status == 422 && (named || answer.text.contains(name)) {
                    true => "refused by name".to_owned(),
                    false => format!("{} {}", answer.status, answer.text),
                };
                let variant = format!("{method} {at} {name}={value}");
                let control = "the same body without it is taken";
                if !(Check { id: "A03", variant: &variant, control }
                    .notes("refused by name", &said))
                {
                    wrong.push(format!("{variant}: {said}"));
                }
            }
        }
        let answer = anna.get(&format!("/api/v1/containers?{name}=true")).await;
        if answer.status != 422 {
            wrong.push(format!("the list with {name}: {}", answer.status));
        }
    }
    assert!(wrong.is_empty(), "{} of them\n{}", wrong.len(), wrong.join("\n"));
    let list = anna.get("/api/v1/containers").await.json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    // The control.
    anna.post("/api/v1/containers", &create).await.expect_status(201);
    anna.patch(&change, &json!({"limits": {}})).await.expect_status(200);
}
