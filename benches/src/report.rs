//! Medians, ratios and gates.

use std::collections::BTreeMap;

use crate::load::{Sample, median};
use crate::machine::DISTURBED_US;

/// The results of a run so far.
#[derive(Debug, Default)]
pub struct Report {
    steps: BTreeMap<String, Vec<Sample>>,
}

// === impl Report ===

impl Report {
    /// Adds a step of a round.
    pub fn add(&mut self, name: String, sample: Sample) {
        println!(
            "  {name:<28} {:>10.0}/s  p50 {:>8.0} us  p99 {:>8.0} us",
            sample.per_s,
            sample.p50(),
            sample.quantile(0.99)
        );
        self.steps.entry(name).or_default().push(sample);
    }

    /// The median over all rounds; `None` if it was never measured.
    fn of(&self, name: &str, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        let samples = self.steps.get(name)?;
        Some(median(&samples.iter().map(figure).collect::<Vec<_>>()))
    }

    /// Prints everything.
    pub fn print(&self) {
        let disk = self.of("disk", Sample::p50).unwrap_or(0.0);
        println!("disk: {disk:.0} us");
        if disk > DISTURBED_US {
            println!("The disk was disturbed: no verdict.");
        }
        for (name, samples) in &self.steps {
            let rates: Vec<f64> = samples.iter().map(|sample| sample.per_s).collect();
            println!("{name:<28} {:>10.0}/s", median(&rates));
        }
    }
}
