//! Engines of others with our runtime in them: what people do with Docker and Podman works as it does with
//! the runtime that came with these.
//!
//! Each engine is a private one: in a network namespace of its own, with its state in a directory of its
//! own, ended by its pid. `docker` and `podman` are their scenarios, `engine` is what starts them.

mod docker;
mod engine;
mod podman;
