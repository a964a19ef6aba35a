//! A literal sample of every frame, legacy and extended: it parses without an
//! unknown key and is written again exactly as it was.

use serde_json::Value;

use crate::wire::codec::{self, Decoded, Limits};
use crate::wire::delivery::Priority;
use crate::wire::event::SystemEvent;
use crate::wire::features::{ConcurrencyPolicy, DedupeMode, DedupeParams, Feature, MaxPayloadParams, ParamError};
use crate::wire::features::{NegotiationResponse, RateLimitParams};
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::hello::HelloCapabilities;
use crate::wire::refusal::Refusal;

const LIMITS: Limits = Limits { max_bytes: 65_536, strict: true };

const CLIENT: &[&str] = &[
    // The daemon of a legacy client, then its cold path, then ours.
    r#"{"type":"hello","meshId":"M","memberId":"A","pubkey":"8a","timestamp":1700000000000,"signature":"f9","sessionId":"daemon-7","pid":7,"cwd":"/","hostname":"h","peerType":"ai","channel":"claudemesh-daemon","model":"m"}"#,
    r#"{"type":"hello","meshId":"M","memberId":"A","pubkey":"8a","timestamp":1,"signature":"f9","sessionId":"s","pid":7,"cwd":"/","sessionPubkey":"ca","displayName":"n","groups":[{"name":"g"},{"name":"h","role":"lead"}],"protocolVersion":1,"capabilities":["x"]}"#,
    r#"{"type":"hello","meshId":"M","memberId":"A","pubkey":"8a","timestamp":1,"signature":"f9","sessionId":"s","pid":7,"cwd":"/","capabilities":{"capabilities":["envelope_v3"],"ts":5,"signature":"ab"},"instanceId":"01J","bootId":"01K","daemonVersion":"0.9.0","shown":{"status":"dnd","summary":"s","visible":false},"yield":true}"#,
    r#"{"type":"session_hello","meshId":"M","parentMemberId":"A","parentMemberPubkey":"8a","sessionPubkey":"ca","parentAttestation":{"sessionPubkey":"ca","parentMemberPubkey":"8a","expiresAt":1700043200000,"signature":"c6"},"sessionId":"u","pid":9,"cwd":"/w","timestamp":1700000000000,"signature":"dc","displayName":"n","channel":"claudemesh-session","role":"r","groups":[]}"#,
    r#"{"type":"feature_negotiation_request","require":["client_message_id_dedupe"],"optional":["history"],"_reqId":"q"}"#,
    r##"{"type":"send","targetSpec":"#T","priority":"now","nonce":"Bwc=","ciphertext":"aGk="}"##,
    r#"{"type":"send","targetSpec":"81","priority":"next","nonce":"Bwc=","ciphertext":"aGk=","id":"c1","client_message_id":"c1","request_fingerprint":"04"}"#,
    r##"{"type":"send","targetSpec":"#T","priority":"low","nonce":"Bwc=","ciphertext":"aGk=","id":"c1","client_message_id":"c1","request_fingerprint":"04","mentions":["A"],"replyToId":"m0","bodyVersion":2,"sender_key":"8a","recipient_key":"81","keyEpoch":3,"topicId":"T","_reqId":"q"}"##,
    r#"{"type":"client_ack","clientMessageId":"c1","brokerMessageId":"m1"}"#,
    r#"{"type":"client_ack","deliveryId":"d1","state":"quarantined"}"#,
    r#"{"type":"message_status","messageId":"abcdef12","_reqId":"q"}"#,
    r#"{"type":"list_peers","_reqId":"q"}"#,
    r#"{"type":"list_peers"}"#,
    r#"{"type":"member_list","_reqId":"q"}"#,
    r#"{"type":"member_rotate","statement":{"memberId":"A","seq":1,"oldPubkey":"8a","newPubkey":"81","ts":5,"oldSignature":"aa","newSignature":"bb"},"_reqId":"q"}"#,
    r#"{"type":"member_rename","displayName":"n","_reqId":"q"}"#,
    r#"{"type":"member_leave","_reqId":"q"}"#,
    r#"{"type":"member_certificate_put","certificate":{"memberPubkey":"8a","invitePubkey":"ca","role":"admin","expiresAt":5,"ownerSignature":"aa","inviteSignature":"bb"},"_reqId":"q"}"#,
    r#"{"type":"member_certificate_get","memberId":"A","_reqId":"q"}"#,
    r#"{"type":"member_revoke","meshId":"M","memberId":"A","auth":{"signer":"8a","ts":5,"signature":"ab"},"_reqId":"q"}"#,
    r#"{"type":"members_get","meshId":"M","auth":{"signer":"8a","ts":5,"signature":"ab"}}"#,
    r#"{"type":"mesh_policy_get","meshId":"M","auth":{"signer":"8a","ts":5,"signature":"ab"}}"#,
    r#"{"type":"mesh_policy_set","meshId":"M","concurrencyPolicy":"prefer_oldest","dedupeMode":"permanent","auth":{"signer":"8a","ts":5,"signature":"ab"}}"#,
    r#"{"type":"invite_create","meshId":"M","token":"T","maxUses":3,"auth":{"signer":"8a","ts":5,"signature":"ab"}}"#,
    r#"{"type":"invite_list","meshId":"M","auth":{"signer":"8a","ts":5,"signature":"ab"}}"#,
    r#"{"type":"invite_revoke","meshId":"M","inviteId":"I","auth":{"signer":"8a","ts":5,"signature":"ab"}}"#,
    r#"{"type":"api_key_create","meshId":"M","name":"ci","allowUnencrypted":true,"auth":{"signer":"8a","ts":5,"signature":"ab"}}"#,
    r#"{"type":"api_key_list","meshId":"M","auth":{"signer":"8a","ts":5,"signature":"ab"}}"#,
    r#"{"type":"api_key_revoke","meshId":"M","keyId":"K","auth":{"signer":"8a","ts":5,"signature":"ab"}}"#,
    r#"{"type":"history_get","before":"m9","limit":10,"topicId":"T","_reqId":"q"}"#,
    r#"{"type":"topic_create","name":"ops","description":"d","visibility":"public","_reqId":"q"}"#,
    r#"{"type":"topic_create","name":"ops","statement":{"topicId":"T","name":"ops","epoch":1,"commitment":"bb","members":["A"],"signer":"A","signerKey":"8a","ts":5,"signature":"cc"},"keys":[{"memberId":"B","sealed":"c2Vh","nonce":"Bwc="}]}"#,
    r#"{"type":"topic_list","_reqId":"q"}"#,
    r#"{"type":"topic_join","topic":"ops","role":"member"}"#,
    r#"{"type":"topic_leave","topic":"T","_reqId":"q"}"#,
    r#"{"type":"topic_members","topic":"ops"}"#,
    r#"{"type":"topic_history","topic":"ops","limit":5,"beforeId":"m1"}"#,
    r#"{"type":"topic_mark_read","topic":"ops"}"#,
    r#"{"type":"topic_epoch_new","statement":{"topicId":"T","name":"ops","epoch":2,"predecessor":"aa","commitment":"bb","members":["A","B"],"signer":"A","signerKey":"8a","ts":5,"signature":"cc"},"keys":[{"memberId":"B","sealed":"c2Vh","nonce":"Bwc="}],"_reqId":"q"}"#,
    r#"{"type":"topic_key_put","topicId":"T","epoch":2,"keys":[{"memberId":"B","sealed":"c2Vh","nonce":"Bwc="}],"_reqId":"q"}"#,
    r#"{"type":"topic_key_get","topicId":"T","afterEpoch":1,"broken":2,"_reqId":"q"}"#,
    r#"{"type":"topic_key_pending","_reqId":"q"}"#,
    r#"{"type":"set_status","status":"idle"}"#,
    r#"{"type":"set_summary","summary":"s"}"#,
    r#"{"type":"set_visible","visible":false,"_reqId":"q"}"#,
    r#"{"type":"set_profile","avatar":"a","title":"t","bio":"b","capabilities":["rust"],"_reqId":"q"}"#,
    r#"{"type":"set_stats","stats":{"messagesIn":1}}"#,
    r#"{"type":"join_group","name":"g","role":"r"}"#,
    r#"{"type":"leave_group","name":"g"}"#,
    r#"{"type":"piece","data":"\"drain\"}","last":true}"#,
    r#"{"type":"close_reason","kind":"feature_unavailable","feature":"client_message_id_dedupe","detail":"d","code":4010,"retryable":false}"#,
];

