//! What the log's reader needs of the server's `runtime_client`.

/// Segment numbers with their files, oldest first.
pub(crate) type LogSegments = Vec<(u64, std::os::fd::OwnedFd)>;
