//! Checks the `Host` and the `Origin` of calls, and answers preflight requests (CORS).
//!
//! A browser runs pages of any site, and lets them send calls to services on this
//! machine. Two headers distinguish the calls of pages from those of the service's own
//! clients. `Host` is the host in the address of the call. An attacker can own a host
//! name and let the name resolve to this machine (DNS rebinding). Then `Host` is that
//! name. `Origin` is the site of the page.

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

use crate::serve::request::http::answer::{HttpAnswer, bad_request, error};
use crate::stage::report::shown;

/// The port of HTTP.
pub const HTTP_PORT: u16 = 80;

/// The port of HTTPS.
pub const HTTPS_PORT: u16 = 443;

/// The headers that pages of other sites may send, apart from the one of the message id.
const CORS_HEADERS: &str = "authorization, content-encoding, content-type, traceparent, \
                            tracestate, x-rv-deadline-ms";

/// A name that `Host` may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostName {
    /// Every name.
    Any,
    /// One host. The port is given, or any port is accepted (`None`).
    Named {
        /// The host, in lower case and without brackets.
        host: String,
        /// The port that a call must name.
        port: Option<u16>,
    },
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

/// A site whose pages may call, in lower case: `scheme://host`, `scheme://host:port`,
/// `null` (the origin of pages without a site), or `*` for every site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Origin, String> {
        if text == "*" || text == "null" {
            return Ok(Origin(text.to_owned()));
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
        Ok(Origin(site))
    }
}

/// Which calls a listener accepts.
#[derive(Debug)]
pub struct CallerCheck {
    /// The address of the listener.
    own_address: SocketAddr,
    /// The accepted names, in addition to the service's own names. `None` accepts
    /// every name.
    names: Option<Vec<HostName>>,
    /// The sites whose pages may call, in addition to the service itself.
    origins: Vec<Origin>,
    /// The headers that pages of other sites may send, with commas between them.
    cors_headers: HeaderValue,
    /// The port if `Host` has none.
    default_port: u16,
}

/// The caller of an accepted call.
#[derive(Debug)]
pub struct Caller {
    /// The site of the calling web page, if it is another site.
    other_site: Option<HeaderValue>,
}

impl CallerCheck {
    /// The check of a listener at `own_address`. At a loopback address, the check
    /// accepts the service's own names and `names`. At another address, it accepts
    /// every name if `names` is empty. Pages of other sites may send `id_header`.
    pub fn new(
        own_address: SocketAddr,
        names: &[HostName],
        origins: &[Origin],
        id_header: Option<&HeaderName>,
    ) -> CallerCheck {
        let allows_all = names.contains(&HostName::Any)
            || names.is_empty() && !own_address.ip().to_canonical().is_loopback();
        let mut cors_headers = CORS_HEADERS.to_owned();
        if let Some(id_header) = id_header {
            cors_headers = format!("{cors_headers}, {id_header}");
        }
        CallerCheck {
            own_address,
            names: (!allows_all).then(|| names.to_vec()),
            origins: origins.to_vec(),
            cors_headers: HeaderValue::from_str(&cors_headers)
                .unwrap_or(HeaderValue::from_static(CORS_HEADERS)),
            default_port: HTTP_PORT,
        }
    }

    /// The same check for a listener of another protocol, whose port is this one if
    /// `Host` has none.
    pub fn with_default_port(self, default_port: u16) -> CallerCheck {
        CallerCheck {
            default_port,
            ..self
        }
    }

    /// Checks a call. The error is the answer to a refused call.
    pub fn check(&self, request: &Request<Incoming>) -> Result<Caller, Box<HttpAnswer>> {
        self.check_headers(request.version(), request.uri(), request.headers())
    }

