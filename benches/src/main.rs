//! Measures claudemesh beside what a user would pick instead, on this machine,
//! in one run.
//!
//! What it is for: every figure is a ratio against something that ran in the
//! same run on the same disk; absolute numbers say more about the machine.
//! What runs here: the load generator. The subject and its peers are processes
//! of their own, started on loopback and stopped at the end.
//! What it guarantees: subject and peers take turns, round by round; medians are
//! reported; a run whose disk was disturbed refuses to judge.
//! What it must not do: guess a peer that is not installed.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a load generator measures real time, owns its tasks and prints what it found"
)]

mod clients;
mod gates;
mod load;
mod machine;
mod mesh;
mod parts;
mod peers;
mod processes;
mod raw;
mod report;
mod scenarios;
mod sqlite;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

use crate::load::Sample;
use crate::report::Report;

/// Measures claudemesh beside its peers.
#[derive(Debug, Parser)]
struct Args {
    /// The claudemesh binary
    #[arg(long, default_value = "target/release/claudemesh")]
    binary: PathBuf,
    /// A nats-server of 2.10 or newer; the one on the PATH if not given
    #[arg(long)]
    nats: Option<PathBuf>,
    /// Rounds; every one measures everything once
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of one step
    #[arg(long, default_value_t = 1.2)]
    seconds: f64,
    /// Only these scenarios
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Where the databases lie while they are measured
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
}

/// A run on its way.
pub struct Run {
    binary: PathBuf,
    nats: Option<PathBuf>,
    time: Duration,
    folder: PathBuf,
    report: Report,
}

// === impl Run ===

impl Run {
    /// A fresh folder, gone when it is dropped.
    pub fn folder(&self) -> Result<tempfile::TempDir> {
        // A Unix socket's path has to be short.
        Ok(tempfile::Builder::new().prefix("cm").tempdir_in(&self.folder)?)
    }

    /// Notes a step's result.
    pub fn add(&mut self, name: impl Into<String>, sample: Sample) {
        self.report.add(name.into(), sample);
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure(args))
}

/// Fails when a gate does not hold.
async fn measure(args: Args) -> Result<ExitCode> {
    std::fs::create_dir_all(&args.folder)?;
    let mut run = Run {
        binary: args.binary.canonicalize()?,
        nats: args.nats,
        time: Duration::from_secs_f64(args.seconds),
        folder: args.folder.canonicalize()?,
        report: Report::default(),
    };
    println!("{}", machine::describe());
    for round in 1..=args.rounds {
        println!("round {round} of {}", args.rounds);
        for scenario in scenarios::ALL {
            if !args.only.is_empty() && !args.only.iter().any(|name| name == scenario.name()) {
                continue;
            }
            machine::quiet().await;
            let before = machine::disk(&run.folder, Duration::from_millis(400))?;
            scenario.round(&mut run, round).await?;
            let after = machine::disk(&run.folder, Duration::from_millis(400))?;
            run.add("disk", before);
            run.add("disk", after);
        }
    }
    Ok(if run.report.print() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
