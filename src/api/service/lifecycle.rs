//! `LifecycleService`: the daemon's state for operators, and its end.

use super::Services;
use super::control::saturated;
use crate::api::convert::{self, timestamp};
use crate::api::status::{Failure, crate_version};
use crate::broker_client::{self, LinkState};
use crate::domain::error_code::ErrorCode;
use crate::domain::message::MIN_PREFIX_DIGITS;
use crate::domain::names;
use crate::domain::pressure::{Level, WARN_PCT, percent};
use crate::domain::roster::PinnedMember;
use crate::proto::admin;
use crate::runtime::memory;

/// An offset of the clock that is worth a word, in milliseconds. The measure has
/// the time of one answer in it.
const CLOCK_TOLERANCE_MS: i64 = 5_000;

/// Something that the operator should know.
pub fn warning(code: &str, message: String) -> admin::StatusWarning {
    admin::StatusWarning { code: code.to_owned(), message }
}

// === impl Services ===

impl Services {
    /// Everything that `daemon status` prints.
    pub async fn status(&self) -> Result<admin::GetStatusResponse, Failure> {
        let deps = &self.0.deps;
        let facts = &deps.facts;
        let depth = self.depth().await;
        let inbox = deps.inbox.size();
        let age = depth.oldest_pending.map(|oldest| deps.clock.now().since(oldest).as_secs_f64());
        let seen = self.0.link.seen();
        let session = seen.last_session.clone();
        let archived = deps.identity.archived();
        let mut warnings = facts.warnings.clone();
        if facts.insecure_link {
            warnings.push(warning("insecure_link", format!("the link to {} is not encrypted", facts.broker_url)));
        }
        if let Some(session) = session.as_ref().filter(|session| session.clock_offset_ms.abs() > CLOCK_TOLERANCE_MS) {
            let offset = broker_client::offset_text(session.clock_offset_ms);
            warnings
                .push(warning("clock_offset", format!("this host's clock is {offset}; set it, for example by NTP")));
        }
        warnings.extend(self.name_warning());
        warnings.extend(self.storage_warnings());
        let doubt = deps.guard.doubt();
        let pressure = deps.outbox.pressure();
        let (done, aborted) = deps.outbox.ended().await?;
        let (waiting_key, rejected) = deps.inbox.set_aside().await?;
        Ok(admin::GetStatusResponse {
            state: self.state().into(),
            degraded_reasons: self.degraded_reasons().iter().map(|reason| (*reason).to_owned()).collect(),
            identity: Some(admin::IdentityStatus {
                mesh: deps.mesh.clone(),
                mesh_id: deps.identity.mesh_id().to_string(),
                member_id: deps.identity.member_id().to_string(),
                pubkey: deps.identity.key().to_hex(),
                display_name: self.own_name(),
                mode: admin::IdentityMode::Persistent.into(),
                host_accepted: true,
                archived_keys: saturated(archived.len() as u64),
                next_key_erasure_at: archived.iter().map(|key| key.expires_at).min().map(timestamp),
                rotation_pending: deps.identity.next().is_some(),
                ..admin::IdentityStatus::default()
            }),
            process: Some(admin::ProcessStatus {
                pid: std::process::id(),
                version: crate_version().to_owned(),
                started_at: Some(timestamp(facts.started_at)),
                uptime_s: saturated(deps.clock.monotonic().as_secs()),
                state_dir: facts.state_dir.clone(),
                socket_path: facts.socket_path.clone(),
                http_address: facts.http_address.clone(),
                config_path: facts.config_path.clone(),
                log_path: facts.log_path.clone(),
                schema_version: deps.schema_version,
                rss_bytes: memory::resident_bytes().unwrap_or_default(),
            }),
            environment: Some(facts.environment.clone()),
            link: Some(self.link_status(&seen)),
            features: self.features(),
            clock: Some(admin::ClockStatus {
                offset_ms: session.as_ref().map_or(0.0, |session| session.clock_offset_ms as f64),
                trusted: doubt.is_none(),
            }),
            outbox: Some(admin::OutboxSummary {
                pending: saturated(depth.pending),
                inflight: saturated(depth.inflight),
                dead: saturated(depth.dead),
                oldest_pending_s: age.unwrap_or_default(),
                done: saturated(done),
                aborted: saturated(aborted),
                pressure: convert::pressure_level(pressure.level).into(),
                used_pct: pressure.used_pct,
                database_bytes: deps.outbox.database_bytes(),
            }),
            inbox: Some(admin::InboxSummary {
                rows: saturated(inbox.rows),
                database_bytes: inbox.bytes,
                waiting_key: saturated(waiting_key),
                rejected: saturated(rejected),
                newest_event_id: deps.inbox.newest().map(|id| id.to_string()).unwrap_or_default(),
                recovered_at: deps.inbox.recovered_at().map(timestamp),
            }),
            hooks: Some(self.hooks_summary()),
            last_exit: facts.last_exit.clone(),
            warnings,
        })
    }

    /// That sends to this member's name are refused, here and likely elsewhere.
    fn name_warning(&self) -> Option<admin::StatusWarning> {
        let deps = &self.0.deps;
        let own = self.own_member()?;
        if deps.peers.judge().is_bound(own.member_id.as_str(), &own.display_name) {
            return None;
        }
        let name = names::shown(&own.display_name);
        let why = if own.name_key.is_none() { "can be nobody's name" } else { "is or was another member's name too" };
        let text = format!(
            "{name} {why}, so that others reach this member by its key alone until they accept it; to see who has or \
             had the name: claudemesh verify {}",
            &own.key.to_hex()[..MIN_PREFIX_DIGITS]
        );
        Some(warning("name_not_unique", text))
    }

