//! Tests of rv-score --exec, whose model is another program.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, test_kill_process};

use crate::harness::{
    Finished, Run, Running, Workdir, assert_idle, checkout, eventually, json, now, stat,
};

/// A run of rv-score with a program as its model.
fn exec(workdir: &Workdir, command: &str) -> Run {
    let run = workdir.run("rv-score");
    run.args(["--exec", command, "--name", "m", "--model-version", "7"])
}

/// A request that holds a number.
fn request(number: usize) -> String {
    let time = now();
    format!("{{\"messageId\":\"r-{number}\",\"timestamp\":{time:.6},\"modelInput\":{number}}}\n")
}

fn requests(count: usize) -> String {
    (0..count).map(request).collect()
}

/// The message of an error score; `None` if the score is a result.
fn error(line: &str) -> Option<String> {
    let score = json(line);
    let message = score["error"]["message"].as_str().map(str::to_owned);
    assert_ne!(message.is_some(), score.get("result").is_some(), "{line}");
    message
}

/// Fails unless each of `count` requests has one score, the scores are in the order of
/// the requests, and each result equals the number in its request. Returns the number
/// of results.
fn check_echoes(finished: &Finished, count: usize) -> usize {
    let lines = finished.lines();
    assert_eq!(lines.len(), count, "{finished}");
    let mut results = 0;
    for (number, line) in lines.iter().enumerate() {
        let score = json(line);
        assert_eq!(score["messageId"], format!("r-{number}"));
        if error(line).is_none() {
            assert_eq!(score["result"]["result"], number, "{line}");
            results += 1;
        }
    }
    results
}

/// Waits until the process whose id a program has written into a file is gone.
fn assert_gone(workdir: &Workdir, file: &str) {
    let text = eventually(|| Some(workdir.read(file)).filter(|text| text.ends_with('\n')));
    let pid = Pid::from_raw(text.unwrap().trim().parse().unwrap()).unwrap();
    let is_gone = || test_kill_process(pid).is_err() || is_zombie(pid);
    assert!(eventually(|| is_gone().then_some(())).is_some(), "{file}");
}

fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.unwrap_or_default().contains(") Z ")
}

/// Sends requests, one after the other, until one of them gets a result. Returns the
/// number of that request.
fn until_a_result(running: &mut Running, first: usize) -> usize {
    let mut number = first;
    let found = eventually(|| {
        running.write(request(number));
        let line = running.line();
        assert!(line.contains(&format!("\"r-{number}\"")), "{line}");
        number += 1;
        error(&line).is_none().then_some(number - 1)
    });
    found.unwrap_or_else(|| panic!("no result:\n{}", running.said()))
}

