//! `--systemd-cgroup`: a container's cgroup as a scope that systemd makes (systemd.io, "Control Group APIs
//! and Delegation"; the D-Bus interface of systemd, org.freedesktop.systemd1(5)).
//!
//! A scope lives as long as a process is in it, and is made around one: a placeholder, which waits for its
//! standard input to end. It leaves when the container's first process is there; until then no limit on
//! processes is set, since it counts. What systemd keeps of limits is told to it as properties, so that it
//! does not set its own later; the exact values are written to the kernel's files afterwards.
//!
//! systemd is asked at the socket that it keeps for root, without a bus between.

mod properties;

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use berth_runtime::record::{Failure, FailureClass};
use oci_spec::runtime::LinuxResources;

use crate::dbus::{Body, Bus, Error, Method};
use crate::failure::system;
use crate::launch::errno_of;
use crate::spec::{SpecError, invalid};

pub use properties::{Property, Value, of_resources, tasks};

/// systemd runs when this directory is there (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// Where it listens for root.
const SOCKET: &str = "/run/systemd/private";
/// How long one conversation may take: a job of its waits for others.
const LIMIT: Duration = Duration::from_secs(30);
/// The slice of a path that names none.
const SLICE: &str = "system.slice";

const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// A unit of a container's own, as `cgroupsPath` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name, which ends with `.scope`.
    pub name: String,
    slice: String,
}

impl Unit {
    /// `slice:prefix:name`, of which slice and prefix may be empty; without a path
    /// `system.slice:berth:<id>`.
    pub fn of(path: &str, id: &str) -> Result<Self, SpecError> {
        let field = "linux.cgroupsPath";
        let parts: Vec<&str> =
            if path.is_empty() { vec!["", "berth", id] } else { path.split(':').collect() };
        let [slice, prefix, name] = parts[..] else {
            let why = format!("{path:?} is not slice:prefix:name, as --systemd-cgroup needs it");
            return Err(invalid(field, why));
        };
        let slice = if slice.is_empty() { SLICE } else { slice };
        // What unit names are made of (systemd.unit(5)); a scope's may not be longer than a file's.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        let is_unit = |name: &str| name.len() <= 255 && name.bytes().all(plain);
        let stem = slice.strip_suffix(".slice").unwrap_or_default();
        let no_part_is_empty = stem == "-" || stem.split('-').all(|part| !part.is_empty());
        if stem.is_empty() || !no_part_is_empty || !is_unit(slice) {
            return Err(invalid(field, format!("{slice:?} is no name of a slice")));
        }
        let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
        if name.is_empty() || !is_unit(&format!("{name}.scope")) {
            return Err(invalid(field, format!("{name:?} is no name of a scope")));
        }
        Ok(Self { name: format!("{name}.scope"), slice: slice.to_owned() })
    }
}

/// A scope that is made and still holds its placeholder.
#[derive(Debug)]
pub struct Scope {
    cgroup: String,
    unit: String,
    placeholder: Child,
}

impl Scope {
    /// Has systemd make it.
    pub fn start(
        unit: &Unit,
        id: &str,
        resources: Option<&LinuxResources>,
    ) -> Result<Self, Failure> {
        let mut manager = Manager::connect()?;
        let placeholder = spawn_placeholder()?;
        let mut scope = Self { cgroup: String::new(), unit: unit.name.clone(), placeholder };
        let started = manager.start(unit, id, scope.placeholder.id(), resources);
        match started.and_then(|()| manager.cgroup(&unit.name)) {
            Ok(cgroup) => {
                scope.cgroup = cgroup;
                Ok(scope)
            }
            Err(failure) => {
                scope.end_placeholder()?;
                Err(failure)
            }
        }
    }

    /// Its cgroup, from the hierarchies' roots.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Its unit's name.
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Leaves the scope to the container's processes.
    pub fn hand_over(&mut self, resources: Option<&LinuxResources>) -> Result<(), Failure> {
        self.end_placeholder()?;
        match resources.and_then(tasks) {
            Some(tasks) => set(&self.unit, &[tasks]),
            None => Ok(()),
        }
    }

    /// Ends it, after whatever was in it.
    pub fn undo(&mut self) -> Result<(), Failure> {
        self.end_placeholder()?;
        stop(&self.unit)
    }

    fn end_placeholder(&mut self) -> Result<(), Failure> {
        drop(self.placeholder.stdin.take());
        let ended = self.placeholder.wait();
        ended.map(drop).map_err(|error| system("end the scope's placeholder", errno_of(&error)))
    }
}

/// `berth-runtime placeholder`: stays until its standard input ends.
pub fn placeholder_main() -> ExitCode {
    match std::io::copy(&mut std::io::stdin(), &mut std::io::sink()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn spawn_placeholder() -> Result<Child, Failure> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("placeholder").env_clear().current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| system("start the scope's placeholder", errno_of(&error)))
}

/// Tells systemd other properties of a unit, for as long as it lives.
pub fn set(unit: &str, properties: &[Property]) -> Result<(), Failure> {
    if properties.is_empty() {
        return Ok(());
    }
    let mut body = Body::of("sba(sv)");
    body.text(unit).flag(true);
    properties::write(&mut body, properties);
    Manager::connect()?.call("SetUnitProperties", unit, &body).map(drop)
}

