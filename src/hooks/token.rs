//! Capability tokens: what one run may ask of the daemon, and until when.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::domain::capability::{Scope, Trigger, Wish, allowed_by};
use crate::domain::hook_policy::next_hop;
use crate::runtime::clock::Clock;
use crate::runtime::ids::{IdSource, RandomError};
use crate::telemetry::metrics::Metrics;

/// Length of a token in bytes before base64url.
const BYTES: usize = 32;
/// A token is good for no longer (R236).
const LIFETIME: Duration = Duration::from_secs(300);

/// What one run may ask of the daemon. Cheap to clone.
#[derive(Clone)]
pub struct RunAccess(Arc<Inner>);

struct Inner {
    hook: String,
    message_id: String,
    /// `None` without scopes: then nothing is allowed.
    token: Option<Zeroizing<String>>,
    scopes: Vec<Scope>,
    trigger: Trigger,
    expires: Duration,
    ended: AtomicBool,
    calls: AtomicU32,
    /// Sends without an id of their own that were accepted.
    sends: tokio::sync::Mutex<u32>,
    clock: Clock,
    metrics: Metrics,
}

/// A send that a token allows.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// How many automatic sends led to it, itself included.
    pub hops: u32,
    run: RunAccess,
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No scope of the token allows it.
    Scope,
    /// Too many automatic messages led to one another.
    Hops,
}

/// What a run is for, as far as its access depends on it.
pub(super) struct Grant<'a> {
    pub(super) hook: &'a str,
    pub(super) message_id: &'a str,
    pub(super) scopes: &'a [Scope],
    pub(super) trigger: &'a Trigger,
}

// === impl RunAccess ===

impl RunAccess {
    /// The access of a run that begins now. Only a hook with scopes gets a token
    /// (R222).
    pub(super) fn new(
        grant: &Grant<'_>,
        clock: &Clock,
        ids: &IdSource,
        metrics: &Metrics,
    ) -> Result<Self, RandomError> {
        let token = match grant.scopes {
            [] => None,
            _ => Some(Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(ids.random::<BYTES>()?))),
        };
        Ok(Self(Arc::new(Inner {
            hook: grant.hook.to_owned(),
            message_id: grant.message_id.to_owned(),
            token,
            scopes: grant.scopes.to_vec(),
            trigger: grant.trigger.clone(),
            expires: clock.monotonic() + LIFETIME,
            ended: AtomicBool::new(false),
            calls: AtomicU32::new(0),
            sends: tokio::sync::Mutex::default(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        })))
    }

    /// The token's text, for the run's environment.
    pub(super) fn token(&self) -> Option<&str> {
        self.0.token.as_ref().map(|token| token.as_str())
    }

    /// The run is over, and its token with it.
    pub(super) fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
    }

    /// Calls that were made with the token.
    pub(super) fn calls(&self) -> u32 {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// The hook's name.
    pub fn hook(&self) -> &str {
        &self.0.hook
    }

    /// Whether a presented token is this run's and still good. Takes the same time
    /// wherever the two differ.
    pub fn verify(&self, presented: &str) -> bool {
        let Some(token) = &self.0.token else { return false };
        let same: bool = token.as_bytes().ct_eq(presented.as_bytes()).into();
        same && !self.0.ended.load(Ordering::Acquire) && self.0.clock.monotonic() < self.0.expires
    }

    /// Whether a send is allowed. Counts the call either way (R244).
    pub fn admit(&self, wish: Wish<'_>) -> Result<Allowed, Denied> {
        let scope = allowed_by(&self.0.scopes, wish, &self.0.trigger);
        self.count(scope.map_or_else(|| "none".to_owned(), ToString::to_string));
        scope.ok_or(Denied::Scope)?;
        let hops = next_hop(self.0.trigger.auto_hops).ok_or(Denied::Hops)?;
        Ok(Allowed { hops, run: self.clone() })
    }

    /// Counts a call that no scope can allow.
    pub fn refused(&self) {
        self.count("none".to_owned());
    }

    fn count(&self, scope: String) {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        self.0.metrics.hook_called(&self.0.hook, scope);
    }
}

// === impl Allowed ===

