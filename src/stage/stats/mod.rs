//! The counts of a stage, which SIGUSR1, `--stats` and the final summary show.

mod prometheus;

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::stage::report::Report;
use crate::wire::micros::Micros;
use crate::wire::object::ObjectWriter;

/// Rejected records by the label of the reason.
const REJECTED_BY: &str = "rejectedBy";

const QUANTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p999")];

/// A distribution of durations.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
    sum: Micros,
}

impl Default for Latencies {
    fn default() -> Latencies {
        // The histogram covers 1 µs to an hour with three digits, and takes at most 180
        // KiB.
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3);
        Latencies {
            histogram: histogram.expect("the bounds are in order"),
            sum: Micros(0),
        }
    }
}

impl Latencies {
    /// Adds one duration. A duration outside the bounds counts as the bound.
    pub fn record(&mut self, span: Micros) {
        let span = u64::try_from(span.0).unwrap_or(0);
        self.histogram.saturating_record(span);
        self.sum.0 = self.sum.0.saturating_add_unsigned(span);
    }

    /// The quantile `q` (0 to 1) of the durations.
    pub fn quantile(&self, q: f64) -> Micros {
        Micros(self.histogram.value_at_quantile(q) as i64)
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }
}

/// The counts of a stage at one moment, in the order of output.
#[derive(Debug, Default)]
pub struct Snapshot(Vec<Shown>);

#[derive(Debug)]
struct Shown {
    name: String,
    help: &'static str,
    entry: Entry,
}

#[derive(Debug)]
enum Entry {
    /// A counter, which only grows.
    Count(u64),
    /// A current value.
    Gauge(u64),
    /// Counters of one kind of event by a label, such as answers by model.
    ByLabel(&'static str, Vec<(String, u64)>),
    /// Current values by a label.
    GaugeByLabel(&'static str, Vec<(String, u64)>),
    Latencies(Latencies),
}

impl Snapshot {
    /// Adds a counter: the number of events since the start.
    pub fn count(self, name: &str, count: u64) -> Snapshot {
        self.with(name, Entry::Count(count))
    }

    /// Adds a gauge: a current value.
    pub fn gauge(self, name: &str, value: u64) -> Snapshot {
        self.with(name, Entry::Gauge(value))
    }

    /// Adds a counter for each value of a label.
    pub fn by_label(
        self,
        name: &str,
        label: &'static str,
        counts: impl IntoIterator<Item = (String, u64)>,
    ) -> Snapshot {
        let counts = counts.into_iter().collect();
        self.with(name, Entry::ByLabel(label, counts))
    }

    /// Adds a gauge for each value of a label.
    pub fn gauge_by_label(
        self,
        name: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (String, u64)>,
    ) -> Snapshot {
        let values = values.into_iter().collect();
        self.with(name, Entry::GaugeByLabel(label, values))
    }

    /// Adds the number of rejected records, in total and by reason.
    pub fn rejected(self, report: &Report) -> Snapshot {
        let by_reason = report.rejected_by_label();
        let by_reason: Vec<_> = by_reason
            .map(|(label, count)| (label.to_owned(), count))
            .collect();
        let snapshot = self.count("rejected", report.rejected());
        match by_reason.is_empty() {
            true => snapshot,
            false => snapshot.by_label(REJECTED_BY, "reason", by_reason),
        }
    }

    /// Adds the quantiles of a distribution, in milliseconds.
    pub fn latencies(self, name: &str, latencies: &Latencies) -> Snapshot {
        self.with(name, Entry::Latencies(latencies.clone()))
    }

    /// Describes the entry that was added last, in one line.
    pub fn help(mut self, text: &'static str) -> Snapshot {
        if let Some(last) = self.0.last_mut() {
            last.help = text;
        }
        self
    }

    fn with(mut self, name: &str, entry: Entry) -> Snapshot {
        self.0.push(Shown {
            name: name.to_owned(),
            help: "",
            entry,
        });
        self
    }

    /// The rate of the first counter, per second since the start.
    fn rate(&self, running: Duration) -> f64 {
        match self.0.first() {
            Some(Shown {
                entry: Entry::Count(count),
                ..
            }) => *count as f64 / running.as_secs_f64().max(1e-6),
            _ => 0.0,
        }
    }

    /// The counts as one line with a JSON object. `running` is the time since the
    /// start.
    pub fn json(&self, program: &str, running: Duration) -> String {
        let mut text = Vec::new();
        let mut object = ObjectWriter::new(&mut text);
        object
            .string("program", program)
            .display("seconds", Micros::from_duration(running).as_seconds())
            .display("perSecond", format_args!("{:.1}", self.rate(running)));
        for Shown { name, entry, .. } in &self.0 {
            match entry {
                Entry::Count(value) | Entry::Gauge(value) => object.display(name, value),
                Entry::ByLabel(_, counts) | Entry::GaugeByLabel(_, counts) => {
                    object.object(name, |inner| {
                        for (label, count) in counts {
                            inner.display(label, count);
                        }
                    })
                }
                Entry::Latencies(latencies) => object.object(&format!("{name}_ms"), |inner| {
                    inner.display("count", latencies.count());
                    for (quantile, label) in QUANTILES {
                        inner.display(label, latencies.quantile(quantile).as_millis());
                    }
                }),
            };
        }
        object.end();
        text.push(b'\n');
        String::from_utf8(text).expect("written from strings")
    }

    /// A readable line: the first two counts, and all others that are not zero.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        for (index, Shown { name, entry, .. }) in self.0.iter().enumerate() {
            match entry {
                Entry::Count(value) | Entry::Gauge(value) if *value > 0 || index < 2 => {
                    parts.push(format!("{value} {}", snake_case(name).replace('_', " ")));
                }
                Entry::Count(_) | Entry::Gauge(_) => {}
                // The line already has the total of rejected records, and the messages
                // gave the reasons.
                Entry::ByLabel(..) if name == REJECTED_BY => {}
                Entry::ByLabel(_, counts) | Entry::GaugeByLabel(_, counts) => {
                    let name = snake_case(name).replace('_', " ");
                    for (label, count) in counts.iter().filter(|(_, count)| *count > 0) {
                        parts.push(format!("{count} {name} {label}"));
                    }
                }
                Entry::Latencies(latencies) if latencies.count() > 0 => parts.push(format!(
                    "{} p50 {} ms p99 {} ms",
                    snake_case(name).replace('_', " "),
                    latencies.quantile(0.5).as_millis(),
                    latencies.quantile(0.99).as_millis()
                )),
                Entry::Latencies(_) => {}
            }
        }
        parts.join(", ")
    }
}

