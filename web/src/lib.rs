//! The dashboard's pages: one plain struct per page, its template, and the embedded assets.
//!
//! A page is a pure function of its struct: no I/O, no clock, no other crate of ours. The server
//! fills the structs from what its services return. Everything that reaches a template is escaped
//! by askama; no template holds an inline script or style, so that the content security policy can
//! forbid both.

#![forbid(unsafe_code)]

pub mod account;
pub mod asks;
pub mod assets;
pub mod charts;
pub mod containers;
pub mod entry;
pub mod events;
pub mod files;
pub mod format;
pub mod help;
pub mod home;
pub mod images;
pub mod operations;
pub mod parts;
pub mod people;
pub mod posture;
pub mod shell;
pub mod space;
pub mod system;
pub mod terminal;
pub mod volumes;

pub use askama::{Error, Template};

/// The content security policy of every page: what is embedded here and nothing else.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
    style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";
