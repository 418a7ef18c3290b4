//! Passes on what a program writes on its stderr, line by line. The length of a line
//! and the number of lines are bounded. The code of this file reads no clock and no
//! stream.

use std::time::{Duration, Instant};

use crate::serve::score::engine::Message;

/// The longest line that is passed on, in bytes.
const LINE_BYTES_MAX: usize = 1000;

/// The number of lines that are passed on in a period.
const LINES_MAX: u64 = 40;

/// The period for the number of lines.
const PERIOD: Duration = Duration::from_secs(10);

/// Cuts the bytes of one program's stderr into lines.
#[derive(Debug, Default)]
pub struct LogLines {
    /// The beginning of a line, at most [`LINE_BYTES_MAX`] bytes.
    line: Vec<u8>,
    /// Whether bytes of the line were dropped.
    is_cut: bool,
}

impl LogLines {
    /// Takes bytes, and calls `show` with each complete line.
    pub fn take(&mut self, bytes: &[u8], mut show: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let room = LINE_BYTES_MAX - self.line.len();
            self.is_cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.finish(&mut show);
            }
        }
    }

    /// Shows the last line, if it has no newline.
    pub fn finish(&mut self, show: &mut impl FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end();
        let dots = if self.is_cut { "..." } else { "" };
        if !text.is_empty() {
            show(&format!("{text}{dots}"));
        }
        self.line.clear();
        self.is_cut = false;
    }
}

/// Limits the number of lines of a model's programs.
#[derive(Debug)]
pub struct LogLimit {
    name: String,
    begun: Option<Instant>,
    shown: u64,
    held_back: u64,
}

impl LogLimit {
    /// Begins the messages with the name of the model.
    pub fn new(name: &str) -> LogLimit {
        LogLimit {
            name: name.to_owned(),
            begun: None,
            shown: 0,
            held_back: 0,
        }
    }

    /// Appends the message for a line to `messages`, unless there were too many.
    pub fn pass(&mut self, line: &str, now: Instant, messages: &mut Vec<Message>) {
        if self.begun.is_none_or(|begun| now - begun >= PERIOD) {
            self.tell_held_back(messages);
            self.begun = Some(now);
            self.shown = 0;
        }
        if self.shown == LINES_MAX {
            self.held_back += 1;
            return;
        }
        self.shown += 1;
        let text = format!("{}: {line}", self.name);
        messages.push(Message::warning(text.clone(), text));
    }

    /// Appends a message that says how many lines were not passed on.
    pub fn tell_held_back(&mut self, messages: &mut Vec<Message>) {
        let count = std::mem::take(&mut self.held_back);
        if count > 0 {
            messages.push(Message::info(format!(
                "{}: {count} further lines of its stderr are not shown",
                self.name
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_lines_are_cut_and_blank_ones_left_out() {
        let mut lines = Vec::new();
        let mut log = LogLines::default();
        let mut text = b"one\r\n\n  \n".to_vec();
        text.extend(b"x".repeat(5000));
        text.extend(b"\n\xff\nlast");
        log.take(&text, |line| lines.push(line.to_owned()));
        log.finish(&mut |line: &str| lines.push(line.to_owned()));
        let long = "x".repeat(LINE_BYTES_MAX) + "...";
        assert_eq!(lines, ["one", &long, "\u{fffd}", "last"]);
    }

    #[test]
    fn a_flood_of_lines_is_counted() {
        let mut limit = LogLimit::new("m");
        let start = Instant::now();
        let mut messages = Vec::new();
        for number in 0..1000 {
            limit.pass(&format!("line {number}"), start, &mut messages);
        }
        assert_eq!(messages.len() as u64, LINES_MAX);
        assert_eq!(messages[0].text, "m: line 0");
        limit.pass("later", start + PERIOD, &mut messages);
        let texts: Vec<&str> = messages.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(
            texts[LINES_MAX as usize..],
            [
                "m: 960 further lines of its stderr are not shown",
                "m: later"
            ]
        );
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_are_cut(
            text in "[a\n ]{0,60}", cut in 0usize..60,
        ) {
            let read = |pieces: &[&[u8]]| {
                let mut lines = Vec::new();
                let mut log = LogLines::default();
                for piece in pieces {
                    log.take(piece, |line| lines.push(line.to_owned()));
                }
                log.finish(&mut |line: &str| lines.push(line.to_owned()));
                lines
            };
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(read(&[bytes]), read(&[head, tail]));
        }
    }
}
