//! How a hook is confined: which program starts it, with which arguments, and what
//! could not be enforced (R250 to R256).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::catalog::Active;
use crate::config::hooks_file::{FsPolicy, NetworkPolicy, Sandbox};

/// Where tools are looked for when the daemon has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The group under which a hook runs when packets are refused by their owner. Used
/// for nothing else.
const OWNER_GROUP: &str = "62950";

/// The program that starts a hook.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    /// What could not be enforced: the policy and the reason.
    pub(super) weak: Vec<(&'static str, &'static str)>,
}

/// What a run shows its hook, and what it hides.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// The hook.
    pub(super) hook: &'a Active,
    /// A name for the run: the directory below /tmp that it may write.
    pub(super) run: &'a str,
    /// The directory of the run's socket.
    pub(super) socket: Option<&'a Path>,
    /// This program.
    pub(super) binary: &'a Path,
    /// Directories with keys and databases.
    pub(super) hidden: &'a [PathBuf],
}

/// How a hook is kept from the network without a sandbox: the first of these that
/// works (R253).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    /// A network namespace of its own, inside a user namespace where that is needed.
    Namespace { user: bool },
    /// A group whose packets are refused.
    OwnerMatch,
    /// Nothing.
    None,
}

/// The tools of this host.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    unshare: Option<PathBuf>,
    setpriv: Option<PathBuf>,
    bwrap: Option<PathBuf>,
    rung: Rung,
}

// === impl Tools ===

impl Tools {
    /// Looks for the tools in a search path, and tries what works.
    pub(super) async fn find(path: Option<&str>) -> Self {
        let path = path.unwrap_or(DEFAULT_PATH);
        let find = |name: &str| std::env::split_paths(path).map(|dir| dir.join(name)).find(|file| file.is_file());
        let (unshare, setpriv, iptables, ip6tables) =
            (find("unshare"), find("setpriv"), find("iptables"), find("ip6tables"));
        let is_root = rustix::process::geteuid().is_root();
        let mut rung = Rung::None;
        if let Some(unshare) = &unshare {
            for user in if is_root { [false, true] } else { [true, true] } {
                let mut arguments = namespace(user);
                arguments.push("true".into());
                if succeeds(unshare, &arguments).await {
                    rung = Rung::Namespace { user };
                    break;
                }
            }
        }
        if let (Rung::None, true, Some(_), Some(v4), Some(v6)) = (rung, is_root, &setpriv, &iptables, &ip6tables)
            && refuse_group(v4).await
            && refuse_group(v6).await
        {
            rung = Rung::OwnerMatch;
        }
        Self { unshare, setpriv, bwrap: find("bwrap"), rung }
    }

    /// How to start a hook. An error when its sandbox is not there: a hook that asks
    /// for one is not trusted without it.
    pub(super) fn plan(&self, view: &View<'_>) -> Result<Plan, String> {
        let policy = &view.hook.policy;
        let mut weak = Vec::new();
        let mut offline = policy.network_policy == NetworkPolicy::Deny;
        if policy.network_policy == NetworkPolicy::Allowlist {
            // No host is the same as none; a list of hosts would need a filter of its own.
            offline = policy.network_allowlist.is_empty();
            if !offline {
                weak.push(("network_policy", "network_allowlist"));
            }
        }
        let plain = || (view.hook.path.clone(), Vec::new());
        let (program, arguments) = match (policy.sandbox, policy.fs_policy, &self.bwrap) {
            (Some(Sandbox::SandboxExec), ..) => (PathBuf::from("/usr/bin/sandbox-exec"), seatbelt(view, offline, true)),
            (Some(Sandbox::Bubblewrap), _, None) => {
                return Err("sandbox = \"bubblewrap\", but there is no `bwrap`; install bubblewrap".to_owned());
            }
            (Some(Sandbox::Bubblewrap), _, Some(bwrap)) => (bwrap.clone(), sandboxed(view, offline)),
            (None, FsPolicy::Readonly, Some(bwrap)) => (bwrap.clone(), read_only(view, offline)),
            (None, fs_policy, _) => {
                if fs_policy == FsPolicy::Readonly {
                    weak.push(("fs_policy", "fs_readonly"));
                }
                if offline { self.offline(view, &mut weak) } else { plain() }
            }
        };
        Ok(Plan { program, arguments, weak })
    }

