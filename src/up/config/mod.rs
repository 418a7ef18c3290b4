//! The file of `rv-up`: the whole architecture in a few lines of TOML.
//!
//! `parse` turns the text into a [`Config`], and opens nothing. Each fault names the file,
//! the line, the cause and the remedy. `edit` adds a seat to the text, or removes one,
//! and keeps everything else of the text.

mod content;
mod edit;
mod flag;
mod parse;
mod section;
#[cfg(test)]
mod tests;

pub use crate::up::config::content::{Config, POLICY, Role, Runs, Seat, Section};
pub use crate::up::config::edit::{section_of, with_seat, without_seat};
pub use crate::up::config::flag::{Flag, FlagValue};
pub use crate::up::config::parse::{DIR, LISTEN, parse};