#[test]
fn each_form_of_a_reply_becomes_its_score() {
    let workdir = Workdir::new();
    let replies = [
        (r#"1.10"#, r#""result":{"modelName":"m","result":1.10}"#),
        (
            r#"{"a":[1, 2]}"#,
            r#""result":{"modelName":"m","result":{"a":[1, 2]}}"#,
        ),
        (
            r#"{"result":"x","confidence":0.50,"probabilities":{"x":0.5}}"#,
            r#""result":{"modelName":"m","result":"x","confidence":0.50,"probabilities":{"x":0.5}}"#,
        ),
        (
            r#"{"error":"no age"}"#,
            r#""error":{"modelName":"m","message":"no age"}"#,
        ),
        (
            r#"{"result":1,"x":1}"#,
            r#""result":{"modelName":"m","result":{"result":1,"x":1}}"#,
        ),
    ];
    let text: String = replies
        .iter()
        .map(|(reply, _)| format!("{reply}\n"))
        .collect();
    workdir.write("replies", text);
    let command =
        "exec 3< replies; while read -r input; do read -r reply <&3; echo \"$reply\"; done";
    let run = exec(&workdir, command).args(["--probabilities", "--model-hash", "0123abcd"]);
    let finished = run.input(requests(replies.len())).succeeds();
    assert_eq!(finished.lines().len(), replies.len());
    for (line, (_, member)) in finished.lines().iter().zip(replies) {
        assert!(line.contains(member), "{line}");
        let entry = &json(line)["provenance"]["model"];
        assert_eq!(entry["modelVersion"], 7);
        assert_eq!(entry["modelHash"], "0123abcd");
        assert!(entry["evaluationTime"].as_f64().unwrap() < 10_000.0);
    }
    let finished = exec(&workdir, "cat").input(requests(1)).succeeds();
    let entry = &json(finished.lines()[0])["provenance"]["model"];
    assert!(entry.get("modelHash").is_none());
}

#[test]
fn what_waits_goes_as_one_array_and_a_single_request_at_once() {
    let workdir = Workdir::new();
    let command = "while read -r line; do echo \"$line\" >> seen; echo \"$line\"; done";
    let mut running = exec(&workdir, command).args(["--batch", "4"]).start();
    running.write(request(0));
    assert!(running.line().contains("\"result\":0}"));
    running.write(requests(10));
    for number in 0..10 {
        assert!(running.line().contains(&format!("\"result\":{number}}}")));
    }
    drop(running.stdin.take());
    running.wait().assert_status(0);
    let seen = workdir.read("seen");
    let sizes: Vec<usize> = seen.lines().map(|line| line.split(',').count()).collect();
    assert_eq!((sizes[0], sizes.iter().sum()), (1, 11), "{seen}");
    assert!(
        sizes.iter().all(|size| *size <= 4) && sizes.contains(&4),
        "{seen}"
    );
}

#[test]
fn a_batch_reply_of_another_length_fails_the_whole_batch() {
    let workdir = Workdir::new();
    // To a batch of more than one input, this program gives one reply too few.
    let command = "while read -r line; do case $line in *,*) echo \"${line%,*}]\";; *) echo \"$line\";; esac; done";
    let run = exec(&workdir, command).args(["--batch", "8", "--rescore"]);
    let finished = run.input(requests(40)).exits(1);
    let results = check_echoes(&finished, 40);
    assert!(results < 10, "{finished}");
    let with_cause = finished
        .lines()
        .iter()
        .filter(|line| line.contains("for 8 inputs"))
        .count();
    assert!(with_cause >= 24 && with_cause % 8 == 0, "{finished}");
}

#[test]
fn output_without_an_input_restarts_the_program_and_is_discarded() {
    let workdir = Workdir::new();
    let banner = "echo 99; while read -r line; do echo \"$line\"; done";
    let extra = "while read -r line; do printf '%s\\n99\\n' \"$line\"; done";
    // This program writes the stray line some time after its reply, while it has no
    // input.
    let late = "while read -r line; do echo \"$line\"; sleep 0.2; echo 99; done";
    for command in [banner, extra, late] {
        let mut running = exec(&workdir, command).args(["--stats", "stats"]).start();
        if command == banner {
            running.says("without being asked");
        }
        for number in 0..6 {
            running.write(request(number));
            let line = running.line();
            assert!(!line.contains("\"result\":99"), "{line}");
            let has_failed = error(&line).is_some();
            assert_eq!(
                has_failed,
                command != late || number % 2 == 1,
                "{command}: {line}"
            );
            if command == late && !has_failed {
                // The program must have ended before the next request is sent.
                running.says("without being asked");
                std::thread::sleep(Duration::from_millis(210));
                if number > 0 {
                    break;
                }
                running.write(request(number));
                running.line();
                until_a_result(&mut running, 100);
                break;
            }
        }
        assert!(
            running
                .said()
                .contains("one line for each line that it reads")
        );
        // Each of these programs is ended and started again.
        let is_restarted = || (stat(&workdir, "stats", "restarts") >= 1).then_some(());
        assert!(eventually(is_restarted).is_some(), "{command}");
        drop(running.stdin.take());
        running.wait().assert_status(0);
    }
}

#[test]
fn a_program_that_hangs_is_ended_with_its_group_and_started_again() {
    let workdir = Workdir::new();
    // At the input 3, this program hangs in a child that ignores SIGTERM.
    let command = "while read -r line; do
        if [ \"$line\" = 3 ]; then (trap '' TERM; sh -c 'echo $PPID > child'; sleep 100; true); fi
        echo \"$line\"; done";
    let mut running = exec(&workdir, command).args(["--timeout", "300ms"]).start();
    for number in 0..3 {
        running.write(request(number));
        assert_eq!(error(&running.line()), None);
    }
    let begun = Instant::now();
    running.write(request(3));
    let message = error(&running.line()).unwrap();
    assert!(message.contains("not answered within 300ms"), "{message}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // The child holds the program's pipes for two seconds. Requests get errors at once
    // meanwhile.
    running.write(request(4));
    let message = error(&running.line()).unwrap();
    assert!(message.contains("is being started again"), "{message}");
    until_a_result(&mut running, 5);
    assert_gone(&workdir, "child");
    drop(running.stdin.take());
    running.wait().assert_status(0);
}

#[test]
fn a_program_that_hangs_may_clean_up_on_sigterm() {
    let workdir = Workdir::new();
    let command = "trap 'echo cleaned > up; exit 0' TERM
        while read -r line; do sleep 100 & wait; done";
    let run = exec(&workdir, command).args(["--timeout", "200ms", "--start-timeout", "200ms"]);
    let mut running = run.start();
    running.write(request(0));
    assert!(error(&running.line()).is_some());
    let cleaned = || std::fs::exists(workdir.path("up")).unwrap().then_some(());
    assert!(eventually(cleaned).is_some());
    drop(running.stdin.take());
    running.wait().assert_status(0);
}

#[test]
fn a_program_that_closes_its_input_costs_no_time_out() {
    let workdir = Workdir::new();
    let run = exec(&workdir, "exec 0<&-; sleep 1000").args(["--start-timeout", "50s"]);
    let mut running = run.start();
    let begun = Instant::now();
    // The first line may be written before the program closes its input.
    running.write(request(0));
    running.write(request(1));
    assert!(error(&running.line()).is_some() && error(&running.line()).is_some());
    assert!(begun.elapsed() < Duration::from_secs(20));
    drop(running.stdin.take());
    running.wait().assert_status(0);
}

#[test]
fn a_death_costs_the_request_in_hand_and_the_program_comes_back() {
    let workdir = Workdir::new();
    let command = "while read -r line; do [ \"$line\" = 2 ] && exit 3; echo \"$line\"; done";
    let mut running = exec(&workdir, command).start();
    for number in 0..4 {
        running.write(request(number));
        let message = error(&running.line());
        match number {
            2 => assert!(message.unwrap().contains("ended before it answered")),
            3 => assert!(message.unwrap().contains("is being started again")),
            _ => assert_eq!(message, None),
        }
    }
    running.says("has ended (exit status: 3); it is started again in 0.");
    until_a_result(&mut running, 5);
    drop(running.stdin.take());
    running.wait().assert_status(0);
}

#[test]
fn in_a_recording_a_death_costs_one_request() {
    let workdir = Workdir::new();
    let command = "while read -r line; do [ \"$line\" = 50 ] && exit 3; echo \"$line\"; done";
    let run = exec(&workdir, command).arg("--rescore");
    let finished = run.input(requests(200)).exits(1);
    assert_eq!(check_echoes(&finished, 200), 199);
}

#[test]
fn long_lines_pass_in_both_directions_and_an_unread_one_is_a_time_out() {
    let workdir = Workdir::new();
    let text = "x".repeat(3_000_000);
    let input = |number: usize| {
        format!("{{\"messageId\":\"r-{number}\",\"timestamp\":1,\"modelInput\":\"{text}\"}}\n")
    };
    let echo = r#"python3 -c 'import sys
for line in sys.stdin: print(line, end="", flush=True)'"#;
    let finished = exec(&workdir, echo).input(input(0) + &input(1)).succeeds();
    for line in finished.lines() {
        assert_eq!(
            json(line)["result"]["result"].as_str().unwrap().len(),
            text.len()
        );
    }
    assert_eq!(finished.lines().len(), 2);
    let run =
        exec(&workdir, "exec sleep 100").args(["--timeout", "200ms", "--start-timeout", "200ms"]);
    let finished = run.input(input(0)).succeeds();
    let message = error(finished.lines()[0]).unwrap();
    assert!(message.contains("not answered"), "{message}");
}

#[test]
fn a_reply_that_is_too_long_fails_its_request_alone() {
    let workdir = Workdir::new();
    let command = "while read -r line; do
        if [ \"$line\" = 1 ]; then printf '\"%01000000d\"\\n' 0; else echo \"$line\"; fi; done";
    let run = exec(&workdir, command).args(["--max-line-bytes", "1000", "--stats", "stats"]);
    let finished = run.input(requests(3)).succeeds();
    assert_eq!(check_echoes(&finished, 3), 2);
    let message = error(finished.lines()[1]).unwrap();
    assert!(message.contains("1000002 bytes"), "{message}");
    assert_eq!(stat(&workdir, "stats", "restarts"), 0);
}

#[test]
fn nonsense_fails_its_request_alone() {
    let workdir = Workdir::new();
    let command = r#"while read -r line; do case $line in
        1) echo "loading";; 2) echo '{"result":NaN}';; 3) printf '"\377"\n';; 4) echo;;
        *) echo "$line";; esac; done"#;
    let run = exec(&workdir, command).args(["--stats", "stats"]);
    let finished = run.input(requests(7)).succeeds();
    assert_eq!(check_echoes(&finished, 7), 3);
    assert_eq!(stat(&workdir, "stats", "restarts"), 0);
    assert_eq!(stat(&workdir, "stats", "errors"), 4);
}

