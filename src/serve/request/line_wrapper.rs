//! Makes one request from each line. A line is a model input.

use anyhow::Result;

use crate::serve::request::request_writer::RequestWriter;
use crate::stage::Stage;
use crate::stage::filter::Filter;
use crate::stage::report::shown;
use crate::stage::stats::Snapshot;
use crate::wire::lines::Line;
use crate::wire::message::MESSAGE_ID_BYTES_MAX;
use crate::wire::object::{at_pointer, decode_string, parse_value};
use crate::wire::reject::Reject;

/// Makes a request from each line, and counts the lines.
#[derive(Debug)]
pub struct LineWrapper {
    writer: RequestWriter,
    /// The JSON pointer to the id in an input. If it is `None`, new ids are made.
    id_pointer: Option<String>,
    read: u64,
    blank: u64,
    written: u64,
    repeated: u64,
}

impl LineWrapper {
    /// With `id_pointer`, the ids come from the inputs. Without it, new ids are made.
    pub fn new(writer: RequestWriter, id_pointer: Option<String>) -> LineWrapper {
        LineWrapper {
            writer,
            id_pointer,
            read: 0,
            blank: 0,
            written: 0,
            repeated: 0,
        }
    }

    /// The number of lines that were set aside because their id was known.
    pub fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Appends the request of one line to `out` and returns its id. Returns `None` for
    /// a blank line, and for a line that is set aside because it is invalid or its id
    /// `is_known`. Fails if the line cannot be set aside.
    pub fn wrap_line(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        out: &mut Vec<u8>,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<Option<String>> {
        let parsed = match line.record() {
            Ok(None) => {
                self.blank += 1;
                return Ok(None);
            }
            Ok(Some(bytes)) => self.parse(bytes),
            Err(reject) => Err(reject),
        };
        self.read += 1;
        let reject = match parsed {
            Ok((id, _)) if is_known(&id) => {
                self.repeated += 1;
                Reject::Repeated(shown(&id))
            }
            Ok((id, model_input)) => {
                self.writer.write(&id, model_input, None, out);
                self.written += 1;
                return Ok(Some(id));
            }
            Err(reject) => reject,
        };
        stage.report.reject(input, line, &reject)?;
        Ok(None)
    }

    /// Sets aside a line without making a request, because the program ends.
    pub fn set_aside(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        reject: &Reject,
    ) -> Result<()> {
        if line.record() == Ok(None) {
            self.blank += 1;
            return Ok(());
        }
        self.read += 1;
        stage.report.reject(input, line, reject)
    }

    /// The id and the model input of a line.
    fn parse<'a>(&mut self, line: &'a [u8]) -> Result<(String, &'a str), Reject> {
        let text = std::str::from_utf8(line).map_err(Reject::not_utf8)?;
        let model_input = parse_value(text).map_err(Reject::Syntax)?;
        self.writer.check(model_input).map_err(Reject::Field)?;
        let id = match &self.id_pointer {
            Some(pointer) => id_at(model_input, pointer).map_err(Reject::Field)?,
            None => self.writer.next_id(),
        };
        Ok((id, model_input))
    }
}

/// The string or number at `pointer`, as a message id.
fn id_at(model_input: &str, pointer: &str) -> Result<String, String> {
    let value = at_pointer(model_input, pointer)
        .ok_or_else(|| format!("no id at \"{pointer}\" of the input"))?;
    let id = match decode_string(value) {
        Some(text) => text.into_owned(),
        None if value.starts_with(['{', '[', 'n', '"']) => {
            return Err(format!("the id at \"{pointer}\" is not a string or number"));
        }
        None => value.to_owned(),
    };
    match id.len() {
        1..=MESSAGE_ID_BYTES_MAX => Ok(id),
        length => Err(format!(
            "the id at \"{pointer}\" has {length} bytes, not 1 to {MESSAGE_ID_BYTES_MAX}"
        )),
    }
}

impl Filter for LineWrapper {
    fn line(
        &mut self,
        stage: &mut Stage,
        input: &str,
        line: &Line,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        // A filter reads no responses, so ids may be repeated.
        let is_known = |_: &str| false;
        self.wrap_line(stage, input, line, out, is_known)
            .map(|_| ())
    }

    fn snapshot(&self, stage: &Stage) -> Snapshot {
        Snapshot::default()
            .count("in", self.read)
            .count("out", self.written)
            .rejected(&stage.report)
            .count("blank", self.blank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_string_or_a_number_of_the_input() {
        let input = r#"{"id":"a\u0062","n":12345678901234567890123,"o":{},"e":""}"#;
        assert_eq!(id_at(input, "/id").unwrap(), "ab");
        assert_eq!(id_at(input, "/n").unwrap(), "12345678901234567890123");
        for (pointer, reason) in [
            ("/x", "no id at \"/x\" of the input"),
            ("/o", "the id at \"/o\" is not a string or number"),
            ("/e", "the id at \"/e\" has 0 bytes, not 1 to 256"),
        ] {
            assert_eq!(id_at(input, pointer).unwrap_err(), reason);
        }
    }
}
