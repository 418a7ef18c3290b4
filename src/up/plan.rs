//! From the file to the processes: their command lines, their pipes, and their order.
//!
//! The pipes of the run folder, in the order of a request:
//!
//! ```text
//! front -> pipes/requests -> tee -> models/SEAT -> SEAT -> scores/SEAT -> rendezvous
//!                                   (a shadow writes shadows/SEAT)
//!                                -> keep/rendezvous -> rendezvous -> pipes/responses -> front
//!                                -> keep/archive -> archive
//! rendezvous -> pipes/decided -> decisions, elasticsearch, or both (through `decided`)
//! ```

use crate::up::config::{Config, Flag, Role, Runs, Seat, Section};
use crate::up::policy::NamedModels;

/// The folders of the run folder that hold pipes.
pub const PIPE_FOLDERS: [&str; 7] = [
    "pipes", "models", "scores", "shadows", "keep", "decided", "stderr",
];

/// The other folders of the run folder.
pub const FOLDERS: [&str; 5] = ["policies", "stats", "logs", "processes", "spill"];

/// How a stage is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ends when its input ends.
    Input,
    /// It has no input that ends, so it gets SIGTERM.
    Signal,
}

/// The streams of a stage that does not open its pipes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// The program opens the pipes by their names.
    Named,
    /// The pipes are the program's standard input and output.
    Standard,
}

/// One stage: what runs, and its pipes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagePlan {
    /// The name: of the stage, its log and its stats.
    pub name: String,
    /// The program: one of rv's, or `sh`.
    pub program: &'static str,
    /// The arguments.
    pub arguments: Vec<String>,
    /// The argument that a successor gets, because its predecessor may have died inside
    /// a line.
    pub resume: Option<&'static str>,
    /// The pipe that the stage reads. Its writing end is held while the stage shall run.
    pub reads: String,
    /// The pipe whose reading end is held, so that the stage outlives its reader. `None`
    /// if the stage itself handles the loss of its reader.
    pub writes: Option<String>,
    /// How the stage gets its pipes.
    pub streams: Streams,
    /// How the stage is told to end.
    pub ending: Ending,
    /// Whether answers have precedence over this stage.
    pub is_nice: bool,
    /// Whether the stage gets the listening socket.
    pub has_socket: bool,
    /// Whether the stage belongs to a seat.
    pub is_seat: bool,
    /// Whether the stage is restarted when it is stuck.
    pub restart_when_stuck: bool,
}

impl StagePlan {
    /// The file with the counts of the stage.
    pub fn stats(&self, dir: &str) -> String {
        stats_path(dir, &self.name)
    }
}

fn stats_path(dir: &str, stage: &str) -> String {
    format!("{dir}/stats/{stage}.prom")
}

/// All stages, in the order in which they are started. They are ended in the order of
/// [`end_order`].
pub fn plan(config: &Config, policy: &NamedModels) -> Vec<StagePlan> {
    let mut stages = Vec::new();
    stages.extend(decision_stages(config));
    if let Some(archive) = &config.archive {
        stages.push(archive_of(config, archive, "archive", "keep/archive"));
    }
    stages.push(rendezvous(config));
    stages.extend({ config.seats.iter() }.map(|seat| seat_stage(config, seat, policy)));
    stages.push(tee(config, policy));
    stages.push(front(config, policy));
    stages
}

/// The position of a stage when all stages end, from the front end on. A stage ends after
/// the stages that write its input.
pub fn end_order(stage: &StagePlan) -> u8 {
    match stage.name.as_str() {
        "front" => 0,
        "tee" => 1,
        _ if stage.is_seat => 2,
        "archive" => 3,
        "rendezvous" => 4,
        "decided" => 5,
        _ => 6,
    }
}

/// The pipes that a stage needs, relative to the folder of the file.
pub fn pipes(dir: &str, stage: &StagePlan) -> Vec<String> {
    let mut pipes = vec![stage.reads.clone(), stderr_pipe(dir, &stage.name)];
    pipes.extend(stage.writes.clone());
    pipes
}

/// The pipe of a stage's messages.
pub fn stderr_pipe(dir: &str, stage: &str) -> String {
    format!("{dir}/stderr/{stage}")
}