    /// What the operator should know of the disk, the clock and the age limit.
    fn storage_warnings(&self) -> Vec<admin::StatusWarning> {
        let deps = &self.0.deps;
        let mut found = Vec::new();
        if let Some(doubt) = deps.guard.doubt() {
            let text = format!(
                "the clock is not believed: {}; nothing is given up or removed for its age until the broker's time \
                 confirms it",
                doubt.text()
            );
            found.push(("clock_not_believed", text));
        }
        if let Some((hours, safe_hours)) = deps.outbox.risky_age() {
            let text = format!(
                "[outbox] max_age_hours is {hours}, but the broker's memory covers {safe_hours}: a very late retry may be \
                 delivered twice"
            );
            found.push(("redelivery_risk", text));
        }
        let pressure = deps.outbox.pressure();
        if pressure.level > Level::Normal {
            let text = format!(
                "the outbox is {:.0} % full ({}); make room: claudemesh daemon outbox prune",
                pressure.used_pct,
                pressure.measure.setting()
            );
            found.push(("outbox_pressure", text));
        }
        let inbox_pct = percent(deps.inbox.size().bytes, deps.disk.inbox_max_bytes);
        if inbox_pct >= WARN_PCT {
            let text = format!(
                "the inbox is {inbox_pct:.0} % of [disk] inbox_max_bytes; a shorter [inbox] retention_days makes room"
            );
            found.push(("inbox_large", text));
        }
        let warning = |(code, message): (&str, String)| admin::StatusWarning { code: code.to_owned(), message };
        found.into_iter().map(warning).collect()
    }

    /// Reads the settings again.
    pub fn reload(&self) -> Result<admin::ReloadResponse, Failure> {
        match (self.0.deps.reload)() {
            Ok(reloaded) => Ok(reloaded),
            Err(error) => Err(Failure::new(ErrorCode::ConfigInvalid, error.to_string())),
        }
    }

    /// Asks for an orderly stop.
    pub async fn shutdown(&self) -> admin::ShutdownResponse {
        let depth = self.depth().await;
        tracing::info!("A caller asked the daemon to stop");
        self.0.deps.stop.request();
        admin::ShutdownResponse { pid: std::process::id(), undelivered: saturated(depth.pending + depth.inflight) }
    }

    /// Notes this host as the home of the key.
    pub fn accept_host(&self) -> Result<admin::AcceptHostResponse, Failure> {
        Err(Failure::not_served("AcceptHost"))
    }

    fn own_name(&self) -> String {
        self.own_member().map_or_else(|| self.0.deps.facts.display_name.clone(), |member| member.display_name)
    }

    /// This member as it is pinned; before the first roster it is not.
    fn own_member(&self) -> Option<PinnedMember> {
        let deps = &self.0.deps;
        deps.peers.members().iter().find(|member| member.member_id == *deps.identity.member_id()).cloned()
    }

    fn link_status(&self, seen: &crate::api::link::Seen) -> admin::LinkStatus {
        let facts = &self.0.deps.facts;
        let (state, attempt, next_attempt_at) = match &seen.state {
            LinkState::Connecting => (admin::LinkState::Connecting, 0, None),
            LinkState::Ready(session) if session.is_doubtful() => (admin::LinkState::Unspecified, 0, None),
            LinkState::Ready(_) => (admin::LinkState::Connected, 0, None),
            LinkState::Waiting { attempt, pause, .. } => {
                (admin::LinkState::Backoff, *attempt, Some(timestamp(seen.changed_at.plus(*pause))))
            }
            LinkState::Ended(_) => (admin::LinkState::Closed, 0, None),
        };
        let session = seen.last_session.as_ref();
        admin::LinkStatus {
            state: state.into(),
            broker_url: facts.broker_url.clone(),
            broker_version: session.map(|session| session.broker_version.clone()).unwrap_or_default(),
            insecure: facts.insecure_link,
            since: Some(timestamp(seen.since)),
            lag_ms: self.0.link.lag_ms(),
            reconnects: saturated(self.0.link.reconnects()),
            last_error: seen
                .last_failure
                .as_ref()
                .map(|(code, text, _)| Failure::new(*code, text.as_str()).to_detail()),
            last_error_at: seen.last_failure.as_ref().map(|(_, _, at)| timestamp(*at)),
            attempt,
            next_attempt_at,
            yields: false,
            heard_at: session
                .map(|session| timestamp(self.0.deps.clock.now().minus(session.moved.read_at().elapsed()))),
        }
    }

    /// The bits that are required or granted, required ones first.
    fn features(&self) -> Vec<admin::NegotiatedFeature> {
        let required = &self.0.deps.required_features;
        let session = self.0.link.seen().last_session;
        let granted = session.as_ref().map(|session| session.negotiated.supported.as_slice()).unwrap_or_default();
        let others = granted.iter().filter(|name| !required.contains(name));
        let parameters = |name: &String| {
            let value = session.as_ref()?.negotiated.params.get(name)?;
            serde_json::from_value(value.clone()).ok()
        };
        let feature = |name: &String| admin::NegotiatedFeature {
            name: name.clone(),
            required: required.contains(name),
            granted: granted.contains(name),
            parameters: parameters(name),
        };
        required.iter().chain(others).map(feature).collect()
    }
}
