//! Named points at which a test stops the process, as a power failure would.
//!
//! Only a build with the Cargo feature `failpoints` has them; a shipped build
//! holds neither the names nor the variable.

/// The point at which the process ends: `CLAUDEMESH_FAILPOINT` names it.
#[cfg(feature = "failpoints")]
const VARIABLE: &str = "CLAUDEMESH_FAILPOINT";

/// Ends the process here, without a word and without clean-up, when the test
/// chose this point.
#[cfg(feature = "failpoints")]
#[expect(clippy::disallowed_methods, reason = "the variable exists in test builds only and is read where it counts")]
pub fn hit(name: &str) {
    if std::env::var(VARIABLE).is_ok_and(|chosen| chosen == name) {
        // As `kill -9` would: no handler runs and nothing is flushed.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// Nothing, in a shipped build.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &str) {}

/// A time limit that a test may shorten by `CLAUDEMESH_LIMIT_MS`.
#[cfg(feature = "failpoints")]
#[expect(clippy::disallowed_methods, reason = "the variable exists in test builds only and is read where it counts")]
pub fn limit(default: std::time::Duration) -> std::time::Duration {
    let chosen = std::env::var("CLAUDEMESH_LIMIT_MS").ok().and_then(|text| text.parse().ok());
    chosen.map_or(default, std::time::Duration::from_millis)
}

/// The limit as it is, in a shipped build.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn limit(default: std::time::Duration) -> std::time::Duration {
    default
}
