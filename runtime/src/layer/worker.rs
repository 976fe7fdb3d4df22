//! The worker process: one task, one answer on standard output.
//!
//! It is root and therefore parses nothing that came from the network: it hashes the bytes, hands
//! them to the confined child, and decides by comparing digests.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use berth_runtime::digest::Digest;
use berth_runtime::record::Failure;
use berth_runtime::wire::{Answer, Compression, LayerFacts, LayerVerified};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, fchdir, pipe2, read, write};
use sha2::{Digest as _, Sha256};

use super::compare::{Found, compare};
use super::confine::{confine, explain_clone};
use super::extract::{Caps, Extracted, extract};
use super::fault::{broken, cancelled, invalid, missing, no_room, os};
use super::source::{Meter, Source, Times, inflate};
use super::store::{Staging, Store, StoredFacts};
use super::tree::errno_of;
use super::{ANSWER_BYTES_MAX, Job, Place, Task};
use crate::confined::namespaces;
use crate::sys::clone3::{CloneFlags, Forked, clone3};
use crate::sys::process::exit_now;
use crate::sys::sched::{SchedulerAttributes, set_io_priority, set_scheduler};
use crate::timing;

/// Bytes moved at a time, and asked for as the pipes' capacity.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of headers and padding that an entry may need beside its content.
const ENTRY_OVERHEAD_BYTES: u64 = 2_048;

/// Room that is left on the disk when a layer is unpacked a second time.
const VERIFY_SPARE_BYTES: u64 = 256 << 20;
/// sched(7): no program that waits for somebody.
const SCHED_BATCH: u32 = 3;
/// The least that is still something, so that a busy machine comes to the end of it, too.
const NICE: i32 = 19;
/// ioprio_set(2): best effort, level 7.
const IO_LAST: u32 = (2 << 13) | 7;

/// The command line's `layer <job>`.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let job = arguments.first().and_then(|text| text.to_str());
    let Some(Ok(job)) = job.map(serde_json::from_str::<Job>) else { return ExitCode::from(2) };
    let answer = run(&job).unwrap_or_else(Answer::Failed);
    // Nobody may listen any more; what was begun is finished all the same.
    drop(say(&answer));
    match after(&job, &answer) {
        Ok(()) => ExitCode::SUCCESS,
        // The supervisor sweeps then.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run(job: &Job) -> Result<Answer, Failure> {
    let store = Store::open(&job.place.data_dir)?;
    match &job.task {
        Task::Unpack { blob, diff_id, compression, bytes_max } => {
            let wanted = Wanted { blob, diff_id, compression: *compression };
            let mut place = job.place.clone();
            place.given = *bytes_max < place.bytes_max;
            place.bytes_max = place.bytes_max.min(*bytes_max);
            unpack(&store, &place, &wanted).map(Answer::LayerUnpacked)
        }
        Task::Verify { blob, diff_id, compression } => {
            let wanted = Wanted { blob, diff_id, compression: *compression };
            verify(&store, &job.place, &wanted).map(Answer::LayerVerified)
        }
        Task::Remove { blob } => store.unname(blob).map(|_| Answer::Done {}),
        Task::Sweep => store.sweep().map(|()| Answer::Done {}),
    }
}

/// Says the answer and closes standard output, so that the reader sees its end.
fn say(answer: &Answer) -> io::Result<()> {
    let bytes = serde_json::to_vec(answer)?;
    let mut out = io::stdout();
    out.write_all(&bytes)?;
    out.flush()?;
    let null = File::options().write(true).open("/dev/null")?;
    dup2_stdout(&null)?;
    Ok(())
}

/// What takes long and nobody waits for.
fn after(job: &Job, answer: &Answer) -> Result<(), Failure> {
    match (&job.task, answer) {
        (Task::Remove { blob }, Answer::Done {}) => {
            Store::open(&job.place.data_dir)?.remove_unnamed(blob)
        }
        _ => Ok(()),
    }
}

struct Wanted<'a> {
    blob: &'a Digest,
    diff_id: &'a Digest,
    compression: Compression,
}

