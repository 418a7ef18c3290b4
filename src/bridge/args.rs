//! The flags of `rv-bridge` and their checks.

use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

use crate::bridge::address::{FromAddress, ToAddress};
use crate::stage::cli::{RunArgs, VERSION, duration};

/// Put a program between the topics of a broker: Kafka, NATS JetStream or Pulsar
///
/// The program reads lines and writes lines, as every stage does. A message is
/// acknowledged when what came of it is safe: when the broker has stored the output, or
/// when a program without --to has written it. So no message is lost if the bridge, the
/// program or the broker is killed. A message may come twice then.
///
/// SIGTERM and SIGINT stop the consuming. The program gets the end of its input, and the
/// bridge ends when the last output is safe.
#[derive(Parser, Clone, Debug)]
#[command(name = "rv-bridge", version = VERSION, args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  rv-bridge --from 'kafka://b:9092/requests?group=dt' --to kafka://b:9092/scores \\
    -- rv-score --model dt.json
  rv-bridge --from 'nats://b:4222/REQUESTS/requests?group=archive' -- rv-archive --dir logs --pass
  rv-bridge --from 'requests=nats://b:4222/RV/requests?group=rv' \\
    --from 'scores=nats://b:4222/RV/scores?group=rv&done=age:30s' \\
    --to responses=nats://b:4222/RV/responses --to decisions=nats://b:4222/RV/decisions \\
    --done responses,decisions -- rv-rendezvous --requests {requests} --scores {scores} \\
    -o {responses} --decisions {decisions} --decisions-block --policy p.toml
  rv-bridge --from kafka://b:9092/requests
  rv-bridge check --from 'kafka://b:9092/requests?group=dt' --to kafka://b:9092/scores")]
pub struct BridgeArgs {
    /// The subcommand, if the bridge does not run.
    #[command(subcommand)]
    pub(super) command: Option<BridgeCommand>,

    /// The streams and the program.
    #[command(flatten)]
    pub(super) streams: StreamArgs,

    /// The flags of every program.
    #[command(flatten)]
    pub(super) run: RunArgs,
}

/// The subcommands.
#[derive(Subcommand, Clone, Debug)]
pub(super) enum BridgeCommand {
    /// Connect, and say in words what the bridge would do: topics, partitions, groups, and
    /// who acknowledges when. Nothing is consumed or changed
    Check(Box<StreamArgs>),
}

/// The streams and the program.
#[derive(Args, Clone, Debug)]
pub(super) struct StreamArgs {
    /// Consume a topic: [NAME=]kafka://HOST:PORT/TOPIC, nats://HOST:PORT/STREAM/SUBJECT or
    /// pulsar://HOST:PORT/TENANT/NAMESPACE/TOPIC, then ?OPTION=VALUE&... Options: group,
    /// from, partitions, done, mark. Without NAME, the program reads it from its standard
    /// input
    #[arg(long, value_name = "[NAME=]ADDRESS")]
    pub from: Vec<FromAddress>,

    /// Publish to a topic. Options: partition, allow. Without NAME, the program writes it
    /// to its standard output. `{FIELD}` in the topic is filled from the record
    #[arg(long, value_name = "[NAME=]ADDRESS")]
    pub to: Vec<ToAddress>,

    /// A message is finished when a record with its messageId is safe in each of these
    /// outputs
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub done: Vec<String>,

    /// An output also finishes all messages that the program was given before its own.
    /// For programs that keep the order and swallow records
    #[arg(long)]
    pub ordered: bool,

    /// Publish what cannot be worked on to this topic, with the reason. `{rejects}` in the
    /// program's arguments becomes the path of a pipe for its own --rejects
    #[arg(long, value_name = "ADDRESS", conflicts_with = "rejects")]
    pub rejects_to: Option<ToAddress>,

    /// The program must answer a message within this time. Then the message goes to the
    /// rejects as `no output`. The time stands still while the broker takes no outputs
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub unanswered: Duration,

    /// If the program dies, start it again and give it the messages that it had in hand
    /// one at a time. A message that was in hand at N deaths goes to the rejects
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_deaths: u32,

    /// Hold at most N messages of each input that are not acknowledged
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: u32,

    /// Hold at most SIZE of messages of each input
    #[arg(long, value_name = "SIZE", default_value_t = ByteSize::mib(64))]
    pub max_in_flight_bytes: ByteSize,

    /// Kafka: consume at most N messages after the first one of a partition that is not
    /// finished
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_span: u32,

    /// Let at most N records be on their way to the broker, unconfirmed
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_publishing: u32,

    /// Remember the last N finished messages and ids of each input, to know a message that
    /// comes again
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub remember: u32,

    /// The program and its arguments. `{NAME}` becomes the path of the pipe of a named
    /// stream
    #[arg(last = true, value_name = "PROGRAM")]
    pub program: Vec<String>,
}

impl BridgeArgs {
    /// The streams, and whether the bridge only checks them.
    pub(super) fn mode(&self) -> (&StreamArgs, bool) {
        match &self.command {
            Some(BridgeCommand::Check(streams)) => (streams, true),
            None => (&self.streams, false),
        }
    }
}
