//! record -> its operation: the two lines of `_bulk`, which contain the action (with the
//! index) and the document.

use chrono::{DateTime, Datelike, Utc};

use crate::observe::es_sink::agreement::Agreement;
use crate::observe::es_sink::index_name::IndexName;
use crate::observe::es_sink::schema::DATA_STREAM_TIME;
use crate::observe::es_sink::shape::{self, IndexedFields};
use crate::wire::message::{Field, Record, Score};
use crate::wire::micros::Micros;
use crate::wire::object::{Object, ObjectWriter};
use crate::wire::reject::Reject;
use crate::wire::sha256::sha256_hex;

/// The longest id of a document, in bytes.
const ID_BYTES_MAX: usize = 512;

const MICROS_OF_A_SECOND: i64 = 1_000_000;

/// Makes operations from records.
#[derive(Clone, Debug)]
pub struct Documents {
    index: IndexName,
    /// Whether records are sent unchanged, in any form.
    keep_shape: bool,
    /// Whether the target is a data stream. A data stream accepts only new documents,
    /// and needs the time in a separate field.
    data_stream: bool,
    day: Day,
}

/// The day of the last record. The next record usually has the same day.
#[derive(Clone, Debug)]
struct Day {
    /// The number of days since 1970.
    number: i64,
    /// The date, such as `2022-02-09`.
    date: String,
    /// The name of the index on this day.
    index: String,
}

impl Documents {
    /// With `keep_shape`, records are sent unchanged. Without it, they get a form
    /// that the template accepts.
    pub fn new(index: IndexName, keep_shape: bool) -> Documents {
        let day = Day::new(&index, 0, DateTime::UNIX_EPOCH);
        Documents {
            index,
            keep_shape,
            data_stream: false,
            day,
        }
    }

    /// From now on, makes the operations for a data stream.
    pub fn for_data_stream(&mut self) {
        self.data_stream = true;
    }

    /// Appends the action and the document of one record, each with its newline. If the
    /// record is rejected, nothing is appended.
    pub fn operation(
        &mut self,
        line: &[u8],
        fields: IndexedFields,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let record = Record::parse(line)?;
        let id = document_id(&record, line)?;
        let time = self.time(&record)?;
        if time.is_none() {
            if self.index.needs_date() {
                return Err(Reject::Field("field \"timestamp\" is missing".to_owned()));
            }
            if self.data_stream {
                return Err(Reject::Field(
                    "field \"timestamp\" is missing, and the target is a data stream".to_owned(),
                ));
            }
        }
        let mut action = ObjectWriter::new(out);
        action.object(
            if self.data_stream { "create" } else { "index" },
            |target| {
                target.string("_index", &self.day.index).string("_id", &id);
            },
        );
        action.end();
        out.push(b'\n');
        let object = record.object();
        let keeps_form =
            self.keep_shape || (fields == IndexedFields::All && shape::is_regular(object));
        let mut document = if keeps_form {
            record.rewrite(out, &[Field::Timestamp])
        } else {
            let mut document = ObjectWriter::new(out);
            shape::write(&mut document, object, &[Field::Timestamp.name()], fields);
            document
        };
        if let Some(time) = &time {
            document.raw("timestamp", time);
            if self.data_stream && !has_data_stream_time(&record) {
                document.raw(DATA_STREAM_TIME, time);
            }
        }
        if let Some(agreement) = Agreement::of(&record) {
            agreement.write(&mut document);
        }
        document.end();
        out.push(b'\n');
        Ok(())
    }

