//! Images: unpacking hostile and ordinary layers, pulling from real and misbehaving registries,
//! importing archives. Rows of the security bar carry their names (I01, I03, …) in the tests'.

mod allowance;
mod bombs;
mod breakout;
mod corpus;
mod cut_tls;
mod documents;
mod export;
mod faults;
mod faulty;
mod formats;
mod hostile;
mod import;
mod memory;
mod names_that_flip;
mod outbound;
mod pull;
mod registry;
mod resume;
mod sharing;
mod support;
mod theft;
mod unneeded;
mod unpack;
mod verify;
