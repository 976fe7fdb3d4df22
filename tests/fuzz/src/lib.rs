//! The parsers of foreign bytes, and what must hold of each whatever it is given ([`targets`]).
//!
//! Server and supervisor are programs, not libraries: their parsers are included here by path, and what
//! those need of the rest (an error, a type) stands in `error.rs` and `registry.rs`.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the parsers' sources are included whole; the parsers alone are used"
)]

mod error;
mod layer;
#[path = "../../../server/src/service/logs.rs"]
mod logs;
mod registry;
mod runtime_client;
#[path = "../../../server/src/service/images/archive.rs"]
mod saved;
pub mod targets;
