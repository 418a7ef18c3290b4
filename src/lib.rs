//! The rendezvous architecture as Unix programs.
//!
//! Every request goes to every model, and a rendezvous picks one answer for each
//! by a policy, before its deadline. The programs read and write NDJSON on
//! standard streams and named pipes. This library is all of them, in the order in
//! which a record meets its parts:
//!
//! - `wire`: what travels: lines, and the records in them;
//! - `stream`: what it travels on: standard streams, files, pipes and archives;
//! - `stage`: what makes a function a Unix program;
//! - `join`: records of several streams, brought together by `messageId`;
//! - `serve`: the path of one request, from its client to its answer;
//! - `model`: what a model is;
//! - `train`: how a table becomes a model;
//! - `observe`: copies of the streams, off that path.
//!
//! Only the programs are public. So the compiler names whatever nobody uses.
// A unit test may wait where a stage may not; clippy.toml says what is meant.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

mod join;
mod model;
mod observe;
mod serve;
mod stage;
mod stream;
mod train;
mod wire;

pub use observe::archive::ArchiveArgs;
pub use observe::es_sink::EsSinkArgs;
pub use serve::decoy::DecoyArgs;
pub use serve::rendezvous::RendezvousArgs;
pub use serve::request::RequestArgs;
pub use serve::score::ScoreArgs;
pub use serve::tee::TeeArgs;
pub use stage::program::main;
