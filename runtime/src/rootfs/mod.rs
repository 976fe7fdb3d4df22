//! A container's root file system: planned in the parent ([`mounts`], [`target`], [`devices`]), built
//! in the child ([`build`]).
//!
//! Invariants: a path inside the root is walked by openat2 with the root as its root and without
//! magic links, and things are mounted on descriptors, never on path strings. At or below `/proc`,
//! `/sys` and `/dev` no symbolic link is followed at all: what an image puts there cannot send a
//! mount elsewhere (CVE-2019-19921, CVE-2025-31133, CVE-2025-52565).

pub mod build;
pub mod cgroups;
pub mod copy_up;
pub mod devices;
pub mod mounts;
pub mod nodes;
pub mod options;
pub mod staging;
pub mod standing;
pub mod sysctls;
pub mod target;
