//! The subject: a broker and daemons, as a user starts them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use claudemesh::proto::pb::control_service_client::ControlServiceClient;
use claudemesh::proto::pb::event_service_client::EventServiceClient;
use claudemesh::proto::pb::messaging_service_client::MessagingServiceClient;
use claudemesh::proto::pb::peer_service_client::PeerServiceClient;
use claudemesh::proto::pb::{GetHealthRequest, ListPeersRequest};
use tonic::transport::{Channel, Endpoint};

use crate::processes::Server;

/// The mesh of every run.
pub const MESH: &str = "bench";

/// A broker in a directory of its own.
#[derive(Debug)]
pub struct Broker {
    server: Option<Server>,
    root: PathBuf,
    binary: PathBuf,
    /// The PostgreSQL database; a file of its own without.
    database: Option<String>,
    /// Where it listens.
    pub address: String,
}

/// A member with its directory; the daemon runs or not.
#[derive(Debug)]
pub struct Member {
    server: Option<Server>,
    binary: PathBuf,
    /// `CLAUDEMESH_HOME`.
    pub home: PathBuf,
}

// === impl Broker ===

impl Broker {
    /// Starts one below `folder`.
    pub async fn start(binary: &Path, folder: &Path) -> Result<Self> {
        Self::with_mesh(binary, folder, None).await
    }

    /// The same over a PostgreSQL database.
    pub async fn over(binary: &Path, folder: &Path, database: &str) -> Result<Self> {
        Self::with_mesh(binary, folder, Some(database.to_owned())).await
    }

    /// Another one over the same database.
    pub async fn another(&self, folder: &Path) -> Result<Self> {
        Self::alone(&self.binary, folder, self.database.clone()).await
    }

    async fn alone(binary: &Path, folder: &Path, database: Option<String>) -> Result<Self> {
        let mut broker = Self {
            server: None,
            root: folder.join("broker-home"),
            binary: binary.to_owned(),
            database,
            address: "127.0.0.1:0".to_owned(),
        };
        std::fs::create_dir_all(&broker.root)?;
        broker.run().await?;
        Ok(broker)
    }

    async fn with_mesh(binary: &Path, folder: &Path, database: Option<String>) -> Result<Self> {
        let broker = Self::alone(binary, folder, database).await?;
        broker.cli(&["mesh", "create", MESH, "--broker", &broker.url(), "--display-name", "owner"])?;
        Ok(broker)
    }

    /// Starts it again on its port.
    pub async fn run(&mut self) -> Result<()> {
        let file = self.dir().join("addr");
        // A broker that was killed leaves it behind.
        let _ = std::fs::remove_file(&file);
        let mut command = command(&self.binary, &self.root);
        command.args(["broker", "serve", "--listen", &self.address, "--dir"]).arg(self.dir());
        if let Some(database) = &self.database {
            command.env("CLAUDEMESH_BROKER_DATABASE_URL", database);
        }
        let mut server = Server::start("broker", command, &self.root)?;
        self.address = server
            .until("its address", async || {
                let text = std::fs::read_to_string(&file).ok()?.trim().to_owned();
                tokio::net::TcpStream::connect(&text).await.is_ok().then_some(text)
            })
            .await?;
        self.server = Some(server);
        Ok(())
    }

    /// Stops it.
    pub fn stop(&mut self) -> Result<()> {
        self.server.take().map_or(Ok(()), Server::stop)
    }

    /// What it holds of the machine's memory, in MB.
    pub fn memory_mb(&self) -> Result<f64> {
        self.server.as_ref().context("the broker runs")?.memory_mb()
    }

    /// The URL that members connect to.
    pub fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Its directory.
    pub fn dir(&self) -> PathBuf {
        self.root.join("broker")
    }

    /// An invite for that many members.
    pub fn invite(&self, uses: u32) -> Result<String> {
        let printed = self.cli(&["mesh", "invite", MESH, "--uses", &uses.to_string()])?;
        let link = printed.split_whitespace().find(|word| word.starts_with("ic://"));
        Ok(link.with_context(|| format!("no link in {printed:?}"))?.to_owned())
    }

    fn cli(&self, arguments: &[&str]) -> Result<String> {
        run(&self.binary, &self.root, arguments)
    }
}

// === impl Member ===

impl Member {
    /// Joins by a link.
    pub fn join(binary: &Path, folder: &Path, link: &str, name: &str) -> Result<Self> {
        let member = Self::at(binary, folder, name)?;
        run(binary, &member.home, &["join", link, "--display-name", name])?;
        Ok(member)
    }

