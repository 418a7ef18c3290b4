//! The flags of `rv-rendezvous` and its subcommands, and their checking.

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
/// SIGHUP reads the policy again. Open requests keep the policy they came under.
/// With --replay, recorded requests and scores, or recorded decisions, run through
/// a policy without a clock: the same input and policy give the same bytes.
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
    /// What is to be done instead of answering requests.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The pipe that brings the requests; `-` is standard input
    #[arg(long, value_name = "PATH", requires = "scores")]
    pub requests: Option<Address>,

    /// The pipes that bring the scores. A folder stands for all named pipes in it;
    /// they may come and go
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "requests")]
    pub scores: Vec<Address>,

    /// When the last writer of a pipe has closed it, wait for the next one
    #[arg(long, conflicts_with = "replay")]
    pub follow: bool,

    /// Where the responses go.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Send the responses whose returnAddress is ADDRESS to PATH
    #[arg(long, value_name = "ADDRESS=PATH", value_parser = route)]
    pub route: Vec<(String, Address)>,

    /// Write a record of each request when no more scores of it can count: the
    /// request, its answer, all its scores and what became of each
    #[arg(long, value_name = "PATH")]
    pub decisions: Option<Address>,

    /// Which policy decides.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Bounds of memory and time.
    #[command(flatten)]
    pub bounds: BoundArgs,
    /// What is replayed.
    #[command(flatten)]
    pub replaying: ReplayArgs,
    /// The flags of every program.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The subcommands.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Say in words what a policy does
    Check(CheckArgs),
    /// Print one request's decision as a timeline
    Explain(ExplainArgs),
}

/// Say in words what a policy does, and warn of what is probably a mistake
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The policy, a TOML file
    #[arg(value_name = "POLICY")]
    pub policy: String,
}

/// Print one request's decision as a timeline: which model reported when, which
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

/// Which policy decides.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct PolicyArgs {
    /// The policy, a TOML file
    #[arg(long, value_name = "FILE")]
    pub policy: Option<String>,

    /// A preference instead of a policy file: the first model alone may answer from
    /// the start, and each next one joins at an equal part of the deadline
    #[arg(
        long,
        value_name = "NAME@VERSION,...",
        value_delimiter = ',',
        conflicts_with = "policy",
        requires = "deadline"
    )]
    prefer: Vec<String>,

    /// The last moment of an answer, measured from a request's timestamp
    #[arg(long, value_name = "DURATION", requires = "prefer", value_parser = duration)]
    deadline: Option<Duration>,

    /// Store each policy that comes into force in DIR, under its hash
    #[arg(long, conflicts_with = "replay", value_name = "DIR")]
    pub keep_policies: Option<PathBuf>,
}

/// What is replayed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Replay")]
pub struct ReplayArgs {
    /// Run recorded --requests and --scores, or the decisions in --input
    #[arg(long)]
    pub replay: bool,

    /// The recorded decisions: a file, an archive's folder, or `-`
    #[arg(short, long, value_name = "PATH", requires = "replay", conflicts_with_all = ["requests", "scores"])]
    pub input: Option<Address>,

    /// Replay each decision under its own policy, which --keep-policies stored in DIR
    #[arg(long, value_name = "DIR", requires = "replay",
        conflicts_with_all = ["policy", "prefer", "requests"])]
    pub policies: Option<PathBuf>,

    /// By how much the timestamps of a recording may be out of order
    #[arg(long, value_name = "DURATION", default_value = "1s", requires = "replay",
        value_parser = duration)]
    pub disorder: Duration,
}

/// Bounds of memory and time.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Bounds")]
pub struct BoundArgs {
    /// The most requests that are held; past it the oldest is answered at once
    #[arg(long, conflicts_with = "replay", value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    max_open: u32,

    /// The most memory that the requests and their scores take; past it the oldest
    /// request is answered at once. Scores that no answer needs (duplicates, and those
    /// of models that the policy does not name) get half of it
    #[arg(long, conflicts_with = "replay", value_name = "SIZE", default_value_t = ByteSize::gib(1))]
    max_open_bytes: ByteSize,

    /// The most memory that the scores of one request take; half of it is for the
    /// models that the policy names. Further scores are counted and not kept
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    max_mailbox_bytes: ByteSize,

    /// How long late scores are counted after the deadline
    #[arg(long, conflicts_with = "replay", value_name = "DURATION", default_value = "1s",
        value_parser = duration)]
    linger: Duration,

    /// How many ids are remembered after that. A request whose id is known is counted
    /// and not answered again
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub remember: u32,

    /// The most memory of scores that wait for their requests; past it the oldest of
    /// the pipe that holds the most is dropped
    #[arg(long, conflicts_with = "replay", value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    orphan_bytes: ByteSize,

    /// How long a score waits for its request
    #[arg(long, conflicts_with = "replay", value_name = "DURATION", default_value = "5s",
        value_parser = duration)]
    orphan_age: Duration,

    /// The most that waits for the reader of a route, or of the decisions; past it
    /// the oldest records are dropped
    #[arg(long, conflicts_with = "replay", value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    queue: ByteSize,
}

impl BoundArgs {
    /// The limits of a run in service, with a random seed.
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

    /// The room for the scores of one request of a recording.
    pub fn score_room(&self) -> ScoreRoom {
        ScoreRoom::half_named(bytes(self.max_mailbox_bytes))
    }

    /// The most that waits for one reader, in bytes.
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
    /// Reads the policy. Call it again when the file may have changed.
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