/// Turns `bytesOut` into `bytes_out`.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let mut latencies = Latencies::default();
        latencies.record(Micros(1_500));
        Snapshot::default()
            .count("in", 2)
            .count("out", 0)
            .count("bytesOut", 0)
            .gauge("open", 1)
            .help("Now")
            .by_label("answers", "model", [("dt@1".to_owned(), 3)])
            .latencies("evaluation", &latencies)
    }

    #[test]
    fn the_same_counts_are_shown_in_three_forms() {
        let second = Duration::from_secs(1);
        assert_eq!(
            snapshot().json("rv-score", second),
            "{\"program\":\"rv-score\",\"seconds\":1.000000,\"perSecond\":2.0,\"in\":2,\"out\":0,\"bytesOut\":0,\"open\":1,\"answers\":{\"dt@1\":3},\"evaluation_ms\":{\"count\":1,\"p50\":1.500,\"p90\":1.500,\"p99\":1.500,\"p999\":1.500}}\n"
        );
        let text = snapshot().prometheus("rv-score", second);
        assert!(
            text.contains("# TYPE rv_score_bytes_out_total counter\nrv_score_bytes_out_total 0\n")
        );
        assert!(text.contains("rv_score_answers_total{model=\"dt@1\"} 3\n"));
        assert!(text.contains("rv_score_evaluation_seconds{quantile=\"0.99\"} 0.001500\n"));
        assert!(text.contains("rv_score_evaluation_seconds_sum 0.001500\n"));
        assert!(text.contains("# HELP rv_score_open Now\n# TYPE rv_score_open gauge\n"));
        assert_eq!(
            snapshot().summary(),
            "2 in, 0 out, 1 open, 3 answers dt@1, evaluation p50 1.500 ms p99 1.500 ms"
        );
    }
}
