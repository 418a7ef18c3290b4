//! Answers and decisions as records, and decisions read back.

use crate::serve::rendezvous::decision::{Arrival, Outcome};
use crate::serve::rendezvous::mailbox::{Answer, Candidate, Mailbox};
use crate::wire::message::{Field, Record};
use crate::wire::micros::Micros;
use crate::wire::object::{Object, ObjectWriter, array_items, decode_string};
use crate::wire::text::Text;

/// What a response leaves out of its request: where it came from and where its
/// response goes is not for the client, and the rest is written anew.
const NOT_IN_RESPONSE: [Field; 4] = [
    Field::ScoreTopic,
    Field::ReturnAddress,
    Field::ModelResult,
    Field::Provenance,
];

/// What a decision writes anew. The rest is the request, whole.
const NOT_IN_DECISION: [Field; 3] = [Field::ModelResult, Field::Provenance, Field::Candidates];

/// Appends the response of an answer. The error is that of a request which is
/// none; a rendezvous takes none of these in.
pub fn write_response(answer: &Answer, out: &mut Vec<u8>) -> Result<(), String> {
    let record = Record::of_text(&answer.request)?;
    let mut response = record.rewrite(out, &NOT_IN_RESPONSE);
    write_answer(&record, answer, &mut response)?;
    response.end();
    out.push(b'\n');
    Ok(())
}

/// Appends the decision of a closed mailbox.
pub fn write_decision(
    mailbox: &Mailbox,
    outcome: Outcome,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let record = Record::of_text(&mailbox.request)?;
    let mut decision = record.rewrite(out, &NOT_IN_DECISION);
    write_answer(&record, &mailbox.answer(outcome), &mut decision)?;
    decision.array(
        "candidates",
        mailbox.candidates(outcome),
        |entry, (candidate, fate)| {
            let arrival = &candidate.arrival;
            entry
                .string("modelName", &arrival.model_name)
                .display("modelVersion", arrival.model_version);
            if let Some(hash) = &candidate.model_hash {
                entry.string("modelHash", hash);
            }
            entry
                .display("arrivedAfter", arrival.at.as_millis())
                .raw(outcome_key(arrival.failed), &candidate.outcome)
                .string("fate", fate.name());
        },
    );
    decision.end();
    out.push(b'\n');
    Ok(())
}

fn outcome_key(failed: bool) -> &'static str {
    if failed { "error" } else { "result" }
}

fn write_answer(record: &Record, answer: &Answer, writer: &mut ObjectWriter) -> Result<(), String> {
    let provenance = record.provenance()?;
    writer.raw("modelResult", &answer.model_result).object_with(
        "provenance",
        provenance.as_ref(),
        "rendezvous",
        |entry| {
            match &answer.model {
                Some((_, version)) => entry.display("modelVersion", version),
                None => entry.raw("modelVersion", "null"),
            };
            entry
                .string("reason", answer.outcome.reason.name())
                .display("answeredAfter", answer.outcome.at.as_millis())
                .string("policyHash", &answer.policy.hash);
        },
    );
    Ok(())
}

/// A decision as it was recorded.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The request's id, decoded.
    pub message_id: Text,
    /// The request as it was before the decision.
    pub request: String,
    /// When the request was accepted.
    pub timestamp: Micros,
    /// The answer it was given, as JSON text.
    pub model_result: String,
    /// `dt@1`, or `None` for the default.
    pub model: Option<String>,
    /// Why it won.
    pub reason: String,
    /// When it was given, from the request's origin.
    pub answered_after: Option<Micros>,
    /// The policy it was given by.
    pub policy_hash: String,
    /// All scores that came.
    pub candidates: Vec<(Candidate, String)>,
}

impl Decided {
    /// Reads a decision. The error says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Decided, String> {
        let record = Record::parse(line)?;
        let message_id = record.message_id()?;
        let timestamp = record.timestamp()?;
        record.model_input()?;
        let model_result = record
            .get(Field::ModelResult)
            .ok_or("field \"modelResult\" is missing")?;
        let rendezvous = record
            .provenance()?
            .and_then(|all| all.get("rendezvous"))
            .ok_or("field \"provenance.rendezvous\" is missing")?;
        let rendezvous = Object::parse(rendezvous)
            .map_err(|_| "field \"provenance.rendezvous\" is not an object")?;
        let text = |name: &str| {
            let raw = rendezvous.get(name).and_then(decode_string);
            raw.map(|text| text.into_owned())
                .ok_or_else(|| format!("field \"provenance.rendezvous.{name}\" is no string"))
        };
        let candidates = record
            .get(Field::Candidates)
            .ok_or("field \"candidates\" is missing; a decision has it")?;
        let candidates = array_items(candidates).ok_or("field \"candidates\" is not an array")?;
        let version: Option<u64> = rendezvous
            .get("modelVersion")
            .and_then(|raw| raw.parse().ok());
        let name = Object::parse(model_result)
            .ok()
            .and_then(|result| result.get("modelName").and_then(decode_string));
        Ok(Decided {
            message_id: Text::from(&*message_id),
            request: request_of(&record)?,
            timestamp,
            model_result: model_result.to_owned(),
            model: version
                .zip(name)
                .map(|(version, name)| format!("{name}@{version}")),
            reason: text("reason")?,
            answered_after: rendezvous
                .get("answeredAfter")
                .and_then(Micros::parse_millis),
            policy_hash: text("policyHash")?,
            candidates: candidates
                .into_iter()
                .enumerate()
                .map(|(index, raw)| {
                    candidate(raw).map_err(|reason| format!("candidate {index}: {reason}"))
                })
                .collect::<Result<_, _>>()?,
        })
    }
}

/// The record without what the rendezvous added to it.
fn request_of(record: &Record) -> Result<String, String> {
    let mut out = Vec::with_capacity(record.text().len());
    let mut request = record.rewrite(&mut out, &NOT_IN_DECISION);
    if let Some(provenance) = record.provenance()? {
        let is_added = |index: usize| provenance.members[index].is("rendezvous");
        if (0..provenance.members.len()).any(|index| !is_added(index)) {
            let mut kept = Vec::new();
            provenance.rewrite(&mut kept, is_added).end();
            request.raw("provenance", &String::from_utf8_lossy(&kept));
        }
    }
    request.end();
    String::from_utf8(out).map_err(|_| "not UTF-8".to_owned())
}

fn candidate(raw: &str) -> Result<(Candidate, String), String> {
    let entry = Object::parse(raw).map_err(|_| "not an object")?;
    let text = |name: &str| {
        entry
            .get(name)
            .and_then(decode_string)
            .ok_or_else(|| format!("field \"{name}\" is no string"))
    };
    let (failed, outcome) = match (entry.get("result"), entry.get("error")) {
        (Some(result), None) => (false, result),
        (None, Some(error)) => (true, error),
        _ => return Err("has not one of \"result\" and \"error\"".to_owned()),
    };
    let candidate = Candidate {
        arrival: Arrival {
            model_name: Text::from(&*text("modelName")?),
            model_version: entry
                .get("modelVersion")
                .and_then(|raw| raw.parse().ok())
                .ok_or("field \"modelVersion\" is not a whole number from 0 up")?,
            at: entry
                .get("arrivedAfter")
                .and_then(Micros::parse_millis)
                .ok_or("field \"arrivedAfter\" is not a number of milliseconds")?,
            failed,
        },
        model_hash: text("modelHash").ok().map(|hash| Text::from(&*hash)),
        outcome: outcome.into(),
    };
    Ok((candidate, text("fate")?.into_owned()))
}
