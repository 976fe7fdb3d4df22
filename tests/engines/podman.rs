//! What people do with Podman.

use super::engine::{Engine, IMAGE, said};

#[test]
fn podman_does_its_work_with_this_runtime() {
    let Some(podman) = Engine::podman() else { return };
    runs_and_tells_how_it_ended(&podman);
    limits_hold(&podman);
    holds_a_pod(&podman);
    lets_in_what_it_was_told_to(&podman);
    maps_users(&podman);
    checks_health(&podman);
}

fn runs_and_tells_how_it_ended(podman: &Engine) {
    assert_eq!(podman.script("--network none", "echo ran"), "ran\n");
    let ended =
        podman.call_with(&format!("run --rm --network none {IMAGE}"), &["sh", "-c", "exit 42"]);
    assert_eq!(ended.status.code(), Some(42), "{}", said(&ended));
    let absent = podman.call(&format!("run --rm --network none {IMAGE} /bin/absent"));
    assert_eq!(absent.status.code(), Some(127), "{}", said(&absent));
    podman.done_with(
        &format!("run -d --name one --network none {IMAGE}"),
        &["sh", "-c", "echo begun; trap 'echo ended; exit 3' TERM; while :; do sleep 0.05; done"],
    );
    podman.until("logs one", "begun");
    assert_eq!(podman.done("exec -w /bin one sh -c pwd"), "/bin\n");
    let failed = podman.call("exec one false");
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    podman.done("pause one");
    assert!(podman.done("ps -a").contains("Paused") || podman.done("ps -a").contains("paused"));
    podman.done("unpause one");
    podman.done("stop -t 20 one");
    assert_eq!(podman.done("inspect -f {{.State.ExitCode}} one"), "3\n");
    assert!(podman.done("logs one").ends_with("ended\n"));
    podman.done("rm one");
    assert_eq!(podman.script("--network none -t", "test -t 0 && echo tty"), "tty\r\n");
}

fn limits_hold(podman: &Engine) {
    let hog =
        "a=xxxxxxxxxxxxxxxx; i=0; while [ $i -lt 21 ]; do a=$a$a; i=$((i+1)); done; echo lived";
    assert_eq!(podman.script("--network none --memory 400m", hog), "lived\n");
    let options = "run --name hog --network none --memory 16m --memory-swap 16m";
    let killed = podman.call_with(&format!("{options} {IMAGE}"), &["sh", "-c", hog]);
    assert_eq!(killed.status.code(), Some(137), "{}", said(&killed));
    podman.done("rm hog");
    assert_eq!(
        podman.script("--network none --read-only", "touch /x 2>/dev/null || echo held"),
        "held\n"
    );
    assert_eq!(podman.script("--network none --tmpfs /t", "touch /t/x && echo made"), "made\n");
}

/// The containers of a pod share namespaces, which the later ones join by path.
fn holds_a_pod(podman: &Engine) {
    podman.done(&format!(
        "pod create --name pod --network none --infra-image {IMAGE} --infra-command /bin/pause"
    ));
    let look = "readlink /proc/self/ns/net; readlink /proc/self/ns/uts; readlink /proc/self/ns/ipc";
    let first = podman.script("--pod pod", look);
    assert_eq!(podman.script("--pod pod", look), first);
    // The control: alone it has its own.
    let alone = podman.script("--network none", look);
    assert!(alone.lines().all(|own| !first.contains(own)), "{alone:?} and {first:?}");
    podman.done("pod rm -f -t 0 pod");
}

fn lets_in_what_it_was_told_to(podman: &Engine) {
    let look = "grep kthreadd /proc/2/comm || echo alone; ls /dev/kmsg 2>/dev/null || echo bare";
    assert_eq!(podman.script("--network none", look), "alone\nbare\n");
    assert_eq!(podman.script("--network none --privileged", look), "alone\n/dev/kmsg\n");
    assert_eq!(podman.script("--network none --pid host", look), "kthreadd\nbare\n");
    assert_eq!(podman.script("--network none --device /dev/kmsg", look), "alone\n/dev/kmsg\n");
}

fn maps_users(podman: &Engine) {
    let map = podman.script("--network none --uidmap 0:300000:65536", "cat /proc/self/uid_map");
    let numbers: Vec<&str> = map.split_ascii_whitespace().collect();
    assert_eq!(numbers, ["0", "300000", "65536"]);
}

fn checks_health(podman: &Engine) {
    let more =
        ["--health-cmd", "test -e /well", "--health-interval", "disable", IMAGE, "sleep", "1000"];
    podman.done_with("run -d --name checked --network none", &more);
    assert!(!podman.call("healthcheck run checked").status.success());
    podman.done("exec checked touch /well");
    podman.done("healthcheck run checked");
    podman.done("rm -f checked");
}
