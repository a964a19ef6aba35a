//! What a broker's answer to the negotiation means for this daemon.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::wire::features::{
    DedupeParams, Feature, KeyEpochParams, MaxPayloadParams, NegotiationResponse, ParamError, RateLimitParams,
    VersionOnly,
};

/// The greatest frame towards a broker that does not say (R-base protocol).
const BASE_FRAME_BYTES: u64 = 65_536;

/// The outcome of the feature negotiation.
#[derive(Clone, Debug, PartialEq)]
pub struct Negotiated {
    /// Bits that the broker has, with parameters that can be used.
    pub supported: Vec<String>,
    /// Their parameters.
    pub params: BTreeMap<String, Value>,
    /// Greatest frame in bytes.
    pub max_frame_bytes: u64,
    /// Days for which the broker recognises ids.
    pub dedupe_retention_days: Option<u32>,
    /// Sends per second and burst that the broker allows this member.
    pub rate_limit: Option<(u32, u32)>,
}

/// A required bit that was not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Its name.
    pub(super) feature: String,
    /// What is wrong with it, for people.
    pub(super) detail: String,
}

/// Parameters that were not taken as the broker gave them.
type Defects = Vec<(Feature, String)>;

// === impl Negotiated ===

impl Default for Negotiated {
    /// What holds for a broker that says nothing.
    fn default() -> Self {
        Self {
            supported: Vec::new(),
            params: BTreeMap::new(),
            max_frame_bytes: BASE_FRAME_BYTES,
            dedupe_retention_days: None,
            rate_limit: None,
        }
    }
}

impl Negotiated {
    /// What a response means, and which of `require` are missing. A bit whose
    /// parameters cannot be used counts as missing. Where it is not required,
    /// the daemon goes on with its own default, which is logged.
    pub(super) fn from_response(response: NegotiationResponse, require: &[String]) -> (Self, Vec<Missing>) {
        let (negotiated, defects) = Self::read(&response);
        for (feature, defect) in &defects {
            if !require.iter().any(|name| name == feature.as_str()) || negotiated.has(*feature) {
                tracing::warn!(feature = feature.as_str(), defect, "feature_optional_param_invalid: {defect}");
            }
        }
        let detail = |name: &String| {
            let defect = defects.iter().find(|(feature, _)| feature.as_str() == name);
            defect.map_or_else(|| "the broker does not have it".to_owned(), |(_, defect)| defect.clone())
        };
        let missing = require
            .iter()
            .filter(|name| !negotiated.supported.contains(name) || response.missing_required.contains(name))
            .map(|name| Missing { feature: name.clone(), detail: detail(name) })
            .collect();
        (negotiated, missing)
    }

    fn read(response: &NegotiationResponse) -> (Self, Defects) {
        let mut negotiated = Self { params: response.params.clone(), ..Self::default() };
        let mut defects = Vec::new();
        for name in &response.supported {
            let usable = match Feature::parse(name) {
                // A bit of another version; whether it is there is all that is
                // known of it.
                None => Ok(()),
                Some(feature) => negotiated.take(feature, response, &mut defects),
            };
            match usable {
                Ok(()) if negotiated.supported.contains(name) => {}
                Ok(()) => negotiated.supported.push(name.clone()),
                Err((feature, error)) => {
                    negotiated.params.remove(name);
                    defects.push((feature, error.to_string()));
                }
            }
        }
        (negotiated, defects)
    }

    /// Takes over the parameters of one bit; an error makes it missing.
    fn take(
        &mut self,
        feature: Feature,
        response: &NegotiationResponse,
        defects: &mut Defects,
    ) -> Result<(), (Feature, ParamError)> {
        let unusable = |error| (feature, error);
        match feature {
            Feature::ClientMessageIdDedupe => {
                let params = response.params_of::<DedupeParams>(feature).map_err(unusable)?;
                self.dedupe_retention_days = params.dedupe_retention_days;
            }
            Feature::ConcurrentConnectionPolicy => {
                response.params_of::<VersionOnly>(feature).map_err(unusable)?;
                if let Err(defect) = response.default_policy() {
                    // The mesh's policy is for information: the broker applies
                    // it either way.
                    self.params.insert(feature.as_str().to_owned(), json!({"version": 1}));
                    defects.push((feature, defect));
                }
            }
            Feature::KeyEpoch => drop(response.params_of::<KeyEpochParams>(feature).map_err(unusable)?),
            Feature::MaxPayload => {
                self.max_frame_bytes = response.params_of::<MaxPayloadParams>(feature).map_err(unusable)?.inline_bytes;
            }
            Feature::RateLimit => {
                let params = response.params_of::<RateLimitParams>(feature).map_err(unusable)?;
                self.rate_limit = Some((params.per_s, params.burst));
            }
            Feature::MemberKeypairRotatedEvent
            | Feature::DeliveryAck
            | Feature::DeliveryOutcome
            | Feature::FramePieces
            | Feature::ReceiverReady
            | Feature::TopicE2e
            | Feature::History
            | Feature::FilesV3 => drop(response.params_of::<VersionOnly>(feature).map_err(unusable)?),
        }
        Ok(())
    }

