//! Pages of lists: how far a page goes, and the token that leads to the next one.
//!
//! One place for every list, so that all of them take the same limits and tokens.
//! A token is opaque: the base64url form of a version, a hash and the place of the
//! page's last item. The hash covers the call, its filters and the place, so that a
//! token that was damaged, or that another list gave, is refused and never means
//! some other place.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use prost::Message;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::convert;
use super::limits::{MAX_GRPC_PAGE, MAX_LIST_BYTES};
use super::status::Failure;
use crate::proto::{admin, pb};

/// The first byte of a token.
const VERSION: u8 = 1;
/// Bytes of the hash in a token.
const HASH: usize = 8;
/// Room for what a page holds beside its items: the token, a directory's name.
const AROUND: usize = 16 * 1024;

/// What the caller reads, which decides how large a page may get (R132).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// gRPC.
    Protobuf,
    /// REST.
    Json,
}

/// The request of a list. What is no paging is a filter.
pub trait ListRequest: Message {
    /// The name of the request's type.
    const NAME: &'static str;

    /// Takes `limit` and `page_token` out.
    fn take_paging(&mut self) -> (u32, String);
}

macro_rules! lists {
    ($($request:path),+ $(,)?) => {
        $(impl ListRequest for $request {
            const NAME: &'static str = stringify!($request);

            fn take_paging(&mut self) -> (u32, String) {
                (std::mem::take(&mut self.limit), std::mem::take(&mut self.page_token))
            }
        })+
    };
}

lists! {
    pb::ListMessagesRequest,
    pb::ListPeersRequest,
    pb::ListTopicsRequest,
    admin::ListOutboxRequest,
    admin::ListHooksRequest,
    admin::ListHookRunsRequest,
    admin::ListPinnedMembersRequest,
    admin::ListTopicAdmissionsRequest,
}

/// A page that is asked for.
#[derive(Debug)]
pub struct Page {
    /// Greatest number of items.
    pub limit: u32,
    /// The place of the last item before it; `None` for the first page.
    pub after: Option<String>,
    encoding: Encoding,
    /// The hash of the call and its filters.
    list: Sha256,
}

// === impl Encoding ===

impl Encoding {
    fn limit(self) -> usize {
        match self {
            Self::Protobuf => MAX_GRPC_PAGE - AROUND,
            Self::Json => MAX_LIST_BYTES - AROUND,
        }
    }

    /// The size of an item in a list, with what stands around it.
    fn size(self, item: &(impl Message + Serialize)) -> usize {
        match self {
            Self::Protobuf => {
                let length = item.encoded_len();
                1 + prost::length_delimiter_len(length) + length
            }
            Self::Json => json_length(item) + 1,
        }
    }
}

// === impl Page ===

impl Page {
    /// Takes the paging out of a request; the rest are its filters.
    pub fn of<R: ListRequest>(request: &mut R, encoding: Encoding) -> Result<Self, Failure> {
        let (limit, token) = request.take_paging();
        let mut list = Sha256::new();
        list.update(R::NAME);
        list.update(request.encode_length_delimited_to_vec());
        let mut page = Self { limit: convert::limit(limit), after: None, encoding, list };
        if !token.is_empty() {
            page.after = Some(page.read(&token).ok_or_else(|| {
                let text = "it is not the next_page_token of a page of this list with the same filters; take it as it \
                            came, or begin with the first page";
                Failure::field("page_token", text)
            })?);
        }
        Ok(page)
    }

    /// Whether an item of that place comes after the page before. For lists that are
    /// ordered by their places.
    pub fn takes(&self, place: &str) -> bool {
        self.after.as_deref().is_none_or(|after| place > after)
    }

    /// The page, from items with their places, and the token of the next one, which is
    /// empty on the last. `more`: there are more than these items. The first item is
    /// taken however large it is, or the list would never go on.
    pub fn fill<T>(&self, items: impl IntoIterator<Item = (String, T)>, more: bool) -> (Vec<T>, String)
    where
        T: Message + Serialize,
    {
        let (mut taken, mut last, mut bytes) = (Vec::new(), String::new(), 0);
        for (place, item) in items {
            bytes += self.encoding.size(&item);
            let is_full = taken.len() == self.limit as usize || bytes > self.encoding.limit();
            if is_full && !taken.is_empty() {
                return (taken, self.token(&last));
            }
            taken.push(item);
            last = place;
        }
        let token = if more && !taken.is_empty() { self.token(&last) } else { String::new() };
        (taken, token)
    }

