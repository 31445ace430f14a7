//! The completion callback of a Task: what is POSTed, where it may go, and what an answer means.
//!
//! Whether, when and by whom it is delivered is decided by [`crate::converge::task`]; here is the delivery itself.

mod body;
mod client;
mod look_up;
pub mod policy;
pub mod slots;
mod target;

pub use body::Body;
pub use client::{Courier, Delivery, TRIES};
pub use look_up::LookUps;
pub use policy::{HostEntry, HostPolicy};
pub use target::receiver;
