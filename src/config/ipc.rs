//! The local interface: `[ipc]` and `[limits]`.

use std::net::IpAddr;

use serde::Deserialize;

use super::ConfigError;

/// `[ipc]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Ipc {
    /// Listen on loopback TCP beside the Unix socket. Default true (R345).
    pub tcp_enabled: bool,
    /// The TCP port; 0 lets the system choose. Default 0 (R341).
    pub http_port: u16,
    /// The TCP address; loopback only. Default 127.0.0.1 (R342).
    pub http_bind: IpAddr,
    /// Mode of the Unix socket: `0600`. Default `0600` (R343).
    pub uds_mode: String,
    /// Serve `GET /v1/health` without a token over TCP. Default false (R346).
    pub public_health_check: bool,
    /// `Origin` values that are let through. Default none (R347).
    pub allowed_origins: Vec<String>,
}

/// `[limits]` (R32, R33, R131 to R135, R348).
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests in flight at once. Default 64.
    pub in_flight_requests: u32,
    /// Event streams open at once. Default 32.
    pub event_streams: u32,
    /// Streams of sends open at once; each client of an SDK holds one. Default 256.
    pub send_streams: u32,
    /// Connections open at once on one listener. Default 512.
    pub connections: u32,
    /// Greatest REST body in bytes: the 1 MiB message in JSON's longest
    /// spelling, and what stands around it. Default 6815744.
    pub request_body_bytes: u32,
}

// === impl Ipc ===

impl Default for Ipc {
    fn default() -> Self {
        Self {
            tcp_enabled: true,
            http_port: 0,
            http_bind: IpAddr::from([127, 0, 0, 1]),
            uds_mode: "0600".to_owned(),
            public_health_check: false,
            allowed_origins: Vec::new(),
        }
    }
}

impl Ipc {
    /// Checks the values.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.http_bind.is_loopback() {
            return Err(ConfigError::Value {
                key: "ipc.http_bind",
                value: self.http_bind.to_string(),
                reason: "only a loopback address is allowed".to_owned(),
            });
        }
        self.socket_mode().map(|_| ())
    }

    /// The socket's mode as a number.
    pub fn socket_mode(&self) -> Result<u32, ConfigError> {
        match u32::from_str_radix(&self.uds_mode, 8) {
            // The group may be let in; others never: the mode is the only lock.
            Ok(mode) if matches!(mode, 0o600 | 0o660) => Ok(mode),
            _ => Err(ConfigError::Value {
                key: "ipc.uds_mode",
                value: self.uds_mode.clone(),
                reason: "it must be \"0600\" or \"0660\"".to_owned(),
            }),
        }
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight_requests: 64,
            event_streams: 32,
            send_streams: 256,
            connections: 512,
            request_body_bytes: 6_815_744,
        }
    }
}

impl Limits {
    /// Checks the values.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |key, value: u32, low: u32, high: u32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            Err(ConfigError::Value {
                key,
                value: value.to_string(),
                reason: format!("it must be from {low} to {high}"),
            })
        };
        range("limits.in_flight_requests", self.in_flight_requests, 1, 10_000)?;
        range("limits.event_streams", self.event_streams, 1, 10_000)?;
        range("limits.send_streams", self.send_streams, 1, 10_000)?;
        range("limits.connections", self.connections, 1, 10_000)?;
        range("limits.request_body_bytes", self.request_body_bytes, 1024, 64 << 20)
    }
}
