//! The addresses of topics, as `--from` and `--to` give them:
//! `[NAME=]SCHEME://SERVER[,SERVER]/TOPIC[?OPTION=VALUE&...]`.

mod broker_kind;
mod options;
mod pattern;
mod security;
mod template;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

pub use crate::bridge::address::broker_kind::Broker;
pub use crate::bridge::address::pattern::Pattern;
#[cfg_attr(not(feature = "kafka"), allow(unused_imports))]
pub use crate::bridge::address::security::Sasl;
pub use crate::bridge::address::security::{Security, read_secret};
pub use crate::bridge::address::template::Template;

use crate::bridge::address::options::Options;
use crate::stage::cli::duration;

/// The longest name of a stream.
const NAME_BYTES_MAX: usize = 64;

/// The servers of a broker, and the login.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cluster {
    /// The kind of broker.
    pub broker: Broker,
    /// Each with its port.
    pub servers: Vec<String>,
    /// TLS and login.
    pub security: Security,
}

/// Where a group begins that has read nothing yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the oldest message.
    Earliest,
    /// With the next message.
    Latest,
}

/// When an input is finished, as `done=` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// This long after it was given.
    Age(Duration),
    /// When the pipe has taken it.
    Written,
    /// When a record with its id is safe in each of these outputs.
    Outputs(Vec<String>),
}

/// The address of `--from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromAddress {
    /// The name of the stream; `None` is the standard input of the program.
    pub name: Option<String>,
    /// The broker.
    pub cluster: Cluster,
    /// The stream of JetStream that holds the subject; only for NATS.
    pub stream: Option<String>,
    /// The topic or subject.
    pub topic: String,
    /// The consumer group; `None` reads on its own account.
    pub group: Option<String>,
    /// Where a new group begins.
    pub start: Start,
    /// The partitions that this bridge reads; `None` shares all with its group.
    pub partitions: Option<RangeInclusive<i32>>,
    /// When a message is finished; `None` is the rule of the whole bridge.
    pub done: Option<Done>,
    /// Whether records that may be repeats say so.
    pub marks_repeats: bool,
}

/// The address of `--to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToAddress {
    /// The name of the stream; `None` is the standard output of the program.
    pub name: Option<String>,
    /// The broker.
    pub cluster: Cluster,
    /// The stream of JetStream that holds the subject; only for NATS.
    pub stream: Option<String>,
    /// The topic or subject, which may contain `{FIELD}`.
    pub topic: Template,
    /// Whether a record goes to the partition number of its input.
    pub same_partition: bool,
    /// What the fields of the topic may be.
    pub allow: Option<Pattern>,
}

/// An address without its options.
struct Parts<'a> {
    name: Option<String>,
    broker: Broker,
    tls: bool,
    servers: Vec<String>,
    path: &'a str,
    options: Options<'a>,
}

