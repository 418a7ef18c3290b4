//! The messages that a program prints on stderr, and the records that it rejects.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::stage::cli::{LogFormat, RunArgs};
use crate::stage::exit::usage;
use crate::stage::rejects::Rejects;
use crate::wire::lines::Line;
use crate::wire::object::ObjectWriter;
use crate::wire::reject::Reject;
use crate::wire::shape::{Shape, is_fragment};

/// The number of rejected records that are reported one by one.
const REPORTED_IN_FULL: u64 = 10;

/// A repeated message is suppressed for this long.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// The number of remembered keys of messages. If there are more, idle keys are removed.
const RECENT_WARNINGS_MAX: usize = 1000;

/// The number of inputs for which the report remembers that they are JSON, but not one
/// object per line.
const NON_NDJSON_INPUTS_MAX: usize = 100;

/// The number of good lines that may separate two fragments of one JSON text. For
/// example, the last item of an array can be a valid record.
const NON_NDJSON_GAP_LINES: u64 = 8;

/// The longest part of input that a message shows, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// Messages and rejects of one program.
#[derive(Debug)]
pub struct Report {
    program: &'static str,
    format: LogFormat,
    quiet: bool,
    /// Whether the final summary is printed even if no record was rejected.
    summary_wanted: bool,
    strict: bool,
    rejects: Option<(String, Rejects)>,
    /// Rejected records by label, in the order of [`Reject::LABELS`].
    rejected: [u64; Reject::LABELS.len()],
    /// Files that could not be read completely.
    damaged: u64,
    /// The number of rejected records, without the suppressed fragments.
    shown: u64,
    /// The inputs that are JSON but not one object per line. Each has the number of
    /// the last line that was such a fragment.
    non_ndjson_inputs: HashMap<String, u64>,
    /// By key: the time of the last printed warning, and the number of suppressed
    /// ones since then.
    recent_warnings: HashMap<String, (Instant, u64)>,
    /// By key: the last printed message about a state, repeated only if the state
    /// changes or after a while.
    state_messages: HashMap<&'static str, LastMessage>,
}

/// The last message under a key.
#[derive(Debug)]
struct LastMessage {
    message: String,
    at: Instant,
    /// The number of times that the message was suppressed since it was printed.
    held_back: u64,
}

impl Report {
    /// Opens the file of `--rejects`, if given, for appending.
    pub fn new(program: &'static str, args: &RunArgs) -> Result<Report> {
        let rejects = match &args.rejects {
            Some(path) => {
                let file = open_rejects(path)?;
                Some((path.clone(), Rejects::new(file)))
            }
            None => None,
        };
        Ok(Report {
            program,
            format: args.log_format,
            quiet: args.quiet,
            summary_wanted: args.verbose || std::io::stderr().is_terminal(),
            strict: args.strict,
            rejects,
            rejected: [0; Reject::LABELS.len()],
            damaged: 0,
            shown: 0,
            non_ndjson_inputs: HashMap::new(),
            recent_warnings: HashMap::new(),
            state_messages: HashMap::new(),
        })
    }

