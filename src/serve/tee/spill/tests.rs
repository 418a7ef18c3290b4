use std::time::Duration;

use super::*;
use crate::serve::tee::spill::state::{ROUND_BYTES, SpillWork, WorkOutcome};

fn block(bytes: usize) -> Block {
    let mut text = vec![b'x'; bytes - 1];
    text.push(b'\n');
    Block::new(text, 1, Instant::now())
}

/// The outcome of `work` if all its blocks were stored.
fn stored(work: &SpillWork) -> WorkOutcome {
    WorkOutcome {
        stored: work.blocks.iter().map(Block::memory_bytes).sum(),
        stored_records: work.blocks.iter().map(Block::records).sum(),
        ..WorkOutcome::default()
    }
}

#[test]
fn a_block_counts_as_unstored_until_it_is_on_disk() {
    let bytes_max = block(1_000).memory_bytes();
    let mut state = SpillState {
        all_read: true,
        ..SpillState::default()
    };
    state.append(block(1_000), OnFull::Drop, bytes_max);
    let work = state.begin_work();
    assert_eq!(work.blocks.len(), 1);
    // The queue is empty, but the block is not on disk yet.
    state.append(block(600), OnFull::Drop, bytes_max);
    let dropped = SpillLosses {
        dropped: 1,
        dropped_bytes: 600,
        corrupt: 0,
    };
    assert_eq!(state.losses, dropped);
    assert_eq!(state.problem.as_deref(), Some(DISK_BEHIND));
    assert_eq!(state.unstored_records, 1);
    state.end_work(stored(&work));
    state.append(block(600), OnFull::Drop, bytes_max);
    assert_eq!((state.losses, state.unstored_records), (dropped, 1));
    // With `OnFull::Block`, nothing is dropped.
    state.append(block(1_000), OnFull::Block, 1);
    assert_eq!((state.losses, state.unstored_records), (dropped, 2));
}

#[test]
fn at_least_as_many_bytes_are_read_back_as_stored() {
    let mut state = SpillState {
        wanted_bytes: 1,
        all_read: false,
        ..SpillState::default()
    };
    for bytes in [1_000, 3 * ROUND_BYTES] {
        state.append(block(bytes), OnFull::Block, usize::MAX);
        state.append(block(1_000), OnFull::Block, usize::MAX);
        let work = state.begin_work();
        let stored_bytes: usize = work.blocks.iter().map(Block::memory_bytes).sum();
        assert!(work.read_bytes >= stored_bytes.max(ROUND_BYTES));
        assert!(stored_bytes < ROUND_BYTES + bytes + 1_000);
        state.end_work(stored(&work));
    }
    // If the main loop has no room, nothing is read back, and new blocks are still stored.
    state.wanted_bytes = 0;
    state.append(block(1_000), OnFull::Block, usize::MAX);
    let work = state.begin_work();
    assert_eq!((work.read_bytes, work.blocks.is_empty()), (0, false));
}

#[test]
fn blocks_skip_the_disk_if_every_stored_line_was_read() {
    let wake = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC);
    let limits = SpillLimits {
        bytes_max: 1 << 20,
        line_bytes_max: 100,
    };
    let mut spill = Spill::open(
        None,
        limits,
        OnFull::Block,
        1 << 20,
        Arc::new(wake.unwrap()),
    )
    .unwrap();
    assert!(!spill.is_active());
    // Without room in memory, blocks are stored on disk. They come back in order.
    let end = Instant::now() + Duration::from_secs(20);
    let mut sent = 0;
    let mut got = Vec::new();
    while (sent < 100 || spill.is_active()) && Instant::now() < end {
        if sent < 100 {
            let text = format!("{sent}\n").into_bytes();
            spill.append(Block::new(text, 1, Instant::now())).unwrap();
            sent += 1;
        }
        let room = if sent % 10 == 0 { 1_000 } else { 0 };
        for block in spill.take(room).unwrap() {
            got.extend_from_slice(block.bytes());
        }
    }
    let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
    assert_eq!(String::from_utf8(got).unwrap(), expected);
    assert!(!spill.is_active());
    assert_eq!(spill.status().records, 0);
}

#[test]
fn blocks_are_gathered_until_a_round_is_full_or_the_loop_has_room() {
    let mut state = SpillState::default();
    state.append(block(1_000), OnFull::Block, usize::MAX);
    assert!(state.may_gather());
    state.wanted_bytes = 1;
    assert!(!state.may_gather());
    state.wanted_bytes = 0;
    state.append(block(ROUND_BYTES), OnFull::Block, usize::MAX);
    assert!(!state.may_gather());
    state = SpillState::default();
    state.end = Some(SpillEnd::Keep);
    assert!(!state.may_gather());
}
