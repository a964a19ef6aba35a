//! The machine under the run: its disk, and whether others disturb it.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::load::Sample;

/// A disk that needs longer than this for a synced append is disturbed, in
/// microseconds: the ratios would say nothing.
pub const DISTURBED_US: f64 = 250.0;

/// Appends 1 KiB and syncs it, in a loop.
pub fn disk(folder: &Path, time: Duration) -> Result<Sample> {
    let path = folder.join("disk.probe");
    let mut file = File::create(&path).context("the disk probe")?;
    let block = [b'x'; 1024];
    let mut latencies = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let begun = Instant::now();
        file.write_all(&block)?;
        rustix::fs::fdatasync(&file)?;
        latencies.push(begun.elapsed());
    }
    let took = start.elapsed();
    std::fs::remove_file(&path)?;
    Ok(Sample::new(latencies, took))
}

/// Waits, at most five seconds, until the processors are idle for the most part.
pub async fn quiet() {
    for _ in 0..20 {
        let Some(before) = busy_and_total() else { return };
        tokio::time::sleep(Duration::from_millis(150)).await;
        let Some(after) = busy_and_total() else { return };
        let total = (after.1 - before.1).max(1.0);
        if (after.0 - before.0) / total < 0.15 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Busy and total processor time since the start of the machine, in ticks.
fn busy_and_total() -> Option<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let total: f64 = fields.iter().sum();
    Some((total - fields.get(3)? - fields.get(4)?, total))
}

/// A line about the machine.
pub fn describe() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("model name").map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
        })
        .unwrap_or_else(|| "unknown processor".to_owned());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0);
    format!("{cores} x {model}, {} GiB, Linux {}", memory >> 20, kernel.trim())
}
