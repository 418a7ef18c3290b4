//! `rv-compare disagreements`: the requests about which the models disagree, as records
//! for somebody to label.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::num::NonZeroU32;

use anyhow::Result;
use clap::Args;

use crate::compare::legs::{Leg, LegScore, Observation};
use crate::compare::reader::{Observer, Reader};
use crate::compare::report::RecordCounts;
use crate::compare::source_args::SourceArgs;
use crate::compare::values::Equality;
use crate::stage::Stage;
use crate::stage::stats::Snapshot;
use crate::stage::streams::OutputArgs;
use crate::wire::answer::number;
use crate::wire::object::{ObjectWriter, value_of};

/// Write the requests about which the models disagree
///
/// Each line has the id, the time and the model input of a request, and the whole result
/// of both models. Scores have no model input here; decisions have it.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:
  rv-compare disagreements --base dt@1 --candidate lr@0 -i decisions.archive --top 100 > to-label.ndjson")]
pub struct DisagreementsArgs {
    #[command(flatten)]
    source: SourceArgs,

    /// Write only the N requests on which both models are surest, the surest first. The
    /// lower confidence of both counts
    #[arg(long, value_name = "N")]
    top: Option<NonZeroU32>,

    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `rv-compare disagreements`.
pub fn run(args: &DisagreementsArgs, stage: &mut Stage) -> Result<()> {
    let roles = args.source.roles(None)?;
    let writer = Disagreements {
        equality: args.source.equality(),
        top: args.top.map(|top| top.get() as usize),
        surest: BinaryHeap::new(),
        pairs: 0,
        written: 0,
    };
    Reader::new(&args.source, roles, writer, stage).run(&args.source, &args.output, stage)
}

struct Disagreements {
    equality: Equality,
    top: Option<usize>,
    /// The surest disagreements so far. The heap's first is the least sure.
    surest: BinaryHeap<Sure>,
    pairs: u64,
    written: u64,
}

/// A line, and how sure both models are.
struct Sure {
    confidence: f64,
    /// The number of the pair. Of equally sure ones the earlier is kept.
    number: u64,
    line: Vec<u8>,
}

impl Ord for Sure {
    fn cmp(&self, other: &Sure) -> Ordering {
        let by_confidence = other.confidence.total_cmp(&self.confidence);
        by_confidence.then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Sure {
    fn partial_cmp(&self, other: &Sure) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sure {
    fn eq(&self, other: &Sure) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Sure {}

fn confidence(score: &LegScore) -> f64 {
    let given = value_of(score.outcome, "confidence").and_then(number);
    given.unwrap_or(0.0)
}

fn line(seen: &Observation, base: &LegScore, candidate: &LegScore, out: &mut Vec<u8>) {
    let mut record = ObjectWriter::new(out);
    record.string("messageId", seen.message_id);
    if let Some(time) = seen.time {
        record.display("timestamp", time.as_seconds());
    }
    if let Some(model_input) = seen.model_input {
        record.raw("modelInput", model_input);
    }
    record.raw("base", base.outcome);
    record.raw("candidate", candidate.outcome);
    record.end();
    out.push(b'\n');
}

impl Observer for Disagreements {
    fn observe(&mut self, _: &mut Stage, seen: &Observation, out: &mut Vec<u8>) -> Result<()> {
        let (Some(base), Some(candidate)) = (seen.score(Leg::Base), seen.score(Leg::Candidate))
        else {
            return Ok(());
        };
        let (Some(one), Some(other)) = (base.answer(), candidate.answer()) else {
            return Ok(());
        };
        self.pairs += 1;
        if self.equality.is_same(one, other) {
            return Ok(());
        }
        let Some(top) = self.top else {
            self.written += 1;
            line(seen, base, candidate, out);
            return Ok(());
        };
        let mut sure = Sure {
            confidence: confidence(base).min(confidence(candidate)),
            number: self.pairs,
            line: Vec::new(),
        };
        if self.surest.len() >= top && self.surest.peek().is_some_and(|least| sure >= *least) {
            return Ok(());
        }
        line(seen, base, candidate, &mut sure.line);
        self.surest.push(sure);
        if self.surest.len() > top {
            self.surest.pop();
        }
        Ok(())
    }

    fn conclude(&mut self, _: &mut Stage, _: &RecordCounts, out: &mut Vec<u8>) -> Result<()> {
        for sure in std::mem::take(&mut self.surest).into_sorted_vec() {
            self.written += 1;
            out.extend_from_slice(&sure.line);
        }
        Ok(())
    }

    fn snapshot(&self, snapshot: Snapshot) -> Snapshot {
        snapshot
            .count("pairs", self.pairs)
            .count("out", self.written)
    }
}
