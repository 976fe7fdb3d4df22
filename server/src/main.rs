//! The Berth server: dashboard, JSON API, inventory.

mod runtime_client;

fn main() {}
