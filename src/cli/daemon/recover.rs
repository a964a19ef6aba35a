//! `claudemesh daemon recover`.

use serde_json::json;

use crate::cli::Context;
use crate::cli::discovery::joined_mesh;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::daemon::recover::{self, Finding};
use crate::domain::error_code::{ErrorCode, exit};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The mesh; the only joined one if left out
    #[arg(long, value_name = "MESH")]
    mesh: Option<String>,
    /// Rename damaged databases, so that the daemon starts with new ones. Sends
    /// that were queued in a damaged outbox do not go out
    #[arg(long)]
    set_aside: bool,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<u8, Failure> {
    let root = context.root()?;
    let mesh = joined_mesh(&root, args.mesh.as_deref(), context.source.as_ref(), &context.cwd)?;
    let findings =
        recover::recover(&root, &mesh, args.set_aside).await.map_err(|error| super::foreground::of_start(&error))?;
    if args.json {
        let rows: Vec<_> = findings.iter().map(to_json).collect();
        output.json(&json!({ "mesh": mesh, "databases": rows }))?;
    } else {
        for finding in &findings {
            output.line(to_text(finding))?;
        }
    }
    let damaged = findings.iter().filter(|finding| finding.complaint.is_some() && finding.set_aside.is_none());
    match damaged.map(|finding| finding.database).collect::<Vec<_>>().as_slice() {
        [] => Ok(exit::OK),
        names => Err(Failure::new(ErrorCode::OutboxCorrupt, format!("damaged: {}", names.join(", ")))
            .next("restore the file from a backup, or begin a new one: claudemesh daemon recover --set-aside")
            .next("a new outbox forgets queued sends; the file that is set aside keeps them for sqlite3 .recover")),
    }
}

fn to_text(finding: &Finding) -> String {
    let path = finding.path.display();
    match (&finding.complaint, &finding.set_aside) {
        (None, _) => format!("sound      {}  {path}", finding.database),
        (Some(complaint), None) => format!("damaged    {}  {path}: {complaint}", finding.database),
        (Some(_), Some(kept)) => format!("set aside  {}  {path} is now {}", finding.database, kept.display()),
    }
}

fn to_json(finding: &Finding) -> serde_json::Value {
    json!({
        "database": finding.database,
        "path": finding.path,
        "complaint": finding.complaint,
        "set_aside": finding.set_aside,
    })
}
