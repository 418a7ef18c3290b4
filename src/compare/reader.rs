//! Reads decisions and scores, and hands over each request once, with what each model
//! answered.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use anyhow::Result;

use crate::compare::decisions::{ReadDecision, quick_decision, read_decision};
use crate::compare::legs::{ByLeg, Leg, LegScore, Observation, Roles};
use crate::compare::report::RecordCounts;
use crate::compare::source_args::SourceArgs;
use crate::compare::steady_time::SteadyTime;
use crate::join::kept_score::{KeptScore, Seat};
use crate::join::merged_streams::{MergedStreams, Recorded, elapsed_of};
use crate::join::remembered_ids::RememberedIds;
use crate::join::request_id::{RECORDING_SEED, RequestId, hash_id};
use crate::join::window::{END_OF_STREAM, JoinWindow};
use crate::stage::Stage;
use crate::stage::cli::bytes;
use crate::stage::filter::{self, Filter};
use crate::stage::stats::Snapshot;
use crate::stage::streams::{OutputArgs, Streams, refuse_same_file};
use crate::stream::output::Output;
use crate::wire::lines::Line;
use crate::wire::message::{Field, OutcomeKind, Record, Score};
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;

/// Output of recorded streams is written when it has this many bytes.
const WRITE_BYTES: usize = 256 * 1024;

/// What is done with the requests.
pub trait Observer {
    /// Takes a request. Appends output to `out`.
    fn observe(&mut self, stage: &mut Stage, seen: &Observation, out: &mut Vec<u8>) -> Result<()>;

    /// Whether no further request is wanted.
    fn is_satisfied(&self) -> bool {
        false
    }

    /// Whether the model input of scores is needed, too. It takes memory.
    fn needs_input(&self) -> bool {
        false
    }

    /// Takes a line of the pipe of labels.
    fn take_label_line(&mut self, _stage: &mut Stage, _input: &str, _line: &Line) -> Result<()> {
        Ok(())
    }

