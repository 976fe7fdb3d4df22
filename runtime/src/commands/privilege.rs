//! Who may run containers: root, with the power over namespaces and mounts. Whoever has not is told so before
//! anything is made, instead of by the first call that the kernel refuses.

use berth_runtime::record::{Failure, FailureClass};
use nix::unistd::Uid;

use crate::failure::system;
use crate::sys::prctl;

/// capabilities(7).
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// Refuses a command to ordinary users.
///
/// # Errors
/// A failure that names the command and says what to do.
pub fn need_root(command: &str) -> Result<(), Failure> {
    let user = Uid::effective();
    if user.is_root() {
        return Ok(());
    }
    Err(refused(format!(
        "{command} needs root, and this is user {user}: run it as root, as by \
         `sudo berth-runtime {command}`. Containers of ordinary users are not here yet; without root \
         there are spec, features, --help and --version"
    )))
}

/// The same, and for root itself without its power: in a container, or a user namespace, of others.
///
/// # Errors
/// See [`need_root`].
pub fn need_power(command: &str) -> Result<(), Failure> {
    need_root(command)?;
    let held = prctl::capabilities().map_err(|errno| system("read the own capabilities", errno))?;
    if held.effective & CAP_SYS_ADMIN != 0 {
        return Ok(());
    }
    Err(refused(format!(
        "{command} needs CAP_SYS_ADMIN, which this root has not: run it on the host itself, or in a \
         container that was given this capability"
    )))
}

fn refused(text: String) -> Failure {
    Failure::new(FailureClass::Invalid, "usage", text)
}