fn unpack(store: &Store, place: &Place, wanted: &Wanted<'_>) -> Result<LayerFacts, Failure> {
    if let Some(stored) = store.find(wanted.blob)? {
        return facts_of(wanted, &stored);
    }
    timing::begin(place.timing, "layer", &wanted.blob.hex()[..12]);
    let staging = store.stage(wanted.blob, place.first_id)?;
    match fill(&staging, place, wanted) {
        Ok(found) => {
            let facts = StoredFacts {
                diff_id: found.diff_id,
                entries: found.entries,
                bytes: found.bytes,
                devices_skipped: found.devices_skipped,
            };
            if let Err(failure) = store.name(&staging, wanted.blob, &facts) {
                store.discard(&staging)?;
                return Err(failure);
            }
            timing::done("sync and name");
            facts_of(wanted, &facts)
        }
        Err(failure) => {
            store.discard(&staging)?;
            Err(failure)
        }
    }
}

/// Unpacks the layer once more and compares; what was unpacked goes again.
fn verify(store: &Store, place: &Place, wanted: &Wanted<'_>) -> Result<LayerVerified, Failure> {
    let blob = wanted.blob;
    let Some(stored) = store.find(blob)? else {
        return Err(missing(format!("layer {blob} is not here")));
    };
    // It is nothing that anybody waits for.
    let last = SchedulerAttributes {
        size: u32::try_from(size_of::<SchedulerAttributes>()).unwrap_or_default(),
        policy: SCHED_BATCH,
        nice: NICE,
        ..SchedulerAttributes::default()
    };
    set_scheduler(Pid::this(), &last).map_err(|errno| os("lower the priority", errno))?;
    set_io_priority(Pid::this(), IO_LAST).map_err(|errno| os("lower the priority", errno))?;
    let needed = stored.bytes.saturating_add(VERIFY_SPARE_BYTES);
    if store.free_bytes()? < needed {
        let message = format!("{needed} bytes must be free to unpack layer {blob} a second time");
        return Err(no_room(message));
    }
    timing::begin(place.timing, "verify", &blob.hex()[..12]);
    // What was taken once is no larger now, whatever is configured since.
    let place = Place {
        bytes_max: place.bytes_max.max(stored.bytes),
        entries_max: place.entries_max.max(stored.entries),
        ..place.clone()
    };
    let staging = store.stage(blob, place.first_id)?;
    let found = fill(&staging, &place, wanted).and_then(|_| {
        timing::done("unpack again");
        let found = compare(staging.fd(), store.open_layer(blob)?.as_fd(), still_asked)?;
        timing::done("compare");
        Ok(found)
    });
    let discarded = store.discard(&staging);
    let Found { entries, differences, shown } = found?;
    discarded?;
    Ok(LayerVerified { blob: blob.clone(), entries, differences, shown })
}

/// Whether somebody still listens.
fn still_asked() -> Result<(), Failure> {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(0) | Err(Errno::EINTR) => Ok(()),
        Ok(_) => Err(cancelled()),
        Err(errno) => Err(os("wait", errno)),
    }
}

fn facts_of(wanted: &Wanted<'_>, stored: &StoredFacts) -> Result<LayerFacts, Failure> {
    check_diff_id(wanted, &stored.diff_id)?;
    Ok(LayerFacts {
        blob: wanted.blob.clone(),
        entries: stored.entries,
        bytes: stored.bytes,
        devices_skipped: stored.devices_skipped,
    })
}

fn check_diff_id(wanted: &Wanted<'_>, found: &Digest) -> Result<(), Failure> {
    if found == wanted.diff_id {
        return Ok(());
    }
    let (blob, said) = (wanted.blob, wanted.diff_id);
    Err(invalid(format!("layer {blob} inflates to {found}, but the image's config says {said}")))
}

