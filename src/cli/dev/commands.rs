//! Commands of a program: one JSON object a line, one answer each.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::faketime::MAX_OFFSET;
use super::lines::{Line, MAX_LINE};
use super::mesh::Mesh;
use super::relay::Flow;
use crate::cli::failure::Failure;
use crate::domain::error_code::ErrorCode;

const EXAMPLE: &str = r#"such as {"id":1,"do":"kill","member":"alice"}"#;
/// What can be done.
const ALL: &str = "kill, stop, start, restart, pause, resume, cut, stall, mend, add, broker_stop, broker_start, clock";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    #[serde(default, rename = "id")]
    _id: Value,
    #[serde(rename = "do")]
    verb: String,
    member: Option<String>,
    advance_s: Option<f64>,
}

/// Carries out the command of a line; the answer, whatever came of it.
pub(super) async fn answer(line: &Line, mesh: &mut Mesh) -> Value {
    let (id, command) = parse(line);
    let result = match command {
        Ok(command) => run(&command, mesh).await,
        Err(failure) => Err(failure),
    };
    let mut answer = json!({ "id": id });
    match result {
        Ok(more) => {
            answer["ok"] = true.into();
            for (name, value) in more {
                answer[name] = value;
            }
        }
        Err(failure) => {
            answer["ok"] = false.into();
            answer["error"] = json!(failure);
        }
    }
    answer
}

/// The command's id, as far as it can be read, and the command.
fn parse(line: &Line) -> (Value, Result<Command, Failure>) {
    let text = match line {
        Line::Text(text) => text,
        Line::TooLong => {
            return (Value::Null, Err(wrong(format!("the line is longer than {MAX_LINE} bytes"))));
        }
    };
    let value: Value = match serde_json::from_slice(text) {
        Ok(value) => value,
        Err(error) => {
            return (Value::Null, Err(wrong(format!("the line is no JSON: {error}; write a command {EXAMPLE}"))));
        }
    };
    if !value.is_object() {
        return (Value::Null, Err(wrong(format!("a command is a JSON object, {EXAMPLE}"))));
    }
    let id = value.get("id").cloned().unwrap_or_default();
    let command =
        serde_json::from_value(value).map_err(|error| wrong(format!("no command: {error}; write one {EXAMPLE}")));
    (id, command)
}

async fn run(command: &Command, mesh: &mut Mesh) -> Result<Map<String, Value>, Failure> {
    let mut more = Map::new();
    match command.verb.as_str() {
        "broker_stop" => mesh.broker_stop().await?,
        "broker_start" => mesh.broker_start().await?,
        "clock" => mesh.advance(advance(command)?).await?,
        "add" => {
            let member = mesh.add(name(command)?).await?;
            more.insert("member".to_owned(), member);
        }
        verb @ ("start" | "restart") => {
            let (member, common) = mesh.member(name(command)?)?;
            if verb == "restart" {
                member.stop(common).await?;
            }
            member.up(common).await?;
            more.insert("member".to_owned(), member.to_json()?);
        }
        verb @ ("kill" | "stop" | "pause" | "resume" | "cut" | "stall" | "mend") => {
            let (member, common) = mesh.member(name(command)?)?;
            match verb {
                "kill" => member.kill()?,
                "stop" => member.stop(common).await?,
                "pause" => member.pause()?,
                "resume" => member.resume()?,
                "cut" => member.relay.set(Flow::Cut),
                "stall" => member.relay.set(Flow::Stalled),
                _ => member.relay.set(Flow::Open),
            }
        }
        other => {
            let shown: String = other.chars().take(80).collect();
            return Err(wrong(format!("there is no command {shown:?}; there are {ALL}")));
        }
    }
    Ok(more)
}

fn name(command: &Command) -> Result<&str, Failure> {
    command.member.as_deref().ok_or_else(|| wrong(format!("{:?} needs a `member`", command.verb)))
}

fn advance(command: &Command) -> Result<Duration, Failure> {
    let seconds = command.advance_s.ok_or_else(|| wrong("\"clock\" needs `advance_s`".to_owned()))?;
    if !(0.0..=MAX_OFFSET.as_secs_f64()).contains(&seconds) {
        return Err(wrong(format!("`advance_s` is from 0 to {}: a clock goes forward only", MAX_OFFSET.as_secs())));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn wrong(what: String) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, what)
}
