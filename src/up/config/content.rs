//! The content of the file.

use std::time::Duration;

use crate::up::config::flag::Flag;

/// The largest number of seats. Every model computes every request.
pub const SEATS_MAX: usize = 256;

/// The default of `policy`. This file alone may be absent.
pub const POLICY: &str = "policy.toml";

/// The content of the file, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The run folder, relative to the folder of the file.
    pub dir: String,
    /// The file of the policy, relative to the folder of the file.
    pub policy: String,
    /// The HTTP front end.
    pub front: Front,
    /// The address for operators, if there is one.
    pub admin: Option<Admin>,
    /// The models and shadows, in the order of the file.
    pub seats: Vec<Seat>,
    /// The flags of `rv-archive`, if requests and decisions are archived.
    pub archive: Option<Section>,
    /// The flags of `rv-es-sink`, if decisions are indexed.
    pub elasticsearch: Option<Section>,
    /// When a stage counts as stuck, and what happens then.
    pub supervision: Supervision,
}

/// The flags of one program.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// The line of the section in the file, from 1.
    pub line: usize,
    /// The flags, in the order of the file.
    pub flags: Vec<Flag>,
}

impl Section {
    /// The flag with this name.
    pub fn flag(&self, name: &str) -> Option<&Flag> {
        self.flags.iter().find(|flag| flag.name == name)
    }
}

/// The HTTP front end.
#[derive(Clone, Debug)]
pub struct Front {
    /// The address of the calls.
    pub listen: String,
    /// The line of the address in the file.
    pub listen_line: usize,
    /// The other flags of `rv-request`.
    pub section: Section,
}

/// The address for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The address.
    pub listen: String,
    /// The line of the address in the file.
    pub line: usize,
    /// The file with the bearer token that calls must send.
    pub token_file: Option<String>,
}

/// What a seat may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its scores answer if the policy names it.
    Model,
    /// It never answers.
    Shadow,
}

impl Role {
    /// The name of the role's table in the file.
    pub fn table(self) -> &'static str {
        match self {
            Role::Model => "model",
            Role::Shadow => "shadow",
        }
    }
}

/// What runs in a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// A model file, of rv or ONNX.
    File(String),
    /// A program that answers model inputs: `rv-score --exec`.
    Exec(String),
    /// A server: `rv-score --url`.
    Url(String),
    /// A program that reads requests and writes scores.
    Command(String),
}

/// A place for one model.
#[derive(Clone, Debug)]
pub struct Seat {
    /// What it may do.
    pub role: Role,
    /// The name of the seat.
    pub name: String,
    /// The line of the seat in the file.
    pub line: usize,
    /// What runs in it, and the line that says so.
    pub runs: Runs,
    /// The line that says what runs.
    pub runs_line: usize,
    /// The name of the model in its scores, if the file gives it.
    pub model_name: Option<String>,
    /// The version of the model in its scores, if the file gives it.
    pub version: Option<u64>,
    /// The flags of `rv-score`.
    pub section: Section,
    /// Whether the stage is restarted when it is stuck.
    pub restart_when_stuck: bool,
}

/// When a stage counts as stuck, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supervision {
    /// A stage is stuck if its input has waited this long and it has read nothing.
    pub stuck_after: Duration,
    /// Whether every stuck stage is restarted.
    pub restart_when_stuck: bool,
}

impl Config {
    /// The seat with this name.
    pub fn seat(&self, name: &str) -> Option<&Seat> {
        self.seats.iter().find(|seat| seat.name == name)
    }
}
