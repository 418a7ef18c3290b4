//! What cannot be worked on: to the file or the topic of the rejects.

use anyhow::{Result, bail};
use base64::Engine;

use crate::bridge::broker::Outgoing;
use crate::bridge::frame::id_of;
use crate::bridge::ledger::{Aside, OutputKey, Position};
use crate::bridge::run::{Bridge, LINES_MAX, Rejects};
use crate::wire::lines::{KeptLine, Line};
use crate::wire::message::Record;
use crate::wire::object::{ObjectWriter, decode_string};
use crate::wire::reject::Reject;

/// Something that cannot be worked on.
pub(super) struct Rejected<'a> {
    /// The record, for the ledger.
    pub key: OutputKey,
    /// The input that it came from, if it came from one.
    pub input: Option<usize>,
    /// Its position there.
    pub position: Option<Position>,
    /// The bytes.
    pub raw: &'a [u8],
    /// Why.
    pub reject: Reject,
}

impl Bridge<'_> {
    /// Puts something in the place of the rejects. When it is safe there, what it came of
    /// is finished.
    pub(super) fn reject(&mut self, rejected: Rejected) -> Result<()> {
        let position = rejected.position.unwrap_or_default();
        let input = match rejected.input {
            Some(input) => format!("{}/{}", self.inputs[input].name, position.partition),
            None => "<outputs>".to_owned(),
        };
        let line = Line {
            bytes: rejected.raw,
            number: position.sequence,
            offset: position.sequence,
            oversized: None,
        };
        match &self.rejects {
            Rejects::Nowhere => bail!(
                "{input}:{}: {}; nothing is acknowledged that is not safe, so the bridge ends: give \
                 the record a place with --rejects-to ADDRESS or --rejects FILE",
                position.sequence,
                rejected.reject
            ),
            Rejects::File => {
                self.stage.report.reject(&input, &line, &rejected.reject)?;
                self.stage.report.flush()?;
                self.ledger.safe(rejected.key);
            }
            Rejects::Topic { sink, topic } => {
                let (sink, topic) = (*sink, topic.clone());
                self.stage.report.reject(&input, &line, &rejected.reject)?;
                let payload = reject_record(&input, &rejected);
                self.send_reject(sink, topic, rejected.key, payload);
            }
        }
        Ok(())
    }

    fn send_reject(&mut self, sink: usize, topic: String, key: OutputKey, payload: Vec<u8>) {
        let record = Outgoing {
            key,
            topic,
            partition: None,
            id: None,
            payload,
        };
        self.send(sink, record);
    }

    /// Sets a message aside that the program will not finish.
    pub(super) fn set_aside(
        &mut self,
        input: usize,
        key: OutputKey,
        position: Position,
        line: &[u8],
        reason: Aside,
    ) -> Result<()> {
        let reject = match reason {
            Aside::Unanswered => Reject::Unanswered("no output within --unanswered"),
            Aside::Condemned => {
                Reject::Unanswered("the program has died --max-deaths times with it in hand")
            }
        };
        self.reject(Rejected {
            key,
            input: Some(input),
            position: Some(position),
            raw: line,
            reject,
        })
    }

    /// Reads the program's own rejects. Each finishes the message that it is about.
    pub(super) fn read_rejects_pipe(&mut self) -> Result<bool> {
        for count in 0..LINES_MAX {
            let may_publish = self.may_publish();
            let Some(reader) = self.rejects_pipe.as_mut().filter(|_| may_publish) else {
                return Ok(count > 0);
            };
            if let Some(line) = reader.lines().next_line() {
                let line = KeptLine::from(&line);
                self.take_rejected(&line)?;
            } else if reader.has_ended() || !reader.read()? {
                return Ok(count > 0);
            }
        }
        Ok(true)
    }

    /// One record of the program's rejects.
    fn take_rejected(&mut self, kept: &KeptLine) -> Result<()> {
        let line = kept.line();
        let Ok(Some(bytes)) = line.record() else {
            return Ok(());
        };
        let Ok(record) = Record::parse(bytes) else {
            let reject = Reject::Syntax("the program's rejects hold no record".to_owned());
            return self.stage.report.reject("{rejects}", &line, &reject);
        };
        let object = record.object();
        let path = object.get("input").and_then(decode_string);
        let input = path.and_then(|path| self.input_paths.iter().position(|it| *it == path));
        let number = object.get("line").and_then(|it| it.parse().ok());
        let raw = object.get("raw").and_then(decode_string);
        let raw = raw.as_deref().unwrap_or_default();
        let id = Record::of_text(raw).ok().and_then(|it| id_of(&it));
        self.deaths.program_worked();
        self.counts.rejected_by_program += 1;
        let key = self.ledger.rejected(input, number, id.as_deref());
        match &self.rejects {
            Rejects::Topic { sink, topic } => {
                let (sink, topic) = (*sink, topic.clone());
                self.send_reject(sink, topic, key, bytes.to_vec());
            }
            Rejects::File => {
                self.stage.report.keep_rejected(bytes)?;
                self.stage.report.flush()?;
                self.ledger.safe(key);
            }
            Rejects::Nowhere => {}
        }
        Ok(())
    }
}

/// The record of the topic of rejects: the same members as in the file.
fn reject_record(input: &str, rejected: &Rejected) -> Vec<u8> {
    let mut text = Vec::with_capacity(rejected.raw.len() + 200);
    let mut object = ObjectWriter::new(&mut text);
    object.string("program", "rv-bridge");
    object.string("input", input);
    if let Some(position) = rejected.position {
        object.display("partition", position.partition);
        object.display("offset", position.sequence);
    }
    object.string("reason", &rejected.reject.to_string());
    match std::str::from_utf8(rejected.raw) {
        Ok(raw) => object.string("raw", raw),
        Err(_) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(rejected.raw);
            object.string("rawBase64", &encoded)
        }
    };
    object.end();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_message_names_its_place_and_keeps_its_bytes() {
        let rejected = |raw| Rejected {
            key: OutputKey(0),
            input: Some(0),
            position: Some(Position {
                partition: 3,
                sequence: 17,
                ..Position::default()
            }),
            raw,
            reject: Reject::Syntax("not JSON".to_owned()),
        };
        assert_eq!(
            String::from_utf8(reject_record("in", &rejected(b"{\"a\""))).unwrap(),
            r#"{"program":"rv-bridge","input":"in","partition":3,"offset":17,"reason":"not JSON","raw":"{\"a\""}"#
        );
        let text = String::from_utf8(reject_record("in", &rejected(b"\xff"))).unwrap();
        assert!(text.ends_with(r#""rawBase64":"/w=="}"#), "{text}");
    }
}
