//! The checks before anything starts: programs, flags, models, addresses, the policy.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};

use crate::model::Model;
use crate::stage::usage;
use crate::up::config::{Config, POLICY, Role, Runs, Seat, Section};
use crate::up::holder::bind;
use crate::up::plan::{self, StagePlan};
use crate::up::policy::{ModelId, NamedModels, production_alone};
use crate::up::programs::{Programs, is_executable};

/// Words that a shell understands itself.
const SHELL_WORDS: [&str; 24] = [
    ".", ":", "[", "case", "cd", "command", "echo", "env", "eval", "exec", "export", "false",
    "for", "if", "nice", "printf", "read", "set", "test", "trap", "true", "ulimit", "until",
    "while",
];

/// The policy that is in effect, and what was said about it.
#[derive(Debug)]
pub struct CheckedPolicy {
    /// The text.
    pub text: String,
    /// The models that it names.
    pub named: NamedModels,
    /// Warnings of `rv-rendezvous check`, and of this program.
    pub warnings: Vec<String>,
}

/// Checks everything that can be checked before the start.
pub fn check_all(config: &Config, file: &str, programs: &Programs) -> Result<CheckedPolicy> {
    if config.seats.iter().all(|seat| seat.role == Role::Shadow) {
        return Err(usage(format!(
            "{file}: no model may answer; add [model.NAME] with file, exec, url or command"
        )));
    }
    let same = |path: &str| Path::new(path).canonicalize().ok();
    if same(&config.dir).is_some() && same(&config.dir) == same(".") {
        return Err(usage(format!(
            "{file}: the run folder is the folder of the file; give dir another name"
        )));
    }
    for seat in &config.seats {
        check_seat(config, seat, file, programs)?;
    }
    let policy = check_policy(config, file, programs)?;
    check_core(config, &policy.named, file, programs)?;
    check_reach(config, file)?;
    Ok(policy)
}

/// Checks the flags of the stages that are no seats.
fn check_core(
    config: &Config,
    policy: &NamedModels,
    file: &str,
    programs: &Programs,
) -> Result<()> {
    let none = Section::default();
    for stage in plan::plan(config, policy) {
        let section = match stage.name.as_str() {
            "front" => &config.front.section,
            "archive" | "decisions" => config.archive.as_ref().unwrap_or(&none),
            "elasticsearch" => config.elasticsearch.as_ref().unwrap_or(&none),
            _ if stage.is_seat => continue,
            _ => &none,
        };
        check_flags(&stage, section, file, programs)?;
    }
    Ok(())
}

/// Refuses an address that is in use. The sockets are closed again.
pub fn check_addresses(config: &Config, file: &str) -> Result<()> {
    let admin = config.admin.as_ref();
    let admin = admin.map(|admin| (admin.listen.as_str(), admin.line));
    let front = (config.front.listen.as_str(), config.front.listen_line);
    let mut sockets = Vec::new();
    for (address, line) in [Some(front), admin].into_iter().flatten() {
        let socket = bind(address).with_context(|| format!("{file}:{line}"))?;
        sockets.push(socket);
    }
    Ok(())
}

/// Refuses addresses that other machines can reach without a token.
fn check_reach(config: &Config, file: &str) -> Result<()> {
    let is_given = |name: &str| {
        let flag = config.front.section.flag(name);
        flag.is_some_and(|flag| flag.is_on())
    };
    let front_is_open = is_given("token-file") || is_given("allow-anonymous");
    if !front_is_open && !is_loopback(&config.front.listen) {
        return Err(usage(format!(
            "{file}:{}: {} can be reached from other machines: demand a token with token_file, \
             or allow everybody with allow_anonymous = true",
            config.front.listen_line, config.front.listen
        )));
    }
    if let Some(admin) = &config.admin {
        if admin.token_file.is_none() && !is_loopback(&admin.listen) {
            return Err(usage(format!(
                "{file}:{}: {} can be reached from other machines: demand a token with token_file",
                admin.line, admin.listen
            )));
        }
        if let Some(path) = &admin.token_file {
            crate::stage::http::secret::secret(Some(Path::new(path)), "")
                .with_context(|| format!("{file}:{}", admin.line))?;
        }
    }
    Ok(())
}

