//! A PostgreSQL server of the tests' own: one cluster for the test binary, a
//! database for each test.
//!
//! The server refuses to run as root, so a test that runs as root starts it as
//! `nobody`. A small shell stands between: it waits for the end of the test
//! process on a pipe, then stops the server and removes its directory. Nothing
//! is left behind even when the test process is killed.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::tools;

/// The user and the group that nobody has files of.
const NOBODY: (u32, u32) = (65_534, 65_534);
/// How long the server may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What the shell between runs.
const SUPERVISE: &str = r#"
trap '' INT TERM HUP
"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c max_connections=500 -c shared_buffers=64MB \
  -c autovacuum=off -c max_wal_size=256MB -c log_min_messages=warning -c deadlock_timeout=200ms \
  >>"$2/server.log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -INT $server
wait $server
rm -rf "$2"
"#;

/// Where a test keeps the broker's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// The running server.
struct Cluster {
    programs: PathBuf,
    dir: PathBuf,
    /// Holds the pipe that the shell reads; closed when this process ends.
    _shell: Child,
}

/// A database of one test; gone when dropped.
pub(crate) struct Database {
    name: String,
}

// === impl Backend ===

impl Backend {
    /// False (with a word about it) when the server is not installed and may be
    /// missing.
    pub(crate) fn is_there(self) -> bool {
        self == Self::Sqlite || programs().is_some()
    }

    /// A fresh database on the server; `None` for SQLite, which is a file.
    pub(crate) fn database(self) -> Option<Database> {
        (self == Self::Postgres).then(Database::create)
    }
}

/// Makes two tests of each function that takes a [`Backend`].
macro_rules! on_both_databases {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            use super::Backend;
            $(#[tokio::test]
            async fn $name() {
                super::$name(Backend::Sqlite).await;
            })*
        }
        mod postgres {
            use super::Backend;
            $(#[tokio::test]
            async fn $name() {
                if Backend::Postgres.is_there() {
                    super::$name(Backend::Postgres).await;
                }
            })*
        }
    };
}
pub(crate) use on_both_databases;

// === impl Database ===

impl Database {
    fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        cluster().run("postgres", &format!("CREATE DATABASE {name}"));
        Self { name }
    }

    /// For the broker and for looks from beside.
    pub(crate) fn url(&self) -> String {
        format!("postgres://cm@localhost/{}?host={}", self.name, cluster().dir.display())
    }

    /// Runs statements through `psql`; what they print.
    pub(crate) fn psql(&self, sql: &str) -> String {
        cluster().run(&self.name, sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A test that fails keeps its own message.
        if !std::thread::panicking() {
            cluster().run("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

// === impl Cluster ===

impl Cluster {
    fn start() -> Self {
        let programs = programs().expect("PostgreSQL is installed");
        // Memory, so that the syncs of many tests do not wait for one disk.
        let shm = Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm } else { Path::new("/tmp") };
        let dir = tempfile::Builder::new().prefix("cmpg").tempdir_in(parent).expect("a directory").keep();
        let as_server = |program: &Path| {
            let mut command = Command::new(program);
            command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir(&dir).stdin(Stdio::null());
            if rustix::process::geteuid().is_root() {
                command.uid(NOBODY.0).gid(NOBODY.1);
            }
            command
        };
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&dir, Some(NOBODY.0), Some(NOBODY.1)).expect("the directory changes hands");
        }
        let made = as_server(&programs.join("initdb"))
            .args(["--username=cm", "--auth=trust", "--encoding=UTF8", "--no-sync", "--locale=C"])
            // Texts sort as people expect, not by their bytes: what relies on
            // the order of ids must not rely on the bytes of others.
            .args(["--locale-provider=icu", "--icu-locale=en-US", "-D"])
            .arg(dir.join("data"))
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let shell = as_server(Path::new("/bin/sh"))
            .args(["-c", SUPERVISE, "postgres-of-the-tests"])
            .arg(&programs)
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the shell runs");
        let cluster = Self { programs, dir, _shell: shell };
        let end = Instant::now() + START_LIMIT;
        while !cluster.psql("postgres", "SELECT 1").status.success() {
            let log = std::fs::read_to_string(cluster.dir.join("server.log")).unwrap_or_default();
            assert!(Instant::now() < end, "PostgreSQL does not start: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    fn psql(&self, database: &str, sql: &str) -> std::process::Output {
        Command::new(self.programs.join("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", "cm", "-d", database, "-c", sql, "-h"])
            .arg(&self.dir)
            .env_remove("PGHOST")
            .stdin(Stdio::null())
            .output()
            .expect("psql runs")
    }

    fn run(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, sql);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

/// The directory with `initdb` and `postgres`, the newest there is.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin/initdb")).collect())
        .unwrap_or_default();
    let number = |path: &PathBuf| -> u32 {
        let version = path.ancestors().nth(2).and_then(|dir| dir.file_name());
        version.and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).unwrap_or(0)
    };
    versions.sort_by_key(|path| std::cmp::Reverse(number(path)));
    let initdb = tools::system_or("initdb", versions)?;
    initdb.canonicalize().ok()?.parent().map(Path::to_owned)
}
