//! Closed loops and what they measured.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Result;

/// One operation of one caller, repeated until the time is over.
pub type Operation = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = Result<()>> + Send>> + Send>;

/// What a step measured.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Operations a second, or the amount of something that is no rate.
    pub per_s: f64,
    /// What stands behind that number.
    pub unit: &'static str,
    /// Latencies in microseconds, sorted.
    latencies: Vec<f64>,
}

// === impl Sample ===

impl Sample {
    /// From latencies and the time in which they were taken.
    pub fn new(mut latencies: Vec<Duration>, took: Duration) -> Self {
        latencies.sort_unstable();
        let per_s = latencies.len() as f64 / took.as_secs_f64();
        let latencies = latencies.into_iter().map(|one| one.as_secs_f64() * 1e6).collect();
        Self { per_s, unit: "/s", latencies }
    }

    /// From operations that followed each other without a pause.
    pub fn one_by_one(latencies: Vec<Duration>) -> Self {
        let took = latencies.iter().sum();
        Self::new(latencies, took)
    }

    /// From a rate alone.
    pub fn rate(per_s: f64) -> Self {
        Self { per_s, unit: "/s", latencies: Vec::new() }
    }

    /// An amount in this unit.
    pub fn amount(value: f64, unit: &'static str) -> Self {
        Self { per_s: value, unit, latencies: Vec::new() }
    }

    /// The latency below which this part of all operations stayed, in
    /// microseconds; zero without latencies.
    pub fn quantile(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get(((self.latencies.len() as f64 * part) as usize).min(last)).copied().unwrap_or(0.0)
    }

    /// The median latency in microseconds.
    pub fn p50(&self) -> f64 {
        self.quantile(0.50)
    }
}

/// Wraps an async closure as an operation.
pub fn operation<F, Fut>(mut run: F) -> Operation
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    Box::new(move || Box::pin(run()))
}

/// Runs each caller's operation in a loop of its own: warm-up, then `time`.
pub async fn closed_loop(callers: Vec<Operation>, time: Duration) -> Result<Sample> {
    let start = Instant::now() + warm_up(time);
    let end = start + time;
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|mut call| {
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(1 << 16);
                loop {
                    let begun = Instant::now();
                    if begun >= end {
                        return Ok::<_, anyhow::Error>(latencies);
                    }
                    call().await?;
                    let done = Instant::now();
                    if begun >= start && done <= end {
                        latencies.push(done - begun);
                    }
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(Sample::new(all, time))
}

/// Time that a step runs before it counts.
pub fn warm_up(time: Duration) -> Duration {
    (time / 3).min(Duration::from_millis(500))
}

/// 1,024 letters.
pub fn payload() -> String {
    let mut bytes = [0; 1024];
    // Without randomness the letters are all alike, which is as good.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

/// The median of some values; zero of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}
