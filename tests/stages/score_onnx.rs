//! Tests of rv-score with ONNX models. Tests that need the library of onnxruntime are
//! ignored by `cargo test`. `scripts/check_onnx.sh` installs the library and runs these
//! tests.

use rustix::process::Signal;

use crate::harness::{Finished, Run, Workdir, checkout, json, now, request_at, stat};

/// A folder with a copy of a model of `fixtures/onnx`, as `m.onnx`.
fn workdir_with(model: &str) -> Workdir {
    let workdir = Workdir::new();
    copy(&workdir, model);
    workdir
}

fn copy(workdir: &Workdir, model: &str) {
    let bytes = std::fs::read(checkout().join(format!("fixtures/onnx/{model}.onnx"))).unwrap();
    workdir.write("m.onnx", bytes);
}

/// A run of `rv-score` with `m.onnx` and these further arguments, which are separated
/// by spaces.
fn score(workdir: &Workdir, args: &str) -> Run {
    let args = args.split_whitespace();
    workdir
        .run("rv-score")
        .args(["--model", "m.onnx"])
        .args(args)
}

/// One request for each `modelInput`.
fn requests(inputs: &[&str]) -> String {
    let line = |(number, input): (usize, &&str)| {
        format!("{{\"messageId\":\"{number}\",\"timestamp\":1,\"modelInput\":{input}}}\n")
    };
    inputs.iter().enumerate().map(line).collect()
}

/// The result or the message of the error of each score, in order.
fn answers(finished: &Finished) -> Vec<String> {
    let mut answers = Vec::new();
    for (number, line) in finished.lines().iter().enumerate() {
        let score = json(line);
        assert_eq!(score["messageId"], number.to_string());
        answers.push(match score["error"]["message"].as_str() {
            Some(message) => message.to_owned(),
            None => score["result"]["result"].to_string(),
        });
    }
    answers
}

/// Builds a shared library with the C compiler. The build of rv needs this compiler,
/// too.
fn library(workdir: &Workdir, source: &str) -> String {
    workdir.write("library.c", source);
    let build = "cc -shared -fPIC -o library.so library.c";
    workdir.shell(build).succeeds();
    workdir.path("library.so")
}

#[test]
fn a_library_that_cannot_be_used_is_an_error_with_the_remedy() {
    let workdir = workdir_with("classifier");
    let empty = library(&workdir, "int nothing;");
    let fails = |path: &str, reasons: [&str; 2]| {
        let by_flag = score(&workdir, &format!("--onnxruntime {path}")).exits(3);
        let mut run = score(&workdir, "");
        run.command.env("ORT_DYLIB_PATH", path);
        for finished in [by_flag, run.exits(3)] {
            for reason in reasons {
                assert!(finished.stderr.contains(reason), "{finished:?}");
            }
            assert_eq!(finished.stdout(), "");
        }
    };
    let remedies = ["pip install onnxruntime", "ORT_DYLIB_PATH"];
    fails("/missing/libonnxruntime.so", remedies);
    fails(&workdir.write("text.so", "not a library"), remedies);
    fails(
        &workdir.path(""),
        ["holds no libonnxruntime.so", remedies[0]],
    );
    fails(&empty, ["is not the library of onnxruntime", remedies[0]]);
    let old = library(
        &workdir,
        r#"
        static const char *version(void) { return "1.16.3"; }
        static const void *api(unsigned number) { return 0; }
        static const struct { const void *(*api)(unsigned); const char *(*version)(void); }
            base = { api, version };
        const void *OrtGetApiBase(void) { return &base; }
        "#,
    );
    fails(
        &old,
        [
            "is onnxruntime 1.16.3, and ONNX models need 1.17",
            "--upgrade",
        ],
    );
}

#[test]
fn a_bad_file_is_refused_before_the_library_is_loaded() {
    let workdir = workdir_with("classifier");
    let whole = std::fs::read(workdir.path("m.onnx")).unwrap();
    let external = std::fs::read(checkout().join("fixtures/onnx/external.onnx")).unwrap();
    for (content, reason) in [
        (&whole[..whole.len() / 2], "m.onnx: is not an ONNX file"),
        (b"", "m.onnx: is empty"),
        (b"{\"format\":\"rv-model\"}", "m.onnx: is not an ONNX file"),
        (&external, "in another file (\"../../etc/passwd\")"),
    ] {
        workdir.write("m.onnx", content);
        let finished = score(&workdir, "--onnxruntime /missing.so").exits(3);
        assert!(finished.stderr.contains(reason), "{finished:?}");
    }
    std::fs::remove_file(workdir.path("m.onnx")).unwrap();
    let finished = score(&workdir, "").exits(3);
    assert!(
        finished.stderr.contains("m.onnx: cannot open"),
        "{finished:?}"
    );
}