    /// The record's `timestamp` as a date in JSON; `None` if it has no timestamp.
    /// Sets `day` to the record's day.
    fn time(&mut self, record: &Record) -> Result<Option<String>, Reject> {
        if record.get(Field::Timestamp).is_none() {
            return Ok(None);
        }
        let Micros(micros) = record.timestamp()?;
        let seconds = micros.div_euclid(MICROS_OF_A_SECOND);
        let (number, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        if number != self.day.number {
            let date = DateTime::from_timestamp_micros(micros)
                .filter(|date| (0..=9999).contains(&date.year()))
                .ok_or_else(|| {
                    let fault = "field \"timestamp\" is outside of the years 0 to 9999";
                    Reject::Field(fault.to_owned())
                })?;
            self.day = Day::new(&self.index, number, date);
        }
        let fraction = micros.rem_euclid(MICROS_OF_A_SECOND);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let date = &self.day.date;
        Ok(Some(format!(
            "\"{date}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z\""
        )))
    }
}

/// Whether the record already has the time field of a data stream.
fn has_data_stream_time(record: &Record) -> bool {
    let text = record.text();
    memchr::memmem::find(text.as_bytes(), DATA_STREAM_TIME.as_bytes()).is_some()
        && Object::parse(text).is_ok_and(|object| object.get(DATA_STREAM_TIME).is_some())
}

impl Day {
    fn new(index: &IndexName, number: i64, date: DateTime<Utc>) -> Day {
        Day {
            number,
            date: date.format("%Y-%m-%d").to_string(),
            index: index.fill(date),
        }
    }
}

/// The id of a record's document. A record that is sent again gets the same id.
fn document_id(record: &Record, line: &[u8]) -> Result<String, Reject> {
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
    Ok(sha256_hex(&id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn operation(index: &str, record: &str) -> Result<String, String> {
        let mut documents = Documents::new(IndexName::parse(index).unwrap(), false);
        let mut out = Vec::new();
        documents
            .operation(record.as_bytes(), IndexedFields::All, &mut out)
            .inspect_err(|_| assert!(out.is_empty()))?;
        Ok(String::from_utf8(out).unwrap())
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

    proptest! {
        #[test]
        fn every_time_is_written_as_the_library_writes_it(
            times in proptest::collection::vec(-62_167_219_200_000_000i64..253_402_300_800_000_000, 1..5),
        ) {
            let mut documents = Documents::new(IndexName::parse("i-%Y-%m-%d").unwrap(), false);
            for micros in times {
                let (sign, size) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
                let (seconds, fraction) = (size / 1_000_000, size % 1_000_000);
                let record = format!(r#"{{"messageId":"a","timestamp":{sign}{seconds}.{fraction:06}}}"#);
                let parsed = Record::parse(record.as_bytes()).unwrap();
                // A float cannot hold all digits of distant times. Another test
                // checks these.
                let Ok(Micros(micros)) = parsed.timestamp() else { continue };
                let Some(date) = DateTime::from_timestamp_micros(micros) else { continue };
                prop_assume!((0..=9999).contains(&date.year()));
                let mut out = Vec::new();
                documents.operation(record.as_bytes(), IndexedFields::All, &mut out).unwrap();
                let expected = format!(
                    "{{\"index\":{{\"_index\":\"{}\",\"_id\":\"a\"}}}}\n{{\"messageId\":\"a\",\"timestamp\":\"{}\"}}\n",
                    date.format("i-%Y-%m-%d"), date.format("%Y-%m-%dT%H:%M:%S%.6fZ")
                );
                prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
            }
        }
    }

    #[test]
    fn a_data_stream_takes_new_documents_with_the_time_in_its_own_field() {
        let mut documents = Documents::new(IndexName::parse("s").unwrap(), false);
        documents.for_data_stream();
        let mut out = Vec::new();
        documents
            .operation(
                br#"{"messageId":"a","timestamp":0.5}"#,
                IndexedFields::All,
                &mut out,
            )
            .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"create\":{\"_index\":\"s\",\"_id\":\"a\"}}\n\
             {\"messageId\":\"a\",\"timestamp\":\"1970-01-01T00:00:00.500000Z\",\
             \"@timestamp\":\"1970-01-01T00:00:00.500000Z\"}\n"
        );
        let error =
            documents.operation(br#"{"messageId":"a"}"#, IndexedFields::All, &mut Vec::new());
        assert!(error.unwrap_err().to_string().contains("data stream"));
    }

    #[test]
    fn a_decision_says_which_models_agree() {
        let record = r#"{"messageId":"a","candidates":[{"modelName":"dt","modelVersion":1,"result":{"modelName":"dt","result":2}},{"modelName":"lr","modelVersion":0,"result":{"modelName":"lr","result":1}}]}"#;
        let action = operation("d", record).unwrap();
        assert!(
            action.ends_with(
                r#","agreement":{"same":[],"different":["dt@1|lr@0"]}}
"#
            ),
            "{action}"
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
        let name = "m".repeat(256);
        let with_id = |length: usize| {
            let id = "i".repeat(length);
            let record = format!(r#"{{"messageId":"{id}","result":{{"modelName":"{name}"}}}}"#);
            let action = operation("s", &record).unwrap();
            let (_, id) = action.split_once("\"_id\":\"").unwrap();
            id.split_once('"').unwrap().0.to_owned()
        };
        assert_eq!(with_id(253).len(), 512);
        assert_eq!(with_id(254).len(), 64);
        assert_ne!(with_id(254), with_id(255));
    }

    #[test]
    fn what_cannot_be_a_document_is_named() {
        for (record, reason) in [
            ("[]", "not a JSON object"),
            ("{}", "field \"messageId\" is missing"),
            (r#"{"messageId":"a"}"#, "field \"timestamp\" is missing"),
            (
                r#"{"messageId":"a","timestamp":"now"}"#,
                "field \"timestamp\" is not a number of seconds since 1970 but a string",
            ),
            (
                r#"{"messageId":"a","timestamp":1e12}"#,
                "field \"timestamp\" is outside of the years 0 to 9999 as seconds since 1970; are \
                 these milliseconds? Divide them by 1000",
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