/// Runs the confined child over the input; answers when both digests are as wanted.
fn fill(staging: &Staging, place: &Place, wanted: &Wanted<'_>) -> Result<Extracted, Failure> {
    // The child finds the staging directory as its working directory, see `enter_root`.
    fchdir(staging.fd()).map_err(|errno| os("enter the staging directory", errno))?;
    let mut child = Child::start(place, wanted.compression)?;
    timing::done("start the confined child");
    let forwarded = forward(&mut child, place.timing);
    timing::done("hand every byte on");
    let said = match &forwarded {
        Ok(_) => child.answer(),
        Err(failure) => Err(failure.clone()),
    };
    child.end();
    timing::done("wait for the child's end");
    nix::unistd::chdir("/").map_err(|errno| os("leave the staging directory", errno))?;
    let found = said?;
    let Forwarded::All(blob) = forwarded? else {
        return Err(broken("the unpacker ended before the layer did"));
    };
    if blob != *wanted.blob {
        let wanted = wanted.blob;
        return Err(invalid(format!("the layer's bytes are {blob}, not {wanted}")));
    }
    check_diff_id(wanted, &found.diff_id)?;
    let micros = |micros| Duration::from_micros(micros);
    let Times { wait_micros, inflate_micros, hash_micros } = found.times;
    timing::note("child: wait for bytes", micros(wait_micros));
    timing::note("child: inflate", micros(inflate_micros.saturating_sub(wait_micros)));
    timing::note("child: sha256 of the archive", micros(hash_micros));
    Ok(found)
}

enum Forwarded {
    /// Every byte; their digest.
    All(Digest),
    /// The child stopped reading: it has failed, and says why.
    Refused,
}

/// Copies standard input to the child, hashing.
fn forward(child: &mut Child, timing: bool) -> Result<Forwarded, Failure> {
    let Some(to) = child.input.take() else { return Err(broken("the child has no input")) };
    let stdin = io::stdin();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut hash = Sha256::new();
    let mut hashing = Duration::ZERO;
    loop {
        wait_for(stdin.as_fd(), PollFlags::POLLIN)?;
        let count = match read(stdin.as_fd(), &mut buffer) {
            Ok(0) => {
                timing::note("sha256 of the blob", hashing);
                return Ok(Forwarded::All(Digest::from_hash(&hash.finalize().into())));
            }
            Ok(count) => count,
            Err(Errno::EINTR | Errno::EAGAIN) => continue,
            Err(errno) => return Err(os("read the layer", errno)),
        };
        let begun = timing.then(Instant::now);
        hash.update(&buffer[..count]);
        hashing += begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            wait_for(to.as_fd(), PollFlags::POLLOUT)?;
            match write(&to, rest) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(Errno::EPIPE) => return Ok(Forwarded::Refused),
                Err(errno) => return Err(os("hand the layer to the unpacker", errno)),
            }
        }
    }
}