    /// The program's name, as messages show it.
    pub fn program(&self) -> &'static str {
        self.program
    }

    /// Whether only errors are printed.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The number of rejected records so far.
    pub fn rejected(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// The number of rejected records so far, by the label of the reason. Labels with a
    /// count of zero are left out.
    pub fn rejected_by_label(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.rejected.iter().copied();
        Reject::LABELS.into_iter().zip(counts).filter(|it| it.1 > 0)
    }

    /// Prints a warning, unless `-q` is given.
    pub fn warn(&self, message: &str) {
        if !self.quiet {
            print_message(self.program, self.format, "warning", message);
        }
    }

    /// Prints information, unless `-q` is given.
    pub fn info(&self, message: &str) {
        if !self.quiet {
            print_message(self.program, self.format, "info", message);
        }
    }

    /// Like [`warn`](Report::warn), for frequent events: prints at most one message per
    /// key in 10 s, with the number of suppressed messages.
    pub fn warn_seldom(&mut self, key: &str, message: &str) {
        let now = Instant::now();
        let held_back = match self.recent_warnings.get_mut(key) {
            Some((last, held_back)) if now - *last < REPEAT_AFTER => {
                *held_back += 1;
                return;
            }
            Some((_, held_back)) => *held_back,
            None => 0,
        };
        // Keys without a message in that time can be removed: their next message is
        // printed anyway.
        if self.recent_warnings.len() >= RECENT_WARNINGS_MAX {
            self.recent_warnings.retain(|_, (last, held_back)| {
                *held_back > 0 || now.saturating_duration_since(*last) < REPEAT_AFTER
            });
        }
        self.recent_warnings.insert(key.to_owned(), (now, 0));
        if held_back > 0 {
            self.warn(&format!("{message} ({held_back} more like this)"));
        } else {
            self.warn(message);
        }
    }

    /// Like [`warn`](Report::warn), for frequent messages about a state. If a message
    /// differs from the last one under `key`, it is printed at once. An unchanged
    /// message is printed at most once in 10 s, with the number of suppressed ones.
    pub fn warn_if_new(&mut self, key: &'static str, message: &str) {
        if let Some(message) = self.unless_repeated(key, message, Instant::now()) {
            self.warn(&message);
        }
    }

    /// Like [`warn_if_new`](Report::warn_if_new), for information.
    pub fn info_if_new(&mut self, key: &'static str, message: &str) {
        if let Some(message) = self.unless_repeated(key, message, Instant::now()) {
            self.info(&message);
        }
    }

    fn unless_repeated(
        &mut self,
        key: &'static str,
        message: &str,
        now: Instant,
    ) -> Option<String> {
        let held_back = match self.state_messages.get_mut(key) {
            Some(last) if last.message == message => {
                if now.saturating_duration_since(last.at) < REPEAT_AFTER {
                    last.held_back += 1;
                    return None;
                }
                last.held_back
            }
            Some(_) | None => 0,
        };
        let last = LastMessage {
            message: message.to_owned(),
            at: now,
            held_back: 0,
        };
        self.state_messages.insert(key, last);
        Some(match held_back {
            0 => message.to_owned(),
            _ => format!("{message} ({held_back} more like this)"),
        })
    }

    /// Prints the summary of the run if `--verbose` is given, stderr is a terminal or a
    /// record was rejected. `-q` suppresses it.
    pub fn summary(&self, message: &str) {
        if !self.quiet && (self.summary_wanted || self.rejected() > 0) {
            print_message(self.program, self.format, "info", message);
        }
    }

    /// Prints a message that the user asked for, such as the stats on SIGUSR1. `-q`
    /// does not suppress it.
    pub fn print_requested(&self, message: &str) {
        print_message(self.program, self.format, "info", message);
    }

    /// Rejects a record: counts it, reports it, and appends it to the file of rejects.
    /// With `--strict`, this is an error.
    pub fn reject(&mut self, input: &str, line: &Line, reject: &Reject) -> Result<()> {
        self.rejected[reject.label_index()] += 1;
        let reason = match line.oversized {
            Some(length) => format!("{reject}; its first 1 KiB is kept ({length} bytes)"),
            None => reject.to_string(),
        };
        if let Some((path, rejects)) = &mut self.rejects {
            let mut text = Vec::with_capacity(line.bytes.len() + 200);
            write_reject(&mut text, self.program, input, line, &reason);
            rejects
                .write(&text)
                .with_context(|| format!("{path}: cannot write a rejected record"))?;
        }
        let hint = match self.shape_hint(input, line) {
            ShapeHint::None => String::new(),
            ShapeHint::First(shape) => format!(
                "; {}. Further lines like this one are counted but not shown",
                shape.remedy()
            ),
            ShapeHint::Suppress => return Ok(()),
        };
        if self.strict {
            self.flush()?;
            bail!("{input}:{}: {reason}{hint}", line.number);
        }
        self.shown += 1;
        if self.shown <= REPORTED_IN_FULL {
            self.warn(&format!("{input}:{}: {reason}{hint}", line.number));
        } else if self.shown == REPORTED_IN_FULL + 1 {
            self.warn("further rejected records are counted but not shown");
        }
        Ok(())
    }

    /// Appends a record that another program has rejected to the file of rejects,
    /// unchanged. Counts it.
    pub fn keep_rejected(&mut self, record: &[u8]) -> Result<()> {
        self.rejected[Reject::Refused(String::new()).label_index()] += 1;
        if let Some((path, rejects)) = &mut self.rejects {
            let line = [record, b"\n"].concat();
            rejects
                .write(&line)
                .with_context(|| format!("{path}: cannot write a rejected record"))?;
        }
        Ok(())
    }

    /// The number of files that could not be read completely.
    pub fn damaged_files(&self) -> u64 {
        self.damaged
    }

    /// Counts and reports a file that could not be read completely. The program
    /// continues with the other files. With `--strict`, this is an error.
    pub fn damaged(&mut self, message: &str) -> Result<()> {
        self.damaged += 1;
        if self.strict {
            self.flush()?;
            bail!("{message}");
        }
        if self.damaged <= REPORTED_IN_FULL {
            self.warn(message);
        } else if self.damaged == REPORTED_IN_FULL + 1 {
            self.warn("further files that cannot be read are counted but not shown");
        }
        Ok(())
    }

    /// Prints the number of damaged files at the end, if not all were shown.
    pub fn warn_of_damaged_total(&self) {
        if self.damaged > REPORTED_IN_FULL {
            self.warn(&format!(
                "{} files could not be read completely",
                self.damaged
            ));
        }
    }

    /// Selects the addition to the message about a rejected line. For JSON that is
    /// not one object per line, only the first message of an input names the remedy.
    fn shape_hint(&mut self, input: &str, line: &Line) -> ShapeHint {
        if self.shown > REPORTED_IN_FULL && self.non_ndjson_inputs.is_empty() {
            // A rejected line gets no message any more, so it needs no addition.
            return ShapeHint::None;
        }
        let record = line.head();
        let shape = match line.oversized {
            Some(_) => Shape::of_head(record),
            None => Shape::of(record),
        };
        if let Some(last) = self.non_ndjson_inputs.get_mut(input)
            && line.number.saturating_sub(*last) <= NON_NDJSON_GAP_LINES
            && (shape.is_some() || line.oversized.is_none() && is_fragment(record))
        {
            *last = line.number;
            return ShapeHint::Suppress;
        }
        match shape {
            Some(shape)
                if self.non_ndjson_inputs.len() < NON_NDJSON_INPUTS_MAX
                    && !self.non_ndjson_inputs.contains_key(input) =>
            {
                self.non_ndjson_inputs.insert(input.to_owned(), line.number);
                ShapeHint::First(shape)
            }
            _ => ShapeHint::None,
        }
    }

    /// Gives the rejects so far to the operating system, and warns of lost ones. Call
    /// this before every wait.
    pub fn flush(&mut self) -> Result<()> {
        if let Some((path, rejects)) = &mut self.rejects {
            rejects
                .flush()
                .with_context(|| format!("{path}: cannot write a rejected record"))?;
        }
        self.warn_of_lost_rejects();
        Ok(())
    }

    /// Writes the rejected records in a thread from now on, for a program whose answers
    /// cannot wait for a disk. Records that a full or slow disk cannot take are
    /// counted.
    pub fn write_rejects_in_thread(&mut self) -> Result<()> {
        if let Some((path, rejects)) = &mut self.rejects {
            rejects
                .write_in_thread()
                .with_context(|| format!("{path}: cannot write a rejected record"))?;
        }
        Ok(())
    }

    /// The number of rejected records that were not kept in the file.
    pub fn rejects_lost(&self) -> u64 {
        self.rejects.as_ref().map_or(0, |(_, it)| it.lost())
    }

    /// Waits for the thread that writes the rejected records, if there is one, for a
    /// limited time.
    pub fn finish_rejects(&mut self) {
        let Some((path, rejects)) = &mut self.rejects else {
            return;
        };
        let lost = rejects.finish();
        if lost > 0 {
            let message = format!("{path}: {lost} rejected records could not be kept");
            self.warn(&message);
        }
    }

    fn warn_of_lost_rejects(&mut self) {
        if let Some((path, rejects)) = &self.rejects
            && rejects.lost() > 0
        {
            let lost = rejects.lost();
            let message = format!(
                "{path}: the disk is full or too slow; {lost} rejected records were counted but not kept"
            );
            self.warn_seldom("rejects", &message);
        }
    }
}

