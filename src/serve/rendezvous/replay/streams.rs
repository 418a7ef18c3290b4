//! Recorded requests and scores -> responses.

use std::rc::Rc;

use anyhow::Result;

use crate::join::kept_score::KeptScore;
use crate::join::merged_streams::{MergedStreams, Recorded};
use crate::join::window::{END_OF_STREAM, JoinWindow};
use crate::serve::rendezvous::args::RendezvousArgs;
use crate::serve::rendezvous::mailbox::Mailbox;
use crate::serve::rendezvous::replay::responder::Responder;
use crate::stage::Stage;
use crate::wire::micros::Micros;
use crate::wire::text::Text;

/// Replays recorded streams.
pub fn run(stage: &mut Stage, args: &RendezvousArgs, responder: &mut Responder) -> Result<()> {
    let policy = Rc::new(args.policy.load()?);
    let mut window = JoinWindow::new(
        Micros::from_duration(args.replaying.disorder),
        args.bounds.remember as usize,
    );
    let mut records = MergedStreams::open(args.requests()?, &args.scores, &args.shadows, stage)?;
    loop {
        if records.may_wait() {
            responder.flush(stage)?;
        }
        let Some(next) = records.next(stage)? else {
            break;
        };
        close_passed(&mut window, next.time, responder, stage)?;
        match next.record {
            Recorded::Request(text) => {
                responder.counts.requests += 1;
                let mailbox = |id: &Text| Mailbox::new(id.clone(), text, Rc::clone(&policy));
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
                if let Some(mailbox) = window.find(&next.id) {
                    responder.take(mailbox, score);
                } else if !window.hold_early(next.time, next.id, score) {
                    responder.counts.orphaned += 1;
                }
            }
        }
    }
    close_passed(&mut window, END_OF_STREAM, responder, stage)
}

/// Decides the requests that get no more scores, and drops scores whose requests did not
/// arrive.
fn close_passed(
    window: &mut JoinWindow<Mailbox, KeptScore>,
    time: Micros,
    responder: &mut Responder,
    stage: &mut Stage,
) -> Result<()> {
    responder.counts.orphaned += window.drop_early_before(time);
    while let Some(mailbox) = window.passed(time) {
        responder.respond(mailbox, None, stage)?;
        window.close_oldest();
    }
    Ok(())
}
