//! Listening: accepting connections, TLS where it is spoken, and serving HTTP/1.1 on each.
//!
//! Each connection is bounded: in number, together and of one address; in time, for the handshake
//! and for each request's head; in bytes. Who is on a socket of this host the kernel says (SO_PEERCRED,
//! unix(7)): on the root socket the machine's root only, on that for local users any user.

mod patient;
mod places;
mod sockets;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use nix::unistd::{Uid, User};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::app::App;
use crate::clock::Seldom;
use crate::config::ListenAddress;
use crate::http::guard::{Link, Peer, Seat};
use patient::Patient;
use places::Places;

pub use places::{Place, Working};
pub use sockets::{local, root, tcp};

/// A request's head must be there within this, and the next one on a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A TLS handshake must be done within this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Of the handshakes at once, one address may have one in this many.
const HANDSHAKES_SHARE: usize = 8;
/// A request's head is at most this large.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields of a request at most.
const HEADERS_MAX: usize = 64;
/// Connections on the root socket at once.
const ROOT_CONNECTIONS_MAX: usize = 32;
/// Connections on the socket for local users at once, and of one of them.
const LOCAL_CONNECTIONS_MAX: usize = 256;
const LOCAL_CONNECTIONS_EACH_MAX: usize = 32;
/// How long a directory service may take to say what a user is called.
const NAME_TIMEOUT: Duration = Duration::from_secs(5);
/// How long, when the server stops, whoever has just connected may take to say what they want: a
/// connection that was taken in is owed an answer.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// After this, connections that have not ended are cut at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after accept(2) failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection that was taken in.
struct Guest {
    router: Router,
    peer: Peer,
    /// Its being there holds the server's end up.
    watcher: Watcher,
    stopping: CancellationToken,
    place: Arc<Place>,
}

/// What all listeners share.
#[derive(Clone)]
struct Door {
    app: App,
    router: Router,
    connections: Places,
    handshakes: Places,
    graceful: Arc<GracefulShutdown>,
}

/// Serves all sockets until the server is to stop, then lets what is under way end.
pub async fn serve(
    app: &App,
    router: Router,
    tcp: Vec<(TcpListener, ListenAddress)>,
    (root, local): (UnixListener, UnixListener),
) {
    let server = &app.config.server;
    let handshakes_max = app.config.tls.handshakes_max;
    let graceful = Arc::new(GracefulShutdown::new());
    let door = Door {
        app: app.clone(),
        router,
        connections: Places::new(server.connections_max, server.connections_per_address_max),
        handshakes: Places::new(handshakes_max, handshakes_max.div_ceil(HANDSHAKES_SHARE)),
        graceful: graceful.clone(),
    };
    let mut listeners = tokio::task::JoinSet::new();
    for (socket, address) in tcp {
        listeners.spawn(door.clone().accept(socket, address));
    }
    listeners.spawn(door.clone().accept_root(root));
    listeners.spawn(door.accept_local(local));
    while listeners.join_next().await.is_some() {}
    let Some(graceful) = Arc::into_inner(graceful) else {
        tracing::error!("a listener outlived its end");
        return;
    };
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time and were cut");
    }
}

impl Door {
    async fn accept(self, socket: TcpListener, address: ListenAddress) {
        let acceptor = match (address.tls, &self.app.tls) {
            (true, Some(tls)) => Some(tls.acceptor()),
            (false, _) => None,
            (true, None) => {
                // Never plain HTTP in its place.
                tracing::error!(address = %address.socket, "no certificate, so nothing is served");
                return;
            }
        };
        loop {
            let accepted = tokio::select! {
                () = self.app.stopping.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => self.enter(stream, remote, acceptor.clone()),
                Err(error) => pause(&error).await,
            }
        }
    }