/// The addition to a message about the form of a rejected line.
enum ShapeHint {
    /// Add nothing.
    None,
    /// The line is the first of its input with JSON of this form: add the remedy.
    First(Shape),
    /// The line is a further fragment of such JSON: print no message.
    Suppress,
}

fn write_reject(out: &mut Vec<u8>, program: &str, input: &str, line: &Line, reason: &str) {
    let mut reject = ObjectWriter::new(out);
    reject
        .string("program", program)
        .string("input", input)
        .display("line", line.number)
        .display("offset", line.offset)
        .string("reason", reason);
    match std::str::from_utf8(line.bytes) {
        Ok(text) => reject.string("raw", text),
        Err(_) => {
            let text = base64::engine::general_purpose::STANDARD.encode(line.bytes);
            reject.string("rawBase64", &text)
        }
    };
    reject.end();
    out.push(b'\n');
}

/// Prints one message on stderr. Nothing else in the library writes to stderr, except
/// the progress bar. A failed write is ignored.
pub fn print_message(program: &str, format: LogFormat, level: &str, message: &str) {
    let mut text = Vec::new();
    match format {
        LogFormat::Text => {
            text.extend_from_slice(format!("{program}: {}\n", escaped(message)).as_bytes());
        }
        LogFormat::Json => {
            let time = crate::stage::clock::Clock::system().unix();
            let mut object = ObjectWriter::new(&mut text);
            object
                .display("time", time.as_seconds())
                .string("level", level)
                .string("program", program)
                .string("message", message);
            object.end();
            text.push(b'\n');
        }
    }
    let _ = std::io::stderr().write_all(&text);
}