    /// Without network and without a sandbox.
    fn offline(&self, view: &View<'_>, weak: &mut Vec<(&'static str, &'static str)>) -> (PathBuf, Vec<OsString>) {
        if cfg!(target_os = "macos") {
            return (PathBuf::from("/usr/bin/sandbox-exec"), seatbelt(view, true, false));
        }
        let hook = OsString::from(&view.hook.path);
        match (self.rung, &self.unshare, &self.setpriv) {
            (Rung::Namespace { user }, Some(unshare), _) => {
                let mut arguments = namespace(user);
                arguments.extend(["--".into(), hook]);
                (unshare.clone(), arguments)
            }
            (Rung::OwnerMatch, _, Some(setpriv)) => {
                let words = ["--regid", OWNER_GROUP, "--clear-groups", "--"];
                let arguments = words.into_iter().map(OsString::from).chain([hook]).collect();
                (setpriv.clone(), arguments)
            }
            _ => {
                weak.push(("network_policy", "network_deny"));
                (view.hook.path.clone(), Vec::new())
            }
        }
    }
}

fn namespace(user: bool) -> Vec<OsString> {
    let words: &[&str] = if user { &["--user", "--map-current-user", "--net"] } else { &["--net"] };
    words.iter().map(OsString::from).collect()
}

/// Has the packets of the group refused, once.
async fn refuse_group(iptables: &Path) -> bool {
    let rule = |action: &str| -> Vec<OsString> {
        let words = [action, "OUTPUT", "-m", "owner", "--gid-owner", OWNER_GROUP, "-j", "REJECT"];
        words.into_iter().map(OsString::from).collect()
    };
    succeeds(iptables, &rule("-C")).await || succeeds(iptables, &rule("-A")).await
}

async fn succeeds(program: &Path, arguments: &[OsString]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let limit = std::time::Duration::from_secs(5);
    tokio::time::timeout(limit, command.status()).await.is_ok_and(|status| status.is_ok_and(|status| status.success()))
}

/// The directories to hide, as the system knows them, without those that lie in
/// another one: what is mounted over a link, or over what is hidden already, is not
/// where it is looked for.
fn hidden(view: &View<'_>) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = view.hidden.iter().filter_map(|path| path.canonicalize().ok()).collect();
    all.sort();
    all.dedup_by(|path, before| path.starts_with(before));
    all
}

/// Everything read-only, nothing hidden.
fn read_only(view: &View<'_>, offline: bool) -> Vec<OsString> {
    let mut arguments = Arguments::default();
    if offline {
        arguments.flag("--unshare-net");
    }
    arguments.two("--ro-bind", "/", "/").weaken().command(&view.hook.path)
}

/// The profile of R250: no network unless it is allowed, a read-only file system
/// but for a directory of the run, no /proc, no D-Bus (all of /run is gone), nothing
/// of this program's files but the hook and the run's socket.
fn sandboxed(view: &View<'_>, offline: bool) -> Vec<OsString> {
    let own = format!("/tmp/{}", view.run);
    let mut arguments = Arguments::default();
    for flag in ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"] {
        arguments.flag(flag);
    }
    if offline {
        arguments.flag("--unshare-net");
    }
    let only_shown = view.hook.policy.fs_policy == FsPolicy::Sandbox;
    if only_shown {
        for path in ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32"] {
            arguments.two("--ro-bind-try", path, path);
        }
        for path in
            ["/etc/alternatives", "/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/passwd", "/etc/group", "/etc/ssl"]
        {
            arguments.two("--ro-bind-try", path, path);
        }
        if !offline {
            arguments.two("--ro-bind-try", "/etc/resolv.conf", "/etc/resolv.conf");
        }
    } else {
        arguments.two("--ro-bind", "/", "/");
    }
    arguments.weaken().one("--tmpfs", "/proc").one("--tmpfs", "/run").one("--tmpfs", "/tmp");
    let hidden = hidden(view);
    for hidden in &hidden {
        arguments.one("--tmpfs", hidden);
    }
    arguments.one("--tmpfs", &own);
    // After what hides them: each of these lies below a hidden directory.
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut shown = vec![real(&view.hook.path), real(view.binary)];
    shown.extend(view.socket.map(real));
    for path in &shown {
        arguments.two("--ro-bind-try", path, path);
    }
    if only_shown {
        // The links on the way to them are not there: each is shown by its other name too.
        for path in [Some(view.hook.path.as_path()), Some(view.binary), view.socket].into_iter().flatten() {
            if !shown.iter().any(|real| real == path) {
                arguments.two("--ro-bind-try", path, path);
            }
        }
    }
    for hidden in &hidden {
        arguments.one("--remount-ro", hidden);
    }
    for path in ["/proc", "/run", "/tmp"] {
        arguments.one("--remount-ro", path);
    }
    if only_shown {
        arguments.one("--remount-ro", "/");
    }
    arguments.one("--chdir", &own).command(&view.hook.path)
}

