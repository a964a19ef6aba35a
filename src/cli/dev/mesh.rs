//! The mesh: a broker, its members, and what is done to them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::MESH;
use super::child::{self, Common, STOP_LIMIT, signal};
use super::directory::Directory;
use super::member::Member;
use super::names::{MAX_MEMBERS, check};
use super::relay::Relay;
use crate::cli::failure::Failure;
use crate::config::broker_client::BrokerLink;
use crate::config::paths::Root;
use crate::config::source::ProcessEnvironment;
use crate::domain::error_code::ErrorCode;
use crate::domain::time::UnixMillis;
use crate::membership::config_json::MeshEntry;
use crate::membership::invite::{self, Role, Terms};
use crate::membership::owner::{self, Owner};
use crate::membership::{self, create, join};
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::supervisor::Supervisor;

/// How long processes may take to end in order when the mesh ends.
const END_LIMIT: Duration = Duration::from_secs(1);
/// How long an invite can be used.
const INVITE: Duration = Duration::from_secs(3600);

/// The running mesh.
pub(super) struct Mesh {
    directory: Directory,
    common: Common,
    supervisor: Supervisor,
    /// What blocks threads of its own, and writes below the directory.
    blocking: TaskTracker,
    broker: Option<Child>,
    address: SocketAddr,
    members: Vec<Member>,
}

// === impl Mesh ===

impl Mesh {
    /// A mesh without broker and members.
    pub(super) fn new(directory: Directory, common: Common) -> Self {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        Self {
            directory,
            common,
            supervisor: Supervisor::new(),
            blocking: TaskTracker::new(),
            broker: None,
            address,
            members: Vec::new(),
        }
    }

    /// Starts the broker and the members, the first of whom owns the mesh.
    pub(super) async fn start(&mut self, names: &[String]) -> Result<(), Failure> {
        self.broker_start().await?;
        let Some((first, others)) = names.split_first() else { return Ok(()) };
        self.create(first).await?;
        // Nothing of one member waits for another one.
        let joined = try_join_all(others.iter().map(|name| self.join(name))).await?;
        for (name, (relay, root, entry)) in others.iter().zip(joined) {
            self.members.push(Member::start(name.clone(), relay, root, &entry, &self.common)?);
        }
        let common = &self.common;
        try_join_all(self.members.iter_mut().map(|member| member.sees(names, common))).await?;
        Ok(())
    }

