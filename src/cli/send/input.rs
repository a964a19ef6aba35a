//! The text of a message from standard input.

use std::io::{self, IsTerminal as _, Read};

use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::domain::error_code::ErrorCode;

/// Greatest text of a message in bytes. The daemon's own limit is a little
/// lower, and lower still where the broker takes less; it says so then.
const MOST: usize = 1 << 20;

/// Reads standard input to its end, or until it is too much.
pub(super) fn read(output: &mut Output) -> Result<String, Failure> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        output.note("note: reading the message from the terminal; end it with Ctrl-D on an empty line");
    }
    text(stdin.lock())
}

fn text(input: impl Read) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    // One more than is allowed tells that there is more.
    input
        .take(MOST as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::new(ErrorCode::UsageError, format!("standard input cannot be read: {error}")))?;
    if bytes.len() > MOST {
        return Err(Failure::new(
            ErrorCode::PayloadTooLarge,
            format!("standard input holds more than a message can: {MOST} bytes"),
        )
        .next("send it in parts, or send where it can be found"));
    }
    if bytes.is_empty() {
        return Err(Failure::new(ErrorCode::UsageError, "standard input is empty; there is nothing to send"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::new(ErrorCode::UsageError, format!("standard input is not UTF-8 text (byte {at} is wrong)"))
            .next("encode it first, such as with: base64 -w0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_of_a_size_that_can_be_sent_is_taken() {
        assert_eq!(text("hi\n".as_bytes()).unwrap(), "hi\n");
        assert_eq!(text("a".repeat(MOST).as_bytes()).unwrap().len(), MOST);
        let code = |input: &[u8]| text(input).unwrap_err().code().to_owned();
        assert_eq!(code(b""), "usage_error");
        assert_eq!(code(&vec![b'a'; MOST + 1]), "payload_too_large");
        assert!(text(&b"ab\xff"[..]).unwrap_err().to_string().contains("byte 2"));
    }

    #[test]
    fn what_never_ends_is_not_read_to_its_end() {
        assert_eq!(text(io::repeat(b'a')).unwrap_err().code(), "payload_too_large");
    }
}
