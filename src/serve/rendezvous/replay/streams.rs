//! Recorded requests and scores -> responses.

use std::rc::Rc;

use anyhow::Result;

use crate::join::merged_streams::{MergedStreams, Recorded};
use crate::join::window::{END_OF_STREAM, JoinWindow, ScoreMatch};
use crate::serve::rendezvous::args::RendezvousArgs;
use crate::serve::rendezvous::mailbox::Mailbox;
use crate::serve::rendezvous::replay::responder::Responder;
use crate::stage::Stage;
use crate::wire::micros::Micros;

/// Replays recorded streams.
pub fn run(stage: &mut Stage, args: &RendezvousArgs, responder: &mut Responder) -> Result<()> {
    let policy = Rc::new(args.policy.load()?);
    let mut window = JoinWindow::new(
        Micros::from_duration(args.replaying.disorder),
        args.bounds.remember as usize,
    );
    let mut records = MergedStreams::open(args.requests()?, &args.scores, stage)?;
    loop {
        if records.may_wait() {
            responder.flush(stage)?;
        }
        let Some(next) = records.next(stage)? else {
            break;
        };
        responder.counts.orphaned += window.drop_early_before(next.time);
        while let Some(mailbox) = window.close_before(next.time) {
            responder.respond(&mailbox, stage)?;
        }
        match next.record {
            Recorded::Request(text) => {
                responder.counts.requests += 1;
                let mailbox = |id: &_| Mailbox::new(Clone::clone(id), text, Rc::clone(&policy));
                match window.open(next.time, next.id, mailbox) {
                    None => responder.counts.repeated += 1,
                    Some((mailbox, early)) => {
                        for score in early {
                            responder.take(mailbox, score);
                        }
                    }
                }
            }
            Recorded::Score(score) => {
                responder.counts.scores += 1;
                match window.find(next.time, next.id, score) {
                    ScoreMatch::Open(mailbox, score) => responder.take(mailbox, score),
                    ScoreMatch::Early => {}
                    ScoreMatch::Closed => responder.counts.orphaned += 1,
                }
            }
        }
    }
    responder.counts.orphaned += window.drop_early_before(END_OF_STREAM);
    while let Some(mailbox) = window.close_before(END_OF_STREAM) {
        responder.respond(&mailbox, stage)?;
    }
    Ok(())
}
