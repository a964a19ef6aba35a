//! The codes with which our broker refuses a `send`, and what each one means
//! for a retry.
//!
//! `ack.code` is for our clients. Legacy daemons have only `ack.error` and
//! search it for words, so each code has a text that makes them do the right
//! thing: the member link gives up on `payload_too_large`, `forbidden`,
//! `not_found`, `invalid`, `schema`, `auth` and `signature`, the session link
//! on `unknown`, `invalid`, `forbidden`, `not_authorized` and
//! `target_not_found`; everything else is retried.

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, retry $retry:literal, $text:literal;)*) => {
        /// Why the broker did not take a message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Refusal {
            $($(#[$doc])* $variant,)*
        }

        impl Refusal {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The value of `ack.code`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The code of that name.
            pub fn parse(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// Whether the same request can succeed later.
            pub const fn retryable(self) -> bool {
                match self { $(Self::$variant => $retry,)* }
            }

            /// The value of `ack.error`.
            pub const fn legacy_text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

refusals! {
    /// Too much of this in a short time by this member.
    RateLimit = "rate_limit", retry true, "rate_limit: too many in a short time, try again later";
    /// The broker cannot take more at the moment.
    Busy = "busy", retry true, "busy: try again later";
    /// An error inside the broker; nothing was stored.
    Internal = "internal", retry true, "internal: the broker failed, try again later";
    /// Too much waits for this receiver.
    RecipientQueueFull = "recipient_queue_full", retry true,
        "recipient_queue_full: too much is waiting there, try again later";
    /// The feature bit for this frame was not negotiated, or is off.
    FeatureUnavailable = "feature_unavailable", retry false,
        "feature_unavailable: invalid on this connection";
    /// The frame or its ciphertext is too large.
    PayloadTooLarge = "payload_too_large", retry false, "payload_too_large: invalid size";
    /// No member of the mesh has that key.
    RecipientNotFound = "recipient_not_found", retry false,
        "target_not_found: no member of the mesh has this key";
    /// The member was revoked.
    RecipientRevoked = "recipient_revoked", retry false,
        "target_not_found: the member was revoked";
    /// No topic of the mesh has that id.
    TopicNotFound = "topic_not_found", retry false, "target_not_found: no topic has this id";
    /// The sender is not in the topic, as far as the broker knows.
    TopicNotJoined = "topic_not_joined", retry true, "topic_not_joined: join the topic first";
    /// No more fit into the topic.
    TopicFull = "topic_full", retry false, "forbidden: the topic has as many members as it can have";
    /// The mesh is gone.
    MeshNotFound = "mesh_not_found", retry false, "target_not_found: the mesh is gone";
    /// The id was used for another request.
    IdempotencyKeyReused = "idempotency_key_reused", retry false,
        "invalid: idempotency_key_reused, the id was used for another message";
    /// The receiver or the mesh does not allow it.
    Forbidden = "forbidden", retry false, "forbidden: not allowed here";
    /// `sender_key` is no key of this member.
    SenderKeyUnknown = "sender_key_unknown", retry false,
        "invalid: sender_key is no key of this member";
    /// The receiver has another key by now; who is told of rotations can seal again.
    RecipientKeyStale = "recipient_key_stale", retry true,
        "recipient_key_stale: seal again with the member's newest key";
    /// The epoch is not accepted for new messages.
    KeyEpochStale = "key_epoch_stale", retry true,
        "key_epoch_stale: seal again with the newest epoch";
    /// A field is missing, malformed or out of range.
    Invalid = "invalid", retry false, "invalid: a field is missing or malformed";
    /// Plaintext where it is not allowed.
    Unencrypted = "unencrypted", retry false, "forbidden: plaintext is not allowed here";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_texts_make_legacy_clients_do_what_the_code_says() {
        let member = ["payload_too_large", "forbidden", "not_found", "invalid", "schema", "auth", "signature"];
        let session = ["unknown", "invalid", "forbidden", "not_authorized", "target_not_found"];
        for refusal in Refusal::ALL {
            let text = refusal.legacy_text();
            for words in [&member[..], &session[..]] {
                let gives_up = words.iter().any(|word| text.contains(word));
                assert_eq!(gives_up, !refusal.retryable(), "{refusal:?}: {text}");
            }
            assert_eq!(Refusal::parse(refusal.as_str()), Some(*refusal));
        }
        assert_eq!(Refusal::parse("unheard_of"), None);
    }
}
