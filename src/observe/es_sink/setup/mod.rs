//! `rv-es-sink setup`: creates index templates, which map the fields of records.

mod template;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use reqwest::Method;
use serde_json::Value;

use crate::observe::es_sink::call_error::{reason_in, refusal};
use crate::observe::es_sink::client::{BulkSettings, Client, Reply, ServiceArgs};
use crate::observe::es_sink::index_name::IndexName;
use crate::observe::es_sink::pipeline::check_pipeline_name;
use crate::observe::es_sink::service_version::{self, ServiceVersion};
use crate::observe::es_sink::setup::template::{MADE_BY, TemplateOptions, Treatment, template};
use crate::stage::Stage;

/// Prepare the service: create or renew the index templates
///
/// An index whose name matches maps timestamps to dates that keep their fraction, and ids
/// and names to keywords. Every field of an input becomes a keyword
/// (`modelInput.x.label`) and, for values that are numbers, a floating-point number
/// (`modelInput.x`). A result becomes a keyword (`result`) and a number
/// (`result.number`). So it does not matter which value comes first, and a value of
/// another type affects only its own field. The candidates of a decision are nested, so
/// each can be searched by itself. An index accepts up to 2000 fields; after that a record
/// with new fields is indexed without them.
///
/// You can run this command again at any time. A template of another program with the
/// same name is replaced only with --replace. An existing index keeps its mapping.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Example:\n  rv-es-sink setup --url http://127.0.0.1:9200 --index 'score-log-%Y.%m.%d'"
)]
pub struct SetupArgs {
    #[command(flatten)]
    service: ServiceArgs,

    /// Prepare for this --index, which may contain %Y, %m and %d. Give it several
    /// times for several indices. A NAME without a date also matches NAME-*
    #[arg(long = "index", value_name = "NAME", default_values_t = DEFAULT_INDICES.map(str::to_owned))]
    indices: Vec<String>,

    /// Create data streams instead of indices. A data stream checks ids only in its
    /// newest index: a record that is sent again after a rollover may be indexed
    /// twice
    #[arg(long)]
    data_stream: bool,

    /// How to index optional fields, such as those of model inputs
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Treatment::Searchable)]
    unknown_fields: Treatment,

    /// How to index the results of models
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Treatment::Searchable)]
    results: Treatment,

    /// Let the service run its ingest pipeline NAME on every document
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,

    /// Replace a template that another program has made
    #[arg(long)]
    replace: bool,
}

const DEFAULT_INDICES: [&str; 3] = ["decoy-log", "score-log", "decision-log"];

/// Runs `rv-es-sink setup`.
pub fn run(args: &SetupArgs, stage: &mut Stage) -> Result<()> {
    let names = args.indices.iter().map(|index| IndexName::of_flag(index));
    let names: Vec<IndexName> = names.collect::<Result<_>>()?;
    if let Some(pipeline) = &args.pipeline {
        check_pipeline_name(pipeline)?;
    }
    let client = Client::new(stage, &args.service, BulkSettings::default())?;
    let (server, version) = first_service(&client)?;
    if let ServiceVersion::Named(name) = &version {
        stage
            .report
            .info(&format!("{}: {name}", client.url(server)));
    }
    let service = ServiceAt { client, server };
    for (name, index) in names.iter().zip(&args.indices) {
        let mut patterns = vec![name.wildcard()];
        if !name.needs_date() {
            patterns.push(format!("{index}-*"));
        }
        service.prepare(stage, args, &patterns)?;
    }
    Ok(())
}

/// The first address at which a service answers. The error contains the reasons for all
/// addresses.
fn first_service(client: &Client) -> Result<(usize, ServiceVersion)> {
    let mut reasons = Vec::new();
    for server in 0..client.servers() {
        let reply = client.call(server, Method::GET, "/", None);
        match reply.and_then(|reply| service_version::read(reply.status, &reply.body)) {
            Ok(version) => return Ok((server, version)),
            Err(error) => {
                let url = client.url(server);
                reasons.push(format!("{url}: {}", error.into_reason()));
            }
        }
    }
    bail!("{}", reasons.join("; "))
}

/// A service at one of the client's addresses.
struct ServiceAt {
    client: Client,
    server: usize,
}

impl ServiceAt {
    fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Reply> {
        let reply = self.client.call(self.server, method, path, body);
        reply.map_err(|error| {
            let url = self.client.url(self.server);
            anyhow!("{url}{path}: {}", error.into_reason())
        })
    }

    /// Creates or renews the template for names that match `patterns`.
    fn prepare(&self, stage: &mut Stage, args: &SetupArgs, patterns: &[String]) -> Result<()> {
        let name = template_name(&patterns[0]);
        let path = format!("/_index_template/{name}");
        let url = self.client.url(self.server);
        let earlier = self.call(Method::GET, &path, None)?;
        if earlier.status == 200 && !is_ours(&earlier.body) && !args.replace {
            bail!(
                "{url}: the index template {name} exists and was not made by {MADE_BY}; --replace replaces it"
            );
        }
        let wanted = TemplateOptions {
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
                    "the service does not accept the template (400); it says {}",
                    reason_in(&reply.body)
                ),
                status => refusal(status, &reply.body),
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
                "these indices and data streams exist already, and the template does not change them: {}",
                existing.join(", ")
            ));
        }
        Ok(())
    }

    /// The names of existing indices and data streams that match.
    fn existing(&self, patterns: &[String]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for pattern in patterns {
            // Without the star, a name that does not exist would be an error.
            let path = format!("/_resolve/index/{}*", pattern.trim_end_matches('*'));
            let reply = self.call(Method::GET, &path, None)?;
            // Not every user may list indices.
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

/// The name of a template: `rv-score-log` for `score-log` and `score-log-*`.
fn template_name(pattern: &str) -> String {
    let plain = pattern.replace('*', "date");
    let plain = plain.strip_suffix("-date").unwrap_or(&plain);
    format!("rv-{}", plain.trim_start_matches('.'))
}

/// Whether this program made a template. `body` is the service's description of it.
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
    fn a_template_of_another_program_is_recognised() {
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
