//! Which images lack layers on this machine, as after a backup without images was restored. Found out once,
//! at the server's start; nothing that runs takes a layer away that an image holds.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use berth_runtime::digest::Digest;

/// What each image lacks.
#[derive(Default)]
pub struct Absent(Mutex<HashMap<String, HashSet<Digest>>>);

impl Absent {
    /// Whether all layers of the image are here.
    pub fn is_whole(&self, image: &str) -> bool {
        !self.lock().contains_key(image)
    }

    /// These images lack the layer.
    pub(super) fn note(&self, layer: &Digest, images: Vec<String>) {
        let mut lacks = self.lock();
        for image in images {
            lacks.entry(image).or_default().insert(layer.clone());
        }
    }

    /// The layer has come.
    pub(super) fn has_come(&self, layer: &Digest) {
        self.lock().retain(|_, lacks| {
            lacks.remove(layer);
            !lacks.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashSet<Digest>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_whole_when_its_last_layer_has_come() {
        let absent = Absent::default();
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        absent.note(&one, vec!["a".into(), "b".into()]);
        absent.note(&two, vec!["b".into()]);
        assert!(!absent.is_whole("a") && !absent.is_whole("b") && absent.is_whole("c"));
        absent.has_come(&one);
        assert!(absent.is_whole("a") && !absent.is_whole("b"));
        absent.has_come(&two);
        assert!(absent.is_whole("b"));
    }
}
