//! The client of image registries (OCI distribution-spec).
//!
//! [`client`] is a pull's conversation with one repository, through `oci-client`; [`gateway`] the
//! only way that it has to the outside; [`outbound`] the transport behind, which asks [`policy`]
//! before every hop. [`manifest`] reads documents, [`reference`] names.
//!
//! Knows nothing of people, the inventory or the disk.

mod challenge;
pub mod client;
mod gateway;
pub mod manifest;
pub mod outbound;
pub mod policy;
pub mod probe;
mod range;
pub mod reference;

pub use client::{Credentials, Registry, Session};
pub use policy::RegistriesConfig;
pub use reference::ImageReference;
