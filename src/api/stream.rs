//! Ends a stream of answers when the daemon stops or the caller's deadline
//! passes; without it an open stream would keep the server from draining.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::deadline::Deadline;
use super::status::Failure;
use crate::domain::error_code::ErrorCode;

type End = Pin<Box<dyn Future<Output = Failure> + Send>>;

/// A stream that ends with a failure when its time is up.
pub struct Bounded<S> {
    items: Option<S>,
    end: End,
}

/// Gives the items until the daemon stops or the deadline passes.
pub fn bounded<S>(items: S, stop: CancellationToken, deadline: Option<Deadline>) -> Bounded<S> {
    let end = async move {
        let late = async {
            match deadline {
                Some(Deadline(limit)) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {
                let text = "the daemon is stopping; call again and go on where this stream ended";
                Failure::new(ErrorCode::DaemonShuttingDown, text).retry_after(Duration::from_secs(1))
            }
            () = late => Failure::new(ErrorCode::DeadlineExceeded, "the stream's deadline passed"),
        }
    };
    Bounded { items: Some(items), end: Box::pin(end) }
}

impl<S, T> Stream for Bounded<S>
where
    S: Stream<Item = Result<T, Failure>> + Unpin,
{
    type Item = Result<T, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(items) = &mut self.items else { return Poll::Ready(None) };
        // Items first: what is ready is still given.
        let item = match items.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(item))) => return Poll::Ready(Some(Ok(item))),
            Poll::Ready(end) => end,
            Poll::Pending => match self.end.poll_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(failure) => Some(Err(failure)),
            },
        };
        self.items = None;
        Poll::Ready(item)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn items() -> impl Stream<Item = Result<u32, Failure>> + Unpin {
        stream::iter([Ok(1), Ok(2)]).chain(stream::pending())
    }

    #[tokio::test]
    async fn a_stop_ends_the_stream_after_what_is_ready() {
        let stop = CancellationToken::new();
        stop.cancel();
        let all: Vec<_> = bounded(items(), stop, None).map(|item| item.map_err(|end| end.code())).collect().await;
        assert_eq!(all, [Ok(1), Ok(2), Err(ErrorCode::DaemonShuttingDown)]);
    }

    #[tokio::test]
    async fn a_deadline_ends_the_stream() {
        let deadline = Some(Deadline(Duration::from_millis(5)));
        let all: Vec<_> = bounded(items(), CancellationToken::new(), deadline)
            .map(|item| item.map_err(|end| end.code()))
            .collect()
            .await;
        assert_eq!(all, [Ok(1), Ok(2), Err(ErrorCode::DeadlineExceeded)]);
    }
}
