//! Faults: processes killed and system calls failing at every step, full disks, damaged files, power
//! cuts. What was acknowledged is still there afterwards, and what is there is what the kernel shows.
//!
//! `power`: the power fails under load (F04).
//! `strikes`: a process is killed at its k-th system call, or that call fails (F01, F08). `acts` is what is
//! struck.
//! `disks`: full (F05). `locked`: the inventory's lock is another's (F06). `database`: it is damaged (F07),
//! as `damage` does it.
//! `reset`: the machine has begun anew (F03). `memory`: it is short (F09). `trees`: of processes (F10).
//! `descriptors`: none is left (F11). `flood`: of output (F13).
//! `class`: a whole course, from its people to a restored inventory. `contention`: many at once (F14). `upgrade`: stops and versions, `backup`: backups and restores (F16).
//! `soak`: thousands of lives (F15); `crowd`: of twenty people at once; `footprint` counts what they leave.

mod acts;
mod backup;
mod class;
mod contention;
mod crowd;
mod damage;
mod database;
mod descriptors;
mod disks;
mod flood;
mod footprint;
mod locked;
mod memory;
mod power;
mod reset;
mod soak;
mod strikes;
mod trees;
mod upgrade;
