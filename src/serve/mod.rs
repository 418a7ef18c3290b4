//! The path of one request, in its order: accepted, copied, scored, answered.

pub mod decoy;
pub mod rendezvous;
pub mod request;
pub mod score;
pub mod tee;
