//! The directory of the mesh, and the process that removes it.
//!
//! A process that is killed cleans nothing up. Hence another one waits for its end,
//! which shows at a pipe, and removes the directory, however the end came.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use super::{Ends, MESH};
use crate::cli::failure::Failure;
use crate::cli::{Context, one_thread, process};
use crate::config::paths::Root;
use crate::domain::error_code::ErrorCode;
use crate::runtime::clock::Clock;
use crate::runtime::listen::MAX_SOCKET_PATH;
use crate::runtime::private_file::{self, FileError};

/// How long the keeper tries: the mesh's processes may be dying yet.
const REMOVE_LIMIT: Duration = Duration::from_secs(10);
const REMOVE_AGAIN: Duration = Duration::from_millis(20);
/// Looks in a row that must not find it.
const STAYS_GONE: u32 = 4;
/// What the name of a temporary directory begins with.
const PREFIX: &str = "claudemesh-dev-";

/// Where the mesh's files lie.
pub(super) struct Directory {
    path: PathBuf,
    /// Absent when the directory is kept.
    keeper: Option<Child>,
}

// === impl Directory ===

impl Directory {
    /// Makes the directory: `asked`, which is kept, or a temporary one. The socket
    /// of the member with the longest name must fit.
    pub(super) fn make(context: &Context, asked: Option<&Path>, longest: &str) -> Result<Self, Failure> {
        if let Some(asked) = asked {
            let path = context.cwd.join(asked);
            fits(&path, longest)?;
            private_file::create_dir(&path)?;
            let mut entries = std::fs::read_dir(&path).map_err(|error| file_error("list", &path, error))?;
            if entries.next().is_some() {
                return Err(Failure::new(ErrorCode::UsageError, format!("{} is not empty", path.display()))
                    .next("--dir takes a new or an empty directory"));
            }
            return Ok(Self { path, keeper: None });
        }
        let path = temporary(context, longest)?;
        // Only one that did not exist: others may write to the directory above.
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            let error = FileError { action: "create", path: path.clone(), source: error };
            Failure::new(ErrorCode::StateDirUnusable, error.to_string())
                .next("a temporary directory lies below $TMPDIR, or /tmp; --dir names another place")
        })?;
        let arguments = ["dev", "--remove-at-end"].map(str::to_owned);
        let mut command = process::this_program()?;
        command.args(arguments).arg("--dir").arg(&path);
        // A pipe of the caller must not stay open until the directory is gone.
        command.env_clear().current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // What ends the caller's processes together must not end this one.
        command.process_group(0);
        match command.spawn() {
            Ok(keeper) => Ok(Self { path, keeper: Some(keeper) }),
            Err(error) => {
                // Empty yet. What could not be removed is worth less than the error.
                let _ = std::fs::remove_dir(&path);
                Err(Failure::new(ErrorCode::InternalError, format!("cannot start a process: {error}")))
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes a temporary directory. Whatever uses it must have ended.
    pub(super) fn end(self) {
        if let Some(mut keeper) = self.keeper {
            drop(keeper.stdin.take());
            // How it ended shows at the directory.
            let _ = keeper.wait();
        }
    }
}

/// Waits until standard input ends, and removes the directory, which must be one that
/// this command makes.
pub(super) fn remove_at_end(dir: &Path) -> Result<(), Failure> {
    let is_own = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    if !is_own {
        return Err(Failure::new(
            ErrorCode::UsageError,
            format!("{} is not removed: not a temporary one", dir.display()),
        ));
    }
    let runtime = one_thread()?;
    // One that goes to all processes ends `dev` in order, and must not end this one
    // before.
    let _ignored = runtime.block_on(async { Ends::listen() })?;
    // An error is an end, too.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    let clock = Clock::system();
    let mut gone = 0;
    // The pipe shows the end before the mesh's processes die of it: one of them may make
    // a file, or the directory, once more.
    while gone < STAYS_GONE {
        match std::fs::remove_dir_all(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => gone += 1,
            Err(error) if clock.monotonic() > REMOVE_LIMIT => return Err(file_error("remove", dir, error)),
            Ok(()) | Err(_) => gone = 0,
        }
        runtime.block_on(tokio::time::sleep(REMOVE_AGAIN));
    }
    Ok(())
}

/// A path that is not taken, below `$TMPDIR` or, where sockets would get too long
/// there, below `/tmp`.
fn temporary(context: &Context, longest: &str) -> Result<PathBuf, Failure> {
    let id = context.ids.ulid().to_ascii_lowercase();
    let name = format!("{PREFIX}{}", &id[id.len() - 10..]);
    let asked = context.source.var("TMPDIR").map(|dir| context.cwd.join(dir).join(&name));
    match asked.filter(|path| fits(path, longest).is_ok()) {
        Some(path) => Ok(path),
        None => {
            let path = Path::new("/tmp").join(name);
            fits(&path, longest).map(|()| path)
        }
    }
}

fn fits(dir: &Path, longest: &str) -> Result<(), Failure> {
    let socket = Root::at(dir.join(longest)).state_dir(MESH).sock();
    let len = socket.as_os_str().len();
    if len <= MAX_SOCKET_PATH {
        return Ok(());
    }
    let what =
        format!("the socket path {} would be {len} bytes long, this system allows {MAX_SOCKET_PATH}", socket.display());
    Err(Failure::new(ErrorCode::SocketPathTooLong, what).next("name a shorter directory with --dir"))
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> Failure {
    FileError { action, path: path.to_owned(), source }.into()
}
