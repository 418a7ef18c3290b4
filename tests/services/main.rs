//! Tests of the sink with real services. `scripts/check_services.sh` starts each
//! service in turn and runs these tests. Other runs ignore them, because they need a
//! service.
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

mod faults;
mod records;
mod secure;
mod service;
mod setup;