impl<'a> Parts<'a> {
    fn parse(text: &'a str) -> Result<Parts<'a>, String> {
        let Some(scheme_end) = text.find("://") else {
            return Err("has no scheme; an address is kafka://SERVER:PORT/TOPIC, \
                 nats://SERVER:PORT/STREAM/SUBJECT or pulsar://SERVER:PORT/TENANT/NAMESPACE/TOPIC"
                .to_owned());
        };
        let (before, rest) = (&text[..scheme_end], &text[scheme_end + 3..]);
        let (name, scheme) = match before.split_once('=') {
            Some((name, scheme)) => (Some(stream_name(name)?), scheme),
            None => (None, before),
        };
        let (broker, tls) = match scheme {
            "kafka" => (Broker::Kafka, false),
            "kafka+ssl" => (Broker::Kafka, true),
            "nats" => (Broker::Nats, false),
            "tls" | "nats+tls" => (Broker::Nats, true),
            "pulsar" => (Broker::Pulsar, false),
            "pulsar+ssl" => (Broker::Pulsar, true),
            _ => {
                return Err(format!(
                    "the scheme {scheme:?} is unknown; the schemes are kafka, kafka+ssl, nats, \
                     nats+tls, pulsar and pulsar+ssl"
                ));
            }
        };
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (servers, path) = place.split_once('/').unwrap_or((place, ""));
        Ok(Parts {
            name,
            broker,
            tls,
            servers: self::servers(servers, broker)?,
            path,
            options: Options::parse(query)?,
        })
    }

    /// The stream of JetStream, if the broker has one, and the topic.
    fn topic(&self) -> Result<(Option<String>, &'a str), String> {
        let path = self.path;
        match self.broker {
            Broker::Kafka if path.is_empty() || path.contains('/') => Err(format!(
                "the topic {path:?} is not the name of a Kafka topic; write kafka://SERVER:PORT/TOPIC"
            )),
            Broker::Kafka => Ok((None, path)),
            Broker::Nats => match path.split_once('/') {
                Some((stream, subject)) if !stream.is_empty() && !subject.is_empty() => {
                    Ok((Some(stream.to_owned()), subject))
                }
                _ => Err(format!(
                    "the path {path:?} does not name a stream and a subject; write \
                     nats://SERVER:PORT/STREAM/SUBJECT"
                )),
            },
            Broker::Pulsar
                if path.split('/').count() != 3 || path.split('/').any(str::is_empty) =>
            {
                Err(format!(
                    "the path {path:?} does not name a topic; write \
                     pulsar://SERVER:PORT/TENANT/NAMESPACE/TOPIC"
                ))
            }
            Broker::Pulsar => Ok((None, path)),
        }
    }
}

/// The name of a stream, before the `=`.
fn stream_name(name: &str) -> Result<String, String> {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_plain) {
        return Err(format!(
            "the name {name:?} may contain only letters, digits, `-` and `_` ({NAME_BYTES_MAX} at most)"
        ));
    }
    if name == "rejects" {
        return Err("the name \"rejects\" is kept for {rejects}; choose another".to_owned());
    }
    Ok(name.to_owned())
}

/// The servers, each with its port.
fn servers(text: &str, broker: Broker) -> Result<Vec<String>, String> {
    if text.contains('@') {
        return Err(
            "a login must not stand in an address, where every user of the machine sees it; \
             use user=NAME&password-file=FILE or token-file=FILE"
                .to_owned(),
        );
    }
    let servers = text.split(',').map(|server| {
        let port = server.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(1..)) if !server.starts_with(':') => Ok(server.to_owned()),
            _ => Err(format!(
                "the server {server:?} must be HOST:PORT, such as {}://localhost:{}/...",
                broker.scheme(),
                match broker {
                    Broker::Kafka => 9092,
                    Broker::Nats => 4222,
                    Broker::Pulsar => 6650,
                }
            )),
        }
    });
    servers.collect()
}

impl FromStr for FromAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<FromAddress, String> {
        let mut parts = Parts::parse(text)?;
        let (stream, topic) = parts.topic()?;
        if topic.contains('{') {
            return Err("`{FIELD}` is only for --to".to_owned());
        }
        let options = &mut parts.options;
        let group = options.take("group").map(group_name).transpose()?;
        let start = match options.take("from") {
            None => Start::Latest,
            Some(text) if text == "latest" => Start::Latest,
            Some(text) if text == "earliest" => Start::Earliest,
            Some(text) => return Err(format!("from={text} must be earliest or latest")),
        };
        let partitions = options.take("partitions").map(partitions).transpose()?;
        if partitions.is_some() && parts.broker == Broker::Nats {
            return Err("partitions= is unknown: NATS has no partitions; use subjects".to_owned());
        }
        let done = options.take("done").map(done).transpose()?;
        let marks_repeats = match options.take("mark") {
            None => false,
            Some(text) if text == "redelivered" => true,
            Some(text) => return Err(format!("mark={text} must be mark=redelivered")),
        };
        if marks_repeats && parts.broker == Broker::Pulsar {
            return Err(
                "mark= is unknown: the client of Pulsar does not say what comes again".to_owned(),
            );
        }
        let security = Security::take(&mut parts.options, parts.broker, parts.tls)?;
        parts
            .options
            .finish("group, from, partitions, done and mark", parts.broker)?;
        Ok(FromAddress {
            name: parts.name,
            cluster: Cluster {
                broker: parts.broker,
                servers: parts.servers,
                security,
            },
            stream,
            topic: topic.to_owned(),
            group,
            start,
            partitions,
            done,
            marks_repeats,
        })
    }
}

