//! `rv-tee` at full speed: whatever its readers do, no line is lost or repeated.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Running, Workdir, eventually, open_reader};
use crate::tee::{assert_balanced, collect, end_input, figure, figure_becomes, lines, tee};

/// A stream of lines of one length that repeats one piece. So the expected byte at each offset
/// is known.
struct Pattern {
    piece: Vec<u8>,
    bytes: usize,
}

impl Pattern {
    /// Creates a stream of about `bytes` bytes. Its lines are `line_bytes` long, with their
    /// newlines.
    fn new(line_bytes: usize, bytes: usize) -> Arc<Pattern> {
        let per_piece = (1 << 20) / line_bytes + 1;
        let mut piece = Vec::with_capacity(per_piece * line_bytes);
        for number in 0..per_piece {
            let end = piece.len() + line_bytes;
            write!(piece, "<{number}>").unwrap();
            piece.resize(end - 1, b'x');
            piece.push(b'\n');
        }
        let pieces = bytes.div_ceil(piece.len());
        let bytes = pieces * piece.len();
        Arc::new(Pattern { piece, bytes })
    }

    fn write(&self, mut to: impl Write) {
        for _ in 0..self.bytes / self.piece.len() {
            to.write_all(&self.piece).unwrap();
        }
    }

    /// Whether the stream contains `bytes` at the offset `place`.
    fn holds(&self, mut place: usize, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let from = place % self.piece.len();
            let length = bytes.len().min(self.piece.len() - from);
            if bytes[..length] != self.piece[from..from + length] {
                return false;
            }
            place += length;
            bytes = &bytes[length..];
        }
        true
    }

    /// Starts a thread that reads a pipe to its end at full speed and checks every byte. The
    /// thread pauses once, after the first byte.
    fn check(self: &Arc<Pattern>, path: String, pause: Duration) -> JoinHandle<()> {
        let pattern = Arc::clone(self);
        thread::spawn(move || {
            let mut pipe = File::open(&path).unwrap();
            let mut buffer = vec![0; 1 << 20];
            let mut place = pipe.read(&mut buffer[..1]).unwrap();
            assert!(pattern.holds(0, &buffer[..place]));
            thread::sleep(pause);
            loop {
                match pipe.read(&mut buffer).unwrap() {
                    0 => break,
                    count => {
                        assert!(pattern.holds(place, &buffer[..count]), "{path} at {place}");
                        place += count;
                    }
                }
            }
            assert_eq!(place, pattern.bytes, "{path}");
        })
    }
}

/// A folder on disk and, if possible, one in memory.
fn workdirs() -> impl Iterator<Item = Workdir> {
    let memory = Path::new("/dev/shm");
    let in_memory = memory.is_dir().then(|| Workdir::new_in(memory));
    std::iter::once(Workdir::new()).chain(in_memory)
}

