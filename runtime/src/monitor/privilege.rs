//! Giving up every privilege for good.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::files::FileError;

/// Becomes `uid`, without groups and capabilities, never to gain any, and closed to inspection by
/// others of that uid (ptrace(2), "PTRACE_MODE"): they are monitors of the same person.
pub(super) fn drop_all(uid: u32) -> Result<(), FileError> {
    let step = |name: &'static str| FileError::os(name, format!("uid {uid}"));
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setgroups(&[]).map_err(step("drop groups for"))?;
    setresgid(group, group, group).map_err(step("change group to"))?;
    // From uid 0 to another, the kernel clears all capability sets (capabilities(7)).
    setresuid(user, user, user).map_err(step("change user to"))?;
    prctl::set_no_new_privs().map_err(step("set no_new_privs as"))?;
    prctl::set_dumpable(false).map_err(step("become undumpable as"))?;
    // The proof that it has worked, at the price of one call.
    match setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)) {
        Err(Errno::EPERM) => Ok(()),
        Ok(()) | Err(_) => Err(step("verify the loss of privilege as")(Errno::EPERM)),
    }
}