#[test]
fn its_stderr_is_passed_on_behind_its_name_and_bounded() {
    let workdir = Workdir::new();
    let command = "echo \"careful$(printf '\\033')[2J\" >&2; printf '%05000d\\n' 1 >&2
        while read -r line; do echo \"$line\"; done
        seq 100000 >&2; printf 'last words' >&2";
    let finished = exec(&workdir, command).input(requests(1)).succeeds();
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(lines[0], "rv-score: m: careful\\u{1b}[2J");
    assert_eq!(lines[1], format!("rv-score: m: {:01000}...", 0));
    assert!(lines.len() < 60, "{} lines", lines.len());
    let sum = lines
        .iter()
        .find(|line| line.contains("further lines of its stderr"));
    assert!(sum.is_some(), "{finished}");
}

#[test]
fn a_command_that_cannot_run_is_explained_and_does_not_flood_the_log() {
    let workdir = Workdir::new();
    workdir.write("model.py", "import sys\n");
    for (command, remedy) in [
        (
            "no-such-program --flag",
            "was not found: give its path, or install it",
        ),
        ("./model.py", "is the file executable?"),
        ("exit 0", "must read its input to the end"),
    ] {
        let mut running = exec(&workdir, command).args(["--stats", "stats"]).start();
        running.says(remedy);
        running.write(request(0));
        assert!(error(&running.line()).is_some());
        let restarts = || Some(stat(&workdir, "stats", "restarts")).filter(|count| *count >= 3);
        assert!(eventually(restarts).is_some());
        let said = running.said();
        assert!(said.lines().count() <= 3, "{said}");
        drop(running.stdin.take());
        running.wait().assert_status(0);
    }
}

