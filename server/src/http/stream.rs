//! Server-sent events that end when their reader may not go on: signed out, token ended, person
//! disabled or given another role, what they read not shared with them any more, server stopping.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt};

use crate::app::App;
use crate::auth::Caller;
use crate::error::Result;
use crate::service::sessions;
use crate::service::sharing::At;

const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Streams `events` of what the caller is `at`, if it can be shared, to them. An error in the stream is logged and ends it.
///
/// # Errors
/// When the caller has too many streams open.
pub fn sse<S>(app: &App, caller: &Caller, at: Option<At>, events: S) -> Result<Response>
where
    S: Stream<Item = Result<Event>> + Send + 'static,
{
    let events = guarded(app, caller, at, events)?.filter_map(|event| async move {
        match event {
            Ok(event) => Some(Ok::<_, Infallible>(event)),
            Err(error) => {
                tracing::debug!(error = %error, "a stream ended with an error");
                None
            }
        }
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive).into_response())
}

/// The same for any stream, such as a log as plain text: it ends after an error, and when the caller
/// may not go on.
///
/// # Errors
/// When the caller has too many streams open.
pub fn guarded<S, T>(
    app: &App,
    caller: &Caller,
    at: Option<At>,
    items: S,
) -> Result<impl Stream<Item = Result<T>> + Send + 'static + use<S, T>>
where
    S: Stream<Item = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let place = app.stream_place(caller.principal)?;
    let (app, caller) = (app.clone(), caller.clone());
    Ok(async_stream::stream! {
        let _place = place;
        let right = sessions::right_ends(&app, &caller, at.as_ref());
        tokio::pin!(items, right);
        loop {
            tokio::select! {
                biased;
                () = &mut right => break,
                item = items.next() => {
                    let Some(item) = item else { break };
                    let failed = item.is_err();
                    yield item;
                    if failed {
                        break;
                    }
                }
            }
        }
    })
}
