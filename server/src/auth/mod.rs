//! Who is asking, and what proves it. Pure: no SQL, no HTTP.

pub mod budget;
pub mod caller;
pub mod factor;
mod keyring;
pub mod keys;
pub mod password;
pub mod policy;
pub mod sealed;
pub mod throttle;

pub use caller::{Actor, Caller, Role, TokenScope, Via, Visibility};
pub use policy::{Granted, Kind, Right, Rights};
