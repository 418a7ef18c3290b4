//! The rendezvous architecture as Unix programs.
//!
//! Every request goes to every model, and a rendezvous picks one answer for each
//! by a policy, before its deadline. The programs read and write NDJSON on
//! standard streams and named pipes; this library is all of them, in the order in
//! which a record meets its parts:
//!
//! - [`wire`]: what travels: lines, the records in them, and what they travel on;
//! - [`stage`]: what makes a function a Unix program;
//! - [`serve`]: the path of one request, from its client to its answer;
//! - [`model`]: what a model is;
//! - [`train`]: how a table becomes a model;
//! - [`observe`]: copies of the streams, off that path.
// A unit test may wait where a stage may not; clippy.toml says what is meant.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod model;
pub mod observe;
pub mod serve;
pub mod stage;
pub mod train;
pub mod wire;
