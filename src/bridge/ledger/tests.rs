//! Tests of the ledger: examples, and a model that knows what is safe.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;

use super::{
    AckMode, Action, Aside, Delivered, Delivery, DoneRule, InputRules, Key, Ledger, OutputKey,
    Position, Rules,
};

const NOTHING: [u64; 0] = [];

const UNANSWERED: Duration = Duration::from_secs(300);

fn rules() -> Rules {
    Rules {
        ordered: false,
        unanswered: UNANSWERED,
        deaths_max: 3,
        remembered_max: 1000,
    }
}

fn input(done: DoneRule, acknowledge: AckMode) -> InputRules {
    InputRules {
        done,
        acknowledge,
        records_max: 100,
        bytes_max: 10_000,
        span_max: 50,
    }
}

fn filter(acknowledge: AckMode) -> Ledger<u64> {
    Ledger::new(rules(), vec![input(DoneRule::Output, acknowledge)])
}

fn at(sequence: u64) -> Position {
    Position {
        sequence,
        ..Position::default()
    }
}

/// The message at `sequence`. Its handle is its sequence, plus `handle`.
fn message(sequence: u64, id: &str, handle: u64) -> Delivery<u64> {
    Delivery {
        position: at(sequence),
        handle: sequence + handle,
        id: Some(id.into()),
        line: format!("{sequence} {id}").into_bytes().into(),
        is_repeat: false,
        batch: 1,
    }
}

/// Delivers messages with these ids at 1, 2, ... and gives all of them.
fn give_all(ledger: &mut Ledger<u64>, input: usize, ids: &[&str], now: Instant) -> Vec<Key> {
    for (index, id) in ids.iter().enumerate() {
        ledger.delivered(input, message(index as u64 + 1, id, 0));
    }
    let mut keys = Vec::new();
    while let Some((key, _)) = ledger.give(input, now) {
        keys.push(key);
    }
    keys
}

fn acknowledged(ledger: &mut Ledger<u64>) -> Vec<u64> {
    let actions = ledger.take_actions().into_iter();
    let handles = actions.map(|action| match action {
        Action::Acknowledge { handle, .. } => handle,
        Action::Commit { next, .. } => next,
        Action::SetAside { .. } => panic!("{action:?}"),
    });
    handles.collect()
}

/// The output of the program is safe at once.
fn answer(ledger: &mut Ledger<u64>, output: usize, id: &str) {
    let key = ledger.output(output, Some(id));
    ledger.safe(key);
}

#[test]
fn a_message_is_acknowledged_when_its_output_is_safe_and_not_before() {
    let mut ledger = filter(AckMode::Single);
    give_all(&mut ledger, 0, &["a"], Instant::now());
    let output = ledger.output(0, Some("a"));
    assert_eq!(acknowledged(&mut ledger), NOTHING);
    ledger.safe(output);
    assert_eq!(acknowledged(&mut ledger), [1]);
    assert_eq!(ledger.open(0), 0);
}

#[test]
fn the_nth_output_with_an_id_finishes_the_nth_open_input_with_it() {
    let mut ledger = filter(AckMode::Single);
    give_all(&mut ledger, 0, &["a", "b", "a", "a"], Instant::now());
    let first = ledger.output(0, Some("a"));
    let second = ledger.output(0, Some("a"));
    ledger.safe(second);
    assert_eq!(acknowledged(&mut ledger), [3]);
    ledger.safe(first);
    assert_eq!(acknowledged(&mut ledger), [1]);
    answer(&mut ledger, 0, "x");
    assert_eq!(acknowledged(&mut ledger), NOTHING, "no input has this id");
}

#[test]
fn a_kafka_partition_is_committed_up_to_its_first_unfinished_message() {
    let mut ledger = filter(AckMode::Prefix);
    give_all(&mut ledger, 0, &["a", "b", "c"], Instant::now());
    answer(&mut ledger, 0, "b");
    assert_eq!(acknowledged(&mut ledger), NOTHING);
    answer(&mut ledger, 0, "a");
    assert_eq!(acknowledged(&mut ledger), [3]);
    answer(&mut ledger, 0, "c");
    assert_eq!(acknowledged(&mut ledger), [4]);
}