impl Allowed {
    /// Sends under the run's next id, for a send that has none: a run that is repeated
    /// sends the same ids. A send that is refused takes no number, as it may be
    /// accepted when the run is repeated.
    pub async fn numbered<T, E, F>(&self, send: impl FnOnce(String) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let run = &self.run.0;
        let mut sends = run.sends.lock().await;
        *sends += 1;
        let sent = send(send_id(&run.message_id, &run.hook, *sends)).await;
        if sent.is_err() {
            *sends -= 1;
        }
        sent
    }
}

/// The id of a run's n-th send; 0 is the reply on its standard output.
pub(super) fn send_id(message_id: &str, hook: &str, n: u32) -> String {
    format!("hook:{message_id}:{hook}:{n}")
}

impl fmt::Debug for RunAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunAccess({} for {}, token [redacted])", self.0.hook, self.0.message_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::MemberKey;
    use crate::domain::time::UnixMillis;

    fn access(scopes: &[Scope], auto_hops: u32, clock: &Clock) -> RunAccess {
        let trigger = Trigger {
            sender: Some(MemberKey([1; 32])),
            client_message_id: "c".to_owned(),
            auto_hops,
            ..Trigger::default()
        };
        let grant = Grant { hook: "on-dm", message_id: "01J", scopes, trigger: &trigger };
        RunAccess::new(&grant, clock, &IdSource::new(clock.clone()), &Metrics::new("demo")).unwrap()
    }

    // Covers: R236
    #[test]
    fn a_token_ends_with_its_run_and_after_five_minutes() {
        let clock = Clock::manual(UnixMillis(0));
        let (one, two) = (access(&[Scope::ReplyEvent], 0, &clock), access(&[Scope::ReplyEvent], 0, &clock));
        let token = one.token().unwrap().to_owned();
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap().len(), 32);
        assert!(one.verify(&token) && !two.verify(&token) && !one.verify("") && !one.verify(&format!("{token}x")));
        assert!(!format!("{one:?}").contains(&token));
        clock.advance(Duration::from_secs(299));
        assert!(one.verify(&token));
        clock.advance(Duration::from_secs(2));
        assert!(!one.verify(&token), "5 min 1 s");
        let three = access(&[Scope::ReplyEvent], 0, &clock);
        let token = three.token().unwrap().to_owned();
        assert!(three.verify(&token));
        three.end();
        assert!(!three.verify(&token), "its run is over");
    }

    // Covers: R222
    #[test]
    fn without_scopes_there_is_no_token() {
        let access = access(&[], 0, &Clock::manual(UnixMillis(0)));
        assert_eq!(access.token(), None);
        assert!(!access.verify(""));
    }

    // Covers: R244, R312
    #[tokio::test]
    async fn sends_are_numbered_bounded_in_hops_and_counted() {
        let clock = Clock::manual(UnixMillis(0));
        let sender = MemberKey([1; 32]).to_hex();
        let wish = Wish::Direct { to: &sender, reply_to: "c" };
        let run = access(&[Scope::ReplyEvent], 2, &clock);
        for n in 1..3 {
            let allowed = run.admit(wish).unwrap();
            assert_eq!(allowed.hops, 3);
            let refused: Result<String, String> = allowed.numbered(async |id| Err(id)).await;
            let accepted: Result<String, String> = allowed.numbered(async |id| Ok(id)).await;
            let id = format!("hook:01J:on-dm:{n}");
            assert_eq!((refused, accepted), (Err(id.clone()), Ok(id)), "one that is refused takes no number");
        }
        assert_eq!(run.admit(Wish::Direct { to: "bob", reply_to: "c" }).unwrap_err(), Denied::Scope);
        run.refused();
        assert_eq!(run.calls(), 4);
        assert_eq!(access(&[Scope::ReplyEvent], 3, &clock).admit(wish).unwrap_err(), Denied::Hops);
        let text = run.0.metrics.prometheus_text(&crate::telemetry::metrics::Observed::default());
        for line in [
            r#"cm_daemon_hook_capability_calls_total{mesh="demo",hook="on-dm",scope="reply:event"} 2"#,
            r#"cm_daemon_hook_capability_calls_total{mesh="demo",hook="on-dm",scope="none"} 2"#,
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
