//! The client of image registries (OCI distribution-spec).
//!
//! `oci-client` gives names and their normalisation ([`reference`]); the transport is ours, because
//! its client follows redirects by itself, has no hook for name resolution, and reads manifests,
//! tokens and error bodies without a limit. Here every hop of every request is checked first, the
//! addresses that are connected to are the very ones that were checked, every body has a cap, and
//! credentials go to the registry's own origin and its token service only.
//!
//! Knows nothing of people, the inventory or the disk.

pub mod auth;
pub mod client;
pub mod manifest;
pub mod policy;
pub mod reference;

pub use client::{Credentials, Registry, Session};
pub use policy::RegistriesConfig;
pub use reference::ImageReference;
