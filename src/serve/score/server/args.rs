//! The flags of a model behind an HTTP server, and their checks.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::serve::score::server::protocol::{JsonShape, Protocol, Tensor};
use crate::stage::http::address::{Query, read_url};
use crate::stage::http::secret::{basic_login, login, secret};
use crate::stage::usage;

const PASSWORD_VARIABLE: &str = "RV_SCORE_PASSWORD";
const TOKEN_VARIABLE: &str = "RV_SCORE_TOKEN";

/// The part of a message that says where credentials belong.
const CREDENTIALS_REMEDY: &str = "give --user, and the password in RV_SCORE_PASSWORD or --password-file; or a token in RV_SCORE_TOKEN or --token-file";

/// The default of `--in-flight`.
const IN_FLIGHT: usize = 8;

/// The flags of a model behind an HTTP server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "A server as the model")]
pub struct ServerArgs {
    /// Send the `modelInput` of each request to the server at URL. For `v2` it names the
    /// model, as in `http://host:8080/v2/models/iris`
    #[arg(long, value_name = "URL", requires = "protocol")]
    pub url: Option<String>,

    /// How the server is spoken to
    #[arg(long, value_enum, value_name = "PROTOCOL", requires = "url")]
    protocol: Option<ProtocolName>,

    /// Make at most N calls at once [default: 8]
    #[arg(long, value_name = "N", requires = "url", value_parser = in_flight)]
    in_flight: Option<usize>,

    /// For `v2`: the name of the input tensor [default: input-0]
    #[arg(long, value_name = "NAME", requires = "url")]
    input_name: Option<String>,

    /// For `v2`: the type of the input tensor, such as FP32 [default: FP64]
    #[arg(long, value_name = "TYPE", requires = "url")]
    datatype: Option<String>,

    /// For `v2`: the output to take as the result [default: the first one]
    #[arg(long, value_name = "NAME", requires = "url")]
    output_name: Option<String>,

    /// For `json`: the place of the `modelInput` in the body of a call: `/a/b` makes
    /// `{"a":{"b":INPUT}}`, and `/a/0` makes `{"a":[INPUT]}`
    #[arg(long, value_name = "POINTER", requires = "url")]
    input_pointer: Option<String>,

    /// For `json`: the place of the result in a reply [default: the whole reply]
    #[arg(long, value_name = "POINTER", requires = "url")]
    result_pointer: Option<String>,

    /// Trust only the certificates in FILE (PEM)
    #[arg(long, value_name = "FILE", requires = "url")]
    ca_file: Option<PathBuf>,

    #[command(flatten)]
    login: LoginArgs,
}

/// The flags for the login.
#[derive(Args, Clone, Debug)]
struct LoginArgs {
    /// Log in as NAME, with the password in RV_SCORE_PASSWORD or --password-file
    #[arg(
        long,
        value_name = "NAME",
        requires = "url",
        conflicts_with = "token_file"
    )]
    user: Option<String>,

    /// Read the password of --user from FILE
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,

    /// Log in with the bearer token in FILE, or in RV_SCORE_TOKEN
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
}

/// The name of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ProtocolName {
    /// The Open Inference Protocol: MLServer, KServe, Triton.
    V2,
    /// A scoring server of MLflow.
    Mlflow,
    /// Any server that takes JSON in a POST and answers with JSON.
    Json,
}

/// The checked options of a model behind a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The address of the calls.
    pub url: Url,
    /// The protocol of the calls.
    pub protocol: Protocol,
    /// The largest number of calls at once.
    pub in_flight: usize,
    /// The longest duration of a call.
    pub timeout: Duration,
    /// The longest reply that is read, in bytes.
    pub reply_bytes_max: usize,
    /// The only certificates to trust.
    pub ca_file: Option<PathBuf>,
    /// The login.
    pub login: Login,
}

