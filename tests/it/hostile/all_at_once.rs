//! One member does all that it can at once, in a mesh of many. `CLAUDEMESH_SOAK` makes it
//! go on for five minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::shares::rotation;
use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, unique};
use crate::support::keys::Key;
use crate::support::mesh::Mesh;
use crate::support::raw::{Member, Raw, plain_send};
use crate::support::wait;

const DAEMONS: usize = 30;
/// Bytes that one member may make a daemon keep, all in all.
const KEPT: u64 = 12 << 20;

/// What the member does until it is told to stop, or is removed.
struct Attack {
    url: String,
    member: Member,
    targets: Vec<String>,
    stop: AtomicBool,
    /// Requests that were made.
    made: AtomicU64,
}

impl Attack {
    /// Sends frames on a connection of its own, again and again over a new one.
    async fn flood(self: Arc<Self>, hello: impl Fn() -> Value, frames: impl Fn(u64) -> Vec<Value>) {
        let mut round = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let Ok(mut raw) = Raw::try_connect(&self.url).await else { continue };
            raw.try_send(&hello()).await;
            for _ in 0..20 {
                for frame in frames(round) {
                    raw.try_send(&frame).await;
                    self.made.fetch_add(1, Ordering::Relaxed);
                }
                round += 1;
                tokio::task::yield_now().await;
            }
        }
    }

    fn start(self: &Arc<Self>) -> Vec<tokio::task::JoinHandle<()>> {
        let member = &self.member;
        let hello = {
            let member = member.clone();
            move || member.hello()
        };
        let session = {
            let member = member.clone();
            move || {
                let mut hello = member.session_hello(&Key::random());
                hello["displayName"] = json!("\u{1}".repeat(200));
                hello
            }
        };
        let rotations = {
            let member = member.clone();
            move |round| vec![rotation(&member, round + 1, &member.key, &Key::random())]
        };
        let targets = self.targets.clone();
        let garbage = move |_| {
            let hidden = json!({"type": "set_visible", "visible": false});
            std::iter::once(hidden).chain(targets.iter().map(|target| plain_send(target))).collect()
        };
        let presence = |round| {
            let long = "\u{1}".repeat(1_000);
            vec![
                json!({"type": "set_visible", "visible": round % 2 == 0}),
                json!({"type": "set_profile", "title": long, "bio": long}),
                json!({"type": "set_summary", "summary": long}),
                json!({"type": "topic_create", "name": format!("t{round}")}),
            ]
        };
        vec![
            tokio::spawn(Arc::clone(self).flood(hello.clone(), rotations)),
            tokio::spawn(Arc::clone(self).flood(session.clone(), garbage)),
            tokio::spawn(Arc::clone(self).flood(session, presence)),
            tokio::spawn(Arc::clone(self).flood(hello, presence)),
        ]
    }
}

/// Has the mesh's members talk for a while; how long each message took.
async fn talk(daemons: &[Daemon], span: Duration) -> Vec<Duration> {
    let (end, mut took, mut from) = (Instant::now() + span, Vec::new(), 0);
    while Instant::now() < end {
        let to = (from + 7) % daemons.len();
        let (text, began) = (unique("between the others"), Instant::now());
        daemons[from].send(&format!("d{to}"), &text).await;
        daemons[to].received(&text).await;
        took.push(began.elapsed());
        from = (from + 1) % daemons.len();
    }
    took.sort_unstable();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_that_does_all_it_can_stops_nobody() {
    let span = if std::env::var_os("CLAUDEMESH_SOAK").is_some() { 300 } else { 30 };
    let broker = Broker::start().await;
    let mesh = Mesh::create(&broker, "demo").await;
    let mut daemons = Vec::new();
    for number in 0..DAEMONS {
        daemons.push(Daemon::join(&broker, &mesh, &format!("d{number}")).await);
    }
    for daemon in &daemons {
        daemon.knows(&format!("d{}", DAEMONS - 1)).await;
    }
    let quiet = talk(&daemons, Duration::from_secs(3)).await;
    let member = mesh.join(&broker, "mallory").await;
    let attack = Arc::new(Attack {
        url: broker.url(),
        targets: daemons.iter().map(Daemon::public).collect(),
        stop: AtomicBool::new(false),
        made: AtomicU64::new(0),
        member: member.clone(),
    });
    let tasks = attack.start();
    let busy = talk(&daemons, Duration::from_secs(span)).await;
    // It can be seen, and removed, while it goes on.
    let list = mesh.admin(&broker, &mesh.owner, json!({"type": "members_get", "after": ""})).await.expect(200).json();
    let row =
        list["members"].as_array().expect("members").iter().find(|row| row["memberId"] == member.member_id.as_str());
    assert!(row.expect("its row")["holds"].is_object(), "{row:?}");
    let revoke = json!({"type": "member_revoke", "memberId": member.member_id});
    mesh.admin(&broker, &mesh.owner, revoke).await.expect(200);
    let after = talk(&daemons, Duration::from_secs(3)).await;
    attack.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        wait::soon("the attack to end", task).await.expect("no panic");
    }
    let median = |all: &[Duration]| all[all.len() / 2];
    eprintln!(
        "{} requests against {} messages: median {:?} before, {:?} during, {:?} after",
        attack.made.load(Ordering::Relaxed),
        busy.len(),
        median(&quiet),
        median(&busy),
        median(&after)
    );
    for daemon in &daemons {
        let db = daemon.inbox_db().await;
        let bytes = db.number("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").await;
        assert!(bytes.unsigned_abs() < KEPT, "{bytes} bytes");
        db.close().await;
    }
}