#[test]
fn flags_that_the_model_cannot_obey_are_refused() {
    let workdir = workdir_with("gather");
    workdir.train("decision-tree", "dt", 1);
    for (flags, reason) in [
        (
            "--model dt.json --features a",
            "--features does not apply to a model file of rv's own",
        ),
        (
            "--model dt.json --missing nan",
            "--missing is for ONNX models",
        ),
        (
            "--model dt.json --name x",
            "--name does not apply to a model file of rv's own",
        ),
        ("--model m.onnx --model-version 1", "give it with --name"),
        ("--model m.onnx --name x", "give it with --model-version"),
        (
            "--model m.onnx --name x --model-version 1 --features a,a",
            "\"a\" occurs twice",
        ),
    ] {
        let run = workdir.run("rv-score").args(flags.split_whitespace());
        let finished = run.exits(2);
        assert!(finished.stderr.contains(reason), "{finished:?}");
    }
    let named = "--model m.onnx --model-version 1 --name";
    let run = workdir.run("rv-score").args(named.split_whitespace());
    run.arg("a b").exits(2);
}

/// The tests that need the library of onnxruntime. `ORT_DYLIB_PATH` names the library.
mod with_library {
    use super::*;

    #[test]
    #[ignore = "needs onnxruntime: scripts/check_onnx.sh runs it"]
    fn a_label_has_its_probability_and_a_missing_feature_its_name() {
        let workdir = workdir_with("classifier");
        let finished = score(&workdir, "--probabilities")
            .input(requests(&[
                r#"{"a":9,"in":{"b":0}}"#,
                r#"{"in":{"b":9.5},"a":true,"c":"unused"}"#,
                r#"{"a":0,"in":{"b":0}}"#,
                r#"{"a":1,"in":{}}"#,
                r#"{"a":"1","in":{"b":0}}"#,
                r#"{"a":null,"in":{"b":0}}"#,
            ]))
            .succeeds();
        let expected = [
            r#""low""#,
            r#""mid""#,
            r#""high \"3\"""#,
            r#"feature "/in/b" is missing"#,
            r#"feature "a" is not a number"#,
            r#"feature "a" is missing"#,
        ];
        assert_eq!(answers(&finished), expected);
        let score = json(finished.lines()[2]);
        assert_eq!(score["result"]["modelName"], "toy");
        let shares = &score["result"]["probabilities"];
        assert_eq!(shares["high \"3\""], score["result"]["confidence"]);
        assert_eq!(score["result"]["confidence"].to_string(), "0.451863");
        let model = &score["provenance"]["model"];
        assert_eq!(model["modelVersion"], 1);
        let sum = workdir.shell("sha256sum < m.onnx").succeeds();
        let hash = model["modelHash"].as_str().unwrap();
        assert_eq!(Some(hash), sum.stdout().get(..16));
    }

    #[test]
    #[ignore = "needs onnxruntime: scripts/check_onnx.sh runs it"]
    fn one_bad_row_costs_only_itself() {
        let workdir = workdir_with("gather");
        let inputs: Vec<String> = (0..3000)
            .map(|number| {
                let index = if number % 500 == 499 { 99 } else { number % 3 };
                format!("{{\"index\":{index}}}")
            })
            .collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let run = score(
            &workdir,
            "--name g --model-version 3 --stats stats.json --rescore",
        );
        let finished = run.input(requests(&inputs)).exits(1);
        let answers = answers(&finished);
        assert_eq!(answers.len(), 3000);
        for (number, answer) in answers.iter().enumerate() {
            if number % 500 == 499 {
                assert!(answer.contains("onnxruntime: "), "{answer}");
                assert!(answer.contains("out of data bounds"), "{answer}");
            } else {
                assert_eq!(answer, ["0.1", "20", "3e+30"][number % 3]);
            }
        }
        let count = |name| stat(&workdir, "stats.json", name);
        assert_eq!(
            (count("in"), count("out"), count("errors")),
            (3000, 3000, 6)
        );
    }

