//! record -> the two lines of `_bulk`: which document it becomes, and where.

use chrono::{DateTime, Datelike, Utc};
use sha2::{Digest, Sha256};

use crate::observe::es_sink::index_name::IndexName;
use crate::wire::message::{Field, Record, Score};
use crate::wire::micros::Micros;
use crate::wire::object::ObjectWriter;

/// The longest id of a document, in bytes.
const ID_BYTES_MAX: usize = 512;

/// With all its digits, as the record has it.
const DATE: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

/// Makes documents of records.
#[derive(Clone, Debug)]
pub struct Documents {
    index: IndexName,
}

impl Documents {
    /// For an index, or one a day, month or year.
    pub fn new(index: IndexName) -> Documents {
        Documents { index }
    }

    /// The action and the document of one record, each with its newline. The
    /// error says why it can have none.
    pub fn operation(&self, line: &[u8]) -> Result<Vec<u8>, String> {
        let record = Record::parse(line)?;
        let id = document_id(&record, line)?;
        let date = date(&record)?;
        let index = match date {
            None if self.index.needs_date() => {
                return Err("field \"timestamp\" is missing".to_owned());
            }
            date => self.index.fill(date.unwrap_or_default()),
        };
        let mut lines = Vec::with_capacity(line.len() + id.len() + index.len() + 64);
        let mut action = ObjectWriter::new(&mut lines);
        action.object("index", |target| {
            target.string("_index", &index).string("_id", &id);
        });
        action.end();
        lines.push(b'\n');
        let mut document = record.rewrite(&mut lines, &[Field::Timestamp]);
        if let Some(date) = date {
            document.display("timestamp", format_args!("\"{}\"", date.format(DATE)));
        }
        document.end();
        lines.push(b'\n');
        Ok(lines)
    }
}

/// The same for the same record, whenever it is sent.
fn document_id(record: &Record, line: &[u8]) -> Result<String, String> {
    let is_score = record.get(Field::Result).or(record.get(Field::Error));
    let id = if is_score.is_some() {
        let score = Score::parse(line)?;
        let (id, model) = (score.message_id, score.model_name);
        format!("{id}/{model}/{}", score.model_version)
    } else {
        record.message_id()?.into_owned()
    };
    if id.len() <= ID_BYTES_MAX {
        return Ok(id);
    }
    let hash = Sha256::digest(&id);
    Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The record's `timestamp`, where it has one.
fn date(record: &Record) -> Result<Option<DateTime<Utc>>, String> {
    if record.get(Field::Timestamp).is_none() {
        return Ok(None);
    }
    let Micros(micros) = record.timestamp()?;
    DateTime::from_timestamp_micros(micros)
        .filter(|date| (0..=9999).contains(&date.year()))
        .map(Some)
        .ok_or_else(|| "field \"timestamp\" lies outside of the years 0 to 9999".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(index: &str, record: &str) -> Result<String, String> {
        let documents = Documents::new(IndexName::parse(index).unwrap());
        let bytes = documents.operation(record.as_bytes())?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_record_becomes_a_document_with_a_date() {
        let record = r#"{"messageId":"a","timestamp":1644370787.021771,"modelInput":{"x":1.10}}"#;
        assert_eq!(
            operation("r-%Y.%m.%d", record).unwrap(),
            "{\"index\":{\"_index\":\"r-2022.02.09\",\"_id\":\"a\"}}\n\
             {\"messageId\":\"a\",\"modelInput\":{\"x\":1.10},\"timestamp\":\"2022-02-09T01:39:47.021771Z\"}\n"
        );
        assert!(
            operation("r", r#"{"messageId":"a","timestamp":0}"#)
                .unwrap()
                .ends_with("{\"messageId\":\"a\",\"timestamp\":\"1970-01-01T00:00:00.000000Z\"}\n")
        );
    }

    #[test]
    fn a_score_is_named_by_its_model_too() {
        for (record, id) in [
            (
                r#"{"messageId":"a","result":{"modelName":"dt"},"provenance":{"model":{"modelVersion":3}}}"#,
                "a/dt/3",
            ),
            (r#"{"messageId":"a","error":{"modelName":"lr"}}"#, "a/lr/0"),
            (r#"{"messageId":"a","modelResult":null}"#, "a"),
            (r#"{"messageId":"\"\n"}"#, r#"\"\n"#),
        ] {
            let action = operation("s", record).unwrap();
            let expected = format!("{{\"index\":{{\"_index\":\"s\",\"_id\":\"{id}\"}}}}\n");
            assert!(action.starts_with(&expected), "{action}");
        }
    }

    #[test]
    fn a_long_id_is_hashed() {
        let with_name = |length: usize| {
            let name = "m".repeat(length);
            let record = format!(r#"{{"messageId":"a","result":{{"modelName":"{name}"}}}}"#);
            let action = operation("s", &record).unwrap();
            let (_, id) = action.split_once("\"_id\":\"").unwrap();
            id.split_once('"').unwrap().0.to_owned()
        };
        assert_eq!(with_name(508).len(), 512);
        assert_eq!(with_name(509).len(), 64);
        assert_ne!(with_name(509), with_name(510));
    }

    #[test]
    fn what_cannot_be_a_document_is_named() {
        for (record, reason) in [
            ("[]", "not a JSON object"),
            ("{}", "field \"messageId\" is missing"),
            (r#"{"messageId":"a"}"#, "field \"timestamp\" is missing"),
            (
                r#"{"messageId":"a","timestamp":"now"}"#,
                "field \"timestamp\" is not a number of seconds since 1970",
            ),
            (
                r#"{"messageId":"a","timestamp":1e12}"#,
                "field \"timestamp\" lies outside of the years 0 to 9999",
            ),
            (
                r#"{"messageId":"a","timestamp":1,"result":{}}"#,
                "field \"result.modelName\" is missing",
            ),
        ] {
            assert_eq!(operation("r-%d", record).unwrap_err(), reason, "{record}");
        }
    }
}
