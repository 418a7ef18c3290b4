//! The flags of `rv-rendezvous` and its subcommands, and their checks.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

use crate::serve::rendezvous::mailbox::ScoreRoom;
use crate::serve::rendezvous::mailboxes::MailboxLimits;
use crate::serve::rendezvous::policy::Policy;
use crate::serve::rendezvous::policy_files::load_policy;
use crate::stage::cli::{RunArgs, VERSION, bytes, duration};
use crate::stage::streams::OutputArgs;
use crate::stage::usage;
use crate::stream::address::Address;
use crate::wire::micros::Micros;

/// Join requests with the scores of all models, and answer each request by a
/// policy, before its deadline.
///
/// SIGHUP reads the policy again. An open request keeps the policy under which it
/// arrived. With --replay, recorded requests and scores, or recorded decisions, are
/// decided by a policy without a clock: the same input and policy give the same bytes.
#[derive(Parser, Clone, Debug)]
#[command(name = "rv-rendezvous", version = VERSION, args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  rv-rendezvous --requests requests --scores dt.scores --scores lr.scores \\
    --policy policy.toml -o responses --decisions decisions.ndjson
  rv-rendezvous --requests requests --scores models/ --prefer dt@1,lr@0 --deadline 100ms
  rv-rendezvous check policy.toml
  rv-rendezvous --replay -i decisions.ndjson --policy tomorrow.toml > responses.ndjson
  rv-rendezvous explain 1c07b8b2 decisions.ndjson")]
pub struct RendezvousArgs {
    /// The subcommand, if the program does not answer requests.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Read the requests from this pipe; `-` is standard input
    #[arg(long, value_name = "PATH", requires = "scores")]
    pub requests: Option<Address>,

    /// Read the scores from these pipes. If PATH is a folder, read every named pipe
    /// in it; pipes may be added and removed
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "requests")]
    pub scores: Vec<Address>,

    /// Read the scores of shadows from these pipes, or from the pipes of a folder. A
    /// shadow never answers, whatever model its scores name. The decisions have its
    /// scores, marked with `"shadow": true`
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "requests")]
    pub shadows: Vec<Address>,

    /// When the last writer of a pipe has closed it, wait for the next one
    #[arg(long, conflicts_with = "replay")]
    pub follow: bool,

    /// The output for the responses.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Send the responses whose returnAddress is ADDRESS to PATH
    #[arg(long, value_name = "ADDRESS=PATH", value_parser = route)]
    pub route: Vec<(String, Address)>,

    /// Write one record for each request after its last score: the request, its
    /// answer, and all its scores with their fates
    #[arg(long, value_name = "PATH")]
    pub decisions: Option<Address>,

    /// If the reader of the decisions is slow, read no further input, as with the reader
    /// of the responses. No decision is dropped. rv-bridge needs this
    #[arg(long, requires = "decisions", conflicts_with = "replay")]
    pub decisions_block: bool,

    /// The policy that decides.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// The limits of memory and time.
    #[command(flatten)]
    pub bounds: BoundArgs,
    /// The recordings of a replay.
    #[command(flatten)]
    pub replaying: ReplayArgs,
    /// The flags of every program.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The subcommands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Explain a policy in words
    Check(CheckArgs),
    /// Print one request's decision as a timeline
    Explain(ExplainArgs),
}

/// Explain a policy in words, and warn of probable mistakes
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The policy, a TOML file
    #[arg(value_name = "POLICY")]
    pub policy: String,
}

/// Print the decision of one request as a timeline: when each model reported, which model
/// answered, and why
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The messageId of the request
    #[arg(value_name = "ID")]
    pub id: String,

    /// Recorded decisions: plain or compressed files, or folders of rv-archive
    #[arg(value_name = "DECISIONS", required = true)]
    pub decisions: Vec<Address>,
}

/// The policy that decides.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct PolicyArgs {
    /// The policy, a TOML file
    #[arg(long, value_name = "FILE")]
    pub policy: Option<String>,

    /// Use this preference instead of a policy file: the first model may answer from
    /// the start, and each further model an equal part of the deadline later
    #[arg(
        long,
        value_name = "NAME@VERSION,...",
        value_delimiter = ',',
        conflicts_with = "policy",
        requires = "deadline"
    )]
    prefer: Vec<String>,

    /// Answer a request at the latest this long after its timestamp
    #[arg(long, value_name = "DURATION", requires = "prefer", value_parser = duration)]
    deadline: Option<Duration>,

    /// Store each policy that takes effect in DIR, under its hash
    #[arg(long, conflicts_with = "replay", value_name = "DIR")]
    pub keep_policies: Option<PathBuf>,
}

