//! `update`: other resources for a container that is there, by runc's options or a file of
//! `linux.resources`. What is not named, or named as 0, stays as it is; all of it is set or nothing.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use berth_runtime::record::{Failure, Status};
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;
use oci_spec::runtime::{LinuxResources, Spec};
use serde_json::{Map, Value as Json, json};

use crate::cgroup::Before;
use crate::commands::create::absolute;
use crate::commands::lifecycle::expect;
use crate::commands::{Global, bad_usage, missing_id, usage};
use crate::failure::{broken, from_spec, system};
use crate::launch::errno_of;
use crate::resctrl::{self, Changed, Class};
use crate::state::{FILE_BYTES_MAX, Place, Record};
use crate::systemd;

/// What an option's text is.
#[derive(Clone, Copy)]
enum Kind {
    Number,
    /// With a unit, as in `512m`; -1 is no limit.
    Bytes,
    Text,
}

/// The options that name one resource, and where that is in `linux.resources`.
const OPTIONS: [(&str, &str, &str, Kind); 14] = [
    ("blkio-weight", "blockIO", "weight", Kind::Number),
    ("cpu-period", "cpu", "period", Kind::Number),
    ("cpu-quota", "cpu", "quota", Kind::Number),
    ("cpu-burst", "cpu", "burst", Kind::Number),
    ("cpu-share", "cpu", "shares", Kind::Number),
    ("cpu-rt-period", "cpu", "realtimePeriod", Kind::Number),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", Kind::Number),
    ("cpu-idle", "cpu", "idle", Kind::Number),
    ("cpuset-cpus", "cpu", "cpus", Kind::Text),
    ("cpuset-mems", "cpu", "mems", Kind::Text),
    ("memory", "memory", "limit", Kind::Bytes),
    ("memory-reservation", "memory", "reservation", Kind::Bytes),
    ("memory-swap", "memory", "swap", Kind::Bytes),
    ("pids-limit", "pids", "limit", Kind::Number),
];
/// Numbers of which 0 is a value.
const MAY_BE_ZERO: [&str; 5] = ["burst", "idle", "swappiness", "hcaHandles", "hcaObjects"];

/// `update`.
pub fn update(mut parser: lexopt::Parser, global: &Global) -> Result<ExitCode, Failure> {
    let (mut id, mut file, mut named, mut class) = (None, None, json!({}), json!({}));
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("resources") | Short('r') => {
                file = Some(PathBuf::from(parser.value().map_err(usage)?));
            }
            // Kernels no longer count them; runc takes and ignores both.
            Long("kernel-memory" | "kernel-memory-tcp") => drop(parser.value().map_err(usage)?),
            Long(name @ ("l3-cache-schema" | "mem-bw-schema")) => {
                let field = if name == "mem-bw-schema" { "memBwSchema" } else { "l3CacheSchema" };
                let text = parser.value().and_then(|value| value.string()).map_err(usage)?;
                class[field] = text.into();
            }
            Long(name) => {
                let known = OPTIONS.into_iter().find(|(option, ..)| *option == name);
                let Some((option, group, field, kind)) = known else {
                    return Err(usage(Long(name).unexpected()));
                };
                let text = parser.value().and_then(|value| value.string()).map_err(usage)?;
                named[group][field] = read_option(option, &text, kind)?;
            }
            Value(value) if id.is_none() => id = Some(value.string().map_err(usage)?),
            other => return Err(usage(other.unexpected())),
        }
    }
    let id = id.ok_or_else(missing_id)?;
    let place = Place::new(&absolute(&global.root)?, &id)?;
    // As in runc, the file is all there is when one is given.
    let (source, changes) = match file {
        Some(path) => (path.display().to_string(), read_resources(&path)?),
        None => ("the options".to_owned(), named),
    };
    let record = place.read()?;
    expect(&record, &place, &[Status::Running, Status::Created, Status::Paused])?;
    let mut spec = place.read_spec()?;
    let class = change_class(&mut spec, &id, class)?;
    let changed = class.as_ref().map(Class::change).transpose()?;
    if let Err(failure) = set(&place, &record, spec, changes, &source) {
        changed.as_ref().map_or(Ok(()), Changed::put_back)?;
        return Err(failure);
    }
    Ok(ExitCode::SUCCESS)
}

/// The class with what is to change of it, if that is anything; the configuration is changed with it.
fn change_class(spec: &mut Spec, id: &str, changes: Json) -> Result<Option<Class>, Failure> {
    let changes = without_unset(changes);
    if changes == json!({}) {
        return Ok(None);
    }
    let linux = spec.linux_mut().as_mut().ok_or_else(|| broken("the state has no linux"))?;
    let Some(now) = linux.intel_rdt() else {
        let text = "--l3-cache-schema, --mem-bw-schema: the container was made without linux.intelRdt, so \
                    there is no class of its own to change";
        return Err(bad_usage(text.to_owned()));
    };
    let failed = |error| broken(&format!("encode linux.intelRdt: {error}"));
    let mut all = serde_json::to_value(now).map_err(failed)?;
    merge(&mut all, changes);
    linux.set_intel_rdt(Some(serde_json::from_value(all).map_err(failed)?));
    resctrl::of(spec, id).map_err(from_spec)
}

