//! Faults: processes killed and system calls failing at every step, full disks, damaged files, power
//! cuts. What was acknowledged is still there afterwards, and what is there is what the kernel shows.
//!
//! `power`: the power fails under load (F04).
//! `strikes`: a process is killed at its k-th system call, or that call fails (F01, F08). `acts` is what is
//! struck, `injector` what strikes.

mod acts;
mod injector;
mod power;
mod strikes;
