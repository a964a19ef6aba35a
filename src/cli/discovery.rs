//! Which daemon a command talks to.
//!
//! The order is the same in every SDK: an explicit argument,
//! `CLAUDEMESH_DAEMON_SOCK`, `CLAUDEMESH_ADDR` with `CLAUDEMESH_TOKEN_FILE`,
//! `CLAUDEMESH_MESH`, `.claudemesh/mesh` in the working directory or above, the
//! only running daemon. TCP is used only when it was asked for.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::running;
use crate::config::paths::Root;
use crate::config::source::Source;
use crate::domain::error_code::ErrorCode;
use crate::membership::config_json::ConfigJson;
use crate::membership::names::check_slug;

/// The longest `.claudemesh/mesh` that is read: a slug and white space.
const MAX_MESH_FILE: u64 = 256;

/// The explicit arguments of commands that talk to a daemon.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DaemonArgs {
    /// The mesh, by its name on this host
    #[arg(long, value_name = "MESH")]
    pub mesh: Option<String>,
    /// The daemon's Unix socket, instead of the mesh's own
    #[arg(long, value_name = "PATH", conflicts_with = "mesh")]
    pub socket: Option<PathBuf>,
}

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket; the mesh when it was found by it.
    Socket {
        /// The socket's path.
        path: PathBuf,
        /// The mesh's slug.
        mesh: Option<String>,
    },
    /// TCP, with a token.
    Tcp {
        /// `host:port`.
        authority: String,
        /// The file with the token.
        token_file: PathBuf,
    },
}

/// Finds the daemon.
pub fn find(args: &DaemonArgs, source: &dyn Source, cwd: &Path) -> Result<Address, Failure> {
    if let Some(path) = &args.socket {
        return Ok(Address::Socket { path: path.clone(), mesh: None });
    }
    if args.mesh.is_none() {
        if let Some(path) = source.var("CLAUDEMESH_DAEMON_SOCK") {
            return Ok(Address::Socket { path: path.into(), mesh: None });
        }
        if let Some(address) = source.var("CLAUDEMESH_ADDR") {
            return tcp(&address, source.var("CLAUDEMESH_TOKEN_FILE"));
        }
    }
    let root = Root::find(source)?;
    let mesh = match named_mesh(args.mesh.as_deref(), source, cwd)? {
        Some(mesh) => mesh,
        None => the_only_running(&root)?,
    };
    Ok(Address::Socket { path: root.state_dir(&mesh).sock(), mesh: Some(mesh) })
}

/// The mesh that is named by argument, variable or directory, checked to be fit
/// for a path: the directory may be somebody else's.
pub fn named_mesh(explicit: Option<&str>, source: &dyn Source, cwd: &Path) -> Result<Option<String>, Failure> {
    let (mesh, origin) = if let Some(mesh) = explicit {
        (mesh.to_owned(), "--mesh".to_owned())
    } else if let Some(mesh) = source.var("CLAUDEMESH_MESH") {
        (mesh, "CLAUDEMESH_MESH".to_owned())
    } else if let Some((mesh, path)) = mesh_of_directory(cwd)? {
        (mesh, path.display().to_string())
    } else {
        return Ok(None);
    };
    check_slug(&mesh).map_err(|error| Failure::from(error).next(format!("it comes from {origin}")))?;
    Ok(Some(mesh))
}

/// The mesh of a command that starts something: named, or the only joined one.
pub fn joined_mesh(root: &Root, explicit: Option<&str>, source: &dyn Source, cwd: &Path) -> Result<String, Failure> {
    if let Some(mesh) = named_mesh(explicit, source, cwd)? {
        return Ok(mesh);
    }
    let mut slugs: Vec<String> = ConfigJson::load(root)?.meshes()?.into_iter().map(|entry| entry.slug).collect();
    match slugs.len() {
        1 => Ok(slugs.remove(0)),
        0 => Err(Failure::new(ErrorCode::MeshNotJoined, "no mesh is joined")
            .next("join one with the link you were given: claudemesh join 'ic://join/...'")
            .next("or make one: claudemesh mesh create <MESH>")),
        _ => Err(Failure::new(ErrorCode::MeshRequired, "several meshes are joined")
            .next(format!("name one with --mesh: {}", slugs.join(", ")))),
    }
}

/// What is said when no daemon answers at the socket of a mesh.
pub fn not_running(root: &Root, mesh: &str) -> Failure {
    let joined = ConfigJson::load(root).and_then(|config| config.mesh(mesh));
    match joined {
        Ok(None) => Failure::new(ErrorCode::MeshNotJoined, format!("no mesh named {mesh:?} is joined"))
            .next("see which are: claudemesh mesh list")
            .next("join it with the link you were given: claudemesh join 'ic://join/...'"),
        _ => Failure::new(ErrorCode::DaemonNotRunning, format!("no daemon runs for mesh {mesh:?}"))
            .next(format!("start it: claudemesh daemon up --mesh {mesh}")),
    }
}

fn the_only_running(root: &Root) -> Result<String, Failure> {
    let mut running = running::running(root)?;
    match running.len() {
        1 => Ok(running.remove(0)),
        0 => Err(match joined_mesh(root, None, &crate::config::source::MapSource::default(), Path::new("/")) {
            Ok(mesh) => not_running(root, &mesh),
            Err(failure) if failure.code() == ErrorCode::MeshRequired.name() => {
                Failure::new(ErrorCode::DaemonNotRunning, "no daemon runs")
                    .next("start one: claudemesh daemon up --mesh <MESH>")
            }
            Err(failure) => failure,
        }),
        _ => Err(Failure::new(ErrorCode::MeshRequired, "several daemons run")
            .next(format!("name a mesh with --mesh: {}", running.join(", ")))),
    }
}

