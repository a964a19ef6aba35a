//! A broker of a few lines: it answers the three calls as the real one does and
//! notes what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

pub(super) struct StandIn {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: Vec<(String, Value)>,
    /// Slug to owner's key.
    meshes: BTreeMap<String, String>,
    /// Key to member id.
    members: BTreeMap<String, String>,
    /// Cut the connection instead of answering, so many times.
    lose_answers: usize,
    /// What `/join` answers instead.
    refusal: Option<&'static str>,
}

impl StandIn {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(&shared, stream.unwrap());
            }
        });
        Self { url, state }
    }

    /// Handles the next request and loses its answer.
    pub(super) fn lose_next_answer(&self) {
        self.state.lock().unwrap().lose_answers = 1;
    }

    pub(super) fn refuse_joins(&self, reason: &'static str) {
        self.state.lock().unwrap().refusal = Some(reason);
    }

    /// Path and body of each request so far.
    pub(super) fn requests(&self) -> Vec<(String, Value)> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(super) fn members(&self) -> usize {
        self.state.lock().unwrap().members.len()
    }
}

fn serve(state: &Mutex<State>, mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let path = line.split(' ').nth(1).unwrap().to_owned();
    let (mut length, mut bearer) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => bearer = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();

    let mut state = state.lock().unwrap();
    let (status, answer) = state.answer(&path, &bearer, &body);
    state.requests.push((path, body));
    if state.lose_answers > 0 {
        state.lose_answers -= 1;
        return;
    }
    let answer = answer.to_string();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(answer.as_bytes()).unwrap();
}

impl State {
    fn answer(&mut self, path: &str, bearer: &str, body: &Value) -> (u16, Value) {
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        match path {
            "/v1/meshes" if bearer != "Bearer let-me-in" => (401, json!({"code": "admin_token_refused"})),
            "/v1/meshes" => {
                let owner = self.meshes.entry(text("slug")).or_insert_with(|| text("owner_pubkey"));
                if *owner == text("owner_pubkey") {
                    (201, json!({"mesh_id": format!("M-{}", text("slug")), "slug": text("slug")}))
                } else {
                    (409, json!({"code": "mesh_exists"}))
                }
            }
            "/join" => match self.refusal {
                Some(reason) => (400, json!({"ok": false, "error": reason})),
                None => {
                    let next = format!("member-{}", self.members.len() + 1);
                    let id = self.members.entry(text("peer_pubkey")).or_insert(next).clone();
                    (200, json!({"ok": true, "memberId": id}))
                }
            },
            _ => (201, json!({"invite_id": "I1"})),
        }
    }
}
