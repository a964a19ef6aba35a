//! Which daemon a command talks to.
//!
//! The order is the same in every SDK: an explicit argument,
//! `CLAUDEMESH_DAEMON_SOCK`, `CLAUDEMESH_ADDR` with `CLAUDEMESH_TOKEN_FILE`,
//! `CLAUDEMESH_MESH`, `.claudemesh/mesh` in the working directory or above, the
//! only running daemon. TCP is used only when it was asked for. What is empty is
//! not given. `sdk/conformance/discovery.json` has it as cases.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::failure::Failure;
use super::running;
use crate::config::paths::Root;
use crate::config::source::Source;
use crate::domain::error_code::ErrorCode;
use crate::membership::config_json::ConfigJson;
use crate::membership::names::check_slug;

/// So much of `.claudemesh/mesh` is read: its first line is a slug and white space.
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
    let explicit = args.mesh.as_deref().filter(|mesh| !mesh.is_empty());
    if let Some(path) = args.socket.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        return Ok(Address::Socket { path: path.clone(), mesh: None });
    }
    if explicit.is_none() {
        if let Some(path) = source.var("CLAUDEMESH_DAEMON_SOCK") {
            return Ok(Address::Socket { path: path.into(), mesh: None });
        }
        if let Some(address) = source.var("CLAUDEMESH_ADDR") {
            return tcp(&address, source.var("CLAUDEMESH_TOKEN_FILE"));
        }
    }
    let root = Root::find(source)?;
    let mesh = match named_mesh(explicit, source, cwd)? {
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
    let usable = authority
        .parse::<http::uri::Authority>()
        .is_ok_and(|authority| !authority.host().is_empty() && authority.port_u16().is_some_and(|port| port > 0));
    if !usable || authority.contains('@') {
        return Err(Failure::new(ErrorCode::InvalidArgument, format!("CLAUDEMESH_ADDR={address} is no address"))
            .next("write host:port, such as 127.0.0.1:47910"));
    }
    match token_file {
        Some(file) => Ok(Address::Tcp { authority: authority.to_owned(), token_file: file.into() }),
        None => Err(Failure::new(ErrorCode::InvalidArgument, "CLAUDEMESH_ADDR is set without CLAUDEMESH_TOKEN_FILE")
            .next("set it to the path of the daemon's local_token")),
    }
}

