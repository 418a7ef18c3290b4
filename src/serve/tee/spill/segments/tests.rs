use proptest::prelude::*;

use super::*;

const LIMITS: SpillLimits = SpillLimits {
    bytes_max: 4096,
    line_bytes_max: 100,
};

fn append(segments: &mut Segments, lines: &[&str]) -> bool {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    segments
        .append(text.as_bytes(), lines.len() as u64)
        .unwrap()
}

fn read(segments: &mut Segments) -> (String, u64) {
    let (mut text, mut corrupt) = (String::new(), 0);
    while let Some(chunk) = segments.read(30).unwrap() {
        text += std::str::from_utf8(&chunk.bytes).unwrap();
        corrupt += chunk.corrupt;
    }
    (text, corrupt)
}

#[test]
fn lines_come_back_in_order_after_appends_and_deletions() {
    let mut segments = Segments::temporary(LIMITS);
    assert!(append(&mut segments, &["one", "", "three"]));
    let first = segments.read(1).unwrap().unwrap();
    assert_eq!(first.bytes, b"one\n");
    assert!(append(&mut segments, &["four"]));
    assert_eq!(segments.stored().records, 3);
    segments.delete_up_to(first.end).unwrap();
    assert_eq!(read(&mut segments), ("\nthree\nfour\n".to_owned(), 0));
    assert!(segments.all_read());
    segments.delete_all().unwrap();
    assert_eq!(segments.stored(), StoredTotals::default());
    assert!(append(&mut segments, &["five"]));
    assert_eq!(read(&mut segments), ("five\n".to_owned(), 0));
}

/// Appends lines with `append_directly`. Replaces the direct file with an ordinary one, because
/// some file systems do not support direct writes.
fn append_directly(segments: &mut Segments, lines: &[&str]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let segment = segments.segment_to_append().unwrap();
    segment.direct = Some(segment.file.try_clone().unwrap());
    let blocks = [(text.as_bytes(), lines.len() as u64)];
    assert!(segments.append_directly(&blocks));
    let length = segments.segments.back().unwrap().length;
    assert_eq!(length % direct::ALIGNMENT as u64, 0);
}

#[test]
fn lines_of_direct_writes_come_back_in_order() {
    let limits = SpillLimits {
        bytes_max: 1 << 20,
        ..LIMITS
    };
    let long = "x".repeat(100);
    let folder = tempfile::tempdir().unwrap();
    for reopened in [false, true] {
        let mut segments = Segments::open(folder.path(), limits).unwrap();
        append_directly(&mut segments, &["one", "=="]);
        assert!(append(&mut segments, &["three"]));
        append_directly(&mut segments, &["four"]);
        append_directly(&mut segments, &[&*long; 1_000]);
        assert!(append(&mut segments, &["last"]));
        if reopened {
            drop(segments);
            segments = Segments::open(folder.path(), limits).unwrap();
        }
        assert_eq!(segments.stored().records, 1_005);
        let expected = format!(
            "one\n==\nthree\nfour\n{}last\n",
            format!("{long}\n").repeat(1_000)
        );
        assert!(read(&mut segments) == (expected, 0));
        assert!(segments.all_read());
        segments.delete_all().unwrap();
    }
}

#[test]
fn a_direct_write_that_does_not_fit_or_fails_stores_nothing() {
    let mut segments = Segments::temporary(LIMITS);
    assert!(append(&mut segments, &["one"]));
    let too_much = "x\n".repeat(1_000);
    assert!(!segments.append_directly(&[(too_much.as_bytes(), 1_000)]));
    let mut segments = Segments::temporary(SpillLimits {
        bytes_max: 1 << 20,
        ..LIMITS
    });
    assert!(append(&mut segments, &["one"]));
    // A write to this file fails.
    let read_only = File::open("/dev/null").unwrap();
    segments.segments.back_mut().unwrap().direct = Some(read_only);
    assert!(!segments.append_directly(&[(b"two\n", 1)]));
    assert!(append(&mut segments, &["three"]));
    assert_eq!(read(&mut segments), ("one\nthree\n".to_owned(), 0));
}

#[test]
fn lines_over_the_limit_are_refused_until_there_is_room() {
    let mut segments = Segments::temporary(LIMITS);
    let line = "x".repeat(100);
    let mut stored = 0;
    while append(&mut segments, &[&line]) {
        stored += 1;
    }
    assert_eq!(stored, 4096 / (100 + 1 + CHECKSUM_BYTES as u64));
    assert!(segments.stored().bytes <= LIMITS.bytes_max);
    let mut read = 0;
    while let Some(chunk) = segments.read(1).unwrap() {
        segments.delete_up_to(chunk.end).unwrap();
        read += chunk.records;
    }
    assert_eq!(read, stored);
    assert!(append(&mut segments, &[&line]));
}

