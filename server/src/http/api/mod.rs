//! The JSON API, one file per resource. `http/mod.rs` says how to add one.

pub mod allowances;
pub mod asks;
pub mod audit;
pub mod containers;
pub mod events;
pub mod execs;
pub mod factor;
pub mod files;
pub mod gc;
pub mod groups;
pub mod images;
pub mod keys;
pub mod layers;
pub mod maintenance;
pub mod offboarding;
pub mod operations;
pub mod people;
pub mod ports;
pub mod problems;
pub mod registries;
pub mod sessions;
pub mod setup;
pub mod system;
pub mod tokens;
pub mod usage;
pub mod volumes;