    /// What a program has to know of the mesh.
    pub(super) fn to_json(&self) -> Result<Value, Failure> {
        let members = self.members.iter().map(Member::to_json).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({
            "event": "ready",
            "dir": self.directory.path(),
            "mesh": MESH,
            "broker": self.broker_url(),
            "members": members,
        }))
    }

    /// Names and sockets of the members.
    pub(super) fn sockets(&self) -> Vec<(String, PathBuf)> {
        self.members.iter().map(|member| (member.name.clone(), member.socket())).collect()
    }

    /// The member of that name, and what all processes have in common.
    pub(super) fn member(&mut self, name: &str) -> Result<(&mut Member, &Common), Failure> {
        let known = self.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
        match self.members.iter_mut().find(|member| member.name == name) {
            Some(member) => Ok((member, &self.common)),
            None => Err(Failure::new(ErrorCode::UnknownPeer, format!("no member {name:?}; there are {known}"))),
        }
    }

    /// One more member. It and those who have a way to the broker see each other
    /// afterwards.
    pub(super) async fn add(&mut self, name: &str) -> Result<Value, Failure> {
        check(name, self.members.iter().map(|member| member.name.as_str()))?;
        if self.members.len() >= MAX_MEMBERS {
            let what = format!("the mesh has {MAX_MEMBERS} members, which is the most");
            return Err(Failure::new(ErrorCode::InvalidArgument, what));
        }
        if !self.broker_runs() {
            return Err(broker_away());
        }
        let (relay, root, entry) = self.join(name).await?;
        self.members.push(Member::start(name.to_owned(), relay, root, &entry, &self.common)?);
        let mut reachable: Vec<&mut Member> =
            self.members.iter_mut().filter_map(|member| member.is_reachable().then_some(member)).collect();
        let names: Vec<String> = reachable.iter().map(|member| member.name.clone()).collect();
        let common = &self.common;
        try_join_all(reachable.iter_mut().map(|member| member.sees(&names, common))).await?;
        self.member(name)?.0.to_json()
    }

    /// Starts the broker, at the port that it had.
    pub(super) async fn broker_start(&mut self) -> Result<(), Failure> {
        if self.broker_runs() {
            return Err(Failure::new(ErrorCode::AlreadyRunning, "the broker runs already"));
        }
        let (broker, address) = self.common.broker(&self.broker_dir(), self.address).await?;
        (self.broker, self.address) = (Some(broker), address);
        Ok(())
    }

    /// Ends the broker in order.
    pub(super) async fn broker_stop(&mut self) -> Result<(), Failure> {
        if !self.broker_runs() {
            return Err(broker_away());
        }
        match self.broker.take() {
            Some(mut broker) => self.common.stop(&mut broker, STOP_LIMIT).await.map(drop),
            None => Ok(()),
        }
    }

    /// Moves the clock of all processes, and sees to it that they notice.
    pub(super) async fn advance(&mut self, by: Duration) -> Result<(), Failure> {
        let answering: Vec<usize> =
            (0..self.members.len()).filter(|index| self.members[*index].is_answering()).collect();
        let mut before = Vec::with_capacity(answering.len());
        for index in &answering {
            before.push(self.members[*index].health().await?.uptime_s);
        }
        let Some(faketime) = &mut self.common.faketime else {
            let what = "the clock of this mesh cannot be moved: start it with --clock";
            return Err(Failure::new(ErrorCode::InvalidArgument, what));
        };
        faketime.advance(by)?;
        // A process that sleeps until a time looks at its clock when it wakes up.
        drop(TcpStream::connect(self.address).await);
        for (index, before) in answering.into_iter().zip(before) {
            let member = &self.members[index];
            let passed = u64::from(member.health().await?.uptime_s.saturating_sub(before));
            if passed < by.as_secs() {
                let what = format!(
                    "the clock of {} did not move; a program that is linked statically has none that can be moved",
                    member.name
                );
                return Err(Failure::new(ErrorCode::FaketimeMissing, what));
            }
        }
        Ok(())
    }

    /// Ends every process and removes the directory unless it is kept.
    pub(super) async fn end(self) {
        let mut children: Vec<Child> = self.members.into_iter().filter_map(Member::into_daemon).collect();
        children.extend(self.broker);
        for child in &children {
            // What cannot be signalled is killed below.
            let _ = signal(child, Signal::TERM).and_then(|()| signal(child, Signal::CONT));
        }
        let deadline = self.common.clock.monotonic() + END_LIMIT;
        while self.common.clock.monotonic() < deadline {
            children.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
            if children.is_empty() {
                break;
            }
            tokio::time::sleep(child::LOOK).await;
        }
        for child in &mut children {
            // The system kills it when this process has ended.
            let _ = child::kill(child);
        }
        // A call of which the broker's end was the end.
        self.blocking.close();
        let _ = tokio::time::timeout(END_LIMIT, self.blocking.wait()).await;
        self.directory.end();
    }

    /// Creates the mesh with its first member.
    async fn create(&mut self, name: &str) -> Result<(), Failure> {
        let (relay, root) = (self.relay().await?, self.home(name));
        let env = self.env(&root);
        let options = create::Options {
            broker_url: Some(relay.url()),
            admin_token_file: Some(self.broker_dir().join("admin_token")),
            display_name: Some(name.to_owned()),
            ..create::Options::default()
        };
        let entry = match self.aside(move || create::create(&env, MESH, &options)).await? {
            create::Outcome::Created(entry) | create::Outcome::AlreadyThere(entry) => entry,
        };
        self.members.push(Member::start(name.to_owned(), relay, root, &entry, &self.common)?);
        Ok(())
    }

    /// Lets a further member join, by its own way to the broker.
    async fn join(&self, name: &str) -> Result<(Relay, Root, MeshEntry), Failure> {
        let (relay, root) = (self.relay().await?, self.home(name));
        let (env, owner) = (self.env(&root), Owner { broker_url: relay.url(), ..self.owner()? });
        let options = join::Options { display_name: Some(name.to_owned()) };
        let outcome = self.aside(move || {
            let terms = Terms { role: Role::Member, uses: 1, lifetime: INVITE, plain: false };
            let invite = invite::make(&env, &owner, &terms)?;
            join::join(&env, &invite.link, &options)
        });
        let entry = match outcome.await? {
            join::Outcome::Joined { entry, .. } | join::Outcome::AlreadyJoined(entry) => entry,
        };
        Ok((relay, root, entry))
    }

    /// The key of the mesh, at its first member.
    fn owner(&self) -> Result<Owner, Failure> {
        let first = self.members.first().map(|member| self.home(&member.name));
        let owner = first.map(|root| owner::find(&root, MESH)).transpose()?.flatten();
        owner.ok_or_else(|| Failure::new(ErrorCode::OwnerKeyMissing, "the mesh has no owner's key"))
    }

    /// Does what blocks on a thread of its own: the relays must go on meanwhile.
    async fn aside<T, F>(&self, work: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, membership::Error> + Send + 'static,
    {
        let result = self.blocking.spawn_blocking(work).await;
        let result = result.map_err(|error| Failure::new(ErrorCode::InternalError, format!("cannot join: {error}")))?;
        Ok(result?)
    }

    async fn relay(&self) -> Result<Relay, Failure> {
        let relay = Relay::start(self.address, &self.supervisor).await;
        relay.map_err(|error| Failure::new(ErrorCode::ListenFailed, format!("cannot listen on loopback: {error}")))
    }

    fn env(&self, root: &Root) -> membership::Env {
        let mut clock = self.common.clock.clone();
        if let Some(faketime) = &self.common.faketime {
            // As the broker sees the time; a moment's work needs none that goes on.
            let offset = i64::try_from(faketime.offset().as_millis()).unwrap_or(i64::MAX);
            clock = Clock::manual(UnixMillis(clock.now().0.saturating_add(offset)));
        }
        membership::Env {
            root: root.clone(),
            ids: IdSource::new(clock.clone()),
            clock,
            link: BrokerLink::default(),
            environment: Arc::new(ProcessEnvironment),
        }
    }

    fn home(&self, name: &str) -> Root {
        Root::at(self.directory.path().join(name))
    }

    fn broker_dir(&self) -> PathBuf {
        // No member's name begins like this.
        self.directory.path().join("_broker")
    }

    fn broker_url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    fn broker_runs(&mut self) -> bool {
        self.broker.as_mut().is_some_and(|broker| matches!(broker.try_wait(), Ok(None)))
    }
}

fn broker_away() -> Failure {
    Failure::new(ErrorCode::BrokerUnreachable, "the broker does not run")
}
