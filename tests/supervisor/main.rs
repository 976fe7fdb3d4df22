//! The supervisor and its monitors from outside: kills and crash loops (F02, F03), what its socket
//! refuses, logs, memory, ends, host shutdown;
//! first programs that people are with, later programs of running containers; and what images that attack the start achieve (R rows).

mod attacks;
mod binary;
mod consoles;
mod crash;
mod data;
mod data_sets;
mod ends;
mod entry;
mod execs;
mod fields;
mod files;
mod hand_over;
mod hostile;
mod kernel;
mod layers;
mod mounts;
mod output;
mod paths;
mod posture;
mod reach;
mod shared;
mod shared_volumes;
mod users;
mod volumes;
