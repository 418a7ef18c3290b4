//! `rv-rendezvous explain`: prints the decision of one request as a timeline.

use std::borrow::Cow;
use std::fmt::Write;

use anyhow::{Result, bail};
use chrono::DateTime;

use crate::serve::rendezvous::args::ExplainArgs;
use crate::stage::Stage;
use crate::stage::recording::Recording;
use crate::stage::report::{escaped, shown};
use crate::stream::address::Address;
use crate::stream::output::Output;
use crate::wire::decision::{Candidate, Decision};
use crate::wire::message::{Outcome, OutcomeKind, Record};
use crate::wire::micros::Micros;
use crate::wire::object::{Object, decode_string};
use crate::wire::reject::Reject;

/// Runs `rv-rendezvous explain`.
pub fn run(args: &ExplainArgs, stage: &mut Stage) -> Result<()> {
    for path in &args.decisions {
        let mut recording = Recording::open(path, stage)?;
        // A line without the text of the id belongs to another request, so it is not
        // parsed.
        let wanted = memchr::memmem::Finder::new(args.id.as_bytes());
        let has_escapes = |bytes: &[u8]| memchr::memchr(b'\\', bytes).is_some();
        while let Some((line, _)) = recording.next_line(stage)? {
            // A line that is not a record is ignored.
            let Ok(Some(bytes)) = line.record() else {
                continue;
            };
            if wanted.find(bytes).is_none() && !has_escapes(bytes) {
                continue;
            }
            let id = Record::parse(bytes).and_then(|it| Ok(it.message_id()?.into_owned()));
            if !id.is_ok_and(|id| id == args.id) {
                continue;
            }
            let place = format!("{path}:{}", line.number);
            let Ok(text) = Decision::parse(bytes).and_then(|it| story(&it)) else {
                bail!("{place}: this record has the id, and is not a decision");
            };
            let mut output = Output::open(&Address::Standard)?;
            stage.write_all(&mut output, &mut text.into_bytes())?;
            return stage.close(&mut output);
        }
    }
    let searched: Vec<&str> = args.decisions.iter().map(Address::as_str).collect();
    bail!(
        "no decision of {} in {}",
        shown(&args.id),
        searched.join(", ")
    )
}

/// One score of the timeline.
struct ScoreEvent<'a> {
    at: Micros,
    model_name: Cow<'a, str>,
    model_version: u64,
    outcome: Outcome<'a>,
    fate: Cow<'a, str>,
}

