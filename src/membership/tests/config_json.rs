//! The file that is shared with other programs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::user;
use crate::crypto::keys::MemberSecret;
use crate::domain::error_code::ErrorCode;
use crate::domain::ids::{MemberId, MeshId};
use crate::membership::Error;
use crate::membership::config_json::{ConfigJson, MeshEntry, NewMember, add};

fn entry(slug: &str, seed: u8) -> MeshEntry {
    let secret = MemberSecret::from_seed(&[seed; 32]);
    let owner = MemberSecret::from_seed(&[99; 32]).public();
    let mesh_id = MeshId::parse(format!("M-{slug}")).unwrap();
    let member_id = MemberId::parse("member-1").unwrap();
    let member = NewMember {
        mesh_id: &mesh_id,
        member_id: &member_id,
        slug,
        broker_url: "ws://127.0.0.1:7900/ws",
        joined_at: "2027-01-15T08:00:00.000Z".to_owned(),
        display_name: "ann",
        role: "member",
        owner,
    };
    MeshEntry::new(&member, &secret)
}

#[test]
fn what_other_programs_wrote_survives_a_join() {
    let dir = tempfile::tempdir().unwrap();
    let env = user(&dir);
    let path = env.root.config_json();
    fs::create_dir_all(env.root.path()).unwrap();
    let foreign = json!({
        "version": 1,
        "displayName": "Ann",
        "groups": [{"name": "ops", "role": "lead"}],
        "somethingNew": {"deep": [1, 2, 3]},
        "meshes": [{
            "meshId": "OLD", "memberId": "m", "slug": "old", "name": "Old mesh", "pubkey": "ab",
            "secretKey": "cd", "brokerUrl": "wss://ic.example/ws", "joinedAt": "2025-01-01T00:00:00.000Z",
            "rootKey": "r", "theirKey": true,
        }],
    });
    fs::write(&path, foreign.to_string()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();

    add(&env.root, &entry("demo", 7)).unwrap();

    let mut written: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let added = written["meshes"].as_array_mut().unwrap().remove(1);
    assert_eq!(written, foreign);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(added["meshId"], "M-demo");
    assert_eq!(added["secretKey"].as_str().unwrap().len(), 128);
    assert_eq!(added["inviteVersion"], 1);
    assert_eq!(added["ownerPubkey"].as_str().unwrap().len(), 64);

    let config = ConfigJson::load(&env.root).unwrap();
    assert_eq!(config.display_name(), Some("Ann"));
    let slugs: Vec<String> = config.meshes().unwrap().into_iter().map(|mesh| mesh.slug).collect();
    assert_eq!(slugs, ["old", "demo"]);
    let read = config.mesh("demo").unwrap().unwrap();
    assert_eq!(read.secret().unwrap().public().to_hex(), read.pubkey);
    // The other program's key is not one; only who asks for it hears of it.
    let old = config.mesh_by_id("OLD").unwrap().unwrap();
    assert_eq!(old.secret().unwrap_err().code(), ErrorCode::KeyUnreadable);
}

#[test]
fn a_member_key_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let env = user(&dir);
    add(&env.root, &entry("demo", 7)).unwrap();
    let before = fs::read(env.root.config_json()).unwrap();
    assert!(matches!(add(&env.root, &entry("demo", 8)), Err(Error::SlugTaken { .. })));
    assert_eq!(fs::read(env.root.config_json()).unwrap(), before);
}

#[test]
fn a_file_that_is_not_understood_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let env = user(&dir);
    fs::create_dir_all(env.root.path()).unwrap();
    let cases = ["", "{", "[]", r#"{"version":2,"meshes":[]}"#, r#"{"meshes":{}}"#, r#"{"meshes":[{"slug":"demo"}]}"#];
    for text in cases {
        fs::write(env.root.config_json(), text).unwrap();
        let error = add(&env.root, &entry("demo", 7)).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ConfigInvalid, "{text}: {error}");
        assert!(error.to_string().contains("config.json"), "{error}");
        assert_eq!(fs::read_to_string(env.root.config_json()).unwrap(), text);
    }
    fs::write(env.root.config_json(), r#"{"meshes":[{"slug":"../x","meshId":"a"}]}"#).unwrap();
    assert!(ConfigJson::load(&env.root).unwrap().meshes().is_err());
}

#[test]
fn a_linked_file_stays_linked() {
    let dir = tempfile::tempdir().unwrap();
    let env = user(&dir);
    fs::create_dir_all(env.root.path()).unwrap();
    let elsewhere = dir.path().join("dotfiles.json");
    fs::write(&elsewhere, "{}").unwrap();
    std::os::unix::fs::symlink(&elsewhere, env.root.config_json()).unwrap();
    add(&env.root, &entry("demo", 7)).unwrap();
    assert!(fs::symlink_metadata(env.root.config_json()).unwrap().is_symlink());
    assert!(fs::read_to_string(&elsewhere).unwrap().contains("M-demo"));
}

#[test]
fn joins_at_the_same_time_all_stay() {
    let dir = tempfile::tempdir().unwrap();
    let env = user(&dir);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let root = &env.root;
            scope.spawn(move || add(root, &entry(&format!("mesh-{number}"), number + 1)).unwrap());
        }
    });
    assert_eq!(ConfigJson::load(&env.root).unwrap().meshes().unwrap().len(), 8);
}

#[test]
fn an_entry_does_not_print_its_key() {
    let entry = entry("demo", 7);
    let secret = entry.secret().unwrap().to_libsodium_hex();
    assert!(!format!("{entry:?}").contains(&secret[..16]));
}
