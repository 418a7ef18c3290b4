//! The options of an address, after its `?`.

use std::borrow::Cow;

use crate::bridge::address::broker_kind::Broker;

/// Options that were not taken yet.
#[derive(Debug)]
pub struct Options<'a> {
    given: Vec<(&'a str, String)>,
}

impl<'a> Options<'a> {
    /// Parses `NAME=VALUE&NAME=VALUE`. A value may contain `%XX`.
    pub fn parse(query: &'a str) -> Result<Options<'a>, String> {
        let mut given: Vec<(&str, String)> = Vec::new();
        for option in query.split('&').filter(|it| !it.is_empty()) {
            let Some((name, value)) = option.split_once('=') else {
                return Err(format!(
                    "the option {option:?} has no value; write {option}=VALUE"
                ));
            };
            if given.iter().any(|(other, _)| *other == name) {
                return Err(format!("the option {name:?} occurs twice"));
            }
            let value = decoded(value)
                .ok_or_else(|| format!("the value of {name} has a wrong %XX: {value}"))?;
            given.push((name, value.into_owned()));
        }
        Ok(Options { given })
    }

    /// Takes an option.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.given.iter().position(|(it, _)| *it == name)?;
        Some(self.given.swap_remove(at).1)
    }

    /// Refuses what nobody has taken. `own` names the options of this kind of address.
    pub fn finish(self, own: &str, broker: Broker) -> Result<(), String> {
        match self.given.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!(
                "the option {name:?} is unknown; here the options are {own}, and for TLS and the \
                 login to {broker} ca{}",
                match broker {
                    Broker::Kafka => ", cert, key, sasl, user and password-file",
                    Broker::Nats => ", cert, key, user, password-file, token-file and creds-file",
                    Broker::Pulsar => " and token-file",
                }
            )),
        }
    }
}

/// A text with each `%XX` decoded.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        // from_str_radix would take a sign.
        if !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_decoded() {
        for (text, expected) in [
            ("a", Some("a")),
            ("a%20b%26", Some("a b&")),
            ("%c3%bc", Some("ü")),
            ("%c3", None),
            ("%", None),
            ("%x1", None),
            ("%+1", None),
        ] {
            assert_eq!(decoded(text).as_deref(), expected, "{text}");
        }
    }
}