impl<'a> ScoreEvent<'a> {
    fn of(candidate: &Candidate<'a>) -> Result<ScoreEvent<'a>, String> {
        Ok(ScoreEvent {
            at: candidate.arrived_after()?,
            model_name: candidate.model_name()?,
            model_version: candidate.model_version()?,
            outcome: candidate.outcome()?,
            fate: candidate.fate()?,
        })
    }
}

/// The decision as a timeline. The error names the fault of a candidate.
fn story(decision: &Decision) -> Result<String, Reject> {
    let accepted = DateTime::from_timestamp_micros(decision.timestamp.0)
        .map_or_else(String::new, |time| {
            time.format(", accepted %FT%T%.6fZ").to_string()
        });
    let mut text = format!(
        "request {}{accepted}, policy {}\n",
        shown(&decision.message_id),
        shown(&decision.policy_hash)
    );
    let answered_after = decision.answered_after.unwrap_or_default();
    let mut scores = decision.candidates(ScoreEvent::of)?;
    scores.sort_by_key(|score| score.at);
    let before = scores.partition_point(|score| score.at <= answered_after);
    for score in &scores[..before] {
        write_score(&mut text, score);
    }
    write_answer(&mut text, decision, answered_after);
    for score in &scores[before..] {
        write_score(&mut text, score);
    }
    Ok(text)
}

fn write_score(text: &mut String, score: &ScoreEvent) {
    let said = match score.outcome {
        Outcome::Error(raw) => match Object::parse(raw) {
            Ok(error) => {
                let message = error.get("message").and_then(decode_string);
                let verb = match score.outcome.kind() {
                    OutcomeKind::Refusal => "refuses",
                    OutcomeKind::Result | OutcomeKind::Failure => "fails",
                };
                format!("{verb}: {}", shown(&message.unwrap_or_default()))
            }
            Err(_) => format!("says {}", shorten(raw)),
        },
        Outcome::Result(raw) => {
            let result = Object::parse(raw).ok().and_then(|it| it.get("result"));
            format!("says {}", shorten(result.unwrap_or(raw)))
        }
    };
    let name = escaped(&score.model_name);
    let (version, fate) = (score.model_version, escaped(&score.fate));
    write_event(text, score.at, &format!("{name}@{version} {said} ({fate})"));
}

fn write_answer(text: &mut String, decision: &Decision, at: Micros) {
    let who = match &decision.model {
        Some(model) => escaped(model),
        None => "the default".to_owned(),
    };
    let why = match &*decision.reason {
        "share" => "the request is in its share",
        "preferred" => "the first step accepts it",
        "fallback" => "the current step accepts it",
        "settled" => "all expected models have reported, so the later steps count at once",
        "refused" => "the model whose answer comes first refused the request",
        "default" => "no acceptable score arrived",
        "overflow" => "too many requests were open",
        "shutdown" => "the rendezvous or all models ended",
        _ => "this program does not know the reason",
    };
    let reason = escaped(&decision.reason);
    let (verb, answer) = match decision.model_error {
        Some(error) => ("refuses", error),
        None => ("answers", decision.model_result),
    };
    let answer = shorten(answer);
    write_event(
        text,
        at,
        &format!("=> {who} {verb}, {reason}: {why}; {answer}"),
    );
}

fn write_event(text: &mut String, at: Micros, event: &str) {
    let at = at.as_millis().to_string();
    let _ = writeln!(text, "{at:>12} ms  {event}");
}

/// JSON text, shortened so that it fits on a line.
fn shorten(json: &str) -> String {
    const CHARS_MAX: usize = 120;
    match json.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => escaped(&json[..end]) + "...",
        None => escaped(json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_told_as_a_timeline() {
        let line = br#"{"messageId":"a","timestamp":1644370787.5,"modelInput":{},"modelResult":{"modelName":"lr","result":1},"provenance":{"rendezvous":{"modelVersion":0,"reason":"settled","answeredAfter":9.000,"policyHash":"00ff"}},"candidates":[{"modelName":"lr","modelVersion":0,"arrivedAfter":3.000,"result":{"modelName":"lr","result":1},"fate":"used"},{"modelName":"dt","modelVersion":1,"arrivedAfter":9.000,"error":{"modelName":"dt","message":"no \u001b[2J"},"fate":"failed"},{"modelName":"x","modelVersion":0,"arrivedAfter":120.5,"result":{"modelName":"x","result":2},"fate":"late"}]}"#;
        assert_eq!(
            story(&Decision::parse(line).unwrap()).unwrap(),
            "request \"a\", accepted 2022-02-09T01:39:47.500000Z, policy \"00ff\"\n\
             \x20      3.000 ms  lr@0 says 1 (used)\n\
             \x20      9.000 ms  dt@1 fails: \"no \\u{1b}[2J\" (failed)\n\
             \x20      9.000 ms  => lr@0 answers, settled: all expected models have reported, so the later steps count at once; {\"modelName\":\"lr\",\"result\":1}\n\
             \x20    120.500 ms  x@0 says 2 (late)\n"
        );
    }

    #[test]
    fn a_refusal_is_told_as_the_answer() {
        let line = br#"{"messageId":"a","timestamp":1644370787.5,"modelInput":{},"modelResult":null,"modelError":{"modelName":"dt","message":"no","status":422},"provenance":{"rendezvous":{"modelVersion":1,"reason":"refused","answeredAfter":9.000,"policyHash":"00ff"}},"candidates":[{"modelName":"lr","modelVersion":0,"arrivedAfter":3.000,"error":{"modelName":"lr","message":"busy","status":503},"fate":"failed"},{"modelName":"dt","modelVersion":1,"arrivedAfter":9.000,"error":{"modelName":"dt","message":"no","status":422},"fate":"used"}]}"#;
        assert_eq!(
            story(&Decision::parse(line).unwrap()).unwrap(),
            "request \"a\", accepted 2022-02-09T01:39:47.500000Z, policy \"00ff\"\n\
             \x20      3.000 ms  lr@0 fails: \"busy\" (failed)\n\
             \x20      9.000 ms  dt@1 refuses: \"no\" (used)\n\
             \x20      9.000 ms  => dt@1 refuses, refused: the model whose answer comes first refused the request; {\"modelName\":\"dt\",\"message\":\"no\",\"status\":422}\n"
        );
    }

    #[test]
    fn what_is_told_of_a_request_cannot_move_the_cursor() {
        let line = "{\"messageId\":\"a\\u001b\",\"timestamp\":1,\"modelInput\":{},\"modelResult\":{\"modelName\":\"d\u{202e}t\",\"result\":\"\u{9b}2J\"},\"provenance\":{\"rendezvous\":{\"modelVersion\":0,\"reason\":\"pre\\nferred\",\"answeredAfter\":9.000,\"policyHash\":\"00\\u001bff\"}},\"candidates\":[{\"modelName\":\"l\\nr\u{2066}\",\"modelVersion\":0,\"arrivedAfter\":3.000,\"result\":{\"result\":\"\u{200b}\"},\"fate\":\"us\\ned\"}]}";
        let told = story(&Decision::parse(line.as_bytes()).unwrap()).unwrap();
        let is_odd =
            |it: char| it != '\n' && (it.is_control() || ('\u{200b}'..='\u{2069}').contains(&it));
        assert!(!told.contains(is_odd), "{told:?}");
        assert_eq!(told.lines().count(), 3, "{told}");
    }
}
