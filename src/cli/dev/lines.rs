//! Commands from standard input, line by line.

use tokio::io::{AsyncBufReadExt as _, BufReader, Stdin};

/// The longest command in bytes; a longer line is answered and skipped.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// Reads lines. What was read so far stays when a read is dropped.
pub(super) struct Lines {
    input: BufReader<Stdin>,
    line: Vec<u8>,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Its text; not UTF-8 where it is not.
    Text(Vec<u8>),
    /// It was longer than [`MAX_LINE`].
    TooLong,
}

// === impl Lines ===

impl Lines {
    /// Lines of standard input.
    pub(super) fn of_stdin() -> Self {
        Self { input: BufReader::new(tokio::io::stdin()), line: Vec::new() }
    }

    /// The next line; `None` at the end, or when the input cannot be read.
    pub(super) async fn next(&mut self) -> Option<Line> {
        loop {
            let chunk = self.input.fill_buf().await.ok()?;
            if chunk.is_empty() {
                let rest = std::mem::take(&mut self.line);
                return (!rest.is_empty()).then(|| finished(rest));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            // One byte above the limit says that it was passed.
            let room = (MAX_LINE + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.input.consume(used);
            if end.is_some() {
                return Some(finished(std::mem::take(&mut self.line)));
            }
        }
    }
}

fn finished(line: Vec<u8>) -> Line {
    if line.len() > MAX_LINE { Line::TooLong } else { Line::Text(line) }
}