/// The same on macOS, in the words of its sandbox.
fn seatbelt(view: &View<'_>, offline: bool, sandbox: bool) -> Vec<OsString> {
    let mut profile = "(version 1)(allow default)".to_owned();
    if offline {
        profile += "(deny network*)(allow network* (remote unix-socket))";
    }
    if sandbox {
        let quoted = |path: &Path| path.display().to_string().replace(['"', '\\'], "");
        profile += &format!("(deny file-write*)(allow file-write* (subpath \"/private/tmp/{}\"))", view.run);
        for hidden in view.hidden {
            profile += &format!("(deny file-read* (subpath \"{}\"))", quoted(hidden));
        }
        profile += &format!("(allow file-read* (literal \"{}\"))", quoted(&view.hook.path));
        if let Some(socket) = view.socket {
            profile += &format!("(allow file-read* (subpath \"{}\"))", quoted(socket));
        }
    }
    vec!["-p".into(), profile.into(), OsString::from(&view.hook.path)]
}

/// Arguments of `bwrap`.
#[derive(Debug, Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn one(&mut self, option: &str, value: impl AsRef<std::ffi::OsStr>) -> &mut Self {
        self.flag(option).0.push(value.as_ref().to_owned());
        self
    }

    /// Takes away what would undo the rest: capabilities, with which root mounts and
    /// unmounts, and devices, among them the terminal, into which a process can type
    /// commands for whoever sits at it. A session of its own would do that too, but
    /// then signals to the process group would not reach the hook. Not
    /// `--die-with-parent`: the signal at the timeout ends `bwrap` first, and the
    /// hook's processes would be killed without their time to end in order.
    fn weaken(&mut self) -> &mut Self {
        self.one("--cap-drop", "ALL").one("--dev", "/dev").two("--dev-bind", "/dev/null", "/dev/tty")
    }

    fn two(
        &mut self,
        option: &str,
        first: impl AsRef<std::ffi::OsStr>,
        second: impl AsRef<std::ffi::OsStr>,
    ) -> &mut Self {
        self.one(option, first).0.push(second.as_ref().to_owned());
        self
    }

    fn command(&mut self, program: &Path) -> Vec<OsString> {
        self.one("--", program);
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::hooks_file;

    #[test]
    fn what_is_hidden_is_hidden_once_and_by_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in ["a", "a/b", "ab"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("ab"), root.join("link")).unwrap();
        std::fs::write(root.join(hooks_file::FILE), "[on-dm]\n").unwrap();
        let policy = hooks_file::load(&root, 1).unwrap().unwrap().remove("on-dm").unwrap();
        let hook = Active { name: "on-dm".to_owned(), path: root.join("on-dm.sh"), policy: policy.into() };
        let paths: Vec<PathBuf> = ["link", "a/b", "gone", "a", "ab"].iter().map(|name| root.join(name)).collect();
        let view = View { hook: &hook, run: "run", socket: None, binary: Path::new("/bin/true"), hidden: &paths };
        assert_eq!(hidden(&view), [root.join("a"), root.join("ab")]);
    }
}