/// Waits until `fd` is ready, or standard output's reader has hung up, which cancels.
fn wait_for(fd: BorrowedFd<'_>, events: PollFlags) -> Result<(), Failure> {
    let stdout = io::stdout();
    loop {
        let mut fds = [PollFd::new(fd, events), PollFd::new(stdout.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(os("wait", errno)),
        }
        if fds[1].revents().is_some_and(|events| !events.is_empty()) {
            return Err(cancelled());
        }
        if fds[0].revents().is_some_and(|events| !events.is_empty()) {
            return Ok(());
        }
    }
}

/// The confined child, and the pipes to it.
struct Child {
    pid: Pid,
    input: Option<OwnedFd>,
    said: OwnedFd,
    _pidfd: OwnedFd,
}

/// The child's ends.
struct ChildEnds {
    input: OwnedFd,
    said: OwnedFd,
    mapped: OwnedFd,
    null: OwnedFd,
}

impl Child {
    /// Clones the child, maps its ids, and lets it go on.
    fn start(place: &Place, compression: Compression) -> Result<Self, Failure> {
        let failed = |errno| os("make the unpacker's pipes", errno);
        let (their_input, input) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        let (said, their_said) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        let (their_mapped, mapped) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| os("open /dev/null", errno_of(&error)))?;
        // Larger pipes mean fewer switches; the default does as well where the host's limit is low.
        let size = FcntlArg::F_SETPIPE_SZ(i32::try_from(CHUNK_BYTES).unwrap_or(65_536));
        match fcntl(&input, size) {
            Ok(_) | Err(Errno::EPERM | Errno::EBUSY) => {}
            Err(errno) => return Err(failed(errno)),
        }
        fcntl(&input, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(failed)?;
        let namespaces = namespaces();
        let flags = CloneFlags { namespaces, ..CloneFlags::default() };
        match clone3(&flags).map_err(explain_clone)? {
            Forked::Child => {
                drop((input, said, mapped));
                let ends = ChildEnds {
                    input: their_input,
                    said: their_said,
                    mapped: their_mapped,
                    null: null.into(),
                };
                exit_now(child_main(ends, place, compression));
            }
            Forked::Parent { child, pidfd } => {
                let mut child = Self { pid: child, input: Some(input), said, _pidfd: pidfd };
                drop((their_input, their_said, their_mapped));
                match map_ids(child.pid, place.first_id, &mapped) {
                    Ok(()) => Ok(child),
                    Err(failure) => {
                        child.end();
                        Err(failure)
                    }
                }
            }
        }
    }

    /// What the child has found, once it has ended.
    fn answer(&mut self) -> Result<Extracted, Failure> {
        let mut bytes = Vec::new();
        let mut chunk = vec![0; ANSWER_BYTES_MAX];
        loop {
            wait_for(self.said.as_fd(), PollFlags::POLLIN)?;
            match read(&self.said, &mut chunk) {
                Ok(0) => break,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(os("read the unpacker's answer", errno)),
            }
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(broken("the unpacker's answer is too long"));
            }
        }
        match serde_json::from_slice::<Result<Extracted, Failure>>(&bytes) {
            Ok(answer) => answer,
            Err(_) => Err(broken("the unpacker was ended: it ran into a limit, or has a defect")),
        }
    }

    /// Ends the child, if it has not ended yet, and reaps it.
    fn end(&mut self) {
        self.input = None;
        // Both can only fail when the child is gone already.
        if kill(self.pid, Signal::SIGKILL).is_ok() {
            while let Err(Errno::EINTR) = waitpid(self.pid, None) {}
        }
    }
}

/// Maps the child's ids 0 to 65,535 to the layer range and lets the child go on.
fn map_ids(pid: Pid, first_id: u32, mapped: &OwnedFd) -> Result<(), Failure> {
    let map = format!("0 {first_id} {}", berth_runtime::config::RANGE_IDS);
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, &map)
            .map_err(|error| os(format!("write {map:?} to {path}"), errno_of(&error)))?;
    }
    write(mapped, &[1]).map_err(|errno| os("release the unpacker", errno))?;
    Ok(())
}

/// The child: confines itself, extracts, says what it has found.
fn child_main(ends: ChildEnds, place: &Place, compression: Compression) -> i32 {
    let ChildEnds { input, said, mapped, null } = ends;
    let found = release(&mapped, &null).and_then(|()| {
        drop((mapped, null));
        let root = confine(place.bytes_max)?;
        let overhead = place.entries_max.saturating_mul(ENTRY_OVERHEAD_BYTES);
        let stream_max = place.bytes_max.saturating_add(overhead);
        let meter = Meter::new(place.timing);
        let inflated = inflate(File::from(input), compression, &meter)
            .map_err(|error| broken(format!("begin to inflate: {error}")))?;
        let Place { bytes_max, entries_max, given, .. } = *place;
        let caps = Caps { bytes_max, entries_max, given };
        extract(Source::new(inflated, stream_max, meter.clone()), root, caps, &meter)
    });
    let written = serde_json::to_vec(&found)
        .map_err(io::Error::from)
        .and_then(|bytes| File::from(said).write_all(&bytes));
    i32::from(written.is_err() || found.is_err())
}

/// Waits for the id maps, and gives up standard input, output and error: the first two are the
/// server's and the supervisor's pipes, the third the supervisor's log.
fn release(mapped: &OwnedFd, null: &OwnedFd) -> Result<(), Failure> {
    let failed = |errno| os("set the unpacker up", errno);
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed)?;
    let mut byte = [0];
    if read(mapped, &mut byte).map_err(failed)? != 1 {
        return Err(cancelled());
    }
    dup2_stdin(null).map_err(failed)?;
    dup2_stdout(null).map_err(failed)?;
    dup2_stderr(null).map_err(failed)
}
