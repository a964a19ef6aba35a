//! Finds `:authority` in HPACK header blocks and makes its value acceptable.
//!
//! Only the walk over the fields is done here, and of the dynamic table only
//! what is needed to know a name by its index. Values are not decoded, except
//! that of `:authority`.

use std::collections::VecDeque;
use std::ops::Range;

use http::uri::Authority;

use super::huffman;

const AUTHORITY: &[u8] = b":authority";
/// `:authority` in the static table of RFC 7541, appendix A.
const AUTHORITY_INDEX: usize = 1;
/// The first index of the dynamic table.
const FIRST_DYNAMIC: usize = 62;
/// The most entries that the dynamic table can hold: its size is 4096 bytes
/// unless the server announces another one, which ours does not, and an entry
/// counts at least 32.
const MAX_DYNAMIC: usize = 4096 / 32;

/// A header block that no HPACK decoder accepts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What one connection's header blocks have told so far.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Newest first: whether the entry of the dynamic table is named
    /// `:authority`. Entries that were evicted may linger at the end, where no
    /// valid index reaches them.
    dynamic: VecDeque<bool>,
}

/// A string literal in a block.
struct Literal {
    /// All of it, with its length.
    whole: Range<usize>,
    /// Its bytes.
    data: Range<usize>,
    huffman: bool,
}

// === impl Blocks ===

impl Blocks {
    /// Reads one block. Returns the block to use instead when `:authority` had
    /// to be changed; it is never longer than the one that came, and the value's
    /// decoded length is the same, so that the dynamic tables of both ends keep
    /// the same sizes.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let mut at = 0;
        let mut changed: Option<Vec<u8>> = None;
        let mut copied = 0;
        while let Some(&first) = block.get(at) {
            let (indexed_bits, is_added) = match first {
                // Indexed field, or a new size of the table: nothing follows.
                0x80.. => {
                    integer(block, &mut at, 7)?;
                    continue;
                }
                0x20..0x40 => {
                    integer(block, &mut at, 5)?;
                    continue;
                }
                // Literal that is added to the table; not added; never to be.
                0x40..0x80 => (6, true),
                0x00..0x20 => (4, false),
            };
            let is_authority = match integer(block, &mut at, indexed_bits)? {
                0 => string(block, &mut at)?.value(block).as_deref() == Some(AUTHORITY),
                AUTHORITY_INDEX => true,
                index if index < FIRST_DYNAMIC => false,
                index => *self.dynamic.get(index - FIRST_DYNAMIC).ok_or(Malformed)?,
            };
            let literal = string(block, &mut at)?;
            if is_added {
                self.dynamic.push_front(is_authority);
                self.dynamic.truncate(MAX_DYNAMIC);
            }
            if !is_authority {
                continue;
            }
            let value = literal.value(block).ok_or(Malformed)?;
            if let Some(value) = acceptable(&value) {
                let out = changed.get_or_insert_with(|| Vec::with_capacity(block.len()));
                out.extend_from_slice(&block[copied..literal.whole.start]);
                write_string(&value, literal.huffman, out);
                copied = literal.whole.end;
            }
        }
        if let Some(out) = &mut changed {
            out.extend_from_slice(&block[copied..]);
        }
        Ok(changed)
    }
}

// === impl Literal ===

impl Literal {
    fn value(&self, block: &[u8]) -> Option<Vec<u8>> {
        let data = &block[self.data.clone()];
        if self.huffman { huffman::decode(data) } else { Some(data.to_vec()) }
    }
}

/// The value to use instead of one that the server would refuse: every byte that
/// is not always allowed in a host becomes `-`. An empty value stays refused,
/// because no value of the same length is acceptable.
fn acceptable(value: &[u8]) -> Option<Vec<u8>> {
    if value.is_empty() || Authority::try_from(value).is_ok() {
        return None;
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    Some(value.iter().map(|byte| if allowed(*byte) { *byte } else { b'-' }).collect())
}

fn write_string(value: &[u8], coded: bool, out: &mut Vec<u8>) {
    if coded {
        let mut data = Vec::with_capacity(value.len());
        huffman::encode(value, &mut data);
        write_integer(data.len(), 7, 0x80, out);
        out.extend_from_slice(&data);
    } else {
        write_integer(value.len(), 7, 0, out);
        out.extend_from_slice(value);
    }
}

/// An integer behind `bits` bits of prefix (RFC 7541, 5.1).
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Result<usize, Malformed> {
    let full = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(*at).ok_or(Malformed)?) & full;
    *at += 1;
    if value < full {
        return Ok(value);
    }
    // Four more bytes hold 28 bits, far beyond every length and index here.
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*block.get(*at).ok_or(Malformed)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

pub(super) fn write_integer(value: usize, bits: u32, flags: u8, out: &mut Vec<u8>) {
    let full = (1_usize << bits) - 1;
    if value < full {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | full as u8);
    let mut rest = value - full;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A string literal (RFC 7541, 5.2).
fn string(block: &[u8], at: &mut usize) -> Result<Literal, Malformed> {
    let start = *at;
    let huffman = block.get(start).ok_or(Malformed)? & 0x80 != 0;
    let length = integer(block, at, 7)?;
    let end = at.checked_add(length).filter(|end| *end <= block.len()).ok_or(Malformed)?;
    let data = *at..end;
    *at = end;
    Ok(Literal { whole: start..end, data, huffman })
}
