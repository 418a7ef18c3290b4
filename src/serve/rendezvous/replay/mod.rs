//! Recordings -> responses: the same decision, without a clock.

mod batch;
mod decisions;
mod streams;
mod summary;
mod track;

use anyhow::Result;

use crate::serve::rendezvous::RendezvousArgs;
use crate::serve::rendezvous::counts::Counts;
use crate::serve::rendezvous::mailbox::{Answer, Candidate, Mailbox, Room, Taken};
use crate::serve::rendezvous::replay::summary::Changes;
use crate::serve::rendezvous::routes::Routes;
use crate::stage::Stage;
use crate::stage::stats::Snapshot;
use crate::stream::output::Output;

/// How much is gathered before it is written.
const WRITE_BYTES: usize = 256 * 1024;

/// Runs `rv-rendezvous --replay`.
pub fn run(stage: &mut Stage, args: &RendezvousArgs) -> Result<()> {
    let mut replay = Replay {
        output: Output::open(&args.output.output)?,
        // They are flushed as the output is, so that nothing is ever dropped.
        routes: Routes::open(args)?,
        pending: if args.output.resume {
            b"\n".to_vec()
        } else {
            Vec::new()
        },
        room: args.bounds.room(),
        counts: Counts::default(),
        changes: Changes::default(),
    };
    if args.requests.is_some() {
        streams::run(stage, args, &mut replay)?;
    } else {
        decisions::run(stage, args, &mut replay)?;
    }
    replay.finish(stage)
}

/// What both kinds of replay write and count.
struct Replay {
    output: Output,
    routes: Routes,
    /// Responses that are not written yet.
    pending: Vec<u8>,
    /// For the scores of one request.
    room: Room,
    counts: Counts,
    changes: Changes,
}

impl Replay {
    /// Puts a score in its mailbox, or counts it where there is no room.
    fn take(&mut self, mailbox: &mut Mailbox, candidate: Candidate) {
        if let Taken::Refused(fate) = mailbox.put(candidate, self.room) {
            self.counts.fate(fate);
            self.counts.not_kept += 1;
        }
    }

    /// Answers a mailbox that has all its scores, and lets it go.
    fn close(&mut self, mailbox: &Mailbox, stage: &mut Stage) -> Result<Answer> {
        let outcome = mailbox.outcome();
        let answer = mailbox.answer(outcome);
        self.counts.answer(&answer);
        mailbox.count_fates(outcome, &mut self.counts);
        let written = self
            .routes
            .answer(&answer, &mut self.pending)
            .and_then(|()| self.routes.decision(mailbox, outcome));
        // The request was read by the same rules, so writing cannot fail.
        debug_assert!(written.is_ok(), "{written:?}");
        if self.pending.len() + self.routes.waiting_bytes() >= WRITE_BYTES {
            self.flush(stage)?;
        }
        Ok(answer)
    }

    /// Writes what was gathered. Here everybody waits for everybody: no record of
    /// a replay is dropped.
    fn flush(&mut self, stage: &mut Stage) -> Result<()> {
        stage.report.flush()?;
        stage.show_stats(|stage| self.snapshot(stage));
        stage.write_all(&mut self.output, &mut self.pending)?;
        self.routes.write_all(stage)
    }

    fn finish(mut self, stage: &mut Stage) -> Result<()> {
        self.flush(stage)?;
        stage.close(&mut self.output)?;
        self.routes.finish(stage)?;
        stage.has_findings |= self.counts.orphaned > 0;
        for line in summary::lines(&self.counts, &self.changes) {
            stage.report.info(&line);
        }
        let snapshot = self.snapshot(stage);
        stage.final_stats(&snapshot);
        Ok(())
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        let counts = self.counts.snapshot(0);
        let counts = counts.rejected(&stage.report);
        self.routes.snapshot(self.changes.snapshot(counts))
    }
}
