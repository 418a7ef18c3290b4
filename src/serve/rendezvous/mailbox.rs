//! One mailbox a request: what waits for an answer, what answered, what came too
//! late. Pure: the time is an argument, and what is to be done comes back as
//! effects.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::rc::Rc;

use crate::serve::rendezvous::counts::Counts;
use crate::serve::rendezvous::decision::{Arrival, Outcome, Reason, early, outcome};
use crate::serve::rendezvous::policy::{MeasureFrom, Policy};
use crate::wire::message::{self, Score};
use crate::wire::micros::Micros;

/// What happens to a rendezvous.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request was read.
    Request(NewRequest<'a>),
    /// A score was read.
    Score(&'a Score<'a>),
    /// All that was ready has been read. Answers are given now and not before,
    /// so that scores read together count together.
    Tick,
    /// Every stream of scores has ended: who waits, waits for nothing.
    ScoresEnded,
    /// The program is to end: nothing stays open.
    Shutdown,
    /// Another policy is in force for the requests to come.
    Policy(Rc<Policy>),
}

/// A request as a mailbox takes it.
#[derive(Clone, Copy, Debug)]
pub struct NewRequest<'a> {
    /// Its id, decoded.
    pub message_id: &'a str,
    /// The whole record.
    pub text: &'a str,
    /// How old it is by the wall clock, from its own `timestamp`.
    pub age: Micros,
}

/// What a rendezvous wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// This request has its answer.
    Answer(Box<Answer>),
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The request, whole.
    pub request: Rc<str>,
    /// The winning result, or the policy's default, as JSON text.
    pub model_result: Rc<str>,
    /// The version of the model that won; `None` for the default.
    pub model_version: Option<u64>,
    /// When and by which rule.
    pub outcome: Outcome,
    /// The policy that was in force when the request came.
    pub policy: Rc<Policy>,
}

/// What is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many mailboxes there may be, the answered ones too.
    pub mailboxes_max: usize,
    /// For how long a mailbox stays after its deadline, to see who was late.
    pub linger: Micros,
    /// How many ids of requests are known after their mailboxes.
    pub remembered_max: usize,
    /// How much of scores may wait for their requests.
    pub orphan_bytes_max: usize,
    /// For how long a score waits for its request.
    pub orphan_age_max: Micros,
}

#[derive(Debug)]
struct Mailbox {
    message_id: Rc<str>,
    request: Rc<str>,
    /// On the program's monotonic clock; before its start for a request that was
    /// accepted before.
    origin: Micros,
    policy: Rc<Policy>,
    share: Option<usize>,
    /// Each model's first score.
    arrivals: Vec<Arrival>,
    /// The results of the arrivals, as JSON text, in their order.
    results: Vec<Rc<str>>,
    answered: Option<Outcome>,
    /// When to look at it next. A timer for another time is out of date.
    due: Micros,
}

/// A score that waits for its request.
#[derive(Debug)]
struct Orphan {
    came: Micros,
    model_name: Rc<str>,
    model_version: u64,
    failed: bool,
    result: Rc<str>,
}

impl Orphan {
    fn bytes(&self) -> usize {
        size_of::<Orphan>() + self.model_name.len() + self.result.len()
    }
}

/// Where an id is known from.
#[derive(Clone, Copy, Debug)]
enum Known {
    Mailbox(u64),
    /// Its mailbox is closed.
    Remembered,
}

/// All mailboxes of a rendezvous.
#[derive(Debug)]
pub struct Mailboxes {
    policy: Rc<Policy>,
    limits: Limits,
    known: HashMap<Rc<str>, Known>,
    remembered: VecDeque<Rc<str>>,
    /// By the order in which they were opened.
    open: BTreeMap<u64, Mailbox>,
    answered: BTreeMap<u64, Mailbox>,
    opened: u64,
    timers: BinaryHeap<Reverse<(Micros, u64)>>,
    /// Mailboxes whose outcome may have changed in this wake-up.
    changed: Vec<u64>,
    orphans: HashMap<Rc<str>, Vec<Orphan>>,
    /// In the order in which they came, the adopted ones too.
    orphan_order: VecDeque<(Micros, Rc<str>)>,
    orphan_bytes: usize,
    scores_ended: bool,
    /// What became of all that was read.
    pub counts: Counts,
}

