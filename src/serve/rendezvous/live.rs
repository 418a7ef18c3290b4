//! The rendezvous in service: one thread that waits for all streams at once.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::PollFlags;

use crate::join::kept_score::Seat;
use crate::serve::rendezvous::args::RendezvousArgs;
use crate::serve::rendezvous::inputs::{LiveStream, ScoreFolder};
use crate::serve::rendezvous::mailboxes::{MailboxEffect, MailboxEvent, Mailboxes, NewRequest};
use crate::serve::rendezvous::pace::ReadGain;
use crate::serve::rendezvous::policy::Policy;
use crate::serve::rendezvous::policy_files::store_policy;
use crate::serve::rendezvous::routes::Routes;
use crate::stage::Stop;
use crate::stage::backlog::Backlog;
use crate::stage::clock::Clock;
use crate::stage::stats::Snapshot;
use crate::stage::wait::{output_error, wait};
use crate::stage::{EndedEarly, Stage};
use crate::stream::address::require_rereadable;
use crate::stream::output::Output;
use crate::wire::lines::Line;
use crate::wire::message::{Request, Score};
use crate::wire::micros::Micros;
use crate::wire::reject::Reject;

/// While this many bytes of responses wait for their reader, no stream is read. So this
/// reader sets the pace.
const PENDING_BYTES_MAX: usize = 1 << 20;

/// Answers requests until the requests end.
pub fn run(stage: &mut Stage, args: &RendezvousArgs, policy: Policy) -> Result<()> {
    let output = Output::open(&args.output.output)?;
    let requests = LiveStream::open(args.requests()?, Seat::Model, args.follow, stage)?;
    let (mut scores, mut folders) = (Vec::new(), Vec::new());
    let models = args.scores.iter().map(|path| (path, Seat::Model));
    let shadows = args.shadows.iter().map(|path| (path, Seat::Shadow));
    for (path, seat) in models.chain(shadows) {
        match ScoreFolder::watch(path, seat)? {
            Some(folder) => {
                folder.update(&mut scores, stage)?;
                folders.push(folder);
            }
            None => scores.push(LiveStream::open(path, seat, args.follow, stage)?),
        }
    }
    store_if_wanted(args, &policy)?;
    let clock = Clock::system();
    let mut live = Live {
        mailboxes: Mailboxes::new(Rc::new(policy), args.bounds.mailbox_limits()),
        effects: Vec::new(),
        pending: Backlog::default(),
        output,
        routes: Routes::open_live(args, args.bounds.queue_bytes())?,
        requests,
        scores,
        folders,
        scores_ended: false,
        finishing: false,
        clock,
        started: Instant::now() - clock.monotonic().to_duration(),
        last: Micros(-1),
        not_kept_reported: 0,
    };
    if args.output.resume {
        live.pending.tail().push(b'\n');
    }
    stage.report.write_rejects_in_thread()?;
    let served = live.serve(stage, args).and_then(|cut_short| {
        live.finish(stage)?;
        Ok(cut_short)
    });
    stage.report.finish_rejects();
    match served? {
        Some(stop) => Err(EndedEarly::Signal(stop).into()),
        None => Ok(()),
    }
}

/// Stores a policy that takes effect, if `--keep-policies` is given.
fn store_if_wanted(args: &RendezvousArgs, policy: &Policy) -> Result<()> {
    let folder = args.policy.keep_policies.as_deref();
    folder.map_or(Ok(()), |folder| store_policy(folder, policy))
}

/// A rendezvous in service: its mailboxes and all its streams.
struct Live {
    mailboxes: Mailboxes,
    effects: Vec<MailboxEffect>,
    /// Responses that are not written yet.
    pending: Backlog,
    output: Output,
    routes: Routes,
    requests: LiveStream,
    scores: Vec<LiveStream>,
    folders: Vec<ScoreFolder>,
    scores_ended: bool,
    /// Whether SIGTERM was received. If so, each stream is read only to the end of its
    /// current line.
    finishing: bool,
    clock: Clock,
    /// The time at which the program's monotonic clock was 0.
    started: Instant,
    /// The time of the last wake-up.
    last: Micros,
    /// The number of scores for which there was no memory, as of the last report.
    not_kept_reported: u64,
}

