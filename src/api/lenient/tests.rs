//! The stream as the HTTP/2 library sees it: a real `h2` server reads through
//! the wrapper what a hand-written client sends.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use http::uri::Authority;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::block::write_integer;
use super::{CONTINUATION, END_HEADERS, HEADERS, LenientAuthority, MAX_HELD, PADDED, PREFACE, PRIORITY, huffman};

/// A stream that gives the chunks one read at a time and takes every write.
struct Chunks {
    chunks: VecDeque<Vec<u8>>,
    /// After the last chunk more is awaited instead of the end being read.
    stays_open: bool,
}

impl AsyncRead for Chunks {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(mut chunk) = self.chunks.pop_front() else {
            return if self.stays_open { Poll::Pending } else { Poll::Ready(Ok(())) };
        };
        let later = chunk.split_off(chunk.len().min(out.remaining()));
        out.put_slice(&chunk);
        if !later.is_empty() {
            self.chunks.push_front(later);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Chunks {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn chunks(bytes: &[u8], size: usize, stays_open: bool) -> Chunks {
    Chunks { chunks: bytes.chunks(size.max(1)).map(<[u8]>::to_vec).collect(), stays_open }
}

/// What comes out of the wrapper when the bytes come in pieces of this size.
fn through(bytes: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    LenientAuthority::new(chunks(bytes, size, false))
        .read_to_end(&mut out)
        .now_or_never()
        .expect("the chunks never make it wait")
        .expect("the chunks never fail");
    out
}

/// The authorities of the requests that an HTTP/2 server accepts.
fn accepted(bytes: &[u8], size: usize) -> Vec<Option<String>> {
    let io = LenientAuthority::new(chunks(bytes, size, true));
    let handshake = h2::server::handshake(io).now_or_never().expect("the chunks hold the preface");
    let mut server = handshake.expect("an HTTP/2 preface");
    let mut seen = Vec::new();
    // Kept, so that no stream is reset.
    let mut open = Vec::new();
    while let Some(Some(Ok((request, respond)))) = server.accept().now_or_never() {
        seen.push(request.uri().authority().map(Authority::to_string));
        open.push(respond);
    }
    seen
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Incremental,
    WithoutIndexing,
    NeverIndexed,
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Static,
    Literal {
        coded: bool,
    },
    /// By an earlier entry of the dynamic table, where there is one.
    Dynamic,
}

#[derive(Clone, Debug)]
struct Call {
    authority: Vec<u8>,
    name: Name,
    form: Form,
    coded: bool,
    /// Send the value of the last incremental call again by its index.
    repeat: bool,
    padding: Option<u8>,
    priority: bool,
    /// Into how many frames the block is cut; the server takes six.
    frames: usize,
}

/// A client with the part of an HPACK encoder that the calls need.
#[derive(Default)]
struct Client {
    /// Values of `:authority` in the dynamic table, newest first; `None` for
    /// entries of other names.
    table: Vec<Option<Vec<u8>>>,
    stream: u32,
}

impl Client {
    fn open() -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        bytes
    }

    /// The frames of a call, and the authority that it means.
    fn call(&mut self, call: &Call) -> (Vec<u8>, Vec<u8>) {
        let mut block = vec![0x83, 0x86];
        literal(4, Form::WithoutIndexing, b"/x", false, &mut block);
        let earlier = self.table.iter().position(Option::is_some);
        let authority = match earlier {
            Some(at) if call.repeat => {
                write_integer(62 + at, 7, 0x80, &mut block);
                self.table[at].clone().unwrap()
            }
            _ => {
                match (call.name, earlier) {
                    (Name::Literal { coded }, _) => {
                        write_integer(0, bits(call.form), flags(call.form), &mut block);
                        text(b":authority", coded, &mut block);
                        text(&call.authority, call.coded, &mut block);
                    }
                    (Name::Dynamic, Some(at)) => literal(62 + at, call.form, &call.authority, call.coded, &mut block),
                    _ => literal(1, call.form, &call.authority, call.coded, &mut block),
                }
                if call.form == Form::Incremental {
                    self.table.insert(0, Some(call.authority.clone()));
                }
                call.authority.clone()
            }
        };
        // Another entry, so that indexes move.
        write_integer(0, 6, 0x40, &mut block);
        text(b"x-n", true, &mut block);
        text(self.stream.to_string().as_bytes(), false, &mut block);
        self.table.insert(0, None);
        self.stream += 2;
        (frames(self.stream - 1, &block, call), authority)
    }
}

fn bits(form: Form) -> u32 {
    if form == Form::Incremental { 6 } else { 4 }
}

fn flags(form: Form) -> u8 {
    match form {
        Form::Incremental => 0x40,
        Form::WithoutIndexing => 0,
        Form::NeverIndexed => 0x10,
    }
}

fn literal(index: usize, form: Form, value: &[u8], coded: bool, out: &mut Vec<u8>) {
    write_integer(index, bits(form), flags(form), out);
    text(value, coded, out);
}

fn text(value: &[u8], coded: bool, out: &mut Vec<u8>) {
    let mut data = value.to_vec();
    if coded {
        data.clear();
        huffman::encode(value, &mut data);
    }
    write_integer(data.len(), 7, if coded { 0x80 } else { 0 }, out);
    out.extend(data);
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn frames(stream: u32, block: &[u8], call: &Call) -> Vec<u8> {
    let parts: Vec<&[u8]> = block.chunks(block.len().div_ceil(call.frames)).collect();
    let mut bytes = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let mut flags = if number + 1 == parts.len() { END_HEADERS } else { 0 };
        if number > 0 {
            bytes.extend(frame(CONTINUATION, flags, stream, part));
            continue;
        }
        let mut payload = Vec::new();
        if let Some(padding) = call.padding {
            flags |= PADDED;
            payload.push(padding);
        }
        if call.priority {
            flags |= PRIORITY;
            payload.extend([0, 0, 0, 0, 16]);
        }
        payload.extend(*part);
        payload.extend(vec![0; usize::from(call.padding.unwrap_or(0))]);
        bytes.extend(frame(HEADERS, flags, stream, &payload));
    }
    bytes
}

/// What the server must see for an authority that was sent.
fn expected(sent: &[u8]) -> String {
    if Authority::try_from(sent).is_ok() {
        return String::from_utf8(sent.to_vec()).unwrap();
    }
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    sent.iter().map(|byte| if keep(*byte) { char::from(*byte) } else { '-' }).collect()
}

fn authority() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-z]{1,8}(:[0-9]{2,5})?".prop_map(String::into_bytes),
        "(%2F|/|[a-z]|[.~@:+{ \\[]){1,40}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 1..40),
    ]
}