#[test]
fn a_message_that_is_delivered_again_is_not_given_again_and_its_newer_handle_counts() {
    let now = Instant::now();
    let mut ledger = filter(AckMode::Single);
    give_all(&mut ledger, 0, &["a"], now);
    let again = ledger.delivered(0, message(1, "a", 100));
    assert_eq!(again, Delivered::Open);
    assert_eq!(ledger.give(0, now), None);
    answer(&mut ledger, 0, "a");
    assert_eq!(acknowledged(&mut ledger), [101]);
    let again = ledger.delivered(0, message(1, "a", 200));
    assert_eq!(again, Delivered::Finished);
    assert_eq!(acknowledged(&mut ledger), [201]);
    assert_eq!(ledger.counts(0).redelivered, 2);
}

#[test]
fn another_message_at_a_known_position_is_a_new_message() {
    for mode in [AckMode::Single, AckMode::Prefix] {
        let now = Instant::now();
        let mut ledger = filter(mode);
        give_all(&mut ledger, 0, &["old"], now);
        let new = ledger.delivered(0, message(1, "new", 100));
        assert!(matches!(new, Delivered::New(_)), "{new:?}");
        assert!(ledger.give(0, now).is_some());
        answer(&mut ledger, 0, "old");
        assert_eq!(
            acknowledged(&mut ledger),
            NOTHING,
            "the old message is gone"
        );
        answer(&mut ledger, 0, "new");
        assert_eq!(acknowledged(&mut ledger).len(), 1);
    }
}

#[test]
fn all_named_outputs_finish_a_request_and_later_ones_with_its_id() {
    let now = Instant::now();
    let mut ledger = Ledger::new(rules(), vec![input(DoneRule::Outputs(3), AckMode::Single)]);
    give_all(&mut ledger, 0, &["a", "a"], now);
    answer(&mut ledger, 0, "a");
    answer(&mut ledger, 0, "a");
    assert_eq!(acknowledged(&mut ledger), NOTHING);
    answer(&mut ledger, 1, "a");
    assert_eq!(acknowledged(&mut ledger), [1, 2]);
    ledger.delivered(0, message(9, "a", 0));
    assert_eq!(ledger.give(0, now), None);
    assert_eq!(acknowledged(&mut ledger), [9]);
}

#[test]
fn an_ordered_output_also_finishes_the_inputs_before_its_own() {
    let mut ledger = Ledger::new(
        Rules {
            ordered: true,
            ..rules()
        },
        vec![input(DoneRule::Output, AckMode::Single)],
    );
    give_all(&mut ledger, 0, &["a", "b", "c", "d"], Instant::now());
    let of_a = ledger.output(0, Some("a"));
    answer(&mut ledger, 0, "c");
    assert_eq!(
        acknowledged(&mut ledger),
        [2, 3],
        "the output of the first is not yet safe"
    );
    ledger.safe(of_a);
    assert_eq!(acknowledged(&mut ledger), [1]);
}

#[test]
fn a_rejected_record_finishes_the_input_that_it_names_when_it_is_safe() {
    let mut ledger = Ledger::new(
        rules(),
        vec![
            input(DoneRule::Outputs(1), AckMode::Single),
            input(DoneRule::Age(UNANSWERED), AckMode::Single),
        ],
    );
    let now = Instant::now();
    give_all(&mut ledger, 0, &["a", "b"], now);
    give_all(&mut ledger, 1, &["a"], now);
    let bad_score = ledger.rejected(Some(1), Some(1), Some("a"));
    ledger.safe(bad_score);
    assert_eq!(ledger.open(1), 0);
    assert_eq!(ledger.open(0), 2, "the request with the same id stays open");
    let wrong_line = ledger.rejected(Some(0), Some(1), Some("b"));
    ledger.safe(wrong_line);
    assert_eq!(acknowledged(&mut ledger), [1, 2]);
}

#[test]
fn an_age_finishes_what_no_output_will_ever_name() {
    let now = Instant::now();
    let age = Duration::from_secs(30);
    let mut ledger = Ledger::new(rules(), vec![input(DoneRule::Age(age), AckMode::Single)]);
    give_all(&mut ledger, 0, &["a"], now);
    assert_eq!(ledger.next_wake(), Some(now + age));
    ledger.expire(now + age - Duration::from_millis(1));
    assert_eq!(acknowledged(&mut ledger), NOTHING);
    ledger.expire(now + age);
    assert_eq!(acknowledged(&mut ledger), [1]);
    assert_eq!(ledger.next_wake(), None);
}

