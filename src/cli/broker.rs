//! `claudemesh broker`.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::output::Output;
use super::{Context, first_process, process, server_runtime};
use crate::broker::{Broker, error};
use crate::config::broker::BrokerConfig;
use crate::domain::error_code::{ErrorCode, exit};
use crate::runtime::clock::Clock;
use crate::runtime::open_files;
use crate::runtime::signals::StopSignals;
use crate::telemetry::logging;

const EXAMPLES: &str = "\
Examples:
  claudemesh broker serve
  claudemesh broker serve --dir /srv/mesh --listen 0.0.0.0:7900

The directory holds the database, the admin token that creates meshes
(admin_token), and the settings (broker.toml, optional). It listens without TLS:
put a proxy that ends TLS before it when members connect over a network.";

const MIGRATE_EXAMPLES: &str = "\
Examples:
  claudemesh broker migrate
  claudemesh broker migrate --dir /srv/mesh

`broker serve` does the same at its start. Run this first where a person should
watch it. Changes only add, so brokers of the release before go on meanwhile.";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Run a broker until it is stopped by a signal
    Serve(ServeArgs),
    /// Bring the database to this release's schema, and end
    Migrate(MigrateArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = MIGRATE_EXAMPLES)]
pub(super) struct MigrateArgs {
    /// The broker's directory; broker/ below the root directory if left out
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    /// The broker's directory; broker/ below the root directory if left out
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The address to listen on; port 0 lets the system choose
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// How much to log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Started by `claudemesh dev`: ends when that process does
    #[arg(long, value_name = "PID", hide = true)]
    parent_pid: Option<u32>,
}

pub(super) fn run(verb: Verb, context: &Context, output: &mut Output) -> Result<u8, Failure> {
    match verb {
        Verb::Serve(args) => {
            if let Some(code) = first_process::in_a_child()? {
                return Ok(code);
            }
            if let Some(parent) = args.parent_pid {
                process::end_with(parent)?;
            }
            let config = load(args.dir, args.listen.as_deref(), context)?;
            logging::init(&logging::Output::Stderr, &args.log_level)
                .map_err(|error| Failure::new(ErrorCode::UsageError, error.to_string()))?;
            let runtime = server_runtime()?;
            let result = runtime.block_on(Box::pin(serve(config, context.clock.clone(), output)));
            // What still blocks a thread must not hold up the end.
            runtime.shutdown_background();
            result
        }
        Verb::Migrate(args) => {
            let config = load(args.dir, None, context)?;
            let migrated = server_runtime()?.block_on(Broker::migrate(&config, context.clock.clone()));
            let (database, version) = migrated.map_err(|error| failure(&error))?;
            output.line(format_args!("{database} has schema {version}"))?;
            Ok(exit::OK)
        }
    }
}

fn load(dir: Option<PathBuf>, listen: Option<&str>, context: &Context) -> Result<BrokerConfig, Failure> {
    let dir = match dir {
        Some(dir) => context.cwd.join(dir),
        None => context.root()?.broker_dir(),
    };
    Ok(BrokerConfig::load(&dir, listen, context.source.as_ref())?)
}

/// Open files with which a broker of an ordinary mesh could come to an end.
const FEW_FILES: u64 = 4_096;

async fn serve(config: BrokerConfig, clock: Clock, output: &mut Output) -> Result<u8, Failure> {
    let mut signals = StopSignals::listen()
        .map_err(|error| Failure::new(ErrorCode::InternalError, format!("cannot listen for signals: {error}")))?;
    // Each member holds a connection, and processes often start with 1,024.
    if let Some(files) = open_files::raise_limit().filter(|files| *files < FEW_FILES) {
        tracing::warn!(
            files,
            "This broker can hold only about {files} connections: the system allows no more open files (ulimit -Hn)"
        );
    }
    let prepared = Broker::prepare(config, clock).await.map_err(|error| failure(&error))?;
    let database = prepared.database();
    let stop = CancellationToken::new();
    let serving = prepared.run(stop.clone(), |address| {
        let version = env!("CARGO_PKG_VERSION");
        // The broker does its work whether or not somebody reads this.
        let _ =
            output.line(format_args!("claudemesh broker {version} listens on ws://{address}/ws (database {database})"));
    });
    tokio::pin!(serving);
    loop {
        tokio::select! {
            result = &mut serving => return result.map(|()| exit::OK).map_err(|error| failure(&error)),
            name = signals.next() => {
                // The second one means now; what is committed stays.
                if stop.is_cancelled() {
                    tracing::warn!("A second signal ({name}) ends the broker at once");
                    return Ok(exit::OTHER);
                }
                tracing::info!("The broker stops ({name})");
                stop.cancel();
            }
        }
    }
}

fn failure(error: &error::Error) -> Failure {
    Failure::new(error.code(), error.to_string())
}
