//! The options of a mount (config.md, "Linux mount options"), sorted by who takes them. One that is not
//! known is an error that names it.

use std::ffi::CString;

use crate::rootfs::mounts::c_string;
use crate::spec::{SpecError, unsupported};
use crate::sys::mount_api::attributes;

/// Bits of [`attributes`] that are set and cleared recursively.
#[derive(Debug, Default, Clone, Copy)]
pub struct Deep {
    pub set: u64,
    pub cleared: u64,
}

/// Mount options, sorted by who takes them.
#[derive(Debug, Default)]
pub struct Options {
    /// Something that is there, once more.
    pub bind: bool,
    /// With what is mounted below.
    pub recursive: bool,
    /// A change of the mount that is at the place already.
    pub remount: bool,
    /// Begins with what is at the place.
    pub copy_up: bool,
    /// Owners are shown by a map of ids.
    pub id_map: Option<IdMapped>,
    /// Bits of [`attributes`] to set.
    pub attributes: u64,
    /// Bits of [`attributes`] to clear.
    pub cleared: u64,
    /// Of a bind mount and of every mount below it.
    pub deep: Deep,
    /// Changes of propagation, in order; none is private.
    pub propagation: Vec<Propagation>,
    /// What is the file system's.
    pub data: Vec<(String, Option<String>)>,
    keys: Keys,
}

/// Which keys of a file system are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keys {
    /// Those of the file systems that containers have by default.
    #[default]
    Known,
    /// Whatever the kernel takes: of a file system that nothing is known of here.
    Any,
}

/// Which mounts have their ids mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdMapped {
    /// The one alone (`idmap`).
    Alone,
    /// Those below as well (`ridmap`).
    WithBelow,
}