impl FromStr for ToAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ToAddress, String> {
        let mut parts = Parts::parse(text)?;
        let (stream, topic) = parts.topic()?;
        let topic = Template::parse(topic)?;
        let options = &mut parts.options;
        let same_partition = match options.take("partition") {
            None => false,
            Some(text) if text == "same" => true,
            Some(text) => return Err(format!("partition={text} must be partition=same")),
        };
        if same_partition && parts.broker == Broker::Nats {
            return Err("partition= is unknown: NATS has no partitions; use subjects".to_owned());
        }
        let allow = options.take("allow").map(|text| Pattern::new(&text));
        match (&allow, topic.has_fields()) {
            (None, true) => {
                return Err(
                    "a topic with {FIELD} needs allow=PATTERN, such as allow=front-*; otherwise \
                     a record could name any topic"
                        .to_owned(),
                );
            }
            (Some(_), false) => return Err("allow= needs a topic with {FIELD}".to_owned()),
            _ => {}
        }
        let security = Security::take(&mut parts.options, parts.broker, parts.tls)?;
        parts.options.finish("partition and allow", parts.broker)?;
        Ok(ToAddress {
            name: parts.name,
            cluster: Cluster {
                broker: parts.broker,
                servers: parts.servers,
                security,
            },
            stream,
            topic,
            same_partition,
            allow,
        })
    }
}

impl fmt::Display for FromAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        show(
            formatter,
            &self.cluster,
            self.stream.as_deref(),
            &self.topic,
        )
    }
}

impl fmt::Display for ToAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let topic = self.topic.to_string();
        show(formatter, &self.cluster, self.stream.as_deref(), &topic)
    }
}

/// An address without its options, for messages.
fn show(
    formatter: &mut fmt::Formatter,
    cluster: &Cluster,
    stream: Option<&str>,
    topic: &str,
) -> fmt::Result {
    let scheme = cluster.broker.scheme();
    write!(formatter, "{scheme}://{}/", cluster.servers.join(","))?;
    if let Some(stream) = stream {
        write!(formatter, "{stream}/")?;
    }
    formatter.write_str(topic)
}

/// The name of a group, which all three brokers accept.
fn group_name(text: String) -> Result<String, String> {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
    match !text.is_empty() && text.len() <= 200 && text.chars().all(is_plain) {
        true => Ok(text),
        false => Err(format!(
            "group={text} may contain only letters, digits, `-` and `_`"
        )),
    }
}

/// Partitions such as `0-3` or `2`.
fn partitions(text: String) -> Result<RangeInclusive<i32>, String> {
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 0 <= first && first <= last => Ok(first..=last),
        _ => Err(format!("partitions={text} must be such as 0-3 or 2")),
    }
}

