//! Being told when rules change, so that a table that somebody flushed comes back at once.
//!
//! What the kernel tells is only "look now" (see [`super::Network::guarded`]); nothing of it is parsed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::Error;

/// The kernel's group for changes of nftables (linux/netfilter/nfnetlink.h, NFNLGRP_NFTABLES).
const GROUP_NFTABLES: u32 = 7;
/// Messages thrown away at once at most; poll(2) says when there are more.
const DRAINED_MAX: u32 = 256;

/// A descriptor that becomes readable when any rule, set or table of this network namespace changes.
pub struct Changes {
    socket: Socket,
}

impl Changes {
    /// Begins to listen.
    pub fn listen() -> Result<Self, Error> {
        let failed = |source| Error::Kernel { action: "listen for changed rules".into(), source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.add_membership(GROUP_NFTABLES).map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        Ok(Self { socket })
    }

    /// Throws away what has come.
    pub fn drain(&self) {
        for _ in 0..DRAINED_MAX {
            match self.socket.recv_from_full() {
                // More has come than the socket holds; what is lost is only more of the same.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