/// Whether only this machine can reach an address. An address that cannot be resolved is
/// refused elsewhere.
fn is_loopback(address: &str) -> bool {
    let resolved = std::net::ToSocketAddrs::to_socket_addrs(address);
    resolved.is_ok_and(|mut all| all.all(|it| it.ip().is_loopback()))
}

/// Checks one seat: its program, its flags and its model.
pub fn check_seat(config: &Config, seat: &Seat, file: &str, programs: &Programs) -> Result<()> {
    let at = |error: anyhow::Error| error.context(format!("{file}:{}", seat.runs_line));
    match &seat.runs {
        Runs::File(_) => {
            identity(seat).map_err(at)?;
        }
        Runs::Exec(command) | Runs::Command(command) => {
            check_command(command, programs).map_err(at)?;
        }
        Runs::Url(_) => {}
    }
    let stage = plan::seat_stage(config, seat, &NamedModels::default());
    match seat.runs {
        Runs::Command(_) => Ok(()),
        _ => check_flags(&stage, &seat.section, file, programs),
    }
}

/// The name and version of a seat's model; `None` if only the running model knows them.
pub fn identity(seat: &Seat) -> Result<Option<ModelId>> {
    let given = || {
        Some(ModelId {
            name: seat.model_name.clone()?,
            version: seat.version?,
        })
    };
    match &seat.runs {
        Runs::File(path) if path.ends_with(".onnx") => match is_readable(path) {
            true => Ok(given()),
            false => Err(usage(format!("{path}: no such model file"))),
        },
        Runs::File(path) => {
            let model = Model::load(path).map_err(|error| usage(format!("{error:#}")))?;
            Ok(Some(ModelId {
                name: model.name().to_owned(),
                version: model.version(),
            }))
        }
        Runs::Exec(_) | Runs::Url(_) | Runs::Command(_) => Ok(Some(ModelId {
            name: seat.model_name.clone().unwrap_or_else(|| seat.name.clone()),
            version: seat.version.unwrap_or(1),
        })),
    }
}

fn is_readable(path: &str) -> bool {
    std::fs::File::open(path).is_ok()
}

/// Refuses a command whose program is missing. A command that begins with a word of the
/// shell is not checked.
fn check_command(command: &str, programs: &Programs) -> Result<()> {
    let Some(word) = command.split_whitespace().next() else {
        return Err(usage("the command is empty"));
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./+".contains(&byte);
    if !word.bytes().all(is_plain) || SHELL_WORDS.contains(&word) {
        return Ok(());
    }
    let is_there = match word.contains('/') {
        true => is_executable(Path::new(word)),
        false => programs.is_in_path(word),
    };
    match is_there {
        true => Ok(()),
        false => Err(usage(format!(
            "{word}: no such program; commands run in the folder of the file"
        ))),
    }
}

/// Lets a program of rv check its own command line.
fn check_flags(
    stage: &StagePlan,
    section: &Section,
    file: &str,
    programs: &Programs,
) -> Result<()> {
    programs.check(stage.program)?;
    let mut arguments = stage.arguments.clone();
    arguments.push("--check-flags".to_owned());
    let output = run(programs, stage.program, &arguments)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let flags = section.flags.iter();
    // The longest name first: one name may be the beginning of another.
    let mut named: Vec<_> = { flags }
        .filter(|flag| said.contains(&format!("--{}", flag.name)))
        .collect();
    named.sort_by_key(|flag| std::cmp::Reverse(flag.name.len()));
    let line = named.first().map_or(section.line, |flag| flag.line);
    let said: Vec<&str> = { said.lines() }
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .take_while(|line| !line.starts_with("Usage:"))
        .collect();
    let said = said.join("; ");
    let said = said.trim_start_matches("error: ");
    Err(usage(format!("{file}:{line}: {}: {said}", stage.program)))
}

fn run(programs: &Programs, program: &str, arguments: &[String]) -> Result<Output> {
    let mut command = Command::new(programs.path(program));
    let command = command.args(arguments).stdin(Stdio::null());
    command
        .output()
        .with_context(|| format!("{program}: cannot start"))
}

/// Reads and checks the policy beside the file. Without one, the production model alone
/// answers.
pub fn check_policy(config: &Config, file: &str, programs: &Programs) -> Result<CheckedPolicy> {
    let path = &config.policy;
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && path == POLICY => {
            production_alone(&production(config, file)?)
        }
        Err(error) => return Err(usage(format!("{path}: cannot read the policy: {error}"))),
    };
    let checked = check_policy_text(path, &text, programs)?;
    let named = NamedModels::read(&text).map_err(|fault| usage(format!("{path}: {fault}")))?;
    let mut warnings = checked;
    let seats = identities(config)?;
    warnings.extend(absent_models(&seats, &named, path));
    Ok(CheckedPolicy {
        text,
        named,
        warnings,
    })
}

