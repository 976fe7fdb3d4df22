//! A request's body, while which is waited for the request holds no place among those that are worked
//! on: whoever sends slowly keeps a connection, and nobody else from being answered.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// A body of which nothing has come for so long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);

type Acquiring = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;
type Read = Option<Result<Frame<Bytes>, axum::Error>>;

/// A request's place among those that are worked on.
#[derive(Clone)]
pub(super) struct Turn {
    places: Arc<Semaphore>,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

/// A body that gives the place back while it waits.
pub(super) struct Waiting {
    body: Body,
    turn: Turn,
    acquiring: Option<Acquiring>,
    /// What came while there was no place.
    read: Option<Read>,
    silence: Pin<Box<Sleep>>,
}

impl Turn {
    /// A place, if there is one now.
    pub(super) fn take(places: &Arc<Semaphore>) -> Option<Self> {
        let held = places.clone().try_acquire_owned().ok()?;
        Some(Self { places: places.clone(), held: Arc::new(Mutex::new(Some(held))) })
    }

    fn hold(&self, place: Option<OwnedSemaphorePermit>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    fn is_held(&self) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

impl Waiting {
    /// Around a request's body.
    pub(super) fn around(body: Body, turn: Turn) -> Body {
        let silence = Box::pin(tokio::time::sleep(SILENCE_MAX));
        Body::new(Self { body, turn, acquiring: None, read: None, silence })
    }
}

impl HttpBody for Waiting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.read.is_none() {
            match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Ready(read) => this.read = Some(read),
                Poll::Pending => {
                    this.turn.hold(None);
                    ready!(this.silence.as_mut().poll(context));
                    let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                    return Poll::Ready(Some(Err(axum::Error::new(late))));
                }
            }
        }
        if !this.turn.is_held() {
            let places = this.turn.places.clone();
            let acquiring = this.acquiring.get_or_insert_with(|| Box::pin(places.acquire_owned()));
            let place = ready!(acquiring.as_mut().poll(context));
            this.acquiring = None;
            this.turn.hold(place.ok());
        }
        this.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
        Poll::Ready(this.read.take().flatten())
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
