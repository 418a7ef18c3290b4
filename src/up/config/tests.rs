//! Tests of the file: what it may hold, what is refused, and how it is edited.

use std::time::Duration;

use proptest::prelude::*;

use super::content::SEATS_MAX;
use super::*;

const DESIGN: &str = r#"
[front]
listen = "127.0.0.1:8000"
plain = "/classify"

[model.current]
url = "http://127.0.0.1:9001/classify"
[model.dt]
file = "dt.json"
[shadow.next]
exec = "python3 next.py"
name = "next"
version = 4
batch = 64
probabilities = true

[archive]
keep_bytes = "10GiB"
[elasticsearch]
url = "http://127.0.0.1:9200"
"#;

fn fault(text: &str) -> String {
    let error = parse(text, "rv.toml").unwrap_err();
    assert_eq!(error.chain().len(), 1);
    error.to_string()
}

#[test]
fn the_file_of_the_design_is_read() {
    let config = parse(DESIGN, "rv.toml").unwrap();
    assert_eq!(config.dir, "rv-run");
    assert_eq!(config.policy, "policy.toml");
    assert_eq!(config.front.listen, "127.0.0.1:8000");
    assert_eq!(config.front.listen_line, 3);
    let plain = config.front.section.flag("plain").unwrap();
    assert_eq!(plain.arguments(), ["--plain=/classify"]);
    let names: Vec<_> = { config.seats.iter() }
        .map(|seat| (seat.role, seat.name.as_str(), seat.line))
        .collect();
    assert_eq!(
        names,
        [
            (Role::Model, "current", 6),
            (Role::Model, "dt", 8),
            (Role::Shadow, "next", 10)
        ]
    );
    let next = config.seat("next").unwrap();
    assert_eq!(next.runs, Runs::Exec("python3 next.py".to_owned()));
    assert_eq!(
        (next.model_name.as_deref(), next.version),
        (Some("next"), Some(4))
    );
    let flags: Vec<String> = { next.section.flags.iter() }
        .flat_map(Flag::arguments)
        .collect();
    assert_eq!(flags, ["--batch=64", "--probabilities"]);
    let archive = config.archive.unwrap();
    assert_eq!(archive.flags[0].arguments(), ["--keep-bytes=10GiB"]);
    assert_eq!(config.elasticsearch.unwrap().line, 19);
    assert_eq!(config.supervision.stuck_after, Duration::from_secs(10));
}

#[test]
fn an_empty_file_has_the_defaults() {
    let config = parse("", "rv.toml").unwrap();
    assert_eq!(config.front.listen, "127.0.0.1:8000");
    assert!(config.seats.is_empty() && config.admin.is_none() && config.archive.is_none());
}

#[test]
fn each_fault_names_its_line_and_its_remedy() {
    for (text, expected) in [
        (
            "\n[back]\n",
            "rv.toml:2: \"back\" is no key of the file; the keys are dir, policy",
        ),
        (
            "[front]\n\nresponses = 1",
            "rv.toml:3: rv-up itself sets responses",
        ),
        (
            "[front]\nlisten = 8000",
            "rv.toml:2: listen must be a text in quotes",
        ),
        (
            "[front]\nhost = { a = 1 }",
            "rv.toml:2: host must be a text, a number",
        ),
        ("front = 1", "rv.toml:1: front must be a table: [front]"),
        (
            "[model]\nfile = \"a\"",
            "rv.toml:2: model needs a name: [model.NAME]",
        ),
        ("model = 1", "rv.toml:1: model needs a name"),
        (
            "\n[model.dt]\n",
            "rv.toml:2: [model.dt] needs exactly one of file",
        ),
        (
            "[model.dt]\nfile = \"a\"\nurl = \"b\"",
            "rv.toml:1: [model.dt] needs exactly one of file",
        ),
        (
            "[model.\"../x\"]\nfile = \"a\"",
            "rv.toml:1: \"../x\" cannot name a model: use up to 64",
        ),
        (
            "[model.tee]\nfile = \"a\"",
            "rv.toml:1: \"tee\" cannot name a model, because a stage",
        ),
        (
            "[model.a]\nfile = \"a\"\n[shadow.a]\nfile = \"b\"",
            "rv.toml:3: a model and a shadow are called a",
        ),
        (
            "[model.a]\nfile = \"a\"\nversion = 2",
            "rv.toml:1: [model.a]: the model file holds the",
        ),
        (
            "[model.a]\nexec = \"a\"\nversion = -2",
            "rv.toml:3: version must be a whole number",
        ),
        (
            "[model.a]\nexec = \"\"",
            "rv.toml:2: exec is empty or has a control character",
        ),
        (
            "[model.a]\nexec = \"a\"\nrescore = true",
            "rv.toml:3: rv-up itself sets rescore",
        ),
        (
            "[model.a]\ncommand = \"a\"\nbatch = 2",
            "rv.toml:1: [model.a]: a command takes no flag",
        ),
        (
            "[admin]\n",
            "rv.toml:1: [admin] needs an address, as in listen = \"127.0.0.1:8001\"",
        ),
        (
            "[admin]\nlisten = \"a\"\ntoken = \"b\"",
            "rv.toml:3: \"token\" is no key of [admin]",
        ),
        (
            "[supervision]\nstuck_after = 3",
            "rv.toml:2: stuck_after must be a duration, as in",
        ),
        ("[archive]\ndir = \"x\"", "rv.toml:2: rv-up itself sets dir"),
        (
            "[archive]\n\"a b\" = 1",
            "rv.toml:2: \"a b\" is no flag of rv-archive",
        ),
        ("a = ", "rv.toml:1: "),
    ] {
        let said = fault(text);
        assert!(said.starts_with(expected), "{text:?}: {said}");
    }
    let many: String = (0..=SEATS_MAX)
        .map(|it| format!("[model.m{it}]\nfile = \"a\"\n"))
        .collect();
    assert!(fault(&many).contains("more than 256 models"));
}

