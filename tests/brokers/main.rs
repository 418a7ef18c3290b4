//! Tests of rv-bridge with real brokers. `scripts/check_brokers.sh` starts each broker in
//! turn and runs these tests. Other runs ignore them, because they need a broker.
// A failing test must panic. A test may wait and print.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used
)]

#[allow(dead_code)]
#[path = "../stages/harness.rs"]
mod harness;
#[path = "../stages/limit.rs"]
mod limit;

mod broker;
mod chaos;
mod ends;
mod only_kafka;
mod only_nats;
mod rejects;
mod streams;
