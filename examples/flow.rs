//! A source of lines and a reader, for measuring programs that copy lines.
//! `scripts/bench/tee.sh` runs both. The source writes numbered lines. Each reader
//! prints the rate at which it got lines, and how many lines are missing, repeated or
//! torn.
//!
//! ```text
//! flow write SECONDS [MB/S]      write numbered lines to standard output; 0: at full speed
//! flow read PATH FROM TO         read to the end; measure the rate between two times
//! ```

// A load generator prints its figures, and needs no handling of signals.
#![expect(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

/// The length of a line, with its newline.
const LINE_BYTES: usize = 168;

/// The number of digits in the number of a line.
const DIGITS: usize = 16;

/// How many bytes one read asks for.
const READ_BYTES: usize = 1 << 20;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seconds = |text: &String| {
        let number = text.parse::<f64>();
        number.map_err(|error| io::Error::other(format!("{text}: {error}")))
    };
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", _] => write(seconds(&args[1])?, 0.0),
        ["write", _, _] => write(seconds(&args[1])?, seconds(&args[2])?),
        ["read", path, _, _] => read(path, seconds(&args[2])?, seconds(&args[3])?),
        _ => Err(io::Error::other(
            "flow write SECONDS [MB/S] | flow read PATH FROM TO",
        )),
    }
}

/// Writes lines for `seconds`, at `rate` MB/s; 0 means at full speed.
fn write(seconds: f64, rate: f64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let lines = 390;
    let mut block = vec![b'x'; lines * LINE_BYTES];
    for line in block.chunks_exact_mut(LINE_BYTES) {
        line[0] = b'<';
        line[LINE_BYTES - 1] = b'\n';
    }
    let start = Instant::now();
    let (mut number, mut written) = (0u64, 0u64);
    while start.elapsed().as_secs_f64() < seconds {
        for line in block.chunks_exact_mut(LINE_BYTES) {
            let mut rest = number;
            for digit in line[1..=DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            number += 1;
        }
        match out.write_all(&block).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            outcome => outcome?,
        }
        written += block.len() as u64;
        if rate > 0.0 {
            let due = Duration::from_secs_f64(written as f64 / (rate * 1e6));
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    eprintln!("{number}");
    Ok(())
}

/// The lines that a reader has seen.
#[derive(Default)]
struct Seen {
    lines: u64,
    /// The number of the next expected line.
    next: u64,
    missing: u64,
    /// Lines that were repeated or came too late.
    repeated: u64,
    /// Lines that are not whole.
    torn: u64,
}

impl Seen {
    fn line(&mut self, line: &[u8]) {
        let digits = (line.len() == LINE_BYTES && line[0] == b'<').then(|| &line[1..=DIGITS]);
        let Some(digits) = digits else {
            self.torn += 1;
            return;
        };
        let number = digits.iter().fold(0u64, |number, digit| {
            number
                .wrapping_mul(10)
                .wrapping_add(u64::from(digit.wrapping_sub(b'0')))
        });
        self.lines += 1;
        if number < self.next {
            self.repeated += 1;
        } else {
            self.missing += number - self.next;
            self.next = number + 1;
        }
    }
}

/// Reads to the end. Then prints the rate in MB/s between the times `from` and `to`,
/// which are seconds after the first byte. Also prints how many lines it got, and how
/// many were missing, repeated or torn.
fn read(path: &str, from: f64, to: f64) -> io::Result<()> {
    let mut input = File::open(path)?;
    let mut buffer = vec![0; READ_BYTES + LINE_BYTES];
    let mut filled = 0;
    let mut seen = Seen::default();
    let (mut start, mut bytes) = (None, 0u64);
    let (mut first, mut last) = (None, None);
    loop {
        let count = match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        bytes += count as u64;
        let time = start
            .get_or_insert_with(Instant::now)
            .elapsed()
            .as_secs_f64();
        if time >= from && first.is_none() {
            first = Some((time, bytes));
        }
        if time <= to {
            last = Some((time, bytes));
        }
        filled += count;
        let whole = take_lines(&buffer[..filled], &mut seen);
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
    }
    seen.torn += u64::from(filled > 0);
    let rate = match (first, last) {
        (Some((from, before)), Some((to, after))) if to > from => {
            (after - before) as f64 / (to - from) / 1e6
        }
        _ => 0.0,
    };
    let Seen {
        lines,
        missing,
        repeated,
        torn,
        ..
    } = seen;
    println!("{rate:.1} {lines} {missing} {repeated} {torn}");
    Ok(())
}

/// Checks all whole lines, and returns their total length in bytes.
fn take_lines(bytes: &[u8], seen: &mut Seen) -> usize {
    let mut at = 0;
    while at < bytes.len() {
        // All lines have the same length, unless one is torn.
        let end = at + LINE_BYTES;
        let length = match bytes.get(end - 1) {
            Some(b'\n') => LINE_BYTES,
            _ => match bytes[at..]
                .iter()
                .take(LINE_BYTES)
                .position(|it| *it == b'\n')
            {
                Some(newline) => newline + 1,
                None if bytes.len() - at < LINE_BYTES => break,
                None => LINE_BYTES,
            },
        };
        seen.line(&bytes[at..at + length]);
        at += length;
    }
    at
}