/// Sends a pattern to `count` readers and checks that each gets every byte. The last reader
/// pauses.
fn all_get_everything(
    workdir: &Workdir,
    pattern: &Arc<Pattern>,
    count: usize,
    pause: Duration,
    args: &[&str],
) {
    let names: Vec<String> = (0..count).map(|number| format!("p{number}")).collect();
    let paths: Vec<String> = names.iter().map(|name| workdir.fifo(name)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let running = tee(workdir, &[&names, args].concat());
    let mut readers = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let pause = if number + 1 == count {
            pause
        } else {
            Duration::ZERO
        };
        readers.push(pattern.check(path.clone(), pause));
    }
    pattern.write(running.stdin.as_ref().unwrap());
    let finished = end_input(running);
    for reader in readers {
        reader.join().unwrap();
    }
    finished.assert_status(0);
    for name in names {
        assert_eq!(figure(workdir, "dropped", name), 0);
    }
    assert_balanced(workdir);
    for path in paths {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn every_reader_gets_every_byte_of_an_input_that_is_as_fast_as_it_goes() {
    for workdir in workdirs() {
        for (count, line_bytes, mib) in [(3, 100, 24), (8, 100, 8), (3, 5_000, 24), (8, 70_000, 24)]
        {
            let pattern = Pattern::new(line_bytes, mib << 20);
            all_get_everything(&workdir, &pattern, count, Duration::ZERO, &[]);
        }
    }
}

#[test]
fn a_reader_that_pauses_gets_every_byte_out_of_its_spill() {
    for workdir in workdirs() {
        for (count, line_bytes, mib) in [(3, 100, 16), (8, 3_000, 16), (3, 200_000, 24)] {
            let pattern = Pattern::new(line_bytes, mib << 20);
            let args = ["--queue", "64KiB", "--spill-dir", "spill"];
            all_get_everything(&workdir, &pattern, count, Duration::from_millis(300), &args);
            // The limits are far too small for this input, and still no line is lost.
            let args = [
                "--queue",
                "64KiB",
                "--spill-queue",
                "1KiB",
                "--spill-max",
                "1MiB",
            ];
            all_get_everything(&workdir, &pattern, count, Duration::from_millis(300), &args);
        }
    }
}

#[test]
fn lines_of_15_mib_get_through_though_a_reader_comes_late() {
    for workdir in workdirs() {
        let pattern = Pattern::new(15 << 20, 60 << 20);
        all_get_everything(&workdir, &pattern, 3, Duration::from_millis(300), &[]);
    }
}

/// A thread that writes numbered lines until it is told to stop.
struct Source {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Source {
    fn start(running: &mut Running) -> Source {
        let mut stdin = running.stdin.take().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut written = 0;
            while !stopped.load(Ordering::Relaxed) {
                stdin
                    .write_all(lines(written..written + 200).as_bytes())
                    .unwrap();
                written += 200;
            }
            written
        });
        Source { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Starts a thread that reads to the end and returns the number of bytes.
fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<usize> {
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        let mut read = 0;
        loop {
            match from.read(&mut buffer).unwrap() {
                0 => return read,
                count => read += count,
            }
        }
    })
}

#[test]
fn a_reader_that_takes_again_leaves_the_spill_though_the_input_is_as_fast_as_it_goes() {
    let workdir = Workdir::new();
    let (slow, other) = (workdir.fifo("slow"), workdir.fifo("other"));
    let mut running = tee(&workdir, &["slow", "other", "--queue", "256KiB"]);
    let reader = File::open(slow).unwrap();
    let other = drain(File::open(other).unwrap());
    let source = Source::start(&mut running);
    running.says("slow: its reader is behind; spilling");
    thread::sleep(Duration::from_millis(200));
    let reader = drain(reader);
    // The stats are written once a second. This wait makes sure that they are newer than the
    // start of the reader.
    thread::sleep(Duration::from_millis(1_500));
    figure_becomes(&workdir, "spilled", "slow", |count| count == 0);
    let written = source.stop();
    running.wait().assert_status(0);
    assert_eq!(reader.join().unwrap(), written as usize * 103);
    assert_eq!(other.join().unwrap(), written as usize * 103);
    assert_balanced(&workdir);
}

#[test]
fn a_reader_that_only_paces_is_not_spilled_for() {
    // On a busy machine a reader may not run for so long that it counts as stopped.
    let said: Vec<String> = (0..3).map(|_| pace_by_readers()).collect();
    assert!(said.iter().any(String::is_empty), "{said:?}");
}

/// Sends lines to two readers that are much slower than the input. Returns the messages of
/// rv-tee.
fn pace_by_readers() -> String {
    let workdir = Workdir::new();
    let (one, two) = (workdir.fifo("one"), workdir.fifo("two"));
    let mut running = tee(&workdir, &["one", "two", "--queue", "256KiB"]);
    let readers = [one, two].map(|path| {
        let mut pipe = File::open(path).unwrap();
        thread::spawn(move || {
            let mut buffer = vec![0; 16 << 10];
            let mut read = 0;
            loop {
                match pipe.read(&mut buffer).unwrap() {
                    0 => return read,
                    count => read += count,
                }
                thread::sleep(Duration::from_millis(1));
            }
        })
    });
    let input = lines(0..20_000);
    running.write(&input);
    let finished = end_input(running);
    finished.assert_status(0);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), input.len());
    }
    finished.stderr
}

