//! The rules and what guards them: scenarios, properties, layering, generated files. No server needed.

mod checklist;
mod fuzz;
mod generated;
mod layering;
mod links;
mod properties;
mod scenarios;
mod settling;
mod starts;
mod supply;
mod task_verbs;
mod world;