/// Where the secret of the login is read from.
#[derive(Clone, Debug)]
pub struct Login {
    user: Option<String>,
    password_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

impl Login {
    /// Reads the secret and makes the header; `None` without a login.
    pub fn header(&self) -> Result<Option<HeaderValue>> {
        if let Some(user) = &self.user {
            let path = self.password_file.as_deref();
            return basic_login(user, path, PASSWORD_VARIABLE).map(Some);
        }
        let token = secret(self.token_file.as_deref(), TOKEN_VARIABLE)?;
        token
            .map(|token| login(&format!("Bearer {token}")))
            .transpose()
    }
}

impl ServerArgs {
    /// Checks the flags; `None` if `--url` is not given. `features` are the members of
    /// `modelInput` to send; empty for all.
    pub fn check(
        self,
        features: &[String],
        timeout: Duration,
        reply_bytes_max: usize,
    ) -> Result<Option<ServerOptions>> {
        let (Some(url), Some(name)) = (&self.url, self.protocol) else {
            return Ok(None);
        };
        let query = match name {
            ProtocolName::Json => Query::Allowed,
            ProtocolName::V2 | ProtocolName::Mlflow => Query::Refused,
        };
        let url = call_url(read_url(url, query, CREDENTIALS_REMEDY)?, name)?;
        let features = (!features.is_empty()).then(|| features.to_vec());
        self.refuse_flags_of_other_protocols(name, features.is_some())?;
        let protocol = match name {
            ProtocolName::V2 => Protocol::V2(Tensor::new(
                self.input_name.as_deref().unwrap_or("input-0"),
                self.datatype.as_deref().unwrap_or("FP64"),
                features,
                self.output_name,
            )?),
            ProtocolName::Mlflow => Protocol::Mlflow(features),
            ProtocolName::Json => Protocol::Json(JsonShape::new(
                self.input_pointer.as_deref().unwrap_or_default(),
                self.result_pointer.as_deref().unwrap_or_default(),
            )?),
        };
        Ok(Some(ServerOptions {
            url,
            protocol,
            in_flight: self.in_flight.unwrap_or(IN_FLIGHT),
            timeout,
            reply_bytes_max,
            ca_file: self.ca_file,
            login: Login {
                user: self.login.user,
                password_file: self.login.password_file,
                token_file: self.login.token_file,
            },
        }))
    }

    fn refuse_flags_of_other_protocols(
        &self,
        name: ProtocolName,
        has_features: bool,
    ) -> Result<()> {
        use ProtocolName::{Json, Mlflow, V2};
        let given: [(&str, bool, &[ProtocolName]); 6] = [
            ("--features", has_features, &[V2, Mlflow]),
            ("--input-name", self.input_name.is_some(), &[V2]),
            ("--datatype", self.datatype.is_some(), &[V2]),
            ("--output-name", self.output_name.is_some(), &[V2]),
            ("--input-pointer", self.input_pointer.is_some(), &[Json]),
            ("--result-pointer", self.result_pointer.is_some(), &[Json]),
        ];
        let wrong = given
            .iter()
            .find(|(_, is_given, protocols)| *is_given && !protocols.contains(&name));
        match wrong {
            Some((flag, _, protocols)) => {
                let names: Vec<String> = protocols
                    .iter()
                    .filter_map(|it| it.to_possible_value())
                    .map(|it| format!("--protocol {}", it.get_name()))
                    .collect();
                let names = names.join(" or ");
                Err(usage(format!("{flag} applies only to {names}")))
            }
            None => Ok(()),
        }
    }
}

/// The address of the calls: the address in `--url`, followed by the path that the
/// protocol prescribes.
fn call_url(mut url: Url, name: ProtocolName) -> Result<Url> {
    let end = match name {
        ProtocolName::V2 => "infer",
        ProtocolName::Mlflow => "invocations",
        ProtocolName::Json => return Ok(url),
    };
    let path = url.path().trim_end_matches('/').to_owned();
    if name == ProtocolName::V2 && !path.contains("/models/") {
        return Err(usage(
            "--url must name the model of --protocol v2, as in http://host:8080/v2/models/NAME",
        ));
    }
    if !path.ends_with(&format!("/{end}")) {
        url.set_path(&format!("{path}/{end}"));
    }
    Ok(url)
}

/// Parses a number of simultaneous calls.
fn in_flight(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1024) => Ok(count),
        _ => Err("must be from 1 to 1024".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_calls_follows_from_the_protocol() {
        for (protocol, given, called) in [
            (
                ProtocolName::V2,
                "http://h/v2/models/m",
                "http://h/v2/models/m/infer",
            ),
            (
                ProtocolName::V2,
                "http://h/v2/models/m/",
                "http://h/v2/models/m/infer",
            ),
            (
                ProtocolName::V2,
                "http://h/v2/models/m/versions/2/infer",
                "http://h/v2/models/m/versions/2/infer",
            ),
            (
                ProtocolName::Mlflow,
                "http://h:5000",
                "http://h:5000/invocations",
            ),
            (
                ProtocolName::Mlflow,
                "http://h/a/invocations",
                "http://h/a/invocations",
            ),
            (ProtocolName::Json, "http://h/p?x=1", "http://h/p?x=1"),
        ] {
            let url = call_url(Url::parse(given).unwrap(), protocol).unwrap();
            assert_eq!(url.as_str(), called);
        }
        let url = Url::parse("http://h:8080").unwrap();
        assert!(call_url(url, ProtocolName::V2).is_err());
    }
}