const SERVER: &[&str] = &[
    r#"{"type":"hello_ack","presenceId":"p","memberDisplayName":"n"}"#,
    r#"{"type":"hello_ack","presenceId":"p","memberDisplayName":"n","memberProfile":{"roleTag":null,"groups":[],"messageMode":"push"},"meshPolicy":{"selfEditable":{"displayName":true,"roleTag":false,"groups":true,"messageMode":true}},"restored":true,"lastSummary":"s","lastSeenAt":"2026-06-14T12:00:00.000Z","restoredGroups":[{"name":"g"}],"restoredStats":{"messagesIn":1},"services":[]}"#,
    r#"{"type":"hello_ack","presenceId":"p","memberDisplayName":"n","brokerVersion":"0.9.0","brokerTime":5,"memberId":"A","generation":2}"#,
    r#"{"type":"error","code":"no_hello","message":"say hello first"}"#,
    r#"{"type":"error","code":"topic_not_found","message":"m","id":"q","_reqId":"q"}"#,
    r#"{"type":"feature_negotiation_response","supported":["rate_limit"],"params":{"rate_limit":{"burst":10,"per_s":5,"version":1}},"missing_required":[],"_reqId":"q"}"#,
    r#"{"type":"ack","id":"c1","messageId":"m1","queued":true}"#,
    r#"{"type":"ack","id":"","messageId":"","queued":false,"error":"no connected peer","_reqId":"q"}"#,
    r#"{"type":"ack","id":"c1","messageId":"m1","queued":true,"historyId":"m1","duplicate":true,"historyAvailable":true,"firstSeenAt":5}"#,
    r#"{"type":"ack","id":"c1","messageId":"","queued":false,"error":"rate_limit: later","code":"rate_limit","retryable":true,"retryAfterMs":200}"#,
    r#"{"type":"push","messageId":"m1","meshId":"M","senderPubkey":"8a","priority":"next","nonce":"Bwc=","ciphertext":"aGk=","createdAt":"2026-06-14T12:00:00.000Z"}"#,
    r#"{"type":"push","messageId":"m1","meshId":"M","senderPubkey":"8a","priority":"next","nonce":"Bwc=","ciphertext":"aGk=","createdAt":"2026-06-14T12:00:00.000Z","senderMemberId":"A","senderMemberPubkey":"8a","senderName":"n","client_message_id":"c1","request_fingerprint":"04","topic":"dev","topicId":"T","replyToId":"m0","bodyVersion":2,"keyEpoch":3,"deliveryId":"d1","historyId":"m1","redelivery":false}"#,
    r#"{"type":"push","messageId":"u","meshId":"M","senderPubkey":"system","priority":"low","nonce":"","ciphertext":"","createdAt":"2026-06-14T12:00:00.000Z","subtype":"system","event":"peer_joined","eventData":{"groups":[],"name":"n","pubkey":"8a"}}"#,
    r#"{"type":"push","messageId":"u","meshId":"M","senderPubkey":"webhook:ci","priority":"next","nonce":"","ciphertext":"","createdAt":"x","subtype":"webhook","event":"ci","eventData":[1,"a"]}"#,
    r#"{"type":"delivery_status","client_message_id":"c1","state":"expired","at":5}"#,
    r#"{"type":"message_status_result","messageId":"m1","targetSpec":"81","delivered":false,"deliveredAt":null,"recipients":[{"name":"n","pubkey":"81","status":"held"}],"_reqId":"q"}"#,
    r#"{"type":"peers_list","peers":[{"pubkey":"ca","memberPubkey":"8a","displayName":"n","status":"idle","summary":null,"groups":[],"sessionId":"s","connectedAt":"x","cwd":"/"}],"_reqId":"q"}"#,
    r#"{"type":"peers_list","peers":[{"pubkey":"ca","memberPubkey":"8a","displayName":"n","status":"dnd","summary":"s","groups":[{"name":"g","role":"r"}],"sessionId":"s","connectedAt":"x","cwd":"/","peerRole":"control-plane","hostname":"h","peerType":"ai","channel":"c","model":"m","stats":{"uptime":1},"visible":true,"profile":{"bio":"b"},"capabilities":{"capabilities":["envelope_v3"],"ts":5,"signature":"ab"}}]}"#,
    r#"{"type":"members_list","members":[{"memberId":"A","pubkey":"8a","displayName":"n","role":"admin","joinedAt":5},{"memberId":"B","pubkey":"81","displayName":"m","role":"member","joinedAt":6,"revokedAt":7,"capabilities":{"capabilities":[],"ts":5,"signature":"ab"},"rotations":[{"memberId":"B","seq":1,"oldPubkey":"8a","newPubkey":"81","ts":5,"oldSignature":"aa","newSignature":"bb"}],"certificate":{"memberPubkey":"8a","invitePubkey":"ca","role":"member","expiresAt":5,"ownerSignature":"aa","inviteSignature":"bb"}}],"_reqId":"q"}"#,
    r#"{"type":"member_rotated","memberId":"A","seq":1,"pubkey":"81","_reqId":"q"}"#,
    r#"{"type":"member_certificate","memberId":"A","_reqId":"q"}"#,
    r#"{"type":"member_certificate","memberId":"A","certificate":{"memberPubkey":"8a","invitePubkey":"ca","role":"admin","expiresAt":5,"ownerSignature":"aa","inviteSignature":"bb"}}"#,
    r#"{"type":"mesh_policy","concurrencyPolicy":"prefer_newest","dedupeMode":"retention_scoped","_reqId":"q"}"#,
    r#"{"type":"invites_list","invites":[{"inviteId":"I","role":"member","maxUses":3,"usedCount":1,"createdAt":5,"expiresAt":6,"revokedAt":7}],"_reqId":"q"}"#,
    r#"{"type":"api_keys_list","keys":[{"keyId":"K","memberId":"A","name":"ci","allowUnencrypted":false,"createdAt":5,"lastUsedAt":6,"revokedAt":7}],"_reqId":"q"}"#,
    r#"{"type":"api_key_created","keyId":"K","key":"cmk_K_s","_reqId":"q"}"#,
    r#"{"type":"history_page","messages":[{"messageId":"m1","meshId":"M","senderPubkey":"8a","priority":"next","nonce":"Bwc=","ciphertext":"aGk=","createdAt":"x"}],"nextBefore":"m1","_reqId":"q"}"#,
    r#"{"type":"topic_created","topic":{"id":"T","name":"ops","description":null,"visibility":"public","memberCount":2,"createdAt":"x","epoch":2,"joined":true},"created":true,"_reqId":"q"}"#,
    r#"{"type":"topic_list_response","topics":[{"id":"T","name":"ops","description":null,"visibility":"public","memberCount":2,"createdAt":"x","epoch":2,"joined":true}],"_reqId":"q"}"#,
    r#"{"type":"topic_members_response","topic":"T","members":[{"memberId":"A","pubkey":"8a","displayName":"n","role":"lead","joinedAt":"x","lastReadAt":null}],"_reqId":"q"}"#,
    r#"{"type":"topic_history_response","topic":"T","messages":[{"id":"m1","senderPubkey":"8a","senderMemberId":"A","senderName":"n","nonce":"Bwc=","ciphertext":"aGk=","bodyVersion":2,"keyEpoch":2,"replyToId":"m0","createdAt":"x"}],"_reqId":"q"}"#,
    r#"{"type":"topic_epoch","statement":{"topicId":"T","name":"ops","epoch":2,"predecessor":"aa","commitment":"bb","members":["A","B"],"signer":"A","signerKey":"8a","ts":5,"signature":"cc"},"accepted":false,"_reqId":"q"}"#,
    r#"{"type":"topic_keys","topicId":"T","epochs":[{"topicId":"T","name":"ops","epoch":2,"predecessor":"aa","commitment":"bb","members":["A","B"],"signer":"A","signerKey":"8a","ts":5,"signature":"cc"}],"keys":[{"epoch":2,"sealed":"c2Vh","nonce":"Bwc="}],"more":false,"members":["A"],"holders":["A"],"lead":"A","_reqId":"q"}"#,
    r#"{"type":"topic_pending","pending":[{"topicId":"T","epoch":2,"memberId":"B","since":5}],"_reqId":"q"}"#,
    r#"{"type":"close_reason","kind":"replaced","detail":"","code":4003,"retryable":false}"#,
    r#"{"type":"drain","reconnectAfterMs":1500}"#,
    r#"{"type":"receiver_ready","memberId":"A","topicId":"T"}"#,
    r#"{"type":"piece","data":"{\"type\":"}"#,
];

