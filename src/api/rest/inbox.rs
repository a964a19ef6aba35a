//! `InboxService` over REST.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;

use super::json::{Parameters, page};
use crate::api::limits::MAX_LIST_BYTES;
use crate::api::service::{Measure, Services};
use crate::api::status::Failure;
use crate::proto::pb;

/// `GET /v1/inbox` (R81, R132).
pub async fn list(
    State(services): State<Services>,
    parameters: Parameters,
) -> Result<(HeaderMap, Json<pb::ListMessagesResponse>), Failure> {
    let request = parameters.into_request(&[], &[])?;
    let measure = Measure { limit: MAX_LIST_BYTES - 1024, size: |message| json_length(message) + 1 };
    let response = services.list_messages(request, measure).await?;
    let token = response.next_page_token.clone();
    Ok(page(&parameters, response, &token))
}

/// Length of a message as JSON, counted without keeping the text.
fn json_length(message: &pb::InboxMessage) -> usize {
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
