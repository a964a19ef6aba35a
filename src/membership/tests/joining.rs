//! From a new mesh to its second member.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::stand_in::StandIn;
use super::user;
use crate::crypto::sign::Statement;
use crate::domain::error_code::ErrorCode;
use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;
use crate::membership::config_json::ConfigJson;
use crate::membership::invite::{self, Role, Terms};
use crate::membership::{Env, Error, create, join, owner};
use crate::wire::join::join_error;
use crate::wire::text;

const WEEK: Terms = Terms { role: Role::Member, uses: 3, lifetime: Duration::from_secs(7 * 24 * 3600), plain: false };

fn creating(dir: &Path, broker: &StandIn) -> create::Options {
    let token = dir.join("token");
    fs::write(&token, "let-me-in\n").unwrap();
    create::Options {
        broker_url: Some(broker.url.clone()),
        admin_token_file: Some(token),
        display_name: Some("ann".to_owned()),
        ..create::Options::default()
    }
}

fn link(env: &Env) -> String {
    invite::make(env, &owner::find(&env.root, "demo").unwrap().unwrap(), &WEEK).unwrap().link
}

fn named(name: &str) -> join::Options {
    join::Options { display_name: Some(name.to_owned()) }
}

fn files_below(dir: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        found.push((entry.file_name().into_string().unwrap(), mode));
    }
    found.sort();
    found
}

#[test]
fn an_invite_has_uses_and_lives_neither_seconds_nor_years() {
    let dir = tempfile::tempdir().unwrap();
    let broker = StandIn::start();
    let ann = user(&dir);
    create::create(&ann, "demo", &creating(dir.path(), &broker)).unwrap();
    let owner = owner::find(&ann.root, "demo").unwrap().unwrap();
    let day = 24 * 3600;
    for (seconds, uses, is_made) in
        [(59, 1, false), (60, 1, true), (366 * day, 1, true), (366 * day + 1, 1, false), (60, 0, false)]
    {
        let terms = Terms { lifetime: Duration::from_secs(seconds), uses, ..WEEK };
        let made = invite::make(&ann, &owner, &terms);
        assert_eq!(made.is_ok(), is_made, "{seconds} s, {uses} uses: {made:?}");
    }
}

#[test]
fn a_mesh_is_created_joined_and_joined_by_others() {
    let dir = tempfile::tempdir().unwrap();
    let broker = StandIn::start();
    let ann = user(&dir);
    let options = creating(dir.path(), &broker);
    let create::Outcome::Created(entry) = create::create(&ann, "demo", &options).unwrap() else { panic!("was there") };
    assert_eq!((entry.slug.as_str(), entry.mesh_id.as_str()), ("demo", "M-demo"));
    assert_eq!(entry.role.as_deref(), Some("admin"));
    assert_eq!(entry.display_name.as_deref(), Some("ann"));
    assert_eq!(files_below(&ann.root.owners_dir()), [("M-demo.json".to_owned(), 0o600)]);
    assert_eq!(files_below(&ann.root.path().join("joining")), []);

    let other = tempfile::tempdir().unwrap();
    let bob = user(&other);
    let join::Outcome::Joined { entry: joined, .. } = join::join(&bob, &link(&ann), &named("bob")).unwrap() else {
        panic!("was")
    };
    assert_eq!(joined.owner_pubkey, entry.owner_pubkey);
    assert_ne!(joined.pubkey, entry.pubkey);
    assert!(!bob.root.owners_dir().exists());

    // What the broker got proves the member's key and the invite.
    let (path, body) = broker.requests().pop().unwrap();
    assert_eq!(path, "/join");
    let key = MemberKey::parse(&joined.pubkey).unwrap();
    let statement = &body["capabilities"];
    let signature = text::signature_from_hex(statement["signature"].as_str().unwrap()).unwrap();
    let at = UnixMillis(statement["ts"].as_i64().unwrap());
    assert!(Statement::capabilities("M-demo", key, ["envelope_v3"], at).unwrap().verify(key, &signature));
    assert!(!body.to_string().contains(joined.secret().unwrap().to_libsodium_hex().as_str()));

    // The registration is signed by the owner.
    let (path, body) = broker.requests().into_iter().rfind(|(path, _)| path.starts_with("/v1/meshes/")).unwrap();
    assert_eq!(path, "/v1/meshes/M-demo/invites");
    let token = body["token"].as_str().unwrap();
    let statement =
        Statement::invite_registration("M-demo", token, 3, UnixMillis(body["ts"].as_i64().unwrap())).unwrap();
    let signature = text::signature_from_hex(body["signature"].as_str().unwrap()).unwrap();
    let owner = MemberKey::parse(entry.owner_pubkey.as_deref().unwrap()).unwrap();
    assert!(statement.verify(owner, &signature));
}

