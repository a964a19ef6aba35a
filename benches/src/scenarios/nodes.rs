//! Two brokers of one PostgreSQL database: what the way through both costs beside the way
//! through one.

use anyhow::Result;

use super::{backlog, end_to_end};
use crate::mesh::{Broker, Member};
use crate::peers::postgres::Postgres;
use crate::{Run, machine};

/// One round; nothing without the database's programs.
pub async fn round(run: &mut Run) -> Result<()> {
    let (time, folder) = (run.time, run.folder()?);
    let folder = folder.path();
    let Some(postgres) = Postgres::start(folder).await? else { return Ok(()) };
    let first = Broker::over(&run.binary, &folder.join("first"), &postgres.database("mesh")?).await?;
    let second = first.another(&folder.join("second")).await?;
    let link = first.invite(2)?;
    let mut alice = Member::join(&run.binary, folder, &link, "alice")?;
    let mut bob = Member::join(&run.binary, folder, &link, "bob")?;
    alice.start().await?;
    for (place, broker) in [("one", None), ("two", Some(&second))] {
        if let Some(broker) = broker {
            bob.stop()?;
            bob.move_to(&first, broker)?;
        }
        bob.start().await?;
        alice.connected_with("bob").await?;
        bob.connected_with("alice").await?;
        machine::quiet().await;
        run.add(format!("nodes/{place}/1"), end_to_end::one_at_a_time(&alice, &bob, place, time).await?);
    }
    machine::quiet().await;
    run.add("nodes/two/live", backlog::live(&alice, &bob).await?);
    machine::quiet().await;
    run.add("nodes/two/drain", backlog::drain(&alice, &mut bob, 0).await?);
    Ok(())
}
