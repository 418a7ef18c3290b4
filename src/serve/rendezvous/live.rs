//! The rendezvous in service: one thread that waits for all its streams at once.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::PollFlags;

use crate::serve::rendezvous::mailbox::{Effect, Event, Mailboxes, NewRequest};
use crate::serve::rendezvous::policy::Policy;
use crate::serve::rendezvous::{RendezvousArgs, response};
use crate::stage::clock::Clock;
use crate::stage::signals::Stop;
use crate::stage::stats::Snapshot;
use crate::stage::wait::{output_error, wait};
use crate::stage::{EndedEarly, Stage, usage};
use crate::wire::endpoint::{Input, Output, Progress};
use crate::wire::lines::{Line, Lines};
use crate::wire::message::{Record, Score};
use crate::wire::micros::Micros;

/// While this much of the responses is not taken, nothing is read: the reader
/// of the responses sets the pace.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// Answers requests until they end.
pub fn run(stage: &mut Stage, args: &RendezvousArgs, policy: Policy) -> Result<()> {
    let output = Output::open(&args.output.output)?;
    let requests = Stream::open(&args.requests, args, stage)?;
    let mut scores = Vec::new();
    for path in &args.scores {
        scores.push(Stream::open(path, args, stage)?);
    }
    let clock = Clock::system();
    let mut live = Live {
        mailboxes: Mailboxes::new(Rc::new(policy), args.bounds.limits()),
        effects: Vec::new(),
        pending: if args.output.resume {
            b"\n".to_vec()
        } else {
            Vec::new()
        },
        output,
        requests,
        scores,
        scores_ended: false,
        clock,
        started: Instant::now() - clock.monotonic().to_duration(),
    };
    let cut_short = live.serve(stage, args)?;
    live.finish(stage)?;
    match cut_short {
        Some(stop) => Err(EndedEarly::Signal(stop).into()),
        None => Ok(()),
    }
}

struct Stream {
    input: Input,
    lines: Lines,
    ended: bool,
}

impl Stream {
    fn open(path: &str, args: &RendezvousArgs, stage: &Stage) -> Result<Stream> {
        let input = Input::open(path, args.follow)?;
        if input.is_file() {
            return Err(usage(format!(
                "{path}: is a file, and a live rendezvous needs pipes, in which records come when \
                 they happen; feed a file through a pipe made with mkfifo"
            )));
        }
        Ok(Stream {
            input,
            lines: Lines::new(stage.line_bytes_max),
            ended: false,
        })
    }
}

struct Live {
    mailboxes: Mailboxes,
    effects: Vec<Effect>,
    /// Responses that are not written yet.
    pending: Vec<u8>,
    output: Output,
    requests: Stream,
    scores: Vec<Stream>,
    scores_ended: bool,
    clock: Clock,
    /// When the monotonic clock of this program began.
    started: Instant,
}

impl Live {
    /// Runs until the requests have ended and every mailbox is closed, or a
    /// signal ends it. Returns the signal that left no time to finish.
    fn serve(&mut self, stage: &mut Stage, args: &RendezvousArgs) -> Result<Option<Stop>> {
        loop {
            self.write_some()?;
            stage.report.flush()?;
            if stage.signals.take_hangup() {
                self.reload(stage, args);
            }
            stage.show_stats(|stage| self.snapshot(stage));
            if stage.signals.stop() == Some(Stop::Terminate) {
                self.finish_lines(stage)?;
                return Ok(None);
            }
            if let Some(stop) = stage.signals.out_of_time() {
                return Ok(Some(stop));
            }
            if self.requests.ended && self.mailboxes.is_empty() {
                return Ok(None);
            }
            let ready = self.wait(stage)?;
            // One time for all that is read in this wake-up.
            let now = self.clock.monotonic();
            self.read(stage, &ready, now)?;
            self.mailboxes.step(Event::Tick, now, &mut self.effects);
            self.render();
        }
    }

    /// Waits for a stream, a deadline or a signal. Says which streams are ready:
    /// the requests, then the scores in their order.
    fn wait(&mut self, stage: &mut Stage) -> Result<Vec<bool>> {
        let may_read = self.pending.len() < PENDING_BYTES_MAX;
        let mut streams = Vec::with_capacity(self.scores.len() + 2);
        let mut places = Vec::with_capacity(self.scores.len() + 1);
        for stream in std::iter::once(&self.requests).chain(&self.scores) {
            let readiness = stream.input.readiness();
            match readiness.filter(|_| may_read && !stream.ended) {
                Some(fd) => {
                    places.push(Some(streams.len()));
                    streams.push((fd, PollFlags::IN));
                }
                None => places.push(None),
            }
        }
        if let Some(readiness) = self.output.readiness().filter(|_| !self.pending.is_empty()) {
            streams.push(readiness);
        }
        let wake = self.mailboxes.next_wake().map(|wake| self.instant(wake));
        let times = [wake, stage.stats.due(), stage.signals.grace_end()];
        let until = times.into_iter().flatten().min();
        let ready = wait(&streams, &mut stage.signals, until)?;
        Ok(places
            .into_iter()
            .map(|place| place.is_some_and(|place: usize| ready[place]))
            .collect())
    }

    fn instant(&self, time: Micros) -> Instant {
        // A timer set in whole microseconds must not find that it is not time
        // yet, and wait for nothing.
        self.started + time.to_duration() + Duration::from_micros(1)
    }

