//! The gate before a send is accepted: it may drop the message or change it (R208).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::catalog::State;
use super::run::Job;
use super::{Error, Handle, input};
use crate::domain::capability::Trigger;
use crate::domain::fingerprint::LocalFingerprint;
use crate::domain::message::{Meta, Priority, SendRequest};

/// How long a send waits for a free place.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// Sends of one id, one at a time.
#[derive(Debug, Default)]
pub(super) struct Flights(std::sync::Mutex<HashMap<String, Weak<Mutex<Refused>>>>);

/// Why the send before was not let through: for those that waited for it.
type Refused = Option<(LocalFingerprint, Arc<Error>)>;

/// The right to decide about an id; given back when dropped.
#[derive(Debug)]
pub struct Flight(OwnedMutexGuard<Refused>);

// === impl Handle ===

impl Handle {
    /// Whether sends pass a hook. Costs one look at a flag.
    pub fn has_pre_send(&self) -> bool {
        self.0.has_pre_send.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Waits until no other send of this id is between its look-up and its row, so
    /// that the hook runs once for it.
    pub async fn flight(&self, id: &str) -> Flight {
        let lock = {
            let mut open = self.0.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|_, lock| lock.strong_count() > 0);
            match open.get(id).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::new(Mutex::new(None));
                    open.insert(id.to_owned(), Arc::downgrade(&lock));
                    lock
                }
            }
        };
        Flight(lock.lock_owned().await)
    }

    /// Asks the hook about a send. `written` is what its caller wrote: a repeat that
    /// waited while the hook was asked about the same gets the same answer.
    pub async fn pre_send(
        &self,
        flight: &mut Flight,
        written: LocalFingerprint,
        request: &mut SendRequest,
    ) -> Result<(), Arc<Error>> {
        if let Some((of, refused)) = &*flight.0
            && *of == written
        {
            return Err(Arc::clone(refused));
        }
        self.ask(request).await.map_err(|error| {
            let error = Arc::new(error);
            *flight.0 = Some((written, Arc::clone(&error)));
            error
        })
    }

    /// One that cannot run, or does not end well, lets nothing through: a gate that
    /// opens by itself is none.
    async fn ask(&self, request: &mut SendRequest) -> Result<(), Error> {
        let catalog = self.catalog();
        let Some(hook) = catalog.pre_send() else { return Ok(()) };
        if hook.state == State::Missing {
            return Err(Error::Undecided(hook.detail.clone()));
        }
        let Some(hook) = hook.active() else { return Ok(()) };
        let inner = &self.0;
        let message_id = inner.deps.ids.ulid();
        let send = input::send(request);
        let input = input::own("pre_send", &message_id, &inner.deps.mesh, inner.deps.clock.now(), send);
        let job = Job { hook, message_id, input, trigger: Trigger::default() };
        // Not the places of other hooks: those may be busy for long.
        let place = tokio::time::timeout(PLACE_WAIT, Arc::clone(&inner.pre_send_places).acquire_owned());
        let place = place.await.map_err(|_| Error::Busy)?;
        let ran = inner.run(&job).await;
        drop(place);
        let (run, cut_off) = (ran.run.clone(), ran.cut_off);
        inner.report(&inner.deps.ids.ulid(), ran.run, &job.hook.policy).await;
        if cut_off {
            return Err(Error::Undecided("the daemon stops".to_owned()));
        }
        if !run.is_success() {
            let why = match run.start_error.as_str() {
                "" => format!("it ended with {}", super::report::exit_label(&run)),
                problem => problem.to_owned(),
            };
            return Err(Error::Undecided(why));
        }
        match ran.answer {
            // Nothing to say is consent; words that are no answer are not.
            None if run.stdout_bytes == 0 => Ok(()),
            None => Err(Error::Undecided("its standard output is no JSON object".to_owned())),
            Some(answer) => apply(&answer, request),
        }
    }
}

/// Does what the hook answered: `{"drop": true, "reason": ".."}`, or other values of
/// `message`, `meta` and `priority`.
fn apply(answer: &Map<String, Value>, request: &mut SendRequest) -> Result<(), Error> {
    let known = ["drop", "reason", "message", "meta", "priority"];
    if let Some(name) = answer.keys().find(|name| !known.contains(&name.as_str())) {
        return Err(Error::Undecided(format!("its answer has the member `{name}`; there are {}", known.join(", "))));
    }
    match answer.get("drop") {
        None | Some(Value::Bool(false)) => {}
        Some(Value::Bool(true)) => {
            let reason = answer.get("reason").and_then(Value::as_str);
            return Err(Error::Dropped { reason: reason.map(|text| text.chars().take(500).collect()) });
        }
        Some(_) => return Err(Error::Undecided("`drop` is neither true nor false".to_owned())),
    }
    match answer.get("message") {
        None => {}
        Some(Value::String(text)) => request.body.clone_from(text),
        Some(_) => return Err(Error::Undecided("`message` is no text".to_owned())),
    }
    match answer.get("meta") {
        None => {}
        Some(Value::Null) => request.meta = None,
        Some(Value::Object(meta)) => request.meta = Meta::from_object(meta)?,
        Some(_) => return Err(Error::Undecided("`meta` is no object".to_owned())),
    }
    match answer.get("priority").map(Value::as_str) {
        None => {}
        Some(name) => {
            let priority = name.and_then(Priority::from_name);
            request.priority =
                priority.ok_or_else(|| Error::Undecided("`priority` is none of now, next and low".to_owned()))?;
        }
    }
    request.validate()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answered(answer: Value) -> Result<SendRequest, Error> {
        let mut request = SendRequest {
            client_message_id: None,
            to: "bob".to_owned(),
            body: "hello".to_owned(),
            priority: Priority::Next,
            meta: None,
            answered: Vec::new(),
            reply_to_id: None,
            mentions: Vec::new(),
            allow_unencrypted: false,
            auto_hops: 0,
        };
        apply(answer.as_object().unwrap(), &mut request)?;
        Ok(request)
    }

    // Covers: R208
    #[test]
    fn an_answer_drops_changes_or_lets_through() {
        assert_eq!(answered(json!({})).unwrap().body, "hello");
        let changed =
            answered(json!({"message": "other", "meta": {"a": 1}, "priority": "low", "drop": false})).unwrap();
        assert_eq!((changed.body.as_str(), changed.priority), ("other", Priority::Low));
        assert_eq!(changed.meta.unwrap().as_str(), "{\"a\":1}");
        let dropped = answered(json!({"drop": true, "reason": "secret"})).unwrap_err();
        assert!(dropped.to_string().contains("secret"), "{dropped}");
        for wrong in [
            json!({"to": "eve"}),
            json!({"drop": "yes"}),
            json!({"message": 1}),
            json!({"message": ""}),
            json!({"priority": "soon"}),
            json!({"meta": []}),
        ] {
            let error = answered(wrong.clone()).unwrap_err();
            assert_eq!(error.code().name(), "pre_send_failed", "{wrong}");
        }
    }
}
