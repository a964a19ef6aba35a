//! What the state directory may be like when a daemon starts.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use super::queued::Queued;
use super::table::{Case, End, Heard, Row, bytes, run};
use crate::support::cli;
use crate::support::process;
use crate::support::tmpfs::Tmpfs;

/// The member, with its state directory on a small file system.
struct World {
    // Before the directory that it is mounted in.
    disk: Tmpfs,
    queued: Queued,
}

impl World {
    /// Takes all room, with what the daemon holds back.
    fn fill(&self) -> std::path::PathBuf {
        let _ = std::fs::remove_file(self.queued.alice.file("ballast"));
        self.disk.fill()
    }

    async fn start() -> Self {
        let (queued, disk) = Queued::with(|home| {
            let directory = home.join("daemon");
            std::fs::create_dir(&directory).expect("a directory");
            Tmpfs::mount(&directory, "8m")
        })
        .await;
        Self { queued, disk }
    }

    /// The daemon in another home, with the same membership.
    async fn elsewhere(&self, home: &Path) -> Heard {
        std::fs::copy(self.queued.alice.home().join("config.json"), home.join("config.json")).expect("config.json");
        let ran = cli::run(home, &["daemon", "up", "--foreground", "--mesh", "demo"]).await;
        self.queued.kept().await;
        Heard::command(&ran)
    }
}

/// Overwrites each page of a database but the first.
fn damage(path: &Path) {
    let mut file = std::fs::File::options().write(true).open(path).expect("the database");
    let length = file.metadata().expect("a length").len();
    for page in 1..length / 4096 {
        file.seek(SeekFrom::Start(page * 4096)).expect("seek");
        file.write_all(&[0xa5; 256]).expect("write");
    }
}

fn cases() -> Vec<Case<World>> {
    let mut cases = directories();
    cases.extend(files());
    cases
}

fn directories() -> Vec<Case<World>> {
    vec![
        Case {
            name: "state_directory_read_only",
            cause: "The file system of the state directory is read-only.",
            code: "state_dir_unusable",
            end: End::Exit(10),
            place: &["<home>/daemon/demo/", "Read-only file system"],
            help: "mount it for writing, or set CLAUDEMESH_HOME to another directory",
            act: |world| {
                Box::pin(async move {
                    world.disk.read_only(true);
                    let heard = world.queued.refused().await;
                    world.disk.read_only(false);
                    world.queued.kept().await;
                    heard
                })
            },
        },
        Case {
            name: "disk_full_at_start",
            cause: "The disk is full when the daemon starts, and what it holds back is gone.",
            code: "state_dir_unusable",
            end: End::Exit(10),
            place: &["<home>/daemon/demo/", "No space left on device"],
            help: "free some space there and try again",
            act: |world| {
                Box::pin(async move {
                    let ballast = world.fill();
                    let heard = world.queued.refused().await;
                    std::fs::remove_file(ballast).expect("the ballast");
                    world.queued.kept().await;
                    heard
                })
            },
        },
        Case {
            name: "disk_full_at_start_in_background",
            cause: "The disk is full when the daemon starts, and what it holds back is gone.",
            code: "state_dir_unusable",
            end: End::Exit(10),
            place: &["<home>/daemon/demo/", "No space left on device"],
            help: "free some space there and try again",
            act: |world| {
                Box::pin(async move {
                    let ballast = world.fill();
                    // Its words have no room in the file that they go to.
                    let ran = world.queued.run(&["daemon", "up", "--mesh", "demo"]).await;
                    std::fs::remove_file(ballast).expect("the ballast");
                    world.queued.kept().await;
                    Heard::command(&ran)
                })
            },
        },
        Case {
            name: "socket_path_too_long",
            cause: "The path of the state directory is too long for a Unix socket.",
            code: "socket_path_too_long",
            end: End::Exit(10),
            place: &["/daemon/demo/sock is", "this system allows 107"],
            help: "set CLAUDEMESH_HOME to a shorter directory",
            act: |world| {
                Box::pin(async move {
                    let root = process::directory();
                    let home = root.path().join("d".repeat(100));
                    std::fs::create_dir(&home).expect("a directory");
                    let heard = world.elsewhere(&home).await;
                    assert!(!home.join("daemon").exists(), "nothing was made");
                    heard
                })
            },
        },
        Case {
            name: "file_instead_of_directory",
            cause: "A file stands where the state directory belongs.",
            code: "state_dir_unusable",
            end: End::Exit(10),
            place: &["<home>/daemon"],
            help: "a file stands where a directory belongs: move it away",
            act: |world| {
                Box::pin(async move {
                    let home = process::directory();
                    std::fs::write(home.path().join("daemon"), "mine").expect("a file");
                    let heard = world.elsewhere(home.path()).await;
                    assert_eq!(bytes(&home.path().join("daemon")), b"mine", "it is left alone");
                    heard
                })
            },
        },
        Case {
            name: "file_instead_of_socket",
            cause: "A file stands where the socket belongs.",
            code: "listen_failed",
            end: End::Exit(10),
            place: &["<home>/daemon/demo/sock exists and is no socket"],
            help: "move it away",
            act: |world| {
                Box::pin(async move {
                    let path = world.queued.alice.socket();
                    std::fs::write(&path, "mine").expect("a file");
                    let heard = world.queued.refused().await;
                    assert_eq!(bytes(&path), b"mine", "it is left alone");
                    std::fs::remove_file(path).expect("the file");
                    world.queued.kept().await;
                    heard
                })
            },
        },
    ]
}