/// A stage with the flags that all of rv's programs share.
fn stage(config: &Config, name: &str, program: &'static str, arguments: Vec<String>) -> StagePlan {
    let mut arguments = arguments;
    arguments.push(format!("--stats={}", stats_path(&config.dir, name)));
    StagePlan {
        name: name.to_owned(),
        program,
        arguments,
        resume: None,
        reads: String::new(),
        writes: None,
        streams: Streams::Named,
        ending: Ending::Input,
        is_nice: false,
        has_socket: false,
        is_seat: false,
        restart_when_stuck: config.supervision.restart_when_stuck,
    }
}

fn arguments_of(section: &Section) -> Vec<String> {
    section.flags.iter().flat_map(Flag::arguments).collect()
}

/// `--name=value` for each pair.
fn arguments<const N: usize>(pairs: [(&str, &str); N]) -> Vec<String> {
    pairs
        .map(|(name, value)| format!("--{name}={value}"))
        .into()
}

/// The longest time from a request to its response, in whole seconds: longer than the
/// deadline of the policy.
fn answer_seconds(policy: &NamedModels) -> u64 {
    // A deadline has at most a day, so the value is small and positive.
    10.max((policy.deadline_ms / 1000.0).ceil() as u64 + 2)
}

fn front(config: &Config, policy: &NamedModels) -> StagePlan {
    let dir = &config.dir;
    let responses = format!("{dir}/pipes/responses");
    let requests = format!("{dir}/pipes/requests");
    let mut given = arguments([
        ("listen", &config.front.listen),
        ("responses", &responses),
        ("output", &requests),
    ]);
    if config.front.section.flag("timeout").is_none() {
        given.push(format!("--timeout={}s", answer_seconds(policy)));
    }
    given.extend(arguments_of(&config.front.section));
    StagePlan {
        resume: Some("--resume"),
        reads: responses,
        writes: Some(requests),
        ending: Ending::Signal,
        has_socket: true,
        ..stage(config, "front", "rv-request", given)
    }
}

fn tee(config: &Config, policy: &NamedModels) -> StagePlan {
    let dir = &config.dir;
    let requests = format!("{dir}/pipes/requests");
    // Nobody waits for the score of a request that is older than its deadline.
    let age_ms = (policy.deadline_ms.ceil() as u64).max(1);
    let mut given = arguments([
        ("input", &requests),
        ("live-dir", &format!("{dir}/models")),
        ("keep-dir", &format!("{dir}/keep")),
        ("spill-dir", &format!("{dir}/spill")),
        ("live-age", &format!("{age_ms}ms")),
    ]);
    given.push("--no-stdout".to_owned());
    StagePlan {
        resume: Some("--resume"),
        reads: requests,
        ..stage(config, "tee", "rv-tee", given)
    }
}

fn rendezvous(config: &Config) -> StagePlan {
    let dir = &config.dir;
    let requests = format!("{dir}/keep/rendezvous");
    let responses = format!("{dir}/pipes/responses");
    let mut given = arguments([
        ("requests", &requests),
        ("scores", &format!("{dir}/scores")),
        ("shadows", &format!("{dir}/shadows")),
        ("policy", &format!("{dir}/policy.toml")),
        ("keep-policies", &format!("{dir}/policies")),
        ("output", &responses),
    ]);
    if config.archive.is_some() || config.elasticsearch.is_some() {
        given.push(format!("--decisions={dir}/pipes/decided"));
    }
    StagePlan {
        resume: Some("--resume"),
        reads: requests,
        writes: Some(responses),
        ..stage(config, "rendezvous", "rv-rendezvous", given)
    }
}

/// An archive of the stream in `pipe`. The folder has the name of the stage.
fn archive_of(config: &Config, section: &Section, name: &str, pipe: &str) -> StagePlan {
    let dir = &config.dir;
    let reads = format!("{dir}/{pipe}");
    let mut given = arguments([("input", &reads), ("dir", &format!("{dir}/{name}"))]);
    given.extend(arguments_of(section));
    StagePlan {
        reads,
        is_nice: true,
        ..stage(config, name, "rv-archive", given)
    }
}

fn elasticsearch(config: &Config, section: &Section, pipe: &str) -> StagePlan {
    let reads = format!("{}/{pipe}", config.dir);
    let mut given = arguments([("input", &reads)]);
    if section.flag("index").is_none() {
        given.push("--index=decision-log-%Y.%m.%d".to_owned());
    }
    given.extend(arguments_of(section));
    StagePlan {
        reads,
        is_nice: true,
        ..stage(config, "elasticsearch", "rv-es-sink", given)
    }
}

