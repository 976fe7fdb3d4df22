//! seccomp(2): loads a filter.

use nix::errno::Errno;

/// One instruction of classic BPF (linux/filter.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

/// Loads `program` for the calling thread, with `SECCOMP_FILTER_FLAG_*` bits. With that for a listener its
/// descriptor (close-on-exec) is left open.
pub fn load(program: &[Instruction], flags: u64) -> nix::Result<()> {
    #[repr(C)]
    struct Program {
        length: u16,
        instructions: *const Instruction,
    }
    let length = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = Program { length, instructions: program.as_ptr() };
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    // SAFETY: `program` has the layout of struct sock_fprog and, like the instructions it points to,
    // outlives the call, which copies them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::from_ref(&program),
        )
    };
    Errno::result(result).map(drop)
}