/// Lets `rv-rendezvous check` check a policy. Returns its warnings.
fn check_policy_text(path: &str, text: &str, programs: &Programs) -> Result<Vec<String>> {
    programs.check("rv-rendezvous")?;
    // The text is checked, and not the file, which may change meanwhile.
    let mut copy = tempfile::NamedTempFile::new().context("cannot write a temporary file")?;
    std::io::Write::write_all(&mut copy, text.as_bytes())?;
    let shown = copy.path().display().to_string();
    let output = run(
        programs,
        "rv-rendezvous",
        &["check".to_owned(), shown.clone()],
    )?;
    let said = String::from_utf8_lossy(&output.stderr).replace(&shown, path);
    let lines = { said.lines() }.map(|line| line.trim_start_matches("rv-rendezvous: ").to_owned());
    match output.status.success() {
        true => Ok(lines.collect()),
        false => Err(usage(lines.collect::<Vec<_>>().join("; "))),
    }
}

/// The model that answers if there is no policy.
fn production(config: &Config, file: &str) -> Result<ModelId> {
    let models = { config.seats.iter() }.filter(|seat| seat.role == Role::Model);
    let models: Vec<&Seat> = models.collect();
    let seat = match models.as_slice() {
        [only] => only,
        several => { several.iter() }
            .find(|seat| seat.name == "production")
            .with_context(|| {
                format!(
                    "{}: there is no policy, and {file} has {} models: write a policy, or call \
                     the model that answers [model.production]",
                    config.policy,
                    several.len()
                )
            })
            .map_err(|error| usage(error.to_string()))?,
    };
    identity(seat)?.ok_or_else(|| {
        usage(format!(
            "{file}:{}: without a policy, [model.{}] needs name and version",
            seat.line, seat.name
        ))
    })
}

/// The seats, each with its role and the identity of its model.
pub type Identities = Vec<(String, Role, Option<ModelId>)>;

/// The identities of all seats.
pub fn identities(config: &Config) -> Result<Identities> {
    let seats = config.seats.iter();
    seats
        .map(|seat| Ok((seat.name.clone(), seat.role, identity(seat)?)))
        .collect()
}