    fn check_headers(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Caller, Box<HttpAnswer>> {
        let host = only_host(version, headers)?;
        // The host in the request line takes precedence over `Host`.
        let host = uri.authority().cloned().or(host);
        if let Some(host) = &host {
            self.check_host(host)?;
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(Caller { other_site: None }),
            (Some(origin), None) => self.check_origin(origin, host.as_ref()),
            (Some(_), Some(_)) => Err(bad_request("header Origin occurs twice")),
        }
    }

    fn check_host(&self, host: &Authority) -> Result<(), Box<HttpAnswer>> {
        if self.is_own_name(host) {
            return Ok(());
        }
        let shown_host = shown(host.as_str());
        let flag = shown(host.host());
        let own_address = self.own_address;
        Err(Box::new(error(
            StatusCode::MISDIRECTED_REQUEST,
            &format!(
                "{shown_host} is not a name of this service, which listens at {own_address}; if \
                 clients call it by this name, as through a proxy or a forwarded port, allow the \
                 name with --host {flag}"
            ),
        )))
    }

    fn check_origin(
        &self,
        origin: &HeaderValue,
        host: Option<&Authority>,
    ) -> Result<Caller, Box<HttpAnswer>> {
        let site = String::from_utf8_lossy(origin.as_bytes()).to_ascii_lowercase();
        if host.is_some_and(|host| is_site_of(&site, host)) {
            return Ok(Caller { other_site: None });
        }
        if self.origins.iter().any(|it| it.0 == "*" || it.0 == site) {
            return Ok(Caller {
                other_site: Some(origin.clone()),
            });
        }
        let site = shown(&site);
        Err(Box::new(error(
            StatusCode::FORBIDDEN,
            &format!("web pages of {site} may not call this service; --cors allows a site"),
        )))
    }

    fn is_own_name(&self, called: &Authority) -> bool {
        let Some(names) = &self.names else {
            return true;
        };
        let host = host_of(called);
        let port = called.port_u16().unwrap_or(self.default_port);
        let own_ip = self.own_address.ip().to_canonical();
        let is_own = || {
            let address = host.parse::<IpAddr>().map(|ip| ip.to_canonical());
            let is_here = |ip: IpAddr| ip.is_loopback() || ip == own_ip;
            port == self.own_address.port() && (host == "localhost" || address.is_ok_and(is_here))
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

    /// A browser sends a preflight request to ask whether a page of another site may
    /// make a call. Returns the answer, or `None` if the call is not a preflight.
    pub fn preflight_answer(
        &self,
        caller: &Caller,
        request: &Request<Incoming>,
    ) -> Option<HttpAnswer> {
        let is_preflight = request.method() == Method::OPTIONS
            && request
                .headers()
                .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !is_preflight || caller.other_site.is_none() {
            return None;
        }
        let mut answer = HttpAnswer::default();
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let methods = HeaderValue::from_static("GET, HEAD, POST");
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.cors_headers.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        // Chromium also asks whether a page from the network may call this machine.
        if request.headers().contains_key(REQUEST_PRIVATE_NETWORK) {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        Some(answer)
    }
}

impl Caller {
    /// Lets a page of another site read the answer.
    pub fn allow_reading(self, answer: &mut HttpAnswer) {
        let Some(site) = self.other_site else {
            return;
        };
        let readable = HeaderValue::from_static(
            "retry-after, traceparent, tracestate, x-rv-message-id, x-rv-model, x-rv-reason",
        );
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, site);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, readable);
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
}

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// The `Host` of a call. A call must have one `Host`; a call of HTTP/1.0 may have none.
fn only_host(version: Version, headers: &HeaderMap) -> Result<Option<Authority>, Box<HttpAnswer>> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(None),
        (None, _) => Err(bad_request("header Host is missing")),
        (Some(_), Some(_)) => Err(bad_request("header Host occurs twice")),
        (Some(host), None) => match authority(host.as_bytes()) {
            Some(host) => Ok(Some(host)),
            None => Err(bad_request("header Host is not HOST or HOST:PORT")),
        },
    }
}

/// Parses a host with or without a port. Returns `None` if the text has another form.
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

/// The host in a normalised form, for comparisons.
fn host_of(authority: &Authority) -> String {
    let host = authority.host().trim_matches(['[', ']']);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Whether a page of this site comes from the service with the host `called`.
fn is_site_of(site: &str, called: &Authority) -> bool {
    let host = site.split_once("://").map(|(_, host)| host);
    host.is_some_and(|host| host.eq_ignore_ascii_case(called.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(own: &str, names: &[&str], origins: &[&str]) -> CallerCheck {
        let names: Vec<HostName> = names.iter().map(|it| it.parse().unwrap()).collect();
        let origins: Vec<Origin> = origins.iter().map(|it| it.parse().unwrap()).collect();
        CallerCheck::new(own.parse().unwrap(), &names, &origins, None)
    }

    /// The status of a refusal; 200 for an accepted call.
    fn status(
        check: &CallerCheck,
        version: Version,
        uri: &str,
        headers: &[(HeaderName, &str)],
    ) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        match check.check_headers(version, &uri.parse().unwrap(), &map) {
            Ok(_) => 200,
            Err(refused) => refused.status().as_u16(),
        }
    }

    fn of_host(check: &CallerCheck, host: &str) -> u16 {
        status(check, Version::HTTP_11, "/predict", &[(HOST, host)])
    }

    #[test]
    fn a_loopback_listener_answers_to_its_own_names() {
        let own = check("127.0.0.1:8000", &[], &[]);
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
        assert_eq!(of_host(&check("[::1]:80", &[], &[]), "localhost"), 200);
    }

    #[test]
    fn flags_allow_more_names_and_another_address_allows_all() {
        let named = check(
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
        assert_eq!(of_host(&check("127.0.0.1:8000", &["*"], &[]), "x"), 200);
        let elsewhere = check("192.0.2.1:8000", &[], &[]);
        assert_eq!(of_host(&elsewhere, "any.example"), 200);
        let named = check("192.0.2.1:8000", &["models.example"], &[]);
        assert_eq!(of_host(&named, "any.example"), 421);
        assert_eq!(of_host(&named, "192.0.2.1:8000"), 200);
        for wrong in ["", "a b", "http://x", "x/y", "x:y", "u@x", "[x]", "::g"] {
            assert!(wrong.parse::<HostName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn there_is_one_host_and_the_request_line_takes_precedence() {
        let own = check("127.0.0.1:8000", &[], &[]);
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
        let of_origin = |check: &CallerCheck, origin: &str| {
            let headers = [(HOST, "localhost:8000"), (ORIGIN, origin)];
            status(check, Version::HTTP_11, "/predict", &headers)
        };
        let own = check("127.0.0.1:8000", &[], &[]);
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
        let allowed = check("127.0.0.1:8000", &[], &["https://App.example/", "null"]);
        for (origin, expected) in [
            ("https://app.example", 200),
            ("null", 200),
            ("http://app.example", 403),
            ("https://app.example.evil", 403),
        ] {
            assert_eq!(of_origin(&allowed, origin), expected, "{origin}");
        }
        let all = check("127.0.0.1:8000", &[], &["*"]);
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
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }
}