/// The stages that read the decisions. If there are two, an `rv-tee` keeps the slower one
/// from delaying the other.
fn decision_stages(config: &Config) -> Vec<StagePlan> {
    let dir = &config.dir;
    match (&config.archive, &config.elasticsearch) {
        (None, None) => Vec::new(),
        (Some(archive), None) => vec![archive_of(config, archive, "decisions", "pipes/decided")],
        (None, Some(sink)) => vec![elasticsearch(config, sink, "pipes/decided")],
        (Some(archive), Some(sink)) => {
            let reads = format!("{dir}/pipes/decided");
            let mut given = arguments([
                ("input", &reads),
                ("keep-dir", &format!("{dir}/decided")),
                ("spill-dir", &format!("{dir}/spill-decided")),
                ("on-full", "drop"),
            ]);
            given.push("--no-stdout".to_owned());
            let both = StagePlan {
                resume: Some("--resume"),
                reads,
                is_nice: true,
                ..stage(config, "decided", "rv-tee", given)
            };
            vec![
                elasticsearch(config, sink, "decided/elasticsearch"),
                archive_of(config, archive, "decisions", "decided/decisions"),
                both,
            ]
        }
    }
}

/// The stage of a seat.
pub fn seat_stage(config: &Config, seat: &Seat, policy: &NamedModels) -> StagePlan {
    let (dir, name) = (&config.dir, &seat.name);
    let folder = match seat.role {
        Role::Model => "scores",
        Role::Shadow => "shadows",
    };
    let (reads, writes) = (
        format!("{dir}/models/{name}"),
        format!("{dir}/{folder}/{name}"),
    );
    let common = StagePlan {
        reads: reads.clone(),
        writes: Some(writes.clone()),
        is_seat: true,
        restart_when_stuck: seat.restart_when_stuck || config.supervision.restart_when_stuck,
        ..stage(config, &seat.name, "rv-score", Vec::new())
    };
    if let Runs::Command(command) = &seat.runs {
        return StagePlan {
            program: "sh",
            arguments: vec!["-c".to_owned(), command.clone()],
            streams: Streams::Standard,
            ..common
        };
    }
    let mut given = arguments([("input", &reads), ("output", &writes)]);
    given.extend(model_arguments(seat));
    given.extend(skip_older(seat, policy));
    given.extend(arguments_of(&seat.section));
    given.extend(common.arguments);
    StagePlan {
        arguments: given,
        resume: Some("--resume"),
        ..common
    }
}

/// Keeps a program or a server from working on requests whose answers would come too late.
/// A little of the deadline is left for the way back.
fn skip_older(seat: &Seat, policy: &NamedModels) -> Option<String> {
    let may_be_slow = matches!(seat.runs, Runs::Exec(_) | Runs::Url(_));
    let limit_ms = (policy.deadline_ms * 0.95).floor() as u64;
    let is_wanted = may_be_slow && limit_ms > 0 && seat.section.flag("skip-older").is_none();
    is_wanted.then(|| format!("--skip-older={limit_ms}ms"))
}

