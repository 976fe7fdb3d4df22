//! Where the time of a request goes, for whoever asks: with `server.log = "info,berth::timing=debug"`
//! there is a line per phase. The supervisor's and the monitors' own are `[runtime] timing = true`.

use std::fmt::Display;
use std::time::Instant;

/// A clock that is read at the end of each phase. Off, it costs nothing but itself.
pub struct Phases {
    what: &'static str,
    id: Option<String>,
    last: Instant,
}

impl Phases {
    /// Starts it, if anybody listens.
    pub fn begin(what: &'static str, id: impl Display) -> Self {
        let on = tracing::enabled!(target: "berth::timing", tracing::Level::DEBUG);
        Self { what, id: on.then(|| id.to_string()), last: Instant::now() }
    }

    /// A phase is over; the next begins.
    pub fn done(&mut self, phase: &'static str) {
        if let Some(id) = &self.id {
            let (what, micros) = (self.what, self.last.elapsed().as_micros());
            tracing::debug!(target: "berth::timing", "{what} {id} {micros} {phase}");
        }
        self.last = Instant::now();
    }
}
