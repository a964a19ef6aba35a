//! Settings of a broker: `broker.toml` in its directory, `CLAUDEMESH_BROKER_*`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use super::source::{Source, read_toml};
use crate::domain::nearest::nearest;

/// The shortest time, in days, for which ids are remembered. Daemons drop a
/// waiting send well before this is over.
pub const MIN_DEDUPE_RETENTION_DAYS: u32 = 7;

/// Everything a broker needs to know at start.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The broker's directory: database, admin token, lock.
    pub dir: PathBuf,
    /// Where to listen. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where the tables are.
    pub database: Database,
    /// How many days an id of an accepted message stays taken.
    pub dedupe_retention_days: u32,
    /// Sends per second of one member, over all its connections; 0 is no limit.
    pub member_rate_per_s: u32,
    /// Open connections of one mesh.
    pub connections_per_mesh: u32,
    /// Waiting times; other than the defaults in tests only.
    pub timers: Timers,
}

/// Where the broker's tables are.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL URL, which may hold a password.
    Postgres(String),
}

/// Waiting times. They are part of the protocol's behaviour; `[timers]` in
/// `broker.toml` (milliseconds) exists so that tests need not wait for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timers {
    /// How long a connection has to send its hello.
    pub hello: Duration,
    /// Between two WebSocket pings.
    pub ping: Duration,
    /// Silence after which a connection is cut.
    pub silence: Duration,
    /// How long a lost connection is shown as present.
    pub grace: Duration,
    /// How long a pushed message may stay unacknowledged before the next push.
    pub lease: Duration,
    /// Between two searches for messages that nobody was woken for.
    pub scan: Duration,
    /// How long an older connection has to answer when a second one comes.
    pub probe: Duration,
    /// How long a client that negotiates may take until it is served as one
    /// that does not.
    pub negotiation: Duration,
    /// How long an undelivered message is kept.
    pub undelivered: Duration,
    /// How long a delivered message is kept.
    pub delivered: Duration,
    /// Between two sweeps of expired rows.
    pub sweep: Duration,
    /// Between two searches for rows that should not be.
    pub check: Duration,
}

/// A hundred years.
const MAX_DEDUPE_RETENTION_DAYS: u32 = 36_500;
const MAX_RATE: u32 = 100_000;
const MAX_CONNECTIONS: u32 = 1_000_000;
/// Longest of the waiting times, in milliseconds: ten years.
const MAX_TIMER_MS: u64 = 315_360_000_000;

/// The file's keys. All are optional.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<String>,
    database_url: Option<String>,
    dedupe_retention_days: Option<u32>,
    member_rate_per_s: Option<u32>,
    connections_per_mesh: Option<u32>,
    #[serde(default)]
    timers: TimersFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimersFile {
    hello_ms: Option<u64>,
    ping_ms: Option<u64>,
    silence_ms: Option<u64>,
    grace_ms: Option<u64>,
    lease_ms: Option<u64>,
    scan_ms: Option<u64>,
    probe_ms: Option<u64>,
    negotiation_ms: Option<u64>,
    undelivered_ms: Option<u64>,
    delivered_ms: Option<u64>,
    sweep_ms: Option<u64>,
    check_ms: Option<u64>,
}

// === impl Timers ===

impl Default for Timers {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            hello: Duration::from_secs(10),
            ping: Duration::from_secs(30),
            silence: Duration::from_secs(75),
            grace: Duration::from_secs(90),
            lease: Duration::from_secs(30),
            scan: Duration::from_secs(5),
            probe: Duration::from_secs(2),
            negotiation: Duration::from_secs(5),
            undelivered: 30 * DAY,
            delivered: 7 * DAY,
            sweep: Duration::from_secs(600),
            check: DAY,
        }
    }
}

impl Timers {
    fn from_file(file: &TimersFile) -> Self {
        let default = Self::default();
        let pick = |ms: Option<u64>, default| ms.map_or(default, |ms| Duration::from_millis(ms.clamp(1, MAX_TIMER_MS)));
        Self {
            hello: pick(file.hello_ms, default.hello),
            ping: pick(file.ping_ms, default.ping),
            silence: pick(file.silence_ms, default.silence),
            grace: pick(file.grace_ms, default.grace),
            lease: pick(file.lease_ms, default.lease),
            scan: pick(file.scan_ms, default.scan),
            probe: pick(file.probe_ms, default.probe),
            negotiation: pick(file.negotiation_ms, default.negotiation),
            undelivered: pick(file.undelivered_ms, default.undelivered),
            delivered: pick(file.delivered_ms, default.delivered),
            sweep: pick(file.sweep_ms, default.sweep),
            check: pick(file.check_ms, default.check),
        }
    }
}

// === impl Database ===

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "Sqlite({})", path.display()),
            Self::Postgres(_) => f.write_str("Postgres([redacted])"),
        }
    }
}

// === impl BrokerConfig ===