    async fn accept_root(self, socket: UnixListener) {
        let places = Places::new(ROOT_CONNECTIONS_MAX, ROOT_CONNECTIONS_MAX);
        loop {
            let accepted = tokio::select! {
                () = self.app.stopping.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == 0 => {
                        let Some(place) = places.take(None) else { continue };
                        tokio::spawn(self.guest(Peer::Root, place).talk(stream));
                    }
                    Ok(peer) => tracing::warn!(uid = peer.uid(), "refused on the root socket"),
                    Err(error) => tracing::warn!(error = %error, "a root socket peer is unknown"),
                },
                Err(error) => pause(&error).await,
            }
        }
    }

    async fn accept_local(self, socket: UnixListener) {
        let places = Places::new(LOCAL_CONNECTIONS_MAX, LOCAL_CONNECTIONS_EACH_MAX);
        loop {
            let accepted = tokio::select! {
                () = self.app.stopping.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            let (stream, uid) = match accepted {
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(peer) => (stream, peer.uid()),
                    Err(error) => {
                        tracing::warn!(error = %error, "a local user is unknown");
                        continue;
                    }
                },
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            };
            let Some(place) = places.take(Some(place_of(uid))) else {
                static SAID: Seldom = Seldom::new(60);
                if SAID.now() {
                    tracing::warn!(uid, "too many local connections at once, so some are refused");
                }
                continue;
            };
            tokio::spawn(self.clone().receive(stream, uid, place));
        }
    }

    /// Serves a user of this host, once it is known what they are called.
    async fn receive(self, stream: UnixStream, uid: u32, place: Place) {
        // Through the host's own sources of names (nsswitch.conf(5)), which may ask a network.
        let name = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)));
        match tokio::time::timeout(NAME_TIMEOUT, name).await {
            Ok(Ok(Ok(Some(user)))) => {
                self.guest(Peer::Local(user.name.into()), place).talk(stream).await;
            }
            Ok(Ok(Ok(None))) => tracing::debug!(uid, "a local user has no name on this host"),
            Ok(Ok(Err(error))) => {
                tracing::warn!(uid, error = %error, "a local user's name is unknown")
            }
            Ok(Err(_)) | Err(_) => tracing::warn!(uid, "a local user's name did not come in time"),
        }
    }

    fn guest(&self, peer: Peer, place: Place) -> Guest {
        let (router, stopping) = (self.router.clone(), self.app.stopping.clone());
        let place = Arc::new(place);
        Guest { router, peer, watcher: self.graceful.watcher(), stopping, place }
    }

    /// Takes a connection in. One above a limit is closed at once: better than a queue that nobody
    /// sees.
    fn enter(&self, stream: TcpStream, remote: SocketAddr, acceptor: Option<TlsAcceptor>) {
        // The answer is small and the browser waits for it.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(error = %error, "a connection kept its delay");
        }
        let Ok(local) = stream.local_addr() else { return };
        // Loopback and proxies stand for many people: only the total bounds them.
        let ip = remote.ip().to_canonical();
        let shared = ip.is_loopback() || self.app.config.server.is_trusted_proxy(ip);
        let counted = (!shared).then_some(ip);
        let Some(place) = self.connections.take_in(counted) else {
            full(remote, "connections");
            return;
        };
        let guest = self.guest(Peer::Tcp(Link { remote, local, tls: acceptor.is_some() }), place);
        let Some(acceptor) = acceptor else {
            tokio::spawn(guest.talk(stream));
            return;
        };
        let Some(handshake) = self.handshakes.take(counted) else {
            full(remote, "TLS handshakes");
            return;
        };
        tokio::spawn(async move {
            let done = tokio::select! {
                () = patience(&guest.stopping) => return,
                () = guest.place.is_needed() => return,
                done = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => done,
            };
            drop(handshake);
            match done {
                Ok(Ok(stream)) => guest.talk(stream).await,
                Ok(Err(error)) => tracing::debug!(error = %error, "a TLS handshake failed"),
                Err(_) => tracing::debug!(address = %remote, "a TLS handshake took too long"),
            }
        });
    }
}

/// What a user's places are counted by: an address that nobody has (RFC 6666), whose first 64 bits tell users apart.
fn place_of(uid: u32) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from((0x0100_u128 << 112) | (u128::from(uid) << 64)))
}

/// Ends a while after the server was told to stop.
async fn patience(stopping: &CancellationToken) {
    stopping.cancelled().await;
    tokio::time::sleep(FIRST_REQUEST_TIMEOUT).await;
}

/// Says that connections are turned away; a flood of them is said once.
fn full(remote: SocketAddr, what: &str) {
    static SAID: Seldom = Seldom::new(60);
    if SAID.now() {
        tracing::warn!(address = %remote.ip(), what, "too many at once, so some are refused");
    }
}

async fn pause(error: &std::io::Error) {
    tracing::warn!(error = %error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

impl Guest {
    /// Serves the connection to its end. When the server stops, that is the end of the request under
    /// way; of the first one, where none has come yet.
    async fn talk<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { router, peer, watcher, stopping, place } = self;
        let asked = Arc::new(Notify::new());
        let begun = Arc::clone(&asked);
        let seat = Arc::clone(&place);
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            begun.notify_one();
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(Seat(Arc::clone(&seat)));
            let working = seat.work();
            let answer = router.clone().oneshot(request);
            async move {
                let response = answer.await.unwrap_or_else(|never| match never {});
                Ok::<_, Infallible>(response.map(|body| Answering { body, _working: working }))
            }
        });
        let mut connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(Patient::new(stream)), service)
            .with_upgrades();
        let early = tokio::select! {
            ended = &mut connection => Some(ended),
            () = asked.notified() => None,
            () = patience(&stopping) => None,
            () = place.is_needed() => Some(Ok(())),
        };
        let mut told = false;
        let ended = match early {
            Some(ended) => ended,
            None => loop {
                tokio::select! {
                    ended = &mut connection => break ended,
                    () = place.is_needed() => break Ok(()),
                    () = stopping.cancelled(), if !told => {
                        told = true;
                        Pin::new(&mut connection).graceful_shutdown();
                    }
                }
            },
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, "a connection ended with an error");
        }
        drop((place, watcher));
    }
}

/// An answer's body; its connection is worked on until the last of it is sent.
struct Answering {
    body: Body,
    _working: Working,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