/// Warns of models that the policy names and that no seat of a model runs. A shadow neither
/// answers nor counts as a report.
fn absent_models(seats: &Identities, named: &NamedModels, policy: &str) -> Vec<String> {
    let models = || seats.iter().filter(|(_, role, _)| *role == Role::Model);
    let unknown = models().any(|(_, _, id)| id.is_none());
    let has = |id: &ModelId| models().any(|(_, _, seat)| seat.as_ref() == Some(id));
    let wanted = named.answering.union(&named.expected);
    let absent = wanted.filter(|id| !unknown && !has(id));
    let shadow_of = |id: &ModelId| {
        let shadows = { seats.iter() }.filter(|(_, role, _)| *role == Role::Shadow);
        { shadows.filter(|(_, _, seat)| seat.as_ref() == Some(id)) }.next()
    };
    let warn = |id: &ModelId| {
        if let Some((name, _, _)) = shadow_of(id) {
            return format!(
                "{policy}: names {id}, but only [shadow.{name}] runs it, and a shadow never \
                 answers; to promote it, write [model.{name}]"
            );
        }
        let relatives = { seats.iter() }.filter_map(|(_, _, seat)| seat.as_ref());
        let relatives: Vec<String> = { relatives.filter(|other| other.name == id.name) }
            .map(ModelId::to_string)
            .collect();
        let instead = match relatives.is_empty() {
            true => String::new(),
            false => format!("; {} runs, and is not wanted", relatives.join(", ")),
        };
        format!("{policy}: names {id}, and no model of this name and version runs{instead}")
    };
    absent.map(warn).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::config::parse;

    fn id(text: &str) -> ModelId {
        let (name, version) = text.split_once('@').unwrap();
        ModelId {
            name: name.to_owned(),
            version: version.parse().unwrap(),
        }
    }

    fn seats(all: &[(&str, Role, &str)]) -> Identities {
        let seats = all.iter();
        seats
            .map(|(name, role, model)| ((*name).to_owned(), *role, Some(id(model))))
            .collect()
    }

    fn named(answering: &[&str]) -> NamedModels {
        let answering: std::collections::BTreeSet<_> = answering.iter().map(|it| id(it)).collect();
        NamedModels {
            expected: answering.clone(),
            answering,
            ..NamedModels::default()
        }
    }

    #[test]
    fn a_model_that_only_the_policy_knows_is_warned_of() {
        let all = seats(&[("p", Role::Model, "dt@1")]);
        assert!(absent_models(&all, &named(&["dt@1"]), "p.toml").is_empty());
        assert_eq!(
            absent_models(&all, &named(&["dt@2"]), "p.toml"),
            [
                "p.toml: names dt@2, and no model of this name and version runs; dt@1 runs, and is \
              not wanted"
            ]
        );
        // A shadow may claim the identity of a model, and then the model is not absent.
        let twins = seats(&[("p", Role::Model, "dt@1"), ("s", Role::Shadow, "dt@1")]);
        assert!(absent_models(&twins, &named(&["dt@1"]), "p.toml").is_empty());
        let shadow = seats(&[("p", Role::Model, "dt@1"), ("s", Role::Shadow, "dt@2")]);
        let warnings = absent_models(&shadow, &named(&["dt@2"]), "p.toml");
        assert!(
            warnings[0].contains("names dt@2, but only [shadow.s] runs it"),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_command_without_its_program_is_refused() {
        let programs = Programs::find().unwrap();
        for command in [
            "sh -c true",
            "cd x && y",
            "A=1 nonsense",
            "exec nonsense",
            "\"a b\"",
        ] {
            check_command(command, &programs).unwrap();
        }
        for command in ["no-such-program x", "./nothing.py", "/nowhere/x", " "] {
            assert!(check_command(command, &programs).is_err(), "{command}");
        }
    }

    #[test]
    fn the_production_model_is_the_only_one_or_bears_the_name() {
        let of = |text: &str| production(&parse(text, "rv.toml").unwrap(), "rv.toml");
        let one = "[model.a]\nexec = \"x\"\nversion = 3\n[shadow.b]\nexec = \"y\"\n";
        assert_eq!(of(one).unwrap(), id("a@3"));
        let two = format!("{one}[model.production]\nurl = \"http://c\"\n");
        assert_eq!(of(&two).unwrap(), id("production@1"));
        let error = of(&format!("{one}[model.c]\nexec = \"z\"\n")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("rv.toml has 2 models: write a policy"),
            "{error}"
        );
    }

    #[test]
    fn addresses_that_others_can_reach_need_a_token() {
        let check = |text: &str| check_reach(&parse(text, "rv.toml").unwrap(), "rv.toml");
        check("").unwrap();
        check("[front]\nlisten = \"0.0.0.0:0\"\nallow_anonymous = true\n").unwrap();
        for text in [
            "[front]\nlisten = \"0.0.0.0:0\"\nallow_anonymous = false\n",
            "[admin]\nlisten = \"0.0.0.0:0\"\n",
            "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"/nowhere\"\n",
        ] {
            assert!(
                check(text).unwrap_err().to_string().starts_with("rv.toml:"),
                "{text}"
            );
        }
    }
}
