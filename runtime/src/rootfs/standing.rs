//! Standing in a root directory while a child is cloned: the child finds it as its working directory in its
//! own mount namespace, also where its user could not walk there.

use std::os::fd::OwnedFd;

use berth_runtime::record::Failure;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, fchdir};

use crate::failure::system;
use crate::launch::RootSource;

/// The working directory that is gone back to at the end.
#[derive(Debug)]
pub struct Standing(OwnedFd);

impl Standing {
    /// Enters a root that is a directory.
    pub fn in_root(root: &RootSource) -> Result<Option<Self>, Failure> {
        let RootSource::Directory(path) = root else { return Ok(None) };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let back = open(c".", flags, Mode::empty())
            .map_err(|errno| system("open the working directory", errno))?;
        chdir(path)
            .map_err(|errno| system(&format!("enter the root {}", path.display()), errno))?;
        Ok(Some(Self(back)))
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        // A caller that cannot go back would do its further work in the wrong place.
        if fchdir(&self.0).is_err() {
            std::process::abort();
        }
    }
}