impl BrokerConfig {
    /// The defaults for a broker in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7900)),
            database: Database::Sqlite(dir.join("broker.db")),
            dedupe_retention_days: 365,
            member_rate_per_s: 0,
            connections_per_mesh: 20_000,
            timers: Timers::default(),
        }
    }

    /// Reads `broker.toml` in `dir` (it may be absent), then the environment,
    /// then the command line's `listen`.
    pub fn load(dir: &Path, listen: Option<&str>, env: &dyn Source) -> Result<Self, ConfigError> {
        let mut config = Self::new(dir);
        let path = dir.join("broker.toml");
        let file: File = read_toml(&path)?;
        config.timers = Timers::from_file(&file.timers);
        config.apply(&FILE_KEYS, file).map_err(|error| match error {
            ConfigError::Value { key, value, reason } => {
                ConfigError::Value { key, value, reason: format!("{reason} (in {})", path.display()) }
            }
            other => other,
        })?;
        check_names(env)?;
        config.apply(&ENV_KEYS, from_env(env)?)?;
        config.apply(&FLAG_KEYS, File { listen: listen.map(str::to_owned), ..File::default() })?;
        if matches!(config.database, Database::Postgres(_)) {
            check_postgres(env)?;
        }
        Ok(config)
    }

    fn apply(&mut self, keys: &Keys, file: File) -> Result<(), ConfigError> {
        if let Some(listen) = file.listen {
            self.listen = listen.parse().map_err(|_| {
                wrong(keys.listen, &listen, "an address and port such as 127.0.0.1:7900 or [::]:7900 is needed")
            })?;
        }
        if let Some(url) = file.database_url {
            self.database = database(&url).ok_or_else(|| {
                // A URL may hold a password: only its scheme is shown, if it has one.
                let scheme = url.split_once("://").map_or("(not shown)", |(scheme, _)| scheme);
                wrong(keys.database_url, scheme, "use sqlite:<absolute path> or postgres://user@host/database")
            })?;
        }
        if let Some(days) = file.dedupe_retention_days {
            self.dedupe_retention_days =
                within(keys.dedupe_retention_days, days, MIN_DEDUPE_RETENTION_DAYS, MAX_DEDUPE_RETENTION_DAYS)?;
        }
        if let Some(rate) = file.member_rate_per_s {
            self.member_rate_per_s = within(keys.member_rate_per_s, rate, 0, MAX_RATE)?;
        }
        if let Some(connections) = file.connections_per_mesh {
            self.connections_per_mesh = within(keys.connections_per_mesh, connections, 1, MAX_CONNECTIONS)?;
        }
        Ok(())
    }
}

/// What the keys are called where they were given, for errors.
struct Keys {
    listen: &'static str,
    database_url: &'static str,
    dedupe_retention_days: &'static str,
    member_rate_per_s: &'static str,
    connections_per_mesh: &'static str,
}

// === impl Keys ===

impl Keys {
    fn all(&self) -> [&'static str; 5] {
        let Self { listen, database_url, dedupe_retention_days, member_rate_per_s, connections_per_mesh } = self;
        [listen, database_url, dedupe_retention_days, member_rate_per_s, connections_per_mesh]
    }
}

const FILE_KEYS: Keys = Keys {
    listen: "listen",
    database_url: "database_url",
    dedupe_retention_days: "dedupe_retention_days",
    member_rate_per_s: "member_rate_per_s",
    connections_per_mesh: "connections_per_mesh",
};

const ENV_KEYS: Keys = Keys {
    listen: "CLAUDEMESH_BROKER_LISTEN",
    database_url: "CLAUDEMESH_BROKER_DATABASE_URL",
    dedupe_retention_days: "CLAUDEMESH_BROKER_DEDUPE_RETENTION_DAYS",
    member_rate_per_s: "CLAUDEMESH_BROKER_MEMBER_RATE_PER_S",
    connections_per_mesh: "CLAUDEMESH_BROKER_CONNECTIONS_PER_MESH",
};

const ENV_PREFIX: &str = "CLAUDEMESH_BROKER_";

const FLAG_KEYS: Keys = Keys { listen: "--listen", ..FILE_KEYS };

fn from_env(env: &dyn Source) -> Result<File, ConfigError> {
    let number = |key: &'static str| match env.var(key) {
        Some(text) => text.trim().parse::<u32>().map(Some).map_err(|_| wrong(key, text, "a whole number is needed")),
        None => Ok(None),
    };
    Ok(File {
        listen: env.var(ENV_KEYS.listen),
        database_url: env.var(ENV_KEYS.database_url),
        dedupe_retention_days: number(ENV_KEYS.dedupe_retention_days)?,
        member_rate_per_s: number(ENV_KEYS.member_rate_per_s)?,
        connections_per_mesh: number(ENV_KEYS.connections_per_mesh)?,
        timers: TimersFile::default(),
    })
}

fn within(key: &'static str, value: u32, low: u32, high: u32) -> Result<u32, ConfigError> {
    if (low..=high).contains(&value) {
        Ok(value)
    } else {
        Err(wrong(key, value, &format!("{low} to {high} is allowed")))
    }
}

