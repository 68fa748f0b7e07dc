//! `culvert bench`: figures that anyone can reproduce.
//!
//! - [`engine`]: the worker's turn over memory, on one pinned core.

pub mod engine;
