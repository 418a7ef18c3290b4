//! Tables as they are read from whole files.

use clap::Parser;
use proptest::prelude::*;

use crate::model::feature::{Domain, Feature, Missing, Unseen};
use crate::stage::Stage;
use crate::stage::cli::RunArgs;
use crate::train::TrainArgs;
use crate::train::options::{Impute, TableOptions};
use crate::train::read_table::read_table;
use crate::train::table::Table;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    train: TrainArgs,
}

/// The table in a file called `name`, or the message of the error.
pub fn table(name: &str, data: impl AsRef<[u8]>, flags: &str) -> Result<Table, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, data).unwrap();
    let (mut stage, options) = options(path.to_str().unwrap(), flags)?;
    read_table(&mut stage, &options).map_err(|error| format!("{error:#}"))
}

/// The options of a training on the file at `path`, and its stage.
pub fn options(path: &str, flags: &str) -> Result<(Stage, TableOptions), String> {
    let line = format!(
        "rv-score --quiet --input {path} --output - --name m --model-version 1 --target y \
         --algorithm decision-tree {flags}"
    );
    let line =
        CommandLine::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
    let stage = Stage::new("rv-score", &line.run).unwrap();
    let options = line.train.check().map_err(|error| format!("{error:#}"))?;
    Ok((stage, options.table))
}

/// The message of the error of a table that cannot be read.
fn fault(name: &str, data: impl AsRef<[u8]>, flags: &str) -> String {
    table(name, data, flags).expect_err("the table is refused")
}

/// Rows of CSV: the header, and `count` rows made by `row`.
fn csv(header: &str, count: usize, row: impl Fn(usize) -> String) -> String {
    let rows: Vec<String> = (0..count).map(row).collect();
    format!("{header}\n{}\n", rows.join("\n"))
}

/// A feature with categories that was found in training.
fn categories(name: &str, categories: &[&str], markers: &[&str]) -> Feature {
    Feature {
        name: name.to_owned(),
        domain: Domain::Categories {
            categories: categories.iter().map(|one| (*one).to_owned()).collect(),
            unseen: Unseen::Other,
        },
        missing: Missing::Error,
        markers: markers.iter().map(|one| (*one).to_owned()).collect(),
    }
}

fn numbers(name: &str, markers: &[&str]) -> Feature {
    Feature {
        markers: markers.iter().map(|one| (*one).to_owned()).collect(),
        ..Feature::number(name)
    }
}

fn names(table: &Table) -> Vec<&str> {
    table
        .features
        .iter()
        .map(|feature| feature.name.as_str())
        .collect()
}

/// The values of a feature; -1 for a missing one.
fn values(table: &Table, feature: usize) -> Vec<f64> {
    let value = |row: usize| table.rows.row(row)[feature];
    let values = (0..table.rows.len()).map(value);
    values
        .map(|value| if value.is_nan() { -1.0 } else { value })
        .collect()
}

/// For each feature, the number of rows in which its value is missing.
fn missing(table: &Table) -> Vec<usize> {
    let count = |feature: usize| {
        let values = (0..table.rows.len()).map(|row| table.rows.row(row)[feature]);
        values.filter(|value| value.is_nan()).count()
    };
    (0..table.features.len()).map(count).collect()
}

#[test]
fn csv_columns_become_numbers_or_categories() {
    let data = "n,c,b,mixed,y\n\
                1,red,true,5,no\n\
                ,blue,FALSE,6,no\n\
                NA,red,true,?,yes\n\
                2.5, blue,False,7,yes\n\
                -1e1,,true,5,no\n\
                3,red,,6,yes\n";
    let table = table("rows.csv", data, "").unwrap();
    assert_eq!(
        table.features,
        [
            numbers("n", &["NA"]),
            categories("c", &["blue", "red"], &[]),
            numbers("b", &[]),
            numbers("mixed", &["?"]),
        ]
    );
    assert_eq!(values(&table, 0), [1.0, -1.0, -1.0, 2.5, -10.0, 3.0]);
    assert_eq!(values(&table, 1), [1.0, 0.0, 1.0, 0.0, -1.0, 1.0]);
    assert_eq!(values(&table, 2), [1.0, 0.0, 1.0, 0.0, 1.0, -1.0]);
    assert_eq!(values(&table, 3), [5.0, 6.0, -1.0, 7.0, 5.0, 6.0]);
    assert_eq!(missing(&table), [2, 1, 1, 1]);
    assert_eq!(table.classes, ["\"no\"", "\"yes\""]);
    assert_eq!(table.rows.class_of, [0, 0, 1, 1, 0, 1]);
    assert_eq!(table.impute, Impute::Median);
}