#[test]
fn only_a_live_tee_or_one_that_is_told_so_leaves_a_gap() {
    for (args, leaves_a_gap) in [
        (&[][..], false),
        (&["--live", "model"], true),
        (&["--live-dir", "models"], true),
        (&["--on-full", "drop"], true),
        (&["--live", "model", "--on-full", "block"], false),
    ] {
        let workdir = Workdir::new();
        workdir.fifo("model");
        fs::create_dir(workdir.path("models")).unwrap();
        let (kept, other) = (workdir.fifo("kept"), workdir.fifo("other"));
        let bounds = ["kept", "other", "--queue", "64KiB", "--spill-max", "256KiB"];
        let mut running = tee(&workdir, &[&bounds[..], args].concat());
        let other = drain(File::open(other).unwrap());
        let mut stdin = running.stdin.take().unwrap();
        let feeding = thread::spawn(move || {
            stdin.write_all(lines(0..30_000).as_bytes()).unwrap();
        });
        // The pipe has no reader yet.
        match leaves_a_gap {
            true => running.says("kept: the spill loses records"),
            false => running.says("kept: the spill is full, and reading the input waits for room"),
        };
        if leaves_a_gap {
            assert!(eventually(|| feeding.is_finished().then_some(())).is_some());
        } else {
            assert!(!feeding.is_finished(), "{args:?}");
        }
        let kept = drain(File::open(kept).unwrap());
        feeding.join().unwrap();
        running.wait().assert_status(i32::from(leaves_a_gap));
        let dropped = figure(&workdir, "dropped", "kept");
        assert_eq!(dropped > 0, leaves_a_gap, "{args:?}");
        assert_eq!(kept.join().unwrap() as u64, (30_000 - dropped) * 103);
        // A live tee does not wait for this reader either.
        let dropped = figure(&workdir, "dropped", "other");
        assert_eq!(other.join().unwrap() as u64, (30_000 - dropped) * 103);
        assert!(leaves_a_gap || dropped == 0, "{args:?}");
        assert_balanced(&workdir);
    }
}

#[test]
fn each_branch_that_is_behind_is_named() {
    let workdir = Workdir::new();
    let pipes = ["one", "two"].map(|name| workdir.fifo(name));
    let args = ["one", "two", "--queue", "64KiB", "--on-full", "drop"];
    let mut running = tee(&workdir, &[&args[..], &["--spill-max", "256KiB"]].concat());
    running.write(lines(0..20_000));
    for name in ["one", "two"] {
        running.says(&format!("{name}: its reader is behind"));
        running.says(&format!("{name}: the spill loses records"));
    }
    let readers = pipes.map(collect);
    end_input(running).assert_status(1);
    for reader in readers {
        reader.join().unwrap();
    }
    assert_balanced(&workdir);
}

#[test]
fn a_file_is_spilled_only_where_it_is_said_what_to_do_when_that_is_full() {
    let workdir = Workdir::new();
    workdir.write("input", lines(0..20_000));
    let (kept, other) = (workdir.fifo("kept"), workdir.fifo("other"));
    workdir.fifo("model");
    let args = [
        "-i", "input", "kept", "other", "--queue", "64KiB", "--live", "model",
    ];
    for (more, is_spilled) in [(&[][..], false), (&["--on-full", "block"], true)] {
        // The stats of the previous run must not be read.
        let _ = fs::remove_file(workdir.path("stats.json"));
        let running = tee(&workdir, &[&args[..], more].concat());
        let reader = File::open(&kept).unwrap();
        let other = collect(other.clone());
        if is_spilled {
            figure_becomes(&workdir, "written", "other", |count| count == 20_000);
        } else {
            thread::sleep(Duration::from_millis(300));
            assert!(!other.is_finished(), "{more:?}");
        }
        let kept = drain(reader);
        let finished = running.wait();
        finished.assert_status(0);
        assert_eq!(
            finished.stderr.contains("spilling"),
            is_spilled,
            "{finished}"
        );
        assert_eq!(kept.join().unwrap(), 20_000 * 103);
        assert_eq!(other.join().unwrap().len(), 20_000 * 103);
        assert_balanced(&workdir);
    }
}

