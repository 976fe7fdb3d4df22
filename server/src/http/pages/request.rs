//! The launch and settings forms, read into the API's own requests. Pure.

use std::collections::BTreeMap;

use berth_web::containers::LaunchForm;
use berth_web::format;
use berth_web::parts::Field;

use super::form::{Posted, Wrong};
use crate::http::routes::FormFields;
use crate::service::containers::spec::{
    CreateRequest, DataSetRequest, LimitsRequest, MountRequest, Network, PortRequest, Protocol,
    TmpfsMount, UlimitPair,
};
use crate::service::restart::RestartPolicy;

/// The fields of the launch form.
pub(super) const LAUNCH: FormFields = FormFields::once(&[
    "image",
    "name",
    "command",
    "entrypoint",
    "env",
    "workdir",
    "user",
    "hostname",
    "labels",
    "cpu",
    "cpu_weight",
    "memory",
    "swap",
    "pids",
    "network",
    "ports",
    "volumes",
    "data_sets",
    "restart",
    "restart_attempts",
    "lifetime",
    "stop_signal",
    "stop_grace",
    "tmpfs",
    "shm",
    "ulimits",
    "capabilities",
    "read_only_root",
    "terminal",
    "start",
    "size",
]);

/// The fields of the settings form.
pub(super) const SETTINGS: FormFields = FormFields::once(&[
    "name",
    "cpu",
    "cpu_weight",
    "memory",
    "swap",
    "pids",
    "restart",
    "restart_attempts",
    "etag",
]);

/// The request that a launch form asks for.
///
/// # Errors
/// What could not be read at all; the service judges the rest.
pub(super) fn launch_request(posted: &Posted) -> Result<CreateRequest, Wrong> {
    let mut wrong = Wrong::default();
    let request = CreateRequest {
        name: posted.optional("name"),
        image: posted.text("image").to_owned(),
        entrypoint: wrong.words(posted, "entrypoint", "/entrypoint"),
        command: wrong.words(posted, "command", "/command"),
        env: pairs(&mut wrong, posted.text("env"), "/env", "NAME=value"),
        working_dir: posted.optional("workdir"),
        user: posted.optional("user"),
        hostname: posted.optional("hostname"),
        labels: pairs(&mut wrong, posted.text("labels"), "/labels", "key=value"),
        stop_signal: posted.optional("stop_signal"),
        stop_grace_secs: wrong.number(posted, "stop_grace", "/stop_grace_secs"),
        restart: restart(&mut wrong, posted),
        lifetime_secs: wrong.length(posted, "lifetime", "/lifetime_secs"),
        read_only_root: wrong.flag(posted, "read_only_root", "/read_only_root"),
        terminal: wrong.flag(posted, "terminal", "/terminal"),
        // A terminal's is open in any case, and the page attaches to nothing else.
        stdin: false,
        tmpfs: tmpfs(&mut wrong, posted.text("tmpfs")),
        mounts: mounts(&mut wrong, posted.text("volumes")),
        data_sets: data_sets(&mut wrong, posted.text("data_sets")),
        shm_bytes: wrong.size(posted, "shm", "/shm_bytes"),
        ulimits: ulimits(&mut wrong, posted.text("ulimits")),
        capabilities_dropped: capabilities(posted.text("capabilities")),
        network: wrong
            .choice(
                posted,
                "network",
                "/network",
                &[("private", Network::Private), ("none", Network::None)],
            )
            .unwrap_or_default(),
        ports: ports(&mut wrong, posted.text("ports")),
        limits: limits(&mut wrong, posted),
        start: wrong
            .choice(posted, "start", "/start", &[("yes", true), ("no", false)])
            .unwrap_or_default(),
    };
    if wrong.is_empty() { Ok(request) } else { Err(wrong) }
}

/// The limits and the restart policy that a settings form asks for.
///
/// # Errors
/// What could not be read at all.
pub(super) fn settings_request(posted: &Posted) -> Result<(LimitsRequest, RestartPolicy), Wrong> {
    let mut wrong = Wrong::default();
    let request = (limits(&mut wrong, posted), restart(&mut wrong, posted));
    if wrong.is_empty() { Ok(request) } else { Err(wrong) }
}

