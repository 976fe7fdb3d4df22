//! The harness of all system tests: whole private instances of Berth ([`TestServer`]), clients by
//! role ([`Client`]), and the programs that are tried ([`programs`]).
//!
//! A test that needs an appliance:
//! ```ignore
//! #[tokio::test]
//! async fn a_person_sees_themselves() {
//!     requires_root!();
//!     let server = TestServer::start().await;
//!     let anna = server.person("anna", "user").await;      // signed in, with a cookie
//!     let answer = anna.get("/api/v1/me").await;
//!     assert_eq!((answer.status, &answer.json()["name"]), (200, &"anna".into()));
//! }   // dropped: stopped, and everything of it in the kernel and on disk removed
//! ```
//! `server.operator()`, `server.anonymous()`, `server.root()` (the root socket),
//! `client.token("read").await` (the same person by a token of that scope) are the other roles.
//! `TestServer::with(Options { … })` sets configuration, `server.kill_server()` and
//! `server.start_server().await` restart one of the two processes.
//!
//! Attacks and faults say what they saw by a [`Check`]; `sample` and `times` are few in `tests/run` and
//! all in `tests/long`.
//!
//! A new route needs a row in `tests/api/matrix.rs`; its header says how.

pub mod certificates;
pub mod check;
pub mod client;
pub mod clonable_disk;
pub mod containers;
pub mod disk;
pub mod image;
pub mod injector;
pub mod instance;
pub mod prober;
pub mod programs;
pub mod reality;
pub mod registry;
pub mod socket;
pub mod supervised;
pub mod supervisor;

pub use check::{Check, Dice, is_long, sample, times};
pub use client::{Answer, Client};
pub use instance::{Options, TestServer};

/// Ends the test as skipped, saying so, unless it runs as root. With `NO_SKIPS=1` it fails.
#[macro_export]
macro_rules! requires_root {
    () => {
        if !$crate::programs::is_root() {
            $crate::programs::skip("needs root: namespaces, cgroups, nftables");
            return;
        }
    };
}