#[test]
fn more_than_the_spill_queue_on_a_slow_disk_is_the_same_as_a_full_spill() {
    for on_full in ["drop", "block"] {
        let workdir = Workdir::new();
        workdir.write("input", lines(0..3_000));
        for pipe in ["kept", "go"] {
            workdir.fifo(pipe);
        }
        let slow_disk = "strace -f -qq -o /dev/null -e trace=pwrite64 \
            -e inject=pwrite64:delay_enter=100000";
        let tee = "rv-tee --no-stdout kept others --queue 20KiB --spill-queue 20KiB";
        let until = match on_full {
            "drop" => "[[ -e others && $(wc -l < others) -eq 3000 ]]",
            _ => "grep --quiet 'waits for room: the disk is too slow' stderr",
        };
        // The reader opens its pipe, but reads nothing before `go` is written.
        let script = format!(
            "{{ cat go > /dev/null; cat > output; }} < kept &
            {{ cat input | {slow_disk} {tee} --on-full {on_full} --stats stats.json 2> stderr ||
                echo $? > status; }} &
            for ((i = 0; i < 1000; i++)); do {until} && break; sleep 0.02; done
            echo > go
            wait"
        );
        workdir.shell(&script).succeeds();
        let dropped = figure(&workdir, "dropped", "kept");
        let kept = workdir.read("output").lines().count() as u64;
        assert_eq!(kept + dropped, 3_000);
        assert!(workdir.read("others") == lines(0..3_000));
        assert_balanced(&workdir);
        let stderr = workdir.read("stderr");
        if on_full == "drop" {
            assert!(dropped > 0);
            assert_eq!(figure(&workdir, "droppedBytes", "kept"), dropped * 103);
            assert_eq!(workdir.read("status"), "1\n");
            assert!(
                stderr.contains("the spill loses records: the disk is too slow"),
                "{stderr}"
            );
        } else {
            assert_eq!(dropped, 0, "{stderr}");
        }
    }
}

#[test]
fn what_was_passed_on_out_of_a_spill_does_not_come_again_after_a_kill() {
    let workdir = Workdir::new();
    let kept = workdir.fifo("kept");
    let args = ["kept", "--queue", "64KiB", "--spill-dir", "spill"];
    let mut running = tee(&workdir, &args);
    let mut reader = File::open(&kept).unwrap();
    running.write(lines(0..20_000));
    figure_becomes(&workdir, "spilled", "kept", |count| count > 15_000);
    let mut taken = vec![0; 10_000 * 103];
    reader.read_exact(&mut taken).unwrap();
    figure_becomes(&workdir, "written", "kept", |count| count >= 10_000);
    // Another thread stores the position.
    thread::sleep(Duration::from_millis(200));
    running.signal(Signal::KILL);
    drop((running, reader));
    let running = tee(&workdir, &args);
    let rest = collect(kept);
    end_input(running).assert_status(0);
    let rest = rest.join().unwrap();
    let first: usize = rest[1..101].parse().unwrap();
    // The first line is at most one read-ahead before the last delivered line, and at most the
    // content of a pipe after it.
    assert!((9_000..=12_000).contains(&first), "{first}");
    assert!(rest.ends_with(&lines(19_999..20_000)));
}

#[test]
fn what_lies_in_the_pipe_of_a_live_branch_is_one_page() {
    for (args, expected) in [(&[][..], 30..45), (&["--live-pipe", "64KiB"], 600..680)] {
        let workdir = Workdir::new();
        let live = workdir.fifo("live");
        let bounds = ["--live", "live", "--live-age", "50ms"];
        let mut running = tee(&workdir, &[&bounds[..], args].concat());
        let mut reader = open_reader(&live);
        running.write(lines(0..5_000));
        figure_becomes(&workdir, "dropped", "live", |count| count > 4_000);
        running.write(lines(5_000..5_001));
        let reading = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        });
        figure_becomes(&workdir, "written", "live", |count| count > 0);
        let finished = end_input(running);
        finished.assert_status(0);
        let text = reading.join().unwrap();
        let old = text.lines().count() as u64 - 1;
        assert!(expected.contains(&old), "{old} with {args:?}");
        assert!(text.ends_with(&lines(5_000..5_001)));
        assert_balanced(&workdir);
    }
}