/// Whether a character is invisible, moves the cursor, changes the direction of writing
/// or ends a line.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Escapes the invisible characters of input, so that a record cannot move the cursor,
/// forge a line or disguise its text.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_invisible(character) {
            let _ = write!(shown, "\\u{{{:x}}}", character as u32);
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Quotes a part of input for a message, and shortens it if it is long.
pub fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    let dots = if cut.len() < text.len() { "..." } else { "" };
    format!("{:?}{dots}", cut)
}

/// Opens the file of rejects for appending.
fn open_rejects(path: &str) -> Result<File> {
    let cannot_open = || format!("{path}: cannot open for the rejected records");
    if !fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo()) {
        // Rejected records may be as secret as accepted ones.
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path);
        return file.with_context(cannot_open);
    }
    // A pipe without a reader would block the program in a write that no signal could
    // interrupt. rv-bridge gives its program a pipe that it always reads.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => {
            rustix::fs::fcntl_setfl(&fd, OFlags::WRONLY).with_context(cannot_open)?;
            Ok(File::from(fd))
        }
        Err(Errno::NXIO) => Err(usage(format!(
            "--rejects {path}: is a pipe; give a file, and read it with `tail -F`"
        ))),
        Err(errno) => Err(errno).with_context(cannot_open),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(
            escaped("a\u{1b}[2Jb\rc\u{9b}"),
            "a\\u{1b}[2Jb\\u{d}c\\u{9b}"
        );
        // Marks of direction, zero-width spaces, line ends of Unicode, tags.
        for hidden in [
            '\u{202e}',
            '\u{2066}',
            '\u{200b}',
            '\u{2028}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            let expected = format!("a\\u{{{:x}}}b", hidden as u32);
            assert_eq!(escaped(&format!("a{hidden}b")), expected);
        }
        assert_eq!(escaped("ä€😀 日本"), "ä€😀 日本");
        assert_eq!(shown("a\"\n"), "\"a\\\"\\n\"");
        assert_eq!(shown(&"x".repeat(300)).len(), SHOWN_CHARS_MAX + 5);
    }

    #[test]
    fn the_same_message_is_repeated_seldom_and_another_is_printed_at_once() {
        let args = <crate::serve::decoy::DecoyArgs as clap::Parser>::parse_from(["rv-decoy"]);
        let run = crate::stage::program::Program::run_args(&args).clone();
        let mut report = Report::new("test", &run).unwrap();
        let start = Instant::now();
        let mut told = |message, seconds| {
            let now = start + Duration::from_secs(seconds);
            report.unless_repeated("reload", message, now)
        };
        assert_eq!(told("a", 0).as_deref(), Some("a"));
        assert_eq!(told("a", 1), None);
        assert_eq!(told("a", 9), None);
        assert_eq!(told("b", 9).as_deref(), Some("b"));
        assert_eq!(told("a", 9).as_deref(), Some("a"));
        assert_eq!(told("a", 10), None);
        assert_eq!(told("a", 20).as_deref(), Some("a (1 more like this)"));
        assert_eq!(told("a", 30).as_deref(), Some("a"));
    }

    #[test]
    fn a_reject_keeps_every_byte() {
        let mut out = Vec::new();
        let line = Line {
            bytes: b"{\"a\":\xff",
            number: 17,
            offset: 1234,
            oversized: None,
        };
        write_reject(&mut out, "rv-score", "requests.fifo", &line, "not UTF-8");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"program\":\"rv-score\",\"input\":\"requests.fifo\",\"line\":17,\"offset\":1234,\"reason\":\"not UTF-8\",\"rawBase64\":\"eyJhIjr/\"}\n"
        );
    }
}
