//! Whose write is next when there are more of them than may be under way.
//!
//! Each lost Cell is recovered by a task of its own, and each of these plans in the order of the auction. So that this order
//! also holds between them, a write waits for its turn by what it is about, and only then by when it came.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::converge::world::{Key, World};
use crate::sync::locked;

/// What a write is about, first things first: the order of Diego's auction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// The first instance of a process: without it there is none.
    First,
    /// A Task.
    Task,
    /// Any other instance.
    Other,
}

impl Rank {
    /// Of an instance with this index.
    pub fn of_instance(index: i32) -> Self {
        match index {
            0 => Rank::First,
            _ => Rank::Other,
        }
    }

    /// Of an ActualLRP, if it is known.
    pub fn of_lrp(world: &World, key: &Key) -> Self {
        world
            .lrp(key)
            .map_or(Rank::Other, |lrp| Rank::of_instance(lrp.index))
    }
}

/// Each so-manieth turn goes to the last in rank, so that a stream of Tasks holds up nothing for ever.
const FAIR: usize = 8;

/// So many writes may be under way.
pub struct Turns(Arc<Mutex<Waiting>>);

struct Waiting {
    free: usize,
    /// How many were passed on.
    given: usize,
    /// By rank; not empty only while none is free.
    queues: [VecDeque<oneshot::Sender<Turn>>; 3],
}

/// One write may be under way for as long as this lives.
pub struct Turn(Arc<Mutex<Waiting>>);

impl Turns {
    /// For `count` writes at once.
    pub fn new(count: usize) -> Self {
        Turns(Arc::new(Mutex::new(Waiting {
            free: count,
            given: 0,
            queues: Default::default(),
        })))
    }

    /// Waits until it is this one's turn.
    pub async fn take(&self, rank: Rank) -> Turn {
        loop {
            let turn = {
                let mut waiting = locked(&self.0);
                if waiting.free > 0 {
                    waiting.free -= 1;
                    return Turn(self.0.clone());
                }
                let (give, turn) = oneshot::channel();
                waiting.queues[rank as usize].push_back(give);
                turn
            };
            if let Ok(turn) = turn.await {
                return turn;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut waiting = locked(&self.0);
            waiting.given = waiting.given.wrapping_add(1);
            let last_first = waiting.given.is_multiple_of(FAIR);
            // Who does not wait any more is passed over.
            let first = |queue: &mut VecDeque<oneshot::Sender<Turn>>| {
                std::iter::from_fn(|| queue.pop_front()).find(|next| !next.is_closed())
            };
            let next = match last_first {
                true => waiting.queues.iter_mut().rev().find_map(first),
                false => waiting.queues.iter_mut().find_map(first),
            };
            waiting.free += usize::from(next.is_none());
            next
        };
        // One that stopped waiting just now gets it all the same, and passes it on by dropping it.
        if let Some(next) = next {
            let _ = next.send(Turn(self.0.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_first_instances_go_first_however_late_they_come() {
        let turns = Turns::new(1);
        let held = turns.take(Rank::Other).await;
        let order = Mutex::new(Vec::new());
        let write = async |rank, name| {
            let turn = turns.take(rank).await;
            locked(&order).push(name);
            drop(turn);
        };
        let all = async {
            tokio::join!(
                write(Rank::Other, "web-1"),
                write(Rank::Task, "task"),
                write(Rank::Other, "web-2"),
                write(Rank::First, "web-0"),
                write(Rank::First, "api-0"),
                async { drop(held) },
            )
        };
        all.await;
        assert_eq!(
            *locked(&order),
            ["web-0", "api-0", "task", "web-1", "web-2"]
        );
    }

    #[tokio::test]
    async fn nothing_waits_for_ever() {
        let turns = Turns::new(1);
        let mut held = turns.take(Rank::Task).await;
        let mut other = Box::pin(turns.take(Rank::Other));
        for passed in 1..=FAIR {
            let mut task = Box::pin(turns.take(Rank::Task));
            assert!((&mut other).now_or_never().is_none() && (&mut task).now_or_never().is_none());
            drop(held);
            let Some(turn) = task.now_or_never() else {
                assert_eq!(passed, FAIR);
                assert!(other.now_or_never().is_some());
                return;
            };
            held = turn;
        }
        unreachable!("the other one never had its turn");
    }

    #[tokio::test]
    async fn never_more_than_allowed_and_a_turn_that_nobody_takes_is_passed_on() {
        let turns = Turns::new(2);
        let (one, two) = (turns.take(Rank::Task).await, turns.take(Rank::Task).await);
        let mut gone = Box::pin(turns.take(Rank::First));
        let mut late = Box::pin(turns.take(Rank::First));
        let mut last = Box::pin(turns.take(Rank::Other));
        for waiting in [&mut gone, &mut late, &mut last] {
            assert!(waiting.now_or_never().is_none(), "two are under way");
        }
        // It stops waiting before its turn, and the next one after its turn was given.
        drop(gone);
        drop(one);
        drop(late);
        let last = last.now_or_never().expect("it is its turn");
        assert!(turns.take(Rank::First).now_or_never().is_none());
        drop((two, last));
        let both = (
            turns.take(Rank::First).now_or_never(),
            turns.take(Rank::First).now_or_never(),
        );
        assert!(both.0.is_some() && both.1.is_some());
        assert!(turns.take(Rank::First).now_or_never().is_none());
    }
}
