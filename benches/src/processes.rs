//! Child processes that end with the run.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A process that is stopped when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    name: String,
}

// === impl Server ===

impl Server {
    /// Starts it; what it says goes to `<folder>/<name>.out`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let said = File::create(folder.join(format!("{name}.out")))?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let child = command.spawn().with_context(|| format!("{name} does not start"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// Waits until `ready` gives a value.
    pub async fn until<T, F>(&mut self, what: &str, mut ready: F) -> Result<T>
    where
        F: AsyncFnMut() -> Option<T>,
    {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(value) = ready().await {
                return Ok(value);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}", self.name);
            }
            if Instant::now() > end {
                bail!("{}: waited 30 s for {what}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What it holds of the machine's memory, in MB (10^6 bytes).
    pub fn memory_mb(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> Result<()> {
        self.end();
        Ok(())
    }

    fn end(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let limit = Instant::now() + Duration::from_secs(10);
        while Instant::now() < limit {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Where a program is, or nothing.
pub fn which(name: &str) -> Option<std::path::PathBuf> {
    let further =
        ["/usr/sbin", "/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/17/bin"];
    #[expect(clippy::disallowed_methods, reason = "where programs lie is no setting of claudemesh")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(further.iter().map(std::path::PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}
