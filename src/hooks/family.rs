//! Which processes belong to running hooks: the main socket refuses them.
//!
//! A process belongs to a run when the run's first process is among its parents,
//! or leads its process group. One that leaves both, as a daemon does, is not
//! recognised: this keeps hooks from mistakes, it does not confine them.

use std::collections::HashMap;
use std::io;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::process::{Child, Command};

/// Parents that are followed at most.
const MAX_DEPTH: usize = 64;
/// Answers that are kept.
const MAX_KNOWN: usize = 1024;

/// The processes of running hooks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Family(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    running: AtomicUsize,
    // A std mutex: held for a start and a few reads of /proc, never across an await.
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// First process of each run, with the moment of its start and the hook's name.
    runs: HashMap<i32, (u64, String)>,
    /// Processes that belong to none, by id and moment of start: a process does not
    /// change its parents but for the first one of all.
    strangers: HashMap<(i32, u64), ()>,
}

/// A process as the system shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    parent: i32,
    group: i32,
    started: u64,
}

/// Takes a run out of the family when it is over.
#[derive(Debug)]
pub(super) struct Member {
    family: Family,
    pid: i32,
}

// === impl Family ===

impl Family {
    /// Starts the first process of a run, as the leader of its own group. Nobody is
    /// judged between its start and the note of it. `is_free`: it may use the main
    /// socket.
    pub(super) fn start(
        &self,
        command: &mut Command,
        hook: &str,
        is_free: bool,
    ) -> io::Result<(Child, Option<Member>)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let (Some(pid), false) = (pid, is_free) else { return Ok((child, None)) };
        let started = process(pid).map_or(0, |process| process.started);
        table.runs.insert(pid, (started, hook.to_owned()));
        self.0.running.store(table.runs.len(), Ordering::Release);
        Ok((child, Some(Member { family: self.clone(), pid })))
    }

    /// The hook whose run a process belongs to. Costs nothing while none runs.
    pub fn hook_of(&self, pid: i32) -> Option<String> {
        if self.0.running.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut table = self.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        let first = process(pid)?;
        if table.strangers.contains_key(&(pid, first.started)) {
            return None;
        }
        let hook = table.find(pid, first);
        if hook.is_none() {
            if table.strangers.len() >= MAX_KNOWN {
                table.strangers.clear();
            }
            table.strangers.insert((pid, first.started), ());
        }
        hook
    }
}

// === impl Table ===

impl Table {
    fn find(&self, pid: i32, first: Process) -> Option<String> {
        let (mut pid, mut found) = (pid, first);
        for _ in 0..MAX_DEPTH {
            if let Some((started, hook)) = self.runs.get(&pid)
                && *started == found.started
            {
                return Some(hook.clone());
            }
            // A group has its leader's number for as long as one of it lives.
            if let Some((_, hook)) = self.runs.get(&found.group) {
                return Some(hook.clone());
            }
            if found.parent <= 1 {
                return None;
            }
            pid = found.parent;
            found = process(pid)?;
        }
        None
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut table = self.family.0.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.runs.remove(&self.pid);
        self.family.0.running.store(table.runs.len(), Ordering::Release);
    }
}

/// What /proc says of a process; `None` when it is gone, or where there is no /proc.
fn process(pid: i32) -> Option<Process> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in the second field may hold anything; what follows the last bracket
/// does not.
fn parse(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse().ok();
    Some(Process { parent: number(1)?, group: number(2)?, started: fields.get(19)?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_hides_nothing() {
        let stat = "42 (a) b (c)) S 7 40 40 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        assert_eq!(parse(stat), Some(Process { parent: 7, group: 40, started: 12_345 }));
        assert_eq!(parse("42 (x"), None);
    }

    #[tokio::test]
    async fn a_run_and_its_children_are_of_the_family_until_it_ends() {
        let family = Family::default();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(family.hook_of(own), None);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "sleep 60 & echo $!; wait"]);
        let (mut child, member) = family.start(&mut command, "on-dm", false).unwrap();
        let leader = i32::try_from(child.id().unwrap()).unwrap();
        let mut line = String::new();
        let mut stdout = tokio::io::BufReader::new(child.stdout.take().unwrap());
        tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line).await.unwrap();
        let grandchild: i32 = line.trim().parse().unwrap();
        for pid in [leader, grandchild] {
            assert_eq!(family.hook_of(pid).as_deref(), Some("on-dm"));
        }
        assert_eq!(family.hook_of(own), None);
        drop(member);
        assert_eq!(family.hook_of(leader), None);
        let group = rustix::process::Pid::from_raw(leader).unwrap();
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        child.wait().await.unwrap();
    }
}