impl Mailboxes {
    /// No mailbox is open yet.
    pub fn new(policy: Rc<Policy>, limits: Limits) -> Mailboxes {
        Mailboxes {
            policy,
            limits,
            known: HashMap::new(),
            remembered: VecDeque::new(),
            open: BTreeMap::new(),
            answered: BTreeMap::new(),
            opened: 0,
            timers: BinaryHeap::new(),
            changed: Vec::new(),
            orphans: HashMap::new(),
            orphan_order: VecDeque::new(),
            orphan_bytes: 0,
            scores_ended: false,
            counts: Counts::default(),
        }
    }

    /// Takes an event at the time `now`, which never goes back, and appends what
    /// is to be done to `effects`.
    pub fn step(&mut self, event: Event, now: Micros, effects: &mut Vec<Effect>) {
        match event {
            Event::Request(request) => self.request(request, now, effects),
            Event::Score(score) => self.score(score, now),
            Event::Tick => self.tick(now, effects),
            Event::ScoresEnded => {
                self.scores_ended = true;
                self.changed.extend(self.open.keys());
                self.tick(now, effects);
                self.close_answered();
            }
            Event::Shutdown => {
                self.tick(now, effects);
                while let Some((number, _)) = self.open.first_key_value() {
                    self.answer_early(*number, now, Reason::Shutdown, effects);
                }
                self.close_answered();
                self.forget_orphans(None);
            }
            Event::Policy(policy) => self.policy = policy,
        }
    }

    /// When a [`Tick`](Event::Tick) is due though nothing is read.
    pub fn next_wake(&self) -> Option<Micros> {
        let timer = self.timers.peek().map(|Reverse((due, _))| *due);
        let orphan = self.orphan_order.front();
        let orphan = orphan.map(|(came, _)| *came + self.limits.orphan_age_max);
        timer.into_iter().chain(orphan).min()
    }

