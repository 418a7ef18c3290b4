//! The outputs of responses and decisions. In service, a stuck reader of a route or of
//! the decisions does not delay an answer.

use anyhow::{Result, bail};

use crate::serve::rendezvous::answer::Answer;
use crate::serve::rendezvous::args::RendezvousArgs;
use crate::serve::rendezvous::decision::Choice;
use crate::serve::rendezvous::mailbox::Mailbox;
use crate::serve::rendezvous::record::{write_decision, write_response};
use crate::stage::Stage;
use crate::stage::queue::Queue;
use crate::stage::report::Report;
use crate::stage::stats::Snapshot;
use crate::stream::address::Address;
use crate::stream::output::Output;
use crate::wire::message::{Field, Record};
use crate::wire::object::decode_string;

/// The outputs in addition to standard output: a queue for each route, and one for
/// decisions.
#[derive(Debug)]
pub struct Routes {
    /// The queues of the routes, by return address.
    by_address: Vec<(String, Queue)>,
    decisions: Option<Queue>,
    /// Whether a slow reader of the decisions holds the program up.
    decisions_block: bool,
    /// The number of responses whose address has no route.
    unrouted: u64,
}

impl Routes {
    /// Opens the outputs for a replay, which drops no record.
    pub fn open(args: &RendezvousArgs) -> Result<Routes> {
        Routes::open_with(args, |path| Queue::open(path, usize::MAX))
    }

    /// Opens the outputs for a live run. Each queue holds at most `bytes_max` bytes.
    /// A full queue drops its oldest records, so that neither a reader nor a disk
    /// delays an answer. With `--decisions-block`, the queue of the decisions drops
    /// nothing.
    pub fn open_live(args: &RendezvousArgs, bytes_max: usize) -> Result<Routes> {
        let mut routes = Routes::open_with(args, |path| {
            let blocks = args.decisions_block && args.decisions.as_ref() == Some(path);
            match blocks {
                true => Queue::open(path, usize::MAX),
                false => Queue::open_with_thread(path, bytes_max),
            }
        })?;
        routes.decisions_block = args.decisions_block;
        Ok(routes)
    }

    fn open_with(
        args: &RendezvousArgs,
        open: impl Fn(&Address) -> Result<Queue>,
    ) -> Result<Routes> {
        let mut by_address = Vec::new();
        for (address, path) in &args.route {
            by_address.push((address.clone(), open(path)?));
        }
        let decisions = match &args.decisions {
            Some(path) => Some(open(path)?),
            None => None,
        };
        Ok(Routes {
            by_address,
            decisions,
            decisions_block: false,
            unrouted: 0,
        })
    }

    /// Appends a response to the queue of its route, or to `output` if there is no
    /// route. Returns the error of [`write_response`].
    pub fn answer(&mut self, answer: &Answer, output: &mut Vec<u8>) -> Result<(), String> {
        if self.by_address.is_empty() {
            return write_response(answer, output);
        }
        let address = Record::of_text(&answer.request)?.get(Field::ReturnAddress);
        let Some(address) = address.and_then(decode_string) else {
            return write_response(answer, output);
        };
        let route = self.by_address.iter_mut().find(|(it, _)| *it == *address);
        let Some((_, queue)) = route else {
            self.unrouted += 1;
            return write_response(answer, output);
        };
        let mut written = Ok(());
        queue.push(|bytes| written = write_response(answer, bytes));
        written
    }

    /// Appends the decision of a closed mailbox, if `--decisions` is given. Returns
    /// the error of [`write_decision`].
    pub fn decision(&mut self, mailbox: &Mailbox, choice: Choice) -> Result<(), String> {
        let mut written = Ok(());
        if let Some(queue) = &mut self.decisions {
            queue.push(|bytes| written = write_decision(mailbox, choice, bytes));
        }
        written
    }

    /// The number of bytes of decisions that hold the program up.
    pub fn blocking_bytes(&self) -> usize {
        let decisions = self.decisions.as_ref().filter(|_| self.decisions_block);
        decisions.map_or(0, Queue::len)
    }

    /// Returns an error if decisions were lost that must not be.
    pub fn check_decisions(&self) -> Result<()> {
        match &self.decisions {
            Some(queue) if self.decisions_block && queue.dropped > 0 => {
                bail!("the decisions cannot be written, and --decisions-block allows no loss")
            }
            _ => Ok(()),
        }
    }

    /// The number of bytes that wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        let routes = self.by_address.iter().map(|(_, queue)| queue);
        routes.chain(&self.decisions).map(Queue::len).sum()
    }

    fn queues(&mut self) -> impl Iterator<Item = &mut Queue> {
        let routes = self.by_address.iter_mut().map(|(_, queue)| queue);
        routes.chain(self.decisions.as_mut())
    }

    /// The outputs that have waiting records.
    pub fn waiting(&self) -> impl Iterator<Item = &Output> {
        let routes = self.by_address.iter().map(|(_, queue)| queue);
        routes.chain(&self.decisions).filter_map(Queue::output)
    }

    /// Writes as many bytes as the outputs accept without waiting.
    pub fn write_some(&mut self, report: &mut Report) {
        for queue in self.queues() {
            queue.write_some(report);
        }
    }

    /// Writes all records for a replay, however long this takes.
    pub fn write_all(&mut self, stage: &mut Stage) -> Result<()> {
        for queue in self.queues() {
            queue.write_all(stage)?;
        }
        Ok(())
    }

    /// Writes the remaining records, as long as their readers accept them in time.
    pub fn finish(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(decisions) = self.decisions.as_mut().filter(|_| self.decisions_block) {
            decisions.write_all(stage)?;
        }
        for queue in self.queues() {
            queue.finish(stage)?;
            stage.has_findings |= queue.dropped > 0;
        }
        Ok(())
    }

    /// Adds the dropped records, and the responses without a route, to the counts.
    pub fn snapshot(&self, snapshot: Snapshot) -> Snapshot {
        let dropped = self.by_address.iter().map(|(_, queue)| queue.dropped).sum();
        let decisions = self.decisions.as_ref().map_or(0, |queue| queue.dropped);
        snapshot
            .count("unrouted", self.unrouted)
            .count("routeDropped", dropped)
            .count("decisionsDropped", decisions)
    }
}
