//! answers -> responses, as records.

use crate::serve::rendezvous::mailbox::Answer;
use crate::wire::message::{Field, Record};

/// What a rendezvous removes of a request: where it came from and where its
/// response goes is not for the client, and the rest is written anew.
const OWNED: [Field; 4] = [
    Field::ScoreTopic,
    Field::ReturnAddress,
    Field::ModelResult,
    Field::Provenance,
];

/// Appends the response to a request.
pub fn write(answer: &Answer, out: &mut Vec<u8>) -> Result<(), String> {
    let record = Record::parse(answer.request.as_bytes())?;
    let provenance = record.provenance()?;
    let mut response = record.rewrite(out, &OWNED);
    response
        .raw("modelResult", &answer.model_result)
        .object_with("provenance", provenance.as_ref(), "rendezvous", |entry| {
            match answer.model_version {
                Some(version) => entry.display("modelVersion", version),
                None => entry.raw("modelVersion", "null"),
            };
            entry
                .string("reason", answer.outcome.reason.name())
                .display("answeredAfter", answer.outcome.at.as_millis())
                .string("policyHash", &answer.policy.hash);
        });
    response.end();
    out.push(b'\n');
    Ok(())
}
