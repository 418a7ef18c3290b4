//! The open requests of a call with a table, one for each row.

use std::rc::Rc;

use hyper::StatusCode;
use hyper::body::Bytes;

use crate::serve::request::http::answer::{
    HttpAnswer, PipelineAnswer, Verdict, error, json, summary_of_rows,
};
use crate::serve::request::http::mlflow;
use crate::serve::request::http::open_calls::{OpenCall, OpenCalls};
use crate::serve::request::http::open_inference::{self, Echo};
use crate::serve::request::http::table::TableLimits;
use crate::serve::request::http_args::HttpOptions;

/// The smallest limit of the memory of all model inputs of a call, in bytes.
const ROWS_BYTES_MIN: usize = 16 << 20;

/// How tables are read and answered.
#[derive(Debug)]
pub struct Table {
    /// The name of the model for clients.
    pub served_name: String,
    /// The names of a tensor's columns, if they are known.
    pub columns: Option<Vec<String>>,
    /// The limits of a table.
    pub limits: TableLimits,
}

impl Table {
    /// The tables of a front end with these options.
    pub fn new(
        open_calls: &OpenCalls,
        options: &HttpOptions,
        columns: Option<Vec<String>>,
    ) -> Table {
        Table {
            served_name: options.served_name.clone(),
            columns,
            limits: TableLimits {
                rows_max: open_calls.in_flight_max(),
                bytes_max: (2 * options.bodies.body_bytes_max).max(ROWS_BYTES_MIN),
            },
        }
    }
}

/// The form of the answer to a table.
#[derive(Debug)]
pub enum TableAnswer {
    /// The Open Inference Protocol, with the parts that the answer repeats.
    Infer(Echo),
    /// MLflow.
    Invocations,
}

/// The open requests of a table.
#[derive(Debug)]
pub struct OpenTable {
    /// The id of the call. The ids of the requests are ID/0, ID/1, ...
    pub id: String,
    /// The requests, in the order of the rows.
    pub calls: Vec<OpenCall>,
    /// The form of the answer.
    pub answer: TableAnswer,
    /// How tables are answered.
    pub table: Rc<Table>,
}

impl OpenTable {
    /// Waits for the answers to all rows. Returns `None` if a pipe lost its other end
    /// before the last answer. If a row has no answer or is refused, the whole call
    /// fails.
    pub async fn answer(&mut self) -> Option<HttpAnswer> {
        let mut answers = Vec::with_capacity(self.calls.len());
        for call in &mut self.calls {
            answers.push(call.answer().await?);
        }
        let mut failed = answers.iter().enumerate();
        let failed = failed.find(|(_, answer)| answer.verdict != Verdict::Result);
        let mut answer = match failed {
            Some((row, answer)) => failure(row, answer),
            None => self.success(&answers),
        };
        summary_of_rows(&self.id, &answers, answer.headers_mut());
        Some(answer)
    }

    fn success(&self, answers: &[PipelineAnswer]) -> HttpAnswer {
        // The results are pieces of a record, which is UTF-8.
        let results = answers
            .iter()
            .map(|it| std::str::from_utf8(&it.body).unwrap_or("null"));
        let results: Vec<&str> = results.collect();
        let body: Bytes = match &self.answer {
            TableAnswer::Infer(echo) => {
                open_inference::answer(&self.table.served_name, echo, &results).into()
            }
            TableAnswer::Invocations => mlflow::answer(&results).into(),
        };
        json(StatusCode::OK, body)
    }
}

/// The answer to a call of which this row has no result.
fn failure(row: usize, answer: &PipelineAnswer) -> HttpAnswer {
    let reason = match answer.verdict {
        Verdict::Refused => {
            let body = String::from_utf8_lossy(&answer.body);
            format!("row {row}: the model refused the row: {body}")
        }
        _ => format!("row {row}: no model answered in time, and the policy has no default"),
    };
    error(answer.status, &reason)
}
