//! Writes answers as responses, and closed mailboxes as decisions.

use crate::join::kept_score::Seat;
use crate::serve::rendezvous::answer::Answer;
use crate::serve::rendezvous::decision::Choice;
use crate::serve::rendezvous::mailbox::Mailbox;
use crate::wire::decision::DECISION_FIELDS;
use crate::wire::message::{Field, OutcomeKind, Record};
use crate::wire::object::ObjectWriter;

/// The members of a request that its response does not copy. The response does not tell
/// the client the names of streams, and it has new values for the other members.
const NOT_IN_RESPONSE: [Field; 5] = [
    Field::ScoreTopic,
    Field::ReturnAddress,
    Field::ModelResult,
    Field::ModelError,
    Field::Provenance,
];

/// Appends the response to a request. Returns an error if the request is invalid. A
/// rendezvous accepts only valid requests.
pub fn write_response(answer: &Answer, out: &mut Vec<u8>) -> Result<(), String> {
    let record = Record::of_text(&answer.request)?;
    let mut response = record.rewrite(out, &NOT_IN_RESPONSE);
    write_answer(&record, answer, &mut response)?;
    response.end();
    out.push(b'\n');
    Ok(())
}

/// Appends the decision of a closed mailbox. Returns an error in the same case as
/// [`write_response`].
pub fn write_decision(mailbox: &Mailbox, choice: Choice, out: &mut Vec<u8>) -> Result<(), String> {
    let record = Record::of_text(&mailbox.request)?;
    let mut decision = record.rewrite(out, &DECISION_FIELDS);
    write_answer(&record, &mailbox.answer(choice), &mut decision)?;
    decision.array(
        "candidates",
        mailbox.fates_by_arrival(choice),
        |entry, (score, fate)| {
            entry
                .string("modelName", &score.model_name)
                .display("modelVersion", score.model_version);
            if let Some(hash) = &score.model_hash {
                entry.string("modelHash", hash);
            }
            let outcome = match score.kind {
                OutcomeKind::Result => Field::Result,
                OutcomeKind::Refusal | OutcomeKind::Failure => Field::Error,
            };
            entry
                .display("arrivedAfter", score.at.as_millis())
                .raw(outcome.name(), &score.outcome)
                .string("fate", fate.name());
            if score.seat == Seat::Shadow {
                entry.raw("shadow", "true");
            }
        },
    );
    decision.end();
    out.push(b'\n');
    Ok(())
}

fn write_answer(record: &Record, answer: &Answer, writer: &mut ObjectWriter) -> Result<(), String> {
    let provenance = record.provenance()?;
    writer.raw("modelResult", answer.content.model_result());
    if let Some(error) = answer.content.model_error() {
        writer.raw("modelError", error);
    }
    writer.object_with("provenance", provenance.as_ref(), "rendezvous", |entry| {
        match &answer.model {
            Some((_, version)) => entry.display("modelVersion", version),
            None => entry.raw("modelVersion", "null"),
        };
        entry
            .string("reason", answer.choice.reason.name())
            .display("answeredAfter", answer.choice.at.as_millis())
            .string("policyHash", &answer.policy.hash);
    });
    Ok(())
}
