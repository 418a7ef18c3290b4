//! Under which names a listener is called, and which sites' pages may call it.
//!
//! A browser runs the pages of any site, and lets them send calls to this machine
//! too. Two things that every browser says tell those apart from the calls of the
//! service's own clients. `Host` is the name that the page has in its address: a
//! name that was made to lead here (DNS rebinding) is none of ours. `Origin` is the
//! site of the page.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HOST,
    HeaderName, HeaderValue, ORIGIN, VARY,
};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, Version};

use crate::serve::request::http::call::{Refused, refused};
use crate::serve::request::http::front::Answer;
use crate::stage::report::shown;

/// The port of a `Host` that names none.
const HTTP_PORT: u16 = 80;

/// A name that clients may call a service by: a host, and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostName {
    /// Every name will do.
    Any,
    /// This one, at any port where none is named.
    Named { host: String, port: Option<u16> },
}

impl FromStr for HostName {
    type Err = String;

    fn from_str(text: &str) -> Result<HostName, String> {
        if text == "*" {
            return Ok(HostName::Any);
        }
        let bracketed = format!("[{text}]");
        let is_bare = text.parse::<Ipv6Addr>().is_ok();
        let authority = authority(if is_bare { &bracketed } else { text }.as_bytes())
            .ok_or("a name is HOST or HOST:PORT, as in models.example or 192.0.2.1:9000")?;
        Ok(HostName::Named {
            host: host_of(&authority),
            port: authority.port_u16(),
        })
    }
}

/// A site whose pages may call: `scheme://host` or `scheme://host:port`, in small
/// letters; `null` is what pages without a site have, and `*` is every site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site(String);

impl FromStr for Site {
    type Err = String;

    fn from_str(text: &str) -> Result<Site, String> {
        if text == "*" || text == "null" {
            return Ok(Site(text.to_owned()));
        }
        let site = text.strip_suffix('/').unwrap_or(text).to_ascii_lowercase();
        let uri: Option<Uri> = site.parse().ok();
        let is_site = uri.is_some_and(|uri| {
            let parts = (uri.scheme_str(), uri.authority());
            matches!(parts, (Some(scheme), Some(authority))
                if site == format!("{scheme}://{authority}")
                    && !authority.as_str().contains('@'))
        });
        if !is_site {
            return Err("a site is SCHEME://HOST or SCHEME://HOST:PORT, as in \
                        https://app.example"
                .to_owned());
        }
        Ok(Site(site))
    }
}

/// Who may call a listener.
#[derive(Debug)]
pub struct Sites {
    /// Where it listens.
    own: SocketAddr,
    /// The names that are allowed beside its own; `None` where all names are.
    names: Option<Vec<HostName>>,
    /// The sites that are allowed beside its own.
    sites: Vec<Site>,
    /// The headers that pages of other sites may send.
    headers: HeaderValue,
}

/// A call that may be made.
#[derive(Debug)]
pub struct Visit {
    /// The site of the page that makes it, where that is another one.
    from: Option<HeaderValue>,
}

impl Sites {
    /// Those that may call a listener at `own`. Where only this machine reaches that,
    /// it answers to its own names and to `names`; elsewhere to all, unless `names`
    /// says which. `sent` names a header that calls may have.
    pub fn new(
        own: SocketAddr,
        names: &[HostName],
        sites: &[Site],
        sent: Option<&HeaderName>,
    ) -> Sites {
        let is_open = names.contains(&HostName::Any)
            || names.is_empty() && !own.ip().to_canonical().is_loopback();
        let mut headers = "authorization, content-type".to_owned();
        if let Some(sent) = sent {
            headers = format!("{headers}, {sent}");
        }
        Sites {
            own,
            names: (!is_open).then(|| names.to_vec()),
            sites: sites.to_vec(),
            headers: HeaderValue::from_str(&headers)
                .unwrap_or(HeaderValue::from_static("authorization, content-type")),
        }
    }

    /// Whether a call may be made. `Err` holds the answer to one that may not.
    pub fn admit(&self, request: &Request<Incoming>) -> Result<Visit, Refused> {
        self.admit_call(request.version(), request.uri(), request.headers())
    }

