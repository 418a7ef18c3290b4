//! What training refuses, and what it says then.

use crate::stage::EndedEarly;
use crate::train::tests::{train, train_on};

/// Rows of two classes that can be trained on, under a header.
const ROWS: &str = "1,2,no\n2,2,no\n8,3,yes\n9,4,yes\n1,1,no\n7,7,yes\n";

const TREE: &str = "--target y --algorithm decision-tree --holdout 0";

#[test]
fn a_row_that_cannot_be_used_is_named_with_its_column() {
    for (bad, place, reason) in [
        ("1,,no", "bad.csv:3: row 2", "column \"b\" is empty"),
        (
            "1,2,",
            "bad.csv:3: row 2",
            "column \"y\", the target, is empty",
        ),
        (
            "1,x,no",
            "bad.csv:3: row 2",
            "column \"b\": \"x\" is not a number; name the columns to learn from with --features",
        ),
        (
            "1,NaN,no",
            "bad.csv:3: row 2",
            "column \"b\": \"NaN\" is not a finite number",
        ),
        (
            "-inf,2,no",
            "bad.csv:3: row 2",
            "column \"a\": \"-inf\" is not a finite number",
        ),
        (
            "1e999,2,no",
            "bad.csv:3: row 2",
            "column \"a\": \"1e999\" is not a finite number",
        ),
        (
            "1,2",
            "bad.csv:3: row 2",
            "has 2 fields where the header has 3",
        ),
        (
            "1,2,no,",
            "bad.csv:3: row 2",
            "has 4 fields where the header has 3",
        ),
        (
            "1,2,\u{fffd}",
            "bad.csv:3: row 2",
            "column \"y\" is not UTF-8",
        ),
        ("\n\n1,\"2\n\",no,9", "bad.csv:5: row 2", "has 4 fields"),
    ] {
        let data = format!("a,b,y\n9,9,no\n{bad}\n{ROWS}").into_bytes();
        // The replacement character stands for a byte that is no UTF-8.
        let data: Vec<u8> = match data
            .windows(3)
            .position(|three| three == "\u{fffd}".as_bytes())
        {
            Some(at) => [&data[..at], b"\xff", &data[at + 3..]].concat(),
            None => data,
        };
        let outcome = train_on("bad.csv", &data, TREE);
        let message = outcome.message();
        assert!(message.contains(&format!("{place}: {reason}")), "{message}");
        assert!(message.contains("--skip-bad-rows"), "{message}");
        assert!(outcome.text.is_none());

        let outcome = train_on("bad.csv", &data, &format!("{TREE} --skip-bad-rows"));
        assert_eq!(outcome.message(), "");
        assert_eq!(outcome.rows(), (7, 1));
        let reject = outcome.rejects;
        assert_eq!(reject.lines().count(), 1);
        let raw = match std::str::from_utf8(&data) {
            Ok(_) => format!("\"raw\":{}", serde_json::to_string(bad.trim()).unwrap()),
            Err(_) => "\"rawBase64\":\"MSwy".to_owned(),
        };
        assert!(reject.contains(&raw), "{reject}");
        let offset = 13 + bad.len() - bad.trim_start().len();
        assert!(
            reject.contains(&format!("\"offset\":{offset},")),
            "{reject}"
        );
    }
}

#[test]
fn an_object_that_cannot_be_used_is_named_with_its_field() {
    let good: String = (0..8)
        .map(|row| format!("{{\"a\":{row},\"y\":\"{}\"}}\n", row > 3))
        .collect();
    for (bad, reason) in [
        ("{\"a\":1", "not JSON"),
        ("[1]", "not a JSON object"),
        ("{\"y\":\"x\"}", "field \"a\" is missing"),
        ("{\"a\":null,\"y\":\"x\"}", "field \"a\" is missing"),
        (
            "{\"a\":1}",
            "field \"y\", the target, is missing; the row has \"a\"",
        ),
        (
            "{\"a\":\"1\",\"y\":\"x\"}",
            "field \"a\" is \"\\\"1\\\"\", not a number; name the fields",
        ),
        ("{\"a\":1e400,\"y\":\"x\"}", "field \"a\" is out of range"),
        (
            "{\"a\":1,\"a\":1,\"y\":\"x\"}",
            "field \"a\" stands there twice",
        ),
        (
            "{\"a\":1,\"y\":2}",
            "field \"y\": the label 2 is not like those before it, which are strings",
        ),
        ("{\"a\":1,\"y\":[2]}", "field \"y\": a label has to be"),
        (
            "{\"a\":1,\"y\":\"\\ud800\"}",
            "field \"y\": the label is not valid Unicode",
        ),
    ] {
        let data = format!("{good}\n{bad}\n{good}");
        let outcome = train_on("bad.ndjson", data.as_bytes(), TREE);
        let message = outcome.message();
        assert!(
            message.contains(&format!("bad.ndjson:10: row 9: {reason}")),
            "{message}"
        );
        let outcome = train_on(
            "bad.ndjson",
            data.as_bytes(),
            &format!("{TREE} --skip-bad-rows"),
        );
        assert_eq!(outcome.message(), "");
        assert_eq!(outcome.rows(), (16, 1));
    }
}

