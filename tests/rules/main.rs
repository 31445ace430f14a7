//! The rules and what guards them: scenarios, properties, layering, generated files. No server needed.

mod generated;
mod layering;
mod properties;
mod scenarios;
mod settling;
mod world;
