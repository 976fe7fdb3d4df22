//! How far a pull or an import is, as its operation shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use berth_runtime::digest::Digest;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::service::operations::Handle;

/// How often the operation's progress is renewed.
const PERIOD: Duration = Duration::from_millis(150);

/// What is done with a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LayerState {
    /// Its turn has not come.
    Waiting,
    /// It comes over the network, and is unpacked as it comes.
    Downloading,
    /// All of it has come; the rest is being unpacked.
    Unpacking,
    /// It is there.
    Done,
    /// It was there already.
    Present,
}

/// One layer.
pub struct LayerProgress {
    digest: Digest,
    total_bytes: u64,
    done_bytes: AtomicU64,
    state: AtomicU8,
}

/// The whole.
#[derive(Default)]
pub struct Progress {
    reference: String,
    layers: std::sync::OnceLock<Vec<Arc<LayerProgress>>>,
}

impl LayerProgress {
    /// A layer of this size, waiting.
    pub fn new(digest: &Digest, total_bytes: u64) -> Arc<Self> {
        let (done_bytes, state) = (AtomicU64::new(0), AtomicU8::new(LayerState::Waiting as u8));
        Arc::new(Self { digest: digest.clone(), total_bytes, done_bytes, state })
    }

    /// Says what is done with it.
    pub fn set(&self, state: LayerState) {
        if matches!(state, LayerState::Done | LayerState::Present) {
            self.done_bytes.store(self.total_bytes, Ordering::Relaxed);
        }
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Says how much has come.
    pub fn reached(&self, bytes: u64) {
        self.done_bytes.store(bytes, Ordering::Relaxed);
    }

    fn to_json(&self) -> Value {
        let state = match self.state.load(Ordering::Relaxed) {
            1 => "downloading",
            2 => "unpacking",
            3 => "done",
            4 => "present",
            _ => "waiting",
        };
        json!({
            "digest": self.digest, "state": state, "total_bytes": self.total_bytes,
            "downloaded_bytes": self.done_bytes.load(Ordering::Relaxed).min(self.total_bytes),
        })
    }
}

impl Progress {
    /// Of work on this reference.
    pub fn new(reference: String) -> Arc<Self> {
        Arc::new(Self { reference, ..Self::default() })
    }

    /// Says which layers there are; once.
    pub fn set_layers(&self, layers: Vec<Arc<LayerProgress>>) {
        self.layers.get_or_init(|| layers);
    }

    fn to_json(&self) -> Value {
        let Some(layers) = self.layers.get() else {
            return json!({ "reference": self.reference, "layers": [] });
        };
        let downloaded: u64 =
            layers.iter().map(|layer| layer.done_bytes.load(Ordering::Relaxed)).sum();
        let total: u64 = layers.iter().map(|layer| layer.total_bytes).sum();
        let layers: Vec<Value> = layers.iter().map(|layer| layer.to_json()).collect();
        json!({
            "reference": self.reference, "downloaded_bytes": downloaded.min(total),
            "total_bytes": total, "layers": layers,
        })
    }
}

/// Runs `work`, showing its progress, until it ends or is cancelled; cancelled, it is dropped where
/// it stands, which hangs up on registry and supervisor.
pub async fn follow<T>(
    handle: &Handle,
    progress: &Progress,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut ticks = tokio::time::interval(PERIOD);
    let mut work = std::pin::pin!(work);
    let cancelled = handle.cancelled();
    let mut cancelled = std::pin::pin!(cancelled);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            () = &mut cancelled => {
                break Err(Error::conflict("operation.cancelled", "it was cancelled"));
            }
            _ = ticks.tick() => handle.progress(progress.to_json()),
        }
    };
    handle.progress(progress.to_json());
    result
}