    fn token(&self, place: &str) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.hash(place));
        bytes.extend(place.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place in a token of this list.
    fn read(&self, token: &str) -> Option<String> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (hash, place) = bytes.strip_prefix(&[VERSION])?.split_at_checked(HASH)?;
        let place = str::from_utf8(place).ok()?;
        (hash == self.hash(place)).then(|| place.to_owned())
    }

    fn hash(&self, place: &str) -> [u8; HASH] {
        let whole = self.list.clone().chain_update(place).finalize();
        std::array::from_fn(|at| whole[at])
    }
}

/// Length of a message as JSON, counted without keeping the text.
fn json_length(message: &impl Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be written is reported when the page is written.
    let _ = serde_json::to_writer(&mut count, message);
    count.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::error_code::ErrorCode;

    fn messages(topic: &str, limit: u32, token: &str) -> Result<Page, Failure> {
        let (topic, page_token) = (topic.to_owned(), token.to_owned());
        let mut request = pb::ListMessagesRequest { topic, limit, page_token, ..Default::default() };
        Page::of(&mut request, Encoding::Protobuf)
    }

    fn refused(page: Result<Page, Failure>) {
        let failure = page.unwrap_err();
        assert_eq!(failure.code(), ErrorCode::InvalidArgument);
        assert_eq!(failure.to_detail().field_violations[0].field, "page_token");
    }

    fn message(bytes: usize) -> pb::InboxMessage {
        pb::InboxMessage { body: "x".repeat(bytes), ..Default::default() }
    }

    fn items(count: usize, bytes: usize) -> impl Iterator<Item = (String, pb::InboxMessage)> {
        (0..count).map(move |n| (n.to_string(), message(bytes)))
    }

    #[test]
    fn a_token_leads_on_in_its_own_list_alone() {
        let token = messages("ops", 1, "").unwrap().token("G-7");
        // The limit is no filter.
        for limit in [0, 1, 500] {
            assert_eq!(messages("ops", limit, &token).unwrap().after.as_deref(), Some("G-7"));
        }
        refused(messages("", 1, &token));
        refused(messages("dev", 1, &token));
        let mut topics = pb::ListTopicsRequest { page_token: token, ..Default::default() };
        refused(Page::of(&mut topics, Encoding::Protobuf));
        // Without filters the requests of all lists look alike.
        let plain = messages("", 1, "").unwrap().token("a");
        let mut topics = pb::ListTopicsRequest { page_token: plain.clone(), ..Default::default() };
        refused(Page::of(&mut topics, Encoding::Protobuf));
        let mut hooks = admin::ListHooksRequest { page_token: plain, ..Default::default() };
        refused(Page::of(&mut hooks, Encoding::Json));
    }

    #[test]
    fn a_damaged_token_is_refused() {
        let token = messages("", 1, "").unwrap().token("G-17");
        let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            refused(messages("", 1, &BASE64_URL_SAFE_NO_PAD.encode(&bytes)));
            bytes[at] ^= 1;
        }
        for length in 1..token.len() {
            refused(messages("", 1, &token[..length]));
        }
        for wrong in ["01M84ZTP4EVSQ5H6Q85E0JPYH6-2", "x", "%%%", &format!("{token}="), &format!("{token}AA")] {
            refused(messages("", 1, wrong));
        }
    }

    #[test]
    fn a_page_ends_with_its_limit() {
        let page = messages("", 2, "").unwrap();
        let (taken, token) = page.fill(items(3, 1), false);
        assert_eq!((taken.len(), token), (2, page.token("1")));
        let (taken, token) = page.fill(items(2, 1), false);
        assert_eq!((taken.len(), token.as_str()), (2, ""));
        let (taken, token) = page.fill(items(2, 1), true);
        assert_eq!((taken.len(), token), (2, page.token("1")));
        assert_eq!(page.fill(items(0, 1), false), (Vec::new(), String::new()));
    }

    // Covers: R132
    #[test]
    fn a_page_ends_before_it_is_too_large_for_its_reader() {
        for (encoding, limit) in [(Encoding::Protobuf, 3_670_016), (Encoding::Json, 10_000_000)] {
            let mut request = pb::ListMessagesRequest::default();
            let page = Page::of(&mut request, encoding).unwrap();
            let (messages, next_page_token) = page.fill(items(20, 700_000), false);
            let response = pb::ListMessagesResponse { messages, next_page_token };
            let size = match encoding {
                Encoding::Protobuf => response.encoded_len(),
                Encoding::Json => json_length(&response),
            };
            assert!((limit - 800_000..=limit).contains(&size), "{encoding:?}: {size}");
            assert_eq!(response.next_page_token, page.token(&(response.messages.len() - 1).to_string()));
            // One that is larger than a page goes alone.
            let (alone, token) = page.fill(items(2, 11_000_000), false);
            assert_eq!((alone.len(), token), (1, page.token("0")));
        }
    }
}
