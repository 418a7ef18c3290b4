//! The sink against the real service. `scripts/check_services.sh` starts one after
//! the other and runs these; without a service there is nothing to run, so each is
//! ignored.

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
