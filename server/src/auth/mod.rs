//! Who is asking, and what proves it. Pure: no SQL, no HTTP.

pub mod budget;
pub mod caller;
mod keyring;
pub mod keys;
pub mod password;
pub mod throttle;

pub use caller::{Actor, Caller, Role, TokenScope, Via, Visibility};