    #[test]
    #[ignore = "needs onnxruntime: scripts/check_onnx.sh runs it"]
    fn every_type_of_input_and_output_is_carried() {
        let workdir = workdir_with("types");
        let good = r#"{"float":0.1,"double":0.1,"int64":9007199254740993,"int32":-2.0,"bool":true,"text":"\u00e9\""}"#;
        let flags = "--name t --model-version 1 --missing nan";
        let finished = score(&workdir, flags)
            .input(requests(&[
                good,
                &good.replace("0.1", "true").replace("-2.0", "false"),
                &good.replace("-2.0", "2.5"),
                &good.replace("true", "null"),
                &good.replacen("0.1", "null", 1),
            ]))
            .succeeds();
        let lines = finished.lines();
        let first = r#""result":{"float_out":[0.1],"double_out":[0.1],"int64_out":[9007199254740993],"int32_out":[-2],"bool_out":[true],"text_out":["é\""]}"#;
        assert!(lines[0].contains(first), "{finished:?}");
        let second = r#""result":{"float_out":[1],"double_out":[1],"int64_out":[9007199254740993],"int32_out":[0],"#;
        assert!(lines[1].contains(second), "{finished:?}");
        let answers = answers(&finished);
        assert_eq!(answers[2], r#"feature "int32" is not an integer"#);
        assert_eq!(answers[3], r#"feature "bool" is missing"#);
        assert!(answers[4].starts_with(r#"the output "float_out" holds NaN"#));
    }

    #[test]
    #[ignore = "needs onnxruntime: scripts/check_onnx.sh runs it"]
    fn a_model_of_one_row_is_run_row_by_row() {
        let workdir = workdir_with("one-row");
        let flags = "--name one --model-version 1";
        let finished = score(&workdir, flags)
            .input(requests(&[
                r#"{"x":1}"#,
                r#"{"x":-1}"#,
                r#"{"x":0}"#,
                r#"{"x":2}"#,
            ]))
            .succeeds();
        let answers = answers(&finished);
        assert_eq!((&*answers[0], &*answers[3]), ("0", "0.6931472"));
        assert!(answers[1].starts_with("the output \"y\" holds NaN"));
        assert!(answers[2].starts_with("the output \"y\" holds -inf"));
    }

    #[test]
    #[ignore = "needs onnxruntime: scripts/check_onnx.sh runs it"]
    fn named_classes_make_a_classifier_of_a_network() {
        let workdir = workdir_with("softmax");
        let flags = "--name net --model-version 1 --features a,b";
        let run = |more: &str| {
            let run = score(&workdir, &format!("{flags} {more}"));
            run.input(requests(&[r#"{"a":1,"b":2}"#]))
        };
        assert_eq!(answers(&run("--classes no,yes").succeeds()), ["\"yes\""]);
        let object = &answers(&run("").succeeds())[0];
        assert!(object.starts_with(r#"{"y":[0.268"#), "{object}");
        let finished = run("--classes a,b,c").succeeds();
        assert!(answers(&finished)[0].contains("2 columns, and 3 classes are named"));
        for (more, reason) in [
            ("--label-output nothing", "its outputs are \"y\""),
            ("--probability-output nothing", "its outputs are \"y\""),
        ] {
            let finished = run(more).exits(3);
            assert!(finished.stderr.contains(reason), "{finished:?}");
        }
        let finished = score(&workdir, "--name net --model-version 1 --features a").exits(3);
        assert!(finished.stderr.contains("take 2 features, and 1 are named"));
    }

    #[test]
    #[ignore = "needs onnxruntime: scripts/check_onnx.sh runs it"]
    fn a_model_is_reloaded_whole_or_not_at_all() {
        let workdir = workdir_with("classifier");
        let mut running = score(&workdir, "").start();
        let request = requests(&[r#"{"a":9,"in":{"b":0}}"#]);
        let label = |running: &mut crate::harness::Running| {
            running.write(&request);
            json(&running.line())["result"]["result"].to_string()
        };
        assert_eq!(label(&mut running), r#""low""#);

        workdir.write("m.onnx", "damaged");
        running.signal(Signal::HUP);
        running.says("the model in use stays");
        assert_eq!(label(&mut running), r#""low""#);

        copy(&workdir, "classifier-next");
        running.signal(Signal::HUP);
        running.says("now holds toy@2 instead of toy@1");
        assert_eq!(label(&mut running), r#""low""#);

        copy(&workdir, "classifier-changed");
        running.signal(Signal::HUP);
        running.says("loaded toy@1");
        assert_eq!(label(&mut running), r#""high \"3\"""#);
    }

    #[test]
    #[ignore = "needs onnxruntime: scripts/check_onnx.sh runs it"]
    fn old_requests_are_answered_unevaluated_and_bad_lines_are_set_aside() {
        let workdir = workdir_with("classifier");
        let input = r#"{"a":9,"in":{"b":0}}"#;
        let at = |id: &str, time: f64| {
            let request = request_at(id, time);
            let place = request.find("\"modelInput\"").unwrap();
            format!("{}\"modelInput\":{input}}}\n", &request[..place])
        };
        let text = [
            at("old", now() - 60.0),
            "not a request\n".to_owned(),
            at("new", now()),
        ];
        let flags = "--skip-older 30s --stats stats.json";
        let finished = score(&workdir, flags).input(text.concat()).exits(1);
        let lines = finished.lines();
        assert!(lines[0].contains("older than 30s"), "{finished:?}");
        assert!(lines[1].contains(r#""result":"low""#), "{finished:?}");
        let count = |name| stat(&workdir, "stats.json", name);
        assert_eq!((count("in"), count("out"), count("rejected")), (3, 2, 1));
    }

    #[test]
    #[ignore = "needs onnxruntime: scripts/check_onnx.sh runs it"]
    fn threads_and_a_warm_up_change_no_answer() {
        let workdir = workdir_with("classifier");
        let inputs: Vec<String> = (0..5000)
            .map(|number| format!("{{\"a\":{},\"in\":{{\"b\":{}}}}}", number % 7, number % 5))
            .collect();
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        workdir.write("requests", requests(&inputs));
        let flags = "--rescore --probabilities --clock fixed:1";
        let once = score(&workdir, flags).input(requests(&inputs)).succeeds();
        let more = format!("{flags} --threads 2 --warm-up requests");
        let twice = score(&workdir, &more).input(requests(&inputs)).succeeds();
        assert_eq!(answers(&once).len(), 5000);
        assert!(once.stdout() == twice.stdout());
        workdir.write("empty", "");
        score(&workdir, "--warm-up empty").exits(3);
    }

    #[test]
    #[ignore = "needs onnxruntime: scripts/check_onnx.sh runs it"]
    fn a_model_that_the_library_does_not_load_is_an_error() {
        let workdir = workdir_with("gather");
        let bytes = std::fs::read(workdir.path("m.onnx")).unwrap();
        let place = bytes.windows(6).position(|part| part == b"Gather").unwrap();
        let mut unknown = bytes.clone();
        unknown[place..place + 6].copy_from_slice(b"Dreams");
        workdir.write("m.onnx", unknown);
        let finished = score(&workdir, "--name x --model-version 1").exits(3);
        let reason = "m.onnx: onnxruntime does not load this model: ";
        assert!(finished.stderr.contains(reason), "{finished:?}");
        // Only rv-score has printed a line, and the library has printed nothing.
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    }
    #[test]
    #[ignore = "needs onnxruntime: scripts/check_onnx.sh runs it"]
    fn a_network_that_pytorch_has_exported_answers_as_in_pytorch() {
        let workdir = Workdir::new();
        let folder = checkout().join("fixtures/torch");
        let model = std::fs::read(folder.join("network.onnx")).unwrap();
        workdir.write("m.onnx", model);
        let text = std::fs::read_to_string(folder.join("answers.ndjson")).unwrap();
        let rows: Vec<serde_json::Value> = text.lines().map(json).collect();
        let inputs: Vec<String> = { rows.iter() }
            .map(|row| row["modelInput"].to_string())
            .collect();
        let features = "alcohol,malic_acid,ash,alcalinity_of_ash,magnesium,total_phenols,\
             flavanoids,nonflavanoid_phenols,proanthocyanins,color_intensity,hue,\
             od280/od315_of_diluted_wines,proline";
        let flags = format!(
            "--name net --model-version 1 --classes 0,1,2 --probabilities --rescore --features {}",
            features.split_whitespace().collect::<String>()
        );
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let finished = score(&workdir, &flags).input(requests(&inputs)).succeeds();
        assert_eq!(finished.lines().len(), rows.len());
        for (line, row) in finished.lines().iter().zip(&rows) {
            let score = json(line);
            for class in 0..3 {
                let own = &score["result"]["probabilities"][class.to_string()];
                let expected = row["probabilities"][class].as_f64().unwrap();
                assert!((own.as_f64().unwrap() - expected).abs() < 1e-5, "{line}");
            }
        }
    }
}
