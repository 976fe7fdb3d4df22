//! How glibc's allocator gives memory back (mallopt(3)). Other C libraries are left as they are.

/// Allocations from this size on are mapped on their own, and are the kernel's again when freed.
const MAPPED_FROM_BYTES: libc::c_int = 1 << 20;
/// Arenas of the heap; each keeps what its threads have freed.
const ARENAS_MAX: libc::c_int = 2;

/// Has large allocations given back when they are freed. Left alone, glibc raises its threshold to the
/// size of whatever was freed last: one password derivation of 19 MiB, and each thread that makes
/// another keeps those 19 MiB. To be called before there is a second thread.
pub fn give_back_freed_memory() {
    for (parameter, value) in parameters() {
        // SAFETY: mallopt takes two integers and keeps neither; no other thread is there to allocate.
        let taken = unsafe { mallopt(parameter, value) };
        debug_assert_eq!(taken, 1, "mallopt({parameter}, {value})");
    }
}

/// Gives the kernel every whole page of the heap that holds nothing (malloc_trim(3)). Left alone, a
/// page in the middle of the heap stays, though all of a burst of work is over.
pub fn give_back_unused_memory() {
    // SAFETY: malloc_trim takes an integer, and locks each arena while it looks through it.
    unsafe { malloc_trim(0) };
}

#[cfg(target_env = "gnu")]
use libc::{malloc_trim, mallopt};

#[cfg(target_env = "gnu")]
fn parameters() -> [(libc::c_int, libc::c_int); 2] {
    // Setting the threshold also ends its adaption.
    [(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES), (libc::M_ARENA_MAX, ARENAS_MAX)]
}

#[cfg(not(target_env = "gnu"))]
unsafe fn mallopt(_: libc::c_int, _: libc::c_int) -> libc::c_int {
    1
}

#[cfg(not(target_env = "gnu"))]
unsafe fn malloc_trim(_: usize) -> libc::c_int {
    0
}

#[cfg(not(target_env = "gnu"))]
fn parameters() -> [(libc::c_int, libc::c_int); 0] {
    []
}