#[test]
fn a_full_input_that_is_finished_by_age_makes_room() {
    let mut ledger = Ledger::new(
        rules(),
        vec![input(DoneRule::Age(UNANSWERED), AckMode::Single)],
    );
    let ids: Vec<String> = (0..100).map(|it| it.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    give_all(&mut ledger, 0, &ids, Instant::now());
    assert!(ledger.is_full(0));
    ledger.make_room(0);
    assert!(!ledger.is_full(0));
    assert_eq!(acknowledged(&mut ledger), [1]);
    assert_eq!(ledger.counts(0).finished_early, 1);
}

#[test]
fn the_pipe_finishes_an_input_if_the_rule_says_so() {
    let mut ledger = Ledger::new(rules(), vec![input(DoneRule::Written, AckMode::Single)]);
    let keys = give_all(&mut ledger, 0, &["a", "b"], Instant::now());
    ledger.written(0, keys[0]);
    assert_eq!(acknowledged(&mut ledger), [1]);
    let mut filter = filter(AckMode::Single);
    let keys = give_all(&mut filter, 0, &["a"], Instant::now());
    filter.written(0, keys[0]);
    assert_eq!(acknowledged(&mut filter), NOTHING);
}

#[test]
fn an_unanswered_input_is_set_aside_and_acknowledged_when_that_is_safe() {
    let now = Instant::now();
    let mut ledger = filter(AckMode::Prefix);
    give_all(&mut ledger, 0, &["a", "b"], now);
    let of_b = ledger.output(0, Some("b"));
    ledger.safe(of_b);
    ledger.expire(now + UNANSWERED);
    let actions = ledger.take_actions();
    let [
        Action::SetAside {
            output,
            position,
            reason,
            ..
        },
    ] = actions.as_slice()
    else {
        panic!("{actions:?}");
    };
    assert_eq!((*position, *reason), (at(1), Aside::Unanswered));
    ledger.safe(*output);
    assert_eq!(acknowledged(&mut ledger), [3]);
}

#[test]
fn after_a_death_the_messages_in_hand_are_given_one_at_a_time_and_the_deadly_one_is_condemned() {
    let now = Instant::now();
    let mut ledger = filter(AckMode::Single);
    give_all(&mut ledger, 0, &["a", "b", "c"], now);
    answer(&mut ledger, 0, "b");
    assert_eq!(ledger.program_ended(true), 2);
    for _ in 0..2 {
        let (key, line) = ledger.give(0, now).unwrap();
        assert_eq!(line, b"1 a");
        assert!(ledger.is_repeat(0, key));
        assert_eq!(ledger.give(0, now), None, "one at a time");
        assert_eq!(ledger.program_ended(true), 1);
    }
    let (_, line) = ledger.give(0, now).unwrap();
    assert_eq!(line, b"3 c");
    let actions = ledger.take_actions();
    assert!(
        matches!(
            actions.as_slice(),
            [
                Action::Acknowledge { handle: 2, .. },
                Action::SetAside {
                    reason: Aside::Condemned,
                    ..
                }
            ]
        ),
        "{actions:?}"
    );
    answer(&mut ledger, 0, "c");
    ledger.delivered(0, message(8, "d", 0));
    ledger.delivered(0, message(9, "e", 0));
    assert!(ledger.give(0, now).is_some());
    assert!(ledger.give(0, now).is_some(), "the suspects are through");
}

#[test]
fn a_failure_that_no_message_has_caused_condemns_none() {
    let now = Instant::now();
    let mut ledger = filter(AckMode::Single);
    give_all(&mut ledger, 0, &["a"], now);
    for _ in 0..5 {
        assert_eq!(ledger.program_ended(false), 1);
        assert!(ledger.give(0, now).is_some());
    }
}

#[test]
fn a_suspect_without_an_output_does_not_hold_the_others_up() {
    let now = Instant::now();
    let mut ledger = filter(AckMode::Single);
    give_all(&mut ledger, 0, &["a", "b"], now);
    ledger.program_ended(true);
    assert!(ledger.give(0, now).is_some());
    assert!(ledger.give(0, now).is_none());
    let wake = ledger.next_wake().unwrap();
    assert!(wake <= now + Duration::from_secs(1));
    assert!(ledger.give(0, wake).is_some());
}

#[test]
fn a_batch_is_acknowledged_as_a_whole() {
    let mut ledger = filter(AckMode::Single);
    for index in 0..3 {
        let mut part = message(7, &index.to_string(), 0);
        part.position.index = index;
        part.batch = 3;
        ledger.delivered(0, part);
    }
    while ledger.give(0, Instant::now()).is_some() {}
    answer(&mut ledger, 0, "2");
    answer(&mut ledger, 0, "0");
    assert_eq!(acknowledged(&mut ledger), NOTHING);
    answer(&mut ledger, 0, "1");
    assert_eq!(acknowledged(&mut ledger), [7]);
}

#[test]
fn the_output_for_a_revoked_partition_acknowledges_nothing_until_it_comes_back() {
    let now = Instant::now();
    let mut ledger = filter(AckMode::Prefix);
    give_all(&mut ledger, 0, &["a", "b"], now);
    ledger.delivered(0, message(3, "c", 0));
    ledger.revoked(0, 0, 0);
    assert_eq!(ledger.give(0, now), None, "another consumer gets it");
    answer(&mut ledger, 0, "a");
    assert_eq!(acknowledged(&mut ledger), NOTHING);
    assert_eq!(ledger.delivered(0, message(2, "b", 0)), Delivered::Open);
    answer(&mut ledger, 0, "b");
    assert_eq!(acknowledged(&mut ledger), [3]);
    assert_eq!(ledger.open(0), 0);
}

/// One event of the property test. Numbers choose among what is there.
#[derive(Clone, Debug)]
enum Event {
    Deliver { partition: i32, id: u8 },
    DeliverAgain { choice: usize },
    Give,
    Output { id: u8 },
    Safe { choice: usize },
    Reject { choice: usize },
    Revoke { partition: i32 },
    End,
    Expire { seconds: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..3i32, 0..6u8).prop_map(|(partition, id)| Event::Deliver { partition, id }),
        2 => (0..1000usize).prop_map(|choice| Event::DeliverAgain { choice }),
        6 => proptest::strategy::Just(Event::Give),
        6 => (0..7u8).prop_map(|id| Event::Output { id }),
        6 => (0..1000usize).prop_map(|choice| Event::Safe { choice }),
        1 => (0..1000usize).prop_map(|choice| Event::Reject { choice }),
        1 => (0..3i32).prop_map(|partition| Event::Revoke { partition }),
        1 => proptest::strategy::Just(Event::End),
        1 => (0..200u64).prop_map(|seconds| Event::Expire { seconds }),
    ]
}

