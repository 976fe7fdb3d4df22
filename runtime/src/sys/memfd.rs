//! Sealed copies of the own binary (memfd_create(2), "File sealing"), so that no container can write
//! to what the host runs, whatever it finds under `/proc/<pid>/exe` (CVE-2019-5736).

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// Tries to seal a copy; before each answers EBUSY, the kernel itself waits for about 150 ms.
const SEAL_TRIES: u32 = 10;
const SEAL_PAUSE: Duration = Duration::from_millis(20);

/// The binary that this process runs, as a sealed memfd to be executed by [`execute`]: the very one
/// that runs when that is sealed already, else a copy.
pub fn sealed_self() -> io::Result<OwnedFd> {
    let mut own = File::open("/proc/self/exe")?;
    if is_sealed(&own) {
        return Ok(own.into());
    }
    let mut copy = File::from(memfd_create(c"berth-runtime", memfd_flags())?);
    io::copy(&mut own, &mut copy)?;
    copy.rewind()?;
    seal(&copy)?;
    Ok(copy.into())
}

/// Seals `copy`. The kernel answers EBUSY while anybody holds one of its pages, for whoever does might
/// write to it; that may be the kernel itself, when it moves or ages memory, and then it passes.
fn seal(copy: &File) -> nix::Result<()> {
    for _ in 1..SEAL_TRIES {
        match fcntl(copy, FcntlArg::F_ADD_SEALS(SEALS)) {
            Err(Errno::EBUSY) => std::thread::sleep(SEAL_PAUSE),
            other => return other.map(drop),
        }
    }
    fcntl(copy, FcntlArg::F_ADD_SEALS(SEALS)).map(drop)
}

/// Returns when this process runs from a sealed copy of its binary; else becomes one, with the same
/// arguments and environment.
pub fn ensure_sealed() -> io::Result<()> {
    if is_sealed(&File::open("/proc/self/exe")?) {
        return Ok(());
    }
    let arguments: Vec<CString> = std::env::args_os().map(c_string).collect::<Result<_, _>>()?;
    Err(execute(&sealed_self()?, &arguments).into())
}

/// Replaces this process by the binary in `binary`, with its own environment; returns on failure only.
pub fn execute(binary: &OwnedFd, arguments: &[CString]) -> Errno {
    let environment: Result<Vec<CString>, _> = std::env::vars_os()
        .map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            c_string(name)
        })
        .collect();
    let Ok(environment) = environment else { return Errno::EINVAL };
    let flags = nix::fcntl::AtFlags::AT_EMPTY_PATH;
    match nix::unistd::execveat(binary, c"", arguments, &environment, flags) {
        Err(errno) => errno,
        Ok(never) => match never {},
    }
}

/// Whether nothing of a file in memory can change.
pub fn is_sealed(file: &File) -> bool {
    fcntl(file, FcntlArg::F_GET_SEALS)
        .is_ok_and(|seals| SealFlag::from_bits_truncate(seals).contains(SEALS))
}

/// `MFD_EXEC` where the kernel knows it (6.3), so that `vm.memfd_noexec` does not take the right to
/// run the copy; older kernels refuse unknown flags, so it is left out there.
fn memfd_flags() -> MFdFlags {
    let base = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let with_exec = base | MFdFlags::from_bits_retain(libc::MFD_EXEC);
    match memfd_create(c"probe", with_exec) {
        Ok(_) => with_exec,
        Err(_) => base,
    }
}

fn c_string(text: std::ffi::OsString) -> io::Result<CString> {
    Ok(CString::new(text.into_vec())?)
}