fn client(text: &str) -> ClientFrame {
    let Decoded { frame, unknown_keys } = codec::decode_client(text, &LIMITS).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(unknown_keys, 0, "{text}");
    frame
}

fn server(text: &str) -> ServerFrame {
    let Decoded { frame, unknown_keys } = codec::decode_server(text, &LIMITS).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(unknown_keys, 0, "{text}");
    frame
}

#[test]
fn every_client_frame_reads_and_writes_as_its_peers_do() {
    for text in CLIENT {
        assert_eq!(codec::encode(&client(text)).expect("a known frame"), *text);
    }
    for kind in ClientFrame::KINDS {
        assert!(CLIENT.iter().any(|text| client(text).kind() == *kind), "no sample of {kind}");
    }
}

#[test]
fn every_server_frame_reads_and_writes_as_its_peers_do() {
    for text in SERVER {
        assert_eq!(codec::encode(&server(text)).expect("a known frame"), *text);
    }
    for kind in ServerFrame::KINDS {
        assert!(SERVER.iter().any(|text| server(text).kind() == *kind), "no sample of {kind}");
    }
}

#[test]
fn both_forms_of_capabilities_are_told_apart() {
    let forms = CLIENT.iter().filter_map(|text| match client(text) {
        ClientFrame::Hello(hello) => hello.capabilities,
        _ => None,
    });
    let signed: Vec<bool> = forms.map(|form| matches!(form, HelloCapabilities::Signed(_))).collect();
    assert_eq!(signed, [false, true]);
}

