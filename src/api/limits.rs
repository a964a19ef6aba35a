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
/// Greatest page of a list over gRPC, in bytes: 3.5 MiB. The clients of all languages
/// take answers of 4 MiB unless they are told otherwise.
pub const MAX_GRPC_PAGE: usize = 7 << 19;
/// Greatest JSON list in an answer, in bytes (R132). A list is cut before.
pub const MAX_LIST_BYTES: usize = 10_000_000;
/// Sends of one stream that may await their answer.
pub const STREAM_WINDOW: usize = 256;
/// Most sends, and answers, in one message of a stream.
pub const MAX_BATCH: usize = 64;

/// The limits of one daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limits {
    in_flight: Arc<Semaphore>,
    in_flight_max: u32,
    event_streams: Streams,
    send_streams: Streams,
    /// Greatest REST body in bytes.
    pub body_bytes: usize,
}

/// The places of one kind of stream, and the setting that says how many.
#[derive(Clone, Debug)]
struct Streams {
    places: Arc<Semaphore>,
    max: u32,
    what: &'static str,
    setting: &'static str,
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
        let streams = |max, what, setting| Streams { places: places(max), max, what, setting };
        Self {
            in_flight: places(config.in_flight_requests),
            in_flight_max: config.in_flight_requests,
            event_streams: streams(config.event_streams, "event streams", "event_streams"),
            send_streams: streams(config.send_streams, "send streams", "send_streams"),
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

    /// Takes a place for one event stream, until it ends (R134).
    pub fn open_event_stream(&self) -> Result<StreamPermit, Failure> {
        self.event_streams.open()
    }

    /// Takes a place for one stream of sends, until it ends. Every client of an SDK
    /// holds one, so they are not counted with the event streams.
    pub fn open_send_stream(&self) -> Result<StreamPermit, Failure> {
        self.send_streams.open()
    }
}

fn places(count: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(usize::MAX >> 3)))
}

// === impl Streams ===

impl Streams {
    fn open(&self) -> Result<StreamPermit, Failure> {
        Arc::clone(&self.places).try_acquire_owned().map(StreamPermit).map_err(|_| {
            let Self { max, what, setting, .. } = self;
            let text = format!("{max} {what} are open, which is the limit; close one or raise [limits] {setting}");
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
        let held: Vec<_> = (0..32).map(|_| limits.open_event_stream().unwrap()).collect();
        assert_eq!(limits.open_event_stream().unwrap_err().code(), ErrorCode::TooManyStreams);
        // Streams of sends have places of their own.
        let sends: Vec<_> = (0..256).map(|_| limits.open_send_stream().unwrap()).collect();
        let refused = limits.open_send_stream().unwrap_err();
        assert_eq!(refused.code(), ErrorCode::TooManyStreams);
        assert!(refused.to_detail().message.contains("send_streams"));
        drop((held, sends));
        assert!(limits.open_event_stream().is_ok() && limits.open_send_stream().is_ok());
    }
}