    /// Whether every request is answered and every mailbox closed.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.answered.is_empty()
    }

    /// How many requests wait for their answer.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    fn request(&mut self, request: NewRequest, now: Micros, effects: &mut Vec<Effect>) {
        self.counts.requests += 1;
        if self.known.contains_key(request.message_id) {
            self.counts.repeated += 1;
            return;
        }
        if self.open.len() + self.answered.len() >= self.limits.mailboxes_max {
            self.make_room(now, effects);
        }
        let policy = Rc::clone(&self.policy);
        let age = match policy.measure_from {
            MeasureFrom::Timestamp => request.age.clamp(Micros(0), policy.deadline),
            MeasureFrom::Arrival => Micros(0),
        };
        let number = self.opened;
        self.opened += 1;
        let message_id: Rc<str> = request.message_id.into();
        self.known
            .insert(Rc::clone(&message_id), Known::Mailbox(number));
        let mut mailbox = Mailbox {
            share: policy.share_of(request.text),
            request: request.text.into(),
            origin: now - age,
            policy,
            arrivals: Vec::new(),
            results: Vec::new(),
            answered: None,
            due: Micros(i64::MAX),
            message_id,
        };
        for orphan in self.orphans.remove(&mailbox.message_id).unwrap_or_default() {
            self.orphan_bytes -= orphan.bytes();
            mailbox.take(orphan, &mut self.counts);
        }
        self.open.insert(number, mailbox);
        self.changed.push(number);
    }

    /// One mailbox less: the oldest that has answered already, else the oldest.
    fn make_room(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        if self.answered.is_empty()
            && let Some((number, _)) = self.open.first_key_value()
        {
            self.answer_early(*number, now, Reason::Overflow, effects);
        }
        if let Some((_, mailbox)) = self.answered.pop_first() {
            self.close(mailbox);
        }
    }

    fn score(&mut self, score: &Score, now: Micros) {
        self.counts.scores += 1;
        let (failed, result) = match score.outcome {
            message::Outcome::Result(result) => (false, result),
            message::Outcome::Error(error) => (true, error),
        };
        let orphan = Orphan {
            came: now,
            model_name: Rc::from(&*score.model_name),
            model_version: score.model_version,
            failed,
            result: result.into(),
        };
        match self.known.get(&*score.message_id) {
            Some(Known::Mailbox(number)) => {
                if let Some(mailbox) = self.open.get_mut(number) {
                    mailbox.take(orphan, &mut self.counts);
                    self.changed.push(*number);
                } else if let Some(mailbox) = self.answered.get_mut(number) {
                    mailbox.take(orphan, &mut self.counts);
                }
            }
            Some(Known::Remembered) => self.counts.orphaned += 1,
            None => self.hold(&score.message_id, orphan),
        }
    }

    /// Keeps a score that came before its request.
    fn hold(&mut self, message_id: &str, orphan: Orphan) {
        let message_id: Rc<str> = message_id.into();
        self.orphan_bytes += orphan.bytes();
        self.orphan_order
            .push_back((orphan.came, Rc::clone(&message_id)));
        self.orphans.entry(message_id).or_default().push(orphan);
        while self.orphan_bytes > self.limits.orphan_bytes_max
            || self.orphan_order.len() > 2 * self.limits.mailboxes_max
        {
            let Some((came, message_id)) = self.orphan_order.pop_front() else {
                break;
            };
            self.forget_orphan(&message_id, came);
        }
    }

    /// Gives up the scores that came up to a time, or all of them.
    fn forget_orphans(&mut self, up_to: Option<Micros>) {
        while let Some((came, _)) = self.orphan_order.front() {
            if up_to.is_some_and(|up_to| *came > up_to) {
                break;
            }
            if let Some((came, message_id)) = self.orphan_order.pop_front() {
                self.forget_orphan(&message_id, came);
            }
        }
    }

    fn forget_orphan(&mut self, message_id: &Rc<str>, came: Micros) {
        // Where the request has come since, there is nothing to forget.
        let Some(waiting) = self.orphans.get_mut(message_id) else {
            return;
        };
        if let Some(index) = waiting.iter().position(|orphan| orphan.came == came) {
            let orphan = waiting.remove(index);
            self.orphan_bytes -= orphan.bytes();
            self.counts.orphaned += 1;
        }
        if waiting.is_empty() {
            self.orphans.remove(message_id);
        }
    }

    fn tick(&mut self, now: Micros, effects: &mut Vec<Effect>) {
        for number in std::mem::take(&mut self.changed) {
            self.decide(number, now, effects);
        }
        while let Some(Reverse((due, number))) = self.timers.peek().copied() {
            if due > now {
                break;
            }
            self.timers.pop();
            if self.open.get(&number).is_some_and(|it| it.due == due) {
                self.decide(number, now, effects);
            } else if self.answered.get(&number).is_some_and(|it| it.due == due)
                && let Some(mailbox) = self.answered.remove(&number)
            {
                self.close(mailbox);
            }
        }
        self.forget_orphans(Some(now - self.limits.orphan_age_max));
    }

    /// Answers a request whose time has come, or sets its timer.
    fn decide(&mut self, number: u64, now: Micros, effects: &mut Vec<Effect>) {
        let Some(mailbox) = self.open.get_mut(&number) else {
            return;
        };
        let outcome = outcome(&mailbox.policy, mailbox.share, &mailbox.arrivals);
        let due = mailbox.origin + outcome.at;
        if due <= now {
            self.answer(number, outcome, effects);
        } else if self.scores_ended {
            self.answer_early(number, now, Reason::Shutdown, effects);
        } else if mailbox.due != due {
            mailbox.due = due;
            self.timers.push(Reverse((due, number)));
        }
    }

    fn answer_early(
        &mut self,
        number: u64,
        now: Micros,
        reason: Reason,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(mailbox) = self.open.get(&number) {
            let at = now - mailbox.origin;
            let outcome = early(&mailbox.policy, &mailbox.arrivals, at, reason);
            self.answer(number, outcome, effects);
        }
    }

    fn answer(&mut self, number: u64, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(mut mailbox) = self.open.remove(&number) else {
            return;
        };
        let winner = outcome.winner.map(|winner| &mailbox.arrivals[winner]);
        self.counts.answer(winner, outcome);
        effects.push(Effect::Answer(Box::new(Answer {
            request: Rc::clone(&mailbox.request),
            model_result: match outcome.winner {
                Some(winner) => Rc::clone(&mailbox.results[winner]),
                None => mailbox.policy.default.as_str().into(),
            },
            model_version: winner.map(|winner| winner.model_version),
            outcome,
            policy: Rc::clone(&mailbox.policy),
        })));
        mailbox.answered = Some(outcome);
        mailbox.due = mailbox.origin + mailbox.policy.deadline + self.limits.linger;
        self.timers.push(Reverse((mailbox.due, number)));
        self.answered.insert(number, mailbox);
    }

    fn close_answered(&mut self) {
        while let Some((_, mailbox)) = self.answered.pop_first() {
            self.close(mailbox);
        }
    }

    fn close(&mut self, mailbox: Mailbox) {
        let deadline = mailbox.policy.deadline;
        let winner = mailbox.answered.and_then(|outcome| outcome.winner);
        for (index, arrival) in mailbox.arrivals.iter().enumerate() {
            let counted = if arrival.at > deadline {
                &mut self.counts.late
            } else if arrival.failed {
                &mut self.counts.failed
            } else if winner == Some(index) {
                &mut self.counts.used
            } else {
                &mut self.counts.unused
            };
            *counted += 1;
        }
        if self.limits.remembered_max == 0 {
            self.known.remove(&mailbox.message_id);
            return;
        }
        if self.remembered.len() >= self.limits.remembered_max
            && let Some(oldest) = self.remembered.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known
            .insert(Rc::clone(&mailbox.message_id), Known::Remembered);
        self.remembered.push_back(mailbox.message_id);
    }
}

