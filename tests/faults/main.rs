//! Faults: processes killed and system calls failing at every step, full disks, damaged files, power
//! cuts. What was acknowledged is still there afterwards, and what is there is what the kernel shows.
//!
//! `kills`: a process dies at its k-th system call (F01). `acts` is what is struck, `injector` what strikes.

mod acts;
mod injector;
mod kills;