#[test]
fn null_counts_as_absent() {
    let frame = client(r#"{"type":"send","targetSpec":"*","priority":"next","nonce":"","ciphertext":"","id":null}"#);
    assert!(matches!(frame, ClientFrame::Send(send) if send.id.is_none() && send.priority == Priority::Next));
}

#[test]
fn failures_of_acks_are_read_from_codes_never_from_words() {
    let ack = |text: &str| match server(text) {
        ServerFrame::Ack(ack) => *ack,
        other => panic!("{other:?}"),
    };
    let legacy = ack(r#"{"type":"ack","id":"1","messageId":"","queued":false,"error":"invalid: forbidden"}"#);
    let failure = legacy.failure().expect("a failure");
    assert!(failure.retryable && failure.refusal.is_none());

    let reused = super::super::delivery::Ack::refused("1", Refusal::IdempotencyKeyReused);
    let reused = ack(&codec::encode(&ServerFrame::Ack(Box::new(reused))).expect("an ack"));
    let failure = reused.failure().expect("a failure");
    assert_eq!((failure.refusal, failure.retryable), (Some(Refusal::IdempotencyKeyReused), false));

    let newer = ack(r#"{"type":"ack","id":"1","code":"brand_new","retryable":false}"#);
    assert!(!newer.failure().expect("a failure").retryable);
    assert!(ack(r#"{"type":"ack","id":"1","messageId":"","queued":false}"#).failure().is_none());
    assert!(ack(r#"{"type":"ack","id":"1","messageId":"m","queued":true,"error":""}"#).failure().is_none());
}

#[test]
fn events_are_typed_and_travel_as_pushes() {
    let events: Vec<SystemEvent> = SERVER
        .iter()
        .filter_map(|text| match server(text) {
            ServerFrame::Push(push) => SystemEvent::of(&push),
            _ => None,
        })
        .collect();
    assert!(matches!(&events[..], [SystemEvent::PeerJoined(peer)] if peer.name == "n"), "{events:?}");

    for (event, data) in [
        ("peer_returned", r#"{"name":"n","pubkey":"8a","groups":[],"lastSeenAt":"x"}"#),
        ("peer_left", r#"{"name":"n","pubkey":"8a"}"#),
        ("peer_visible", r#"{"name":"n","pubkey":"8a"}"#),
        ("peer_hidden", r#"{"name":"n","pubkey":"8a"}"#),
        ("peers_changed", "{}"),
        (
            "member_keypair_rotated",
            r#"{"memberId":"A","seq":1,"oldPubkey":"8a","newPubkey":"81","ts":5,"oldSignature":"a","newSignature":"b"}"#,
        ),
        ("member_revoked", r#"{"memberId":"A","pubkey":"8a","revokedAt":5}"#),
        ("member_renamed", r#"{"memberId":"A","pubkey":"8a","oldName":"o","displayName":"n"}"#),
        ("member_concurrent_connection", r#"{"memberId":"A","pubkey":"8a","policy":"prefer_oldest"}"#),
    ] {
        let data: Value = serde_json::from_str(data).expect("JSON");
        let other = SystemEvent::Other { event: event.to_owned(), data: data.clone() };
        let push = other.into_push("u".to_owned(), "M".to_owned(), "x".to_owned());
        let typed = SystemEvent::of(&push).expect("an event");
        assert!(!matches!(typed, SystemEvent::Other { .. }), "{event}");
        assert_eq!(typed.name(), event);
        let again = typed.into_push("u".to_owned(), "M".to_owned(), "x".to_owned());
        assert_eq!(again.event_data, Some(data), "{event}");
    }
    let odd = SystemEvent::Other { event: "peer_joined".to_owned(), data: Value::Null };
    let push = odd.clone().into_push(String::new(), String::new(), String::new());
    assert_eq!(SystemEvent::of(&push), Some(odd));
}

// Covers: R71, R403
#[test]
fn feature_parameters_are_checked() {
    let mut response = NegotiationResponse::default();
    let dedupe = DedupeParams { version: 1, mode: DedupeMode::RetentionScoped, dedupe_retention_days: Some(365) };
    response.grant(Feature::ClientMessageIdDedupe, &dedupe);
    response.grant(Feature::RateLimit, &RateLimitParams { version: 1, per_s: 0, burst: 1 });
    response.supported.push("max_payload".to_owned());
    assert_eq!(response.params_of::<DedupeParams>(Feature::ClientMessageIdDedupe), Ok(dedupe));
    assert!(matches!(
        response.params_of::<RateLimitParams>(Feature::RateLimit),
        Err(ParamError::Invalid { feature: "rate_limit", .. })
    ));
    assert_eq!(response.params_of::<MaxPayloadParams>(Feature::MaxPayload), Err(ParamError::Missing("max_payload")));
    assert_eq!(response.params_of::<DedupeParams>(Feature::KeyEpoch), Err(ParamError::Unsupported("key_epoch")));

    let unlimited = r#"{"version":1,"mode":"retention_scoped"}"#;
    let newer = r#"{"version":2,"mode":"permanent"}"#;
    for bad in [unlimited, newer, r#"{"version":1,"mode":"sometimes"}"#, "[]", "null"] {
        let value = serde_json::from_str(bad).expect("JSON");
        response.params.insert("client_message_id_dedupe".to_owned(), value);
        assert!(response.params_of::<DedupeParams>(Feature::ClientMessageIdDedupe).is_err(), "{bad}");
    }
    assert_eq!(ConcurrencyPolicy::default(), ConcurrencyPolicy::PreferNewest);
    for feature in Feature::ALL {
        assert_eq!(Feature::parse(feature.as_str()), Some(*feature));
    }
}