    /// Reads every ready stream once, the requests first.
    fn read(&mut self, stage: &mut Stage, ready: &[bool], now: Micros) -> Result<()> {
        if ready[0] {
            stage.stats.touch();
            self.requests.ended =
                self.requests.input.read(&mut self.requests.lines)? == Progress::End;
            self.take_requests(stage, now)?;
        }
        for (index, _) in ready[1..].iter().enumerate().filter(|(_, ready)| **ready) {
            stage.stats.touch();
            let stream = &mut self.scores[index];
            stream.ended = stream.input.read(&mut stream.lines)? == Progress::End;
            self.take_scores(index, stage, now)?;
        }
        if !self.scores_ended && self.scores.iter().all(|stream| stream.ended) {
            self.scores_ended = true;
            self.mailboxes
                .step(Event::ScoresEnded, now, &mut self.effects);
        }
        Ok(())
    }

    fn take_requests(&mut self, stage: &mut Stage, now: Micros) -> Result<()> {
        let wall = self.clock.unix();
        let Stream {
            input,
            lines,
            ended,
        } = &mut self.requests;
        while let Some(line) = next_line(lines, *ended) {
            let Some(bytes) = record_of(stage, input.name(), &line)? else {
                continue;
            };
            match read_request(bytes, wall) {
                Ok((message_id, text, age)) => {
                    let request = NewRequest {
                        message_id: &message_id,
                        text,
                        age,
                    };
                    self.mailboxes
                        .step(Event::Request(request), now, &mut self.effects);
                }
                Err(reason) => stage.report.reject(input.name(), &line, &reason)?,
            }
        }
        Ok(())
    }

    fn take_scores(&mut self, index: usize, stage: &mut Stage, now: Micros) -> Result<()> {
        let Stream {
            input,
            lines,
            ended,
        } = &mut self.scores[index];
        while let Some(line) = next_line(lines, *ended) {
            let Some(bytes) = record_of(stage, input.name(), &line)? else {
                continue;
            };
            match Score::parse(bytes) {
                Ok(score) => {
                    self.mailboxes
                        .step(Event::Score(&score), now, &mut self.effects);
                }
                Err(reason) => stage.report.reject(input.name(), &line, &reason)?,
            }
        }
        Ok(())
    }

    /// Turns answers into responses.
    fn render(&mut self) {
        for effect in self.effects.drain(..) {
            let Effect::Answer(answer) = effect;
            // The request was read by the same rules, so this cannot fail.
            let written = response::write(&answer, &mut self.pending);
            debug_assert!(written.is_ok(), "{written:?}");
        }
    }

    fn write_some(&mut self) -> Result<()> {
        let mut written = 0;
        while written < self.pending.len() {
            match self.output.try_write(&self.pending[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) => return Err(output_error(&self.output, error)),
            }
        }
        self.pending.drain(..written);
        Ok(())
    }

    /// Puts a changed policy in force, all of it or nothing.
    fn reload(&mut self, stage: &mut Stage, args: &RendezvousArgs) {
        match args.policy.load() {
            Ok(policy) => {
                stage
                    .report
                    .info(&format!("policy {} is in force", policy.hash));
                let now = self.clock.monotonic();
                let policy = Event::Policy(Rc::new(policy));
                self.mailboxes.step(policy, now, &mut self.effects);
            }
            Err(error) => stage
                .report
                .warn(&format!("the policy in force stays: {error:#}")),
        }
    }

    /// Reads on to the ends of the lines that were begun, and no further.
    fn finish_lines(&mut self, stage: &mut Stage) -> Result<()> {
        for place in 0..=self.scores.len() {
            loop {
                let stream = match place {
                    0 => &mut self.requests,
                    score => &mut self.scores[score - 1],
                };
                if stream.ended || !stream.lines.is_inside_line() {
                    break;
                }
                if stage.signals.out_of_time().is_some() {
                    break;
                }
                let Some(fd) = stream.input.readiness() else {
                    break;
                };
                let until = stage.signals.grace_end();
                if !wait(&[(fd, PollFlags::IN)], &mut stage.signals, until)?[0] {
                    continue;
                }
                let progress = stream.input.read_one_byte(&mut stream.lines)?;
                stream.ended = progress == Progress::End;
                let now = self.clock.monotonic();
                match place {
                    0 => self.take_requests(stage, now)?,
                    score => self.take_scores(score - 1, stage, now)?,
                }
            }
        }
        Ok(())
    }

    /// Answers what is open, and writes everything.
    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        let now = self.clock.monotonic();
        self.mailboxes.step(Event::Shutdown, now, &mut self.effects);
        self.render();
        stage.write_all(&mut self.output, &mut self.pending)?;
        stage.close(&mut self.output)?;
        let snapshot = self.snapshot(stage);
        stage.final_stats(&snapshot);
        Ok(())
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        self.mailboxes
            .counts
            .snapshot(self.mailboxes.open())
            .count("rejected", stage.report.rejected())
    }
}

fn next_line(lines: &mut Lines, ended: bool) -> Option<Line<'_>> {
    if lines.has_whole_line() || !ended {
        lines.next_line()
    } else {
        lines.last_line()
    }
}

/// What there is to parse in a line, if anything.
fn record_of<'a>(stage: &mut Stage, input: &str, line: &Line<'a>) -> Result<Option<&'a [u8]>> {
    if line.oversized.is_some() {
        stage.report.reject_oversized(input, line)?;
        return Ok(None);
    }
    Ok(line.record())
}

/// The id, the text and the age of a request.
fn read_request(
    line: &[u8],
    wall: Micros,
) -> Result<(std::borrow::Cow<'_, str>, &str, Micros), String> {
    let record = Record::parse(line)?;
    let message_id = record.message_id()?;
    let age = wall - record.timestamp()?;
    record.model_input()?;
    record.provenance()?;
    record.return_address()?;
    Ok((message_id, record.text(), age))
}
