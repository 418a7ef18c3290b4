//! The address of a server, as a flag gives it.

use anyhow::Result;
use reqwest::Url;

use crate::stage::exit::usage;
use crate::stage::report::shown;

/// Whether an address may have a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// It may.
    Allowed,
    /// It must end with its path.
    Refused,
}

/// Parses a `--url`. Messages do not show the text if it may contain a password.
/// `remedy` says where credentials belong.
pub fn read_url(text: &str, query: Query, remedy: &str) -> Result<Url> {
    let has_scheme = |scheme: &str| {
        let start = text.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    if !has_scheme("http://") && !has_scheme("https://") {
        let rule = "--url must begin with http:// or https://";
        // A query may hold a secret.
        let text = text.split(['?', '#']).next().unwrap_or_default();
        return Err(usage(if text.contains('@') {
            rule.to_owned()
        } else if text.contains("://") {
            format!("{rule}, and {} does not", shown(text))
        } else {
            format!("{rule}: write --url http://{text}")
        }));
    }
    let url = Url::parse(text).map_err(|error| usage(format!("--url: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(usage(format!(
            "--url holds credentials, and every user of the machine can see them; {remedy}"
        )));
    }
    if !url.has_host() {
        return Err(usage("--url names no host"));
    }
    if query == Query::Refused && (url.query().is_some() || url.fragment().is_some()) {
        return Err(usage("--url must end with the path"));
    }
    Ok(url)
}

/// Whether an address is on this machine.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let address: Result<std::net::IpAddr, _> = host.parse();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Url> {
        read_url(text, Query::Refused, "give --user")
    }

    #[test]
    fn an_address_is_checked_and_keeps_its_password_to_itself() {
        for wrong in [
            "127.0.0.1:9200",
            "ftp://host",
            "http://",
            "http://host/?a=b",
            "http://host/#x",
            "http://me:canary@host",
            "me:canary@host:9200",
        ] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(!error.contains("canary"), "{error}");
        }
        for without in [
            "localhost:9200",
            "127.0.0.1:9200",
            "search",
            "[::1]:9200",
            "",
        ] {
            let error = read(without).unwrap_err().to_string();
            assert!(
                error.contains(&format!("write --url http://{without}")),
                "{error}"
            );
        }
        assert!(read("HTTP://localhost:9200").is_ok());
        assert!(read_url("http://host/?a=b", Query::Allowed, "").is_ok());
        assert!(is_loopback(&read("http://[::1]:9200").unwrap()));
        assert!(is_loopback(&read("http://localhost").unwrap()));
        assert!(!is_loopback(&read("http://127.example").unwrap()));
    }
}