fn set(
    place: &Place,
    record: &Record,
    mut spec: Spec,
    changes: Json,
    source: &str,
) -> Result<(), Failure> {
    let linux = spec.linux_mut().as_mut().ok_or_else(|| broken("the state has no linux"))?;
    let known = linux.resources().clone().unwrap_or_default();
    // Engines send the whole list again; what it says was settled before the first process came.
    let rules = understand(changes.clone(), source)?.devices().clone().unwrap_or_default();
    if !rules.is_empty() && Some(&rules) != known.devices().as_ref() {
        let text = "linux.resources.devices: device rules are those of the container's creation";
        return Err(bad_usage(format!("{text}; leave them out of {source}")));
    }
    let mut changes = without_unset(changes);
    if let Some(map) = changes.as_object_mut() {
        map.remove("devices");
    }
    let resources = understand(changes.clone(), source)?;
    let mut all = serde_json::to_value(&known)
        .map_err(|error| broken(&format!("encode the resources: {error}")))?;
    merge(&mut all, changes);
    linux.set_resources(Some(understand(all, "the state and what is to change")?));
    let staged = place.stage_spec(&spec)?;
    record.cgroup()?.set_resources(&resources, Before::InForce)?;
    if let Some(unit) = &record.unit {
        // It rounds some values; what the configuration says is written once more.
        let mut properties = systemd::of_resources(&resources);
        properties.extend(systemd::tasks(&resources));
        systemd::set(unit, &properties)?;
        record.cgroup()?.set_resources(&resources, Before::InForce)?;
    }
    staged.commit()
}

fn understand(resources: Json, source: &str) -> Result<LinuxResources, Failure> {
    serde_json::from_value(resources)
        .map_err(|error| bad_usage(format!("understand the resources of {source}: {error}")))
}

fn read_resources(path: &Path) -> Result<Json, Failure> {
    let read = |source: &mut dyn Read| {
        let mut bytes = Vec::new();
        source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map(|_| bytes)
    };
    let bytes = if path == Path::new("-") {
        read(&mut std::io::stdin())
    } else {
        File::open(path).and_then(|mut file| read(&mut file))
    };
    let bytes =
        bytes.map_err(|error| system(&format!("read {}", path.display()), errno_of(&error)))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!("read {}: larger than {FILE_BYTES_MAX} bytes", path.display());
        return Err(bad_usage(text));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| bad_usage(format!("understand {}: {error}", path.display())))
}

fn read_option(option: &str, text: &str, kind: Kind) -> Result<Json, Failure> {
    let wrong = |what| bad_usage(format!("--{option}: {text:?} is {what}"));
    match kind {
        Kind::Text => Ok(text.into()),
        Kind::Number => match (text.parse::<u64>(), text.parse::<i64>()) {
            (Ok(number), _) => Ok(number.into()),
            (_, Ok(number)) => Ok(number.into()),
            _ => Err(wrong("no number")),
        },
        Kind::Bytes if text == "-1" => Ok((-1).into()),
        Kind::Bytes => {
            bytes(text).map(Json::from).ok_or_else(|| wrong("no size such as 512m or 2g, nor -1"))
        }
    }
}

/// `512`, `512k`, `1.5g`, `2GiB`: units of 1024, in upper or lower case, with or without `b` or `ib`.
fn bytes(text: &str) -> Option<i64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let unit = unit.trim_start().to_ascii_lowercase();
    let prefix = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let bits = match prefix {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let (whole, part): (u128, u128) = (whole.parse().ok()?, part.parse().ok()?);
    let scaled = whole.checked_mul(scale)?.checked_add(part)?.checked_mul(1 << bits)?;
    i64::try_from(scaled / scale).ok()
}

/// What is given without what says nothing: numbers of 0, empty texts and lists.
fn without_unset(value: Json) -> Json {
    let Json::Object(map) = value else { return value };
    let says = |name: &str, value: &Json| match value {
        Json::Null => false,
        Json::Number(number) => number.as_i64() != Some(0) || MAY_BE_ZERO.contains(&name),
        Json::String(text) => !text.is_empty(),
        Json::Array(list) => !list.is_empty(),
        Json::Object(map) => !map.is_empty(),
        Json::Bool(_) => true,
    };
    let map = map.into_iter().map(|(name, value)| (name, without_unset(value)));
    Json::Object(map.filter(|(name, value)| says(name, value)).collect::<Map<_, _>>())
}

/// Lays changes over what is there, value for value; lists are replaced.
fn merge(into: &mut Json, changes: Json) {
    match (into, changes) {
        (Json::Object(into), Json::Object(changes)) => {
            for (name, value) in changes {
                merge(into.entry(name).or_insert(Json::Null), value);
            }
        }
        (into, changes) => *into = changes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_runc_reads_them() {
        for (text, expected) in [
            ("512", Some(512)),
            ("1k", Some(1024)),
            ("512m", Some(512 << 20)),
            ("1.5G", Some(3 << 29)),
            ("2GiB", Some(2 << 30)),
            ("2 gb", Some(2 << 30)),
            ("1.0625kb", Some(1088)),
            ("", None),
            ("m", None),
            ("1.2.3", None),
            ("-5", None),
            ("1x", None),
            ("99999999999999999999", None),
            ("9999999p", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_says_nothing_changes_nothing() {
        let given = json!({ "cpu": { "shares": 0, "burst": 0, "cpus": "", "quota": -1 },
            "memory": { "limit": 0 }, "pids": null, "blockIO": { "weightDevice": [] } });
        let given = without_unset(given);
        assert_eq!(given, json!({ "cpu": { "burst": 0, "quota": -1 } }));
        let mut all = json!({ "cpu": { "shares": 5, "quota": 7 }, "pids": { "limit": 3 } });
        merge(&mut all, given);
        let expected = json!({ "cpu": { "shares": 5, "quota": -1, "burst": 0 },
            "pids": { "limit": 3 } });
        assert_eq!(all, expected);
    }
}
