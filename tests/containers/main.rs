//! Containers over the API, with the kernel's own files and processes as the judge.

mod allowances;
mod attach;
mod audit;
mod data;
mod data_sets;
mod execs;
mod files;
mod groups;
mod hand_over;
mod history;
mod lifecycle;
mod limits;
mod looks;
mod names;
mod ports;
mod posture;
mod recovery;
mod shared_images;
mod shared_volumes;
mod sharing;
mod usage;
mod volumes;
