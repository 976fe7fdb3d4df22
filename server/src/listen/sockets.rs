//! The sockets: TCP ones, bound here or inherited from the service manager, and those of this host, for root and for
//! its users.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use tokio::net::{TcpListener, UnixListener};

use crate::config::{Listen, ListenAddress};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// The TCP sockets: the manager's if it passed any, else our own.
///
/// # Errors
/// When one cannot be bound, or the inherited ones are not those of the configuration.
pub fn tcp(wanted: &Listen) -> Result<Vec<(TcpListener, ListenAddress)>> {
    let inherited = berth_runtime::take_listeners().context("take the inherited sockets")?;
    if inherited.is_empty() {
        return wanted.addresses().iter().map(|address| Ok((own(address)?, *address))).collect();
    }
    let mut sockets = Vec::new();
    for socket in inherited {
        let socket = std::net::TcpListener::from(socket);
        let bound = socket.local_addr().context("look at an inherited socket")?;
        socket.set_nonblocking(true).context("prepare an inherited socket")?;
        sockets.push((TcpListener::from_std(socket).context("use an inherited socket")?, bound));
    }
    let passed: BTreeSet<SocketAddr> = sockets.iter().map(|(_, bound)| *bound).collect();
    let configured: BTreeSet<SocketAddr> =
        wanted.addresses().iter().map(|address| address.socket).collect();
    ensure!(
        passed == configured,
        "the service manager passed sockets on {}, but the configuration says server.listen = {}: \
         the socket unit is written from the file by the installer, so run that again",
        shown(&passed),
        shown(&configured)
    );
    let known = |bound: SocketAddr| {
        wanted.addresses().iter().find(|address| address.socket == bound).copied()
    };
    Ok(sockets.into_iter().filter_map(|(socket, bound)| Some((socket, known(bound)?))).collect())
}

fn shown(addresses: &BTreeSet<SocketAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A socket of our own. One on `[::]` is for IPv6 alone, as in the socket unit: `0.0.0.0` and `[::]`
/// can then stand side by side, and no IPv4 address comes in the guise of an IPv6 one.
fn own(address: &ListenAddress) -> Result<TcpListener> {
    let listener = || {
        let family = match address.socket {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(family, SockType::Stream, flags, None)?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        if family == AddressFamily::Inet6 {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address.socket))?;
        listen(&fd, Backlog::new(BACKLOG)?)?;
        Ok::<_, nix::errno::Errno>(fd)
    };
    let fd = listener().with_context(|| format!("listen on {}", address.socket))?;
    TcpListener::from_std(fd.into()).with_context(|| format!("listen on {}", address.socket))
}

/// The root socket. Closed to others although the directory is, and although each peer is asked for: no single
/// mistake opens it.
///
/// # Errors
/// When it cannot be made.
pub fn root(path: &Path) -> Result<UnixListener> {
    unix(path, 0o600)
}

/// The socket for local users, open to all: who they are the kernel says of each.
///
/// # Errors
/// When it cannot be made.
pub fn local(path: &Path) -> Result<UnixListener> {
    unix(path, 0o666)
}

/// A Unix socket, replacing one that a killed server left.
fn unix(path: &Path, mode: u32) -> Result<UnixListener> {
    let shown = path.display();
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {shown}"));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen on {shown}"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("give {shown} its mode"))?;
    Ok(listener)
}
