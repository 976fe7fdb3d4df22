//! Kernel calls that nix does not have: the only unsafe code of the runtime. One wrapper per call,
//! one unsafe call per block; no policy.

pub mod bpf;
pub mod clone;
pub mod clone3;
pub mod directory;
pub mod exec;
pub mod fd;
pub mod landlock;
pub mod layer;
pub(crate) mod lock;
pub(crate) mod loop_device;
pub mod memfd;
pub mod mount_api;
pub mod namespace;
pub(crate) mod pidfd;
pub mod prctl;
pub mod process;
pub mod sched;
pub mod seccomp;
pub(crate) mod socket;
pub(crate) mod spawn;
pub mod terminal;
pub(crate) mod xattr;