/// Stops a unit and awaits its end; success when there is none of that name.
pub fn stop(unit: &str) -> Result<(), Failure> {
    let mut manager = Manager::connect()?;
    let mut body = Body::of("ss");
    body.text(unit).text("replace");
    match manager.job("StopUnit", unit, &body) {
        Err(failure) if failure.class == FailureClass::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// The conversation.
struct Manager {
    bus: Bus,
}

impl Manager {
    fn connect() -> Result<Self, Failure> {
        if !Path::new(BOOTED).is_dir() {
            let text = "--systemd-cgroup: systemd does not run on this host; leave the option out, and \
                        use cgroupfs paths";
            return Err(Failure::new(FailureClass::Unavailable, "cgroup.layout", text));
        }
        let bus = Bus::connect(Path::new(SOCKET), LIMIT);
        bus.map(|bus| Self { bus }).map_err(|error| said("at", SOCKET, error))
    }

    fn start(
        &mut self,
        unit: &Unit,
        id: &str,
        pid: u32,
        resources: Option<&LinuxResources>,
    ) -> Result<(), Failure> {
        let mut all = vec![
            ("Description", Value::Text(format!("container {id}"))),
            ("Slice", Value::Text(unit.slice.clone())),
            ("DefaultDependencies", Value::Flag(false)),
            ("Delegate", Value::Flag(true)),
            ("PIDs", Value::Pids(vec![pid])),
            // What is gone leaves no failed unit behind that would hold its name.
            ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
        ];
        all.extend(resources.map(of_resources).unwrap_or_default());
        let mut body = Body::of("ssa(sv)a(sa(sv))");
        // "fail": a unit of this name is somebody else's.
        body.text(&unit.name).text("fail");
        properties::write(&mut body, &all);
        body.array(8, |_| {});
        let result = self.job("StartTransientUnit", &unit.name, &body)?;
        if result == "done" {
            return Ok(());
        }
        Err(odd("start", &unit.name, &format!("the job's result is {result:?}")))
    }

    /// Where the unit's cgroup is.
    fn cgroup(&mut self, unit: &str) -> Result<String, Failure> {
        let mut body = Body::of("s");
        body.text(unit);
        let answer = self.call("GetUnit", unit, &body)?;
        let object = answer.reader().text().map_err(|error| said("find", unit, error))?.to_owned();
        let mut body = Body::of("ss");
        body.text("org.freedesktop.systemd1.Scope").text("ControlGroup");
        let interface = "org.freedesktop.DBus.Properties";
        let method = Method { object: &object, interface, member: "Get" };
        let read = self.bus.call(method, &body).and_then(|answer| {
            let mut reader = answer.reader();
            match reader.signature()? {
                "s" => Ok(reader.text()?.to_owned()),
                _ => Err(Error::Malformed("a unit's cgroup is no text")),
            }
        });
        let path = read.map_err(|error| said("find the cgroup of", unit, error))?;
        if path.is_empty() {
            return Err(odd("find the cgroup of", unit, "it has none"));
        }
        Ok(path)
    }

    fn call(
        &mut self,
        member: &str,
        unit: &str,
        body: &Body,
    ) -> Result<crate::dbus::Message, Failure> {
        let method = Method { object: "/org/freedesktop/systemd1", interface: MANAGER, member };
        self.bus.call(method, body).map_err(|error| said(member, unit, error))
    }

    /// A method that begins a job; how that ended.
    fn job(&mut self, member: &str, unit: &str, body: &Body) -> Result<String, Failure> {
        let answer = self.call(member, unit, body)?;
        let failed = |error| said(member, unit, error);
        let job = answer.reader().text().map_err(failed)?.to_owned();
        loop {
            let signal = self.bus.signal("JobRemoved").map_err(failed)?;
            let mut reader = signal.reader();
            reader.number().map_err(failed)?;
            let removed = reader.text().map_err(failed)?;
            let _unit = reader.text().map_err(failed)?;
            if removed == job {
                return Ok(reader.text().map_err(failed)?.to_owned());
            }
        }
    }
}

/// A failure of systemd's, or on the way to it.
fn said(verb: &str, unit: &str, error: Error) -> Failure {
    let class = match &error {
        Error::Refused { name, .. } if name.ends_with(".NoSuchUnit") => FailureClass::NotFound,
        Error::Refused { name, .. } if name.ends_with(".UnitExists") => FailureClass::Conflict,
        Error::Timeout(_) => FailureClass::Unavailable,
        _ => FailureClass::Broken,
    };
    let text = format!("systemd, {verb} {unit}: {}", crate::scope::chain(&error));
    Failure::new(class, "cgroup.broken", text)
}

/// An answer of systemd's that is not what was asked for.
fn odd(verb: &str, unit: &str, what: &str) -> Failure {
    Failure::new(FailureClass::Broken, "cgroup.broken", format!("systemd, {verb} {unit}: {what}"))
}

#[cfg(test)]
mod tests;