fn model_arguments(seat: &Seat) -> Vec<String> {
    let (flag, value) = match &seat.runs {
        Runs::File(path) => ("model", path),
        Runs::Exec(command) => ("exec", command),
        Runs::Url(url) => ("url", url),
        Runs::Command(_) => return Vec::new(),
    };
    let mut given = arguments([(flag, value)]);
    if matches!(seat.runs, Runs::Url(_)) && seat.section.flag("protocol").is_none() {
        given.push("--protocol=json".to_owned());
    }
    let is_file = flag == "model";
    if let Some(name) = seat
        .model_name
        .as_ref()
        .or((!is_file).then_some(&seat.name))
    {
        given.push(format!("--name={name}"));
    }
    if let Some(version) = seat.version.or((!is_file).then_some(1)) {
        given.push(format!("--model-version={version}"));
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::config::parse;

    fn planned(text: &str) -> Vec<StagePlan> {
        let config = parse(text, "rv.toml").unwrap();
        let policy = NamedModels {
            deadline_ms: 250.5,
            ..NamedModels::default()
        };
        plan(&config, &policy)
    }

    fn names(stages: &[StagePlan]) -> Vec<&str> {
        stages.iter().map(|stage| stage.name.as_str()).collect()
    }

    fn find<'s>(stages: &'s [StagePlan], name: &str) -> &'s StagePlan {
        stages.iter().find(|stage| stage.name == name).unwrap()
    }

    const ALL: &str = "[model.a]\nfile = \"a.json\"\n[shadow.b]\nexec = \"b -x\"\nbatch = 3\n\
        [model.c]\nurl = \"http://c\"\nname = \"n\"\nversion = 7\n[model.d]\ncommand = \"d e\"\n\
        [archive]\n[elasticsearch]\nurl = \"http://e\"\n";

    #[test]
    fn readers_start_before_their_writers_and_end_after_them() {
        let stages = planned(ALL);
        let order = names(&stages);
        assert_eq!(
            order,
            [
                "elasticsearch",
                "decisions",
                "decided",
                "archive",
                "rendezvous",
                "a",
                "b",
                "c",
                "d",
                "tee",
                "front"
            ]
        );
        // Whoever writes a pipe ends before the reader of the pipe.
        let written = [
            ("front", "tee"),
            ("tee", "a"),
            ("tee", "archive"),
            ("tee", "rendezvous"),
            ("a", "rendezvous"),
            ("rendezvous", "decided"),
            ("decided", "decisions"),
            ("decided", "elasticsearch"),
        ];
        for (writer, reader) in written {
            let order = |name| end_order(find(&stages, name));
            assert!(order(writer) < order(reader), "{writer} {reader}");
        }
    }

    #[test]
    fn each_pipe_has_one_reader_and_the_readers_of_a_tee_are_never_held() {
        let stages = planned(ALL);
        let mut reads: Vec<&str> = stages.iter().map(|stage| stage.reads.as_str()).collect();
        reads.sort_unstable();
        reads.dedup();
        assert_eq!(reads.len(), stages.len());
        for stage in &stages {
            let held = stage.writes.as_deref().unwrap_or_default();
            for folder in ["/models/", "/keep/", "/decided/"] {
                assert!(!held.contains(folder), "{stage:?}");
            }
        }
    }

    #[test]
    fn a_seat_is_an_rv_score_with_the_flags_of_its_kind() {
        let stages = planned(ALL);
        let of = |name| find(&stages, name).arguments.join(" ");
        assert_eq!(
            of("a"),
            "--input=rv-run/models/a --output=rv-run/scores/a --model=a.json \
             --stats=rv-run/stats/a.prom"
        );
        assert_eq!(
            of("b"),
            "--input=rv-run/models/b --output=rv-run/shadows/b --exec=b -x --name=b \
             --model-version=1 --skip-older=237ms --batch=3 --stats=rv-run/stats/b.prom"
        );
        assert!(of("c").contains(
            "--url=http://c --protocol=json --name=n --model-version=7 --skip-older=237ms"
        ));
        let d = find(&stages, "d");
        assert_eq!((d.program, d.streams), ("sh", Streams::Standard));
        assert_eq!(d.arguments, ["-c", "d e"]);
    }

    #[test]
    fn time_outs_follow_the_deadline_of_the_policy() {
        let stages = planned("[model.a]\nfile = \"a\"\n");
        assert_eq!(names(&stages), ["rendezvous", "a", "tee", "front"]);
        assert!(
            find(&stages, "tee")
                .arguments
                .contains(&"--live-age=251ms".to_owned())
        );
        assert!(
            find(&stages, "front")
                .arguments
                .contains(&"--timeout=10s".to_owned())
        );
        assert!(
            !find(&stages, "rendezvous")
                .arguments
                .iter()
                .any(|it| it.contains("decisions"))
        );
        let slow = NamedModels {
            deadline_ms: 30_000.0,
            ..NamedModels::default()
        };
        assert_eq!(answer_seconds(&slow), 32);
        let stages = planned("[front]\ntimeout = \"3s\"\n");
        let front = find(&stages, "front");
        assert!(front.has_socket && front.ending == Ending::Signal);
        assert!(front.arguments.contains(&"--timeout=3s".to_owned()));
        assert!(!front.arguments.contains(&"--timeout=10s".to_owned()));
    }
}
