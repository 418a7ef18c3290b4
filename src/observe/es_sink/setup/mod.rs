//! Prepares the service: index templates that map the fields of records.

mod template;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use reqwest::Method;
use serde_json::Value;

use crate::observe::es_sink::client::{BulkSettings, Client, Reply, ServiceArgs};
use crate::observe::es_sink::index_name::IndexName;
use crate::observe::es_sink::reply::{self, Outcome};
use crate::observe::es_sink::service::{self, Service};
use crate::observe::es_sink::setup::template::{MADE_BY, template};
use crate::observe::es_sink::sink::is_plain_name;
use crate::stage::{Stage, usage};

/// Prepare the service: create the index templates, or renew them
///
/// An index whose name matches maps timestamps to dates that keep their fraction,
/// and ids and names to keywords. Every field of an input is a floating number
/// (`modelInput.x`) where its value is one, and a keyword (`modelInput.x.label`)
/// whatever it is; a result is a keyword, and a number (`result.number`). So the
/// first value decides nothing, and a value of another type costs its own field
/// only. The candidates of a decision are nested: each can be asked for by itself.
/// An index takes up to 2000 fields; past it a record with new ones is indexed
/// without them.
///
/// It is safe to repeat. A template of the same name that somebody else has made is
/// left alone without --replace. An index that exists keeps its mapping.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  rv-es-sink setup --url http://127.0.0.1:9200 --index 'score-log-%Y.%m.%d'"
)]
pub struct SetupArgs {
    #[command(flatten)]
    service: ServiceArgs,

    /// Prepare for this --index, which may hold %Y, %m and %d; may be given
    /// several times. A plain NAME stands for NAME-* too
    #[arg(long = "index", value_name = "NAME", default_values_t = DEFAULT_INDICES.map(str::to_owned))]
    indices: Vec<String>,

    /// Make data streams of the names, instead of indices. A data stream knows the
    /// ids of its newest index only: after a rollover, what is sent again may be
    /// there twice
    #[arg(long)]
    data_stream: bool,

    /// What becomes of fields that the records may have or not, model inputs among
    /// them: they can be searched, or are kept only
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Treatment::Searchable)]
    unknown_fields: Treatment,

    /// What becomes of the results of models: they can be searched, or are kept
    /// only
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Treatment::Searchable)]
    results: Treatment,

    /// Let the service run its ingest pipeline NAME on every document
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,

    /// Replace a template that somebody else has made
    #[arg(long)]
    replace: bool,
}

const DEFAULT_INDICES: [&str; 3] = ["decoy-log", "score-log", "decision-log"];

/// What can be done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Treatment {
    /// It is indexed.
    Searchable,
    /// It is in the document, and that is all.
    Kept,
}

/// What a template is to say.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Which names it is for.
    pub patterns: &'a [String],
    /// Whether they are data streams.
    pub data_stream: bool,
    /// Fields that are in no mapping.
    pub unknown_fields: Treatment,
    /// `result.result`.
    pub results: Treatment,
    /// What every document goes through.
    pub pipeline: Option<&'a str>,
}

/// Runs `rv-es-sink setup`.
pub fn run(args: &SetupArgs, stage: &mut Stage) -> Result<()> {
    let names = args.indices.iter().map(|index| {
        IndexName::parse(index).map_err(|reason| usage(format!("--index {index:?}: {reason}")))
    });
    let names: Vec<IndexName> = names.collect::<Result<_>>()?;
    if let Some(pipeline) = args.pipeline.as_deref().filter(|name| !is_plain_name(name)) {
        return Err(usage(format!(
            "--pipeline {pipeline:?}: this cannot be the name of a pipeline"
        )));
    }
    let client = Client::new(stage, &args.service, BulkSettings::default())?;
    let (server, service) = meet(&client)?;
    if let Service::Named(name) = &service {
        stage
            .report
            .info(&format!("{}: {name}", client.url(server)));
    }
    let server = Connection { client, server };
    for (name, index) in names.iter().zip(&args.indices) {
        let mut patterns = vec![name.wildcard()];
        if !name.needs_date() {
            patterns.push(format!("{index}-*"));
        }
        server.prepare(stage, args, &patterns)?;
    }
    Ok(())
}

/// The first address that answers, and what is there.
fn meet(client: &Client) -> Result<(usize, Service)> {
    let mut reasons = Vec::new();
    for server in 0..client.servers() {
        let reply = client.call(server, Method::GET, "/", None);
        match reply.and_then(|reply| service::read(reply.status, &reply.body)) {
            Ok(service) => return Ok((server, service)),
            Err(Outcome::Retry(reason) | Outcome::Fatal(reason)) => {
                reasons.push(format!("{}: {reason}", client.url(server)));
            }
            Err(other) => reasons.push(format!("{}: {other:?}", client.url(server))),
        }
    }
    bail!("{}", reasons.join("; "))
}

