//! A node reboots and is back within the presence TTL: what ran there starts again at once, and nothing moves.

use crate::{installed::Installed, support::Failure};

/// Longer than a kubelet takes to come up on a small machine.
const TTL: &str = "--set=presence.ttlSeconds=60";

pub async fn a_node_reboots_within_the_ttl(site: &Installed) -> Result<(), Failure> {
    let upgrade = [
        "upgrade",
        "--wait",
        "--timeout=3m",
        "--set=nodeTaint.enabled=true",
        TTL,
    ];
    let earlier = site.running("web", 15, |_| true).await?;
    site.helm_release(&upgrade).await?;
    site.cells_ready(3).await?;
    let before = site.running("web", 15, |_| true).await?;
    for (earlier, now) in earlier.iter().zip(&before) {
        assert_eq!(earlier.guid, now.guid, "a longer TTL moves nothing");
    }
    let (_, leads) = site.leader().await?;
    // Better not the leader's: that would show its change as well. But all may be with the leader after what went before.
    let mut cells: Vec<&String> = before.iter().map(|slot| &slot.cell).collect();
    cells.sort_by_key(|cell| **cell == leads);
    let cell = cells.first().ok_or("no instance")?.to_string();
    let ask = format!("get cell {cell} -o jsonpath={{.status.incarnation}}");
    let incarnation = site.kubectl(&ask).await?;
    let watching = site.watch("get cells -w")?;

    site.node(&cell)?.reboot().await?;
    let boot = site.node(&cell)?.boot_id()?;
    site.until(&ask, crate::installed::SOON, |now| now == boot)
        .await?;
    assert_ne!(incarnation, boot);
    let again = |slot: &crate::look::Slot| {
        let old = before.iter().find(|old| old.name == slot.name);
        old.is_some_and(|old| (old.guid == slot.guid) == (old.cell != cell))
    };
    site.running("web", 15, again).await?;
    site.cells_ready(3).await?;
    // No loss, and no evacuation either.
    for words in watching.lines()?.iter().filter(|words| words[0] == cell) {
        let reason = words.get(3).map(String::as_str);
        assert!(
            matches!(reason, Some("PresenceHeld" | "NodeNotReady")),
            "{words:?}"
        );
    }
    Ok(())
}