#[test]
fn meaningless_flags_are_refused() {
    let workdir = Workdir::new();
    let named = ["--name", "m", "--model-version", "1"];
    for (args, message) in [
        (vec!["--exec", "cat"], "needs --name and --model-version"),
        (
            vec!["--exec", " ", named[0], named[1], named[2], named[3]],
            "--exec is empty",
        ),
        (
            vec!["--exec", "cat", "--model", "x.json"],
            "give only one of",
        ),
        (vec!["--batch", "3", "--model", "x.json"], "--exec"),
        (
            vec!["--name", "m", "--model", "x.json"],
            "--name does not apply",
        ),
        (
            vec![
                "--exec",
                "cat",
                "--threads",
                "2",
                named[0],
                named[1],
                named[2],
                named[3],
            ],
            "--batch gives it several inputs",
        ),
        (
            vec![
                "--exec",
                "cat",
                "--timeout",
                "0s",
                named[0],
                named[1],
                named[2],
                named[3],
            ],
            "--timeout must be more than 0",
        ),
        (
            vec![
                "--exec",
                "cat",
                "--allow-new-version",
                named[0],
                named[1],
                named[2],
                named[3],
            ],
            "--allow-new-version does not apply",
        ),
        (
            vec!["--exec", "cat", "--name", "a\u{7}", "--model-version", "1"],
            "--name must have",
        ),
        (vec![], "no model is given"),
    ] {
        let finished = workdir.run("rv-score").args(&args).exits(2);
        assert!(finished.stderr.contains(message), "{args:?}: {finished}");
    }
}