/// A broker and a program that the ledger stands between. The model knows which lines
/// came of which messages, and so which messages are safe.
struct Model {
    ledger: Ledger<u64>,
    mode: AckMode,
    ordered: bool,
    now: Instant,
    /// The messages that the broker has stored, by partition and offset.
    stored: BTreeMap<(i32, u64), u8>,
    next_offset: [u64; 3],
    /// What the program has read and not yet answered, in order.
    in_hand: VecDeque<(i32, u64, u8)>,
    /// Lines of the program on their way, and what each makes safe.
    publishing: Vec<(OutputKey, Vec<(i32, u64)>)>,
    /// Messages whose record is safe, or before which an ordered output is.
    safe: HashSet<(i32, u64)>,
    acknowledged: HashSet<(i32, u64)>,
    /// The first offset of each partition that is not committed.
    committed: [u64; 3],
    /// What this consumer was delivered and may still acknowledge.
    deliveries: HashMap<(i32, u64), u64>,
    next_handle: u64,
    by_handle: HashMap<u64, (i32, u64)>,
}

impl Model {
    fn new(mode: AckMode, ordered: bool) -> Model {
        let rules = Rules { ordered, ..rules() };
        Model {
            ledger: Ledger::new(rules, vec![input(DoneRule::Output, mode)]),
            mode,
            ordered,
            now: Instant::now(),
            stored: BTreeMap::new(),
            next_offset: [0; 3],
            in_hand: VecDeque::new(),
            publishing: Vec::new(),
            safe: HashSet::new(),
            acknowledged: HashSet::new(),
            committed: [0; 3],
            deliveries: HashMap::new(),
            next_handle: 0,
            by_handle: HashMap::new(),
        }
    }

