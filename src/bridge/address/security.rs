//! TLS and logins. Secrets are read from files.

use std::fs;

use crate::bridge::address::broker_kind::Broker;
use crate::bridge::address::options::Options;

/// How a login to Kafka is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sasl {
    /// The password itself is sent.
    Plain,
    /// SCRAM with SHA-256.
    ScramSha256,
    /// SCRAM with SHA-512.
    ScramSha512,
}

impl Sasl {
    /// The name of the mechanism in the protocol.
    pub fn mechanism(self) -> &'static str {
        match self {
            Sasl::Plain => "PLAIN",
            Sasl::ScramSha256 => "SCRAM-SHA-256",
            Sasl::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// TLS and the login to a broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Security {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The file of the authority that has signed the server's certificate (PEM).
    pub ca: Option<String>,
    /// The files of the client's certificate and key (PEM).
    pub client: Option<(String, String)>,
    /// The name of the user, and the file of the password.
    pub login: Option<(String, String)>,
    /// The file of a token.
    pub token_file: Option<String>,
    /// The file of NATS credentials.
    pub creds_file: Option<String>,
    /// How a login to Kafka is checked.
    pub sasl: Option<Sasl>,
}

impl Security {
    /// Takes the options of TLS and the login.
    pub(super) fn take(
        options: &mut Options,
        broker: Broker,
        tls: bool,
    ) -> Result<Security, String> {
        let client = match (options.take("cert"), options.take("key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err("cert= and key= go together".to_owned()),
        };
        let login = match (options.take("user"), options.take("password-file")) {
            (Some(user), Some(file)) => Some((user, file)),
            (None, None) => None,
            _ => return Err("user= and password-file= go together".to_owned()),
        };
        let sasl = match options.take("sasl").as_deref() {
            None => None,
            Some("plain") => Some(Sasl::Plain),
            Some("scram-sha-256") => Some(Sasl::ScramSha256),
            Some("scram-sha-512") => Some(Sasl::ScramSha512),
            Some(text) => {
                return Err(format!(
                    "sasl={text} must be plain, scram-sha-256 or scram-sha-512"
                ));
            }
        };
        let security = Security {
            tls,
            ca: options.take("ca"),
            client,
            login,
            token_file: options.take("token-file"),
            creds_file: options.take("creds-file"),
            sasl,
        };
        security.check(broker)?;
        Ok(security)
    }

    fn check(&self, broker: Broker) -> Result<(), String> {
        let only = |is_given: bool, option: &str, brokers: &str| match is_given {
            true => Err(format!("{option}= is only for {brokers}")),
            false => Ok(()),
        };
        if broker != Broker::Kafka {
            only(self.sasl.is_some(), "sasl", "Kafka")?;
        }
        if broker != Broker::Nats {
            only(self.creds_file.is_some(), "creds-file", "NATS")?;
        }
        match broker {
            Broker::Kafka => only(self.token_file.is_some(), "token-file", "NATS and Pulsar")?,
            Broker::Pulsar => {
                only(self.login.is_some(), "user", "Kafka and NATS")?;
                only(self.client.is_some(), "cert", "Kafka and NATS")?;
            }
            Broker::Nats => {}
        }
        if !self.tls && (self.ca.is_some() || self.client.is_some()) {
            return Err(format!(
                "ca=, cert= and key= need TLS: begin the address with {}",
                match broker {
                    Broker::Kafka => "kafka+ssl://",
                    Broker::Nats => "nats+tls://",
                    Broker::Pulsar => "pulsar+ssl://",
                }
            ));
        }
        if broker == Broker::Kafka && self.sasl.is_some() != self.login.is_some() {
            return Err("a login to Kafka needs sasl=, user= and password-file=".to_owned());
        }
        Ok(())
    }
}

/// Reads a secret from its file, without white space around it. The error does not show
/// the secret.
pub fn read_secret(path: &str) -> Result<String, String> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Err(format!("{path}: is empty")),
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(format!("{path}: cannot read the secret: {error}")),
    }
}