#[test]
fn at_its_end_the_whole_group_is_ended() {
    let workdir = Workdir::new();
    // The first program ends when its input ends. The second one ignores the end of its
    // input and SIGTERM.
    let obedient =
        "echo $$ > shell; while read -r line; do echo \"$line\"; done; echo done > ended";
    let stubborn = "trap '' TERM; echo $$ > shell; sh -c 'echo $$ > child; exec sleep 100' & while :; do read -r line && echo \"$line\"; sleep 0.01; done";
    for command in [obedient, stubborn] {
        for signal in [None, Some(Signal::TERM), Some(Signal::INT)] {
            for file in ["shell", "child"] {
                let _ = std::fs::remove_file(workdir.path(file));
            }
            let mut running = exec(&workdir, command).start();
            running.write(request(0));
            assert_eq!(error(&running.line()), None);
            match signal {
                Some(Signal::TERM) => running.signal(Signal::TERM),
                Some(signal) => {
                    running.signal(signal);
                    drop(running.stdin.take());
                }
                None => drop(running.stdin.take()),
            }
            let begun = Instant::now();
            running.wait().assert_status(0);
            assert!(begun.elapsed() < Duration::from_secs(8));
            assert_gone(&workdir, "shell");
            match command == obedient {
                true => assert_eq!(workdir.read("ended"), "done\n"),
                false => assert_gone(&workdir, "child"),
            }
        }
    }
}

#[test]
fn a_killed_rv_score_ends_its_program_by_the_end_of_its_input() {
    let workdir = Workdir::new();
    let command = "echo $$ > shell; while read -r line; do echo \"$line\"; done";
    let mut running = exec(&workdir, command).start();
    running.write(request(0));
    assert_eq!(error(&running.line()), None);
    running.signal(Signal::KILL);
    running.wait().assert_status(137);
    assert_gone(&workdir, "shell");
}

#[test]
fn sighup_swaps_the_program_between_two_lines_or_not_at_all() {
    let workdir = Workdir::new();
    let set = |text: &str| workdir.write("version", format!("{text}\n"));
    set("1");
    let command = "read -r version < version; echo > up; [ $version = broken ] && exit 4
        [ $version = wrong ] && echo nonsense
        while read -r line; do echo $version; done";
    let mut running = exec(&workdir, command).start();
    let answer = |running: &mut Running, number| {
        running.write(request(number));
        json(&running.line())["result"]["result"].clone()
    };
    let is_up = || std::fs::exists(workdir.path("up")).unwrap();
    assert!(eventually(|| is_up().then_some(())).is_some());
    // Before the first answer there is no line to try a new program with.
    running.signal(Signal::HUP);
    running.says("the new program has taken over");
    assert_eq!(answer(&mut running, 0), 1);
    set("2");
    running.signal(Signal::HUP);
    let taken_over = |running: &Running, count| {
        eventually(|| {
            let said = running.said();
            (said.matches("the new program has taken over").count() == count).then_some(())
        })
    };
    assert!(taken_over(&running, 2).is_some(), "{}", running.said());
    assert_eq!(answer(&mut running, 1), 2);
    for bad in ["broken", "wrong"] {
        set(bad);
        running.signal(Signal::HUP);
        let refused = eventually(|| {
            let said = running.said();
            let count = said.matches("the program in use stays").count();
            (count == if bad == "broken" { 1 } else { 2 }).then_some(())
        });
        assert!(refused.is_some(), "{bad}: {}", running.said());
        assert_eq!(answer(&mut running, 2), 2);
    }
    drop(running.stdin.take());
    running.wait().assert_status(0);
}

#[test]
fn a_request_that_waited_too_long_is_not_evaluated() {
    let workdir = Workdir::new();
    let command = "while read -r line; do echo \"$line\" >> seen; sleep 0.3; echo \"$line\"; done";
    let run = exec(&workdir, command).args(["--skip-older", "700ms"]);
    let finished = run.input(requests(12)).succeeds();
    let results = check_echoes(&finished, 12);
    assert!((1..=6).contains(&results), "{finished}");
    assert_eq!(workdir.read("seen").lines().count(), results);
    assert!(finished.stdout().contains("older than 700ms"));
    // The third request would be answered after 900 ms, which is too late. It is skipped
    // although it is younger than 700 ms when its turn comes.
    for line in finished.lines().into_iter().map(json) {
        let elapsed = &line["provenance"]["model"]["elapsedTimeAfterRequest"];
        let is_late = line.get("result").is_some() && elapsed.as_f64().unwrap() >= 900.0;
        assert!(!is_late, "{line}");
    }
}

#[test]
fn each_score_leaves_as_soon_as_it_is_ready() {
    let workdir = Workdir::new();
    let command =
        "while read -r line; do while [ ! -e go-$line ]; do sleep 0.01; done; echo \"$line\"; done";
    let mut running = exec(&workdir, command).start();
    running.write(requests(3));
    for number in 0..3 {
        workdir.write(&format!("go-{number}"), "");
        assert!(running.line().contains(&format!("\"r-{number}\"")));
    }
    drop(running.stdin.take());
    running.wait().assert_status(0);
}

