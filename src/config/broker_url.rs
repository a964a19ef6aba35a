//! The address of a broker: a WebSocket URL, and the place of its HTTP calls.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::Authority;

/// A broker's WebSocket URL that was checked: `wss://`, or `ws://` where that
/// is allowed (R335).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerUrl {
    text: String,
    uri: Uri,
    tls: bool,
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
        Ok(Self { text: url.to_owned(), uri, tls, loopback })
    }

    /// The URL as it was given: invites sign it, so not a byte may change.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The URL in its parts.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether it begins with `wss://`.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether the broker is on this host.
    pub fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// The host, an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        self.uri.host().unwrap_or_default()
    }

    /// The port, or the usual one.
    pub fn port(&self) -> u16 {
        self.uri.port_u16().unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// `https://host:port` or `http://host:port`, and the path above the WebSocket's:
    /// `wss://host/mesh/ws` gives `https://host/mesh`, `wss://host/ws` no path.
    pub fn http_base(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.uri.authority().map_or("", Authority::as_str), self.prefix())
    }

    /// The path above the WebSocket's, without a slash at its end.
    pub fn prefix(&self) -> &str {
        self.uri.path().rsplit_once('/').map_or("", |(above, _)| above)
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
    fn http_calls_go_to_what_stands_beside_the_websocket() {
        let base = |url| BrokerUrl::parse(url, false).unwrap().http_base();
        assert_eq!(base("ws://127.0.0.1:7900/ws"), "http://127.0.0.1:7900");
        assert_eq!(base("wss://ws.example/ws"), "https://ws.example");
        assert_eq!(base("wss://ws.example"), "https://ws.example");
        assert_eq!(base("wss://ws.example/mesh"), "https://ws.example");
        assert_eq!(base("wss://ws.example/mesh/ws?x=/y"), "https://ws.example/mesh");
        assert_eq!(base("wss://ws.example/a/b/ws"), "https://ws.example/a/b");
        assert_eq!(base("ws://[::1]:7900/ws"), "http://[::1]:7900");
    }
}
