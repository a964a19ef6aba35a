//! Who a destination means, and who it may mean.

use super::*;

fn member(id: &str, name: &str, first_byte: u8) -> PinnedMember {
    let mut key = [7; 32];
    key[0] = first_byte;
    let member_id = MemberId::parse(id).unwrap();
    PinnedMember::new(member_id, MemberKey(key), name)
}

fn id(to: &str, members: &[PinnedMember]) -> Result<String, ResolveError> {
    resolve(&Destination::parse(to).unwrap(), members).map(|found| found.member_id.into_string())
}

#[test]
fn keys_names_and_prefixes_find_one_member() {
    let members = [member("a", "Alice", 1), member("b", "Bob", 2)];
    assert_eq!(id("BOB", &members).as_deref(), Ok("b"));
    assert_eq!(id(&members[0].key.to_hex(), &members).as_deref(), Ok("a"));
    assert_eq!(id(&members[0].key.to_hex()[..16].to_uppercase(), &members).as_deref(), Ok("a"));
    // Fifteen digits are a name, and nobody has it.
    assert!(matches!(id(&members[0].key.to_hex()[..15], &members), Err(ResolveError::Unknown { .. })));
}

#[test]
fn an_unknown_name_offers_the_nearest_ones() {
    let members = [member("a", "Alice", 1), member("b", "Bob", 2), member("r", "Rob", 3)];
    let text = |to: &str| id(to, &members).unwrap_err().to_string();
    assert_eq!(text("bobb"), "no member of the mesh matches `bobb`; did you mean Bob (0207070707070707)?");
    assert!(
        text("zebra")
            .ends_with("; its members are Alice (0107070707070707), Bob (0207070707070707), Rob (0307070707070707)")
    );
    let short = text("02070707");
    assert!(short.contains("16 or more") && short.ends_with("did you mean Bob (0207070707070707)?"), "{short}");
}

#[test]
fn several_matches_name_all_candidates() {
    let mut twin = member("c", "Carol", 1);
    twin.key.0[31] = 9;
    let members = [member("a", "Alice", 1), twin];
    let error = id(&members[0].key.to_hex()[..16], &members).unwrap_err();
    assert!(error.to_string().contains("Alice") && error.to_string().contains("Carol"), "{error}");
}

#[test]
fn candidates_are_members_and_at_most_ten() {
    let members: Vec<PinnedMember> = (0..15)
        .map(|n| {
            let mut twin = member(&format!("m{n}"), &format!("bob{n:02}"), 1);
            twin.key.0[31] = n;
            twin
        })
        .collect();
    let several = id(&members[0].key.to_hex()[..16], &members).unwrap_err();
    assert_eq!(several.candidates().len(), MAX_CANDIDATES);
    let first = &several.candidates()[0];
    assert_eq!((first.member_id.as_str(), first.key, first.name.as_str()), ("m0", members[0].key, "bob00"));
    assert!(several.to_string().contains("and 5 more"), "{several}");
    let near = id("bob1", &members).unwrap_err();
    assert!((1..=MAX_CANDIDATES).contains(&near.candidates().len()), "{near}");
    // Who is not written alike is named in the text alone.
    let far = id("zebra", &members).unwrap_err();
    assert!(far.candidates().is_empty() && far.to_string().contains("bob00"), "{far}");
}

#[test]
fn a_changed_key_and_a_revoked_member_are_refused() {
    let mut members = [member("a", "Alice", 1), member("b", "Bob", 2)];
    members[0].changed_key = Some(MemberKey([9; 32]));
    members[1].revoked = true;
    assert!(matches!(id("alice", &members), Err(ResolveError::KeyChanged { .. })));
    assert!(matches!(id("bob", &members), Err(ResolveError::Revoked { .. })));
}

#[test]
fn a_name_of_several_means_nobody_until_it_is_given_to_one() {
    let mut members = [member("t", "BOB", 3), member("b", "Bob", 2), member("z", "Zed", 4)];
    let error = id("bob", &members).unwrap_err();
    assert_eq!((error.code(), error.candidates().len()), (ErrorCode::AmbiguousPeer, 2));
    assert!(error.to_string().ends_with("claudemesh verify KEY --accept"), "{error}");
    members[1].accepted_name = Some("bob".to_owned());
    assert_eq!(id("bob", &members).as_deref(), Ok("b"));
    // It means whom the operator chose, whatever that one is called by now.
    members[1].rename("Robert");
    assert_eq!((id("bob", &members).as_deref(), id("robert", &members).as_deref()), (Ok("b"), Ok("b")));
    // A name that another once had is in question too, and one that was removed leaves it.
    members[1].revoked = true;
    let error = id("bob", &members).unwrap_err().to_string();
    let expected = "several members have or had the name `bob`: BOB (0307070707070707), Robert (0207070707070707, \
                    removed); write the key of the one that is meant, or give it the name for good: claudemesh \
                    verify 0307070707070707 --accept";
    assert_eq!(error, expected);
}

#[test]
fn a_marked_name_is_found_as_it_is_printed() {
    let members = [member("t", "Bob", 3), member("b", "Bob", 2), member("e", "eve, bob (0207)", 5)];
    assert_eq!(id("bob?02070707", &members).as_deref(), Ok("b"));
    assert_eq!(id("Bob?030707070", &members).as_deref(), Ok("t"));
    assert_eq!(id("eve\u{FFFD} bob \u{FFFD}0207\u{FFFD}?05070707", &members).as_deref(), Ok("e"));
    for nobody in ["bob?0207070", "bob?05070707", "bob?"] {
        assert!(matches!(id(nobody, &members), Err(ResolveError::Unknown { .. })), "{nobody}");
    }
}

#[test]
fn a_former_name_still_means_its_bearer() {
    let mut renamed = member("b", "Bob", 2);
    renamed.former_names = vec!["robert".to_owned()];
    let members = [member("a", "Alice", 1), renamed];
    assert_eq!(id("Robert", &members).as_deref(), Ok("b"));
}

#[test]
fn a_key_that_was_rotated_out_counts_for_the_grace() {
    let mut rotated = member("b", "Bob", 2);
    let old = MemberKey([9; 32]);
    rotated.previous = vec![PreviousKey { key: old, rotated_out_at: UnixMillis(1000) }];
    let members = [rotated];
    let at = |ms| holder(&members, old, UnixMillis(ms), Duration::from_secs(1));
    assert!(matches!(at(2000), Some(Holder::InGrace(_))));
    assert!(matches!(at(2001), Some(Holder::Retired(_))));
    assert!(matches!(holder(&members, members[0].key, UnixMillis(0), Duration::ZERO), Some(Holder::Current(_))));
    assert_eq!(holder(&members, MemberKey([8; 32]), UnixMillis(0), Duration::ZERO), None);
}
