//! Who may call: everybody who can open the Unix socket, and over TCP whoever
//! shows the daemon's bearer token (R107 to R109, R118).

use http::{HeaderMap, header};

use super::call::Via;
use super::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::identity::token::LocalToken;

/// What is written to the log in place of a credential (R115).
pub const REDACTED: &str = "Bearer ***";

/// Checks the bearer token where one is needed.
pub fn check(via: &Via, headers: &HeaderMap, token: &LocalToken) -> Result<(), Failure> {
    let Via::Tcp { .. } = via else { return Ok(()) };
    match bearer(headers) {
        Some(presented) if token.verify(presented) => Ok(()),
        // Where this user keeps its files is nothing for who has no token.
        presented => Err(Failure::new(
            ErrorCode::Unauthenticated,
            format!(
                "{} over TCP each call needs `Authorization: Bearer` with the content of `local_token` in the daemon's \
                 state directory",
                if presented.is_some() { "the bearer token is wrong;" } else { "no bearer token was sent;" },
            ),
        )),
    }
}

/// The token of the one `Authorization: Bearer` header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, credentials) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock::Clock;
    use crate::runtime::ids::IdSource;

    // Covers: R107, R108
    #[test]
    fn tcp_needs_the_token_and_the_socket_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("local_token");
        let token = LocalToken::load_or_create(&path, &IdSource::new(Clock::system())).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let call = |via: &Via, values: &[String]| {
            let headers = values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect();
            check(via, &headers, &token).map_err(|failure| failure.code())
        };
        let right = format!("Bearer {text}");
        assert_eq!(call(&Via::unix(), &[]), Ok(()));
        assert_eq!(call(&Via::tcp(), std::slice::from_ref(&right)), Ok(()));
        assert_eq!(call(&Via::tcp(), &[format!("bearer {text}")]), Ok(()));
        let wrong = [
            vec![],
            vec![format!("Bearer {text}x")],
            vec![text.clone()],
            vec![format!("Basic {text}")],
            vec![right.clone(), right],
        ];
        for values in wrong {
            assert_eq!(call(&Via::tcp(), &values), Err(ErrorCode::Unauthenticated), "{values:?}");
        }
    }
}