    fn deliver(&mut self, partition: i32, offset: u64) {
        let id = self.stored[&(partition, offset)];
        self.next_handle += 1;
        let handle = self.next_handle;
        self.by_handle.insert(handle, (partition, offset));
        self.deliveries.insert((partition, offset), handle);
        self.ledger.delivered(
            0,
            Delivery {
                position: Position {
                    partition,
                    sequence: offset,
                    ..Position::default()
                },
                handle,
                id: Some(id.to_string().into()),
                line: format!("{partition} {offset} {id}").into_bytes().into(),
                is_repeat: false,
                batch: 1,
            },
        );
    }

    fn give(&mut self) -> bool {
        let Some((_, line)) = self.ledger.give(0, self.now) else {
            return false;
        };
        let line = std::str::from_utf8(line).unwrap();
        let mut numbers = line.split(' ').map(|it| it.parse::<u64>().unwrap());
        let mut next = || numbers.next().unwrap();
        let given = (next() as i32, next(), next() as u8);
        self.in_hand.push_back(given);
        true
    }

    fn output(&mut self, id: u8) {
        let output = self.ledger.output(0, Some(&id.to_string()));
        let mut makes_safe = Vec::new();
        if let Some(at) = self.in_hand.iter().position(|it| it.2 == id) {
            let (partition, offset, _) = self.in_hand[at];
            makes_safe.push((partition, offset));
            self.in_hand.remove(at);
            if self.ordered {
                let before = self.in_hand.iter().take(at);
                makes_safe.extend(before.map(|it| (it.0, it.1)));
            }
        }
        self.publishing.push((output, makes_safe));
    }

    fn safe(&mut self, choice: usize) {
        if self.publishing.is_empty() {
            return;
        }
        let (output, makes_safe) = self.publishing.swap_remove(choice % self.publishing.len());
        self.ledger.safe(output);
        if self.ordered {
            // The program is silent about the messages before it that have no output by
            // now. A message that was revoked and has come again since the output was
            // written is another one: the present program answers it.
            let entries = &self.ledger.inputs[0].entries;
            let given = entries.given().into_iter();
            let given: HashSet<_> = given
                .filter_map(|key| entries.get(key))
                .map(|entry| (entry.position.partition, entry.position.sequence))
                .collect();
            let before: HashSet<_> = makes_safe.iter().skip(1).copied().collect();
            let is_silent = |it: (i32, u64)| before.contains(&it) && !given.contains(&it);
            self.in_hand.retain(|it| !is_silent((it.0, it.1)));
        }
        self.safe.extend(makes_safe);
    }

    fn reject(&mut self, choice: usize) {
        if self.in_hand.is_empty() {
            return;
        }
        let at = choice % self.in_hand.len();
        let (_, _, id) = self.in_hand[at];
        // The program names no line, so the first message with this id is meant.
        let at = self.in_hand.iter().position(|it| it.2 == id).unwrap();
        let (partition, offset, _) = self.in_hand.remove(at).unwrap();
        let output = self.ledger.rejected(None, None, Some(&id.to_string()));
        self.publishing.push((output, vec![(partition, offset)]));
    }

    fn apply(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match *event {
            Event::Deliver { partition, id } => {
                if !self.ledger.is_full(0) {
                    let offset = self.next_offset[partition as usize];
                    self.next_offset[partition as usize] += 1;
                    self.stored.insert((partition, offset), id);
                    self.deliver(partition, offset);
                }
            }
            Event::DeliverAgain { choice } => {
                let known: Vec<_> = self.deliveries.keys().copied().collect();
                if self.mode == AckMode::Single && !known.is_empty() {
                    let (partition, offset) = known[choice % known.len()];
                    self.deliver(partition, offset);
                }
            }
            Event::Give => {
                self.give();
            }
            Event::Output { id } => self.output(id),
            Event::Safe { choice } => self.safe(choice),
            Event::Reject { choice } if !self.ordered => self.reject(choice),
            Event::Reject { .. } => {}
            Event::Revoke { partition } => self.revoke(partition),
            Event::End => {
                self.ledger.program_ended(true);
                self.in_hand.clear();
            }
            Event::Expire { seconds } => {
                self.now += Duration::from_secs(seconds);
                self.ledger.expire(self.now);
            }
        }
        self.check()
    }