impl Live {
    /// Runs until the requests have ended and every mailbox is closed, or until a
    /// signal ends the program. Returns the signal if its grace has passed.
    fn serve(&mut self, stage: &mut Stage, args: &RendezvousArgs) -> Result<Option<Stop>> {
        loop {
            self.write_some()?;
            self.routes.write_some(&mut stage.report);
            self.routes.check_decisions()?;
            stage.report.flush()?;
            self.report_not_kept(stage);
            if stage.signals.take_hangup() {
                self.reload(stage, args);
            }
            stage.show_stats(|stage| self.snapshot(stage));
            if stage.signals.stop() == Some(Stop::Terminate) {
                // Each stream is read to the end of its current line and not a byte
                // further. Deadlines are still kept.
                self.finishing = true;
                for stream in std::iter::once(&mut self.requests).chain(&mut self.scores) {
                    stream.cursor.stop_at_line_end();
                }
                if self.streams().all(|stream| stream.cursor.is_done()) {
                    return Ok(None);
                }
            }
            if stage.signals.stop() == Some(Stop::Interrupt) {
                // The sources stop now, so no further writer will open a pipe.
                for stream in std::iter::once(&mut self.requests).chain(&mut self.scores) {
                    stream.cursor.stop_following();
                }
            }
            if let Some(stop) = stage.signals.out_of_time() {
                self.reject_begun_lines(stage)?;
                return Ok(Some(stop));
            }
            if self.requests.cursor.has_ended() && self.mailboxes.is_empty() {
                return Ok(None);
            }
            let ready = self.wait(stage)?;
            // All input of this wake-up gets one time, and no two wake-ups have
            // equal times. A replay knows only the times, and must derive from
            // them which scores were read together.
            let now = self.now();
            self.read(stage, &ready, now)?;
            self.mailboxes
                .step(MailboxEvent::Tick, now, &mut self.effects);
            self.write_effects();
        }
    }

    /// Waits for a stream, a deadline or a signal. Returns which streams are ready:
    /// the requests, then the scores and the folders in their order.
    fn wait(&mut self, stage: &mut Stage) -> Result<Vec<bool>> {
        let may_read = self.pending.len() < PENDING_BYTES_MAX
            && self.routes.blocking_bytes() < PENDING_BYTES_MAX;
        let mut streams = Vec::with_capacity(self.scores.len() + 2);
        let mut places = Vec::with_capacity(self.scores.len() + 1);
        let now = self.clock.monotonic();
        let mut rested = None;
        for stream in self.streams() {
            let readiness = stream.cursor.readiness();
            let rest = stream.pace.rest(now).filter(|_| !self.finishing);
            if let Some(until) = rest {
                rested = Some(rested.map_or(until, |it: Micros| it.min(until)));
            }
            let wanted = rest.is_none() && stream.cursor.wants_more();
            match readiness.filter(|_| may_read && wanted) {
                Some(fd) => {
                    places.push(Some(streams.len()));
                    streams.push((fd, PollFlags::IN));
                }
                None => places.push(None),
            }
        }
        for folder in &self.folders {
            places.push(Some(streams.len()));
            streams.push((folder.readiness(), PollFlags::IN));
        }
        if let Some(readiness) = self.output.readiness().filter(|_| !self.pending.is_empty()) {
            streams.push(readiness);
        }
        streams.extend(self.routes.waiting().filter_map(Output::readiness));
        let wake = self.mailboxes.next_wake().map(|wake| self.instant(wake));
        // While the reader of the responses is slow, no resting stream is read.
        let rested = rested.filter(|_| may_read).map(|it| self.instant(it));
        let times = [wake, rested, stage.stats.due(), stage.signals.grace_end()];
        let until = times.into_iter().flatten().min();
        let ready = wait(&streams, &mut stage.signals, until)?;
        Ok(places
            .into_iter()
            .map(|place| place.is_some_and(|place: usize| ready[place]))
            .collect())
    }

    fn instant(&self, time: Micros) -> Instant {
        // Times are rounded to microseconds. A timer that fires a fraction too
        // early would find nothing due, and would wait again.
        self.started + time.to_duration() + Duration::from_micros(1)
    }

    /// Reads every ready stream once, the requests first.
    fn read(&mut self, stage: &mut Stage, ready: &[bool], now: Micros) -> Result<()> {
        if ready[0] {
            stage.stats.touch();
            self.requests.read()?;
            self.take_requests(stage, now)?;
        }
        let (of_scores, of_folders) = ready[1..].split_at(self.scores.len());
        for (index, _) in of_scores.iter().enumerate().filter(|(_, ready)| **ready) {
            stage.stats.touch();
            let bytes = self.scores[index].read()?;
            let gain = self.take_scores(index, stage, now)?;
            self.scores[index]
                .pace
                .note(ReadGain { bytes, ..gain }, now);
        }
        if of_folders.contains(&true) {
            for folder in &self.folders {
                folder.acknowledge();
                folder.update(&mut self.scores, stage)?;
            }
        }
        if !self.folders.is_empty() {
            self.scores.retain(|stream| !stream.cursor.has_ended());
        }
        // A model may be added to a folder at any time.
        let all_ended =
            self.folders.is_empty() && self.scores.iter().all(|it| it.cursor.has_ended());
        if !self.scores_ended && all_ended {
            self.scores_ended = true;
            self.mailboxes
                .step(MailboxEvent::ScoresEnded, now, &mut self.effects);
        }
        Ok(())
    }

    fn take_requests(&mut self, stage: &mut Stage, now: Micros) -> Result<()> {
        let wall = self.clock.unix();
        while let Some((line, name)) = self.requests.cursor.next_line_and_name() {
            let Some(bytes) = record_of(stage, name, &line)? else {
                continue;
            };
            match Request::parse(bytes) {
                Ok(request) => {
                    let request = NewRequest {
                        message_id: &request.message_id,
                        text: request.text,
                        age: wall - request.timestamp,
                    };
                    self.mailboxes
                        .step(MailboxEvent::Request(request), now, &mut self.effects);
                }
                Err(reject) => stage.report.reject(name, &line, &reject)?,
            }
        }
        Ok(())
    }