fn a_call() -> impl Strategy<Value = Call> {
    let name =
        prop_oneof![Just(Name::Static), any::<bool>().prop_map(|coded| Name::Literal { coded }), Just(Name::Dynamic)];
    let form = prop_oneof![Just(Form::Incremental), Just(Form::WithoutIndexing), Just(Form::NeverIndexed)];
    let framing = (proptest::option::of(any::<u8>()), any::<bool>(), 1_usize..=6);
    (authority(), name, form, any::<(bool, bool)>(), framing).prop_map(
        |(authority, name, form, (coded, repeat), (padding, priority, frames))| Call {
            authority,
            name,
            form,
            coded,
            repeat,
            padding,
            priority,
            frames,
        },
    )
}

fn conversation(calls: &[Call]) -> (Vec<u8>, Vec<Option<String>>) {
    let (mut client, mut bytes, mut sent) = (Client::default(), Client::open(), Vec::new());
    for call in calls {
        let (frames, authority) = client.call(call);
        bytes.extend(frames);
        sent.push(Some(expected(&authority)));
    }
    (bytes, sent)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_request_is_accepted_and_the_tables_stay_in_step(
        calls in proptest::collection::vec(a_call(), 1..6),
        size in 1_usize..300,
    ) {
        let (bytes, sent) = conversation(&calls);
        prop_assert_eq!(accepted(&bytes, size), sent);
    }

    #[test]
    fn how_the_bytes_are_split_makes_no_difference(calls in proptest::collection::vec(a_call(), 1..4)) {
        let (bytes, _) = conversation(&calls);
        let whole = through(&bytes, usize::MAX);
        for size in [1, 2, 3, 7, 64] {
            prop_assert_eq!(&through(&bytes, size), &whole);
        }
    }

    #[test]
    fn acceptable_authorities_pass_byte_for_byte(
        calls in proptest::collection::vec(
            a_call().prop_map(|call| Call { authority: b"localhost:80".to_vec(), ..call }), 1..4),
        size in 1_usize..100,
    ) {
        let (bytes, _) = conversation(&calls);
        prop_assert_eq!(through(&bytes, size), bytes);
    }

    #[test]
    fn other_protocols_pass_unchanged(bytes in proptest::collection::vec(any::<u8>(), 0..400), size in 1_usize..50) {
        prop_assert_eq!(through(&bytes, size), bytes);
    }

    #[test]
    fn torn_and_hostile_frames_neither_panic_nor_grow(
        calls in proptest::collection::vec(a_call(), 0..3),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        size in 1_usize..50,
    ) {
        let (mut bytes, _) = conversation(&calls);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.extend(frame(HEADERS, END_HEADERS, 1, &noise));
        bytes.truncate(cut.index(bytes.len() + 1));
        prop_assert!(through(&bytes, size).len() <= bytes.len());
    }

    #[test]
    fn huffman_reads_what_it_writes(text in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut coded = Vec::new();
        huffman::encode(&text, &mut coded);
        prop_assert_eq!(huffman::decode(&coded), Some(text));
    }

    #[test]
    fn huffman_takes_any_bytes(coded in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = huffman::decode(&coded);
    }
}