    /// Kafka takes a partition away and gives it back, from the committed offset on.
    fn revoke(&mut self, partition: i32) {
        if self.mode != AckMode::Prefix {
            return;
        }
        self.ledger.revoked(0, 0, partition);
        for offset in self.committed[partition as usize]..self.next_offset[partition as usize] {
            self.deliver(partition, offset);
        }
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        for action in self.ledger.take_actions() {
            match action {
                Action::Acknowledge { handle, .. } => {
                    let message = self.by_handle[&handle];
                    prop_assert!(self.safe.contains(&message), "{message:?} is not safe");
                    self.acknowledged.insert(message);
                }
                Action::Commit {
                    partition, next, ..
                } => {
                    let from = &mut self.committed[partition as usize];
                    prop_assert!(next > *from, "a commit never goes back");
                    for offset in *from..next {
                        let message = (partition, offset);
                        prop_assert!(self.safe.contains(&message), "{message:?} is not safe");
                        self.acknowledged.insert(message);
                    }
                    *from = next;
                }
                Action::SetAside {
                    output, position, ..
                } => {
                    let message = (position.partition, position.sequence);
                    self.in_hand.retain(|it| (it.0, it.1) != message);
                    self.publishing.push((output, vec![message]));
                }
            }
        }
        // The bound, and those that are delivered again after a revocation.
        prop_assert!(self.ledger.open(0) <= 100 + 50 * 3);
        Ok(())
    }

    /// The program answers everything, and the broker takes it.
    fn drain(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..10_000 {
            self.now += Duration::from_secs(2);
            let mut idle = !self.give();
            if let Some((_, _, id)) = self.in_hand.front().copied() {
                self.output(id);
                idle = false;
            }
            if !self.publishing.is_empty() {
                self.safe(0);
                idle = false;
            }
            self.check()?;
            if idle && self.ledger.open(0) == 0 {
                break;
            }
        }
        let stored: HashSet<_> = self.stored.keys().copied().collect();
        let missing: Vec<_> = stored.difference(&self.acknowledged).collect();
        prop_assert!(missing.is_empty(), "never acknowledged: {missing:?}");
        prop_assert_eq!(self.ledger.open(0), 0);
        prop_assert!(self.ledger.open_by_id.is_empty());
        prop_assert!(self.ledger.outputs.is_empty());
        prop_assert_eq!(self.ledger.inputs[0].by_line.len(), 0);
        prop_assert_eq!(self.ledger.inputs[0].partitions.widest(), 0);
        Ok(())
    }
}

proptest! {
    #[test]
    fn in_any_order_nothing_is_acknowledged_before_it_is_safe_and_all_is_in_the_end(
        events in proptest::collection::vec(event(), 0..400),
        prefix in proptest::bool::ANY,
        ordered in proptest::bool::ANY,
    ) {
        let mode = if prefix { AckMode::Prefix } else { AckMode::Single };
        let mut model = Model::new(mode, ordered);
        for event in &events {
            model.apply(event)?;
        }
        model.drain()?;
    }

    #[test]
    fn a_request_is_acknowledged_when_it_is_safe_in_every_named_output(
        events in proptest::collection::vec((0..4u8, 0..8u8, 0..2usize, 0..1000usize), 0..300),
    ) {
        let now = Instant::now();
        let mut ledger = Ledger::new(rules(), vec![input(DoneRule::Outputs(3), AckMode::Single)]);
        let mut delivered = Vec::new();
        let mut on_the_way: Vec<(OutputKey, u8, usize)> = Vec::new();
        let mut safe: HashMap<u8, HashSet<usize>> = HashMap::new();
        for (kind, id, output, choice) in events {
            match kind {
                0 => {
                    delivered.push(id);
                    ledger.delivered(0, message(delivered.len() as u64, &id.to_string(), 0));
                }
                1 => drop(ledger.give(0, now)),
                2 if delivered.contains(&id) => {
                    on_the_way.push((ledger.output(output, Some(&id.to_string())), id, output));
                }
                3 if !on_the_way.is_empty() => {
                    let (key, id, output) = on_the_way.swap_remove(choice % on_the_way.len());
                    safe.entry(id).or_default().insert(output);
                    ledger.safe(key);
                }
                _ => {}
            }
            for handle in acknowledged(&mut ledger) {
                let id = delivered[handle as usize - 1];
                prop_assert_eq!(safe.get(&id).map_or(0, HashSet::len), 2);
            }
        }
        for id in 0..8 {
            answer(&mut ledger, 0, &id.to_string());
            answer(&mut ledger, 1, &id.to_string());
        }
        prop_assert_eq!(ledger.open(0), 0);
        prop_assert_eq!(ledger.counts(0).finished, delivered.len() as u64);
    }
}
