//! Medians, ratios and gates.

use std::collections::BTreeMap;

use crate::gates::{Gate, Rule, gates};
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
        println!("  {name:<24} {}", line(&sample));
        self.steps.entry(name).or_default().push(sample);
    }

    /// The median of a figure over all rounds; `None` if it was never measured.
    pub fn of(&self, name: &str, figure: impl Fn(&Sample) -> f64) -> Option<f64> {
        let samples = self.steps.get(name)?;
        Some(median(&samples.iter().map(figure).collect::<Vec<_>>()))
    }

    /// Prints the medians, and how each gate fared. True when all that could be
    /// judged hold.
    pub fn print(&self) -> bool {
        println!("\nmedians over the rounds (lowest to highest rate)");
        for (name, samples) in &self.steps {
            let rates: Vec<f64> = samples.iter().map(|sample| sample.per_s).collect();
            let (low, high) =
                rates.iter().fold((f64::MAX, 0.0_f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
            let p50 = self.of(name, Sample::p50).unwrap_or(0.0);
            let p99 = self.of(name, |sample| sample.quantile(0.99)).unwrap_or(0.0);
            let unit = samples.first().map_or("", |sample| sample.unit);
            let figure = format!("{:>9.0}{unit} ({low:.0} to {high:.0})", median(&rates));
            match p50 {
                0.0 => println!("  {name:<24} {figure}"),
                _ => println!("  {name:<24} {figure}  p50 {p50:.0} us  p99 {p99:.0} us"),
            }
        }
        let disk = self.of("disk", Sample::p50).unwrap_or(0.0);
        println!("\ngates (a synced append to the disk: p50 {disk:.0} us)");
        let disturbed = disk > DISTURBED_US;
        let mut holds = true;
        for gate in gates() {
            let word = match gate.figure(self) {
                None => "not measured".to_owned(),
                Some(figure) => {
                    let kept = gate.rule.holds(figure);
                    holds &= kept || disturbed;
                    let verdict = if disturbed {
                        "no verdict"
                    } else if kept {
                        "holds"
                    } else {
                        "FAILS"
                    };
                    format!("{figure:>8.2}  {verdict}")
                }
            };
            println!("  {:<58} {:<9} {word}", gate.what, bound(&gate));
        }
        if disturbed {
            println!("\nThe disk was disturbed (over {DISTURBED_US:.0} us): no verdict. Try again on a quiet machine.");
        }
        holds
    }
}

fn bound(gate: &Gate) -> String {
    match gate.rule {
        Rule::AtLeast(bound) => format!(">= {bound}"),
        Rule::AtMost(bound) => format!("<= {bound}"),
    }
}

fn line(sample: &Sample) -> String {
    let rate = format!("{:>9.0}{}", sample.per_s, sample.unit);
    if sample.p50() == 0.0 {
        return rate;
    }
    format!("{rate}  p50 {:>7.0} us  p99 {:>7.0} us", sample.p50(), sample.quantile(0.99))
}
