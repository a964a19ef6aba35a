//! A send until it is durable, the broker out of reach, beside what else
//! acknowledges a message only when it is on the disk.

use std::time::Duration;

use anyhow::Result;

use crate::Run;
use crate::peers::nats::Nats;
use crate::peers::postgres::Postgres;
use crate::peers::redis::Redis;
use crate::{clients, machine, mesh};

/// Callers at once.
const CALLERS: [usize; 3] = [1, 16, 64];

/// One round.
pub async fn round(run: &mut Run) -> Result<()> {
    let (time, folder) = (run.time, run.folder()?);
    let folder = folder.path();

    let (mut broker, alice, mut bob) = mesh::pair(&run.binary, folder).await?;
    bob.stop()?;
    broker.stop()?;
    let mut client = alice.messaging().await?;
    // The log file reaches its working size before anything counts.
    clients::send(&client, "bob", 64, Duration::from_millis(700)).await?;
    for callers in CALLERS {
        machine::quiet().await;
        run.add(format!("send/grpc/{callers}"), clients::send(&client, "bob", callers, time).await?);
        machine::quiet().await;
        run.add(format!("send/rest/{callers}"), clients::rest_send(&alice.socket(), "bob", callers, time).await?);
    }
    machine::quiet().await;
    run.add("send/stream/64", clients::send_stream(&mut client, "bob", 64, time).await?);
    drop((client, alice));

    if let Some(nats) = Nats::start(folder, run.nats.as_deref()).await? {
        for callers in CALLERS {
            machine::quiet().await;
            run.add(format!("nats/{callers}"), nats.publish(callers, time).await?);
        }
    }
    if let Some(redis) = Redis::start(folder).await? {
        for callers in CALLERS {
            machine::quiet().await;
            run.add(format!("redis/{callers}"), redis.add(callers, time).await?);
        }
    }
    if let Some(postgres) = Postgres::start(folder).await? {
        for callers in CALLERS {
            machine::quiet().await;
            run.add(format!("postgres/{callers}"), postgres.insert(callers, time)?);
        }
    }
    Ok(())
}
