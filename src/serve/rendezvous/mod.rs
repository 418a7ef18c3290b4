//! requests, scores -> responses: one answer a request, before its deadline.

pub mod counts;
pub mod decision;
mod live;
pub mod mailbox;
pub mod policy;
mod response;

use std::fs;
use std::time::Duration;

use anyhow::Result;
use bytesize::ByteSize;
use clap::{Args, Parser};

use crate::serve::rendezvous::mailbox::Limits;
use crate::serve::rendezvous::policy::Policy;
use crate::stage::cli::{Program, RunArgs, VERSION, duration};
use crate::stage::filter::OutputArgs;
use crate::stage::{Stage, usage};
use crate::wire::micros::Micros;

/// Join requests with the scores of all models, and answer each by a policy
/// before its deadline.
///
/// SIGHUP reads the policy again; requests that are open keep theirs.
#[derive(Parser, Clone, Debug)]
#[command(name = "rv-rendezvous", version = VERSION, after_help = "\
Examples:
  rv-rendezvous --requests requests --scores dt.scores --scores lr.scores \\
    --policy policy.toml -o responses
  rv-rendezvous --requests requests --scores dt.scores lr.scores \\
    --prefer dt@1,lr@0 --deadline 100ms")]
pub struct RendezvousArgs {
    /// The pipe that brings the requests; `-` is standard input
    #[arg(long, value_name = "PATH")]
    requests: String,

    /// The pipes that bring the scores
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    scores: Vec<String>,

    /// Where pipes have no writer left, wait for the next ones
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    bounds: BoundArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Args, Clone, Debug)]
#[group(skip)]
struct PolicyArgs {
    /// The policy, a TOML file
    #[arg(long, value_name = "FILE", required_unless_present = "prefer")]
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
    #[arg(long, value_name = "DURATION", requires = "prefer",
        value_parser = duration)]
    deadline: Option<Duration>,
}

#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Bounds")]
struct BoundArgs {
    /// How many requests may be held; past it the oldest is answered at once
    #[arg(long, value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    max_open: u32,

    /// How long to count late scores after a deadline
    #[arg(long, value_name = "DURATION", default_value = "1s",
        value_parser = duration)]
    linger: Duration,

    /// How many ids are known after that, so that a request that comes again is
    /// not answered again
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    remember: u32,

    /// How much of scores may wait for their requests
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    orphan_bytes: ByteSize,

    /// How long a score waits for its request
    #[arg(long, value_name = "DURATION", default_value = "5s",
        value_parser = duration)]
    orphan_age: Duration,
}

impl BoundArgs {
    fn limits(&self) -> Limits {
        Limits {
            mailboxes_max: self.max_open as usize,
            linger: Micros::from_duration(self.linger),
            remembered_max: self.remember as usize,
            orphan_bytes_max: usize::try_from(self.orphan_bytes.as_u64()).unwrap_or(usize::MAX),
            orphan_age_max: Micros::from_duration(self.orphan_age),
        }
    }
}

impl PolicyArgs {
    /// Reads the policy; to be called again when the file may have changed.
    fn load(&self) -> Result<Policy> {
        match (&self.policy, self.deadline) {
            (Some(path), _) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| usage(format!("{path}: cannot read the policy: {error}")))?;
                Policy::parse(&text, path).map_err(usage)
            }
            (None, Some(deadline)) => {
                Policy::from_preference(&self.prefer, deadline).map_err(usage)
            }
            (None, None) => Err(usage("no policy: name its file with --policy")),
        }
    }
}

impl Program for RendezvousArgs {
    const NAME: &'static str = "rv-rendezvous";

    fn run_args(&self) -> &RunArgs {
        &self.run
    }

    fn run(self, stage: &mut Stage) -> Result<()> {
        let policy = self.policy.load()?;
        live::run(stage, &self, policy)
    }
}