fn seat(role: Role, name: &str) -> Seat {
    Seat {
        role,
        name: name.to_owned(),
        line: 0,
        runs: Runs::Exec("python3 'a b.py' \"c\"".to_owned()),
        runs_line: 0,
        model_name: Some("n".to_owned()),
        version: Some(3),
        section: Section {
            line: 0,
            flags: vec![
                Flag {
                    name: "batch".to_owned(),
                    value: FlagValue::Values(vec!["8".to_owned()]),
                    line: 0,
                },
                Flag {
                    name: "probabilities".to_owned(),
                    value: FlagValue::Switch(true),
                    line: 0,
                },
            ],
        },
        restart_when_stuck: true,
    }
}

fn added(text: &str, seat: &Seat) -> String {
    with_seat(text, "rv.toml", seat.role, &seat.name, &section_of(seat)).unwrap()
}

#[test]
fn a_seat_that_is_added_is_read_back_and_removing_it_restores_the_file() {
    for name in ["new", "a.b@2"] {
        let new = seat(Role::Shadow, name);
        let after = added(DESIGN, &new);
        let config = parse(&after, "rv.toml").unwrap();
        let read = config.seat(name).unwrap();
        assert_eq!((read.role, &read.runs), (new.role, &new.runs));
        assert_eq!(
            (&read.model_name, read.version),
            (&new.model_name, new.version)
        );
        assert!(read.restart_when_stuck);
        let arguments = |seat: &Seat| -> Vec<String> {
            let flags = seat.section.flags.iter();
            flags.flat_map(Flag::arguments).collect()
        };
        assert_eq!(arguments(read), arguments(&new));
        assert_eq!(without_seat(&after, "rv.toml", name).unwrap(), DESIGN);
    }
}

#[test]
fn removing_a_seat_keeps_the_comments_of_the_others() {
    let text = "# ours\n[model.a]\nfile = \"a\" # one\n\n# the second\n[model.b]\nfile = \"b\"\n";
    assert_eq!(
        without_seat(text, "rv.toml", "a").unwrap(),
        "# ours\n\n# the second\n[model.b]\nfile = \"b\"\n"
    );
    assert_eq!(
        without_seat(text, "rv.toml", "b").unwrap(),
        "# ours\n[model.a]\nfile = \"a\" # one\n\n# the second\n"
    );
}

#[test]
fn what_cannot_be_edited_is_refused_and_says_how_to_go_on() {
    let inline = "model = { a = { file = \"a\" }, b = { file = \"b\" } }\n";
    let said = without_seat(inline, "rv.toml", "a")
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("remove it there, and run `rv-up reload`"),
        "{said}"
    );
    let new = seat(Role::Model, "c");
    let said = with_seat(inline, "rv.toml", new.role, "c", &section_of(&new));
    assert!(said.is_err());
    let said = without_seat(DESIGN, "rv.toml", "no")
        .unwrap_err()
        .to_string();
    assert_eq!(said, "no model is called no");
    let twice = with_seat(
        DESIGN,
        "rv.toml",
        Role::Model,
        "dt",
        "[model.dt]\nfile = \"b\"\n",
    );
    let said = twice.unwrap_err().to_string();
    assert_eq!(said, "rv.toml:8: dt exists already; remove it first");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(?s).{0,80}|[\\[\\]a-z.=\"\n ]{0,60}") {
        let _ = parse(&text, "rv.toml");
    }

    #[test]
    fn a_cut_never_panics_and_never_adds_text(text in "[\\[\\]a#.=\n ]{0,40}", line in 0_usize..12) {
        let cut = super::edit::cut(&text, line);
        prop_assert!(cut.len() <= text.len());
    }
}
