//! The runtime by its OCI command line, on busybox bundles, as root: life cycle, the default profile,
//! and attacks on it, each with a control that shows the attack working where the guard is absent.
//!
//! Every container has a cgroup and a state directory of its own test's, removed at the end.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod bundle;
mod lifecycle;
mod masks;
mod paths;
mod powers;
mod prober;
mod process;
mod races;
mod readable;
mod sysctls;
mod users;
