//! Loop devices (loop(4)) and the growing of a mounted ext4.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

const LOOP_GET_STATUS64: libc::c_ulong = 0x4c05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4c07;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
/// `_IOW('f', 16, __u64)`.
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
/// The device lets go of its file with its last user.
const AUTOCLEAR: u32 = 4;
/// What is written goes past the cache that the file system above has filled already.
const DIRECT_IO: u32 = 16;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const NOTHING: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// The number of a device that has no file; somebody else may take it first.
pub(crate) fn free_number(control: impl AsFd) -> nix::Result<i32> {
    // SAFETY: the request takes no argument and writes no memory.
    Errno::result(unsafe { libc::ioctl(control.as_fd().as_raw_fd(), LOOP_CTL_GET_FREE) })
}

/// Gives `device` a file, whose blocks it has in sizes of `block_size` bytes; it lets go of it with its last
/// user. `EBUSY` when it has one.
pub(crate) fn configure(device: impl AsFd, file: impl AsFd, block_size: u32) -> nix::Result<()> {
    let fd = u32::try_from(file.as_fd().as_raw_fd()).map_err(|_| Errno::EBADF)?;
    let info = Info { flags: AUTOCLEAR | DIRECT_IO, ..NOTHING };
    let config = Config { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: the request reads a `loop_config`, which `config` is, and which outlives the call.
    let answer =
        unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    Errno::result(answer).map(drop)
}

/// Device and inode of the file behind `device`. `ENXIO` when it has none.
pub(crate) fn backing(device: impl AsFd) -> nix::Result<(u64, u64)> {
    let mut info = NOTHING;
    // SAFETY: the request writes a `loop_info64`, which `info` is, and which outlives the call.
    let answer =
        unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    Errno::result(answer)?;
    Ok((info.device, info.inode))
}

/// Has `device` take its file's size anew.
pub(crate) fn take_size(device: impl AsFd) -> nix::Result<()> {
    // SAFETY: the request takes no argument and writes no memory.
    let answer = unsafe { libc::ioctl(device.as_fd().as_raw_fd(), LOOP_SET_CAPACITY, 0) };
    Errno::result(answer).map(drop)
}

/// Grows the mounted ext4 that `directory` is on to `blocks` of its blocks.
pub(crate) fn grow_ext4(directory: impl AsFd, blocks: u64) -> nix::Result<()> {
    let fd = directory.as_fd().as_raw_fd();
    // SAFETY: the request reads a u64, which outlives the call.
    let answer = unsafe { libc::ioctl(fd, EXT4_IOC_RESIZE_FS, &raw const blocks) };
    Errno::result(answer).map(drop)
}