/// The rule of `done=`.
fn done(text: String) -> Result<Done, String> {
    if let Some(age) = text.strip_prefix("age:") {
        let age = duration(age).map_err(|fault| format!("done={text}: {fault}"))?;
        return Ok(Done::Age(age));
    }
    if text == "written" {
        return Ok(Done::Written);
    }
    let names = text.split(',').map(stream_name);
    let names: Result<Vec<_>, _> = names.collect();
    names
        .map(Done::Outputs)
        .map_err(|_| format!("done={text} must be age:DURATION, written, or the names of outputs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> FromAddress {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_names_broker_topic_group_and_rule() {
        let score = from("scores=pulsar://b:6650/public/default/score?group=rv&done=age:30s");
        assert_eq!(score.name.as_deref(), Some("scores"));
        assert_eq!(score.cluster.broker, Broker::Pulsar);
        assert_eq!(score.cluster.servers, ["b:6650"]);
        assert_eq!(score.topic, "public/default/score");
        assert_eq!(score.done, Some(Done::Age(Duration::from_secs(30))));
        assert_eq!(score.start, Start::Latest);
        let nats = from("nats://a:4222,b:4222/REQUESTS/requests.iris?group=x&from=earliest");
        assert_eq!(nats.cluster.servers, ["a:4222", "b:4222"]);
        assert_eq!(nats.stream.as_deref(), Some("REQUESTS"));
        assert_eq!(nats.topic, "requests.iris");
        assert_eq!(nats.start, Start::Earliest);
        assert_eq!(
            nats.to_string(),
            "nats://a:4222,b:4222/REQUESTS/requests.iris"
        );
        let kafka = from("kafka://b:9092/r?partitions=0-1&mark=redelivered&done=a,b");
        assert_eq!(kafka.partitions, Some(0..=1));
        assert!(kafka.marks_repeats);
        let names = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(kafka.done, Some(Done::Outputs(names)));
        let to: ToAddress =
            "responses=kafka://b:9092/to-{returnAddress}?allow=front-*&partition=same"
                .parse()
                .unwrap();
        assert!(to.same_partition && to.topic.has_fields());
    }

    #[test]
    fn a_wrong_address_is_refused_with_its_remedy() {
        for (text, fault) in [
            ("requests", "has no scheme"),
            ("amqp://b:1/x", "the scheme \"amqp\" is unknown"),
            ("kafka://b/x", "must be HOST:PORT"),
            ("kafka://:9092/x", "must be HOST:PORT"),
            ("kafka://b:0/x", "must be HOST:PORT"),
            ("kafka://me:secret@b:9092/x", "password-file"),
            ("kafka://b:9092/", "not the name of a Kafka topic"),
            ("nats://b:4222/requests", "STREAM/SUBJECT"),
            ("pulsar://b:6650/topic", "TENANT/NAMESPACE/TOPIC"),
            (
                "kafka://b:9092/x?colour=a",
                "the option \"colour\" is unknown",
            ),
            ("kafka://b:9092/x?group", "has no value"),
            ("kafka://b:9092/x?group=a&group=b", "occurs twice"),
            ("kafka://b:9092/x?group=a b", "may contain only"),
            ("kafka://b:9092/x?from=start", "earliest or latest"),
            ("kafka://b:9092/x?partitions=3-1", "such as 0-3"),
            ("nats://b:4222/S/x?partitions=0", "NATS has no partitions"),
            ("kafka://b:9092/x?done=age:soon", "done=age:soon"),
            ("kafka://b:9092/x?mark=all", "mark=redelivered"),
            ("kafka://b:9092/{id}", "only for --to"),
            ("a b=kafka://b:9092/x", "the name \"a b\""),
            ("rejects=kafka://b:9092/x", "kept for {rejects}"),
            ("kafka://b:9092/x?user=me", "password-file"),
            ("nats://b:4222/S/x?sasl=plain", "only for Kafka"),
            ("pulsar://b:6650/a/b/c?mark=redelivered", "mark= is unknown"),
            (
                "pulsar+ssl://b:6650/a/b/c?cert=a&key=b",
                "only for Kafka and NATS",
            ),
        ] {
            let refused = text.parse::<FromAddress>().unwrap_err();
            assert!(refused.contains(fault), "{text}: {refused}");
        }
        for (text, fault) in [
            ("kafka://b:9092/{returnAddress}", "needs allow=PATTERN"),
            ("kafka://b:9092/x?allow=*", "needs a topic with {FIELD}"),
            ("kafka://b:9092/x{?allow=*", "`{` has no `}`"),
            ("kafka://b:9092/x?partition=1", "partition=same"),
            (
                "kafka://b:9092/x?group=a",
                "the option \"group\" is unknown",
            ),
        ] {
            let refused = text.parse::<ToAddress>().unwrap_err();
            assert!(refused.contains(fault), "{text}: {refused}");
        }
    }
}
