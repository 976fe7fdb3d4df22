//! How a failed step of a layer's work becomes a [`Failure`] for people.

use std::fmt::Display;

use berth_runtime::record::{Failure, FailureClass};
use nix::errno::Errno;

/// Characters of a path shown in a message at most; paths come from the archive.
const SHOWN_CHARS_MAX: usize = 120;

/// The archive is wrong and will stay wrong.
pub(super) fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Invalid, "layer.invalid", message)
}

/// The archive goes beyond a limit.
pub(super) fn too_large(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Exhausted, "layer.too-large", message)
}

/// The archive holds more than its request was given.
pub(super) fn above_given(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Exhausted, "layer.above-given", message)
}

/// The host is in the way.
pub(super) fn broken(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Broken, "layer.broken", message)
}

/// There is no layer of that name.
pub(super) fn missing(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::NotFound, "layer.unknown", message)
}

/// There is no room to unpack it a second time.
pub(super) fn no_room(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Exhausted, "disk.full", message)
}

/// The caller has hung up.
pub(super) fn cancelled() -> Failure {
    Failure::new(FailureClass::Unavailable, "layer.cancelled", "unpacking was cancelled")
}

/// A system call's answer, `step` being verb and object.
pub(super) fn os(step: impl Display, errno: Errno) -> Failure {
    let message = format!("{step}: {}", errno.desc());
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => Failure::new(
            FailureClass::Exhausted,
            "disk.full",
            format!("the disk that holds the layers is full ({step})"),
        ),
        Errno::EFBIG | Errno::E2BIG | Errno::ERANGE => too_large(message),
        Errno::ENAMETOOLONG
        | Errno::ELOOP
        | Errno::ENOTDIR
        | Errno::EISDIR
        | Errno::ENOENT
        | Errno::EMLINK
        | Errno::EINVAL => invalid(message),
        _ => broken(message),
    }
}

/// A path from the archive, cut and escaped so that it cannot forge a message.
pub(super) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    format!("{cut:?}")
}