/// The first line of `.claudemesh/mesh` here or above, and the file's path.
fn mesh_of_directory(cwd: &Path) -> Result<Option<(String, PathBuf)>, Failure> {
    for directory in cwd.ancestors() {
        let path = directory.join(".claudemesh").join("mesh");
        // A pipe would let the command wait for its other end.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(unreadable(&path, &error)),
        };
        let found = file.metadata().map_err(|error| unreadable(&path, &error))?;
        if !found.is_file() {
            return Err(unreadable(&path, &io::Error::other("it is no file")));
        }
        // Above the working directory others may write; whose mesh is sent to is not
        // theirs to say.
        if ![0, rustix::process::geteuid().as_raw()].contains(&found.uid()) {
            let why = format!("it belongs to the user {}, and counts only if it is yours or root's", found.uid());
            return Err(unreadable(&path, &io::Error::other(why)));
        }
        let mut text = Vec::new();
        file.take(MAX_MESH_FILE).read_to_end(&mut text).map_err(|error| unreadable(&path, &error))?;
        // What is no text is no slug either.
        let text = String::from_utf8_lossy(&text);
        return Ok(Some((text.lines().next().unwrap_or_default().trim().to_owned(), path)));
    }
    Ok(None)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(ErrorCode::ConfigInvalid, format!("cannot read {}: {error}", path.display()))
        .next("name the mesh with --mesh")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use clap::Parser as _;
    use serde_json::{Value, json};

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
    }

    /// One case of the file that the SDKs run, too; `discovery.md` beside it says
    /// what the fields are.
    #[derive(serde::Deserialize)]
    struct Case {
        id: String,
        #[serde(default)]
        daemons: BTreeMap<String, String>,
        #[serde(default)]
        files: BTreeMap<String, String>,
        #[serde(default)]
        env: BTreeMap<String, String>,
        #[serde(default)]
        cwd: Option<String>,
        #[serde(default)]
        args: BTreeMap<String, String>,
        expect: Value,
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        daemon: DaemonArgs,
    }

    /// Runs a case: what was found, in the form of `expect`, and the words of a
    /// failure.
    fn found(case: &Case) -> (Value, String) {
        let dir = tempfile::tempdir().unwrap();
        let at = |text: &str| text.replace("${TMP}", dir.path().to_str().unwrap());
        let mut locks = Vec::new();
        for (path, state) in &case.daemons {
            let path = dir.path().join(path);
            fs::create_dir_all(&path).unwrap();
            match state.as_str() {
                "running" => locks.push(InstanceLock::acquire(&path.join("lock")).unwrap()),
                "stopped" => drop(InstanceLock::acquire(&path.join("lock")).unwrap()),
                _ => assert_eq!(state, "no_lock"),
            }
        }
        for (path, content) in &case.files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let cwd = dir.path().join(case.cwd.as_deref().unwrap_or("work"));
        fs::create_dir_all(&cwd).unwrap();
        let mut source = MapSource(case.env.iter().map(|(name, value)| (name.clone(), at(value))).collect());
        source.0.insert("HOME".to_owned(), dir.path().join("home").display().to_string());
        let line = case.args.iter().map(|(name, value)| format!("--{name}={}", at(value)));
        let result = match Line::try_parse_from(std::iter::once("claudemesh".to_owned()).chain(line)) {
            Ok(line) => find(&line.daemon, &source, &cwd),
            Err(error) => Err(crate::cli::usage::failure(&error).unwrap()),
        };
        let back = |path: &Path| path.to_str().unwrap().replace(dir.path().to_str().unwrap(), "${TMP}");
        match result {
            Ok(Address::Socket { path, .. }) => (json!({ "kind": "unix", "path": back(&path) }), String::new()),
            Ok(Address::Tcp { authority, token_file }) => {
                (json!({ "kind": "tcp", "address": authority, "token_file": back(&token_file) }), String::new())
            }
            Err(failure) => {
                // A line whose arguments contradict each other, and a mesh that the
                // SDKs know nothing about.
                let code = match failure.code() {
                    "usage_error" => "invalid_argument",
                    "mesh_not_joined" => "daemon_not_running",
                    code => code,
                };
                (json!({ "error": code }), failure.to_string())
            }
        }
    }

    #[test]
    fn the_daemon_is_found_as_the_sdks_find_it() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/conformance/discovery.json");
        let mut file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let cases: Vec<Case> = serde_json::from_value(file["cases"].take()).unwrap();
        // Arguments that no command has.
        let has_all = |case: &&Case| !["address", "token", "token_file"].iter().any(|arg| case.args.contains_key(*arg));
        let mut count = 0;
        for case in cases.iter().filter(has_all) {
            let (found, words) = found(case);
            let mut expected = case.expect.clone();
            if let Some(names) = expected.as_object_mut().and_then(|expected| expected.remove("names")) {
                for name in names.as_array().unwrap() {
                    assert!(words.contains(name.as_str().unwrap()), "{}: {words}", case.id);
                }
            }
            assert_eq!(found, expected, "{}: {words}", case.id);
            count += 1;
        }
        assert!(count > 40, "{count} cases");
    }

    #[test]
    fn without_a_hint_it_is_said_what_to_do() {
        let home = Home::new();
        let none = home.find(None).unwrap_err();
        assert_eq!(none.code(), "mesh_not_joined");
        let _one = home.run("one");
        let _two = home.run("two");
        let two = home.find(None).unwrap_err();
        assert_eq!((two.code(), two.exit()), ("mesh_required", 2));
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
