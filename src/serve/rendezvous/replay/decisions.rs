//! Recorded decisions -> responses. A decision holds all scores of its request, so no
//! join is needed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result};

use crate::join::kept_score::KeptScore;
use crate::serve::rendezvous::args::RendezvousArgs;
use crate::serve::rendezvous::mailbox::Mailbox;
use crate::serve::rendezvous::policy::Policy;
use crate::serve::rendezvous::policy_files::{load_policy, stored_policy};
use crate::serve::rendezvous::replay::responder::Responder;
use crate::stage::Stage;
use crate::stage::recording::Recording;
use crate::stream::address::Address;
use crate::wire::decision::Decision;
use crate::wire::reject::Reject;
use crate::wire::text::Text;

/// The source of the policies for recorded decisions.
enum PolicySource {
    /// One policy for all decisions.
    One(Rc<Policy>),
    /// The policy of each decision, from a folder that stores policies under their
    /// hashes.
    Stored {
        folder: PathBuf,
        loaded: HashMap<String, Rc<Policy>>,
    },
}

impl PolicySource {
    fn open(args: &RendezvousArgs) -> Result<PolicySource> {
        Ok(match &args.replaying.policies {
            Some(folder) => PolicySource::Stored {
                folder: folder.clone(),
                loaded: HashMap::new(),
            },
            None => PolicySource::One(Rc::new(args.policy.load()?)),
        })
    }

    /// The policy for a decision. `hash` is the hash of the policy under which the
    /// decision was made.
    fn policy(&mut self, hash: &str) -> Result<Rc<Policy>> {
        let (folder, loaded) = match self {
            PolicySource::One(policy) => return Ok(Rc::clone(policy)),
            PolicySource::Stored { folder, loaded } => (folder, loaded),
        };
        if let Some(policy) = loaded.get(hash) {
            return Ok(Rc::clone(policy));
        }
        // The hash comes from the input and becomes a part of a path.
        let is_hash = hash.len() == 16 && hash.bytes().all(|it| it.is_ascii_hexdigit());
        anyhow::ensure!(is_hash, "{hash:?} is not the hash of a policy");
        let path = stored_policy(folder, hash);
        let path = path.to_string_lossy();
        let policy = load_policy(&path).context(
            "a decision's own policy is missing; --keep-policies stores them, or replay under one \
             policy with --policy",
        )?;
        anyhow::ensure!(
            policy.hash == hash,
            "{path}: holds policy {}, not the one that its name says",
            policy.hash
        );
        let policy = Rc::new(policy);
        loaded.insert(hash.to_owned(), Rc::clone(&policy));
        Ok(policy)
    }
}

/// The parts of a decision that the replay uses.
struct RecordedDecision<'a> {
    decision: Decision<'a>,
    request: String,
    scores: Vec<KeptScore>,
}

impl RecordedDecision<'_> {
    fn parse(line: &[u8]) -> Result<RecordedDecision<'_>, Reject> {
        let decision = Decision::parse(line)?;
        Ok(RecordedDecision {
            request: decision.request()?,
            scores: decision.candidates(KeptScore::of_candidate)?,
            decision,
        })
    }
}

/// Replays the decisions in the order in which they were recorded.
pub fn run(stage: &mut Stage, args: &RendezvousArgs, responder: &mut Responder) -> Result<()> {
    let mut policies = PolicySource::open(args)?;
    let address = args.replaying.input.as_ref().unwrap_or(&Address::Standard);
    let mut recording = Recording::open(address, stage)?;
    let is_pipe = recording.is_pipe();
    loop {
        if is_pipe && !recording.has_line() {
            responder.flush(stage)?;
        }
        let Some((line, name)) = recording.next_line(stage)? else {
            break;
        };
        let recorded = match line.record() {
            Ok(None) => continue,
            Ok(Some(bytes)) => RecordedDecision::parse(bytes),
            Err(reject) => Err(reject),
        };
        match recorded {
            Ok(recorded) => replay(recorded, &mut policies, responder, stage)?,
            Err(reject) => stage.report.reject(name, &line, &reject)?,
        }
    }
    Ok(())
}

fn replay(
    recorded: RecordedDecision,
    policies: &mut PolicySource,
    responder: &mut Responder,
    stage: &mut Stage,
) -> Result<()> {
    let decision = &recorded.decision;
    let policy = policies.policy(&decision.policy_hash)?;
    let message_id = Text::from(&*decision.message_id);
    let mut mailbox = Mailbox::new(message_id, Text::from(recorded.request), policy);
    responder.counts.requests += 1;
    for score in recorded.scores {
        responder.counts.scores += 1;
        responder.take(&mut mailbox, score);
    }
    responder.respond(&mailbox, Some(decision), stage)
}
