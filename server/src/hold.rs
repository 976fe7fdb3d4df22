//! Who has the inventory's directory: the server as long as it runs, or a restore while it works. A lock of
//! the kernel's on the directory itself (flock(2)), so that nothing of it is left when its holder ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// The directory is ours until this is dropped.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// Why it is not ours.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// It is somebody else's.
    #[error("{0} is in use by a running server, or by a restore")]
    Held(PathBuf),
    /// It cannot be locked at all.
    #[error("lock {path}")]
    Lock {
        /// The directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Takes the directory, waiting for `patience` at most.
///
/// # Errors
/// When somebody else has it for longer, or it is not there.
pub fn take(path: &Path, patience: Duration) -> Result<Hold, HoldError> {
    let failed = |source| HoldError::Lock { path: path.to_owned(), source };
    let deadline = Instant::now() + patience;
    loop {
        let directory = File::open(path).map_err(failed)?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            // Another may have been put in its place while we waited for this one.
            Ok(lock) if is_at(&lock, path).map_err(failed)? => return Ok(Hold(lock)),
            Ok(_) => {}
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() >= deadline => {
                return Err(HoldError::Held(path.to_owned()));
            }
            Err((_, Errno::EWOULDBLOCK)) => std::thread::sleep(PAUSE),
            Err((_, errno)) => return Err(failed(errno.into())),
        }
    }
}

fn is_at(directory: &File, path: &Path) -> io::Result<bool> {
    let (held, there) = (directory.metadata()?, std::fs::metadata(path)?);
    Ok((held.dev(), held.ino()) == (there.dev(), there.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_it_and_the_one_that_is_there_now() {
        let place = std::env::temp_dir().join(format!("berth-hold-{}", std::process::id()));
        std::fs::create_dir_all(&place).expect("made");
        let first = take(&place, Duration::ZERO).expect("nobody has it");
        assert!(matches!(take(&place, Duration::ZERO), Err(HoldError::Held(_))));
        let moved = place.with_extension("moved");
        std::fs::rename(&place, &moved).expect("moved");
        std::fs::create_dir(&place).expect("another");
        let second = take(&place, Duration::ZERO).expect("nobody has the other");
        drop((first, second));
        take(&moved, Duration::ZERO).expect("free again");
        for path in [place, moved] {
            std::fs::remove_dir(path).expect("removed");
        }
    }
}
