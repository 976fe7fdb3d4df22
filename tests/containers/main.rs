//! Containers over the API, with the kernel's own files and processes as the judge.

mod allowances;
mod attach;
mod audit;
mod data;
mod execs;
mod files;
mod groups;
mod history;
mod idle;
mod lifecycle;
mod lifetimes;
mod limits;
mod looks;
mod names;
mod ports;
mod posture;
mod recovery;
mod shared_volumes;
mod sharing;
mod usage;
mod volumes;
