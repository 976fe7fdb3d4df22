//! Conformance to the OCI runtime specification, by the command line only: the same suite drives any
//! runtime. `RUNTIME=runc` (a name in `PATH`, or a path) names another than Berth's own.
//!
//! A module is a document of the specification, and a test's name says what a clause of it demands.
//! What the specification leaves open is `engines`: what engines written for runc rely on.

#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod case;
mod cgroups;
mod config;
mod devices;
mod engines;
mod faults;
mod hooks;
mod hooks_inside;
mod manual;
mod mounts;
mod namespaces;
mod network;
mod process;
mod runtime;
mod seccomp;
mod terminal;
mod unprivileged;
