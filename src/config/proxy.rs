//! Through which proxy a broker is reached.

use std::fmt;

use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use serde::Deserialize;

use super::ConfigError;
use super::broker_url::BrokerUrl;
use super::source::Source;

/// Switches a proxy of the environment off.
const NONE: &str = "none";
/// What is accepted.
const ACCEPTED: &str = "it must be http://host:port, socks5://host:port or socks5h://host:port, with user:password@ \
                        before the host where the proxy asks for them, or \"none\"";

/// A proxy's URL, which may hold a password; or `none`.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct ProxyUrl(pub String);

// === impl ProxyUrl ===

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl ProxyUrl {
    /// Without user and password.
    fn shown(&self) -> String {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://[redacted]@{host}"),
            (None, Some((_, host))) => format!("[redacted]@{host}"),
            _ => self.0.clone(),
        }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.0 == NONE || intercept(&self.0, "", false, "proxied.invalid").is_some() {
            return Ok(());
        }
        Err(ConfigError::Value { key: "broker.proxy", value: self.shown(), reason: ACCEPTED.to_owned() })
    }
}

/// The proxy for a broker: that of `[broker] proxy`, else that of the environment, as
/// curl reads it. The environment's is for other hosts only.
pub fn of(
    url: &BrokerUrl,
    setting: Option<&ProxyUrl>,
    environment: &dyn Source,
) -> Result<Option<Intercept>, ConfigError> {
    if let Some(setting) = setting {
        setting.check()?;
        if setting.0 == NONE {
            return Ok(None);
        }
        return Ok(intercept(&setting.0, "", url.is_tls(), url.host()));
    }
    if url.is_loopback() {
        return Ok(None);
    }
    let names = match url.is_tls() {
        true => ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
        false => ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
    };
    let Some((name, value)) = names.into_iter().find_map(|name| Some((name, environment.var(name)?))) else {
        return Ok(None);
    };
    if intercept(&value, "", url.is_tls(), url.host()).is_none() {
        let value = ProxyUrl(value).shown();
        return Err(ConfigError::Variable { name: name.to_owned(), value, reason: ACCEPTED.to_owned() });
    }
    let exceptions = ["no_proxy", "NO_PROXY"].into_iter().find_map(|name| environment.var(name)).unwrap_or_default();
    Ok(intercept(&value, &exceptions, url.is_tls(), url.host()))
}

/// The proxy of that URL, unless the host is an exception.
fn intercept(proxy: &str, exceptions: &str, tls: bool, host: &str) -> Option<Intercept> {
    let scheme = if tls { "https" } else { "http" };
    let target = Uri::builder().scheme(scheme).authority(host).path_and_query("/").build().ok()?;
    let matcher = Matcher::builder().all(proxy.to_owned()).no(exceptions.to_owned()).build();
    let found = matcher.intercept(&target)?;
    matches!(found.uri().scheme_str(), Some("http" | "socks5" | "socks5h")).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::MapSource;

    fn found(url: &str, setting: Option<&str>, variables: &[(&str, &str)]) -> Result<String, String> {
        let map = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let url = BrokerUrl::parse(url, true).unwrap();
        let setting = setting.map(|text| ProxyUrl(text.to_owned()));
        match of(&url, setting.as_ref(), &MapSource(map)) {
            Ok(proxy) => Ok(proxy.map_or_else(|| "none".to_owned(), |proxy| proxy.uri().to_string())),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_setting_goes_before_the_environment() {
        let far = "wss://mesh.example/ws";
        let both = [("HTTPS_PROXY", "http://env:3128"), ("http_proxy", "http://clear:3128")];
        assert_eq!(found(far, None, &[]).unwrap(), "none");
        assert_eq!(found(far, None, &both).unwrap(), "http://env:3128/");
        assert_eq!(found("ws://mesh.example/ws", None, &both).unwrap(), "http://clear:3128/");
        assert_eq!(found(far, None, &[("ALL_PROXY", "socks5h://env:1080")]).unwrap(), "socks5h://env:1080/");
        assert_eq!(found(far, Some("http://u:p@set:8080"), &both).unwrap(), "http://set:8080/");
        assert_eq!(found(far, Some("none"), &both).unwrap(), "none");
        for exceptions in ["mesh.example", ".example", "*", "other.test, mesh.example"] {
            assert_eq!(found(far, None, &[both[0], ("NO_PROXY", exceptions)]).unwrap(), "none", "{exceptions}");
        }
        assert_eq!(found(far, None, &[both[0], ("no_proxy", "other.test")]).unwrap(), "http://env:3128/");
        // What is on this host is not behind a proxy, unless that is asked for.
        assert_eq!(found("ws://127.0.0.1:7900/ws", None, &both).unwrap(), "none");
        assert_eq!(found("ws://127.0.0.1:7900/ws", Some("http://set:8080"), &[]).unwrap(), "http://set:8080/");
    }

    #[test]
    fn what_is_no_proxy_is_named_without_its_password() {
        for wrong in ["https://u:geheim@proxy:443", "ftp://proxy", "http://", "socks4://proxy", "http://a b"] {
            let error = found("wss://mesh.example/ws", Some(wrong), &[]).unwrap_err();
            assert!(error.contains("broker.proxy") && !error.contains("geheim"), "{error}");
            let error = found("wss://mesh.example/ws", None, &[("https_proxy", wrong)]).unwrap_err();
            assert!(error.contains("https_proxy") && !error.contains("geheim"), "{error}");
        }
    }
}
