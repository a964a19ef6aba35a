//! The Huffman code of HPACK (RFC 7541, appendix B).
//!
//! The code is canonical: the lengths alone give every code, so the table is
//! one number a symbol.

/// Code length in bits of each byte, then of the end-of-string symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const MAX_LENGTH: usize = 30;
const END_OF_STRING: u16 = 256;

/// The codes, worked out from their lengths.
struct Codes {
    /// Code of each symbol.
    code: [u32; 257],
    /// Symbols by length, then by value: the order of their codes.
    by_code: [u16; 257],
    /// First code of each length.
    first: [u32; MAX_LENGTH + 1],
    /// Place of that code in `by_code`.
    start: [usize; MAX_LENGTH + 1],
    /// How many codes have each length.
    count: [u32; MAX_LENGTH + 1],
}

static CODES: Codes = Codes::from_lengths();

/// Encodes bytes; the last byte is filled up with ones.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut held, mut bits) = (0_u64, 0_u32);
    for &byte in text {
        let length = u32::from(LENGTHS[usize::from(byte)]);
        held = held << length | u64::from(CODES.code[usize::from(byte)]);
        bits += length;
        while bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
        }
    }
    if bits > 0 {
        out.push((held << (8 - bits) | 0xff >> bits) as u8);
    }
}

/// Decodes bytes; `None` when they are not what an encoder writes.
pub(super) fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(coded.len() * 8 / 5);
    let (mut code, mut length) = (0_u32, 0_usize);
    for byte in coded {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            if length > MAX_LENGTH {
                return None;
            }
            // Codes of one length follow each other, so the distance to the
            // first one names the symbol.
            let Some(distance) = code.checked_sub(CODES.first[length]).filter(|at| *at < CODES.count[length]) else {
                continue;
            };
            let symbol = CODES.by_code[CODES.start[length] + distance as usize];
            if symbol == END_OF_STRING {
                return None;
            }
            out.push(symbol as u8);
            (code, length) = (0, 0);
        }
    }
    // What is left is padding: fewer than eight bits, all ones.
    (length < 8 && code == (1 << length) - 1).then_some(out)
}

// === impl Codes ===

impl Codes {
    const fn from_lengths() -> Self {
        let mut codes = Self {
            code: [0; 257],
            by_code: [0; 257],
            first: [0; MAX_LENGTH + 1],
            start: [0; MAX_LENGTH + 1],
            count: [0; MAX_LENGTH + 1],
        };
        let (mut next, mut place, mut length) = (0_u32, 0, 1);
        while length <= MAX_LENGTH {
            next <<= 1;
            codes.first[length] = next;
            codes.start[length] = place;
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == length {
                    codes.code[symbol] = next;
                    codes.by_code[place] = symbol as u16;
                    codes.count[length] += 1;
                    next += 1;
                    place += 1;
                }
                symbol += 1;
            }
            length += 1;
        }
        codes
    }
}