    /// Takes what was found in the background, and starts further work. Never waits.
    fn collect(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// A descriptor that becomes readable when [`collect`](Observer::collect) has more to
    /// take.
    fn collecting(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The time at which [`collect`](Observer::collect) has work to start.
    fn collect_due(&self) -> Option<Instant> {
        None
    }

    /// Waits for the work in the background, and takes what it finds.
    fn collect_rest(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// Called at the end. Appends the last output to `out`.
    fn conclude(
        &mut self,
        stage: &mut Stage,
        counts: &RecordCounts,
        out: &mut Vec<u8>,
    ) -> Result<()>;

    /// Called when the output is closed.
    fn finish(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }

    /// Adds its own counts.
    fn snapshot(&self, snapshot: Snapshot) -> Snapshot;
}

/// A score that waits for the scores of other models.
#[derive(Clone, Debug)]
struct HeldScore {
    score: KeptScore,
    after: Option<Micros>,
}

/// A request that waits for scores.
#[derive(Clone, Debug)]
struct OpenRequest {
    id: RequestId,
    time: Option<Micros>,
    model_input: Option<String>,
    scores: ByLeg<Option<HeldScore>>,
}

impl OpenRequest {
    fn input_bytes(&self) -> usize {
        self.model_input.as_ref().map_or(0, String::len)
    }

    /// The memory of the texts, in bytes.
    fn bytes(&self) -> usize {
        let scores = self.scores.iter().flatten();
        let of_scores: usize = scores.map(|held| held.score.text_bytes()).sum();
        of_scores + self.input_bytes()
    }
}

/// Reads records for an observer.
pub struct Reader<O> {
    observer: O,
    roles: Roles,
    counts: RecordCounts,
    /// The ids of the decisions that were seen.
    seen: RememberedIds,
    waiting: JoinWindow<OpenRequest, ()>,
    open_max: usize,
    /// The bytes of the texts of the requests that wait, and their bound.
    open_bytes: usize,
    open_bytes_max: usize,
    clock: SteadyTime,
    /// Whether the last record was a decision.
    expects_decision: bool,
    /// The time of the stream at the last score.
    last: Micros,
    /// The time of the last record, if it is believable.
    last_believed: Micros,
    /// The lines that were rejected before the first record, such as labels.
    rejected_before: u64,
}

impl<O: Observer> Reader<O> {
    /// Starts without a record.
    pub fn new(args: &SourceArgs, roles: Roles, observer: O, stage: &Stage) -> Reader<O> {
        Reader {
            observer,
            roles,
            counts: RecordCounts::default(),
            seen: RememberedIds::new(args.remember as usize, RECORDING_SEED),
            waiting: JoinWindow::new(Micros::from_duration(args.disorder), args.remember as usize),
            open_max: args.max_open.get() as usize,
            open_bytes: 0,
            open_bytes_max: bytes(args.max_open_bytes),
            expects_decision: true,
            clock: SteadyTime::new(Micros::from_duration(args.disorder)),
            last: Micros(0),
            last_believed: Micros(0),
            rejected_before: stage.report.rejected(),
        }
    }

    /// The believed time of the last record.
    pub fn last_time(&self) -> Micros {
        self.last_believed
    }

    /// What is done with the requests.
    pub fn observer(&self) -> &O {
        &self.observer
    }

    /// What is done with the requests.
    pub fn observer_mut(&mut self) -> &mut O {
        &mut self.observer
    }

    /// Reads all records, and writes what the observer writes.
    pub fn run(mut self, args: &SourceArgs, output: &OutputArgs, stage: &mut Stage) -> Result<()> {
        if args.scores.is_empty() {
            let streams = Streams::open(&args.input, output)?;
            return filter::run(stage, streams, &mut self);
        }
        for address in &args.scores {
            refuse_same_file(address, &output.output)?;
        }
        let mut to = Output::open(&output.output)?;
        let mut out = match output.resume {
            true => b"\n".to_vec(),
            false => Vec::new(),
        };
        let mut records = MergedStreams::open_scores(&args.scores, stage)?;
        loop {
            if records.may_wait() || out.len() >= WRITE_BYTES {
                stage.write_all(&mut to, &mut out)?;
            }
            if stage.stats.due().is_some_and(|due| due <= Instant::now()) {
                stage.show_stats(|stage| self.snapshot(stage));
            }
            if self.observer.is_satisfied() {
                break;
            }
            let Some(next) = records.next(stage)? else {
                break;
            };
            self.counts.valid += 1;
            if let Recorded::Score(score) = next.record {
                let after = next.is_timed.then_some(score.at);
                let held = HeldScore { score, after };
                self.take_score(next.id, Some(next.time), held, None, stage, &mut out)?;
            }
        }
        self.finish_output(stage, &mut out)?;
        stage.report.flush()?;
        stage.write_all(&mut to, &mut out)?;
        stage.close(&mut to)?;
        self.observer.finish(stage)?;
        let snapshot = self.snapshot(stage);
        stage.final_stats(&snapshot);
        Ok(())
    }

    /// Compares the requests that still wait, and lets the observer conclude.
    fn finish_output(&mut self, stage: &mut Stage, out: &mut Vec<u8>) -> Result<()> {
        self.close_passed(END_OF_STREAM, stage, out)?;
        let counts = self.counts(stage);
        self.observer.conclude(stage, &counts, out)
    }

    fn counts(&self, stage: &Stage) -> RecordCounts {
        let counts = self.counts;
        let rejected = stage.report.rejected() - self.rejected_before;
        RecordCounts {
            read: counts.valid + rejected,
            rejected,
            ..counts
        }
    }

    fn take_record(
        &mut self,
        bytes: &[u8],
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) -> Result<Option<Reject>> {
        // A stream rarely has both decisions and scores.
        if self.expects_decision
            && let Ok(text) = std::str::from_utf8(bytes)
            && let Some(read) = quick_decision(text, &self.roles)
        {
            self.take_decision(&read, stage, out)?;
            return Ok(None);
        }
        let record = match Record::parse(bytes) {
            Ok(record) => record,
            Err(reject) => return Ok(Some(reject)),
        };
        self.expects_decision = record.get(Field::Candidates).is_some();
        if self.expects_decision {
            return match read_decision(&record, &self.roles) {
                Ok(read) => self.take_decision(&read, stage, out).map(|()| None),
                Err(reject) => Ok(Some(reject)),
            };
        }
        match Score::read(&record) {
            Ok(score) => {
                let model_input = record.get(Field::ModelInput);
                let taken = self.take_live_score(&score, model_input, stage, out)?;
                Ok(taken.err())
            }
            Err(reject) => Ok(Some(reject)),
        }
    }

    fn take_decision(
        &mut self,
        read: &ReadDecision,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let hash = hash_id(&read.message_id, RECORDING_SEED);
        if self.seen.contains_hash(hash) {
            self.counts.repeated += 1;
            return Ok(());
        }
        self.seen.insert_hash(hash);
        self.counts.decisions += 1;
        self.last_believed = read.time;
        self.counts.other_models += read.strangers;
        self.counts.repeated_scores += read.repeated;
        self.observer.observe(stage, &read.observation(), out)
    }

    fn take_live_score(
        &mut self,
        score: &Score,
        model_input: Option<&str>,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) -> Result<Result<(), Reject>> {
        let id = RequestId {
            hash: hash_id(&score.message_id, RECORDING_SEED),
            text: (&*score.message_id).into(),
        };
        let after = match score.elapsed.map(elapsed_of).transpose() {
            Ok(after) => after,
            Err(reject) => return Ok(Err(reject)),
        };
        let held = HeldScore {
            score: KeptScore::of(score, after.unwrap_or(Micros(0)), Seat::Model),
            after,
        };
        let model_input = model_input.filter(|_| self.observer.needs_input());
        self.take_score(id, score.timestamp, held, model_input, stage, out)?;
        Ok(Ok(()))
    }

    fn take_score(
        &mut self,
        id: RequestId,
        time: Option<Micros>,
        held: HeldScore,
        model_input: Option<&str>,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let time = time.filter(|time| time.0 > i64::MIN);
        let (now, believed) = match time {
            Some(time) => self.clock.take(time),
            None => (self.last, self.last),
        };
        self.last = now;
        self.last_believed = believed;
        let score = &held.score;
        let Some(leg) = self.roles.leg_of(&score.model_name, score.model_version) else {
            self.counts.other_models += 1;
            return Ok(());
        };
        self.close_passed(now, stage, out)?;
        let bytes = score.text_bytes();
        if let Some(open) = self.waiting.find(&id) {
            let place = &mut open.scores[leg as usize];
            if place.is_some() {
                self.counts.repeated += 1;
            } else {
                *place = Some(held);
                self.counts.scores += 1;
                self.open_bytes += bytes;
            }
        } else {
            let opened = self.waiting.open(believed, id.clone(), |_| {
                let mut scores: ByLeg<Option<HeldScore>> = [None, None, None, None];
                scores[leg as usize] = Some(held);
                OpenRequest {
                    id,
                    time,
                    model_input: model_input.map(str::to_owned),
                    scores,
                }
            });
            match opened {
                Some((open, _)) => {
                    self.counts.scores += 1;
                    self.open_bytes += bytes + open.input_bytes();
                }
                None => self.counts.after_close += 1,
            }
        }
        while self.waiting.len() > self.open_max
            || (self.open_bytes > self.open_bytes_max && self.waiting.len() > 1)
        {
            self.close_oldest(stage, out)?;
        }
        Ok(())
    }

    fn close_passed(&mut self, time: Micros, stage: &mut Stage, out: &mut Vec<u8>) -> Result<()> {
        while self.waiting.passed(time).is_some() {
            self.close_oldest(stage, out)?;
        }
        Ok(())
    }

    fn close_oldest(&mut self, stage: &mut Stage, out: &mut Vec<u8>) -> Result<()> {
        if let Some(open) = self.waiting.passed(END_OF_STREAM) {
            self.open_bytes = self.open_bytes.saturating_sub(open.bytes());
            let mut scores: ByLeg<Option<LegScore>> = [None; Leg::ALL.len()];
            for (place, held) in scores.iter_mut().zip(&open.scores) {
                *place = held.as_ref().map(|held| {
                    LegScore::new(
                        held.score.kind != OutcomeKind::Result,
                        false,
                        held.after,
                        &held.score.outcome,
                    )
                });
            }
            let seen = Observation {
                message_id: &open.id.text,
                time: open.time.filter(|time| time.0 > i64::MIN),
                model_input: open.model_input.as_deref(),
                answered: None,
                is_decision: false,
                scores,
            };
            self.observer.observe(stage, &seen, out)?;
        }
        self.waiting.close_oldest();
        Ok(())
    }
}

impl<O: Observer> Filter for Reader<O> {
    fn line(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let rejected = match line.record() {
            Ok(None) => return Ok(()),
            Ok(Some(_)) if self.observer.is_satisfied() => return Ok(()),
            Ok(Some(bytes)) => self.take_record(bytes, stage, out)?,
            Err(reject) => Some(reject),
        };
        match rejected {
            Some(reject) => stage.report.reject(input, line, &reject),
            None => {
                self.counts.valid += 1;
                Ok(())
            }
        }
    }

    fn is_satisfied(&self) -> bool {
        self.observer.is_satisfied()
    }

    fn conclude(&mut self, stage: &mut Stage, out: &mut Vec<u8>) -> Result<()> {
        self.finish_output(stage, out)
    }

    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        self.observer.finish(stage)
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        let counts = self.counts(stage);
        let snapshot = Snapshot::default()
            .count("in", counts.read)
            .count("decisions", counts.decisions)
            .count("scores", counts.scores)
            .count("otherModels", counts.other_models)
            .count("repeated", counts.repeated)
            .count("afterClose", counts.after_close)
            .rejected(&stage.report)
            .gauge("open", self.waiting.len() as u64);
        self.observer.snapshot(snapshot)
    }
}