#[test]
fn what_is_done_already_is_said_and_not_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let broker = StandIn::start();
    let ann = user(&dir);
    let options = creating(dir.path(), &broker);
    create::create(&ann, "demo", &options).unwrap();
    let link = link(&ann);
    let asked = broker.requests().len();
    assert!(matches!(create::create(&ann, "demo", &options).unwrap(), create::Outcome::AlreadyThere(_)));
    assert!(matches!(join::join(&ann, &link, &named("x")).unwrap(), join::Outcome::AlreadyJoined(_)));
    assert_eq!(broker.requests().len(), asked);
    assert_eq!(files_below(&ann.root.path().join("joining")), []);
}

#[test]
fn a_lost_answer_costs_no_second_member_and_no_second_mesh() {
    let dir = tempfile::tempdir().unwrap();
    let broker = StandIn::start();
    let ann = user(&dir);
    let options = creating(dir.path(), &broker);
    broker.lose_next_answer();
    let error = create::create(&ann, "demo", &options).unwrap_err();
    assert_eq!(error.code(), ErrorCode::BrokerUnreachable, "{error}");
    create::create(&ann, "demo", &options).unwrap();

    let other = tempfile::tempdir().unwrap();
    let bob = user(&other);
    let link = link(&ann);
    let members = broker.members();
    broker.lose_next_answer();
    assert!(matches!(join::join(&bob, &link, &named("bob")), Err(Error::Unreachable { .. })));
    join::join(&bob, &link, &named("bob")).unwrap();
    assert_eq!(broker.members(), members + 1);
}

#[test]
fn refusals_name_the_reason_the_code_and_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let broker = StandIn::start();
    let ann = user(&dir);
    let options = creating(dir.path(), &broker);
    let wrong = dir.path().join("wrong");
    fs::write(&wrong, "guess").unwrap();
    let refused = create::Options { admin_token_file: Some(wrong), ..options.clone() };
    assert_eq!(create::create(&ann, "demo", &refused).unwrap_err().code(), ErrorCode::AdminTokenRefused);
    let missing = create::Options { admin_token_file: Some(dir.path().join("none")), ..options.clone() };
    assert!(matches!(create::create(&ann, "demo", &missing), Err(Error::AdminTokenMissing { .. })));
    let nowhere = create::Options { broker_url: None, ..options.clone() };
    assert!(matches!(create::create(&ann, "demo", &nowhere), Err(Error::NoBroker { .. })));
    create::create(&ann, "demo", &options).unwrap();

    let other = tempfile::tempdir().unwrap();
    let bob = user(&other);
    let taken = creating(other.path(), &broker);
    assert_eq!(create::create(&bob, "demo", &taken).unwrap_err().code(), ErrorCode::MeshExists);
    for (reason, code) in [
        (join_error::INVITE_EXPIRED, ErrorCode::InviteExpired),
        (join_error::INVITE_EXHAUSTED, ErrorCode::JoinRefused),
        (join_error::INVITE_OWNER_MISMATCH, ErrorCode::InviteInvalid),
        ("strange \u{1b}[31m words", ErrorCode::JoinRefused),
    ] {
        broker.refuse_joins(reason);
        let error = join::join(&bob, &link(&ann), &named("bob")).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(!error.to_string().contains('\u{1b}'));
        assert!(!error.next_step().is_empty());
    }
    assert!(!bob.root.config_json().exists());
}

#[test]
fn nothing_is_sent_for_an_invite_that_does_not_verify() {
    let dir = tempfile::tempdir().unwrap();
    let broker = StandIn::start();
    let ann = user(&dir);
    create::create(&ann, "demo", &creating(dir.path(), &broker)).unwrap();
    let link = link(&ann);
    let other = tempfile::tempdir().unwrap();
    let bob = user(&other);
    let asked = broker.requests().len();

    let mut tampered = crate::wire::join::InviteV1::parse(&link).unwrap();
    tampered.role = "admin".to_owned();
    let error = join::join(&bob, &tampered.to_link().unwrap(), &named("bob")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InviteInvalid);
    bob.clock.advance(WEEK.lifetime);
    assert_eq!(join::join(&bob, &link, &named("bob")).unwrap_err().code(), ErrorCode::InviteExpired);
    assert_eq!(join::join(&ann, "hello", &named("ann")).unwrap_err().code(), ErrorCode::InviteInvalid);
    assert_eq!(broker.requests().len(), asked);
}

#[test]
fn an_owner_key_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let broker = StandIn::start();
    let ann = user(&dir);
    create::create(&ann, "demo", &creating(dir.path(), &broker)).unwrap();
    let path = ann.root.owner_key("M-demo");
    let text = fs::read_to_string(&path).unwrap();
    let owner = ConfigJson::load(&ann.root).unwrap().mesh("demo").unwrap().unwrap().owner_pubkey.unwrap();
    fs::write(&path, text.replacen(&owner, &"0".repeat(64), 1)).unwrap();
    let error = owner::find(&ann.root, "demo").unwrap_err();
    assert!(error.to_string().contains("M-demo.json"), "{error}");
}
