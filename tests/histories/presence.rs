//! The simulated presence store: one leased key per Cell, a revision for every change, a history for the observer.

use std::collections::BTreeMap;

use diego_operator::presence::{Presence, PresencePhase, PresenceValue, Reading};

/// The TTL of every presence, in milliseconds.
pub const TTL: i64 = 5_000;

/// One registration, from its first to its last moment.
#[derive(Debug, Clone, Copy)]
pub struct Registration {
    pub epoch: i64,
    pub ended: Option<i64>,
}

/// A change, for the watches.
#[derive(Debug, Clone)]
pub enum Change {
    Put(Presence, i64),
    Delete(String, Presence, i64),
}

#[derive(Debug, Default)]
pub struct PresenceStore {
    pub revision: i64,
    pub keys: BTreeMap<String, Presence>,
    pub history: BTreeMap<String, Vec<Registration>>,
    /// Not yet told to the watches.
    pub changes: Vec<Change>,
}

impl PresenceStore {
    pub fn read(&self, cell: &str) -> Reading {
        Reading {
            presence: self.keys.get(cell).cloned(),
            revision: self.revision,
        }
    }

    /// Creates the key. Returns its epoch.
    pub fn create(
        &mut self,
        cell: &str,
        incarnation: &str,
        phase: PresencePhase,
        first: Option<i64>,
    ) -> i64 {
        self.revision += 1;
        let presence = Presence {
            cell: cell.to_owned(),
            epoch: self.revision,
            value: Some(PresenceValue {
                cell_id: cell.to_owned(),
                incarnation: incarnation.to_owned(),
                ttl: std::time::Duration::from_millis(TTL as u64),
                phase,
                owner: String::new(),
                holder: String::new(),
                first_epoch: first,
                epoch_base: 0,
                epoch: None,
                fence: true,
            }),
        };
        let registration = Registration {
            epoch: self.revision,
            ended: None,
        };
        self.history
            .entry(cell.to_owned())
            .or_default()
            .push(registration);
        self.put(presence);
        self.revision
    }

    fn put(&mut self, presence: Presence) {
        self.changes
            .push(Change::Put(presence.clone(), self.revision));
        self.keys.insert(presence.cell.clone(), presence);
    }

    /// Publishes another phase under the same key.
    pub fn set_phase(&mut self, cell: &str, phase: PresencePhase) {
        let Some(mut presence) = self.keys.get(cell).cloned() else {
            return;
        };
        self.revision += 1;
        if let Some(value) = &mut presence.value {
            value.phase = phase;
        }
        self.put(presence);
    }

    /// The key goes: expired, or given back.
    pub fn delete(&mut self, cell: &str, now: i64) {
        let Some(last) = self.keys.remove(cell) else {
            return;
        };
        self.revision += 1;
        for registration in self.history.get_mut(cell).into_iter().flatten() {
            registration.ended.get_or_insert(now);
        }
        self.changes
            .push(Change::Delete(cell.to_owned(), last, self.revision));
    }

    /// Whether the registration of that epoch, and every one before it, had ended by now.
    pub fn has_ended(&self, cell: &str, epoch: i64) -> bool {
        self.history.get(cell).is_none_or(|all| {
            all.iter()
                .all(|one| one.epoch > epoch || one.ended.is_some())
        })
    }
}