/// What the environment says of PostgreSQL where the URL says nothing. The library takes
/// a wrong value for an absent one, and so might connect without protection.
fn check_postgres(env: &dyn Source) -> Result<(), ConfigError> {
    const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
    let wrong =
        |name: &str, value: String, reason: String| Err(ConfigError::Variable { name: name.to_owned(), value, reason });
    match (env.var("PGPORT"), env.var("PGSSLMODE")) {
        (Some(port), _) if port.parse::<u16>().is_err() => wrong("PGPORT", port, "a port is needed".to_owned()),
        (_, Some(mode)) if !MODES.contains(&mode.as_str()) => {
            wrong("PGSSLMODE", mode, format!("use one of {}", MODES.join(", ")))
        }
        _ => Ok(()),
    }
}

/// A variable of the broker that means nothing is a typing error.
fn check_names(env: &dyn Source) -> Result<(), ConfigError> {
    let known = ENV_KEYS.all();
    match env.names(ENV_PREFIX).into_iter().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let near = nearest(&name, known).first().map_or_else(String::new, |near| format!("; did you mean {near}?"));
            let value = "(not shown)".to_owned();
            Err(ConfigError::Variable { name, value, reason: format!("no setting of the broker has this name{near}") })
        }
    }
}

fn wrong(key: &'static str, value: impl ToString, reason: &str) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), reason: reason.to_owned() }
}

fn database(url: &str) -> Option<Database> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        return path.is_absolute().then(|| Database::Sqlite(path.to_owned()));
    }
    let postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
    postgres.then(|| Database::Postgres(url.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::source::MapSource;
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> MapSource {
        MapSource(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn layers_override_each_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let toml = "listen = '127.0.0.1:1'\ndedupe_retention_days = 30\n[timers]\nlease_ms = 50\n";
        fs::write(dir.path().join("broker.toml"), toml).expect("written");
        let config = BrokerConfig::load(dir.path(), None, &env(&[("CLAUDEMESH_BROKER_LISTEN", "127.0.0.1:2")]));
        let config = config.expect("loads");
        assert_eq!((config.listen.port(), config.dedupe_retention_days), (2, 30));
        assert_eq!(config.timers.lease, Duration::from_millis(50));
        assert_eq!(config.timers.grace, Duration::from_secs(90));
        assert_eq!(config.database, Database::Sqlite(dir.path().join("broker.db")));
        let config = BrokerConfig::load(dir.path(), Some("[::1]:3"), &env(&[])).expect("loads");
        assert_eq!(config.listen.port(), 3);
    }

    #[test]
    fn errors_name_the_origin_and_never_a_password() {
        let dir = tempfile::tempdir().expect("a directory");
        let load = |pairs: &[(&str, &str)]| BrokerConfig::load(dir.path(), None, &env(pairs));
        let error = load(&[("CLAUDEMESH_BROKER_DATABASE_URL", "mysql://u:secret@h/d")]).expect_err("refused");
        assert!(error.to_string().contains("DATABASE_URL") && !error.to_string().contains("secret"), "{error}");
        let error = load(&[("CLAUDEMESH_BROKER_DEDUPE_RETENTION_DAYS", "6")]).expect_err("refused");
        assert!(error.to_string().contains("7 to 36500"), "{error}");
        for (name, value) in [("MEMBER_RATE_PER_S", "4294967295"), ("CONNECTIONS_PER_MESH", "0")] {
            let name = format!("CLAUDEMESH_BROKER_{name}");
            let error = load(&[(name.as_str(), value)]).expect_err("refused").to_string();
            assert!(error.contains(&name) && error.contains(" is allowed"), "{error}");
        }
        for url in ["secret@h/d", "secret", "postgres//u:secret@h", "postgres:secret@h"] {
            let error = load(&[("CLAUDEMESH_BROKER_DATABASE_URL", url)]).expect_err("refused");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        let error = load(&[("CLAUDEMESH_BROKER_LISTENN", "secret")]).expect_err("refused").to_string();
        assert!(error.contains("did you mean CLAUDEMESH_BROKER_LISTEN?") && !error.contains("secret"), "{error}");
        for (name, value) in [("PGSSLMODE", "requirre"), ("PGPORT", "many")] {
            let url = ("CLAUDEMESH_BROKER_DATABASE_URL", "postgres://u@h/d");
            let error = load(&[url, (name, value)]).expect_err("refused").to_string();
            assert!(error.contains(&format!("{name}={value}")), "{error}");
            assert!(load(&[(name, value)]).is_ok(), "nobody asks for it");
        }
        assert!(load(&[("CLAUDEMESH_BROKER_DATABASE_URL", "sqlite:relative.db")]).is_err());
        let postgres = load(&[("CLAUDEMESH_BROKER_DATABASE_URL", "postgres://u:secret@h/d")]).expect("loads");
        assert!(!format!("{postgres:?}").contains("secret"));

        fs::write(dir.path().join("broker.toml"), "lisen = 1").expect("written");
        assert!(load(&[]).expect_err("refused").to_string().contains("lisen"));
    }
}