#[test]
fn a_program_that_loads_for_long_is_not_killed_and_nobody_waits_for_it_too_long() {
    let workdir = Workdir::new();
    let command =
        "while [ ! -e loaded ]; do sleep 0.01; done; while read -r line; do echo \"$line\"; done";
    let mut running = exec(&workdir, command)
        .args(["--timeout", "200ms", "--stats", "stats"])
        .start();
    running.write(requests(3));
    for _ in 0..3 {
        let message = error(&running.line()).unwrap();
        assert!(message.contains("has not answered yet"), "{message}");
    }
    workdir.write("loaded", "");
    until_a_result(&mut running, 3);
    drop(running.stdin.take());
    running.wait().assert_status(0);
    assert_eq!(stat(&workdir, "stats", "restarts"), 0);
}

#[test]
fn a_recording_waits_for_a_program_that_loads_for_long() {
    let workdir = Workdir::new();
    let command = "sleep 1; while read -r line; do echo \"$line\"; done";
    let patient = |args: &[&str]| {
        let run = exec(&workdir, command).args(["--timeout", "200ms"]);
        run.args(args).input(requests(5)).succeeds()
    };
    assert_eq!(check_echoes(&patient(&["--rescore"]), 5), 5);
    workdir.write("recorded", requests(1));
    assert_eq!(check_echoes(&patient(&["--warm-up", "recorded"]), 5), 5);
    let run = exec(&workdir, "exec sleep 100").args(["--start-timeout", "300ms"]);
    let finished = run
        .args(["--timeout", "100ms", "--rescore"])
        .input(requests(2))
        .exits(1);
    assert!(finished.stdout().contains("within 300ms"), "{finished}");
}

#[test]
fn recorded_requests_warm_the_program_up() {
    let workdir = Workdir::new();
    workdir.write("recorded", requests(20));
    let command = "while read -r line; do echo \"$line\" >> seen; echo \"$line\"; done";
    let run = exec(&workdir, command).args(["--warm-up", "recorded", "--batch", "4"]);
    let finished = run.input(requests(1)).succeeds();
    assert_eq!(check_echoes(&finished, 1), 1);
    let inputs: usize = workdir
        .read("seen")
        .lines()
        .map(|line| line.split(',').count())
        .sum();
    assert_eq!(inputs, 21);
    let run = exec(&workdir, "no-such-program").args(["--warm-up", "recorded"]);
    let finished = run.input(requests(1)).exits(3);
    assert!(
        finished
            .stderr
            .contains("no request that the model can evaluate")
    );
}

#[test]
fn what_is_not_scored_within_the_grace_is_set_aside() {
    let workdir = Workdir::new();
    let run = exec(&workdir, "while read -r line; do sleep 100; done");
    let mut running = run
        .args(["--grace", "300ms", "--rejects", "rejects"])
        .start();
    running.write(requests(5));
    std::thread::sleep(Duration::from_millis(300));
    running.signal(Signal::TERM);
    let finished = running.wait();
    finished.assert_status(143);
    assert!(
        finished
            .stderr
            .contains("5 requests were read and not scored"),
        "{finished}"
    );
    assert_eq!(workdir.read("rejects").lines().count(), 5);
}

#[test]
fn an_idle_engine_uses_no_processor() {
    let workdir = Workdir::new();
    let mut running = exec(&workdir, "cat").start();
    running.write(request(0));
    running.line();
    assert_idle(running.id());
    // The engine must also be idle while a request waits for its answer.
    let mut running = exec(&workdir, "exec sleep 50").start();
    running.write(requests(3));
    assert_idle(running.id());
}