#[test]
fn delivered_lines_make_room_even_in_the_last_segment() {
    let mut segments = Segments::temporary(SpillLimits {
        bytes_max: 1 << 30,
        ..LIMITS
    });
    assert!(append(&mut segments, &["one", "two"]));
    let chunk = segments.read(100).unwrap().unwrap();
    segments.delete_up_to(chunk.end).unwrap();
    assert_eq!(segments.stored().bytes, 0);
    assert!(append(&mut segments, &["three"]));
    assert_eq!(read(&mut segments), ("three\n".to_owned(), 0));
}

#[test]
fn the_next_process_continues_at_the_stored_position() {
    let folder = tempfile::tempdir().unwrap();
    let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
    for number in 0..20 {
        assert!(append(&mut segments, &[&format!("{number:050}")]));
    }
    let delivered_up_to = segments.read(500).unwrap().unwrap();
    segments.delete_up_to(delivered_up_to.end).unwrap();
    // A process may have read more lines than it has delivered.
    segments.read(500).unwrap().unwrap();
    drop(segments);
    let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
    assert_eq!(segments.stored().records, 20 - delivered_up_to.records);
    assert!(append(&mut segments, &["last"]));
    let (text, corrupt) = read(&mut segments);
    let expected: String = (delivered_up_to.records..20)
        .map(|number| format!("{number:050}\n"))
        .collect();
    assert_eq!((text, corrupt), (expected + "last\n", 0));
    segments.delete_all().unwrap();
    drop(segments);
    let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
    assert_eq!(read(&mut segments), (String::new(), 0));
    assert!(append(&mut segments, &["new"]));
    assert_eq!(read(&mut segments), ("new\n".to_owned(), 0));
}

#[test]
fn a_torn_file_end_costs_only_the_last_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file_name(FIRST_NUMBER));
    for length in 0..60 {
        let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
        assert!(append(&mut segments, &["one", "two", "three"]));
        drop(segments);
        let whole = fs::read(&path).unwrap();
        let length = length.min(whole.len());
        fs::write(&path, &whole[..length]).unwrap();
        let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
        assert!(append(&mut segments, &["next"]));
        let kept = memchr::memchr_iter(b'\n', &whole[..length]).count();
        let kept: String = ["one\n", "two\n", "three\n"][..kept].concat();
        let torn = u64::from(length > 0 && whole[length - 1] != b'\n');
        assert_eq!(read(&mut segments), (kept + "next\n", torn), "{length}");
        segments.remove().unwrap();
    }
}

#[test]
fn lines_that_were_put_back_are_read_first_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    for read_before in 0..3 {
        let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
        assert!(append(&mut segments, &["one", "two"]));
        let mut back = String::new();
        for _ in 0..read_before {
            let chunk = segments.read(1).unwrap().unwrap();
            back += std::str::from_utf8(&chunk.bytes).unwrap();
        }
        assert!(append(&mut segments, &["three"]));
        back += "never in it\n";
        let records = count(&back);
        segments.put_back(back.as_bytes(), records).unwrap();
        drop(segments);
        let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
        assert_eq!(segments.stored().records, 4);
        let rest: String = ["one\n", "two\n", "three\n"][read_before..].concat();
        assert_eq!(read(&mut segments), (back + &rest, 0));
        segments.delete_all().unwrap();
    }
}

fn count(text: &str) -> u64 {
    text.lines().count() as u64
}

#[test]
fn a_spill_of_corrupt_lines_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
    assert!(append(&mut segments, &["one", "two"]));
    // Overwrites the newlines in the last segment, to which lines are still appended.
    let path = folder.path().join(file_name(FIRST_NUMBER));
    let spoiled = fs::read_to_string(&path).unwrap().replace('\n', "x");
    fs::write(&path, spoiled).unwrap();
    assert_eq!(read(&mut segments), (String::new(), 2));
    assert!(segments.all_read());
}

proptest! {
    #[test]
    fn a_flipped_bit_costs_only_the_affected_lines(
        lines in proptest::collection::vec("[a-z]{0,20}", 3..20),
        flip in 0usize..10_000,
        bit in 0u8..8,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
        let borrowed: Vec<&str> = lines.iter().map(String::as_str).collect();
        prop_assert!(append(&mut segments, &borrowed));
        drop(segments);
        let path = folder.path().join(file_name(FIRST_NUMBER));
        let mut bytes = fs::read(&path).unwrap();
        let flip = flip % bytes.len();
        let hit = memchr::memchr_iter(b'\n', &bytes[..flip]).count();
        let is_newline = bytes[flip] == b'\n';
        bytes[flip] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        let mut segments = Segments::open(folder.path(), LIMITS).unwrap();
        let (text, corrupt) = read(&mut segments);
        let spoiled = if is_newline { hit..hit + 2 } else { hit..hit + 1 };
        let expected: String = lines
            .iter()
            .enumerate()
            .filter(|(index, _)| !spoiled.contains(index))
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        prop_assert_eq!(text, expected);
        prop_assert!((1..=2).contains(&corrupt));
    }
}
