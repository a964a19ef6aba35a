//! How much is served at once. What is above a limit is refused at once, so
//! that callers learn of it instead of waiting without knowing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::status::Failure;
use crate::config::ipc::Limits as Config;
use crate::domain::error_code::ErrorCode;

/// Greatest gRPC message in either direction, in bytes: 8 MiB.
pub const MAX_GRPC_MESSAGE: usize = 8 << 20;
/// Greatest JSON list in an answer, in bytes (R132). A list is cut before.
pub const MAX_LIST_BYTES: usize = 10_000_000;
/// Sends of one stream that may await their answer.
pub const STREAM_WINDOW: usize = 256;

/// The limits of one daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limits {
    in_flight: Arc<Semaphore>,
    in_flight_max: u32,
    streams: Arc<Semaphore>,
    streams_max: u32,
    /// Greatest REST body in bytes.
    pub body_bytes: usize,
}

/// A place among the open streams; free again when dropped.
#[derive(Debug)]
pub struct StreamPermit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A place among the requests in flight; free again when dropped.
#[derive(Debug)]
pub struct CallPermit(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

// === impl Limits ===

impl Limits {
    /// The limits of `[limits]`.
    pub fn new(config: &Config) -> Self {
        let semaphore = |places: u32| Arc::new(Semaphore::new(usize::try_from(places).unwrap_or(usize::MAX >> 3)));
        Self {
            in_flight: semaphore(config.in_flight_requests),
            in_flight_max: config.in_flight_requests,
            streams: semaphore(config.event_streams),
            streams_max: config.event_streams,
            body_bytes: usize::try_from(config.request_body_bytes).unwrap_or(usize::MAX),
        }
    }

    /// Takes a place for one request, until it is answered (R133).
    pub fn enter(&self) -> Result<CallPermit, Failure> {
        Arc::clone(&self.in_flight).try_acquire_owned().map(CallPermit).map_err(|_| {
            let text = format!("{} requests are in flight, which is the limit; try again", self.in_flight_max);
            Failure::new(ErrorCode::DaemonBusy, text).retry_after(Duration::from_millis(100))
        })
    }

    /// Takes a place for one stream, until it ends (R134).
    pub fn open_stream(&self) -> Result<StreamPermit, Failure> {
        Arc::clone(&self.streams).try_acquire_owned().map(StreamPermit).map_err(|_| {
            let text = format!(
                "{} streams are open, which is the limit; close one or raise [limits] event_streams",
                self.streams_max
            );
            Failure::new(ErrorCode::TooManyStreams, text).retry_after(Duration::from_secs(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Covers: R133, R134
    #[test]
    fn one_above_the_limit_is_refused_and_a_place_is_given_back() {
        let limits = Limits::new(&Config::default());
        let held: Vec<_> = (0..64).map(|_| limits.enter().unwrap()).collect();
        assert_eq!(limits.enter().unwrap_err().code(), ErrorCode::DaemonBusy);
        drop(held);
        assert!(limits.enter().is_ok());
        let held: Vec<_> = (0..32).map(|_| limits.open_stream().unwrap()).collect();
        assert_eq!(limits.open_stream().unwrap_err().code(), ErrorCode::TooManyStreams);
        drop(held);
        assert!(limits.open_stream().is_ok());
    }
}
