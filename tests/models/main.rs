//! rv-score with models of scikit-learn: as a program, behind MLServer, and behind a
//! scoring server of MLflow. `scripts/check_models.sh` installs these and runs the tests;
//! without them there is nothing to run, so each test is ignored.
// A test that fails has to panic, it waits for programs, and it may print.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used
)]

#[allow(dead_code)]
#[path = "../stages/harness.rs"]
mod harness;
#[path = "../stages/limit.rs"]
mod limit;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Run, Workdir, checkout, json};

/// The folder of the programs of the environment that the script has made.
fn environment() -> PathBuf {
    let folder = std::env::var_os("RV_MODELS_BIN");
    PathBuf::from(folder.expect("run scripts/check_models.sh"))
}

fn python() -> String {
    environment().join("python").to_str().unwrap().to_owned()
}

/// A folder with the models, and a port for MLServer.
fn prepared() -> (Workdir, u16) {
    let workdir = Workdir::new();
    // MLServer wants three ports in a row.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let status = Command::new(python())
        .arg(checkout().join("tests/models/prepare.py"))
        .arg(checkout().join("fixtures/iris.csv"))
        .arg(workdir.path(""))
        .arg(port.to_string())
        .env("TMPDIR", workdir.path(""))
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    (workdir, port)
}

/// The measurements of the flowers, as JSON.
fn flowers() -> Vec<String> {
    let text = std::fs::read_to_string(checkout().join("fixtures/iris.csv")).unwrap();
    let mut rows = text.lines();
    let names: Vec<&str> = rows.next().unwrap().split(',').take(4).collect();
    let flower = |row: &str| {
        let members = names.iter().zip(row.split(','));
        let members: Vec<_> = members
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", members.join(","))
    };
    rows.map(flower).collect()
}

fn requests(count: usize) -> String {
    let flowers = flowers();
    let line = |number: usize| {
        let flower = &flowers[number % flowers.len()];
        format!("{{\"messageId\":\"{number}\",\"timestamp\":1,\"modelInput\":{flower}}}\n")
    };
    (0..count).map(line).collect()
}

fn score(workdir: &Workdir) -> Run {
    let run = workdir.run("rv-score");
    run.args([
        "--name",
        "m",
        "--model-version",
        "1",
        "--rescore",
        "--timeout",
        "30s",
    ])
}

/// Fails unless each flower gets the label that the library gives it.
fn assert_equal_to_the_library(workdir: &Workdir, run: Run) {
    let finished = run.input(requests(150)).succeeds();
    let expected = workdir.read("predictions");
    let expected: Vec<&str> = expected.lines().collect();
    assert_eq!((finished.lines().len(), expected.len()), (150, 150));
    for (line, expected) in finished.lines().iter().zip(expected) {
        assert_eq!(
            json(line)["result"]["result"].to_string(),
            expected,
            "{line}"
        );
    }
}

/// A server of the environment, which ends with its test.
struct Server(Child);