/// The form as it was typed, with what is wrong beside each field.
pub(super) fn launch_form(posted: &Posted, wrong: &mut Wrong) -> LaunchForm {
    let mut field = |name: &str, pointer: &str| Field {
        value: posted.text(name).to_owned(),
        error: wrong.take(pointer),
    };
    LaunchForm {
        image: field("image", "/image"),
        name: field("name", "/name"),
        command: field("command", "/command"),
        entrypoint: field("entrypoint", "/entrypoint"),
        env: field("env", "/env"),
        workdir: field("workdir", "/working_dir"),
        user: field("user", "/user"),
        hostname: field("hostname", "/hostname"),
        labels: field("labels", "/labels"),
        cpu: field("cpu", "/limits/cpu_millis"),
        cpu_weight: field("cpu_weight", "/limits/cpu_weight"),
        memory: field("memory", "/limits/memory_bytes"),
        swap: field("swap", "/limits/swap_bytes"),
        pids: field("pids", "/limits/pids"),
        network: field("network", "/network"),
        ports: field("ports", "/ports"),
        volumes: field("volumes", "/mounts"),
        data_sets: field("data_sets", "/data_sets"),
        restart_attempts: field("restart_attempts", "/restart/max_attempts"),
        restart: field("restart", "/restart"),
        lifetime: field("lifetime", "/lifetime_secs"),
        stop_signal: field("stop_signal", "/stop_signal"),
        stop_grace: field("stop_grace", "/stop_grace_secs"),
        tmpfs: field("tmpfs", "/tmpfs"),
        shm: field("shm", "/shm_bytes"),
        ulimits: field("ulimits", "/ulimits"),
        capabilities: field("capabilities", "/capabilities_dropped"),
        read_only_root: posted.text("read_only_root") == "true",
        terminal: posted.text("terminal") == "true",
    }
}

fn limits(wrong: &mut Wrong, posted: &Posted) -> LimitsRequest {
    let cpu = posted.text("cpu");
    let cpu_millis = format::read_cores(cpu).and_then(|millis| u32::try_from(millis).ok());
    if cpu_millis.is_none() && !cpu.is_empty() {
        wrong.add("/limits/cpu_millis", format!("{cpu:?} is no number of cores, such as 1.5"));
    }
    LimitsRequest {
        cpu_millis,
        cpu_weight: wrong.number(posted, "cpu_weight", "/limits/cpu_weight"),
        memory_bytes: wrong.size(posted, "memory", "/limits/memory_bytes"),
        swap_bytes: wrong.size(posted, "swap", "/limits/swap_bytes"),
        pids: wrong.number(posted, "pids", "/limits/pids"),
    }
}

/// `NAME=value` lines; empty lines are nothing.
fn pairs(wrong: &mut Wrong, text: &str, pointer: &str, form: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    for line in lines(text) {
        match line.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                out.insert(name.to_owned(), value.to_owned());
            }
            _ => wrong.add(pointer, format!("{line:?} is not {form}")),
        }
    }
    out
}

fn tmpfs(wrong: &mut Wrong, text: &str) -> Vec<TmpfsMount> {
    let mut out = Vec::new();
    for line in lines(text) {
        let read = line.split_once('=').and_then(|(target, size)| {
            let target = target.trim().to_owned();
            Some(TmpfsMount { target, size_bytes: format::read_bytes(size)? })
        });
        match read {
            Some(mount) => out.push(mount),
            None => wrong.add("/tmpfs", format!("{line:?} is not /path=size")),
        }
    }
    out
}

fn mounts(wrong: &mut Wrong, text: &str) -> Vec<MountRequest> {
    let mut out = Vec::new();
    for line in lines(text) {
        match mount(line) {
            Some(mount) => out.push(mount),
            None => wrong.add("/mounts", format!("{line:?} is not NAME:/path or NAME:/path:ro")),
        }
    }
    out
}

/// `NAME:/path[:ro]`, as `berth run --volume` has it.
fn mount(text: &str) -> Option<MountRequest> {
    let mut parts = text.split(':').map(str::trim);
    let (volume, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let read_only = match (parts.next(), parts.next()) {
        (None | Some("rw"), None) => false,
        (Some("ro"), None) => true,
        _ => return None,
    };
    let good = !volume.is_empty() && target.starts_with('/');
    good.then_some(MountRequest { volume, target, read_only, sub_path: None })
}

/// `NAME:/path` lines, as `berth run --data-set` has them.
fn data_sets(wrong: &mut Wrong, text: &str) -> Vec<DataSetRequest> {
    let mut out = Vec::new();
    for line in lines(text) {
        let parts = line.split_once(':').map(|(name, target)| (name.trim(), target.trim()));
        // As of a volume, a second colon is not a part of the path.
        let good = |name: &str, target: &str| {
            !name.is_empty() && target.starts_with('/') && !target.contains(':')
        };
        match parts.filter(|(name, target)| good(name, target)) {
            Some((name, target)) => {
                out.push(DataSetRequest { name: name.to_owned(), target: target.to_owned() });
            }
            None => wrong.add("/data_sets", format!("{line:?} is not NAME:/path")),
        }
    }
    out
}

fn ports(wrong: &mut Wrong, text: &str) -> Vec<PortRequest> {
    let mut out = Vec::new();
    for line in lines(text) {
        match port(line) {
            Some(port) => out.push(port),
            None => wrong.add("/ports", format!("{line:?} is not 8080, 20080:8080 or 53/udp")),
        }
    }
    out
}

/// `[host:]container[/protocol]`, as `docker run --publish` has it.
fn port(text: &str) -> Option<PortRequest> {
    let (ports, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some(_) => return None,
    };
    let (host_port, container) = match ports.split_once(':') {
        Some((host, container)) => (Some(host.trim().parse().ok()?), container),
        None => (None, ports),
    };
    Some(PortRequest { container_port: container.trim().parse().ok()?, host_port, protocol })
}

fn ulimits(wrong: &mut Wrong, text: &str) -> BTreeMap<String, UlimitPair> {
    let mut out = BTreeMap::new();
    for line in lines(text) {
        let read = line.split_once('=').and_then(|(name, value)| {
            let (soft, hard) = value.split_once(':').unwrap_or((value, value));
            let pair =
                UlimitPair { soft: soft.trim().parse().ok()?, hard: hard.trim().parse().ok()? };
            Some((name.trim().to_owned(), pair))
        });
        match read {
            Some((name, pair)) => {
                out.insert(name, pair);
            }
            None => wrong.add("/ulimits", format!("{line:?} is not name=soft:hard")),
        }
    }
    out
}

/// Names divided by spaces or commas.
fn capabilities(text: &str) -> Vec<String> {
    let names = text.split(|c: char| c.is_whitespace() || c == ',');
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.trim_end_matches('\r').trim()).filter(|line| !line.is_empty())
}

