//! Decisions -> responses. A decision holds all that a replay needs, so each is
//! decided on its own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result};

use crate::serve::rendezvous::mailbox::Mailbox;
use crate::serve::rendezvous::policy::Policy;
use crate::serve::rendezvous::record::Decided;
use crate::serve::rendezvous::replay::Replay;
use crate::serve::rendezvous::{RendezvousArgs, load_policy, policy_path};
use crate::stage::Stage;
use crate::stage::recording::Recording;
use crate::stream::address::Address;
use crate::wire::reject::Reject;
use crate::wire::text::Text;

/// Where the policy of a decision comes from.
enum Policies {
    /// One for all.
    One(Rc<Policy>),
    /// Each decision has its own, in a folder by its hash.
    Own {
        folder: PathBuf,
        loaded: HashMap<String, Rc<Policy>>,
    },
}

impl Policies {
    fn of(&mut self, hash: &str) -> Result<Rc<Policy>> {
        let (folder, loaded) = match self {
            Policies::One(policy) => return Ok(Rc::clone(policy)),
            Policies::Own { folder, loaded } => (folder, loaded),
        };
        if let Some(policy) = loaded.get(hash) {
            return Ok(Rc::clone(policy));
        }
        // A hash is a name of a file here: only what a hash can be gets that far.
        let is_hash = hash.len() == 16 && hash.bytes().all(|it| it.is_ascii_hexdigit());
        anyhow::ensure!(is_hash, "{hash:?} is no hash of a policy");
        let path = policy_path(folder, hash);
        let path = path.to_string_lossy();
        let policy = load_policy(&path).context(
            "a decision's own policy is missing; --keep-policies keeps them, or replay under one \
             with --policy",
        )?;
        anyhow::ensure!(
            policy.hash == hash,
            "{path}: holds policy {}, not the one of its name",
            policy.hash
        );
        let policy = Rc::new(policy);
        loaded.insert(hash.to_owned(), Rc::clone(&policy));
        Ok(policy)
    }
}

/// Replays decision by decision, in their order.
pub fn run(stage: &mut Stage, args: &RendezvousArgs, replay: &mut Replay) -> Result<()> {
    let mut policies = match &args.replaying.policies {
        Some(folder) => Policies::Own {
            folder: folder.clone(),
            loaded: HashMap::new(),
        },
        None => Policies::One(Rc::new(args.policy.load()?)),
    };
    let address = args.replaying.input.as_ref().unwrap_or(&Address::Standard);
    let mut recording = Recording::open(address, stage)?;
    let is_pipe = recording.is_pipe();
    loop {
        if is_pipe && !recording.has_line() {
            replay.flush(stage)?;
        }
        let Some((line, name)) = recording.next_line(stage)? else {
            break;
        };
        let decided = match line.record() {
            Ok(None) => continue,
            Ok(Some(bytes)) => Decided::parse(bytes).map_err(Reject::Field),
            Err(reject) => Err(reject),
        };
        let decided = match decided {
            Ok(decided) => decided,
            Err(reject) => {
                stage.report.reject(name, &line, &reject)?;
                continue;
            }
        };
        let policy = policies.of(&decided.policy_hash)?;
        let message_id = decided.message_id.clone();
        let mut mailbox = Mailbox::new(message_id, Text::from(&*decided.request), policy);
        replay.counts.requests += 1;
        for (candidate, _) in &decided.candidates {
            replay.counts.scores += 1;
            replay.take(&mut mailbox, candidate.clone());
        }
        let answer = replay.close(&mailbox, stage)?;
        replay.changes.compare(&decided, &answer);
    }
    Ok(())
}
