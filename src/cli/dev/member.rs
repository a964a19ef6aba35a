//! One member: its home, its daemon, its way to the broker.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::MESH;
use super::child::{self, Common, LOOK, READY_LIMIT, STOP_LIMIT, late, signal};
use super::relay::{Flow, Relay};
use crate::cli::client::{Client, answer, call_within};
use crate::cli::daemon::up;
use crate::cli::failure::Failure;
use crate::config::paths::{Root, StateDir};
use crate::domain::error_code::ErrorCode;
use crate::membership::config_json::MeshEntry;
use crate::proto::pb::{GetHealthRequest, GetHealthResponse, ListPeersRequest};
use crate::runtime::private_file;

/// How long one question to a daemon may take.
const CALL_LIMIT: Duration = Duration::from_secs(5);

/// Links that are cut and mended come back soon.
const CONFIG: &str = "\
# Written by `claudemesh dev`.
[reconnect]
initial_backoff_ms = 50
max_backoff_ms = 500
";

/// A member of the mesh.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) relay: Relay,
    root: Root,
    pubkey: String,
    member_id: String,
    daemon: Option<Child>,
    is_paused: bool,
}

// === impl Member ===

impl Member {
    /// A member that has joined, and whose daemon was started but may not serve
    /// yet.
    pub(super) fn start(
        name: String,
        relay: Relay,
        root: Root,
        entry: &MeshEntry,
        common: &Common,
    ) -> Result<Self, Failure> {
        let state = root.state_dir(MESH);
        private_file::create_dir(state.path())?;
        private_file::write_atomic(&state.config(), CONFIG.as_bytes(), private_file::PRIVATE)?;
        let daemon = Some(common.daemon(&root)?);
        let (pubkey, member_id) = (entry.pubkey.clone(), entry.member_id.clone());
        Ok(Self { name, relay, root, pubkey, member_id, daemon, is_paused: false })
    }

    /// What a program has to know of it.
    pub(super) fn to_json(&self) -> Result<Value, Failure> {
        let state = self.state();
        let port = private_file::read_optional(&state.http_port())?.unwrap_or_default();
        Ok(json!({
            "name": self.name,
            "home": self.root.path(),
            "sock": state.sock(),
            "address": format!("{}:{}", Ipv4Addr::LOCALHOST, port.trim()),
            "token_file": state.local_token(),
            "pubkey": self.pubkey,
            "member_id": self.member_id,
            "log": state.log(),
            "pid": self.daemon.as_ref().map(Child::id),
        }))
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.state().sock()
    }

    /// Whether others can be asked to see it: its daemon runs and has a way to the
    /// broker.
    pub(super) fn is_reachable(&mut self) -> bool {
        self.is_answering() && self.relay.flow() == Flow::Open
    }

    /// Whether its daemon runs and is not paused.
    pub(super) fn is_answering(&mut self) -> bool {
        self.running().is_ok() && !self.is_paused
    }

    /// Starts the daemon and waits until it serves.
    pub(super) async fn up(&mut self, common: &Common) -> Result<(), Failure> {
        if self.running().is_ok() {
            let what = format!("the daemon of {} runs already", self.name);
            return Err(Failure::new(ErrorCode::AlreadyRunning, what));
        }
        self.is_paused = false;
        self.daemon = Some(common.daemon(&self.root)?);
        self.serves(common).await
    }

    /// Waits until the daemon answers over its socket.
    pub(super) async fn serves(&mut self, common: &Common) -> Result<(), Failure> {
        let socket = self.socket();
        let deadline = common.clock.monotonic() + READY_LIMIT;
        while !up::is_ready(&socket).await {
            self.still_starting()?;
            if common.clock.monotonic() > deadline {
                return Err(late(&format!("the daemon of {} does not answer", self.name), READY_LIMIT));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until the daemon is connected and sees all of these online.
    pub(super) async fn sees(&mut self, names: &[String], common: &Common) -> Result<(), Failure> {
        self.serves(common).await?;
        let client = Client::over_socket(&self.socket()).await.map_err(|error| self.gone(&error))?;
        let deadline = common.clock.monotonic() + READY_LIMIT;
        while !sees(&client, names).await? {
            self.still_starting()?;
            if common.clock.monotonic() > deadline {
                let what = format!("{} does not see {}", self.name, names.join(", "));
                return Err(late(&what, READY_LIMIT));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        child::kill(self.running()?)?;
        self.daemon = None;
        Ok(())
    }

    /// An orderly end.
    pub(super) async fn stop(&mut self, common: &Common) -> Result<(), Failure> {
        let result = common.stop(self.running()?, STOP_LIMIT).await;
        self.daemon = None;
        result.map(drop)
    }

    /// SIGSTOP; the process stands still afterwards.
    pub(super) fn pause(&mut self) -> Result<(), Failure> {
        let daemon = self.running()?;
        signal(daemon, Signal::STOP)?;
        child::wait_until_stopped(daemon)?;
        self.is_paused = true;
        Ok(())
    }

    /// SIGCONT.
    pub(super) fn resume(&mut self) -> Result<(), Failure> {
        signal(self.running()?, Signal::CONT)?;
        self.is_paused = false;
        Ok(())
    }

    /// The daemon's own word about itself.
    pub(super) async fn health(&self) -> Result<GetHealthResponse, Failure> {
        let client = Client::over_socket(&self.socket()).await.map_err(|error| self.gone(&error))?;
        answer(client.control().get_health(call_within(CALL_LIMIT, GetHealthRequest {})).await)
    }

    /// The daemon's process, to be ended with the mesh.
    pub(super) fn into_daemon(self) -> Option<Child> {
        self.daemon
    }

    fn state(&self) -> StateDir {
        self.root.state_dir(MESH)
    }

    /// The daemon's process, which has not ended of itself either.
    fn running(&mut self) -> Result<&mut Child, Failure> {
        let has_ended = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if self.daemon.as_mut().is_some_and(has_ended) {
            self.daemon = None;
        }
        let name = &self.name;
        self.daemon
            .as_mut()
            .ok_or_else(|| Failure::new(ErrorCode::DaemonNotRunning, format!("the daemon of {name} does not run")))
    }

    /// Fails with the daemon's own words when it has ended.
    fn still_starting(&mut self) -> Result<(), Failure> {
        let state = self.state();
        let (printed, log) = (state.path().join("stderr.log"), state.log().display().to_string());
        let who = format!("the daemon of {}", self.name);
        let ended = self.daemon.as_mut().and_then(|child| up::ended(child, &who, &log, &printed).transpose());
        match ended {
            None => Ok(()),
            Some(failure) => {
                self.daemon = None;
                Err(failure?)
            }
        }
    }

    fn gone(&self, error: &std::io::Error) -> Failure {
        Failure::new(ErrorCode::DaemonNotRunning, format!("the daemon of {} does not answer: {error}", self.name))
    }
}

/// Whether a daemon is connected and sees all of these online.
async fn sees(client: &Client, names: &[String]) -> Result<bool, Failure> {
    let health = answer(client.control().get_health(call_within(CALL_LIMIT, GetHealthRequest {})).await)?;
    if !health.connected {
        return Ok(false);
    }
    let request = ListPeersRequest { limit: 1000, ..ListPeersRequest::default() };
    let peers = answer(client.peers().list_peers(call_within(CALL_LIMIT, request)).await)?.peers;
    let is_online = |name: &String| peers.iter().any(|peer| peer.display_name == *name && peer.online == Some(true));
    Ok(names.iter().all(is_online))
}