#[test]
fn markers_in_texts_are_categories_unless_a_flag_names_them() {
    let data = csv("country,n,y", 12, |row| {
        let country = ["NA", "DE", "na", "FR"][row % 4];
        format!(
            "{country},{},{}",
            if row == 3 { -999 } else { row as i32 },
            row % 2
        )
    });
    let plain = table("rows.csv", &data, "").unwrap();
    assert_eq!(
        plain.features[0],
        categories("country", &["DE", "FR", "NA", "na"], &[])
    );
    assert_eq!(missing(&plain), [0, 0]);
    let named = table("rows.csv", &data, "--missing NA,-999").unwrap();
    assert_eq!(
        named.features[0],
        categories("country", &["DE", "FR"], &["NA", "na"])
    );
    assert_eq!(named.features[1], numbers("n", &["-999"]));
    assert_eq!(missing(&named), [6, 1]);
}

#[test]
fn a_missing_target_is_never_a_class() {
    for marker in [
        "NA", "NaN", "nan", "null", "None", "?", "-", "n/a", "inf", "Infinity", "1e999",
    ] {
        let data = csv("a,y", 20, |row| match row {
            7 => format!("{row},{marker}"),
            _ => format!("{row},{}", row % 2),
        });
        let message = fault("rows.csv", &data, "");
        let place = "rows.csv:9: row 8: column \"y\", the target";
        assert!(message.contains(place), "{message}");
        assert!(
            message.contains(marker) && message.contains("--skip-bad-rows"),
            "{message}"
        );
        let table = table("rows.csv", &data, "--skip-bad-rows").unwrap();
        assert_eq!((table.rows.len(), table.left_out), (19, 1));
        assert_eq!(table.classes, ["0", "1"]);
        assert_eq!(table.numbers[7], 9);
    }
    // In a column of texts, a marker such as NA is a class, unless --missing names it.
    let data = csv("a,y", 20, |row| format!("{row},{}", ["DE", "NA"][row % 2]));
    assert_eq!(
        table("rows.csv", &data, "").unwrap().classes,
        ["\"DE\"", "\"NA\""]
    );
    let message = fault("rows.csv", &data, "--missing NA");
    assert!(
        message.contains("row 2: column \"y\", the target, is missing"),
        "{message}"
    );
}

