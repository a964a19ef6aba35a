//! Safety numbers: what two people read to each other to know that no broker
//! stands between their keys.

use sha2::{Digest as _, Sha512};

use crate::domain::ids::MemberKey;

/// What the hash is for, so that it is not the hash of anything else.
const CONTEXT: &[u8] = b"claudemesh-safety-number|v1|";
/// Bytes of the hash that make one group.
const GROUP_BYTES: usize = 5;
const GROUPS: usize = 12;

/// Twelve groups of five digits, separated by spaces; the same from both sides.
/// SHA-512 over a context and the two keys in byte order; five bytes a group,
/// each as a number modulo 100 000.
pub fn safety_number(one: MemberKey, other: MemberKey) -> String {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    let hash = Sha512::new().chain_update(CONTEXT).chain_update(first.0).chain_update(second.0).finalize();
    let group = |bytes: &[u8]| {
        let number = bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        format!("{:05}", number % 100_000)
    };
    hash.chunks_exact(GROUP_BYTES).take(GROUPS).map(group).collect::<Vec<_>>().join(" ")
}
