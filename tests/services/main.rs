//! The sink against the real service. `scripts/check_services.sh` starts one after
//! the other and runs these; without a service there is nothing to run, so each is
//! ignored.
// A test that fails has to panic, it waits for programs, and it may print.
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
