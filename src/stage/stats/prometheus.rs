//! Writes counts in the text format of Prometheus.

use std::fmt::Write;
use std::time::Duration;

use super::{Entry, QUANTILES, Shown, Snapshot, snake_case};

impl Snapshot {
    /// The counts in the text format of Prometheus, version 0.0.4. Its durations are in
    /// seconds, as Prometheus recommends.
    pub fn prometheus(&self, program: &str, running: Duration) -> String {
        let prefix = program.replace('-', "_");
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
            let name = format!("{prefix}_{name}");
            if !help.is_empty() {
                let _ = writeln!(text, "# HELP {name} {help}");
            }
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let one = |value: String| [(String::new(), value)];
        let seconds = one(running.as_secs_f64().to_string());
        family("seconds", "gauge", "Since the start", &seconds);
        for Shown { name, help, entry } in &self.0 {
            let name = snake_case(name);
            match entry {
                Entry::Count(value) => {
                    family(
                        &format!("{name}_total"),
                        "counter",
                        help,
                        &one(value.to_string()),
                    );
                }
                Entry::Gauge(value) => family(&name, "gauge", help, &one(value.to_string())),
                Entry::ByLabel(label, counts) => {
                    let name = format!("{name}_total");
                    family(&name, "counter", help, &labelled(label, counts));
                }
                Entry::GaugeByLabel(label, values) => {
                    family(&name, "gauge", help, &labelled(label, values));
                }
                Entry::Latencies(latencies) => {
                    let mut samples = Vec::new();
                    for (quantile, _) in QUANTILES {
                        let value = latencies.quantile(quantile).as_seconds();
                        samples.push((format!("{{quantile=\"{quantile}\"}}"), value.to_string()));
                    }
                    let sum = latencies.sum.as_seconds().to_string();
                    samples.push(("_sum".to_owned(), sum));
                    samples.push(("_count".to_owned(), latencies.count().to_string()));
                    family(&format!("{name}_seconds"), "summary", help, &samples);
                }
            }
        }
        text
    }
}

/// For each value, the labels of its Prometheus sample and the value itself.
fn labelled(label: &str, values: &[(String, u64)]) -> Vec<(String, String)> {
    let sample = |(of, value): &(String, u64)| {
        let labels = format!("{{{label}=\"{}\"}}", label_value(of));
        (labels, value.to_string())
    };
    values.iter().map(sample).collect()
}

/// Escapes the value of a label for the Prometheus text format.
fn label_value(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_label_is_escaped() {
        assert_eq!(label_value("a\\\"\n"), "a\\\\\\\"\\n");
    }
}
