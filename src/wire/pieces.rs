//! Large frames in pieces, so that small ones pass between them.
//!
//! A frame of more than [`PIECE_BYTES`] is written as consecutive `piece` frames. One
//! frame is in pieces at a time in each direction; any other frame may come between
//! two of them. Only on connections that negotiated `frame_pieces`.

use serde::{Deserialize, Serialize};

/// Text of one piece in bytes. At 50 kB/s a third of a second.
pub const PIECE_BYTES: usize = 16 * 1024;

/// `piece`: the next part of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The next part of the frame's text.
    pub data: String,
    /// Whether the frame ends with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}

/// A frame that is written piece by piece.
#[derive(Debug)]
pub struct Pieces<T> {
    text: T,
    at: usize,
}

/// Puts a frame together from its pieces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Assembly {
    text: String,
}

/// What a piece makes of the frame that it belongs to.
#[derive(Debug, PartialEq, Eq)]
pub enum Assembled {
    /// More is to come.
    Part,
    /// The text of the frame.
    Whole(String),
    /// The frame is larger than allowed.
    TooLarge,
}

// === impl Pieces ===

impl<T: AsRef<str>> Pieces<T> {
    /// Of the text of a frame.
    pub fn of(text: T) -> Self {
        Self { text, at: 0 }
    }

    /// Bytes that are still to come.
    pub fn left(&self) -> usize {
        self.text.as_ref().len() - self.at
    }
}

impl<T: AsRef<str>> Iterator for Pieces<T> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let left = self.text.as_ref().get(self.at..).filter(|left| !left.is_empty())?;
        let data = left[..left.floor_char_boundary(PIECE_BYTES)].to_owned();
        self.at += data.len();
        Some(Piece { last: self.left() == 0, data })
    }
}

// === impl Assembly ===

impl Assembly {
    /// Takes the next piece of a frame of at most `limit` bytes.
    pub fn add(&mut self, piece: &Piece, limit: usize) -> Assembled {
        if self.text.len() + piece.data.len() > limit {
            return Assembled::TooLarge;
        }
        self.text.push_str(&piece.data);
        if piece.last { Assembled::Whole(std::mem::take(&mut self.text)) } else { Assembled::Part }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_the_frame_back_and_never_more_than_the_limit() {
        let text = "äx".repeat(PIECE_BYTES);
        let mut assembly = Assembly::default();
        let pieces: Vec<Piece> = Pieces::of(text.clone()).collect();
        assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.data.len() <= PIECE_BYTES));
        let (last, parts) = pieces.split_last().expect("pieces");
        for part in parts {
            assert_eq!(assembly.add(part, text.len()), Assembled::Part);
        }
        assert_eq!(assembly.add(last, text.len() - 1), Assembled::TooLarge);
        assert_eq!(assembly.add(last, text.len()), Assembled::Whole(text));
        assert_eq!(assembly, Assembly::default(), "the next frame begins anew");
    }
}
