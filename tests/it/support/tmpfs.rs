//! A small file system, to fill.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted tmpfs; unmounted when dropped. Only root can mount: a test that
/// needs it fails for others, since a skipped one would prove nothing.
pub(crate) struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Mounts one of that size on an existing directory.
    pub(crate) fn mount(path: &Path, size: &str) -> Self {
        let options = format!("size={size},mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path));
        Self { path: path.to_owned() }
    }

    /// Makes it read-only, or writable again.
    pub(crate) fn read_only(&self, yes: bool) {
        let options = if yes { "remount,ro" } else { "remount,rw" };
        run(Command::new("mount").args(["-o", options]).arg(&self.path));
    }

    /// Takes all free space; the file that holds it.
    pub(crate) fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let ballast = self.path.join("ballast");
        let mut file = std::fs::File::create(&ballast).expect("a file");
        // First in large pieces, then the rest to the last byte.
        for piece in [vec![0; 64 << 10], vec![0; 512], vec![0; 1]] {
            while file.write_all(&piece).is_ok() {}
        }
        ballast
    }

    /// Takes the free space but for so many bytes; the file that holds it.
    pub(crate) fn fill_but(&self, bytes: u64) -> PathBuf {
        let ballast = self.fill();
        let file = std::fs::File::options().write(true).open(&ballast).expect("the ballast");
        let length = file.metadata().expect("the ballast").len();
        file.set_len(length.checked_sub(bytes).expect("so much was free")).expect("a shorter ballast");
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
