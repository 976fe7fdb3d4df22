//! The confined child of a task: started, mapped, heard.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2, read, write};

use berth_runtime::config::RANGE_IDS;
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::Answer;
use berth_runtime::{receive_message, send_message};

use super::act::{self, Archive, Done};
use super::confine::{broken, confine};
use super::uploads::Upload;
use super::{Act, Order, refused};
use crate::confined::{become_root, namespaces};
use crate::namespace::{IdMap, write_id_maps};
use crate::rootfs::build::mount_overlay;
use crate::sys::clone3::{CloneFlags, Forked, clone3};
use crate::sys::fd::close_all_but;
use crate::sys::process::{exit_now, pidfd_send_signal};
use crate::sys::socket;

/// What the child is given.
pub(super) struct Place {
    /// The ground; or …
    pub(super) directory: Option<OwnedFd>,
    /// … how to mount it in the working directory.
    pub(super) options: Option<CString>,
    /// What is to be put there.
    pub(super) upload: Option<Upload>,
}

/// Has a child do it. Of an archive the answer comes when it begins, and the child goes on.
pub(super) fn run(order: &Order, place: Place) -> Result<(Answer, Vec<OwnedFd>), Failure> {
    let (ours, theirs) = socket::pair().map_err(refused("make a channel"))?;
    let (mapped, release) = pipe2(OFlag::O_CLOEXEC).map_err(refused("make a pipe"))?;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(|error| {
        Failure::new(FailureClass::Broken, "files.ground", format!("open /dev/null: {error}"))
    })?;
    let flags = namespaces();
    let flags = CloneFlags { namespaces: flags, ..CloneFlags::default() };
    let (child, pidfd) = match clone3(&flags).map_err(refused("make the namespaces"))? {
        Forked::Child => {
            // Else it would hold open what tells it that this process is gone.
            drop((ours, release));
            let ends = Ends { channel: theirs, mapped, null: null.into() };
            exit_now(main(&ends, order, &place));
        }
        Forked::Parent { child, pidfd } => (child, pidfd),
    };
    drop((theirs, mapped, place));
    let answered = map(order, child, &release).and_then(|()| hear(&ours));
    let goes_on = matches!((&order.act, &answered), (Act::Archive, Ok((Answer::Done {}, _))));
    if !goes_on {
        // It ends of its own accord, unless something went wrong on this side.
        if answered.is_err() {
            match pidfd_send_signal(&pidfd, libc::SIGKILL) {
                Ok(()) | Err(_) => {}
            }
        }
        while let Err(Errno::EINTR) = waitpid(child, None) {}
    }
    answered
}

fn map(order: &Order, child: Pid, release: &OwnedFd) -> Result<(), Failure> {
    let map = [IdMap { inside: 0, outside: order.person.first_id, count: RANGE_IDS }];
    write_id_maps(child, &map, &map).map_err(|error| {
        Failure::new(FailureClass::Broken, "files.ground", format!("map the ids: {error}"))
    })?;
    write(release, &[1]).map(drop).map_err(refused("release the child"))
}

fn hear(channel: &OwnedFd) -> Result<(Answer, Vec<OwnedFd>), Failure> {
    // A channel of the supervisor's own kind may not block; here there is nothing else to do.
    let mut polled = [nix::poll::PollFd::new(channel.as_fd(), nix::poll::PollFlags::POLLIN)];
    let heard = loop {
        match receive_message(channel) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => break other,
        }
        match nix::poll::poll(&mut polled, nix::poll::PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => break Err(errno),
        }
    };
    let (bytes, fds) = heard.map_err(refused("hear the child"))?;
    match serde_json::from_slice(&bytes) {
        Ok(Answer::Failed(failure)) => Err(failure),
        Ok(answer) => Ok((answer, fds)),
        Err(_) => {
            let message =
                "whoever looks at the files has ended: it ran into a limit, or has a defect";
            Err(Failure::new(FailureClass::Broken, "files.ground", message))
        }
    }
}

/// The child's own ends.
struct Ends {
    channel: OwnedFd,
    mapped: OwnedFd,
    null: OwnedFd,
}

fn main(ends: &Ends, order: &Order, place: &Place) -> i32 {
    let done = begin(ends, place).and_then(|ground| {
        let uploads = place.upload.as_ref().map(|upload| upload.directory.as_fd());
        confine(ground.as_fd(), uploads)?;
        act::perform(ground.as_fd(), order, place.upload.as_ref())
    });
    let Done { answer, fds, archive } =
        done.unwrap_or_else(|failure| Answer::Failed(failure).into());
    let said = say(&ends.channel, &answer, fds);
    match (said, archive.map(Archive::write)) {
        (Ok(()), None | Some(Ok(()))) => 0,
        _ => 1,
    }
}

/// The descriptors are the reader's alone from then on.
fn say(channel: &OwnedFd, answer: &Answer, fds: Vec<OwnedFd>) -> nix::Result<()> {
    let bytes = serde_json::to_vec(answer).map_err(|_| Errno::EINVAL)?;
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    send_message(channel, &bytes, &borrowed)
}

/// Waits for the id maps, lets go of everything that is not needed, and finds the ground.
fn begin(ends: &Ends, place: &Place) -> Result<OwnedFd, Failure> {
    let failed = || refused("set the child up");
    let mut byte = [0];
    if read(&ends.mapped, &mut byte).map_err(failed())? != 1 {
        return Err(refused("set the child up")(Errno::ECANCELED));
    }
    dup2_stdin(&ends.null).map_err(failed())?;
    dup2_stdout(&ends.null).map_err(failed())?;
    dup2_stderr(&ends.null).map_err(failed())?;
    let mut kept = vec![ends.channel.as_fd()];
    kept.extend(place.directory.iter().map(AsFd::as_fd));
    if let Some(upload) = &place.upload {
        kept.extend([upload.directory.as_fd(), upload.file.as_fd()]);
    }
    kept.sort_by_key(|fd| fd.as_raw_fd());
    close_all_but(3, &kept).map_err(failed())?;
    become_root().map_err(broken)?;
    match (&place.directory, &place.options) {
        (Some(directory), _) => directory.try_clone().map_err(|_| failed()(Errno::EMFILE)),
        (None, Some(options)) => mount_overlay(options).map_err(refused("mount the layers")),
        (None, None) => Err(failed()(Errno::ENOENT)),
    }
}
