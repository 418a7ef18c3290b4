//! requests, scores -> responses: one answer a request, before its deadline.

mod check;
pub mod counts;
pub mod decision;
mod explain;
mod inputs;
mod live;
pub mod mailbox;
pub mod mailboxes;
mod orphans;
pub mod policy;
mod record;
mod remembered;
mod replay;
mod routes;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

use crate::serve::rendezvous::check::CheckArgs;
use crate::serve::rendezvous::explain::ExplainArgs;
use crate::serve::rendezvous::mailbox::Room;
use crate::serve::rendezvous::mailboxes::Limits;
use crate::serve::rendezvous::policy::Policy;
use crate::stage::cli::bytes;
use crate::stage::cli::{RunArgs, VERSION, duration};
use crate::stage::program::Program;
use crate::stage::streams::OutputArgs;
use crate::stage::{Stage, usage};
use crate::stream::address::Address;
use crate::wire::micros::Micros;

/// Join requests with the scores of all models, and answer each by a policy
/// before its deadline.
///
/// SIGHUP reads the policy again; requests that are open keep theirs. With
/// --replay, recorded requests and scores, or recorded decisions, run through a
/// policy without a clock: the same input and policy give the same bytes.
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
    #[command(subcommand)]
    command: Option<Command>,

    /// The pipe that brings the requests; `-` is standard input
    #[arg(long, value_name = "PATH", requires = "scores")]
    requests: Option<Address>,

    /// The pipes that bring the scores. Of a folder, every named pipe is one, as
    /// it comes and goes
    #[arg(long, value_name = "PATH", num_args = 1.., requires = "requests")]
    scores: Vec<Address>,

    /// Where pipes have no writer left, wait for the next ones
    #[arg(long, conflicts_with = "replay")]
    follow: bool,

    #[command(flatten)]
    output: OutputArgs,

    /// Send the responses whose returnAddress is ADDRESS to PATH
    #[arg(long, value_name = "ADDRESS=PATH", value_parser = route)]
    route: Vec<(String, Address)>,

    /// Write one record a request, when it can get no more scores: the request,
    /// its answer, all scores and what became of them
    #[arg(long, value_name = "PATH")]
    decisions: Option<Address>,

    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    bounds: BoundArgs,
    #[command(flatten)]
    replaying: ReplayArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Say in words what a policy does
    Check(CheckArgs),
    /// Tell the story of one request from recorded decisions
    Explain(ExplainArgs),
}

#[derive(Args, Clone, Debug)]
#[group(skip)]
struct PolicyArgs {
    /// The policy, a TOML file
    #[arg(long, value_name = "FILE")]
    policy: Option<String>,

    /// Instead of a policy: the models in order of preference. The first alone
    /// may answer at the start, each next one from an equal part of the deadline
    /// on
    #[arg(
        long,
        value_name = "NAME@VERSION,...",
        value_delimiter = ',',
        conflicts_with = "policy",
        requires = "deadline"
    )]
    prefer: Vec<String>,

    /// The last moment of an answer, from a request's timestamp
    #[arg(long, value_name = "DURATION", requires = "prefer", value_parser = duration)]
    deadline: Option<Duration>,

    /// Store each policy in force in DIR, under its hash
    #[arg(long, conflicts_with = "replay", value_name = "DIR")]
    keep_policies: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Replay")]
struct ReplayArgs {
    /// Run recorded --requests and --scores, or the decisions in --input
    #[arg(long)]
    replay: bool,

    /// The recorded decisions: a file, an archive's folder, or `-`
    #[arg(short, long, value_name = "PATH", requires = "replay", conflicts_with_all = ["requests", "scores"])]
    input: Option<Address>,

    /// Replay each decision under its own policy, as --keep-policies has stored it
    #[arg(long, value_name = "DIR", requires = "replay",
        conflicts_with_all = ["policy", "prefer", "requests"])]
    policies: Option<PathBuf>,

    /// How far the records of a recording may be out of order, by timestamp
    #[arg(long, value_name = "DURATION", default_value = "1s", requires = "replay",
        value_parser = duration)]
    disorder: Duration,
}

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Bounds")]
struct BoundArgs {
    /// How many requests may be held; past it the oldest is answered at once
    #[arg(long, conflicts_with = "replay", value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    max_open: u32,

    /// How much memory they may take. Scores that no answer needs (duplicates, and
    /// those of models that the policy does not name) get half of it
    #[arg(long, conflicts_with = "replay", value_name = "SIZE", default_value_t = ByteSize::gib(1))]
    max_open_bytes: ByteSize,

    /// How much memory the scores of one request may take; half of it is for the
    /// models that the policy names. Further scores are counted as unused and not
    /// kept
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    max_mailbox_bytes: ByteSize,

    /// How long to count late scores after a deadline
    #[arg(long, conflicts_with = "replay", value_name = "DURATION", default_value = "1s",
        value_parser = duration)]
    linger: Duration,

    /// How many ids are known after that, so that a request that comes again is
    /// not answered again
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    remember: u32,

    /// How much of scores may wait for their requests
    #[arg(long, conflicts_with = "replay", value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    orphan_bytes: ByteSize,

    /// How long a score waits for its request
    #[arg(long, conflicts_with = "replay", value_name = "DURATION", default_value = "5s",
        value_parser = duration)]
    orphan_age: Duration,

    /// How much may wait for the reader of a route, or of the decisions; past it
    /// the oldest records are dropped
    #[arg(long, conflicts_with = "replay", value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    queue: ByteSize,
}

impl BoundArgs {
    fn limits(&self) -> Limits {
        Limits {
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
    fn room(&self) -> Room {
        Room::half_named(bytes(self.max_mailbox_bytes))
    }

    fn queue_bytes(&self) -> usize {
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
    /// Reads the policy; to be called again when the file may have changed.
    fn load(&self) -> Result<Policy> {
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

fn load_policy(path: &str) -> Result<Policy> {
    let text = fs::read_to_string(path)
        .map_err(|error| usage(format!("{path}: cannot read the policy: {error}")))?;
    Policy::parse(&text, path).map_err(usage)
}

/// Where a policy of that hash is stored.
fn policy_path(folder: &Path, hash: &str) -> PathBuf {
    folder.join(format!("{hash}.toml"))
}

impl RendezvousArgs {
    fn live_requests(&self) -> Result<&Address> {
        self.requests.as_ref().ok_or_else(|| {
            usage("nothing to read: name the pipes with --requests and --scores, or --replay")
        })
    }

    /// Stores a policy that comes in force, where that was asked for.
    fn keep_policy(&self, policy: &Policy) -> Result<()> {
        let Some(folder) = &self.policy.keep_policies else {
            return Ok(());
        };
        let keep = || {
            fs::create_dir_all(folder)?;
            let path = policy_path(folder, &policy.hash);
            let new = path.with_extension("toml.new");
            fs::write(&new, &policy.text)?;
            fs::rename(new, path)
        };
        keep().with_context(|| format!("{}: cannot keep the policy", folder.display()))
    }
}

impl Program for RendezvousArgs {
    const NAME: &'static str = "rv-rendezvous";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        match &self.command {
            Some(Command::Check(args)) => check::run(args, stage),
            Some(Command::Explain(args)) => explain::run(args, stage),
            None if self.replaying.replay => replay::run(stage, &self),
            None => {
                self.live_requests()?;
                live::run(stage, &self, self.policy.load()?)
            }
        }
    }
}
