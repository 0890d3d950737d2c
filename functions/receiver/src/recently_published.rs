//! The events that this environment published recently, so that Tableau's repetitions are published once.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use shared::events::id::EventId;

/// The most events in the list, of 16 bytes each. Tableau repeats within minutes, and an environment publishes far fewer
/// events in that time.
const CAPACITY: usize = 4096;

/// The events published last.
#[derive(Debug, Default)]
pub(crate) struct RecentlyPublished(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    ids: HashSet<EventId>,
    oldest_first: VecDeque<EventId>,
}

impl RecentlyPublished {
    pub(crate) fn contains(&self, id: EventId) -> bool {
        self.memory().ids.contains(&id)
    }

    pub(crate) fn insert(&self, id: EventId) {
        let mut memory = self.memory();
        if memory.ids.insert(id) {
            memory.oldest_first.push_back(id);
        }
        if memory.oldest_first.len() > CAPACITY
            && let Some(oldest) = memory.oldest_first.pop_front()
        {
            memory.ids.remove(&oldest);
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // No code under the lock can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