    /// Handles the scores that were read. Returns a summary of the read for the pace.
    fn take_scores(&mut self, index: usize, stage: &mut Stage, now: Micros) -> Result<ReadGain> {
        let LiveStream {
            cursor,
            number,
            seat,
            ..
        } = &mut self.scores[index];
        let mut gain = ReadGain::default();
        let (kept, needed) = (self.mailboxes.kept, self.mailboxes.needed);
        while let Some((line, name)) = cursor.next_line_and_name() {
            gain.records += 1;
            gain.longest = gain.longest.max(line.bytes.len());
            let Some(bytes) = record_of(stage, name, &line)? else {
                continue;
            };
            match Score::parse(bytes) {
                Ok(score) => {
                    let score = MailboxEvent::Score {
                        score: &score,
                        stream: *number,
                        seat: *seat,
                    };
                    self.mailboxes.step(score, now, &mut self.effects);
                }
                Err(reject) => stage.report.reject(name, &line, &reject)?,
            }
        }
        gain.kept = self.mailboxes.kept - kept;
        gain.needed = self.mailboxes.needed - needed;
        Ok(gain)
    }

    /// Reports, at limited intervals, that there was no memory for scores.
    fn report_not_kept(&mut self, stage: &mut Stage) {
        let not_kept = self.mailboxes.counts.not_kept;
        if not_kept > self.not_kept_reported {
            self.not_kept_reported = not_kept;
            let message = format!(
                "{not_kept} scores were counted and not kept: one request had too many of them, or they \
                 exceeded --max-mailbox-bytes or half of --max-open-bytes"
            );
            stage.report.warn_seldom("not kept", &message);
        }
    }

    /// Writes the answers and decisions of this wake-up to their queues.
    fn write_effects(&mut self) {
        for effect in self.effects.drain(..) {
            // The request was checked when it was read, so writing cannot fail.
            let written = match effect {
                MailboxEffect::Answer(answer) => self.routes.answer(&answer, self.pending.tail()),
                MailboxEffect::Decision(decision) => self.routes.decision(&decision.0, decision.1),
            };
            debug_assert!(written.is_ok(), "{written:?}");
        }
    }

    fn now(&mut self) -> Micros {
        self.last = self.clock.monotonic().max(self.last + Micros(1));
        self.last
    }

    fn write_some(&mut self) -> Result<()> {
        self.pending
            .write_some(&mut self.output)
            .map_err(|error| output_error(&self.output, error))
    }

    /// Reads the policy again. If the new policy is bad, reports this and keeps the
    /// old one.
    fn reload(&mut self, stage: &mut Stage, args: &RendezvousArgs) {
        let path = args.policy.policy.as_deref();
        let policy = path
            .map_or(Ok(()), require_rereadable)
            .and_then(|()| args.policy.load());
        match policy {
            Ok(policy) => {
                let message = format!("policy {} takes effect", policy.hash);
                stage.report.info_if_new("reload", &message);
                if let Err(error) = store_if_wanted(args, &policy) {
                    stage.report.warn(&format!("{error:#}"));
                }
                let now = self.now();
                let policy = MailboxEvent::Policy(Rc::new(policy));
                self.mailboxes.step(policy, now, &mut self.effects);
            }
            Err(error) => stage.report.warn_if_new(
                "reload",
                &format!("the old policy stays in effect: {error:#}"),
            ),
        }
    }

    fn streams(&self) -> impl Iterator<Item = &LiveStream> {
        std::iter::once(&self.requests).chain(&self.scores)
    }

    /// Rejects the lines whose ends did not arrive within the grace period.
    fn reject_begun_lines(&mut self, stage: &mut Stage) -> Result<()> {
        for stream in std::iter::once(&mut self.requests).chain(&mut self.scores) {
            let name = stream.cursor.name().to_owned();
            if let Some(line) = stream.cursor.unfinished_line() {
                stage.report.reject(&name, &line, &Reject::Unfinished)?;
            }
        }
        Ok(())
    }

    /// Answers the open requests, and writes everything.
    fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        let now = self.now();
        self.mailboxes
            .step(MailboxEvent::Shutdown, now, &mut self.effects);
        self.write_effects();
        stage.write_all(&mut self.output, &mut self.pending.take())?;
        stage.close(&mut self.output)?;
        self.routes.finish(stage)?;
        let snapshot = self.snapshot(stage);
        stage.final_stats(&snapshot);
        Ok(())
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        let counts = self.mailboxes.counts.snapshot(self.mailboxes.open());
        let counts = counts
            .rejected(&stage.report)
            .count("rejectsNotKept", stage.report.rejects_lost());
        self.routes.snapshot(counts)
    }
}

/// The bytes of a line that must be parsed; `None` if the line is blank or too long.
fn record_of<'a>(stage: &mut Stage, input: &str, line: &Line<'a>) -> Result<Option<&'a [u8]>> {
    match line.record() {
        Ok(record) => Ok(record),
        Err(reject) => stage.report.reject(input, line, &reject).map(|()| None),
    }
}
