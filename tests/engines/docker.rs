//! What people do with Docker.

use std::fs;

use super::engine::{Engine, IMAGE, said};

#[test]
fn docker_does_its_work_with_this_runtime() {
    let Some(docker) = Engine::docker() else { return };
    runs_and_tells_how_it_ended(&docker);
    limits_hold(&docker);
    builds(&docker);
    restarts_and_checks_health(&docker);
    containers_reach_one_another(&docker);
    keeps_volumes(&docker);
    lets_in_what_it_was_told_to(&docker);
}

fn runs_and_tells_how_it_ended(docker: &Engine) {
    assert_eq!(docker.script("--network none --hostname named", "hostname"), "named\n");
    let ended = docker.call_with(&format!("run --rm {IMAGE}"), &["sh", "-c", "exit 42"]);
    assert_eq!(ended.status.code(), Some(42), "{}", said(&ended));
    let absent = docker.call(&format!("run --rm {IMAGE} /bin/absent"));
    assert_eq!(absent.status.code(), Some(127), "{}", said(&absent));
    docker.done_with(
        &format!("run -d --name one {IMAGE}"),
        &["sh", "-c", "echo begun; trap 'echo ended; exit 3' TERM; while :; do sleep 0.05; done"],
    );
    docker.until("logs one", "begun");
    assert_eq!(docker.done("exec -w /bin -e A=b one sh -c pwd"), "/bin\n");
    assert_eq!(docker.done("exec -u 5:6 one id -u"), "5\n");
    let failed = docker.call("exec one false");
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    docker.done("pause one");
    assert!(docker.done("ps").contains("(Paused)"));
    docker.done("unpause one");
    assert!(docker.done("top one").contains("sleep") || docker.done("top one").contains("sh"));
    docker.done("stop -t 20 one");
    assert_eq!(docker.done("inspect -f {{.State.ExitCode}} one"), "3\n");
    assert!(docker.done("logs one").ends_with("ended\n"));
    docker.done("start one");
    docker.done("kill one");
    docker.until("inspect -f {{.State.ExitCode}} one", "137");
    docker.done("rm one");
}

fn limits_hold(docker: &Engine) {
    // The control: with room it comes to its end.
    let hog =
        "a=xxxxxxxxxxxxxxxx; i=0; while [ $i -lt 21 ]; do a=$a$a; i=$((i+1)); done; echo lived";
    assert_eq!(docker.script("--memory 400m", hog), "lived\n");
    let options = "run --name hog --memory 16m --memory-swap 16m";
    let killed = docker.call_with(&format!("{options} {IMAGE}"), &["sh", "-c", hog]);
    assert_eq!(killed.status.code(), Some(137), "{}", said(&killed));
    assert_eq!(docker.done("inspect -f {{.State.OOMKilled}} hog"), "true\n");
    docker.done("rm hog");
    let forks = "i=0; while [ $i -lt 20 ]; do sleep 5 & i=$((i+1)); done; echo all";
    assert_eq!(docker.script("--pids-limit 100", forks), "all\n");
    let few = docker.call_with(&format!("run --rm --pids-limit 10 {IMAGE}"), &["sh", "-c", forks]);
    assert!(said(&few).contains("fork"), "{}", said(&few));
    docker.done_with(&format!("run -d --name one --memory 64m {IMAGE}"), &["sleep", "1000"]);
    docker.done("update --memory 32m --memory-swap 32m one");
    assert!(docker.done("stats --no-stream one").contains("/ 32MiB"));
    docker.done("rm -f one");
}

fn builds(docker: &Engine) {
    let text =
        format!("FROM {IMAGE}\nRUN echo built > /made && test $(id -u) = 0\nCMD cat /made\n");
    let file = docker.file("build/Dockerfile", &text);
    let place = file.parent().expect("it has one").display();
    docker.done(&format!("build -t berth/built:1 {place}"));
    assert_eq!(docker.done("run --rm berth/built:1"), "built\n");
}

