//! Faults: processes killed and system calls failing at every step, full disks, damaged files, power
//! cuts. What was acknowledged is still there afterwards, and what is there is what the kernel shows.
