//! The address of a broker: a WebSocket URL, and the HTTP origin beside it.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

/// A broker's WebSocket URL that was checked: `wss://`, or `ws://` where that
/// is allowed (R335).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    text: String,
    tls: bool,
    authority: String,
    loopback: bool,
}

/// Why a text is not a usable broker URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerUrlError {
    /// Not a `ws://` or `wss://` URL with a host.
    #[error("the broker URL {url:?} cannot be used: {reason}")]
    Malformed {
        /// The URL, without what is behind its 200th character.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Clear text over a network.
    #[error("the broker URL {0} is not encrypted, and ws:// is allowed to this host only")]
    Insecure(String),
}

// === impl BrokerUrl ===

impl BrokerUrl {
    /// Checks a URL. `ws://` to another host than this one needs
    /// `allow_insecure`: names, sizes and membership would be readable on the way.
    pub fn parse(url: &str, allow_insecure: bool) -> Result<Self, BrokerUrlError> {
        let malformed = |reason| BrokerUrlError::Malformed { url: url.chars().take(200).collect(), reason };
        let uri: Uri = url.parse().map_err(|_| malformed("it is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("wss") => true,
            Some("ws") => false,
            _ => return Err(malformed("it must begin with wss:// or ws://")),
        };
        let authority = uri.authority().ok_or_else(|| malformed("it has no host"))?;
        if authority.host().is_empty() {
            return Err(malformed("it has no host"));
        }
        // It would end up in files and logs, and no broker asks for it.
        if authority.as_str().contains('@') {
            return Err(malformed("it must not hold a user or password"));
        }
        let loopback = is_loopback(authority.host());
        if !tls && !loopback && !allow_insecure {
            return Err(BrokerUrlError::Insecure(url.to_owned()));
        }
        Ok(Self { text: url.to_owned(), tls, authority: authority.as_str().to_owned(), loopback })
    }

    /// The URL as it was given: invites sign it, so not a byte may change.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `https://host:port` or `http://host:port`; the URL's path is dropped, as
    /// every client of the protocol does.
    pub fn http_origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }

    /// Whether the link is encrypted or does not leave this host.
    pub fn is_protected(&self) -> bool {
        self.tls || self.loopback
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a URL's host is this host whatever the network says. `localhost` is
/// included: systems resolve it without asking a server.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Covers: R335
    #[test]
    fn plain_links_stay_on_this_host_unless_allowed() {
        for url in ["wss://mesh.example/ws", "ws://127.0.0.1:7900/ws", "ws://localhost/ws", "ws://[::1]:1/ws"] {
            let parsed = BrokerUrl::parse(url, false).unwrap();
            assert!(parsed.is_protected());
            assert_eq!(parsed.as_str(), url);
        }
        for url in ["ws://10.0.0.1/ws", "ws://localhost.evil.example/ws", "ws://127.0.0.1.evil.example/ws"] {
            assert_eq!(BrokerUrl::parse(url, false), Err(BrokerUrlError::Insecure(url.to_owned())));
            assert!(!BrokerUrl::parse(url, true).unwrap().is_protected());
        }
        for url in ["http://x/ws", "/ws", "", "wss:///ws", "ws://user:pw@127.0.0.1/ws", "ws://a b/ws"] {
            assert!(matches!(BrokerUrl::parse(url, true), Err(BrokerUrlError::Malformed { .. })), "{url}");
        }
    }

    #[test]
    fn the_http_origin_keeps_host_and_port_only() {
        let origin = |url| BrokerUrl::parse(url, false).unwrap().http_origin();
        assert_eq!(origin("ws://127.0.0.1:7900/ws"), "http://127.0.0.1:7900");
        assert_eq!(origin("wss://ws.example/ws"), "https://ws.example");
        assert_eq!(origin("ws://[::1]:7900/ws"), "http://[::1]:7900");
    }
}