    fn admit_call(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Visit, Refused> {
        let host = only_host(version, headers)?;
        // A call that names its host in the first line means that one.
        let called = uri.authority().cloned().or(host);
        if let Some(called) = &called {
            self.check_name(called)?;
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(Visit { from: None }),
            (Some(origin), None) => self.check_site(origin, called.as_ref()),
            (Some(_), Some(_)) => Err(refused(
                StatusCode::BAD_REQUEST,
                "header Origin stands there twice",
            )),
        }
    }

    fn check_name(&self, called: &Authority) -> Result<(), Refused> {
        if self.is_ours(called) {
            return Ok(());
        }
        let name = shown(called.as_str());
        let host = shown(called.host());
        let own = self.own;
        Err(refused(
            StatusCode::MISDIRECTED_REQUEST,
            &format!(
                "{name} is no name of this service, which answers to {own}; clients that call it \
                 by that name, as through a proxy or a forwarded port, are allowed with \
                 --host {host}"
            ),
        ))
    }

    fn check_site(
        &self,
        origin: &HeaderValue,
        called: Option<&Authority>,
    ) -> Result<Visit, Refused> {
        let site = String::from_utf8_lossy(origin.as_bytes()).to_ascii_lowercase();
        if called.is_some_and(|called| is_site_of(&site, called)) {
            return Ok(Visit { from: None });
        }
        if self.sites.iter().any(|it| it.0 == "*" || it.0 == site) {
            return Ok(Visit {
                from: Some(origin.clone()),
            });
        }
        let site = shown(&site);
        Err(refused(
            StatusCode::FORBIDDEN,
            &format!("pages of {site} may not call this service; --cors with that site allows it"),
        ))
    }

    fn is_ours(&self, called: &Authority) -> bool {
        let Some(names) = &self.names else {
            return true;
        };
        let host = host_of(called);
        let port = called.port_u16().unwrap_or(HTTP_PORT);
        let is_own = || {
            let address = host.parse::<IpAddr>().map(|ip| ip.to_canonical());
            let is_here = |ip: IpAddr| ip.is_loopback() || ip == self.own.ip().to_canonical();
            port == self.own.port() && (host == "localhost" || address.is_ok_and(is_here))
        };
        let is_named = |name: &HostName| match name {
            HostName::Any => true,
            HostName::Named {
                host: named,
                port: at,
            } => *named == host && at.is_none_or(|at| at == port),
        };
        is_own() || names.iter().any(is_named)
    }
}

impl Visit {
    /// The answer to the question of a browser whether a page may make a call, where
    /// the call is that question.
    pub fn preflight(&self, sites: &Sites, request: &Request<Incoming>) -> Option<Answer> {
        let asks = request.method() == Method::OPTIONS
            && request
                .headers()
                .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.from.is_none() {
            return None;
        }
        let mut answer = Answer::default();
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let methods = HeaderValue::from_static("GET, HEAD, POST");
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, sites.headers.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        // Chromium asks this too, where a page of the network calls this machine.
        if request.headers().contains_key(ASKS_PRIVATE_NETWORK) {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        Some(answer)
    }

    /// Lets the page read the answer.
    pub fn allow_reading(self, answer: &mut Answer) {
        let Some(from) = self.from else {
            return;
        };
        let readable =
            HeaderValue::from_static("retry-after, x-rv-message-id, x-rv-model, x-rv-reason");
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, from);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, readable);
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
}

const ASKS_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// The one `Host` of a call. A call of HTTP/1.0 may have none.
fn only_host(version: Version, headers: &HeaderMap) -> Result<Option<Authority>, Refused> {
    let refused = |reason: &str| refused(StatusCode::BAD_REQUEST, reason);
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(None),
        (None, _) => Err(refused("header Host is missing")),
        (Some(_), Some(_)) => Err(refused("header Host stands there twice")),
        (Some(host), None) => match authority(host.as_bytes()) {
            Some(host) => Ok(Some(host)),
            None => Err(refused("header Host is no HOST or HOST:PORT")),
        },
    }
}

/// A host, and perhaps a port; `None` where the text is anything else.
fn authority(text: &[u8]) -> Option<Authority> {
    let authority = Authority::try_from(text).ok()?;
    let port = authority.as_str().strip_prefix(authority.host())?;
    let is_whole = port.is_empty() || authority.port_u16().is_some();
    let is_host = match authority.host().strip_prefix('[') {
        Some(address) => address.trim_end_matches(']').parse::<Ipv6Addr>().is_ok(),
        None => !host_of(&authority).is_empty(),
    };
    (is_whole && is_host).then_some(authority)
}

