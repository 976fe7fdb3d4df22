//! Classes of the processors' caches and memory bandwidth (runtime-spec, config-linux.md, "IntelRdt";
//! the kernel's resctrl.rst): a directory of the resctrl file system, whose `tasks` the container enters.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_runtime::record::Failure;
use nix::sys::statfs::statfs;
use oci_spec::runtime::{LinuxIntelRdt, Spec};

use crate::failure::{from_spec, system};
use crate::launch::errno_of;
use crate::spec::{SpecError, invalid, unsupported};

/// Where distributions mount it.
const ROOT: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC` (linux/magic.h).
const MAGIC: i64 = 0x0765_5821;
/// Directories and files of the kernel's own beside the classes.
const RESERVED: [&str; 4] = ["info", "mon_data", "mon_groups", ""];

/// The class of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    directory: PathBuf,
    /// Of the container alone, made for it and removed with it.
    own: bool,
    /// Lines that its `schemata` gets; none leave it as it is.
    lines: Vec<String>,
    /// Whether lines have to be in force already, where the class is there.
    compared: bool,
    /// A group in which it is measured alone.
    monitored: Option<PathBuf>,
}

/// The class that a configuration asks for.
///
/// # Errors
/// What it asks for cannot be; without the file system nothing can.
pub fn of(spec: &Spec, id: &str) -> Result<Option<Class>, SpecError> {
    let linux = spec.linux().as_ref();
    let Some(asked) = linux.and_then(|linux| linux.intel_rdt().as_ref()) else {
        return Ok(None);
    };
    if !is_mounted() {
        let lack =
            "resctrl is not mounted at /sys/fs/resctrl: this kernel or processor may lack it";
        return Err(unsupported("linux.intelRdt", lack));
    }
    Class::of(asked, id, Path::new(ROOT)).map(Some)
}

/// Whether this host has the file system.
pub fn is_mounted() -> bool {
    statfs(ROOT).is_ok_and(|facts| facts.filesystem_type().0 == MAGIC)
}

/// A class that was changed, with what it had before.
#[derive(Debug)]
pub struct Changed(Class);

impl Changed {
    /// Takes the change back.
    pub fn put_back(&self) -> Result<(), Failure> {
        self.0.write()
    }
}

impl Class {
    fn of(asked: &LinuxIntelRdt, id: &str, root: &Path) -> Result<Self, SpecError> {
        let named = asked.clos_id().as_deref().filter(|name| !name.is_empty());
        let name = named.unwrap_or(id);
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if !name.bytes().all(plain) || RESERVED.contains(&name) || [".", ".."].contains(&name) {
            let why = format!("{name:?} is not the name of a class");
            return Err(invalid("linux.intelRdt.closID", why));
        }
        let whole = asked.schemata().as_deref().unwrap_or_default();
        let parts = [
            ("l3CacheSchema", "L3", asked.l3_cache_schema()),
            ("memBwSchema", "MB", asked.mem_bw_schema()),
        ];
        let mut lines = Vec::new();
        for (field, kind, text) in parts {
            let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { continue };
            let field = format!("linux.intelRdt.{field}");
            if !whole.is_empty() {
                return Err(invalid(field, "it goes with linux.intelRdt.schemata never"));
            }
            for line in text.lines() {
                let of_kind =
                    line.split_once(':').is_some_and(|(prefix, _)| prefix.starts_with(kind));
                if !of_kind {
                    return Err(invalid(field, format!("{line:?} does not begin with {kind}")));
                }
                lines.push(line.to_owned());
            }
        }
        let compared = whole.is_empty();
        lines.extend(whole.iter().cloned());
        let directory = root.join(name);
        let flags = [asked.enable_monitoring(), asked.enable_cmt(), asked.enable_mbm()];
        let monitored = flags.contains(&&Some(true)).then(|| directory.join("mon_groups").join(id));
        Ok(Self { directory, own: named.is_none(), lines, compared, monitored })
    }

    /// What is made for the container alone, the inner first: to be removed with it.
    pub fn own_directories(&self) -> Vec<PathBuf> {
        let class = self.own.then(|| self.directory.clone());
        self.monitored.iter().cloned().chain(class).collect()
    }

    /// Says in the `schemata` of one that is there what is asked for now; all of it or nothing.
    pub fn change(&self) -> Result<Changed, Failure> {
        let path = self.schemata();
        let now = fs::read_to_string(&path)
            .map_err(|error| system(&format!("read {}", path.display()), errno_of(&error)))?;
        let kind = |line: &str| line.split_once(':').map(|(kind, _)| kind.trim().to_owned());
        let kinds: Vec<_> = self.lines.iter().map(|line| kind(line)).collect();
        let before = now.lines().filter(|line| kinds.contains(&kind(line)));
        let before = before.map(|line| line.trim().to_owned()).collect();
        let changed = Changed(Self { lines: before, ..self.clone() });
        if let Err(failure) = self.write() {
            changed.put_back()?;
            return Err(failure);
        }
        Ok(changed)
    }

    /// Makes it where it is not there, and says in its `schemata` what is asked for.
    pub fn make(&self) -> Result<(), Failure> {
        let there = self.directory.is_dir();
        if there && !self.own && self.compared && !self.lines.is_empty() {
            return self.compare();
        }
        if !there && !self.own && self.lines.is_empty() {
            let why = format!("there is no class {:?}, and nothing says what it is", self.name());
            return Err(from_spec(invalid("linux.intelRdt.closID", why)));
        }
        if !there {
            made(&self.directory, fs::create_dir(&self.directory))?;
        }
        self.write()
    }

    fn schemata(&self) -> PathBuf {
        self.directory.join("schemata")
    }

    /// The kernel takes a whole line at a time.
    fn write(&self) -> Result<(), Failure> {
        let path = self.schemata();
        for line in &self.lines {
            fs::write(&path, format!("{line}\n")).map_err(|error| {
                let path = path.display();
                system(&format!("write {line:?} to {path}"), errno_of(&error))
            })?;
        }
        Ok(())
    }

    /// The files that a process enters by, in order. The group in which it is measured is made.
    pub fn entries(&self) -> Result<Vec<OwnedFd>, Failure> {
        if let Some(group) = &self.monitored {
            made(group, fs::create_dir(group))?;
        }
        let directories = [Some(&self.directory), self.monitored.as_ref()];
        let paths = directories.into_iter().flatten().map(|directory| directory.join("tasks"));
        let open = |path: PathBuf| {
            let file = File::options().write(true).open(&path);
            file.map(OwnedFd::from)
                .map_err(|error| system(&format!("open {}", path.display()), errno_of(&error)))
        };
        paths.map(open).collect()
    }

    fn name(&self) -> &str {
        self.directory.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    fn compare(&self) -> Result<(), Failure> {
        let path = self.schemata();
        let now = fs::read_to_string(&path)
            .map_err(|error| system(&format!("read {}", path.display()), errno_of(&error)))?;
        let now: BTreeMap<_, _> = now.lines().filter_map(parts).collect();
        for line in &self.lines {
            let same = parts(line).is_some_and(|(kind, values)| now.get(&kind) == Some(&values));
            if !same {
                let why =
                    format!("class {:?} is there, and {line:?} is not what it has", self.name());
                return Err(from_spec(invalid("linux.intelRdt.closID", why)));
            }
        }
        Ok(())
    }
}

/// A line's kind, and its values by cache: masks and rates without what has no meaning in them.
fn parts(line: &str) -> Option<(String, BTreeMap<u32, String>)> {
    let (kind, values) = line.trim().split_once(':')?;
    let one = |text: &str| {
        let (cache, value) = text.split_once('=')?;
        let value = value.trim().trim_start_matches("0x").trim_start_matches('0');
        Some((cache.trim().parse().ok()?, value.to_ascii_lowercase()))
    };
    let values: Option<BTreeMap<_, _>> = values.split(';').map(one).collect();
    Some((kind.trim().to_owned(), values?))
}

/// A directory that is there already is as good as made.
fn made(path: &Path, result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(system(&format!("make {}", path.display()), errno_of(&error)))
        }
        _ => Ok(()),
    }
}

/// Removes directories that were made for a container; success when they are gone already.
pub fn remove(directories: &[PathBuf]) -> Result<(), Failure> {
    for directory in directories {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let path = directory.display();
                return Err(system(&format!("remove {path}"), errno_of(&error)));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(asked: Value, root: &Path) -> Result<Class, SpecError> {
        Class::of(&serde_json::from_value(asked).expect("it is one"), "box", root)
    }

    #[test]
    fn a_class_is_named_made_and_compared() {
        let root = std::env::temp_dir().join(format!("berth-resctrl-{}", std::process::id()));
        fs::create_dir(&root).expect("make a directory");
        let own = class(json!({ "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20" }), &root);
        let own = own.expect("a class");
        assert_eq!(own.lines, ["L3:0=f", "MB:0=20"]);
        assert_eq!(own.own_directories(), [root.join("box")]);
        own.make().expect("it is made");
        // The kernel's file answers with what was written before; this one keeps the last line.
        assert_eq!(fs::read_to_string(root.join("box/schemata")).expect("a file"), "MB:0=20\n");
        let shared = class(json!({ "closID": "gold", "enableMonitoring": true }), &root);
        let shared = shared.expect("a class");
        assert_eq!(shared.own_directories(), [root.join("gold/mon_groups/box")]);
        let said = shared.make().expect_err("it is not there").message;
        assert!(said.contains("there is no class \"gold\""), "{said}");
        fs::create_dir_all(root.join("gold/mon_groups")).expect("make a directory");
        fs::write(root.join("gold/schemata"), "    L3:0=00f;1=ff\n    MB:0=100\n").expect("write");
        shared.make().expect("it is there");
        let same = json!({ "closID": "gold", "l3CacheSchema": "L3:1=0xFF;0=f" });
        class(same, &root).expect("a class").make().expect("it is what it has");
        let other = json!({ "closID": "gold", "l3CacheSchema": "L3:0=f" });
        let said = class(other, &root).expect("a class").make().expect_err("another").message;
        assert!(said.contains("not what it has"), "{said}");
        fs::write(root.join("box/schemata"), "    L3:0=f\n    MB:0=20\n").expect("write");
        let more = class(json!({ "l3CacheSchema": "L3:0=ff" }), &root).expect("a class");
        let changed = more.change().expect("it is there");
        assert_eq!(fs::read_to_string(root.join("box/schemata")).expect("a file"), "L3:0=ff\n");
        changed.put_back().expect("it is there still");
        assert_eq!(fs::read_to_string(root.join("box/schemata")).expect("a file"), "L3:0=f\n");
        remove(&own.own_directories()).expect_err("a file is in it");
        fs::remove_dir_all(&root).expect("remove it");
        remove(&own.own_directories()).expect("it is gone");
    }

    #[test]
    fn what_is_no_class_is_refused() {
        let root = Path::new("/nowhere");
        for (asked, said) in [
            (json!({ "closID": "../x" }), "closID"),
            (json!({ "closID": ".." }), "closID"),
            (json!({ "closID": "info" }), "closID"),
            (json!({ "closID": "a b" }), "closID"),
            (json!({ "l3CacheSchema": "MB:0=1" }), "l3CacheSchema"),
            (json!({ "memBwSchema": "0=1" }), "memBwSchema"),
            (json!({ "memBwSchema": "MB:0=1", "schemata": ["MB:0=1"] }), "memBwSchema"),
        ] {
            let text = class(asked.clone(), root).expect_err("it is refused").to_string();
            assert!(text.contains(said), "{asked}: {text}");
        }
    }
}
