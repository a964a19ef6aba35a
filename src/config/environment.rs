//! Where the process runs, told by environment variables and marker files.

use super::source::Source;

/// The kinds of places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A plain host or virtual machine.
    Host,
    /// A container.
    Container,
    /// A Kubernetes pod that is no job.
    Kubernetes,
    /// A continuous-integration job.
    Ci,
    /// A RunPod pod.
    Runpod,
}

/// A place, and what told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Environment {
    /// What it is.
    pub place: Place,
    /// The variable or file that decided; empty for a plain host.
    pub signal: &'static str,
}

/// Variables that only a continuous-integration system sets.
const CI: [&str; 5] = ["GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "CIRCLECI", "JENKINS_URL"];
/// Files that a container runtime makes.
const CONTAINER_FILES: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

// === impl Environment ===

impl Environment {
    /// The most telling sign wins: a job runs in a pod, and a pod in a container.
    pub fn detect(source: &dyn Source, exists: &dyn Fn(&str) -> bool) -> Self {
        let is_set = |name: &&str| source.var(name).is_some();
        if let Some(signal) = CI.into_iter().find(is_set) {
            return Self { place: Place::Ci, signal };
        }
        if source.var("CI").is_some_and(|value| value == "true" || value == "1") {
            return Self { place: Place::Ci, signal: "CI" };
        }
        if is_set(&"RUNPOD_POD_ID") {
            return Self { place: Place::Runpod, signal: "RUNPOD_POD_ID" };
        }
        if is_set(&"KUBERNETES_SERVICE_HOST") {
            return Self { place: Place::Kubernetes, signal: "KUBERNETES_SERVICE_HOST" };
        }
        match CONTAINER_FILES.into_iter().find(|path| exists(path)) {
            Some(signal) => Self { place: Place::Container, signal },
            None => Self { place: Place::Host, signal: "" },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::MapSource;

    fn detect(variables: &[(&str, &str)], file: &str) -> (Place, &'static str) {
        let map = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let found = Environment::detect(&MapSource(map), &|path| path == file);
        (found.place, found.signal)
    }

    #[test]
    fn the_most_telling_sign_wins() {
        assert_eq!(detect(&[], ""), (Place::Host, ""));
        assert_eq!(detect(&[], "/.dockerenv"), (Place::Container, "/.dockerenv"));
        assert_eq!(detect(&[], "/run/.containerenv"), (Place::Container, "/run/.containerenv"));
        let pod = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        assert_eq!(detect(&[pod], "/.dockerenv"), (Place::Kubernetes, "KUBERNETES_SERVICE_HOST"));
        assert_eq!(detect(&[pod, ("CI", "true")], ""), (Place::Ci, "CI"));
        assert_eq!(detect(&[pod, ("GITLAB_CI", "true"), ("CI", "true")], ""), (Place::Ci, "GITLAB_CI"));
        assert_eq!(detect(&[("CI", "1")], ""), (Place::Ci, "CI"));
        assert_eq!(detect(&[("CI", "false")], ""), (Place::Host, ""));
        assert_eq!(detect(&[("RUNPOD_POD_ID", "x"), pod], ""), (Place::Runpod, "RUNPOD_POD_ID"));
    }
}