struct Connection {
    client: Client,
    server: usize,
}

impl Connection {
    fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Reply> {
        let url = self.client.url(self.server);
        match self.client.call(self.server, method, path, body) {
            Ok(reply) => Ok(reply),
            Err(Outcome::Retry(reason) | Outcome::Fatal(reason)) => bail!("{url}{path}: {reason}"),
            Err(other) => bail!("{url}{path}: {other:?}"),
        }
    }

    /// Creates or renews the template for names that match `patterns`.
    fn prepare(&self, stage: &mut Stage, args: &SetupArgs, patterns: &[String]) -> Result<()> {
        let name = template_name(&patterns[0]);
        let path = format!("/_index_template/{name}");
        let url = self.client.url(self.server);
        let earlier = self.call(Method::GET, &path, None)?;
        if earlier.status == 200 && !is_ours(&earlier.body) && !args.replace {
            bail!(
                "{url}: the index template {name} is there and was not made by {MADE_BY}; give --replace to have it replaced"
            );
        }
        let wanted = Wanted {
            patterns,
            data_stream: args.data_stream,
            unknown_fields: args.unknown_fields,
            results: args.results,
            pipeline: args.pipeline.as_deref(),
        };
        let reply = self.call(Method::PUT, &path, Some(template(&wanted).to_string()))?;
        if !(200..=299).contains(&reply.status) {
            let reason = match reply.status {
                400 => format!(
                    "the service does not take the template (400); it says {}",
                    reply::said(&reply.body)
                ),
                status => reply::refusal(status, &reply.body),
            };
            bail!("{url}{path}: {reason}");
        }
        let shown = patterns.join(", ");
        stage
            .report
            .info(&format!("index template {name} is in place for {shown}"));
        let existing = self.existing(patterns)?;
        if !existing.is_empty() {
            stage.report.warn(&format!(
                "there before, and not changed by the template: {}",
                existing.join(", ")
            ));
        }
        Ok(())
    }

    /// The indices and data streams that match already.
    fn existing(&self, patterns: &[String]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for pattern in patterns {
            // Without the star, one that is not there would be an error.
            let path = format!("/_resolve/index/{}*", pattern.trim_end_matches('*'));
            let reply = self.call(Method::GET, &path, None)?;
            // Not every user may ask.
            let Ok(found) = serde_json::from_slice::<Value>(&reply.body) else {
                continue;
            };
            for kind in ["indices", "data_streams"] {
                for one in found[kind].as_array().into_iter().flatten() {
                    let Some(name) = one["name"].as_str() else {
                        continue;
                    };
                    if (pattern.contains('*') || name == pattern)
                        && !names.iter().any(|earlier| earlier == name)
                    {
                        names.push(name.to_owned());
                    }
                }
            }
        }
        Ok(names)
    }
}

/// `rv-score-log` for `score-log` and `score-log-*`.
fn template_name(pattern: &str) -> String {
    let plain = pattern.replace('*', "date");
    let plain = plain.strip_suffix("-date").unwrap_or(&plain);
    format!("rv-{}", plain.trim_start_matches('.'))
}

/// Whether a template, as the service shows it, is one of these.
fn is_ours(body: &[u8]) -> bool {
    let shown: Value = serde_json::from_slice(body).unwrap_or_default();
    let meta = &shown["index_templates"][0]["index_template"]["_meta"];
    meta["madeBy"] == MADE_BY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_the_name_of_its_indices() {
        for (pattern, name) in [
            ("score-log", "rv-score-log"),
            ("score-log-*", "rv-score-log"),
            ("*-scores", "rv-date-scores"),
            (".kept", "rv-kept"),
        ] {
            assert_eq!(template_name(pattern), name);
        }
    }

    #[test]
    fn a_template_of_others_is_told_from_ours() {
        let shown = |meta: &str| {
            format!(r#"{{"index_templates":[{{"name":"x","index_template":{{{meta}}}}}]}}"#)
        };
        assert!(is_ours(
            shown(r#""_meta":{"madeBy":"rv-es-sink"}"#).as_bytes()
        ));
        for other in ["", r#""_meta":{"madeBy":"me"}"#] {
            assert!(!is_ours(shown(other).as_bytes()));
        }
        assert!(!is_ours(b"no json"));
    }
}
