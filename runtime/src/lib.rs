//! What the server and the runtime's processes say to each other: identifiers, the wire form of
//! requests and answers, the records on disk, and the client that carries them.
//!
//! Nothing here touches the kernel beyond one Unix socket. The runtime itself (isolation, cgroups,
//! network, layers) is the binary of this package and is not reachable as a library, so that the
//! server cannot come to depend on privileged code.

#[path = "sys/activation.rs"]
mod activation;
pub mod config;
pub mod console;
pub mod contents;
pub mod digest;
#[path = "sys/heap.rs"]
mod heap;
pub mod id;
#[path = "sys/passing.rs"]
mod passing;
pub mod record;
#[path = "sys/window.rs"]
mod window;
pub mod wire;

pub use activation::take_listeners;
pub use heap::{give_back_freed_memory, give_back_unused_memory};
pub use passing::{receive_message, send_message};
pub use window::terminal_size;
