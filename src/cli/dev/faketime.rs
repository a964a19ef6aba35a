//! The clock of the mesh's processes, moved by libfaketime.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cli::failure::Failure;
use crate::domain::error_code::ErrorCode;
use crate::runtime::private_file;

/// The longest way of the clock from the time that it is: ten years.
pub(super) const MAX_OFFSET: Duration = Duration::from_secs(3650 * 24 * 3600);

/// The library, for programs with several threads first.
const NAMES: [&str; 2] = ["libfaketimeMT.so.1", "libfaketime.so.1"];
/// Directories that distributions put it into, besides `/usr/lib/<triple>/faketime`.
const PLACES: [&str; 4] =
    ["/usr/lib/faketime", "/usr/lib64/faketime", "/usr/local/lib/faketime", "/usr/local/lib64/faketime"];

/// What moves the clocks.
pub(super) struct FakeTime {
    library: PathBuf,
    file: PathBuf,
    offset: Duration,
}

// === impl FakeTime ===

impl FakeTime {
    /// Finds the library and writes the offset's file below `dir`.
    pub(super) fn find(dir: &Path) -> Result<Self, Failure> {
        let library = library().ok_or_else(missing)?;
        let clock = Self { library, file: dir.join("_clock"), offset: Duration::ZERO };
        clock.write(Duration::ZERO)?;
        Ok(clock)
    }

    /// How far the clock was moved so far.
    pub(super) fn offset(&self) -> Duration {
        self.offset
    }

    /// Moves the clock of every process that has [`Self::apply`].
    pub(super) fn advance(&mut self, by: Duration) -> Result<(), Failure> {
        let offset = self.offset.saturating_add(by);
        if offset > MAX_OFFSET {
            let days = MAX_OFFSET.as_secs() / (24 * 3600);
            let what = format!("the clock can be moved by {days} days in all");
            return Err(Failure::new(ErrorCode::InvalidArgument, what));
        }
        self.write(offset)?;
        self.offset = offset;
        Ok(())
    }

    /// Lets a process see this clock, the monotonic one included.
    pub(super) fn apply(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library);
        command.env("FAKETIME_TIMESTAMP_FILE", &self.file);
        // The file is read at every look at the clock.
        command.env("FAKETIME_NO_CACHE", "1");
    }

    fn write(&self, offset: Duration) -> Result<(), Failure> {
        let text = format!("+{}.{:03}\n", offset.as_secs(), offset.subsec_millis());
        Ok(private_file::write_atomic(&self.file, text.as_bytes(), private_file::PRIVATE)?)
    }
}

/// What is said without the library.
fn missing() -> Failure {
    let what = "--clock needs libfaketime, which is not installed: install the package `faketime` (Debian, Ubuntu) or \
                `libfaketime` (Fedora, Arch)";
    Failure::new(ErrorCode::FaketimeMissing, what)
}

fn library() -> Option<PathBuf> {
    let by_triple = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut places: Vec<PathBuf> = by_triple.map(|entry| entry.path().join("faketime")).collect();
    places.extend(PLACES.map(PathBuf::from));
    NAMES.iter().find_map(|name| places.iter().map(|place| place.join(name)).find(|path| path.is_file()))
}
