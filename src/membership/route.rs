//! The way to the broker of a mesh, as the daemon's link and the commands take it.

use super::Error;
use crate::config::broker_client::BrokerLink;
use crate::config::broker_url::BrokerUrl;
use crate::config::proxy;
use crate::config::source::Source;
use crate::runtime::dial::Dialer;

/// Checks a broker's URL, `[broker]` and what the environment says of proxies.
pub fn route(url: &str, link: &BrokerLink, environment: &dyn Source) -> Result<(BrokerUrl, Dialer), Error> {
    link.check()?;
    let url = BrokerUrl::parse(url, link.allow_insecure)?;
    let proxy = proxy::of(&url, link.proxy.as_ref(), environment)?;
    Ok((url, Dialer::new(proxy, link.ca_file.clone())))
}