    /// Whether a bit was agreed.
    pub fn has(&self, feature: Feature) -> bool {
        self.supported.iter().any(|bit| bit == feature.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(params: &Value) -> NegotiationResponse {
        let params: BTreeMap<String, Value> = serde_json::from_value(params.clone()).unwrap();
        let supported = Feature::ALL.iter().map(|feature| feature.as_str().to_owned()).collect();
        NegotiationResponse { supported, params, ..NegotiationResponse::default() }
    }

    fn good() -> Value {
        json!({
            "client_message_id_dedupe": {"version": 1, "mode": "retention_scoped", "dedupe_retention_days": 30},
            "concurrent_connection_policy": {"version": 1, "default_policy": "prefer_oldest"},
            "member_keypair_rotated_event": {"version": 1},
            "key_epoch": {"version": 1, "max_concurrent_epochs": 2},
            "max_payload": {"version": 1, "inline_bytes": 100_000, "blob_bytes": 0},
            "delivery_ack": {"version": 1},
            "delivery_outcome": {"version": 1},
            "topic_e2e": {"version": 1},
            "history": {"version": 1},
            "files_v3": {"version": 1},
            "rate_limit": {"version": 1, "per_s": 5, "burst": 50},
            "frame_pieces": {"version": 1},
            "receiver_ready": {"version": 1},
        })
    }

    #[test]
    fn good_parameters_are_in_force() {
        let all: Vec<String> = Feature::ALL.iter().map(|feature| feature.as_str().to_owned()).collect();
        let (negotiated, missing) = Negotiated::from_response(response(&good()), &all);
        assert_eq!(missing, []);
        assert_eq!(negotiated.supported, all);
        assert_eq!(negotiated.max_frame_bytes, 100_000);
        assert_eq!((negotiated.dedupe_retention_days, negotiated.rate_limit), (Some(30), Some((5, 50))));
    }

    #[test]
    fn bad_parameters_make_a_bit_missing_whichever_it_is() {
        for feature in Feature::ALL {
            let name = feature.as_str();
            let bad = [Value::Null, json!({}), json!({"version": 2}), json!("yes"), json!({"version": "1"})];
            for value in bad {
                let mut params = good();
                params[name] = value.clone();
                let (negotiated, missing) = Negotiated::from_response(response(&params), &[name.to_owned()]);
                assert!(!negotiated.has(*feature), "{name} with {value}");
                assert_eq!(missing.len(), 1, "{name} with {value}");
                assert_eq!(missing[0].feature, name);
            }
            let mut params = good();
            params.as_object_mut().unwrap().remove(name);
            let (_, missing) = Negotiated::from_response(response(&params), &[name.to_owned()]);
            assert!(missing[0].detail.contains("no parameters"), "{missing:?}");
        }
    }

    #[test]
    fn values_out_of_range_count_as_bad() {
        for (name, value) in [
            ("client_message_id_dedupe", json!({"version": 1, "mode": "retention_scoped"})),
            ("client_message_id_dedupe", json!({"version": 1, "mode": "retention_scoped", "dedupe_retention_days": 0})),
            ("client_message_id_dedupe", json!({"version": 1, "mode": "someday", "dedupe_retention_days": 7})),
            ("max_payload", json!({"version": 1, "inline_bytes": 100, "blob_bytes": 0})),
            ("key_epoch", json!({"version": 1, "max_concurrent_epochs": 0})),
            ("rate_limit", json!({"version": 1, "per_s": 0, "burst": 1})),
        ] {
            let mut params = good();
            params[name] = value.clone();
            let (negotiated, missing) = Negotiated::from_response(response(&params), &[]);
            assert_eq!(missing, [], "nothing is required");
            assert!(!negotiated.supported.iter().any(|bit| bit == name), "{name} with {value}");
            assert!(negotiated.max_frame_bytes == 100_000 || negotiated.max_frame_bytes == BASE_FRAME_BYTES);
        }
    }

    #[test]
    fn a_bad_optional_parameter_falls_back_and_keeps_its_bit() {
        let mut params = good();
        params["concurrent_connection_policy"] = json!({"version": 1, "default_policy": "prefer_tallest"});
        let require = ["concurrent_connection_policy".to_owned()];
        let (negotiated, missing) = Negotiated::from_response(response(&params), &require);
        assert_eq!(missing, []);
        assert_eq!(negotiated.params["concurrent_connection_policy"], json!({"version": 1}));
    }

    #[test]
    fn what_the_broker_calls_missing_is_missing() {
        let mut response = response(&good());
        response.missing_required = vec!["time_travel".to_owned(), "delivery_ack".to_owned()];
        let require = ["time_travel".to_owned(), "delivery_ack".to_owned()];
        let (_, missing) = Negotiated::from_response(response, &require);
        assert_eq!(missing.iter().map(|one| one.feature.as_str()).collect::<Vec<_>>(), ["time_travel", "delivery_ack"]);
    }
}