fn tcp(address: &str, token_file: Option<String>) -> Result<Address, Failure> {
    let authority = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    let usable = authority.parse::<http::uri::Authority>().is_ok_and(|authority| authority.port_u16().is_some());
    if !usable || authority.contains('@') {
        return Err(Failure::new(ErrorCode::ConfigInvalid, format!("CLAUDEMESH_ADDR={address} is no address"))
            .next("write host:port, such as 127.0.0.1:47910"));
    }
    match token_file {
        Some(file) => Ok(Address::Tcp { authority: authority.to_owned(), token_file: file.into() }),
        None => Err(Failure::new(ErrorCode::ConfigInvalid, "CLAUDEMESH_ADDR is set without CLAUDEMESH_TOKEN_FILE")
            .next("set it to the path of the daemon's local_token")),
    }
}

/// The content of `.claudemesh/mesh` here or above, and the file's path.
fn mesh_of_directory(cwd: &Path) -> Result<Option<(String, PathBuf)>, Failure> {
    for directory in cwd.ancestors() {
        let path = directory.join(".claudemesh").join("mesh");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let mut text = String::new();
        file.take(MAX_MESH_FILE).read_to_string(&mut text).map_err(|error| unreadable(&path, &error))?;
        return Ok(Some((text.trim().to_owned(), path)));
    }
    Ok(None)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(ErrorCode::ConfigInvalid, format!("cannot read {}: {error}", path.display()))
        .next("name the mesh with --mesh")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::source::MapSource;
    use crate::runtime::instance_lock::InstanceLock;

    struct Home {
        dir: tempfile::TempDir,
        source: MapSource,
    }

    impl Home {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root").display().to_string();
            Self { dir, source: MapSource([("CLAUDEMESH_HOME".to_owned(), root)].into()) }
        }
        fn set(&mut self, name: &str, value: &str) {
            self.source.0.insert(name.to_owned(), value.to_owned());
        }
        fn root(&self) -> Root {
            Root::find(&self.source).unwrap()
        }
        fn work(&self) -> PathBuf {
            let work = self.dir.path().join("work/deep/er");
            fs::create_dir_all(&work).unwrap();
            work
        }
        fn find(&self, mesh: Option<&str>) -> Result<Address, Failure> {
            find(&DaemonArgs { mesh: mesh.map(str::to_owned), socket: None }, &self.source, &self.work())
        }
        fn run(&self, mesh: &str) -> InstanceLock {
            fs::create_dir_all(self.root().state_dir(mesh).path()).unwrap();
            InstanceLock::acquire(&self.root().state_dir(mesh).lock()).unwrap()
        }
        fn socket(&self, mesh: &str) -> Address {
            Address::Socket { path: self.root().state_dir(mesh).sock(), mesh: Some(mesh.to_owned()) }
        }
    }

    #[test]
    fn each_source_wins_over_those_below_it() {
        let mut home = Home::new();
        let _one = home.run("running");
        assert_eq!(home.find(None).unwrap(), home.socket("running"));
        fs::create_dir_all(home.work().join("../.claudemesh")).unwrap();
        fs::write(home.work().join("../.claudemesh/mesh"), " project\n").unwrap();
        assert_eq!(home.find(None).unwrap(), home.socket("project"));
        home.set("CLAUDEMESH_MESH", "variable");
        assert_eq!(home.find(None).unwrap(), home.socket("variable"));
        home.set("CLAUDEMESH_ADDR", "http://127.0.0.1:47910/");
        home.set("CLAUDEMESH_TOKEN_FILE", "/t");
        let tcp = Address::Tcp { authority: "127.0.0.1:47910".to_owned(), token_file: "/t".into() };
        assert_eq!(home.find(None).unwrap(), tcp);
        home.set("CLAUDEMESH_DAEMON_SOCK", "/s");
        assert_eq!(home.find(None).unwrap(), Address::Socket { path: "/s".into(), mesh: None });
        assert_eq!(home.find(Some("given")).unwrap(), home.socket("given"));
        let args = DaemonArgs { mesh: None, socket: Some("/x".into()) };
        let found = find(&args, &home.source, Path::new("/")).unwrap();
        assert_eq!(found, Address::Socket { path: "/x".into(), mesh: None });
    }

    #[test]
    fn without_a_hint_exactly_one_daemon_must_run() {
        let home = Home::new();
        let none = home.find(None).unwrap_err();
        assert_eq!(none.code(), "mesh_not_joined");
        let _one = home.run("one");
        let _two = home.run("two");
        let two = home.find(None).unwrap_err();
        assert_eq!((two.code(), two.exit()), ("mesh_required", 2));
        assert!(two.to_string().contains("one, two"), "{two}");
    }

    #[test]
    fn tcp_needs_a_port_and_a_token() {
        let mut home = Home::new();
        home.set("CLAUDEMESH_ADDR", "127.0.0.1:1");
        assert_eq!(home.find(None).unwrap_err().code(), "config_invalid");
        home.set("CLAUDEMESH_TOKEN_FILE", "/t");
        for wrong in ["localhost", "https://x:1", "a b:1", "user@x:1"] {
            home.set("CLAUDEMESH_ADDR", wrong);
            assert!(home.find(None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_directory_cannot_point_outside_of_the_state_directories() {
        let home = Home::new();
        fs::create_dir_all(home.work().join(".claudemesh")).unwrap();
        for mesh in ["../../evil", "", "/tmp/x", &"a".repeat(300)] {
            fs::write(home.work().join(".claudemesh/mesh"), mesh).unwrap();
            let failure = home.find(None).unwrap_err();
            assert_eq!(failure.code(), "invalid_argument", "{failure}");
            assert!(failure.to_string().contains(".claudemesh/mesh"), "{failure}");
        }
    }
}
