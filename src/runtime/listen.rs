//! Binds the sockets of a process.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::private_file;

/// The longest path that a Unix socket address holds on this system, in bytes.
pub const MAX_SOCKET_PATH: usize = if cfg!(target_os = "macos") { 103 } else { 107 };

/// How often it is looked whether a socket's file is still there.
const LOOK: Duration = Duration::from_secs(2);

/// A Unix socket that is made again when somebody deletes its file, such as a program
/// that clears temporary directories.
#[derive(Debug)]
pub struct UnixSocket {
    path: PathBuf,
    mode: u32,
    listener: UnixListener,
}

/// A socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The path does not fit into a socket address.
    #[error(
        "the socket path {} is {len} bytes long, this system allows {MAX_SOCKET_PATH}; \
         set CLAUDEMESH_HOME to a shorter directory", path.display()
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// The path is taken by something that is no socket.
    #[error("{} exists and is no socket; move it away", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Path or address.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
}

// === impl UnixSocket ===

impl UnixSocket {
    /// Binds it, as [`unix`] does.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, ListenError> {
        Ok(Self { path: path.to_owned(), mode, listener: unix(path, mode)? })
    }

    /// The next connection. It can be dropped at any point.
    pub async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            match tokio::time::timeout(LOOK, self.listener.accept()).await {
                Ok(accepted) => return accepted.map(|(stream, _)| stream),
                Err(_) => self.make_again(),
            }
        }
    }

    fn make_again(&mut self) {
        let is_gone =
            matches!(std::fs::symlink_metadata(&self.path), Err(error) if error.kind() == io::ErrorKind::NotFound);
        if !is_gone {
            return;
        }
        match unix(&self.path, self.mode) {
            Ok(listener) => {
                self.listener = listener;
                tracing::warn!("The socket {} was deleted and is made again", self.path.display());
            }
            Err(error) => tracing::warn!(%error, "The socket was deleted and cannot be made again: {error}"),
        }
    }
}

/// Checks that a socket path fits, before anything else is done for it.
pub fn check_path(path: &Path) -> Result<(), ListenError> {
    let len = path.as_os_str().len();
    if len > MAX_SOCKET_PATH { Err(ListenError::PathTooLong { path: path.to_owned(), len }) } else { Ok(()) }
}

/// Binds a Unix socket with the given mode. A socket file left by a killed
/// process is removed; the caller must hold the directory's instance lock,
/// which is what proves that its owner is gone. The directory must be 0700:
/// between bind and chmod only it and the mask protect the socket.
pub fn unix(path: &Path, mode: u32) -> Result<UnixListener, ListenError> {
    check_path(path)?;
    let bind = |source| ListenError::Bind { address: path.display().to_string(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => private_file::remove_if_there(path).map_err(|error| bind(error.source))?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(bind)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(bind)?;
    Ok(listener)
}

/// Removes a socket file. Anything else at the path is not this program's.
pub fn remove_socket(path: &Path) -> Result<(), private_file::FileError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => private_file::remove_if_there(path),
        _ => Ok(()),
    }
}

/// Binds a TCP address; port 0 lets the system choose.
pub async fn tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError::Bind { address: address.to_string(), source })
}
