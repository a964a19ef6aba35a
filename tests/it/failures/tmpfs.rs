//! A file system of a few hundred kilobytes, to fill.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; unmounted when dropped. Only root can mount: a test that
/// needs it fails for others, since a skipped one would prove nothing.
pub(super) struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts one of that size on an existing directory.
    pub(super) fn mount(path: &Path, size: &str) -> Self {
        let options = format!("size={size},mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path));
        Self { path: path.to_owned() }
    }

    /// Makes it read-only, or writable again.
    pub(super) fn read_only(&self, yes: bool) {
        let options = if yes { "remount,ro" } else { "remount,rw" };
        run(Command::new("mount").args(["-o", options]).arg(&self.path));
    }

    /// Takes all free space; the file that holds it.
    pub(super) fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let ballast = self.path.join("ballast");
        let mut file = std::fs::File::create(&ballast).expect("a file");
        // First in large pieces, then the rest to the last byte.
        for piece in [vec![0; 64 << 10], vec![0; 512], vec![0; 1]] {
            while file.write_all(&piece).is_ok() {}
        }
        ballast
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A process may still have a file open there.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed; these tests mount file systems and need root: {said}");
}
