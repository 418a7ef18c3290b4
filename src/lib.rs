//! The rendezvous architecture as Unix programs.
//!
//! Every request goes to every model, and a rendezvous picks one answer for each
//! request by a policy, before the deadline. The programs read and write NDJSON on
//! standard streams and named pipes. This library contains all of them. Its modules, in
//! the order in which a record passes through them:
//!
//! - `wire`: the data: lines, and the records in them;
//! - `stream`: the carriers of records: standard streams, files, pipes and archives;
//! - `stage`: the common parts of each program: flags, messages, signals and
//!   statistics;
//! - `join`: records of several streams, brought together by `messageId`;
//! - `serve`: the path of one request, from its client to its answer;
//! - `model`: models and their files;
//! - `train`: the training of models on tables;
//! - `import`: models of other libraries;
//! - `observe`: archives and search indexes, outside that path;
//! - `bridge`: a program between the topics of a broker;
//! - `up`: all of them under supervision, from one file.
//!
//! Only the programs are public, so the compiler reports all unused code.
// Unit tests may block; stages may not. clippy.toml gives the reasons.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

// Without a broker, rv-bridge only says how to get one.
#[cfg_attr(
    not(any(feature = "kafka", feature = "nats", feature = "pulsar")),
    allow(dead_code, unused_imports)
)]
mod bridge;
mod compare;
mod import;
mod join;
mod model;
mod observe;
mod serve;
mod stage;
mod stream;
mod train;
mod up;
mod wire;

pub use bridge::BridgeArgs;
pub use compare::CompareArgs;
pub use observe::archive::ArchiveArgs;
pub use observe::es_sink::EsSinkArgs;
pub use serve::decoy::DecoyArgs;
pub use serve::rendezvous::RendezvousArgs;
pub use serve::request::RequestArgs;
pub use serve::score::ScoreArgs;
pub use serve::tee::TeeArgs;
pub use stage::program::main;
pub use up::UpArgs;