/// The recordings of a replay.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Replay")]
pub struct ReplayArgs {
    /// Replay recorded --requests and --scores, or the decisions in --input
    #[arg(long)]
    pub replay: bool,

    /// Replay the decisions in PATH: a file, an archive's folder, or `-`
    #[arg(short, long, value_name = "PATH", requires = "replay", conflicts_with_all = ["requests", "scores"])]
    pub input: Option<Address>,

    /// Replay each decision under its own policy, which --keep-policies stored in DIR
    #[arg(long, value_name = "DIR", requires = "replay",
        conflicts_with_all = ["policy", "prefer", "requests"])]
    pub policies: Option<PathBuf>,

    /// Allow the timestamps of a recording to be out of order by this much
    #[arg(long, value_name = "DURATION", default_value = "1s", requires = "replay",
        value_parser = duration)]
    pub disorder: Duration,
}

/// The limits of memory and time.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Bounds")]
pub struct BoundArgs {
    /// Hold at most N requests; if there are more, answer the oldest at once
    #[arg(long, conflicts_with = "replay", value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    max_open: u32,

    /// Use at most this much memory for requests and their scores; if more is needed,
    /// answer the oldest request at once. Scores that no answer needs (duplicates,
    /// and those of models that the policy does not name) get half of it
    #[arg(long, conflicts_with = "replay", value_name = "SIZE", default_value_t = ByteSize::gib(1))]
    max_open_bytes: ByteSize,

    /// Use at most this much memory for the scores of one request; half of it is for
    /// the models that the policy names. Further scores are counted and not kept
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    max_mailbox_bytes: ByteSize,

    /// Count late scores for this long after the deadline
    #[arg(long, conflicts_with = "replay", value_name = "DURATION", default_value = "1s",
        value_parser = duration)]
    linger: Duration,

    /// Remember the ids of the last N closed requests. A request whose id is known is
    /// counted and not answered again
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub remember: u32,

    /// Use at most this much memory for scores that wait for their requests; if more
    /// is needed, drop the oldest score of the pipe with the most
    #[arg(long, conflicts_with = "replay", value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    orphan_bytes: ByteSize,

    /// Keep a score for this long if its request has not arrived
    #[arg(long, conflicts_with = "replay", value_name = "DURATION", default_value = "5s",
        value_parser = duration)]
    orphan_age: Duration,

    /// Let at most this much wait for the reader of a route, or of the decisions; if
    /// more waits, drop the oldest records
    #[arg(long, conflicts_with = "replay", value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    queue: ByteSize,
}

impl BoundArgs {
    /// The limits of a rendezvous in service, with a random seed.
    pub fn mailbox_limits(&self) -> MailboxLimits {
        MailboxLimits {
            mailboxes_max: self.max_open as usize,
            linger: Micros::from_duration(self.linger),
            remembered_max: self.remember as usize,
            seed: uuid::Uuid::new_v4().as_u64_pair().0,
            mailbox_bytes_max: bytes(self.max_open_bytes),
            scores_bytes_max: bytes(self.max_mailbox_bytes),
            orphan_bytes_max: bytes(self.orphan_bytes),
            orphan_age_max: Micros::from_duration(self.orphan_age),
        }
    }

    /// The memory for the scores of one recorded request.
    pub fn score_room(&self) -> ScoreRoom {
        ScoreRoom::half_named(bytes(self.max_mailbox_bytes))
    }

    /// The largest number of bytes that wait for one reader.
    pub fn queue_bytes(&self) -> usize {
        bytes(self.queue)
    }
}

fn route(text: &str) -> Result<(String, Address), String> {
    match text.split_once('=') {
        Some((address, path)) if !address.is_empty() && !path.is_empty() => {
            Ok((address.to_owned(), Address::from(path)))
        }
        _ => Err("has the form ADDRESS=PATH".to_owned()),
    }
}

impl PolicyArgs {
    /// Reads the policy. Call this again when the file may have changed.
    pub fn load(&self) -> Result<Policy> {
        match (&self.policy, self.deadline) {
            (Some(path), _) => load_policy(path),
            (None, Some(deadline)) => {
                Policy::from_preference(&self.prefer, deadline).map_err(usage)
            }
            (None, None) => Err(usage(
                "no policy: name its file with --policy, or the models with --prefer and --deadline",
            )),
        }
    }
}

impl RendezvousArgs {
    /// The address of the requests. The error says which flags are missing.
    pub fn requests(&self) -> Result<&Address> {
        self.requests.as_ref().ok_or_else(|| {
            usage("nothing to read: name the pipes with --requests and --scores, or --replay")
        })
    }
}
