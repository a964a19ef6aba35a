//! Refuses what a web page could cause.
//!
//! A browser can reach a loopback port, and a page can make it do so. Three
//! rules hold on every listener: no token in a query string, no foreign origin,
//! no preflight. The Host rule, against names that are made to resolve to
//! loopback, holds on TCP only: on a socket it names nothing and clients send
//! all sorts of values. No answer ever carries a CORS header (R123).

use axum::extract::Query;
use http::{HeaderMap, Method, Uri, header};

use super::call::Via;
use super::status::Failure;
use crate::domain::error_code::ErrorCode;

/// What this daemon lets through.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// `[ipc] allowed_origins` (R121).
    pub origins: Vec<String>,
    /// The address that the TCP listener is bound to, as a host name.
    pub bound_host: String,
}

// === impl Guard ===

impl Guard {
    /// Checks a request before anything else is done with it.
    pub fn check(&self, via: &Via, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
        if names_a_token(uri) {
            return Err(Failure::new(
                ErrorCode::TokenInQuery,
                "a token in the query string ends up in logs and histories; send it as `Authorization: Bearer`, and \
                 replace the one that was exposed",
            ));
        }
        if matches!(via, Via::Tcp { .. }) {
            self.check_hosts(uri, headers)?;
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        if origins.any(|origin| !self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())) {
            return Err(Failure::new(
                ErrorCode::OriginNotAllowed,
                "the request has an Origin header, so a web page has made it; if that is wanted, add the origin to [ipc] \
                 allowed_origins in config.toml",
            ));
        }
        if method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
            return Err(Failure::new(
                ErrorCode::PreflightRefused,
                "no cross-origin request is allowed, so there is nothing to ask for; call the API from a program, not from a page",
            ));
        }
        Ok(())
    }

    fn check_hosts(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
        // HTTP/2 has `:authority`, HTTP/1 `Host`; a request with both must be
        // right in both.
        let in_headers = headers.get_all(header::HOST).iter().map(|host| host.to_str().unwrap_or("?"));
        let mut hosts = uri.authority().map(|authority| authority.as_str()).into_iter().chain(in_headers);
        match hosts.find(|host| !self.is_own(host)) {
            None => Ok(()),
            Some(host) => Err(Failure::new(
                ErrorCode::HostNotAllowed,
                format!(
                    "the Host header {:?} names no address of this daemon; it must be localhost, 127.0.0.1 or [::1], \
                     with or without a port",
                    host.chars().take(100).collect::<String>()
                ),
            )),
        }
    }

    fn is_own(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else { return false };
        ["", "localhost", "127.0.0.1", "[::1]"].into_iter().any(|own| own.eq_ignore_ascii_case(name))
            || (!self.bound_host.is_empty() && self.bound_host.eq_ignore_ascii_case(name))
    }
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`; `None` for anything
/// else.
fn without_port(host: &str) -> Option<&str> {
    let split = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at(split);
    let is_port = |port: &str| port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|c| c.is_ascii_digit()));
    (port.is_empty() || is_port(port)).then_some(name)
}

/// Names that clients give a token in a query string, without what separates words.
const TOKENS: [&str; 3] = ["token", "accesstoken", "localtoken"];

/// Whether the query string has a parameter for a token, in any spelling (R114).
fn names_a_token(uri: &Uri) -> bool {
    // An unreadable query is refused later, where it is read.
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default();
    pairs.iter().any(|(name, _)| {
        let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        TOKENS.iter().any(|token| token.eq_ignore_ascii_case(&letters))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(via: &Via, method: &Method, uri: &str, headers: &[(&str, &str)]) -> Result<(), ErrorCode> {
        let guard = Guard { origins: vec!["http://ok.example".to_owned()], bound_host: "127.0.0.2".to_owned() };
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (http::HeaderName::try_from(*name).unwrap(), http::HeaderValue::try_from(*value).unwrap())
            })
            .collect();
        guard.check(via, method, &uri.parse().unwrap(), &headers).map_err(|failure| failure.code())
    }

    // Covers: R120
    #[test]
    fn only_loopback_names_are_hosts_over_tcp() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:1234", "", "127.0.0.2:9"]
        {
            assert_eq!(check(&Via::tcp(), &Method::GET, "/v1/health", &[("host", host)]), Ok(()), "{host}");
        }
        let refused = Err(ErrorCode::HostNotAllowed);
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil", "localhost:80@evil", "[::1].x", "::1", "[::1"]
        {
            assert_eq!(check(&Via::tcp(), &Method::GET, "/", &[("host", host)]), refused, "{host}");
            assert_eq!(check(&Via::unix(), &Method::GET, "/", &[("host", host)]), Ok(()), "{host}");
        }
        let both = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(check(&Via::tcp(), &Method::GET, "/", &both), refused);
        assert_eq!(check(&Via::tcp(), &Method::GET, "http://evil.example/", &[]), refused);
    }

    // Covers: R114
    #[test]
    fn a_token_in_the_query_is_refused_everywhere() {
        for uri in [
            "/v1/health?token=x",
            "/v1/send?a=1&token=",
            "/v1/events?%74oken=x",
            "/x?TOKEN=y",
            "/x?access_token=y",
            "/x?Access%5FToken=y",
            "/x?%61ccessToken",
            "/x?local_token=y",
            "/x?LOCAL-TOKEN=y",
            "/x?+token+=y",
        ] {
            for via in [Via::unix(), Via::tcp()] {
                let bearer = [("authorization", "Bearer right"), ("host", "localhost")];
                assert_eq!(check(&via, &Method::GET, uri, &bearer), Err(ErrorCode::TokenInQuery), "{uri}");
            }
        }
        for uri in ["/v1/inbox?page_token=x", "/v1/inbox?pageToken=x", "/v1/inbox?topic=token"] {
            assert_eq!(check(&Via::unix(), &Method::GET, uri, &[]), Ok(()), "{uri}");
        }
    }

    // Covers: R121, R124
    #[test]
    fn pages_and_their_preflights_are_refused_on_every_listener() {
        for via in [Via::unix(), Via::tcp()] {
            for origin in ["http://localhost", "null", "http://ok.example.evil"] {
                let refused = check(&via, &Method::GET, "/", &[("origin", origin)]);
                assert_eq!(refused, Err(ErrorCode::OriginNotAllowed), "{origin}");
            }
            assert_eq!(check(&via, &Method::GET, "/", &[("origin", "http://ok.example")]), Ok(()));
            let preflight = [("origin", "http://ok.example"), ("access-control-request-method", "POST")];
            assert_eq!(check(&via, &Method::OPTIONS, "/", &preflight), Err(ErrorCode::PreflightRefused));
        }
    }
}
