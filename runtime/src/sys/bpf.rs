//! bpf(2), for one purpose: a device program assembled by `cgroup::devices` is loaded and attached to
//! a cgroup. No maps, no helpers, no BTF.

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of the levels above (systemd's) stay in force beside ours.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// A register of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(u8);

/// The answer.
pub const R0: Register = Register(0);
/// The context at the start; free afterwards.
pub const R1: Register = Register(1);
/// Free.
pub const R2: Register = Register(2);
/// Free.
pub const R3: Register = Register(3);
/// Free.
pub const R4: Register = Register(4);
/// Free.
pub const R5: Register = Register(5);

/// `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const fn new(code: u8, to: Register, from: Register, offset: i16, immediate: i32) -> Self {
        Self { code, registers: to.0 | from.0 << 4, offset, immediate }
    }

    /// `to = *(u32 *)(from + offset)` (BPF_LDX | BPF_MEM | BPF_W).
    pub const fn load_word(to: Register, from: Register, offset: i16) -> Self {
        Self::new(0x61, to, from, offset, 0)
    }

    /// `to = from` (BPF_ALU64 | BPF_MOV | BPF_X).
    pub const fn copy(to: Register, from: Register) -> Self {
        Self::new(0xbf, to, from, 0, 0)
    }

    /// `to = value` (BPF_ALU64 | BPF_MOV | BPF_K).
    pub const fn set(to: Register, value: i32) -> Self {
        Self::new(0xb7, to, R0, 0, value)
    }

    /// `to &= mask` (BPF_ALU64 | BPF_AND | BPF_K).
    pub const fn and(to: Register, mask: i32) -> Self {
        Self::new(0x57, to, R0, 0, mask)
    }

    /// `to >>= bits`, without sign (BPF_ALU64 | BPF_RSH | BPF_K).
    pub const fn shift_right(to: Register, bits: i32) -> Self {
        Self::new(0x77, to, R0, 0, bits)
    }

    /// Skips the next `skipped` instructions unless `register == value` (BPF_JMP | BPF_JNE | BPF_K).
    pub const fn jump_unless_equal(register: Register, value: i32, skipped: i16) -> Self {
        Self::new(0x55, register, R0, skipped, value)
    }

    /// Skips the next `skipped` instructions if `register == value` (BPF_JMP | BPF_JEQ | BPF_K).
    pub const fn jump_if_equal(register: Register, value: i32, skipped: i16) -> Self {
        Self::new(0x15, register, R0, skipped, value)
    }

    /// Ends the program; the answer is in [`R0`] (BPF_JMP | BPF_EXIT).
    pub const fn exit() -> Self {
        Self::new(0x95, R0, R0, 0, 0)
    }
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD needs.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instructions_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The part of `union bpf_attr` that BPF_PROG_ATTACH needs.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a program of type `cgroup_device`; the kernel's verifier refuses a wrong one.
pub fn load_device_program(code: &[Instruction]) -> nix::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..13].copy_from_slice(b"berth_devices");
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instructions_count: u32::try_from(code.len()).map_err(|_| Errno::E2BIG)?,
        instructions: code.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        log_level: 0,
        log_bytes: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
    };
    let size = size_of::<LoadAttributes>();
    // SAFETY: the attributes are of the size given, with every byte set (no padding: the fields are
    // naturally aligned); the code and the license they point to outlive the call, which copies them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device program to a cgroup, which keeps it until it is removed.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> nix::Result<()> {
    let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).map_err(|_| Errno::EBADF);
    let attributes = AttachAttributes {
        target: number(cgroup)?,
        program: number(program)?,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    let size = size_of::<AttachAttributes>();
    // SAFETY: the attributes are of the size given, with every byte set, and are only read.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size) };
    Errno::result(done).map(drop)
}
