//! The common parts of every program: the command line, messages, signals, statistics,
//! the exit status, and the loop that moves records.

pub mod backlog;
pub mod backoff;
pub mod cli;
pub mod clock;
mod context;
mod exit;
pub mod filter;
pub mod http;
pub mod program;
pub mod queue;
pub mod recording;
pub mod rejects;
pub mod report;
pub mod signals;
pub mod stats;
mod stats_file;
pub mod streams;
pub mod task;
pub mod wait;

mod watchdog;
pub mod worker_pool;

pub use crate::stage::context::Stage;
pub use crate::stage::exit::{EndedEarly, Stop, usage};