#[test]
#[ignore = "needs jq: scripts/check_models.sh runs it"]
fn the_example_in_jq_answers_single_inputs_and_arrays() {
    let workdir = Workdir::new();
    let example = checkout().join("examples/iris.jq");
    assert!(std::fs::read_to_string(&example).unwrap().lines().count() < 25);
    let command = format!(
        "exec jq --compact-output --unbuffered --from-file {}",
        example.display()
    );
    let flower = |petal_length: f64, petal_width: f64| {
        format!("{{\"petalLength\":{petal_length},\"petalWidth\":{petal_width}}}")
    };
    let inputs = [
        (flower(1.4, 0.2), "\"result\":0,\"confidence\":1}"),
        (flower(4.5, 1.5), "\"result\":1,\"confidence\":0.91}"),
        (flower(6.0, 2.2), "\"result\":2,\"confidence\":0.98}"),
        ("{\"petalLength\":1}".to_owned(), "is not a number\"}"),
        ("[1]".to_owned(), "is not an object\"}"),
    ];
    let line = |(number, (input, _)): (usize, &(String, &str))| {
        format!("{{\"messageId\":\"r-{number}\",\"timestamp\":1,\"modelInput\":{input}}}\n")
    };
    let text: String = inputs.iter().enumerate().map(line).collect();
    for batch in [&["--batch", "64"][..], &[]] {
        // The last input is an array. Without --batch, the program would take it for
        // several inputs, so it is left out.
        let count = if batch.is_empty() { 4 } else { 5 };
        let text: String = text.split_inclusive('\n').take(count).collect();
        let finished = exec(&workdir, &command).args(batch).input(text).succeeds();
        assert_eq!(finished.lines().len(), count);
        for (line, (_, member)) in finished.lines().iter().zip(&inputs) {
            assert!(line.contains(member), "{line}");
        }
    }
}

#[test]
fn a_greeting_is_not_taken_for_an_answer() {
    let workdir = Workdir::new();
    for (begin, after_first_line) in [("print('hello', flush=True)", "0"), ("0", "print('hello')")]
    {
        let program = format!(
            "import sys\n{begin}\nis_first = True\nfor line in sys.stdin:\n    \
             if is_first: {after_first_line}\n    is_first = False\n    \
             print(line.strip(), flush=True)\n"
        );
        workdir.write("greeting.py", program);
        let mut running = exec(&workdir, "python3 greeting.py").start();
        for start in [0, 5] {
            running.write((start..start + 5).map(request).collect::<String>());
            for number in start..start + 5 {
                let score = json(&running.line());
                assert_eq!(score["messageId"], format!("r-{number}"));
                assert!(score.get("error").is_some(), "{score}");
            }
        }
        running.says("wrote \"hello");
    }
}

/// A program that hangs, dies, prints nonsense, prints too much or prints too early, at
/// random. But if it answers with a number, it is the number that it was given.
const CHAOS: &str = r#"
import random, sys, time
def write(text):
    sys.stdout.write(text)
    sys.stdout.flush()
if random.random() < 0.1:
    write('"stray"\n')
for line in sys.stdin:
    dice = random.random()
    if dice < 0.01:
        sys.exit(1)
    elif dice < 0.015:
        time.sleep(100)
    elif dice < 0.05:
        write('{"result":[1,,x}'[: random.randrange(16)] + "\n")
    elif dice < 0.06:
        write('"stray"\n' + line)
    elif dice < 0.07:
        write(line)
        time.sleep(0.01)
        write('"stray"\n')
    elif dice < 0.075:
        write(line[:-1])
        sys.exit(0)
    else:
        write(line)
"#;

#[test]
fn whatever_a_program_does_each_request_has_one_score_and_nobody_elses_answer() {
    let workdir = Workdir::new();
    workdir.write("chaos.py", CHAOS);
    for batch in [None, Some("5")] {
        let run =
            exec(&workdir, "python3 chaos.py").args(["--timeout", "150ms", "--stats", "stats"]);
        let mut running = run
            .args(batch.iter().flat_map(|size| ["--batch", size]))
            .start();
        let mut results = 0;
        let begun = Instant::now();
        let mut number = 0;
        while begun.elapsed() < Duration::from_secs(6) {
            let count = 1 + number % 7;
            let text: String = (number..number + count).map(request).collect();
            running.write(text);
            for expected in number..number + count {
                let score = json(&running.line());
                assert_eq!(score["messageId"], format!("r-{expected}"));
                let result = &score["result"]["result"];
                if result.is_number() {
                    assert_eq!(*result, expected, "{score}");
                    results += 1;
                } else {
                    assert!(
                        score.get("error").is_some() || *result == "stray",
                        "{score}"
                    );
                }
            }
            number += count;
            if number % 50 == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        drop(running.stdin.take());
        running.wait().assert_status(0);
        assert!(stat(&workdir, "stats", "restarts") > 1);
        assert!(results > 20, "{results} of {number}");
        assert_eq!(stat(&workdir, "stats", "in"), number as u64);
        assert_eq!(stat(&workdir, "stats", "out"), number as u64);
    }
}
