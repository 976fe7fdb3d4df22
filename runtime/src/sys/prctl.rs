//! Credentials and process attributes (prctl(2), capset(2), keyctl(2)) that nix does not have.

use nix::errno::Errno;

/// Drops a capability from the bounding set.
pub fn drop_bounding(capability: u8) -> nix::Result<()> {
    // SAFETY: prctl with these arguments touches no memory.
    let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0, 0, 0) };
    Errno::result(result).map(drop)
}

/// Whether the kernel knows this capability number.
pub fn knows_capability(capability: u8) -> bool {
    // SAFETY: prctl with these arguments touches no memory.
    unsafe { libc::prctl(libc::PR_CAPBSET_READ, u64::from(capability), 0, 0, 0) >= 0 }
}

/// Empties the ambient set.
pub fn clear_ambient() -> nix::Result<()> {
    let operation = libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned() as u64;
    // SAFETY: prctl with these arguments touches no memory.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, operation, 0u64, 0u64, 0u64) };
    Errno::result(result).map(drop)
}

/// Adds a capability to the ambient set.
pub fn raise_ambient(capability: u8) -> nix::Result<()> {
    let operation = libc::PR_CAP_AMBIENT_RAISE.cast_unsigned() as u64;
    // SAFETY: prctl with these arguments touches no memory.
    let result =
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, operation, u64::from(capability), 0u64, 0u64) };
    Errno::result(result).map(drop)
}

/// Keeps the permitted set over the next change from user 0.
pub fn keep_capabilities() -> nix::Result<()> {
    // SAFETY: prctl with these arguments touches no memory.
    let result = unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1u64, 0u64, 0u64, 0u64) };
    Errno::result(result).map(drop)
}

/// Makes the process's `/proc` entries root's and forbids attaching to it, until execve.
pub fn not_dumpable() -> nix::Result<()> {
    // SAFETY: prctl with these arguments touches no memory.
    let result = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0u64, 0u64, 0u64, 0u64) };
    Errno::result(result).map(drop)
}

/// Sets no_new_privs, for ever.
pub fn no_new_privileges() -> nix::Result<()> {
    // SAFETY: prctl with these arguments touches no memory.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1u64, 0u64, 0u64, 0u64) };
    Errno::result(result).map(drop)
}

/// Effective, permitted and inheritable sets, bit n for capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// May be put in force.
    pub permitted: u64,
    /// Kept over execve of files that name them.
    pub inheritable: u64,
}

/// linux/capability.h: version 3, two structs of three words.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// The calling thread, in the structs of version 3.
const OWN: Header = Header { version: 0x2008_0522, pid: 0 };

/// capget(2) of the calling thread.
pub fn capabilities() -> nix::Result<Capabilities> {
    let mut header = OWN;
    let mut data = [[0_u32; 3]; 2];
    // SAFETY: header and data have the layout of version 3 and outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_capget, std::ptr::from_mut(&mut header), data.as_mut_ptr())
    };
    Errno::result(result)?;
    let whole = |set: usize| u64::from(data[0][set]) | u64::from(data[1][set]) << 32;
    Ok(Capabilities { effective: whole(0), permitted: whole(1), inheritable: whole(2) })
}

/// capset(2) on the calling thread.
pub fn set_capabilities(sets: Capabilities) -> nix::Result<()> {
    let mut header = OWN;
    let halves = |set: u64| [(set & 0xffff_ffff) as u32, (set >> 32) as u32];
    let (effective, permitted) = (halves(sets.effective), halves(sets.permitted));
    let inheritable = halves(sets.inheritable);
    let data = [0, 1].map(|half: usize| [effective[half], permitted[half], inheritable[half]]);
    // SAFETY: header and data have the layout of version 3 and outlive the call.
    let result =
        unsafe { libc::syscall(libc::SYS_capset, std::ptr::from_mut(&mut header), data.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Joins a new, empty, unnamed session keyring. `ENOSYS` on kernels without keyrings.
pub fn new_session_keyring() -> nix::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: u32 = 1;
    let name = std::ptr::null::<u8>();
    // SAFETY: a null name asks for an unnamed keyring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) };
    Errno::result(result).map(drop)
}
