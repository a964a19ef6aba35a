//! From a row of the broker's roster to what it proves.
//!
//! A signature that does not hold makes its statement as good as absent; who
//! that concerns is decided in `domain::pinning`.

use crate::crypto::sign::{KeyRotation, RotationSignatures};
use crate::domain::ids::{MemberId, MemberKey, MeshId};
use crate::domain::key_chain::{KeyChange, MAX_PREVIOUS};
use crate::domain::names;
use crate::domain::pinning::ShownMember;
use crate::domain::roster::PinnedMember;
use crate::domain::time::UnixMillis;
use crate::identity::verified_capabilities;
use crate::wire::roster::{MemberRow, PeerRow, RotationStatement};
use crate::wire::text;

/// Rotations of one member that are checked at most, the newest.
pub(super) const MAX_CHECKED: usize = 256;

/// A row of the list of members. `pinned` is what is known of the member.
pub(super) fn member(row: &MemberRow, mesh: &MeshId, pinned: Option<&PinnedMember>) -> Option<ShownMember> {
    let key = MemberKey::parse(&row.pubkey).ok()?;
    let member_id = MemberId::parse(row.member_id.as_str()).ok()?;
    let statements = row.rotations.as_deref().unwrap_or_default();
    // Two signatures a statement: those that change nothing are not checked.
    let wanted = match pinned {
        Some(pinned) if pinned.key == key => 0,
        Some(_) => MAX_CHECKED,
        None => MAX_PREVIOUS,
    };
    let newest = &statements[statements.len().saturating_sub(wanted)..];
    let changes: Vec<KeyChange> =
        newest.iter().filter_map(|statement| verified_change(statement, mesh, &member_id)).collect();
    let capabilities = row.capabilities.as_ref().and_then(|statement| {
        // A daemon signs anew when it says hello with its new key; until then
        // the broker has the statement of the key before.
        let before = pinned.into_iter().flat_map(|pinned| pinned.previous.iter().map(|old| old.key));
        let known = pinned.map(|pinned| pinned.key);
        let keys = std::iter::once(key).chain(changes.iter().map(|change| change.old)).chain(known).chain(before);
        keys.take(MAX_PREVIOUS).find_map(|key| verified_capabilities(statement, mesh, key))
    });
    Some(ShownMember {
        member_id,
        key,
        display_name: names::shown(&row.display_name),
        revoked: row.revoked_at.is_some(),
        capabilities,
        changes,
    })
}

/// A row of a broker that names no member ids: the key stands for it.
pub(super) fn peer(row: &PeerRow) -> Option<ShownMember> {
    let key = MemberKey::parse(&row.member_pubkey).ok()?;
    Some(ShownMember {
        member_id: MemberId::parse(format!("key:{key}")).ok()?,
        key,
        display_name: names::shown(&row.display_name),
        revoked: false,
        capabilities: None,
        changes: Vec::new(),
    })
}

/// The change that a statement proves: both keys signed it, for this member of
/// this mesh.
pub(super) fn verified_change(statement: &RotationStatement, mesh: &MeshId, member_id: &MemberId) -> Option<KeyChange> {
    if statement.member_id != member_id.as_str() {
        return None;
    }
    let old = MemberKey::parse(&statement.old_pubkey).ok()?;
    let new = MemberKey::parse(&statement.new_pubkey).ok()?;
    let at = UnixMillis(statement.ts);
    let rotation =
        KeyRotation { mesh_id: mesh.as_str(), member_id: member_id.as_str(), seq: statement.seq, old, new, at };
    let signatures = RotationSignatures {
        old: text::signature_from_hex(&statement.old_signature)?,
        new: text::signature_from_hex(&statement.new_signature)?,
    };
    rotation.verify(&signatures).then_some(KeyChange { seq: statement.seq, old, new, at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::keys::MemberSecret;

    fn secret(seed: u8) -> MemberSecret {
        MemberSecret::from_seed(&[seed; 32])
    }

    fn statement(mesh: &str, member_id: &str, old: u8, new: u8) -> RotationStatement {
        let (old, new) = (secret(old), secret(new));
        let rotation =
            KeyRotation { mesh_id: mesh, member_id, seq: 1, old: old.public(), new: new.public(), at: UnixMillis(7) };
        let signatures = rotation.sign(&old, &new).unwrap();
        RotationStatement {
            member_id: member_id.to_owned(),
            seq: 1,
            old_pubkey: old.public().to_hex(),
            new_pubkey: new.public().to_hex(),
            ts: 7,
            old_signature: hex::encode(signatures.old),
            new_signature: hex::encode(signatures.new),
        }
    }

    fn changes(statement: RotationStatement) -> usize {
        let mesh = MeshId::parse("MESH").unwrap();
        let row = MemberRow {
            member_id: "M".to_owned(),
            pubkey: secret(2).public().to_hex(),
            rotations: Some(vec![statement]),
            ..MemberRow::default()
        };
        let pinned = PinnedMember::new(MemberId::parse("M").unwrap(), secret(1).public(), "m");
        member(&row, &mesh, Some(&pinned)).unwrap().changes.len()
    }

    #[test]
    fn only_a_statement_of_both_keys_about_this_member_counts() {
        let good = statement("MESH", "M", 1, 2);
        assert_eq!(changes(good.clone()), 1);
        assert_eq!(changes(statement("OTHER", "M", 1, 2)), 0);
        assert_eq!(changes(statement("MESH", "N", 1, 2)), 0);
        assert_eq!(changes(RotationStatement { seq: 2, ..good.clone() }), 0);
        assert_eq!(changes(RotationStatement { ts: 8, ..good.clone() }), 0);
        assert_eq!(changes(RotationStatement { old_signature: good.new_signature.clone(), ..good.clone() }), 0);
        assert_eq!(changes(RotationStatement { new_signature: good.old_signature.clone(), ..good.clone() }), 0);
        let forged = statement("MESH", "M", 3, 2);
        assert_eq!(changes(RotationStatement { old_pubkey: good.old_pubkey.clone(), ..forged }), 0);
        assert_eq!(changes(RotationStatement { new_signature: "zz".to_owned(), ..good }), 0);
    }
}
