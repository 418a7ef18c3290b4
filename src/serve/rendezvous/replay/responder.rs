//! Decides mailboxes that have all their scores. Writes and counts the answers.

use anyhow::Result;

use crate::join::kept_score::KeptScore;
use crate::serve::rendezvous::args::RendezvousArgs;
use crate::serve::rendezvous::counts::RendezvousCounts;
use crate::serve::rendezvous::mailbox::{Mailbox, ScoreRoom, Taken};
use crate::serve::rendezvous::replay::summary::{self, AnswerChanges};
use crate::serve::rendezvous::routes::Routes;
use crate::stage::Stage;
use crate::stage::stats::Snapshot;
use crate::stream::output::Output;
use crate::wire::decision::Decision;

/// Responses are written when this many bytes are pending.
const WRITE_BYTES: usize = 256 * 1024;

/// The outputs and the counts of a replay.
pub struct Responder {
    output: Output,
    routes: Routes,
    /// Responses that are not written yet.
    pending: Vec<u8>,
    /// The limits for the scores of one request.
    room: ScoreRoom,
    /// The counts of requests and scores.
    pub counts: RendezvousCounts,
    changes: AnswerChanges,
}

impl Responder {
    /// Opens the outputs.
    pub fn open(args: &RendezvousArgs) -> Result<Responder> {
        Ok(Responder {
            output: Output::open(&args.output.output)?,
            routes: Routes::open(args)?,
            pending: if args.output.resume {
                b"\n".to_vec()
            } else {
                Vec::new()
            },
            room: args.bounds.score_room(),
            counts: RendezvousCounts::default(),
            changes: AnswerChanges::default(),
        })
    }

    /// Puts a score into its mailbox, or only counts it if a limit is reached.
    pub fn take(&mut self, mailbox: &mut Mailbox, score: KeptScore) {
        if let Taken::Refused(fate) = mailbox.take(score, self.room) {
            self.counts.fate(fate);
            self.counts.not_kept += 1;
        }
    }

    /// Answers a request that gets no more scores. If the request has a recorded
    /// answer, the answers are compared.
    pub fn respond(
        &mut self,
        mailbox: &Mailbox,
        before: Option<&Decision>,
        stage: &mut Stage,
    ) -> Result<()> {
        let choice = mailbox.choice();
        let answer = mailbox.answer(choice);
        self.counts.answer(&answer);
        if let Some(before) = before {
            self.changes.compare(before, &answer);
        }
        for (_, fate) in mailbox.fates(choice) {
            self.counts.fate(fate);
        }
        let written = self
            .routes
            .answer(&answer, &mut self.pending)
            .and_then(|()| self.routes.decision(mailbox, choice));
        // The request was checked when it was read, so writing cannot fail.
        debug_assert!(written.is_ok(), "{written:?}");
        if self.pending.len() + self.routes.waiting_bytes() >= WRITE_BYTES {
            self.flush(stage)?;
        }
        Ok(())
    }

    /// Writes the pending responses. Unlike a rendezvous in service, a replay waits for
    /// every reader, because it drops no record.
    pub fn flush(&mut self, stage: &mut Stage) -> Result<()> {
        stage.report.flush()?;
        stage.show_stats(|stage| self.snapshot(stage));
        stage.write_all(&mut self.output, &mut self.pending)?;
        self.routes.write_all(stage)
    }

    /// Writes the remaining responses and the summary, and closes the outputs.
    pub fn finish(mut self, stage: &mut Stage) -> Result<()> {
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
