//! Keeps the counts in Cell.status up to date: soon, but never in a recovery's way.

use std::sync::Arc;
use std::time::Duration;

use crate::converge::status;

use super::context::Context;
use super::ledger;

/// People look at these numbers; nothing is decided on them.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writes changed counts, one Cell after the other, for ever.
pub async fn run(context: Arc<Context>) {
    context.synced().await;
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // What has changed stays marked until this controller leads.
        if !context.leading() {
            continue;
        }
        for name in context.world(|world| world.take_changed_loads()) {
            let written = ledger::write(&context, &context.slow.client, &name, |world, record| {
                // Before the first verdict there is no status to complete.
                record.status.state?;
                let mut next = record.status.clone();
                status::cell_load(world, &name, &mut next);
                (next != record.status).then_some((next, ()))
            })
            .await;
            if let Err(error) = written {
                tracing::debug!(cell = name, %error, "the Cell's counts could not be written");
                context.world(|world| world.mark_changed_load(&name));
            }
        }
    }
}
