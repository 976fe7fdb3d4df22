//! landlock(7): which version of it the kernel has.

use nix::errno::Errno;

/// LANDLOCK_CREATE_RULESET_VERSION of linux/landlock.h.
const VERSION: u32 = 1;

/// The ABI version, from 1.
///
/// # Errors
/// `EOPNOTSUPP` when it was switched off at boot, `ENOSYS` when the kernel does not have it.
pub fn abi() -> nix::Result<i64> {
    let null = std::ptr::null::<u8>();
    // SAFETY: with this flag the call takes a null pointer and the size 0, and only answers.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, null, 0, VERSION) };
    Errno::result(answer)
}
