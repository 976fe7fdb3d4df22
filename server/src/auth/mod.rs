//! Who is asking, and what proves it. Pure: no SQL, no HTTP.

pub mod caller;
pub mod keys;
pub mod password;
pub mod throttle;

pub use caller::{Actor, Caller, Role, TokenScope, Via, Visibility};
