//! Containers over the API, with the kernel's own files and processes as the judge.

mod allowances;
mod asks;
mod attach;
mod audit;
mod data;
mod data_sets;
mod execs;
mod files;
mod groups;
mod hand_over;
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
mod shared_images;
mod shared_volumes;
mod sharing;
mod space;
mod usage;
mod volumes;