/// The host as it is compared.
fn host_of(authority: &Authority) -> String {
    let host = authority.host().trim_matches(['[', ']']);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Whether a page of this site is one of the service that was called.
fn is_site_of(site: &str, called: &Authority) -> bool {
    let host = site.split_once("://").map(|(_, host)| host);
    host.is_some_and(|host| host.eq_ignore_ascii_case(called.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(own: &str, names: &[&str], allowed: &[&str]) -> Sites {
        let names: Vec<HostName> = names.iter().map(|it| it.parse().unwrap()).collect();
        let allowed: Vec<Site> = allowed.iter().map(|it| it.parse().unwrap()).collect();
        Sites::new(own.parse().unwrap(), &names, &allowed, None)
    }

    /// The status of a refusal; 200 for none.
    fn status(sites: &Sites, version: Version, uri: &str, headers: &[(HeaderName, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        match sites.admit_call(version, &uri.parse().unwrap(), &map) {
            Ok(_) => 200,
            Err(refused) => refused.status().as_u16(),
        }
    }

    fn of_host(sites: &Sites, host: &str) -> u16 {
        status(sites, Version::HTTP_11, "/predict", &[(HOST, host)])
    }

    #[test]
    fn a_listener_of_this_machine_answers_to_its_own_names() {
        let own = sites("127.0.0.1:8000", &[], &[]);
        for host in [
            "127.0.0.1:8000",
            "localhost:8000",
            "LocalHost.:8000",
            "127.1.2.3:8000",
            "[::1]:8000",
            "[::ffff:127.0.0.1]:8000",
        ] {
            assert_eq!(of_host(&own, host), 200, "{host}");
        }
        for host in [
            "evil.example:8000",
            "evil.example",
            "localhost",
            "localhost:8001",
            "localhost.evil.example:8000",
            "127.0.0.1.evil.example:8000",
            "192.0.2.1:8000",
            "0.0.0.0:8000",
        ] {
            assert_eq!(of_host(&own, host), 421, "{host}");
        }
        for host in [
            "",
            "a b",
            "localhost:",
            "localhost:x",
            "localhost:99999",
            "u@localhost:8000",
            "localhost:8000/x",
            "localhost:8000,evil.example",
            "caf\u{e9}:8000",
            "[]:8000",
        ] {
            assert_eq!(of_host(&own, host), 400, "{host}");
        }
        assert_eq!(of_host(&sites("[::1]:80", &[], &[]), "localhost"), 200);
    }

    #[test]
    fn more_names_are_allowed_by_the_flag_and_elsewhere_all() {
        let named = sites(
            "127.0.0.1:8000",
            &["Models.Example", "forwarded:9000", "::1"],
            &[],
        );
        for (host, expected) in [
            ("models.example", 200),
            ("models.example:1234", 200),
            ("forwarded:9000", 200),
            ("forwarded:9001", 421),
            ("[::1]:9", 200),
            ("localhost:8000", 200),
            ("other.example", 421),
        ] {
            assert_eq!(of_host(&named, host), expected, "{host}");
        }
        assert_eq!(of_host(&sites("127.0.0.1:8000", &["*"], &[]), "x"), 200);
        let elsewhere = sites("192.0.2.1:8000", &[], &[]);
        assert_eq!(of_host(&elsewhere, "any.example"), 200);
        let named = sites("192.0.2.1:8000", &["models.example"], &[]);
        assert_eq!(of_host(&named, "any.example"), 421);
        assert_eq!(of_host(&named, "192.0.2.1:8000"), 200);
        for wrong in ["", "a b", "http://x", "x/y", "x:y", "u@x", "[x]", "::g"] {
            assert!(wrong.parse::<HostName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn there_is_one_host_and_the_first_line_comes_before_it() {
        let own = sites("127.0.0.1:8000", &[], &[]);
        let here = (HOST, "localhost:8000");
        let (new, old) = (Version::HTTP_11, Version::HTTP_10);
        for (version, uri, headers, expected) in [
            (new, "/", vec![], 400),
            (old, "/", vec![], 200),
            (new, "/", vec![here.clone(), here.clone()], 400),
            (old, "/", vec![here.clone(), here.clone()], 400),
            (old, "/", vec![(HOST, "evil.example")], 421),
            (new, "http://localhost:8000/", vec![here.clone()], 200),
            (new, "http://evil.example/", vec![here.clone()], 421),
        ] {
            let found = status(&own, version, uri, &headers);
            assert_eq!(found, expected, "{version:?} {uri} {headers:?}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused_unless_they_are_allowed() {
        let of_origin = |sites: &Sites, origin: &str| {
            let headers = [(HOST, "localhost:8000"), (ORIGIN, origin)];
            status(sites, Version::HTTP_11, "/predict", &headers)
        };
        let own = sites("127.0.0.1:8000", &[], &[]);
        for (origin, expected) in [
            ("http://localhost:8000", 200),
            ("http://LOCALHOST:8000", 200),
            ("http://localhost:3000", 403),
            ("http://127.0.0.1:8000", 403),
            ("https://evil.example", 403),
            ("http://localhost:8000.evil.example", 403),
            ("null", 403),
            ("", 403),
        ] {
            assert_eq!(of_origin(&own, origin), expected, "{origin}");
        }
        let allowed = sites("127.0.0.1:8000", &[], &["https://App.example/", "null"]);
        for (origin, expected) in [
            ("https://app.example", 200),
            ("null", 200),
            ("http://app.example", 403),
            ("https://app.example.evil", 403),
        ] {
            assert_eq!(of_origin(&allowed, origin), expected, "{origin}");
        }
        let all = sites("127.0.0.1:8000", &[], &["*"]);
        assert_eq!(of_origin(&all, "https://any.example"), 200);
        let twice = [(HOST, "localhost:8000"), (ORIGIN, "null"), (ORIGIN, "null")];
        assert_eq!(status(&all, Version::HTTP_11, "/", &twice), 400);
        for wrong in [
            "",
            "app.example",
            "https://",
            "https://a/b",
            "https://u@a",
            "https://a?x",
        ] {
            assert!(wrong.parse::<Site>().is_err(), "{wrong}");
        }
    }
}
