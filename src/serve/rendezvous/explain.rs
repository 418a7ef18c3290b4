//! Decisions -> the story of one request, for people.

use std::fmt::Write;

use anyhow::{Result, bail};
use chrono::DateTime;
use clap::Args;

use crate::serve::rendezvous::decision::Arrival;
use crate::serve::rendezvous::mailbox::Candidate;
use crate::serve::rendezvous::record::Decided;
use crate::stage::Stage;
use crate::stage::recording::Recording;
use crate::stage::report::{escaped, shown};
use crate::stream::address::Address;
use crate::stream::output::Output;
use crate::wire::message::Record;
use crate::wire::micros::Micros;
use crate::wire::object::{Object, decode_string};

/// Tell the story of one request: who reported when, who answered, and why
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// The messageId of the request
    #[arg(value_name = "ID")]
    id: String,

    /// Recorded decisions: files, compressed ones too, or folders of rv-archive
    #[arg(value_name = "DECISIONS", required = true)]
    decisions: Vec<Address>,
}

/// Runs `rv-rendezvous explain`.
pub fn run(args: &ExplainArgs, stage: &mut Stage) -> Result<()> {
    for path in &args.decisions {
        let mut recording = Recording::open(path, stage)?;
        // Most lines are those of others: they are not taken apart.
        let wanted = memchr::memmem::Finder::new(args.id.as_bytes());
        let has_escapes = |bytes: &[u8]| memchr::memchr(b'\\', bytes).is_some();
        while let Some((line, _)) = recording.next_line(stage)? {
            // Lines that are no records are of no interest here.
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
            let Ok(decided) = Decided::parse(bytes) else {
                bail!("{place}: this record has the id, and is no decision");
            };
            let mut text = story(&decided).into_bytes();
            let mut output = Output::open(&Address::Standard)?;
            stage.write_all(&mut output, &mut text)?;
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

/// The events of one request as a timeline.
fn story(decided: &Decided) -> String {
    let accepted = DateTime::from_timestamp_micros(decided.timestamp.0)
        .map_or_else(String::new, |time| {
            time.format(", accepted %FT%T%.6fZ").to_string()
        });
    let mut text = format!(
        "request {}{accepted}, policy {}\n",
        shown(&decided.message_id),
        shown(&decided.policy_hash)
    );
    let answered_after = decided.answered_after.unwrap_or_default();
    let mut answered = false;
    let mut candidates: Vec<_> = decided.candidates.iter().collect();
    candidates.sort_by_key(|(candidate, _)| candidate.arrival.at);
    for (candidate, fate) in candidates {
        if !answered && candidate.arrival.at > answered_after {
            answered = true;
            tell_answer(&mut text, decided, answered_after);
        }
        tell_score(&mut text, candidate, fate);
    }
    if !answered {
        tell_answer(&mut text, decided, answered_after);
    }
    text
}

fn tell_score(text: &mut String, candidate: &Candidate, fate: &str) {
    let Arrival {
        model_name,
        model_version,
        at,
        failed,
    } = &candidate.arrival;
    let entry = Object::parse(&candidate.outcome).ok();
    let said = match (failed, &entry) {
        (true, Some(error)) => {
            let message = error.get("message").and_then(decode_string);
            format!("fails: {}", shown(&message.unwrap_or_default()))
        }
        (false, Some(result)) => format!(
            "says {}",
            shorten(result.get("result").unwrap_or(&candidate.outcome))
        ),
        (_, None) => format!("says {}", shorten(&candidate.outcome)),
    };
    let name = escaped(model_name);
    tell(
        text,
        *at,
        &format!("{name}@{model_version} {said} ({})", escaped(fate)),
    );
}

fn tell_answer(text: &mut String, decided: &Decided, at: Micros) {
    let who = match &decided.model {
        Some(model) => escaped(model),
        None => "the default".to_owned(),
    };
    let why = match decided.reason.as_str() {
        "share" => "the request is in its share",
        "preferred" => "it is accepted by the first step",
        "fallback" => "it is accepted by the step in force",
        "settled" => "all expected models have reported, so the later steps count at once",
        "default" => "no acceptable score came",
        "overflow" => "too many requests were open",
        "shutdown" => "the rendezvous was ending, or all models had",
        _ => "of a reason unknown here",
    };
    let reason = escaped(&decided.reason);
    let result = shorten(&decided.model_result);
    tell(
        text,
        at,
        &format!("=> {who} answers, {reason}: {why}; {result}"),
    );
}

fn tell(text: &mut String, at: Micros, event: &str) {
    let at = at.as_millis().to_string();
    let _ = writeln!(text, "{at:>12} ms  {event}");
}

/// JSON text short enough for a line.
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
            story(&Decided::parse(line).unwrap()),
            "request \"a\", accepted 2022-02-09T01:39:47.500000Z, policy \"00ff\"\n\
             \x20      3.000 ms  lr@0 says 1 (used)\n\
             \x20      9.000 ms  dt@1 fails: \"no \\u{1b}[2J\" (failed)\n\
             \x20      9.000 ms  => lr@0 answers, settled: all expected models have reported, so the later steps count at once; {\"modelName\":\"lr\",\"result\":1}\n\
             \x20    120.500 ms  x@0 says 2 (late)\n"
        );
    }

    #[test]
    fn what_is_told_of_a_request_cannot_move_the_cursor() {
        let line = "{\"messageId\":\"a\\u001b\",\"timestamp\":1,\"modelInput\":{},\"modelResult\":{\"modelName\":\"d\u{202e}t\",\"result\":\"\u{9b}2J\"},\"provenance\":{\"rendezvous\":{\"modelVersion\":0,\"reason\":\"pre\\nferred\",\"answeredAfter\":9.000,\"policyHash\":\"00\\u001bff\"}},\"candidates\":[{\"modelName\":\"l\\nr\u{2066}\",\"modelVersion\":0,\"arrivedAfter\":3.000,\"result\":{\"result\":\"\u{200b}\"},\"fate\":\"us\\ned\"}]}";
        let told = story(&Decided::parse(line.as_bytes()).unwrap());
        let is_odd =
            |it: char| it != '\n' && (it.is_control() || ('\u{200b}'..='\u{2069}').contains(&it));
        assert!(!told.contains(is_odd), "{told:?}");
        assert_eq!(told.lines().count(), 3, "{told}");
    }
}