fn restart(wrong: &mut Wrong, posted: &Posted) -> RestartPolicy {
    let max_attempts = wrong.number(posted, "restart_attempts", "/restart/max_attempts");
    let choices = [
        ("no", RestartPolicy::No),
        ("on-failure", RestartPolicy::OnFailure { max_attempts }),
        ("always", RestartPolicy::Always),
        ("unless-stopped", RestartPolicy::UnlessStopped),
    ];
    wrong.choice(posted, "restart", "/restart", &choices).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posted(pairs: &[(&str, &str)]) -> Posted {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Posted::new(pairs.iter().map(own).collect())
    }

    #[test]
    fn a_launch_form_becomes_the_api_request() {
        let form = posted(&[
            ("image", " alpine:3.22 "),
            ("command", "sleep 60"),
            ("env", "A=1\r\n\r\nB=x=y"),
            ("cpu", "1.5"),
            ("memory", "512 MiB"),
            ("swap", "0"),
            ("pids", "64"),
            ("tmpfs", "/tmp=1 MiB"),
            ("ulimits", "nofile=64:128"),
            ("network", "none"),
            ("ports", "8080\r\n20053:53/udp"),
            ("volumes", "data:/data\r\nsets : /sets : ro"),
            ("data_sets", " dogs: /dogs\r\n"),
            ("capabilities", "chown, SETUID"),
        ]);
        let request = launch_request(&form).expect("a good form");
        assert_eq!(request.image, "alpine:3.22");
        assert_eq!(request.command, Some(vec!["sleep".to_owned(), "60".to_owned()]));
        assert_eq!(request.env.get("B").map(String::as_str), Some("x=y"));
        assert_eq!(request.limits.cpu_millis, Some(1500));
        assert_eq!(request.limits.memory_bytes, Some(512 << 20));
        assert_eq!(request.limits.swap_bytes, Some(0));
        assert_eq!(request.tmpfs[0].size_bytes, 1 << 20);
        assert_eq!(request.ulimits["nofile"].hard, 128);
        assert_eq!(request.network, Network::None);
        assert_eq!(request.capabilities_dropped, ["chown", "SETUID"]);
        let ports = request.ports.iter().map(|port| (port.host_port, port.container_port));
        assert_eq!(ports.collect::<Vec<_>>(), [(None, 8080), (Some(20_053), 53)]);
        let mounts = request.mounts.iter().map(|one| (&*one.volume, &*one.target, one.read_only));
        assert_eq!(mounts.collect::<Vec<_>>(), [("data", "/data", false), ("sets", "/sets", true)]);
        let sets = request.data_sets.iter().map(|one| (&*one.name, &*one.target));
        assert_eq!(sets.collect::<Vec<_>>(), [("dogs", "/dogs")]);
        for text in ["dogs", ":/x", "dogs:x", "dogs:/x:ro"] {
            let mut wrong = Wrong::default();
            assert!(data_sets(&mut wrong, text).is_empty() && !wrong.is_empty(), "{text}");
        }
        for text in ["", "data", ":/x", "data:x", "data:/x:y", "data:/x:ro:z"] {
            assert!(mount(text).is_none(), "{text}");
        }
        for text in ["", "a", "1:2:3", "53/sctp", "70000", "-1", ":80", "80:"] {
            assert!(port(text).is_none(), "{text}");
        }
        assert!(request.name.is_none() && request.start);
    }

    #[test]
    fn what_cannot_be_read_is_said_beside_its_field_and_what_was_typed_stays() {
        let form = posted(&[("cpu", "some"), ("memory", "lots"), ("env", "oops"), ("name", "a")]);
        let mut wrong = launch_request(&form).expect_err("a bad form");
        let shown = launch_form(&form, &mut wrong);
        assert_eq!(shown.cpu.value, "some");
        assert!(shown.cpu.error.contains("cores"));
        assert!(shown.memory.error.contains("size"));
        assert!(shown.env.error.contains("NAME=value"));
        assert!(shown.name.error.is_empty());
        assert_eq!(wrong.rest(), "");
    }
}
