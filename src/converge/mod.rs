//! The rules, pure: what follows from who is alive, what is wanted and what is there.
//!
//! Nothing under this module knows a client, a clock or a task: time is an argument and the world is a value.
//! [`plan::plan`] is the one code path for the immediate reaction to a lost Cell ([`plan::Scope::Cell`]), for
//! an object that changed, and for the periodic resync.

pub mod brake;
pub mod cell;
pub mod crash;
pub mod demand;
pub mod fence;
#[cfg(test)]
mod fixtures;
pub mod forget;
pub mod harmony;
pub mod hold_down;
pub mod life;
pub mod lrp;
pub mod neighbours;
pub mod node;
pub mod placement;
pub mod plan;
pub mod pods;
pub mod process_spec;
pub mod rejection;
pub mod status;
pub mod task;
pub mod world;
