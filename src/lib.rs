//! The rendezvous architecture as Unix programs.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod model;
pub mod observe;
pub mod stage;
pub mod wire;