#[test]
fn huffman_is_the_one_of_the_standard() {
    // RFC 7541, C.4.1 and C.6.1.
    for (plain, coded) in [
        ("www.example.com", "f1e3c2e5f23a6ba0ab90f4ff"),
        ("Mon, 21 Oct 2013 20:13:21 GMT", "d07abe941054d444a8200595040b8166e082a62d1bff"),
    ] {
        let mut out = Vec::new();
        huffman::encode(plain.as_bytes(), &mut out);
        assert_eq!(hex::encode(&out), coded);
        assert_eq!(huffman::decode(&out).as_deref(), Some(plain.as_bytes()));
    }
    // Padding of eight bits, padding of zeros, and the end-of-string symbol.
    for bad in [&[0xff][..], &[0x00], &[0xff, 0xff, 0xff, 0xff]] {
        assert_eq!(huffman::decode(bad), None);
    }
}

#[test]
fn a_header_block_beyond_the_limit_passes_unchanged() {
    let mut bytes = Client::open();
    let mut block = Vec::new();
    literal(1, Form::Incremental, b"a/b", false, &mut block);
    bytes.extend(frame(HEADERS, 0, 1, &block));
    for _ in 0..MAX_HELD / 1000 {
        bytes.extend(frame(CONTINUATION, 0, 1, &[0; 1000]));
    }
    assert_eq!(through(&bytes, 4096), bytes);
}

#[test]
fn an_empty_authority_stays_as_it_is() {
    let mut block = vec![0x83, 0x86];
    literal(4, Form::WithoutIndexing, b"/x", false, &mut block);
    literal(1, Form::Incremental, b"", false, &mut block);
    let mut bytes = Client::open();
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &block));
    assert_eq!(through(&bytes, 5), bytes);
}
