//! Acting as the owner of a user namespace.
//!
//! A container's user namespace belongs to the container's own root as the host numbers it, not to the
//! host's root. The kernel counts what is in a user namespace (inotify instances, queued signals,
//! message queues, locked memory, processes) to the namespace's owner as well, within the owner's limits
//! in the parent: with one owner of all, one person's containers could take everybody's share and the
//! host's. No process in a container gains by it: its user is in the namespace, not in the parent
//! (user_namespaces(7), "Capabilities").

use nix::unistd::Uid;

use crate::sys::prctl::{Capabilities, capabilities, set_capabilities};
use crate::sys::process::set_effective_user;

/// As long as it lives, the calling thread's effective user is another, with the caller's capabilities.
/// Real and saved user stay root, and so do other threads.
#[derive(Debug)]
pub struct Acting(());

impl Acting {
    /// Begins. The change of user puts the capabilities out of force (capabilities(7)); some hosts let
    /// only `CAP_SYS_ADMIN` make user namespaces, so they are put in force again.
    pub fn as_user(user: Uid) -> nix::Result<Self> {
        set_effective_user(user)?;
        let acting = Self(());
        let sets = capabilities()?;
        set_capabilities(Capabilities { effective: sets.permitted, ..sets })?;
        Ok(acting)
    }

    /// For a child that was cloned meanwhile: it becomes its own namespace's root by itself.
    pub fn stay(self) {
        std::mem::forget(self);
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        // A caller that could not go back would do its further work as somebody else.
        if set_effective_user(Uid::from_raw(0)).is_err() {
            std::process::abort();
        }
    }
}
