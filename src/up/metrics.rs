//! The metrics of all stages as one text of Prometheus, and single counts out of it.
//!
//! Each stage writes its own counts in the text format. Here each sample gets the label
//! `stage`, and the samples of one metric are brought together, as the format demands.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::up::report::Report;

/// One metric: its comments, and its samples.
#[derive(Debug, Default)]
struct Family {
    help: String,
    kind: String,
    samples: Vec<String>,
}

/// The metrics of all stages, each given with its name, and those of rv-up itself.
pub fn merge(stages: &[(String, String)], report: &Report) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for (stage, text) in stages {
        let mut name = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (verb, of, rest) = (words.next(), words.next(), words.next());
                name = of.unwrap_or_default().to_owned();
                let family = families.entry(name.clone()).or_default();
                match verb {
                    Some("HELP") => rest.unwrap_or_default().clone_into(&mut family.help),
                    Some("TYPE") => rest.unwrap_or_default().clone_into(&mut family.kind),
                    _ => {}
                }
            } else if let Some(sample) = labelled(line, stage) {
                families
                    .entry(name.clone())
                    .or_default()
                    .samples
                    .push(sample);
            }
        }
    }
    let mut text = String::new();
    for (name, family) in families {
        write_family(&mut text, &name, &family);
    }
    text + &own(report)
}

fn write_family(text: &mut String, name: &str, family: &Family) {
    if !family.help.is_empty() {
        let _ = writeln!(text, "# HELP {name} {}", family.help);
    }
    if !family.kind.is_empty() {
        let _ = writeln!(text, "# TYPE {name} {}", family.kind);
    }
    for sample in &family.samples {
        let _ = writeln!(text, "{sample}");
    }
}

/// A sample with the label `stage`; `None` if the line is no sample.
fn labelled(line: &str, stage: &str) -> Option<String> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    // Names of stages need no escapes.
    Some(match rest.strip_prefix('{') {
        Some(labels) => format!("{name}{{stage=\"{stage}\",{labels}"),
        None => format!("{name}{{stage=\"{stage}\"}}{rest}"),
    })
}

/// The metrics of rv-up itself.
fn own(report: &Report) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<String>| {
        let family = Family {
            help: help.to_owned(),
            kind: kind.to_owned(),
            samples,
        };
        write_family(&mut text, name, &family);
    };
    let by_stage = |name: &str, value: &dyn Fn(&crate::up::report::StageReport) -> u64| {
        let stages = report.stages.iter();
        stages
            .map(|stage| format!("{name}{{stage=\"{}\"}} {}", stage.name, value(stage)))
            .collect::<Vec<String>>()
    };
    family(
        "rv_up_ready",
        "gauge",
        "Whether calls are answered by a model",
        vec![format!("rv_up_ready {}", u8::from(report.ready))],
    );
    family(
        "rv_up_degraded",
        "gauge",
        "The number of faults although calls are answered",
        vec![format!("rv_up_degraded {}", report.degraded.len())],
    );
    family(
        "rv_up_stage_up",
        "gauge",
        "Whether the stage runs and makes progress",
        by_stage("rv_up_stage_up", &|stage| u64::from(stage.state == "up")),
    );
    family(
        "rv_up_stage_restarts_total",
        "counter",
        "How often the stage was started again",
        by_stage("rv_up_stage_restarts_total", &|stage| stage.restarts),
    );
    family(
        "rv_up_stage_stuck_seconds",
        "gauge",
        "For how long the input of the stage has waited without progress",
        by_stage("rv_up_stage_stuck_seconds", &|stage| stage.stuck_seconds),
    );
    text
}

/// The counts without labels in the text of one stage, by their names without the name of
/// the program: `rv_score_in_total 7` is 7 by the name `in`. Counts with labels are added
/// up.
pub fn counts(text: &str) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = name.split('{').next().unwrap_or_default();
        let Some(name) = name.strip_suffix("_total") else {
            continue;
        };
        // Each name of a program has two words, or three.
        let known = [
            "rv_es_sink_",
            "rv_request_",
            "rv_score_",
            "rv_tee_",
            "rv_decoy_",
        ];
        let known = known.iter().chain(&["rv_rendezvous_", "rv_archive_"]);
        let Some(name) = known
            .into_iter()
            .find_map(|program| name.strip_prefix(program))
        else {
            continue;
        };
        if let Ok(value) = value.parse::<f64>() {
            *counts.entry(name.to_owned()).or_default() += value as u64;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::report::StageReport;

    const DT: &str = "# HELP rv_score_seconds Since the start\n# TYPE rv_score_seconds gauge\n\
        rv_score_seconds 1.5\n# TYPE rv_score_in_total counter\nrv_score_in_total 3\n\
        # TYPE rv_score_evaluation_seconds summary\n\
        rv_score_evaluation_seconds{quantile=\"0.5\"} 0.1\nrv_score_evaluation_seconds_sum 0.3\n";
    const LR: &str = "# TYPE rv_score_in_total counter\nrv_score_in_total 4\n\
        # TYPE rv_score_rejected_by_total counter\n\
        rv_score_rejected_by_total{reason=\"a b\"} 1\nrv_score_rejected_by_total{reason=\"c\"} 2\n";

    #[test]
    fn each_metric_has_the_samples_of_all_stages_in_one_block() {
        let report = Report {
            ready: true,
            stages: vec![StageReport {
                name: "dt".to_owned(),
                state: "up".to_owned(),
                restarts: 2,
                ..StageReport::default()
            }],
            ..Report::default()
        };
        let stages =
            [("dt", DT), ("lr", LR)].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let text = merge(&stages, &report);
        assert!(text.contains(
            "# TYPE rv_score_in_total counter\nrv_score_in_total{stage=\"dt\"} 3\n\
             rv_score_in_total{stage=\"lr\"} 4\n"
        ));
        assert!(text.contains("rv_score_evaluation_seconds{stage=\"dt\",quantile=\"0.5\"} 0.1\n"));
        assert!(text.contains("rv_score_evaluation_seconds_sum{stage=\"dt\"} 0.3\n"));
        assert!(text.contains("rv_score_rejected_by_total{stage=\"lr\",reason=\"a b\"} 1\n"));
        assert!(text.contains("rv_up_ready 1\n"));
        assert!(text.contains("rv_up_stage_restarts_total{stage=\"dt\"} 2\n"));
        let types = text.lines().filter(|line| line.starts_with("# TYPE"));
        let mut names: Vec<&str> = types.map(|line| line.split(' ').nth(2).unwrap()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{text}");
    }

    #[test]
    fn counts_are_read_by_their_short_names() {
        assert_eq!(counts(DT), [("in".to_owned(), 3)].into());
        let lr = counts(LR);
        assert_eq!((lr["in"], lr["rejected_by"]), (4, 3));
    }
}
