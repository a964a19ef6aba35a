//! The daemon as a process: what lies on disk, who may run, how it starts and
//! ends.

mod clock;
mod container;
mod descriptors;
mod duplicates;
mod files;
mod instances;
mod link;
mod logs;
mod metrics;
mod settings;
mod words;