#[test]
fn a_file_that_cannot_be_used_is_said_with_the_remedy() {
    let measurements: String = (0..2000).map(|row| format!("1,2,{row}.5\n")).collect();
    for (data, reason) in [
        (String::new(), "is empty; a line with the names"),
        ("\n \n".to_owned(), "is empty; a line with the names"),
        ("a,b,y\n".to_owned(), "there is no row of data"),
        (
            ROWS.replace("no", "0").replace("yes", "1"),
            "put a line of names above it",
        ),
        (format!("a,a,y\n{ROWS}"), "column \"a\" stands there twice"),
        (
            "a,b,y\n1,1,no\n2,2,no\n".to_owned(),
            "has one value only, \"no\"",
        ),
        (
            "a,b,y\n1,1,no\n2,2,no\n3,3,yes\n".to_owned(),
            "class \"yes\" has 1 of its 1 rows left",
        ),
        (format!("a,b,y\n{measurements}"), "looks like a measurement"),
        (
            format!("a,b,y\n{}1,\"2,no\n", ROWS),
            "look for a stray comma or quote",
        ),
        ("a,b\u{0},y\n".to_owned() + ROWS, ""),
    ] {
        let message = train_on("bad.csv", data.as_bytes(), TREE).message();
        assert!(message.contains(reason), "{message}");
    }
    let message = train_on("bad.csv", b"a\xff,y\n1,2\n", TREE).message();
    assert!(
        message.contains("bad.csv:1: the name of column 1 is not UTF-8"),
        "{message}"
    );
    let message = train_on("bad.csv", b"a,y\nx,1\n", &format!("{TREE} --skip-bad-rows")).message();
    assert!(
        message.contains("all of its 1 rows were left out"),
        "{message}"
    );
    let message = train("/nonexistent.csv", TREE).message();
    assert!(
        message.contains("/nonexistent.csv: cannot open"),
        "{message}"
    );
    let message = train("/", TREE).message();
    assert!(message.contains("is a directory"), "{message}");
}

#[test]
fn what_is_wrongly_asked_for_is_an_error_of_usage() {
    let data = format!("a,b,y\n{ROWS}");
    for (flags, reason) in [
        (
            "--target z --algorithm decision-tree",
            "no column \"z\" for --target; the columns are a, b, y",
        ),
        (
            "--target y --features a,c --algorithm decision-tree",
            "no column \"c\" for --features",
        ),
        (
            "--target y --features a,y --algorithm decision-tree",
            "both --target and among",
        ),
        (
            "--target y --features a,a --algorithm decision-tree",
            "names column \"a\" twice",
        ),
        (
            "--target y --features a, --algorithm decision-tree",
            "without a name",
        ),
        (
            "--target y --algorithm decision-tree --holdout 1",
            "from 0 to below 1",
        ),
        (
            "--target y --algorithm decision-tree --holdout=-0.1",
            "from 0 to below 1",
        ),
        (
            "--target y --algorithm decision-tree --holdout NaN",
            "from 0 to below 1",
        ),
        (
            "--target y --algorithm decision-tree --l2 1",
            "--l2 is for logistic-regression",
        ),
        (
            "--target y --algorithm linfa-tree --max-iterations 1",
            "--max-iterations is for",
        ),
        (
            "--target y --algorithm logistic-regression --max-depth 3",
            "--max-depth is for trees",
        ),
        (
            "--target y --algorithm logistic-regression --min-leaf 3",
            "--min-leaf is for trees",
        ),
        (
            "--target y --algorithm logistic-regression --l2 NaN",
            "--l2 is a number",
        ),
    ] {
        let outcome = train_on("rows.csv", data.as_bytes(), flags);
        let message = outcome.message();
        assert!(message.contains(reason), "{message}");
        let error = outcome.result.unwrap_err();
        assert!(
            matches!(error.downcast_ref(), Some(EndedEarly::Usage(_))),
            "{error}"
        );
    }
    let message = train_on(
        "rows.csv",
        data.as_bytes(),
        "--target y --algorithm decision-tree --holdout 0.9",
    )
    .message();
    assert!(
        message.contains("hold out less with --holdout"),
        "{message}"
    );
}

#[test]
fn a_line_over_the_limit_is_left_out_and_a_quote_left_open_does_not_fill_the_memory() {
    let long = format!("a,b,y\n{ROWS}1,{},no\n{ROWS}", "1".repeat(5000));
    let flags = format!("{TREE} --max-line-bytes 1000B");
    let message = train_on("long.csv", long.as_bytes(), &flags).message();
    assert!(
        message.contains("long.csv:8: the line is longer than --max-line-bytes"),
        "{message}"
    );
    let outcome = train_on(
        "long.csv",
        long.as_bytes(),
        &format!("{flags} --skip-bad-rows"),
    );
    assert_eq!(outcome.rows(), (12, 1));

    let open = format!("a,b,y\n{ROWS}1,\"2,no\n{}", ROWS.repeat(60_000));
    let message = train_on("open.csv", open.as_bytes(), &flags).message();
    assert!(
        message.contains("open.csv:8: a row that begins here is longer"),
        "{message}"
    );
}
