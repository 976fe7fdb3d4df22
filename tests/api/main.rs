//! The API from outside: who may use which route (A01), the first operator (A09), browsers and
//! streams (W01 to W03), credentials (A07, A08), bodies (A04), configuration, TLS, proxies, rates,
//! signing keys.
//!
//! Each security test has its control: the same request without the attack, which must pass, so that
//! a refusal for another reason is not taken for the guard's.

mod account_life;
mod audit;
mod beside;
mod bodies;
mod configuration;
mod credentials;
mod edits;
mod enrol;
mod everywhere;
mod fields;
mod idempotency;
mod keys;
mod local_users;
mod logs;
mod maintenance;
mod matrix;
mod members;
mod offboarding;
mod oversight;
mod problems;
mod proxies;
mod rates;
mod raw;
mod report;
mod requests;
mod resume;
mod second_factor;
mod secrets;
mod setup;
mod sharing;
mod signing_in;
mod sites;
mod streams;
mod tls;
