//! The real broker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use super::http::Target;
use super::postgres::{Backend, Database};
use super::process::{self, Process};
use super::sqlite::Db;
use super::wait;

/// A broker of its own directory, killed when dropped.
pub(crate) struct Broker {
    // Before its directory: a failure shows the log.
    process: Option<Process>,
    root: tempfile::TempDir,
    address: SocketAddr,
    settings: Vec<(String, String)>,
    /// After the process, which is connected to it.
    postgres: Option<Arc<Database>>,
}

impl Broker {
    /// Starts one with the default settings.
    pub(crate) async fn start() -> Self {
        Self::on(Backend::Sqlite).await
    }

    /// Starts one over that kind of database.
    pub(crate) async fn on(backend: Backend) -> Self {
        Self::with(backend, &[]).await
    }

    /// Starts one with settings, such as `("member_rate_per_s", "5")`.
    pub(crate) async fn with(backend: Backend, settings: &[(&str, &str)]) -> Self {
        let mut broker = Self::idle(backend.database().map(Arc::new));
        broker.settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        broker.run().await;
        broker
    }

    /// Starts one with this `broker.toml`.
    pub(crate) async fn configured(backend: Backend, toml: &str) -> Self {
        Self::beside(backend.database().map(Arc::new), toml).await
    }

    /// Starts another one over the same PostgreSQL database.
    pub(crate) async fn second_node(&self, toml: &str) -> Self {
        assert!(self.postgres.is_some(), "only PostgreSQL serves two brokers");
        Self::beside(self.postgres.clone(), toml).await
    }

    /// One that does not run yet, over a SQLite file, with its directory made.
    pub(crate) fn unstarted() -> Self {
        let broker = Self::idle(None);
        broker.configure("");
        broker
    }

    /// Starts one over a SQLite file that these statements make.
    pub(crate) async fn over_file(sql: &str) -> Self {
        let mut broker = Self::unstarted();
        Db::make(&broker.database(), sql).await;
        broker.run().await;
        broker
    }

    /// Starts one over a PostgreSQL database that these statements fill.
    pub(crate) async fn over_server(sql: &str) -> Self {
        let database = Backend::Postgres.database().expect("a database");
        database.psql(sql);
        Self::beside(Some(Arc::new(database)), "").await
    }

    async fn beside(postgres: Option<Arc<Database>>, toml: &str) -> Self {
        let mut broker = Self::idle(postgres);
        broker.configure(toml);
        broker.run().await;
        broker
    }

    fn idle(postgres: Option<Arc<Database>>) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { root: process::directory(), process: None, address, settings: Vec::new(), postgres }
    }

    /// Writes `broker.toml`, which the next start reads.
    pub(crate) fn configure(&self, toml: &str) {
        std::fs::create_dir_all(self.dir()).expect("the broker's directory");
        std::fs::write(self.dir().join("broker.toml"), toml).expect("broker.toml");
    }

    /// Starts the process on the address of the run before (any port the first
    /// time) and waits until it is ready.
    async fn run(&mut self) {
        // A killed broker leaves its file behind.
        let _ = std::fs::remove_file(self.dir().join("addr"));
        let mut command = process::command(self.root.path());
        command.args(["broker", "serve", "--listen", &self.address.to_string(), "--dir"]).arg(self.dir());
        if let Some(url) = self.database_url() {
            command.env("CLAUDEMESH_BROKER_DATABASE_URL", url);
        }
        for (key, value) in &self.settings {
            command.env(format!("CLAUDEMESH_BROKER_{}", key.to_ascii_uppercase()), value);
        }
        let mut started = Process::spawn("broker", command, &self.output_file(), Vec::new());
        self.address = wait::until("the broker's address", async || {
            started.assert_running();
            std::fs::read_to_string(self.dir().join("addr")).ok()?.trim().parse().ok()
        })
        .await;
        let ready = self.http().get("/readyz");
        wait::until("the broker to be ready", async || {
            started.assert_running();
            ready.try_send().await.ok().filter(|response| response.status == 200)
        })
        .await;
        self.process = Some(started);
    }

    /// The running process.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the broker runs")
    }

    /// SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.process().kill9();
        self.process = None;
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the broker runs");
        process.terminate();
        process.wait().await
    }

    /// Starts again on the same port after [`Self::kill9`] or [`Self::stop`]; the
    /// first time after [`Self::unstarted`].
    pub(crate) async fn restart(&mut self) {
        assert!(self.process.is_none(), "the broker still runs");
        self.run().await;
    }

    /// SIGKILL, and a new process over the same database. Every connection is
    /// gone then.
    pub(crate) async fn crash(&mut self) {
        self.kill9();
        self.restart().await;
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root.path().join("broker")
    }

    /// Its database file.
    pub(crate) fn database(&self) -> PathBuf {
        assert!(self.postgres.is_none(), "its tables are in PostgreSQL");
        self.dir().join("broker.db")
    }

    /// Where its tables are, if not in a file.
    pub(crate) fn database_url(&self) -> Option<String> {
        self.postgres.as_ref().map(|database| database.url())
    }

    /// Its tables, seen from beside.
    pub(crate) async fn tables(&self) -> Db {
        match self.database_url() {
            Some(url) => Db::connect(&url).await,
            None => Db::open(&self.database()).await,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL that members connect to.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Its HTTP side.
    pub(crate) fn http(&self) -> Target {
        Target::tcp(self.address)
    }

    /// The value of a metric, with its labels if it has some; `None` while it is not there.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.http().get("/metrics").send().await.expect(200).text();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is {value}")))
    }

    /// The file with the token that creates meshes.
    pub(crate) fn admin_token_file(&self) -> PathBuf {
        self.dir().join("admin_token")
    }

    /// The token that creates meshes.
    pub(crate) fn admin_token(&self) -> String {
        read_trimmed(&self.admin_token_file())
    }

    /// Everything it wrote on stdout and stderr.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.output_file()).unwrap_or_default()
    }

    fn output_file(&self) -> PathBuf {
        self.root.path().join("broker.out")
    }
}

/// A small file without its line end.
pub(crate) fn read_trimmed(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}
