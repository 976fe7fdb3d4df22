//! The supervisor and its monitors from outside: kills and crash loops (F02, F03), what its socket
//! refuses, logs, memory, ends, host shutdown.

mod attacks;
mod crash;
mod ends;
mod output;
