//! PostgreSQL: a prepared INSERT of one row, committed before the answer, driven
//! by its own load generator over its Unix socket.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::load::{Sample, payload};
use crate::processes::{Server, which};

/// A running server.
pub struct Postgres {
    _server: Server,
    folder: PathBuf,
    user: Option<u32>,
}

// === impl Postgres ===

impl Postgres {
    /// Starts one; `None` without the program.
    pub async fn start(folder: &Path) -> Result<Option<Self>> {
        let (Some(initdb), Some(postgres), Some(_)) = (which("initdb"), which("postgres"), which("pgbench")) else {
            return Ok(None);
        };
        let folder = folder.join("postgres");
        std::fs::create_dir_all(&folder)?;
        // The server refuses to run as root.
        let user = if rustix::process::geteuid().is_root() { Some(user_id("postgres")?) } else { None };
        if let Some(user) = user {
            chown(&folder, Some(user), None)?;
        }
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
        let data = folder.join("data");
        let mut make = as_user(&initdb, user);
        make.args(["-A", "trust", "-U", "postgres", "-D"]).arg(&data).current_dir("/");
        let made = make.output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut command = as_user(&postgres, user);
        command.arg("-D").arg(&data).args(["-c", "listen_addresses=", "-c", "synchronous_commit=on", "-c"]);
        command.arg(format!("unix_socket_directories={}", folder.display())).current_dir("/");
        let out = folder.parent().unwrap_or(&folder).to_owned();
        let mut server = Server::start("postgres", command, &out)?;
        server.until("a connection", async || psql(&folder, user, "SELECT 1").ok()).await?;
        psql(
            &folder,
            user,
            "CREATE TABLE outbox (seq bigserial PRIMARY KEY, at timestamptz DEFAULT now(), payload bytea NOT NULL)",
        )?;
        Ok(Some(Self { _server: server, folder, user }))
    }

    /// Makes a database; gives its URL.
    pub fn database(&self, name: &str) -> Result<String> {
        psql(&self.folder, self.user, &format!("CREATE DATABASE {name}"))?;
        Ok(format!("postgres://postgres@localhost/{name}?host={}", self.folder.display()))
    }

    /// Inserts by that many clients.
    pub fn insert(&self, clients: usize, time: Duration) -> Result<Sample> {
        let script = self.folder.join("insert.sql");
        std::fs::write(&script, format!("INSERT INTO outbox (payload) VALUES ('{}');\n", payload()))?;
        let seconds = time.as_secs_f64().ceil().max(2.0).to_string();
        let (clients, threads) = (clients.to_string(), clients.min(2).to_string());
        let mut command = as_user(&which("pgbench").context("pgbench")?, self.user);
        command.args(["-n", "-U", "postgres", "-M", "prepared", "-c", &clients, "-j", &threads, "-T", &seconds]);
        command.arg("-h").arg(&self.folder).arg("-f").arg(&script).arg("postgres").current_dir("/");
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok());
        let said = String::from_utf8_lossy(&output.stderr);
        Ok(Sample::rate(rate.with_context(|| format!("pgbench: {text}{said}"))?))
    }
}

fn psql(folder: &Path, user: Option<u32>, sql: &str) -> Result<()> {
    let mut command = as_user(&which("psql").context("psql")?, user);
    command.arg("-h").arg(folder).args(["-U", "postgres", "-c", sql]).current_dir("/");
    let output = command.output()?;
    ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn as_user(program: &Path, user: Option<u32>) -> Command {
    let mut command = Command::new(program);
    if let Some(user) = user {
        std::os::unix::process::CommandExt::uid(&mut command, user);
    }
    command
}

fn user_id(name: &str) -> Result<u32> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name));
    let id = line.and_then(|line| line.split(':').nth(2)).and_then(|id| id.parse().ok());
    id.with_context(|| format!("there is no user {name}"))
}
