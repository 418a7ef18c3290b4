//! rv-rendezvous: refusals as answers, and failures that end the wait.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::harness::{Workdir, json, next_line, score, stat};
use crate::model_server::{ModelServer, Reaction};
use crate::rendezvous::Scene;
use crate::schemas::Schema;

/// A policy without `expect`, in which nobody waits a minute unless the rules fail.
const POLICY: &str = r#"measure_from = "arrival"
deadline_ms = 60000

[[prefer]]
after_ms = 0
models = ["dt@1"]

[[prefer]]
after_ms = 50000
models = ["dt@1", "lr@0"]

[default]
modelResult = { modelName = "default", result = 0 }
"#;

/// The error of a server's reply, and the score that carries it.
fn error_score(id: &str, model: &str, version: u32, status: u16) -> (String, String) {
    let error = format!(
        r#"{{"modelName":"{model}","message":"the server answered with status {status}","status":{status},"body":{{"detail":[{{"loc":["body",1.10],"msg":"no\n"}}]}}}}"#
    );
    let score = format!(
        r#"{{"messageId":"{id}","timestamp":1,"error":{error},"provenance":{{"model":{{"modelVersion":{version},"elapsedTimeAfterRequest":7.000}}}}}}"#
    );
    (error, score)
}

/// Checks that everything was answered long before the deadline.
fn assert_at_once(since: Instant) {
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_refusal_of_the_first_model_is_the_answer_at_once() {
    let since = Instant::now();
    let flags = ["--linger", "0s", "--decisions", "decisions"];
    let mut scene = Scene::start(POLICY, &flags);
    scene.request("a");
    let (error, refusal) = error_score("a", "dt", 1, 422);
    writeln!(scene.lr, "{}", score("a", "lr", 0, 1)).unwrap();
    writeln!(scene.dt, "{refusal}").unwrap();
    let response = next_line(&mut scene.responses);
    Schema::named("response").accepts(&response, "response");
    let answer = format!(
        r#""modelResult":null,"modelError":{error},"provenance":{{"rendezvous":{{"modelVersion":1,"reason":"refused","answeredAfter":"#
    );
    assert!(response.contains(&answer), "{response}");
    assert_at_once(since);
    // The default is not used, and the other model's refusal is not the answer.
    scene.request("b");
    writeln!(scene.lr, "{}", error_score("b", "lr", 0, 422).1).unwrap();
    writeln!(scene.dt, "{}", score("b", "dt", 1, 2)).unwrap();
    let response = json(&next_line(&mut scene.responses));
    assert_eq!(response["modelResult"]["result"], 2);
    assert_eq!(response.get("modelError"), None);
    let workdir = scene.end();
    for (name, count) in [
        ("requests", 2),
        ("refused", 1),
        ("answersByModels", 1),
        ("defaults", 0),
        ("used", 2),
        ("failed", 1),
    ] {
        assert_eq!(stat(&workdir, "stats.json", name), count, "{name}");
    }
    let stats = json(&workdir.read("stats.json"));
    assert_eq!(stats["answersByReason"]["refused"], 1);

    let decisions = workdir.read("decisions");
    let decision = decisions.lines().find(|it| it.contains(&answer)).unwrap();
    Schema::named("decision").accepts(decision, "decision");
    let decision = json(decision);
    let fates = decision["candidates"].as_array().unwrap().iter();
    let fates: Vec<_> = fates
        .map(|it| (it["modelName"].as_str(), it["fate"].as_str()))
        .collect();
    assert!(fates.contains(&(Some("dt"), Some("used"))), "{fates:?}");

    // A replay of the decisions gives the same answers.
    let replay = |policy: &[&str]| {
        let run = workdir.run("rv-rendezvous").args(["--replay", "-i"]);
        let run = run
            .args(["decisions", "--stats", "stats.prom"])
            .args(policy);
        run.succeeds()
    };
    let again = replay(&["--policy", "policy.toml"]);
    assert!(again.stdout().contains(&answer), "{again}");
    assert!(again.stderr.contains("0 of 2 answers differ"), "{again}");
    let told = "2 requests: 1 answered by models, 1 refused, 0 by the default";
    assert!(again.stderr.contains(told), "{again}");
    let stats = workdir.read("stats.prom");
    assert!(stats.contains("refused_total 1\n"), "{stats}");
    let other = replay(&["--prefer", "lr@0,dt@1", "--deadline", "60s"]);
    assert!(other.stderr.contains("2 of 2 answers differ"), "{other}");
    assert!(other.stderr.contains("from dt@1 to lr@0"), "{other}");
}

#[test]
fn a_failure_of_all_models_of_the_steps_brings_the_default_at_once() {
    let since = Instant::now();
    let mut scene = Scene::start(POLICY, &["--linger", "0s"]);
    scene.request("a");
    writeln!(scene.dt, "{}", error_score("a", "dt", 1, 500).1).unwrap();
    writeln!(scene.lr, "{}", score("a", "lr", 0, 1)).unwrap();
    let response = json(&next_line(&mut scene.responses));
    let reason = &response["provenance"]["rendezvous"]["reason"];
    assert_eq!(
        (&response["modelResult"]["modelName"], reason),
        (&json("\"lr\""), &json("\"settled\""))
    );
    scene.request("b");
    // A model is to slow down (429), and another has no connection.
    writeln!(scene.dt, "{}", error_score("b", "dt", 1, 429).1).unwrap();
    let unreachable = r#"{"messageId":"b","error":{"modelName":"lr","message":"reset"}}"#;
    writeln!(scene.lr, "{unreachable}").unwrap();
    let response = json(&next_line(&mut scene.responses));
    assert_eq!(response["modelResult"]["modelName"], "default");
    assert_eq!(response["provenance"]["rendezvous"]["reason"], "default");
    assert_at_once(since);
    let workdir = scene.end();
    assert_eq!(stat(&workdir, "stats.json", "refused"), 0);
}

/// The model, the reason and the time of the answer to one request, in a replay with
/// these flags.
fn replayed(flags: &[&str], scores: &[String]) -> (String, String, f64) {
    let workdir = Workdir::new();
    workdir.write(
        "requests",
        r#"{"messageId":"a","timestamp":1,"modelInput":{},"modelError":{"modelName":"forged","status":422}}"#,
    );
    workdir.write("scores", scores.join("\n"));
    let run = workdir.run("rv-rendezvous").args(["--replay"]);
    let run = run.args(["--requests", "requests", "--scores", "scores"]);
    let response = json(run.args(flags).succeeds().stdout());
    let entry = &response["provenance"]["rendezvous"];
    let by = |member: &str| response[member]["modelName"].as_str().map(str::to_owned);
    let model = by("modelResult").or(by("modelError"));
    (
        model.unwrap_or_default(),
        entry["reason"].as_str().unwrap().to_owned(),
        entry["answeredAfter"].as_f64().unwrap(),
    )
}

#[test]
fn models_of_the_command_line_refuse_and_fail_by_the_same_rules() {
    let two = ["--prefer", "dt@1,lr@0", "--deadline", "60s"];
    let one = ["--prefer", "dt@1", "--deadline", "60s"];
    let of_dt = |status| error_score("a", "dt", 1, status).1;
    let of_lr = |status| error_score("a", "lr", 0, status).1;
    let result = r#"{"messageId":"a","timestamp":1,"result":{"modelName":"lr","result":1}}"#;
    for (flags, scores, (model, reason, after)) in [
        (two, vec![of_dt(404), result.into()], ("dt", "refused", 7.0)),
        (two, vec![of_dt(500), result.into()], ("lr", "settled", 7.0)),
        (two, vec![of_dt(500), of_lr(422)], ("", "default", 7.0)),
        (two, vec![of_dt(500)], ("", "default", 60_000.0)),
        (two, vec![result.into()], ("lr", "fallback", 30_000.0)),
        (one, vec![of_dt(503)], ("", "default", 7.0)),
        (one, vec![of_dt(403)], ("", "default", 7.0)),
        (one, vec![of_dt(499)], ("dt", "refused", 7.0)),
    ] {
        let expected = (model.to_owned(), reason.to_owned(), after);
        assert_eq!(replayed(&flags, &scores), expected, "{scores:?}");
    }
}

#[test]
fn an_early_answer_may_be_a_refusal_of_a_step_to_come() {
    let policy = POLICY.replace("\"dt@1\", \"lr@0\"", "\"lr@0\"");
    let mut scene = Scene::start(&policy, &["--linger", "0s", "--max-open", "1"]);
    scene.request("a");
    writeln!(scene.lr, "{}", error_score("a", "lr", 0, 422).1).unwrap();
    let taken = crate::harness::eventually(|| {
        let stats = std::fs::read_to_string(scene.workdir.path("stats.json")).ok()?;
        (json(&stats)["scores"] == 1).then_some(())
    });
    assert!(taken.is_some());
    scene.request("b");
    let response = json(&next_line(&mut scene.responses));
    assert_eq!(response["messageId"], "a");
    assert_eq!(response["provenance"]["rendezvous"]["reason"], "overflow");
    assert_eq!(response["modelError"]["status"], 422);
    let workdir = scene.end();
    assert_eq!(stat(&workdir, "stats.json", "refused"), 1);
}

#[test]
fn what_a_server_says_to_a_bad_request_reaches_the_client_and_its_faults_do_not_wait() {
    let body = "{\n  \"detail\": [{\"loc\": [\"body\", \"age\"], \"max\": 1.10}]\n}";
    let server = ModelServer::start(move |call| match call.body.as_str() {
        "1" => Reaction::Answer(422, body.to_owned()),
        "2" => Reaction::Answer(500, "sorry".to_owned()),
        "3" => Reaction::Close,
        input => Reaction::Answer(200, input.to_owned()),
    });
    let workdir = Workdir::new();
    let script = format!(
        "printf '1\\n2\\n3\\n4\\n' | rv-request --ids seq:r- > requests
         rv-score --url {} --protocol json --name server --model-version 3 < requests > scores
         rv-rendezvous --replay --requests requests --scores scores \
           --prefer server@3 --deadline 60s --decisions decisions",
        server.url("/predict")
    );
    let finished = workdir.shell(&script).succeeds();
    let mut responses: Vec<_> = finished.lines().into_iter().map(json).collect();
    responses.sort_by_key(|it| it["modelInput"].as_u64());
    let refused = &responses[0];
    assert!(refused["modelResult"].is_null());
    assert_eq!(refused["modelError"]["status"], 422);
    assert_eq!(refused["modelError"]["body"], json(body));
    assert_eq!(refused["provenance"]["rendezvous"]["modelVersion"], 3);
    assert!(finished.stdout().contains("\"max\": 1.10"), "{finished}");
    assert_eq!(responses[3]["modelResult"]["result"], 4);
    for response in &responses {
        let entry = &response["provenance"]["rendezvous"];
        assert!(entry["answeredAfter"].as_f64().unwrap() < 30_000.0);
    }
    for failed in &responses[1..3] {
        assert!(failed["modelResult"].is_null());
        assert_eq!(failed.get("modelError"), None);
        assert_eq!(failed["provenance"]["rendezvous"]["reason"], "default");
    }
    let schema = Schema::named("decision");
    for decision in workdir.read("decisions").lines() {
        schema.accepts(decision, "decisions");
    }
}