    /// A member whose directory exists already.
    pub fn at(binary: &Path, folder: &Path, name: &str) -> Result<Self> {
        let home = folder.join(name);
        std::fs::create_dir_all(&home)?;
        Ok(Self { server: None, binary: binary.to_owned(), home })
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        let mut command = command(&self.binary, &self.home);
        command.args(["daemon", "up", "--foreground", "--mesh", MESH]);
        let mut server = Server::start("daemon", command, &self.home)?;
        let socket = self.socket();
        server.until("an answer", async || health(&socket).await).await?;
        self.server = Some(server);
        Ok(())
    }

    /// Waits until the link is up and the member of that name is known.
    pub async fn connected_with(&mut self, name: &str) -> Result<()> {
        let mut peers = PeerServiceClient::new(self.channel().await?);
        let server = self.server.as_mut().context("the daemon runs")?;
        server
            .until("its peer", async || {
                let request = ListPeersRequest { include_offline: true, limit: 1000, ..ListPeersRequest::default() };
                let listed = peers.list_peers(request).await.ok()?.into_inner();
                listed.peers.iter().any(|peer| peer.display_name == name).then_some(())
            })
            .await
    }

    /// Connects to another broker of the same database from the next start on.
    pub fn move_to(&self, from: &Broker, to: &Broker) -> Result<()> {
        let path = self.home.join("config.json");
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains(&from.address), "{} names another broker", path.display());
        Ok(std::fs::write(&path, text.replace(&from.address, &to.address))?)
    }

    /// Stops the daemon.
    pub fn stop(&mut self) -> Result<()> {
        self.server.take().map_or(Ok(()), Server::stop)
    }

    /// What the daemon holds of the machine's memory, in MB.
    pub fn memory_mb(&self) -> Result<f64> {
        self.server.as_ref().context("the daemon runs")?.memory_mb()
    }

    /// The program.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The state directory.
    pub fn dir(&self) -> PathBuf {
        self.home.join("daemon").join(MESH)
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("sock")
    }

    /// The command line as this member.
    pub fn command(&self) -> Command {
        command(&self.binary, &self.home)
    }

    /// A gRPC connection of its own.
    pub async fn channel(&self) -> Result<Channel> {
        channel(&self.socket()).await
    }

    /// Sends.
    pub async fn messaging(&self) -> Result<MessagingServiceClient<Channel>> {
        Ok(MessagingServiceClient::new(self.channel().await?))
    }

    /// Follows.
    pub async fn events(&self) -> Result<EventServiceClient<Channel>> {
        Ok(EventServiceClient::new(self.channel().await?))
    }
}

/// A connection to a daemon's socket, with the windows that the SDKs use.
pub async fn channel(socket: &Path) -> Result<Channel> {
    let endpoint = Endpoint::try_from(format!("unix://{}", socket.display()))?
        .initial_connection_window_size(64 << 20)
        .initial_stream_window_size(1 << 20)
        .connect_timeout(Duration::from_secs(5));
    Ok(endpoint.connect().await?)
}

/// Whether the daemon answers.
pub async fn health(socket: &Path) -> Option<()> {
    let channel = channel(socket).await.ok()?;
    ControlServiceClient::new(channel).get_health(GetHealthRequest::default()).await.ok().map(drop)
}

/// Two members who know each other. The broker runs.
pub async fn pair(binary: &Path, folder: &Path) -> Result<(Broker, Member, Member)> {
    let broker = Broker::start(binary, folder).await?;
    let link = broker.invite(2)?;
    let mut alice = Member::join(binary, folder, &link, "alice")?;
    let mut bob = Member::join(binary, folder, &link, "bob")?;
    bob.start().await?;
    alice.start().await?;
    alice.connected_with("bob").await?;
    bob.connected_with("alice").await?;
    Ok((broker, alice, bob))
}

/// The binary with nothing of the caller's environment but `PATH`.
fn command(binary: &Path, home: &Path) -> Command {
    #[expect(clippy::disallowed_methods, reason = "children need a PATH; it is no setting of claudemesh")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new(binary);
    command.env_clear().env("PATH", path).env("HOME", home).env("CLAUDEMESH_HOME", home).current_dir(home);
    command
}

fn run(binary: &Path, home: &Path, arguments: &[&str]) -> Result<String> {
    let output = command(binary, home).args(arguments).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "claudemesh {} ended with {}: {said}", arguments.join(" "), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