impl Server {
    /// Starts a program of the environment and waits until it listens.
    fn start(workdir: &Workdir, program: &str, args: &[&str], port: u16) -> Server {
        let path = std::env::var("PATH").unwrap();
        let log = std::fs::File::create(workdir.path("server.log")).unwrap();
        let child = Command::new(environment().join(program))
            .args(args)
            .current_dir(workdir.path(""))
            .env("PATH", format!("{}:{path}", environment().display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        let mut server = Server(child.unwrap());
        let end = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let has_ended = server.0.try_wait().unwrap().is_some();
            assert!(
                !has_ended && Instant::now() < end,
                "{}",
                workdir.read("server.log")
            );
            thread::sleep(Duration::from_millis(50));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.0);
        // Both servers end their own processes on SIGTERM.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let end = Instant::now() + Duration::from_secs(10);
        while self.0.try_wait().unwrap().is_none() && Instant::now() < end {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "scripts/check_models.sh runs it with scikit-learn"]
fn the_example_of_scikit_learn_equals_the_library_and_batches_make_it_fast() {
    let (workdir, _) = prepared();
    let model = checkout().join("examples/sklearn_model.py");
    assert!(std::fs::read_to_string(&model).unwrap().lines().count() < 25);
    let command = |file: &str| format!("exec {} {} {file}", python(), model.display());
    for batch in [&[][..], &["--batch", "64"]] {
        let run = score(&workdir)
            .args(["--exec", &command("regression.joblib")])
            .args(batch);
        assert_equal_to_the_library(&workdir, run);
    }
    let bad = r#"{"messageId":"x","timestamp":1,"modelInput":{"sepalLength":1}}"#;
    let run = score(&workdir).args(["--exec", &command("regression.joblib"), "--batch", "64"]);
    let finished = run.input(requests(3) + bad + "\n" + &requests(3)).exits(1);
    let lines = finished.lines();
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.contains("\"error\""))
            .count(),
        1,
        "{finished}"
    );
    assert!(lines[3].contains("KeyError: 'sepalWidth'"), "{finished}");

    // The first record is not measured: the program imports its libraries.
    workdir.write("warm-up", requests(1));
    let rate = |count: usize, batch: &str| {
        let run = score(&workdir).args(["--exec", &command("forest.joblib"), "--batch", batch]);
        let mut running = run.args(["--warm-up", "warm-up"]).start();
        running.write(requests(1));
        running.line();
        let input = requests(count);
        let mut stdin = running.stdin.take().unwrap();
        let begun = Instant::now();
        let feeding = thread::spawn(move || stdin.write_all(input.as_bytes()));
        let scores = BufReader::new(running.stdout.take().unwrap());
        let results = scores
            .lines()
            .filter(|line| line.as_ref().unwrap().contains("\"result\":{"));
        assert_eq!(results.count(), count);
        let seconds = begun.elapsed().as_secs_f64();
        feeding.join().unwrap().unwrap();
        running.wait().assert_status(0);
        count as f64 / seconds
    };
    let (single, batched) = (rate(300, "1"), rate(20_000, "64"));
    println!("forest of 100 trees: {single:.0} records/s singly, {batched:.0} in batches of 64");
    assert!(batched > 20.0 * single);
}

#[test]
#[ignore = "scripts/check_models.sh runs it with MLServer"]
fn a_model_behind_mlserver_equals_the_library() {
    let (workdir, port) = prepared();
    let _server = Server::start(&workdir, "mlserver", &["start", "mlserver"], port);
    let url = |model: &str| format!("http://127.0.0.1:{port}/v2/models/{model}");
    let run = |model: &str| score(&workdir).args(["--url", &url(model), "--protocol", "v2"]);
    // It listens before it has loaded the model.
    let ready = harness::eventually(|| {
        let finished = run("iris").input(requests(1)).finish();
        (finished.status == 0).then_some(())
    });
    assert!(ready.is_some(), "{}", workdir.read("server.log"));
    assert_equal_to_the_library(&workdir, run("iris"));
    assert_equal_to_the_library(&workdir, run("iris").args(["--in-flight", "1"]));
    let probabilities = r#"{"messageId":"x","timestamp":1,"modelInput":[5.1,3.5,1.4,0.2]}"#;
    run("iris").input(probabilities).succeeds();
    let finished = run("iris")
        .args(["--output-name", "none"])
        .input(requests(1))
        .exits(1);
    assert!(finished.stdout().contains("has no output"), "{finished}");
    let finished = run("other").input(requests(1)).exits(1);
    let error = json(finished.lines()[0])["error"].clone();
    assert_eq!(error["status"], 404, "{finished}");
    assert!(error["body"]["error"].as_str().unwrap().contains("other"));
    let bad = r#"{"messageId":"x","timestamp":1,"modelInput":{"a":1}}"#;
    let finished = run("iris").input(bad).exits(1);
    assert!(
        json(finished.lines()[0])["error"]["status"]
            .as_u64()
            .unwrap()
            >= 400
    );
}

#[test]
#[ignore = "scripts/check_models.sh runs it with MLflow"]
fn a_model_behind_mlflow_equals_the_library() {
    let (workdir, port) = prepared();
    let port_text = port.to_string();
    let serve = [
        "models",
        "serve",
        "--model-uri",
        "mlflow",
        "--env-manager",
        "local",
        "--port",
    ];
    let args: Vec<&str> = serve.iter().copied().chain([port_text.as_str()]).collect();
    let _server = Server::start(&workdir, "mlflow", &args, port);
    let run = |url: &str, protocol: &str| {
        let url = format!("http://127.0.0.1:{port}{url}");
        score(&workdir).args(["--url", &url, "--protocol", protocol])
    };
    let features = "sepalLength,sepalWidth,petalLength,petalWidth";
    assert_equal_to_the_library(&workdir, run("", "mlflow"));
    assert_equal_to_the_library(&workdir, run("", "mlflow").args(["--features", features]));
    let pointers = [
        "--input-pointer",
        "/dataframe_records/0",
        "--result-pointer",
        "/predictions/0",
    ];
    assert_equal_to_the_library(&workdir, run("/invocations", "json").args(pointers));
    let bad = r#"{"messageId":"x","timestamp":1,"modelInput":{"a":1}}"#;
    let finished = run("", "mlflow").input(bad).exits(1);
    let error = json(finished.lines()[0])["error"].clone();
    assert_eq!(error["status"], 400, "{finished}");
    assert!(error.get("body").is_some());
}
