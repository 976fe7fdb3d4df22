//! The sockets: TCP (bound here or inherited from the service manager), and the root socket.
//!
//! Each connection is served by hyper with limits on headers and time. What comes over the root
//! socket is the machine's root only: the kernel says who connected (SO_PEERCRED, unix(7)).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::app::App;
use crate::http::guard::Peer;

/// A request's head must be there within this, and the next one on a kept connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// A request's head is at most this large.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields of a request at most.
const HEADERS_MAX: usize = 64;
/// Connections on the root socket at once.
const ROOT_CONNECTIONS_MAX: usize = 32;
/// After this, connections that have not ended are cut at shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after accept(2) failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The TCP socket: the manager's if it passed one, else our own.
///
/// # Errors
/// When it cannot be bound, or the inherited one is not the configured one.
pub async fn tcp(listen: SocketAddr) -> Result<TcpListener> {
    let inherited = berth_runtime::take_listener().context("take the inherited socket")?;
    let Some(socket) = inherited else {
        return TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"));
    };
    let socket = std::net::TcpListener::from(socket);
    let bound = socket.local_addr().context("look at the inherited socket")?;
    ensure!(
        bound == listen,
        "the service manager passed a socket on {bound}, but the configuration says \
         server.listen = \"{listen}\": make the socket unit and the file agree"
    );
    socket.set_nonblocking(true).context("prepare the inherited socket")?;
    TcpListener::from_std(socket).context("use the inherited socket")
}

/// The root socket, replacing one that a killed server left.
///
/// # Errors
/// When it cannot be made.
pub fn root(path: &Path) -> Result<UnixListener> {
    let shown = path.display();
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {shown}"));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen on {shown}"))?;
    // Closed to others although the directory is, and although each peer is asked for: no single
    // mistake opens it.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("close {shown} to others"))?;
    Ok(listener)
}

/// Serves both sockets until the server is to stop, then lets what is under way end.
pub async fn serve(app: &App, router: Router, tcp: TcpListener, root: UnixListener) {
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(app.config.server.connections_max));
    let root_connections = Arc::new(Semaphore::new(ROOT_CONNECTIONS_MAX));
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => break,
            accepted = tcp.accept() => match accepted {
                Ok((stream, address)) => {
                    // The answer is small and the browser waits for it.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(error = %error, "a connection kept its delay");
                    }
                    spawn(&graceful, &router, Peer::Tcp(address), &connections, stream);
                }
                Err(error) => pause(&error).await,
            },
            accepted = root.accept() => match accepted {
                Ok((stream, _)) => match stream.peer_cred() {
                    Ok(peer) if peer.uid() == 0 => {
                        spawn(&graceful, &router, Peer::Root, &root_connections, stream);
                    }
                    Ok(peer) => tracing::warn!(uid = peer.uid(), "refused on the root socket"),
                    Err(error) => tracing::warn!(error = %error, "a root socket peer is unknown"),
                },
                Err(error) => pause(&error).await,
            },
        }
    }
    drop((tcp, root));
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time and were cut");
    }
}

async fn pause(error: &std::io::Error) {
    tracing::warn!(error = %error, "a connection could not be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn spawn<S>(
    graceful: &GracefulShutdown,
    router: &Router,
    peer: Peer,
    connections: &Arc<Semaphore>,
    stream: S,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // One above the limit is closed at once: better than a queue that nobody sees.
    let Ok(place) = connections.clone().try_acquire_owned() else {
        tracing::warn!("a connection was refused: too many at once");
        return;
    };
    let router = router.clone();
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let answer = router.clone().oneshot(request);
        async move {
            let response = answer.await;
            Ok::<_, Infallible>(response.unwrap_or_else(|never| match never {}))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "a connection ended with an error");
        }
        drop(place);
    });
}
