//! Safety numbers: what two people read to each other to know that no broker
//! stands between their keys.

use sha2::{Digest as _, Sha256};

use crate::domain::ids::MemberKey;

const GROUPS: usize = 6;
const GROUP_BITS: usize = 20;

/// Six groups of five digits, separated by spaces; the same from both sides.
/// SHA-256 over the two keys in byte order, 20 bits a group, each modulo
/// 100 000.
pub fn safety_number(one: MemberKey, other: MemberKey) -> String {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    let hash = Sha256::new().chain_update(first.0).chain_update(second.0).finalize();
    let mut bits = [0_u8; 16];
    bits.copy_from_slice(&hash[..16]);
    let bits = u128::from_be_bytes(bits);
    let group = |n: usize| {
        let shift = 128 - (n + 1) * GROUP_BITS;
        format!("{:05}", ((bits >> shift) & 0xf_ffff) % 100_000)
    };
    (0..GROUPS).map(group).collect::<Vec<_>>().join(" ")
}