impl Mailbox {
    /// Takes a score in, unless its model has reported already.
    fn take(&mut self, score: Orphan, counts: &mut Counts) {
        let reported = self.arrivals.iter().any(|arrival| {
            arrival.model_version == score.model_version && arrival.model_name == score.model_name
        });
        if reported {
            counts.duplicate += 1;
            return;
        }
        self.arrivals.push(Arrival {
            model_name: score.model_name,
            model_version: score.model_version,
            at: (score.came - self.origin).max(Micros(0)),
            failed: score.failed,
        });
        self.results.push(score.result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        deadline_ms = 100
        [[prefer]]
        after_ms = 0
        models = ["dt@1"]
        [[prefer]]
        after_ms = 50
        models = ["dt@1", "lr@0"]
        [default]
        modelResult = { modelName = "default", result = 0 }
    "#;

    const LIMITS: Limits = Limits {
        mailboxes_max: 3,
        linger: Micros(1_000_000),
        remembered_max: 2,
        orphan_bytes_max: 4096,
        orphan_age_max: Micros(1_000_000),
    };

    /// A rendezvous and the time, which the test moves.
    struct Bench {
        mailboxes: Mailboxes,
        now: Micros,
        effects: Vec<Effect>,
    }

    impl Bench {
        fn new() -> Bench {
            let policy = Policy::parse(POLICY, "policy").unwrap();
            Bench {
                mailboxes: Mailboxes::new(Rc::new(policy), LIMITS),
                now: Micros(0),
                effects: Vec::new(),
            }
        }

        fn request(&mut self, id: &str, age_ms: i64) -> &mut Bench {
            let request = NewRequest {
                message_id: id,
                text: &format!("{{\"messageId\":\"{id}\"}}"),
                age: Micros(age_ms * 1000),
            };
            self.mailboxes
                .step(Event::Request(request), self.now, &mut self.effects);
            self
        }

        fn score(&mut self, id: &str, model: &str, version: u64) -> &mut Bench {
            self.outcome(id, model, version, message::Outcome::Result("7"))
        }

        fn failure(&mut self, id: &str, model: &str, version: u64) -> &mut Bench {
            self.outcome(id, model, version, message::Outcome::Error("{}"))
        }

        fn outcome(
            &mut self,
            id: &str,
            model: &str,
            version: u64,
            outcome: message::Outcome,
        ) -> &mut Bench {
            let score = Score {
                message_id: id.into(),
                model_name: model.into(),
                model_version: version,
                model_hash: None,
                outcome,
            };
            self.mailboxes
                .step(Event::Score(&score), self.now, &mut self.effects);
            self
        }

        /// Ends this wake-up, and says what was answered in it.
        fn tick(&mut self) -> Vec<String> {
            self.event(Event::Tick)
        }

        fn event(&mut self, event: Event) -> Vec<String> {
            self.mailboxes.step(event, self.now, &mut self.effects);
            self.effects
                .drain(..)
                .map(|effect| {
                    let Effect::Answer(answer) = effect;
                    let id =
                        crate::wire::object::at_pointer(&answer.request, "/messageId").unwrap();
                    let model = answer
                        .model_version
                        .map_or("default".into(), |it| format!("v{it}"));
                    let at = answer.outcome.at.as_millis();
                    format!("{id} {model} {at} {}", answer.outcome.reason.name())
                })
                .collect()
        }

        fn at(&mut self, ms: i64) -> &mut Bench {
            self.now = Micros(ms * 1000);
            self
        }
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn a_deadline_fires_without_traffic_when_the_bench_wakes_as_told() {
        let mut bench = Bench::new();
        bench.at(10).request("a", 0);
        assert_eq!(bench.tick(), NOTHING);
        assert_eq!(bench.mailboxes.next_wake(), Some(Micros(110_000)));
        assert_eq!(bench.at(110).tick(), ["\"a\" default 100.000 default"]);
        assert_eq!(bench.mailboxes.next_wake(), Some(Micros(1_110_000)));
        bench.at(1110).tick();
        assert!(bench.mailboxes.is_empty());
        assert_eq!(bench.mailboxes.next_wake(), None);
        bench.mailboxes.counts.assert_balanced();
    }

    #[test]
    fn a_late_wake_up_answers_as_if_it_had_been_in_time() {
        let mut bench = Bench::new();
        bench.request("a", 0).tick();
        bench.at(20).score("a", "lr", 0);
        assert_eq!(bench.tick(), NOTHING);
        // The step began at 50; the preferred one came at 70, and was read at 70.
        bench.at(70).score("a", "dt", 1);
        assert_eq!(bench.tick(), ["\"a\" v0 50.000 fallback"]);
    }

    #[test]
    fn scores_of_one_wake_up_count_together() {
        let mut bench = Bench::new();
        bench.request("a", 0).tick();
        bench.at(60).score("a", "lr", 0).score("a", "dt", 1);
        assert_eq!(bench.tick(), ["\"a\" v1 60.000 fallback"]);
    }

    #[test]
    fn scores_may_come_before_their_request() {
        let mut bench = Bench::new();
        bench.at(1000).score("a", "lr", 0).tick();
        bench.at(1010).score("a", "dt", 1).tick();
        // Accepted at 990: lr came 20 ms later, dt 30.
        bench.at(1050).request("a", 60);
        assert_eq!(bench.tick(), ["\"a\" v1 20.000 preferred"]);
        bench.event(Event::Shutdown);
        bench.mailboxes.counts.assert_balanced();
    }

    #[test]
    fn a_wrong_wall_clock_moves_a_deadline_by_its_length_at_the_most() {
        let mut bench = Bench::new();
        bench.request("old", 3_600_000).request("young", -3_600_000);
        assert_eq!(bench.tick(), ["\"old\" default 100.000 default"]);
        assert_eq!(bench.at(99).tick(), NOTHING);
        assert_eq!(bench.at(100).tick(), ["\"young\" default 100.000 default"]);
    }

    #[test]
    fn every_score_has_one_fate() {
        let mut bench = Bench::new();
        bench.request("a", 0).request("a", 0).tick();
        bench
            .at(5)
            .score("a", "dt", 1)
            .score("a", "dt", 1)
            .failure("a", "x", 0);
        bench.score("a", "lr", 0).tick();
        bench.at(101).score("a", "y", 0).score("a", "lr", 0).tick();
        bench.score("nobody", "dt", 1).tick();
        bench.at(1_200).tick();
        bench.score("a", "late", 9).tick();
        bench.at(9_000).tick();
        let counts = &bench.mailboxes.counts;
        assert_eq!((counts.requests, counts.repeated), (2, 1));
        assert_eq!((counts.used, counts.unused, counts.failed), (1, 1, 1));
        assert_eq!((counts.late, counts.duplicate, counts.orphaned), (1, 2, 2));
        counts.assert_balanced();
    }

    #[test]
    fn the_oldest_is_answered_at_once_when_there_are_too_many() {
        let mut bench = Bench::new();
        for id in ["a", "b", "c", "d"] {
            bench.request(id, 0);
        }
        assert_eq!(bench.tick(), ["\"a\" default 0.000 overflow"]);
        // An answered mailbox goes first.
        bench.at(1).score("c", "dt", 1);
        assert_eq!(bench.tick(), ["\"c\" v1 1.000 preferred"]);
        bench.request("e", 0);
        assert_eq!(bench.tick(), NOTHING);
        assert_eq!(bench.mailboxes.open(), 3);
    }

    #[test]
    fn when_all_scores_have_ended_nobody_waits() {
        let mut bench = Bench::new();
        bench.request("a", 0).tick();
        bench.at(3).score("a", "lr", 0).tick();
        assert_eq!(bench.event(Event::ScoresEnded), ["\"a\" v0 3.000 shutdown"]);
        assert_eq!(
            bench.request("b", 0).tick(),
            ["\"b\" default 0.000 shutdown"]
        );
    }

    #[test]
    fn orphans_are_bounded_in_bytes_and_age() {
        let mut bench = Bench::new();
        for number in 0..100 {
            bench.score(&format!("orphan-{number}"), "dt", 1);
        }
        assert!(bench.mailboxes.orphan_bytes <= LIMITS.orphan_bytes_max);
        let forgotten = bench.mailboxes.counts.orphaned;
        assert!(forgotten > 0);
        bench.at(1_000).tick();
        assert_eq!(bench.mailboxes.counts.orphaned, 100);
        assert_eq!(bench.mailboxes.orphan_bytes, 0);
    }

    #[test]
    fn an_open_mailbox_keeps_its_policy() {
        let mut bench = Bench::new();
        bench.request("a", 0).tick();
        let other = Policy::parse(
            &POLICY.replace("dt@1", "lr@0").replace(", \"lr@0\"", ""),
            "p",
        );
        bench.event(Event::Policy(Rc::new(other.unwrap())));
        bench.request("b", 0).tick();
        bench.at(1).score("a", "lr", 0).score("b", "lr", 0);
        assert_eq!(bench.tick(), ["\"b\" v0 1.000 preferred"]);
    }
}
