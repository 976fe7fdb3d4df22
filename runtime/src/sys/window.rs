//! The size of a terminal's window, for whoever has a person in front of them.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// Columns and rows of a terminal; 0 where they are not known.
///
/// # Errors
/// ioctl_tty(2)'s: `ENOTTY` when it is none.
pub fn terminal_size(terminal: impl AsFd) -> nix::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: TIOCGWINSZ fills one winsize, which outlives the call.
    let result = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, std::ptr::from_mut(&mut size)) };
    Errno::result(result).map(|_| (size.ws_col, size.ws_row))
}