fn files() -> Vec<Case<World>> {
    vec![
        Case {
            name: "outbox_damaged",
            cause: "`outbox.db` is damaged.",
            code: "outbox_corrupt",
            end: End::Exit(16),
            place: &["<home>/daemon/demo/outbox.db", "nothing was changed"],
            help: "claudemesh daemon recover --mesh demo",
            act: |world| {
                Box::pin(async move {
                    let path = world.queued.alice.file("outbox.db");
                    let before = bytes(&path);
                    damage(&path);
                    let damaged = bytes(&path);
                    let heard = world.queued.refused().await;
                    assert_eq!(bytes(&path), damaged, "what can be salvaged is left as it is");
                    std::fs::write(&path, before).expect("outbox.db");
                    world.queued.kept().await;
                    heard
                })
            },
        },
        Case {
            name: "recover_finds_damage",
            cause: "`daemon recover` finds a damaged database.",
            code: "outbox_corrupt",
            end: End::Exit(16),
            place: &["damaged: outbox"],
            help: "claudemesh daemon recover --set-aside",
            act: |world| {
                Box::pin(async move {
                    let path = world.queued.alice.file("outbox.db");
                    let before = bytes(&path);
                    damage(&path);
                    let ran = world.queued.run(&["daemon", "recover", "--mesh", "demo"]).await;
                    std::fs::write(&path, before).expect("outbox.db");
                    world.queued.kept().await;
                    Heard::command(&ran)
                })
            },
        },
        Case {
            name: "inbox_damaged",
            cause: "`inbox.db` is damaged; the daemon moved it aside and began a new one.",
            code: "inbox_set_aside",
            end: End::Exit(0),
            place: &["<home>/daemon/demo/inbox.db.corrupt-<ms>"],
            help: "sqlite3 .recover may read it",
            act: |world| {
                Box::pin(async move {
                    let path = world.queued.alice.file("inbox.db");
                    damage(&path);
                    let damaged = bytes(&path);
                    world.queued.alice.start().await;
                    let heard = world.queued.status("inbox_set_aside").await;
                    world.queued.alice.stop().await;
                    let kept = heard.text().split_whitespace().find(|word| word.contains("inbox.db.corrupt-"));
                    let kept = kept.expect("where it is kept").trim_end_matches(':');
                    assert_eq!(bytes(Path::new(kept)), damaged, "kept as it was");
                    world.queued.kept().await;
                    heard
                })
            },
        },
        Case {
            name: "schema_newer",
            cause: "The state directory was written by a newer version.",
            code: "schema_newer",
            end: End::Exit(17),
            place: &["<home>/daemon/demo/schema_version", "999"],
            help: "install the newer claudemesh again",
            act: |world| {
                Box::pin(async move {
                    let path = world.queued.alice.file("schema_version");
                    world.queued.refused_with(&path, "999").await
                })
            },
        },
    ]
}

pub(super) fn rows() -> Vec<Row> {
    cases().iter().map(Case::row).collect()
}

#[tokio::test]
async fn a_state_directory_in_trouble_is_named_and_nothing_in_it_is_lost() {
    let mut world = World::start().await;
    run(&mut world, &cases()).await;
    world.queued.goes_out().await;
}
