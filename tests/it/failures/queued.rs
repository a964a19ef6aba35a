//! A member whose daemon does not run and has one message in its queue. Whatever
//! happens to it then: the message is still there, and goes out at the end.

use std::path::Path;

use super::table::{Heard, bytes};
use crate::support::cli::{self, Ran};
use crate::support::daemon::Daemon;
use crate::support::fake_broker::FakeBroker;
use crate::support::sqlite::Db;

/// The member, its broker, and what must stay as it is.
pub(super) struct Queued {
    pub(super) fake: FakeBroker,
    pub(super) alice: Daemon,
    id: String,
    key: Vec<u8>,
    config: Vec<u8>,
}

impl Queued {
    /// A home, with something done to it before the first start.
    pub(super) async fn with<T>(prepare: impl FnOnce(&Path) -> T) -> (Self, T) {
        let fake = FakeBroker::start().await;
        let mut alice = fake.member("alice");
        let prepared = prepare(alice.home());
        alice.configure("[reconnect]\nmax_backoff_ms = 600\n");
        alice.start().await;
        fake.link(&alice).await.drop_link();
        let id = alice.send("bob", "queued before the trouble").await;
        alice.stop().await;
        let (key, config) = (bytes(&alice.file("keypair.json")), bytes(&alice.home().join("config.json")));
        (Self { fake, alice, id, key, config }, prepared)
    }

    pub(super) async fn start() -> Self {
        Self::with(|_| ()).await.0
    }

    /// A start that is refused, in the foreground.
    pub(super) async fn refused(&mut self) -> Heard {
        let ran = self.run(&["daemon", "up", "--foreground", "--mesh", "demo"]).await;
        for left in ["pid", "http.port"] {
            assert!(!self.alice.file(left).exists(), "{left} after a refused start");
        }
        Heard::command(&ran)
    }

    pub(super) async fn run(&self, arguments: &[&str]) -> Ran {
        cli::run(self.alice.home(), arguments).await
    }

    /// A start in which the daemon ends by itself; its exit code and its words.
    pub(super) fn spawn(&mut self) {
        let _ = std::fs::remove_file(self.alice.output_file());
        let command = self.alice.command();
        self.alice.spawn(command);
    }

    /// The end of [`Self::spawn`].
    pub(super) async fn ended(&mut self) -> Heard {
        let exit = self.alice.ended().await;
        let said = self.alice.output();
        // The line of a start that went well holds the version.
        let words: Vec<&str> = said.lines().filter(|line| !line.starts_with("claudemesh daemon ")).collect();
        Heard::process(exit, &words.join("\n"))
    }

    /// `daemon status` of the running daemon.
    pub(super) async fn status(&self, code: &str) -> Heard {
        Heard::told(&self.run(&["daemon", "status", "--mesh", "demo"]).await, code)
    }

    /// The queued message, the key and the membership are as before.
    pub(super) async fn kept(&self) {
        let db = Db::open(&self.alice.file("outbox.db")).await;
        let count = format!("SELECT count(*) FROM outbox WHERE client_message_id = '{}' AND status != 'dead'", self.id);
        assert_eq!(db.number(&count).await, 1, "the queued message is there");
        db.close().await;
        assert_eq!(bytes(&self.alice.file("keypair.json")), self.key, "the key is as it was");
        assert_eq!(bytes(&self.alice.home().join("config.json")), self.config, "the membership is as it was");
    }

    /// Does something to a file, sees the start refused, puts the file back.
    pub(super) async fn refused_with(&mut self, file: &Path, content: &str) -> Heard {
        let before = std::fs::read(file).ok();
        std::fs::write(file, content).expect("a file");
        let heard = self.refused().await;
        assert_eq!(bytes(file), content.as_bytes(), "what is damaged is left as it is");
        match before {
            Some(before) => std::fs::write(file, before).expect("a file"),
            None => std::fs::remove_file(file).expect("a file"),
        }
        self.kept().await;
        heard
    }

    /// Everything is well again: the daemon starts and the message goes out.
    pub(super) async fn goes_out(&mut self) {
        self.kept().await;
        self.alice.start().await;
        let mut client = self.fake.connect().await;
        let sent = client.expect("send").await;
        assert_eq!(sent["client_message_id"], self.id.as_str());
        client.ack(&sent, "message-1").await;
        self.alice.outbox_status(&self.id, "done").await;
        self.alice.stop().await;
    }
}
