//! Makes the `:authority` of clients on the Unix socket acceptable.
//!
//! What it is for: gRPC C-core (Python, C++, Ruby, PHP) sends the percent-encoded
//! path of the socket as `:authority`, some Java and Go dialers send the bare
//! path. Neither is an authority, and the HTTP/2 library answers such a request
//! with RST_STREAM before any handler sees it. On a Unix socket the authority
//! names nothing, so the bytes that a host cannot hold are replaced by `-`.
//! What runs here: nothing by itself; [`LenientAuthority`] wraps a stream.
//! What it guarantees: a stream that is not HTTP/2, a request with an acceptable
//! authority, and every other byte pass as they came. A replaced value keeps its
//! decoded length, so that the HPACK tables of both ends stay in step. At most
//! [`MAX_HELD`] bytes are held back, and none at the end of the stream.
//! What it must not do: judge a request. What it cannot read passes unchanged
//! and is refused by the HTTP/2 library; so is an empty authority, for which
//! there is no replacement of the same length.

mod block;
mod huffman;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::block::Blocks;

/// What an HTTP/2 client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest header block that is looked at, with its frames' heads. The
/// server refuses longer ones anyway.
pub const MAX_HELD: usize = 64 * 1024;
const READ: usize = 16 * 1024;

const HEAD: usize = 9;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A stream whose reader sees acceptable authorities.
#[derive(Debug)]
pub struct LenientAuthority<I> {
    io: I,
    /// What was read and not handed on.
    held: BytesMut,
    /// Bytes at the front of `held` that may be handed on.
    ready: usize,
    /// Bytes still to come of a frame that passes unread.
    skip: usize,
    state: State,
    blocks: Blocks,
}

#[derive(Debug)]
enum State {
    /// Waiting to see whether this is HTTP/2.
    Preface,
    /// At the head of a frame.
    Frames,
    /// In a header block that has not ended.
    Block(Frames),
    /// Everything passes.
    Pass,
}

/// The whole frames of a header block. Positions count from `ready`.
#[derive(Debug, Default)]
struct Frames {
    fragments: Vec<Fragment>,
    end: usize,
}

/// The part of a header block that one frame carries.
#[derive(Debug)]
struct Fragment {
    frame: Range<usize>,
    data: Range<usize>,
}

#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
}

// === impl LenientAuthority ===

impl<I> LenientAuthority<I> {
    /// Wraps an accepted stream.
    pub fn new(io: I) -> Self {
        Self { io, held: BytesMut::new(), ready: 0, skip: 0, state: State::Preface, blocks: Blocks::default() }
    }

    /// Moves on as far as the held bytes allow.
    fn advance(&mut self) {
        while self.step() {}
    }

    /// One step; false when more bytes are needed.
    fn step(&mut self) -> bool {
        let rest = &self.held[self.ready..];
        match &mut self.state {
            State::Pass => {
                self.ready = self.held.len();
                false
            }
            State::Preface => {
                let known = rest.len().min(PREFACE.len());
                if rest[..known] != PREFACE[..known] {
                    self.state = State::Pass;
                    return true;
                }
                if known < PREFACE.len() {
                    return false;
                }
                self.ready += PREFACE.len();
                self.state = State::Frames;
                true
            }
            State::Frames if self.skip > 0 => {
                let passed = rest.len().min(self.skip);
                self.ready += passed;
                self.skip -= passed;
                self.skip == 0
            }
            State::Frames => {
                let Some(head) = Head::read(rest) else { return false };
                if head.kind == HEADERS {
                    self.state = State::Block(Frames::default());
                } else {
                    self.skip = HEAD + head.length;
                }
                true
            }
            State::Block(frames) => {
                let Some(head) = Head::read(&rest[frames.end..]) else { return false };
                let expected = if frames.fragments.is_empty() { HEADERS } else { CONTINUATION };
                let frame = frames.end..frames.end + HEAD + head.length;
                if head.kind != expected || frame.end > MAX_HELD {
                    self.state = State::Pass;
                    return true;
                }
                if rest.len() < frame.end {
                    return false;
                }
                let Some(data) = head.fragment(&rest[frame.clone()]) else {
                    self.state = State::Pass;
                    return true;
                };
                frames.end = frame.end;
                frames.fragments.push(Fragment { data: frame.start + data.start..frame.start + data.end, frame });
                if head.flags & END_HEADERS != 0 {
                    self.finish_block();
                }
                true
            }
        }
    }

    /// Lets a whole header block go, changed where needed.
    fn finish_block(&mut self) {
        let State::Block(frames) = std::mem::replace(&mut self.state, State::Frames) else { return };
        let rest = &self.held[self.ready..];
        let block: Vec<u8> = frames.fragments.iter().flat_map(|part| &rest[part.data.clone()]).copied().collect();
        match self.blocks.read(&block) {
            Ok(None) => self.ready += frames.end,
            Ok(Some(changed)) => {
                let mut old = self.held.split_off(self.ready);
                let later = old.split_off(frames.end);
                write_frames(&old, &frames.fragments, &changed, &mut self.held);
                self.ready = self.held.len();
                self.held.extend_from_slice(&later);
            }
            // From here on the dynamic table is unknown.
            Err(block::Malformed) => self.state = State::Pass,
        }
    }
}

/// Writes the frames again with another block in them. Frames keep their parts
/// of the block; the last ones get shorter when it has shrunk.
fn write_frames(old: &[u8], fragments: &[Fragment], mut block: &[u8], out: &mut BytesMut) {
    for Fragment { frame, data } in fragments {
        let (part, later) = block.split_at(block.len().min(data.len()));
        block = later;
        // The length keeps its 24 bits: it only gets smaller.
        let length = (frame.len() - HEAD - (data.len() - part.len())) as u32;
        out.extend_from_slice(&length.to_be_bytes()[1..]);
        out.extend_from_slice(&old[frame.start + 3..data.start]);
        out.extend_from_slice(part);
        out.extend_from_slice(&old[data.end..frame.end]);
    }
}

// === impl Head ===

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, ..] = *bytes.get(..HEAD)? else { return None };
        Some(Self { length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c), kind, flags })
    }

    /// Where the frame, given with its head, carries its part of the block.
    fn fragment(self, frame: &[u8]) -> Option<Range<usize>> {
        let (mut start, mut end) = (HEAD, frame.len());
        if self.kind == HEADERS {
            if self.flags & PADDED != 0 {
                end = end.checked_sub(usize::from(*frame.get(start)?))?;
                start += 1;
            }
            if self.flags & PRIORITY != 0 {
                start += 5;
            }
        }
        (start <= end).then_some(start..end)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for LenientAuthority<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.ready > 0 {
                let count = this.ready.min(out.remaining());
                out.put_slice(&this.held[..count]);
                this.held.advance(count);
                this.ready -= count;
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() && matches!(this.state, State::Pass) {
                return Pin::new(&mut this.io).poll_read(cx, out);
            }
            let mut chunk = [std::mem::MaybeUninit::uninit(); READ];
            let mut chunk = ReadBuf::uninit(&mut chunk);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                // The end: what is held goes out as it came.
                this.state = State::Pass;
                this.ready = this.held.len();
                if this.ready == 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            this.held.extend_from_slice(chunk.filled());
            this.advance();
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for LenientAuthority<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