#[test]
fn a_few_words_among_numbers_are_faults_of_their_rows() {
    let data = csv("a,b,y", 40, |row| match row {
        5 | 30 => format!("{row},oops,{}", row % 2),
        12 => format!("{row},inf,{}", row % 2),
        _ => format!("{row},{}.5,{}", row % 9, row % 2),
    });
    let message = fault("rows.csv", &data, "");
    for part in [
        "rows.csv:7: row 6: column \"b\": \"oops\" is not a number, but 37 of the 40 values are",
        "--categorical b",
        "--missing oops",
        "--drop b",
        "--skip-bad-rows",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let skipped = table("rows.csv", &data, "--skip-bad-rows").unwrap();
    assert_eq!((skipped.rows.len(), skipped.left_out), (37, 3));
    assert_eq!(names(&table("rows.csv", &data, "--drop b").unwrap()), ["a"]);
    assert_eq!(
        names(&table("rows.csv", &data, "--features a").unwrap()),
        ["a"]
    );
    let named = table("rows.csv", &data, "--missing oops,inf").unwrap();
    assert_eq!((named.rows.len(), missing(&named)[1]), (40, 3));
    let texts = table("rows.csv", &data, "--categorical b").unwrap();
    let found = texts.features[1].categories().unwrap();
    assert_eq!(
        found,
        [
            "0.5", "1.5", "2.5", "3.5", "4.5", "5.5", "6.5", "7.5", "8.5", "inf", "oops"
        ]
    );
    // With more words, the column has texts.
    let data = csv("b,y", 40, |row| match row % 5 {
        0 => format!("oops,{}", row % 2),
        number => format!("{number},{}", row % 2),
    });
    let texts = table("rows.csv", &data, "").unwrap();
    assert_eq!(
        texts.features[0],
        categories("b", &["1", "2", "3", "4", "oops"], &[])
    );
    let message = fault("rows.csv", &data, "--numeric b");
    assert!(
        message.contains("rows.csv:2: row 1: column \"b\": \"oops\""),
        "{message}"
    );
}

#[test]
fn columns_that_teach_nothing_are_not_used() {
    let data = csv("id,constant,empty,date,name,a,y", 60, |row| {
        format!(
            "x{row},7,,2026-01-{:02},n{},{},{}",
            row % 20 + 1,
            row % 40,
            row % 7,
            row % 2
        )
    });
    assert_eq!(names(&table("rows.csv", &data, "").unwrap()), ["a"]);
    let forced = table("rows.csv", &data, "--features id,constant,name").unwrap();
    assert_eq!(names(&forced), ["id", "constant", "name"]);
    let forced = table("rows.csv", &data, "--categorical date").unwrap();
    assert_eq!(names(&forced), ["date", "a"]);
    assert!(fault("rows.csv", &data, "--features empty").contains("column \"empty\" has no value"));
    let message = fault("rows.csv", &data, "--drop a");
    assert!(
        message
            .contains("no column can be used as a feature: \"a\" --drop names it; \"id\" has 60"),
        "{message}"
    );
    let data = csv("id,a,y", 2500, |row| {
        format!("x{row},{},{}", row % 7, row % 2)
    });
    assert_eq!(names(&table("rows.csv", &data, "").unwrap()), ["a"]);
    let message = fault("rows.csv", &data, "--categorical id");
    assert!(
        message.contains("more than 1000 different texts"),
        "{message}"
    );
}

#[test]
fn the_target_decides_what_is_predicted() {
    let rows = |count: usize, target: fn(usize) -> String| {
        csv("a,y", count, |row| format!("{},{}", row % 7, target(row)))
    };
    for (data, flags, classes) in [
        (rows(40, |row| (row % 3).to_string()), "", 3),
        (rows(40, |row| format!("{}.0", row % 3)), "", 3),
        (rows(40, |row| (row % 20).to_string()), "", 20),
        (rows(42, |row| (row % 21).to_string()), "", 0),
        (
            rows(42, |row| (row % 21).to_string()),
            "--task classify",
            21,
        ),
        (rows(40, |row| (row % 3).to_string()), "--task regress", 0),
        (rows(40, |row| format!("{}.5", row % 3)), "", 0),
        (rows(40, |row| ["a", "b"][row % 2].to_owned()), "", 2),
        (rows(40, |row| ["true", "false"][row % 2].to_owned()), "", 2),
        (rows(3000, |row| (row % 1500).to_string()), "", 0),
    ] {
        let table = table("rows.csv", data, flags).unwrap();
        assert_eq!(table.classes.len(), classes, "{:?}", table.classes);
        let (with_class, with_number) = (table.rows.class_of.len(), table.rows.targets.len());
        let all = table.rows.len();
        assert_eq!(
            (with_class, with_number),
            if classes > 0 { (all, 0) } else { (0, all) }
        );
    }
    let regression = table("rows.csv", rows(2000, |row| format!("{row}.25")), "").unwrap();
    assert_eq!(regression.rows.targets[1999], 1999.25);
    for (data, flags, reason) in [
        (
            rows(3000, |row| row.to_string()),
            "--task classify",
            "more than 1000 different values",
        ),
        (
            rows(3000, |row| format!("x{row}")),
            "",
            "name a column of classes with --target",
        ),
        (
            rows(9, |row| ["a", "b"][row % 2].to_owned()),
            "--task regress",
            "leave out --task regress",
        ),
        (rows(9, |_| "0.5".to_owned()), "", "has only one value, 0.5"),
    ] {
        let message = fault("rows.csv", data, flags);
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn all_rows_of_ndjson_decide_and_pointers_lead_inside() {
    let row = |row: usize| match row % 4 {
        0 => format!("{{\"a\":{row},\"y\":{}}}\n", row % 3),
        1 => format!(
            "{{\"b\":null,\"a\":{row},\"y\":{},\"in\":{{\"x\":[1,{row}]}}}}\n",
            row % 3
        ),
        2 => format!(
            "{{\"y\":{},\"b\":\"u\",\"flag\":true,\"a\":1.5}}\n",
            row % 3
        ),
        _ => format!(
            "{{\"y\":{},\"b\":\"v\",\"flag\":0,\"in\":{{\"x\":[2]}}}}\n",
            row % 3
        ),
    };
    let data: String = (0..40).map(row).collect();
    let union = table("rows.ndjson", &data, "").unwrap();
    assert_eq!(
        union.features,
        [
            Feature::number("a"),
            categories("b", &["u", "v"], &[]),
            Feature::number("flag")
        ]
    );
    assert_eq!(missing(&union), [10, 20, 20]);
    let inside = table("rows.ndjson", &data, "--features /in/x/0,b,/in/x/1").unwrap();
    assert_eq!(names(&inside), ["/in/x/0", "b", "/in/x/1"]);
    assert_eq!(missing(&inside), [20, 20, 30]);
    assert_eq!(values(&inside, 0)[..4], [-1.0, 1.0, -1.0, 2.0]);
    for (flags, reason) in [
        (
            "--features in",
            "field \"in\" has objects or arrays; name a value inside",
        ),
        ("--features c", "field \"c\" has no value"),
        ("--drop c", "no row has the field \"c\" that --drop names"),
        (
            "--categorical c",
            "no row has the field \"c\" that --categorical names",
        ),
    ] {
        let message = fault("rows.ndjson", &data, flags);
        assert!(message.contains(reason), "{message}");
    }
    // As in a request, a string is not a number. NA is a string, too.
    let data: String = (0..40)
        .map(|row| match row {
            3 => "{\"a\":\"NA\",\"y\":1}\n".to_owned(),
            _ => format!("{{\"a\":{row},\"s\":\"{}\",\"y\":{}}}\n", row % 4, row % 2),
        })
        .collect();
    let message = fault("rows.ndjson", &data, "");
    assert!(
        message.contains("rows.ndjson:4: row 4: field \"a\": \"NA\" is not a number"),
        "{message}"
    );
    let named = table("rows.ndjson", &data, "--missing NA").unwrap();
    assert_eq!(named.features[0], numbers("a", &["NA"]));
    assert_eq!(
        named.features[1],
        categories("s", &["0", "1", "2", "3"], &[])
    );
}

#[test]
fn faults_outside_of_the_used_columns_fault_nothing() {
    let good = csv("a,b,y", 20, |row| format!("{row},{},{}", row % 5, row % 2));
    let expected = table("rows.csv", &good, "").unwrap();
    let with = |replaced: [(&str, &[u8]); 2]| {
        let mut bytes = Vec::new();
        for (number, line) in good.lines().enumerate() {
            let (end, added) = replaced[usize::from(number > 0)];
            if end == "front" {
                bytes.extend_from_slice(added);
            }
            bytes.extend_from_slice(line.as_bytes());
            if end == "back" {
                bytes.extend_from_slice(added);
            }
            bytes.push(b'\n');
        }
        bytes
    };
    let same = Ok(());
    for (replaced, automatic) in [
        ([("back", &b",,"[..]), ("back", &b",,"[..])], same),
        ([("back", b",,"), ("back", b"")], same),
        ([("back", b",,"), ("back", b",x,\xff")], same),
        ([("", b""), ("back", b",,,")], same),
        ([("front", b","), ("front", b"7,")], same),
        // The whole column is not used, because it has no value that can be read.
        ([("front", b"n,"), ("front", b"J\xfcrgen,")], same),
        (
            [("front", b"gr\xf6\xdfe,"), ("front", b"1,")],
            Err("the name of column 1 is not UTF-8; convert the file, for example with `iconv"),
        ),
        (
            [("back", b",n,n"), ("back", b",1,2")],
            Err("column \"n\" occurs twice"),
        ),
    ] {
        let data = with(replaced);
        let used = table("rows.csv", &data, "--features a,b").unwrap();
        assert_eq!(used.rows.values, expected.rows.values);
        let found = table("rows.csv", &data, "");
        match automatic {
            Ok(()) => assert_eq!(found.unwrap().rows.values, expected.rows.values),
            // A name that cannot be read is not silently left out.
            Err(reason) => {
                let message = found.expect_err("a name cannot be read");
                assert!(message.contains(reason), "{message}");
            }
        }
    }
    // The same text in a column that is used is a fault.
    let data = with([("front", b"n,"), ("front", b"J\xfcrgen,")]);
    let mut more = b"n,a,b,y\n".to_vec();
    for row in 0..20 {
        more.extend_from_slice(if row == 7 { b"J\xfcrgen" } else { b"Ann" });
        more.extend_from_slice(format!("{},{row},1,{}\n", row % 2, row % 2).as_bytes());
    }
    let message = fault("rows.csv", &more, "--features n,a");
    assert!(
        message.contains("row 8: column \"n\" is not UTF-8") && message.contains("iconv"),
        "{message}"
    );
    assert!(table("rows.csv", data, "--drop n").is_ok());
    // The same holds in NDJSON.
    let data: String = (0..20)
        .map(|row| format!("{{\"a\":{row},\"z\":1,\"z\":2,\"y\":{}}}\n", row % 2))
        .collect();
    assert!(table("rows.ndjson", &data, "--features a").is_ok());
    assert!(table("rows.ndjson", &data, "--drop z").is_ok());
}

#[test]
fn separators_and_encodings_are_recognised_or_named() {
    let plain = csv("a,b,y", 20, |row| {
        format!("{row}.5,{},{}", row % 5, row % 2)
    });
    let expected = table("rows.csv", &plain, "").unwrap();
    let semicolons = plain.replace(',', ";");
    for (name, data, flags) in [
        ("rows.tsv", plain.replace(',', "\t"), ""),
        ("rows.txt", plain.replace(',', "\t"), "--format csv"),
        ("rows", semicolons.clone(), ""),
        ("rows.csv", plain.replace(',', "|"), ""),
        ("rows.csv", plain.replace(',', ":"), "--delimiter :"),
        ("rows.csv", plain.replace(',', "\t"), "--delimiter tab"),
        ("rows.csv", semicolons.replace('.', ","), "--decimal ,"),
        (
            "rows.csv",
            plain
                .replace(".5", ",5")
                .replace(",5,", "#")
                .replace('#', ".5,"),
            "",
        ),
    ] {
        let found = table(name, data, flags).unwrap();
        assert_eq!(found.features, expected.features);
        assert_eq!(found.rows.values, expected.rows.values);
    }
    let utf16 = |swap: bool| -> Vec<u8> {
        let units = "\u{feff}".encode_utf16().chain(plain.encode_utf16());
        units
            .flat_map(|unit| {
                if swap {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            })
            .collect()
    };
    let quoted = csv("a,b,y", 20, |row| {
        format!("\"{row},5\",{},{}", row % 5, row % 2)
    });
    for (data, reason) in [
        (
            utf16(false),
            "is UTF-16, and not UTF-8; convert it with `iconv -f UTF-16 -t UTF-8`",
        ),
        (utf16(true), "is UTF-16"),
        (utf16(false)[2..].to_vec(), "is UTF-16"),
        (b"PK\x03\x04rest".to_vec(), "is a ZIP archive"),
        (
            quoted.into_bytes(),
            "column \"a\" has a decimal comma in values such as \"0,5\"; --decimal , reads decimal \
             commas",
        ),
        (
            semicolons.replace('.', ",").into_bytes(),
            "--decimal , reads decimal commas, and --categorical",
        ),
        (
            format!("# made by a tool\n\n{plain}").into_bytes(),
            "`tail -n +3 ",
        ),
        (
            format!("Report,2026\n{plain}").into_bytes(),
            "line 2 has that name",
        ),
        (
            plain.replacen("y", "Y", 1).into_bytes(),
            "did you mean \"Y\"?",
        ),
        (
            plain.replace(',', ":").into_bytes(),
            "name the separator with --delimiter",
        ),
        (
            csv("a,b,y", 20, |row| format!("r{row},{row},1,{}", row % 2)).into_bytes(),
            "row 1: has 4 fields, but the header has 3; if the first field is the name of the row",
        ),
    ] {
        let message = fault("rows.csv", data, "");
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn with_a_decimal_comma_a_point_is_never_a_decimal_point() {
    let data =
        |row: fn(usize) -> String| csv("a;b;y", 40, |at| format!("{};{at};{}", row(at), at % 2));
    let flags = "--delimiter ; --decimal ,";
    for (row, reason) in [
        (
            (|row| format!("{row}.500")) as fn(usize) -> String,
            "column \"a\" has a decimal point in values such as \"0.500\"; without --decimal , a \
             number has a decimal point, and --categorical takes the values for texts",
        ),
        (
            |row| {
                if row == 7 {
                    "1.234".to_owned()
                } else {
                    format!("{row},5")
                }
            },
            "row 8: column \"a\": \"1.234\" has a decimal point; without --decimal , a number has",
        ),
    ] {
        let message = fault("rows.csv", data(row), flags);
        assert!(message.contains(reason), "{message}");
    }
    let texts = table(
        "rows.csv",
        data(|row| format!("{}.5", row % 3)),
        &format!("{flags} --categorical a"),
    );
    assert_eq!(
        texts.unwrap().features[0],
        categories("a", &["0.5", "1.5", "2.5"], &[])
    );
    // Categories and classes that are numbers have a decimal point in the model, as in
    // JSON.
    let codes = csv("a;y", 40, |row| format!("{},50;{},0", row % 3, row % 2));
    let codes = table("rows.csv", codes, &format!("{flags} --categorical a")).unwrap();
    assert_eq!(
        codes.features[0],
        categories("a", &["0.5", "1.5", "2.5"], &[])
    );
    assert_eq!(codes.classes, ["0.0", "1.0"]);
    let message = fault(
        "rows.csv",
        data(|row| format!("{row},5"))
            .replace(";0\n", ";0.5\n")
            .replace(";1\n", ";1.5\n"),
        &format!("{flags} --task regress"),
    );
    assert!(
        message.contains("column \"y\" has texts, such as \"0.5\"")
            && message.contains("without --decimal ,"),
        "{message}"
    );
}

#[test]
fn a_value_of_impute_must_fit_the_columns_that_are_numbers() {
    let data = csv("a,c,y", 20, |row| match row {
        4 => format!(",,{}", row % 2),
        _ => format!("{row},{},{}", ["u", "v"][row % 3 / 2], row % 2),
    });
    for (flag, impute) in [
        ("median", Impute::Median),
        ("mean", Impute::Mean),
        ("most-frequent", Impute::MostFrequent),
        ("-1", Impute::Value("-1".to_owned())),
    ] {
        let table = table("rows.csv", &data, &format!("--impute {flag}")).unwrap();
        assert_eq!(table.impute, impute);
    }
    let message = fault("rows.csv", &data, "--impute none");
    assert!(
        message.contains("--impute \"none\" cannot fill column \"a\""),
        "{message}"
    );
    // A column without missing values needs no fill value.
    let whole = data.replace("\n,,", "\n5,,");
    assert!(table("rows.csv", &whole, "--impute none").is_ok());
    // The fill value of a feature with categories is a category.
    let table = table("rows.csv", &data, "--impute none --drop a").unwrap();
    assert_eq!(table.features, [categories("c", &["none", "u", "v"], &[])]);
}

#[test]
fn categories_match_what_a_request_may_write() {
    let data = csv("zip,code,flag,y", 12, |row| {
        let zip = ["01234", "1", "9"][row % 3];
        format!(
            "{zip},{}.0,{},{}",
            row % 3,
            ["TRUE", "False"][row % 2],
            row % 2
        )
    });
    let table = table("rows.csv", data, "--categorical zip,code,flag").unwrap();
    assert_eq!(
        table.features,
        [
            categories("zip", &["01234", "1", "9"], &[]),
            categories("code", &["0", "1", "2"], &[]),
            categories("flag", &["false", "true"], &[]),
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the cells are mixed, the table has the values that were written, a fault
    /// is named, and no row is lost without being counted.
    #[test]
    fn each_cell_is_a_value_or_missing_or_its_row_is_left_out(
        cells in proptest::collection::vec(
            prop_oneof![
                8 => (-1000i32..1000).prop_map(|number| number.to_string()),
                1 => Just(String::new()),
                1 => Just("NA".to_owned()),
                2 => "[a-c]",
                1 => Just("inf".to_owned()),
            ],
            30..120,
        ),
    ) {
        let data = csv("x,one,y", cells.len(), |row| format!("{},{},{}", cells[row], row % 3, row % 2));
        let table = table("rows.csv", data, "--features x,one --skip-bad-rows");
        let Ok(table) = table else {
            return Ok(());
        };
        prop_assert_eq!(table.rows.len() as u64 + table.left_out, cells.len() as u64);
        let words = cells.iter().filter(|cell| matches!(cell.as_str(), "a" | "b" | "c")).count();
        let present = cells.iter().filter(|cell| !cell.is_empty() && *cell != "NA").count();
        let infinite = cells.iter().filter(|cell| *cell == "inf").count();
        let is_numbers = words <= ((present - infinite) / 10).max(1);
        prop_assert_eq!(table.features[0].categories().is_none(), is_numbers);
        for (row, number) in table.numbers.iter().enumerate() {
            let (value, cell) = (table.rows.row(row)[0], &cells[*number as usize - 1]);
            match table.features[0].categories() {
                None => match cell.parse::<f64>() {
                    Ok(expected) => prop_assert_eq!(value, expected),
                    Err(_) => prop_assert!(value.is_nan() && (cell.is_empty() || cell == "NA")),
                },
                Some(categories) => match cell.as_str() {
                    "" => prop_assert!(value.is_nan()),
                    text => prop_assert_eq!(&categories[value as usize], text),
                },
            }
        }
    }

    /// The kind of a column does not depend on the order of the rows.
    #[test]
    fn the_order_of_the_rows_decides_nothing(
        mut cells in proptest::collection::vec(
            prop_oneof![6 => (0u32..9).prop_map(|one| one.to_string()), 1 => "[a-c]", 1 => Just("?".to_owned())],
            20..80,
        ),
    ) {
        let features = |cells: &[String]| {
            let data = csv("x,one,y", cells.len(), |row| format!("{},{},{}", cells[row], row % 3, row % 2));
            table("rows.csv", data, "--skip-bad-rows").map(|table| table.features)
        };
        let forward = features(&cells);
        cells.reverse();
        let backward = features(&cells);
        prop_assert_eq!(forward.is_ok(), backward.is_ok());
        if let (Ok(forward), Ok(backward)) = (forward, backward) {
            prop_assert_eq!(forward, backward);
        }
    }
}
