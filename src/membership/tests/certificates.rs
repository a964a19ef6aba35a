//! What a link makes beside a member: the owner's word for it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::stand_in::StandIn;
use super::user;
use crate::crypto::certificate::is_genuine;
use crate::domain::certificate::{Certificate, CertifiedRole};
use crate::domain::error_code::ErrorCode;
use crate::domain::ids::MemberKey;
use crate::membership::config_json::MeshEntry;
use crate::membership::invite::{self, Role, Terms};
use crate::membership::{Env, create, join, manage, owner};
use crate::wire::certificate::{LinkKey, MemberCertificate};

const HOUR: Terms = Terms { role: Role::Member, uses: 3, lifetime: Duration::from_secs(3600), plain: false };

fn mesh_of(env: &Env, dir: &Path, broker: &StandIn) -> MeshEntry {
    let token = dir.join("token");
    fs::write(&token, "let-me-in\n").unwrap();
    let options = create::Options {
        broker_url: Some(broker.url.clone()),
        admin_token_file: Some(token),
        display_name: Some("ann".to_owned()),
        ..create::Options::default()
    };
    match create::create(env, "demo", &options).unwrap() {
        create::Outcome::Created(entry) | create::Outcome::AlreadyThere(entry) => entry,
    }
}

fn link(env: &Env, terms: Terms) -> String {
    invite::make(env, &owner::find(&env.root, "demo").unwrap().unwrap(), &terms).unwrap().link
}

fn join(env: &Env, link: &str) -> MeshEntry {
    let options = join::Options { display_name: Some("bob".to_owned()) };
    match join::join(env, link, &options).unwrap() {
        join::Outcome::Joined { entry, .. } | join::Outcome::AlreadyJoined(entry) => entry,
    }
}

/// The certificate that the join left, for its own member and genuine.
fn kept(env: &Env, entry: &MeshEntry) -> Certificate {
    let path = env.root.certificate(&entry.mesh_id);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let certificate: MemberCertificate = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let certificate = certificate.read().expect("a certificate");
    let owner = MemberKey::parse(entry.owner_pubkey.as_deref().unwrap()).unwrap();
    assert!(is_genuine(&certificate, &entry.mesh_id, owner));
    assert_eq!(certificate.member.to_hex(), entry.pubkey);
    certificate
}

#[test]
fn creator_and_joiner_are_certified_with_their_roles() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), StandIn::start());
    let ann = user(&dir);
    let entry = mesh_of(&ann, dir.path(), &broker);
    assert_eq!(kept(&ann, &entry).role, CertifiedRole::Admin);

    let roles = [(Role::Member, CertifiedRole::Member), (Role::Admin, CertifiedRole::Admin)];
    for (role, certified) in roles {
        let other = tempfile::tempdir().unwrap();
        let bob = user(&other);
        let joined = join(&bob, &link(&ann, Terms { role, ..HOUR }));
        let certificate = kept(&bob, &joined);
        assert_eq!((certificate.role, certificate.expires_at_s), (certified, 1_800_003_600));
        // The broker got the same, to show it to the others.
        let (path, body) = broker.requests().pop().unwrap();
        assert_eq!(path, "/join");
        let sent: MemberCertificate = serde_json::from_value(body["certificate"].clone()).unwrap();
        assert_eq!(sent.read(), Some(certificate));
    }
}

#[test]
fn no_broker_gets_the_key_of_a_link_and_no_file_holds_it() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), StandIn::start());
    let ann = user(&dir);
    mesh_of(&ann, dir.path(), &broker);
    let link = link(&ann, HOUR);
    let other = tempfile::tempdir().unwrap();
    let bob = user(&other);
    join(&bob, &link);
    let key = LinkKey::of_link(&link).unwrap().expect("a key");
    let fragment = key.to_fragment();
    let forms = [fragment.as_str().to_owned(), fragment[..43].to_owned(), hex::encode(*key.seed)];
    let mut written = broker.requests().iter().map(|(path, body)| format!("{path} {body}")).collect::<Vec<_>>();
    for root in [ann.root.path(), bob.root.path()] {
        written.extend(files_below(root));
    }
    assert!(written.len() > 5, "{}", written.len());
    for text in &written {
        assert!(forms.iter().all(|form| !text.contains(form.as_str())), "{text}");
    }
}

fn files_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.push(String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned());
        }
    }
    found
}

#[test]
fn a_plain_link_joins_without_a_certificate() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), StandIn::start());
    let ann = user(&dir);
    mesh_of(&ann, dir.path(), &broker);
    let plain = link(&ann, Terms { plain: true, ..HOUR });
    assert!(!plain.contains('#'), "{plain}");
    let (full, _) = link(&ann, HOUR).split_once('#').map(|(token, key)| (token.to_owned(), key.to_owned())).unwrap();
    for link in [plain, full] {
        let other = tempfile::tempdir().unwrap();
        let bob = user(&other);
        let entry = join(&bob, &link);
        assert!(!bob.root.certificate(&entry.mesh_id).exists());
        assert_eq!(broker.requests().pop().unwrap().1.get("certificate"), None);
    }
}

#[test]
fn a_link_whose_key_does_not_fit_costs_nothing() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), StandIn::start());
    let ann = user(&dir);
    mesh_of(&ann, dir.path(), &broker);
    let [member, admin] = [Role::Member, Role::Admin].map(|role| link(&ann, Terms { role, ..HOUR }));
    let (token, own) = member.split_once('#').unwrap();
    let (_, foreign) = admin.split_once('#').unwrap();
    let asked = broker.requests().len();
    let other = tempfile::tempdir().unwrap();
    let bob = user(&other);
    for damaged in [foreign, &own[..100], ""] {
        let error = join::join(&bob, &format!("{token}#{damaged}"), &join::Options::default()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InviteInvalid, "{error}");
        assert!(error.next_step().contains("whole link"), "{}", error.next_step());
        assert!(!error.to_string().contains(token), "{error}");
    }
    assert_eq!(broker.requests().len(), asked);
    assert!(!bob.root.config_json().exists());
}

#[test]
fn members_of_before_catch_up_without_the_broker() {
    let (dir, broker) = (tempfile::tempdir().unwrap(), StandIn::start());
    let ann = user(&dir);
    let entry = mesh_of(&ann, dir.path(), &broker);
    fs::remove_file(ann.root.certificate(&entry.mesh_id)).unwrap();
    let other = tempfile::tempdir().unwrap();
    let bob = user(&other);
    join(&bob, &link(&ann, Terms { plain: true, ..HOUR }));
    let later = link(&ann, Terms { role: Role::Admin, ..HOUR });
    let asked = broker.requests().len();

    mesh_of(&ann, dir.path(), &broker);
    assert_eq!(kept(&ann, &entry).role, CertifiedRole::Admin);
    let joined = join(&bob, &later);
    let first = kept(&bob, &joined);
    assert_eq!(first.role, CertifiedRole::Admin);
    // What is there stays.
    let again = link(&ann, HOUR);
    join(&bob, &again);
    assert_eq!(kept(&bob, &joined), first);
    let joins = broker.requests()[asked..].iter().filter(|(path, _)| path == "/join").count();
    assert_eq!(joins, 0);

    manage::leave(&bob, "demo").unwrap();
    assert!(!bob.root.certificate(&joined.mesh_id).exists(), "it ends with the membership");
}