/// A change of what is passed on to other mounts (mount_namespaces(7), "Shared subtrees").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Propagation {
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`.
    pub kind: u64,
    /// Of every mount below as well.
    pub recursive: bool,
}

impl Propagation {
    /// By the words of the specification, for mounts and for `linux.rootfsPropagation`.
    pub fn parse(text: &str) -> Option<Self> {
        let one = |kind, recursive| Some(Self { kind, recursive });
        match text {
            "shared" => one(libc::MS_SHARED, false),
            "rshared" => one(libc::MS_SHARED, true),
            "slave" => one(libc::MS_SLAVE, false),
            "rslave" => one(libc::MS_SLAVE, true),
            "private" => one(libc::MS_PRIVATE, false),
            "rprivate" => one(libc::MS_PRIVATE, true),
            "unbindable" => one(libc::MS_UNBINDABLE, false),
            "runbindable" => one(libc::MS_UNBINDABLE, true),
            _ => None,
        }
    }
}

impl Options {
    /// Sorts `texts`; `field` names the mount in errors.
    pub fn parse(texts: &[String], keys: Keys, field: &str) -> Result<Self, SpecError> {
        let mut options = Self { keys, ..Self::default() };
        for text in texts {
            options.add(text, field)?;
        }
        Ok(options)
    }

    fn add(&mut self, text: &str, field: &str) -> Result<(), SpecError> {
        match text {
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "ro" => self.set(attributes::RDONLY),
            "rw" => self.clear(attributes::RDONLY),
            "nosuid" => self.set(attributes::NOSUID),
            "suid" => self.clear(attributes::NOSUID),
            "nodev" => self.set(attributes::NODEV),
            "dev" => self.clear(attributes::NODEV),
            "noexec" => self.set(attributes::NOEXEC),
            "exec" => self.clear(attributes::NOEXEC),
            "nodiratime" => self.set(attributes::NODIRATIME),
            "diratime" => self.clear(attributes::NODIRATIME),
            "nosymfollow" => self.set(attributes::NOSYMFOLLOW),
            "symfollow" => self.clear(attributes::NOSYMFOLLOW),
            "noatime" => self.access_times(attributes::NOATIME),
            "strictatime" => self.access_times(attributes::STRICTATIME),
            "relatime" | "atime" => self.access_times(0),
            "nostrictatime" if self.attributes & attributes::ATIME == attributes::STRICTATIME => {
                self.access_times(0);
            }
            // What holds without them, or of what the kernel logs alone.
            "defaults" | "nostrictatime" | "norelatime" | "silent" | "loud" => {}
            _ if SYSTEM_FLAGS.contains(&text) => self.data.push((text.to_owned(), None)),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.id_map = Some(IdMapped::Alone),
            "ridmap" => self.id_map = Some(IdMapped::WithBelow),
            _ if RECURSIVE.contains(&text) => self.add_deep(&text[1..], field)?,
            _ => match Propagation::parse(text) {
                Some(change) => self.propagation.push(change),
                None => self.add_data(text, field)?,
            },
        }
        Ok(())
    }

    /// What is not a mount's is the file system's; what is neither is refused by name.
    fn add_data(&mut self, text: &str, field: &str) -> Result<(), SpecError> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (text, None),
        };
        let known = FILE_SYSTEM_KEYS.contains(&key) || self.keys == Keys::Any && key != "iversion";
        if !known || text.contains(['\0', ',']) {
            return Err(unsupported(format!("{field}.options"), text));
        }
        self.data.push((key.to_owned(), value.map(str::to_owned)));
        Ok(())
    }

    /// mount_setattr(2) with `AT_RECURSIVE`; for the mount itself as without the `r`.
    fn add_deep(&mut self, text: &str, field: &str) -> Result<(), SpecError> {
        let mut one = Self { keys: self.keys, ..Self::default() };
        one.add(text, field)?;
        let Deep { set, cleared } = self.deep;
        self.deep.set = set & !one.cleared | one.attributes;
        self.deep.cleared = cleared & !one.attributes | one.cleared;
        self.add(text, field)
    }

    fn set(&mut self, bits: u64) {
        self.attributes |= bits;
        self.cleared &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.attributes &= !bits;
        self.cleared |= bits;
    }

    fn access_times(&mut self, choice: u64) {
        self.cleared |= attributes::ATIME;
        self.attributes = self.attributes & !attributes::ATIME | choice;
    }

    /// What the file system is configured with.
    pub fn parameters(&self) -> Vec<(CString, Option<CString>)> {
        self.data
            .iter()
            .map(|(key, value)| (c_string(key), value.as_deref().map(c_string)))
            .collect()
    }
}

/// Options that hold for what is mounted below as well (config.md, "Linux mount options").
const RECURSIVE: [&str; 18] = [
    "ratime",
    "rdev",
    "rdiratime",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "rrelatime",
    "rro",
    "rrw",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
];

/// Flags of a whole file system (fsconfig(2) takes them of each).
const SYSTEM_FLAGS: [&str; 7] =
    ["sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"];

/// Those of them that ask for nothing of a bind mount.
pub const NO_FLAGS: [&str; 3] = ["async", "nolazytime", "nomand"];

/// Parameters of tmpfs, devpts, proc.
const FILE_SYSTEM_KEYS: [&str; 12] = [
    "size",
    "mode",
    "uid",
    "gid",
    "nr_inodes",
    "nr_blocks",
    "huge",
    "noswap",
    "newinstance",
    "ptmxmode",
    "hidepid",
    "subset",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &[&str]) -> Result<Options, SpecError> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Options::parse(&texts, Keys::Known, "m")
    }

    #[test]
    fn options_are_sorted_and_unknown_ones_named() {
        let options = parse(&["nosuid", "ro", "mode=755", "rw", "noatime"]).expect("known options");
        assert_eq!(options.attributes, attributes::NOSUID | attributes::NOATIME);
        assert_eq!(options.data, [("mode".to_owned(), Some("755".to_owned()))]);
        for unknown in ["iversion", "lowerdir=/", "rshare", "rnosuch", "size=1,uid=0"] {
            let error = parse(&[unknown]).expect_err(unknown);
            assert!(error.to_string().contains(unknown), "{error}");
        }
    }
}
