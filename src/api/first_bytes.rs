//! Waits, for a limited time, until a new connection has said what it speaks.
//!
//! The HTTP library has a limit for the head of a request, but none for the
//! bytes by which it tells HTTP/1 from HTTP/2: a connection that sends nothing,
//! or half of the HTTP/2 preface, would stay for ever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use super::lenient::PREFACE;

/// A stream whose first bytes were read ahead.
#[derive(Debug)]
pub struct ReadAhead<I> {
    ahead: BytesMut,
    io: I,
}

/// Reads until the protocol is clear. `None` when the peer left or `limit`
/// passed first.
pub async fn wait<I: AsyncRead + Unpin>(mut io: I, limit: Duration) -> Option<ReadAhead<I>> {
    let mut ahead = BytesMut::new();
    let read = async {
        // Bytes that the preface begins with may still become something else.
        while ahead.len() < PREFACE.len() && PREFACE.starts_with(&ahead) {
            if io.read_buf(&mut ahead).await.ok()? == 0 {
                return None;
            }
        }
        Some(())
    };
    tokio::time::timeout(limit, read).await.ok()??;
    Some(ReadAhead { ahead, io })
}

impl<I: AsyncRead + Unpin> AsyncRead for ReadAhead<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, out);
        }
        let count = self.ahead.len().min(out.remaining());
        out.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for ReadAhead<I> {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_was_read_ahead_is_not_lost() {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        wait(server, LIMIT).await.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "GET / HTTP/1.1\r\n\r\n");
    }

    #[tokio::test]
    async fn silence_half_a_preface_and_a_hang_up_are_given_up() {
        let (_client, silent) = tokio::io::duplex(1024);
        assert!(wait(silent, SHORT).await.is_none());
        let (mut client, half) = tokio::io::duplex(1024);
        client.write_all(&PREFACE[..10]).await.unwrap();
        assert!(wait(half, SHORT).await.is_none());
        let (client, gone) = tokio::io::duplex(1024);
        drop(client);
        assert!(wait(gone, LIMIT).await.is_none());
    }
}