#[test]
fn a_live_reader_that_dies_and_returns_misses_what_is_counted() {
    let workdir = Workdir::new();
    let (live, other) = (workdir.fifo("live"), workdir.fifo("other"));
    let args = ["--live", "live", "other", "--live-age", "1h"];
    let mut running = tee(&workdir, &[&args[..], &["--queue", "64KiB"]].concat());
    let other = drain(File::open(other).unwrap());
    let mut first = File::open(&live).unwrap();
    running.write(lines(0..20_000));
    let mut taken = vec![0; 10 * 103 + 50];
    first.read_exact(&mut taken).unwrap();
    assert!(lines(0..11).as_bytes().starts_with(&taken));
    drop(first);
    running.says("live: its reader has closed the pipe");
    running.write(lines(20_000..40_000));
    figure_becomes(&workdir, "in", "", |count| count == 40_000);
    let second = collect(live);
    // At the end of the input, rv-tee does not wait for a live branch without a reader. So the
    // reader must have started before.
    figure_becomes(&workdir, "written", "live", |count| count > 10);
    let finished = end_input(running);
    finished.assert_status(0);
    let second = second.join().unwrap();
    let numbers: Vec<u64> = second.lines().filter_map(number_of).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next));
    assert_eq!(numbers.last(), Some(&39_999));
    let dropped = figure(&workdir, "dropped", "live");
    assert_eq!(10 + numbers.len() as u64 + dropped, 40_000);
    assert_eq!(other.join().unwrap(), 40_000 * 103);
    assert_balanced(&workdir);
}

/// The number of a whole line, or `None` if the line is torn.
fn number_of(line: &str) -> Option<u64> {
    let digits = line.strip_prefix('<')?.strip_suffix('>')?;
    (digits.len() == 100).then(|| digits.parse().ok())?
}

/// The lines that several readers got, one after another.
#[derive(Default)]
struct Got {
    /// The number of whole lines.
    lines: u64,
    /// The number of the next line if no line is missing.
    next: u64,
    missing: u64,
    /// Whether there was an earlier reader.
    has_begun: bool,
    /// The number of readers that started since the last whole line.
    restarts: u64,
}

impl Got {
    /// Adds the bytes of one reader. Torn lines may only be at the start or the end of these
    /// bytes.
    fn reader(&mut self, bytes: Vec<u8>) {
        let text = String::from_utf8(bytes).unwrap();
        self.restarts += u64::from(self.has_begun);
        self.has_begun = true;
        for (place, line) in text.split_inclusive('\n').enumerate() {
            let whole = line.strip_suffix('\n');
            if let Some(number) = whole.and_then(number_of) {
                assert!(number >= self.next, "{number} again");
                // Each earlier reader may have torn one line.
                let missing = number - self.next;
                assert!(missing <= self.restarts, "{missing} before {number}");
                self.lines += 1;
                self.missing += missing;
                self.next = number + 1;
                self.restarts = 0;
            } else {
                let is_at_an_end = place == 0 || whole.is_none();
                assert!(is_at_an_end, "{line:?} in the middle of {text}");
            }
        }
    }
}

#[test]
fn ten_thousand_readers_one_after_the_other_miss_a_torn_line_each_and_nothing_else() {
    const RESTARTS: u64 = 10_000;
    let workdir = Workdir::new();
    let (kept, other) = (workdir.fifo("kept"), workdir.fifo("other"));
    let mut running = tee(&workdir, &["kept", "other", "--spill-dir", "spill"]);
    let other = drain(File::open(other).unwrap());
    let mut reader = File::open(&kept).unwrap();
    let source = Source::start(&mut running);
    let mut got = Got::default();
    let mut buffer = vec![0; 1 << 16];
    let end = Instant::now() + Duration::from_secs(40);
    let mut restarts = 0;
    // A simple random number generator with a fixed seed.
    let mut random = 11u64;
    while restarts < RESTARTS && Instant::now() < end {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let size = 1 + (random >> 33) as usize % 3_000;
        let mut taken = 0;
        while taken < size {
            match reader.read(&mut buffer[taken..size]) {
                Ok(count) => taken += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
            }
        }
        got.reader(buffer[..taken].to_vec());
        drop(reader);
        // The next reader opens the pipe at once, or after rv-tee has noticed the closing, or in
        // between.
        match random >> 61 {
            0 => thread::sleep(Duration::from_micros(random >> 56 & 127)),
            1 | 2 => thread::yield_now(),
            _ => {}
        }
        reader = File::open(&kept).unwrap();
        restarts += 1;
    }
    assert_eq!(restarts, RESTARTS, "out of time");
    let rest = thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let written = source.stop();
    running.wait().assert_status(0);
    got.reader(rest.join().unwrap());
    assert_eq!(other.join().unwrap(), written as usize * 103);
    assert_eq!((got.next, got.lines + got.missing), (written, written));
    assert_balanced(&workdir);
}
