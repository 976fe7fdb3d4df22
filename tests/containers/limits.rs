//! Limits, as the kernel's own files hold them, and changed while the container runs.

use serde_json::json;
use system_tests::{TestServer, requires_root};

use system_tests::containers::{identity, import, in_status, kernel_says, run, show};

#[tokio::test]
async fn limits_are_changed_in_the_kernel_while_it_runs() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let limits = json!({"limits": {"memory_bytes": 64 << 20, "pids": 20}});
    let id = run(&anna, "web", "while :; do usleep 20000; done", limits).await;
    in_status(&anna, &id, "running").await;
    let shown = show(&anna, &id).await;
    assert_eq!(kernel_says(&shown, "memory"), (64 << 20).to_string());
    assert_eq!(kernel_says(&shown, "pids"), "20");
    let before = identity(&anna, &id).await;
    let change = json!({"limits": {"memory_bytes": 96 << 20, "pids": 30, "cpu_millis": 250}});
    let path = format!("/api/v1/containers/{id}");
    let changed = anna.patch(&path, &change).await.expect_status(200).json();
    assert_eq!(kernel_says(&changed, "memory"), (96 << 20).to_string());
    assert_eq!(kernel_says(&changed, "pids"), "30");
    assert_eq!(changed["limits"]["cpu_millis"], 250);
    assert_eq!(identity(&anna, &id).await, before);
    // At the next start they hold still.
    system_tests::containers::act(&anna, &id, "restart").await.expect_status(200);
    let shown = in_status(&anna, &id, "running").await;
    assert_eq!(kernel_says(&shown, "pids"), "30");
}

#[tokio::test]
async fn nothing_is_unlimited_by_omission_and_ceilings_hold() {
    requires_root!();
    let runtime = "ceilings = { cpu_millis = 4000, cpu_weight = 1000, memory_bytes = 1073741824, \
                   swap_bytes = 0, pids = 600 }";
    let options = system_tests::Options { runtime: runtime.to_owned(), ..Default::default() };
    let server = TestServer::with(options).await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = run(&anna, "plain", "while :; do usleep 20000; done", json!({})).await;
    let shown = in_status(&anna, &id, "running").await;
    assert_eq!(kernel_says(&shown, "memory"), (512 << 20).to_string());
    assert_eq!(kernel_says(&shown, "pids"), "512");
    for limits in
        [json!({"pids": 601}), json!({"memory_bytes": 1_u64 << 31}), json!({"swap_bytes": 1})]
    {
        let body = json!({"image": system_tests::containers::IMAGE, "limits": limits});
        let refused = anna.post("/api/v1/containers", &body).await;
        assert_eq!(refused.status, 422, "{limits}: {}", refused.text);
        let path = format!("/api/v1/containers/{id}");
        let refused = anna.patch(&path, &json!({"limits": limits})).await;
        assert_eq!(refused.status, 422, "{limits}: {}", refused.text);
    }
    // The control: at the ceiling it goes through.
    let path = format!("/api/v1/containers/{id}");
    let changed =
        anna.patch(&path, &json!({"limits": {"pids": 600}})).await.expect_status(200).json();
    assert_eq!(kernel_says(&changed, "pids"), "600");
}
