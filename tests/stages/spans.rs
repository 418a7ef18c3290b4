//! The example that turns decisions into spans.

use crate::harness::{Workdir, checkout, json};

#[test]
fn the_example_turns_decisions_into_spans() {
    let workdir = Workdir::new();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let decision = |trace: &str| {
        format!(
            r#"{{"messageId":"a","timestamp":1700000000.5,"modelInput":1{trace},"modelResult":{{"modelName":"dt","result":1}},"provenance":{{"rendezvous":{{"modelVersion":1,"reason":"preferred","answeredAfter":2.500,"policyHash":"00"}}}},"candidates":[{{"modelName":"dt","modelVersion":1,"arrivedAfter":2.500,"result":{{"modelName":"dt","result":1}},"fate":"used"}},{{"modelName":"lr","modelVersion":0,"arrivedAfter":4.000,"error":{{"modelName":"lr","message":"no"}},"fate":"failed"}}]}}"#
        )
    };
    let traced = format!(r#","traceparent":"00-{trace}-00f067aa0bb90217-01""#);
    let text = format!("{}\n{}\n", decision(""), decision(&traced));
    workdir.write("decisions", text);
    let example = checkout().join("examples/spans.py");
    let script = format!("python3 '{}' mine < decisions", example.display());
    let finished = workdir.shell(&script).succeeds();
    // The request without a trace has no span.
    assert_eq!(finished.lines().len(), 1);
    let resource = &json(finished.lines()[0])["resourceSpans"][0];
    let service = &resource["resource"]["attributes"][0]["value"]["stringValue"];
    assert_eq!(service, "mine");
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 3);
    for span in spans {
        assert_eq!(span["traceId"], trace);
        assert_eq!(span["spanId"].as_str().unwrap().len(), 16);
        assert_eq!(span["startTimeUnixNano"], "1700000000500000000");
    }
    assert_eq!(spans[0]["parentSpanId"], "00f067aa0bb90217");
    assert_eq!(spans[1]["parentSpanId"], spans[0]["spanId"]);
    assert_eq!(spans[1]["endTimeUnixNano"], "1700000000502500000");
    assert!(spans[1].get("status").is_none());
    assert_eq!(spans[2]["name"], "lr@0");
    assert_eq!(spans[2]["status"]["code"], 2);
}