fn restarts_and_checks_health(docker: &Engine) {
    let failing = ["sh", "-c", "echo begun; exit 1"];
    docker.done_with(&format!("run -d --name again --restart on-failure:2 {IMAGE}"), &failing);
    docker.until("inspect -f {{.RestartCount}}-{{.State.Status}} again", "2-exited");
    assert_eq!(docker.done("logs again"), "begun\n".repeat(3));
    docker.done("rm again");
    let check = ["--health-cmd", "test -e /well", "--health-interval", "100ms"];
    let more = [&check[..], &["--health-retries", "1", IMAGE, "sleep", "1000"]].concat();
    docker.done_with("run -d --name checked", &more);
    docker.until("inspect -f {{.State.Health.Status}} checked", "unhealthy");
    docker.done("exec checked touch /well");
    docker.until("inspect -f -{{.State.Health.Status}}- checked", "-healthy-");
    docker.done("rm -f checked");
}

fn containers_reach_one_another(docker: &Engine) {
    let serve = ["sh", "-c", "while :; do echo answered | nc -l -p 80; done"];
    docker.done_with(&format!("run -d --name server {IMAGE}"), &serve);
    let address = docker.done("inspect -f {{.NetworkSettings.IPAddress}} server");
    let ask = format!("until nc -w 2 {} 80 </dev/null; do sleep 0.1; done", address.trim());
    assert_eq!(docker.script("", &ask), "answered\n");
    // In the server's own network namespace, joined by path.
    let ask = "until nc -w 2 127.0.0.1 80 </dev/null; do sleep 0.1; done";
    assert_eq!(docker.script("--network container:server", ask), "answered\n");
    assert!(docker.script("--network host", "ip link").contains("docker0"));
    docker.done("rm -f server");
}

fn keeps_volumes(docker: &Engine) {
    docker.script("-v kept:/data", "echo kept > /data/file");
    assert_eq!(docker.script("-v kept:/data:ro", "cat /data/file"), "kept\n");
    let refused =
        docker.call_with(&format!("run --rm -v kept:/data:ro {IMAGE}"), &["touch", "/data/x"]);
    assert!(said(&refused).contains("Read-only"), "{}", said(&refused));
    let refused = docker.call_with(&format!("run --rm --read-only {IMAGE}"), &["touch", "/x"]);
    assert!(said(&refused).contains("Read-only"), "{}", said(&refused));
    assert_eq!(docker.script("--read-only --tmpfs /t", "touch /t/x && echo made"), "made\n");
    docker.done("volume rm kept");
}

fn lets_in_what_it_was_told_to(docker: &Engine) {
    // The control: by default neither the host's processes nor its devices are there.
    let look = "grep kthreadd /proc/2/comm || echo alone; ls /dev/kmsg 2>/dev/null || echo bare";
    assert_eq!(docker.script("", look), "alone\nbare\n");
    assert_eq!(docker.script("--pid host", look), "kthreadd\nbare\n");
    assert_eq!(docker.script("--privileged", look), "alone\n/dev/kmsg\n");
    assert_eq!(docker.script("--device /dev/kmsg", look), "alone\n/dev/kmsg\n");
    let forward = "cat /proc/sys/net/ipv4/ip_forward";
    let options = "--cap-add NET_ADMIN --sysctl net.ipv4.ip_forward=";
    assert_eq!(docker.script(&format!("{options}0"), forward), "0\n");
    assert_eq!(docker.script(&format!("{options}1"), forward), "1\n");
    assert_eq!(docker.script("--ulimit nofile=64:64", "ulimit -n"), "64\n");
    let user = "--user 1000:1000 --security-opt no-new-privileges";
    let told = docker.script(user, "id -u; grep NoNewPrivs /proc/self/status");
    assert_eq!(told, "1000\nNoNewPrivs:\t1\n");
    let shown = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts";
    let told = docker.script("--ipc host --uts host", shown);
    let own = |kind| fs::read_link(format!("/proc/self/ns/{kind}")).expect("our own namespace");
    assert_eq!(told, format!("{}\n{}\n", own("ipc").display(), own("uts").display()));
}
