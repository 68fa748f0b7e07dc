//! The `culvert` program: configuration, wiring, and the operator's commands.
//!
//! - [`cli`]: the command line.
//! - [`config`]: the configuration file.
//! - [`assembly`]: from a configuration to SAs, policies and ports of the engine.
//! - [`report`]: what commands report in JSON.
//! - [`run`]: `culvert run`, the gateway.
//! - [`release`]: `culvert release`, which opens interfaces that stayed closed.
//! - [`replay`]: `culvert replay`, the same engine over capture files.
//! - [`demo`]: `culvert demo`, the demonstration.
//! - [`mod@sim`]: `culvert sim`, the simulator.
//! - [`exec`]: `culvert exec`, a program whose XFRM sockets lead here.
//! - [`mod@bench`]: `culvert bench`, cycles and rates.
//! - [`operator`]: `culvert sa`, `culvert policy` and `culvert status`.
//! - [`version`]: `culvert --version`, and the providers of this machine.
//! - [`lab`]: networks of namespaces for the demonstration, benches and live tests.

#![forbid(unsafe_code)]

pub mod assembly;
pub mod bench;
pub mod cli;
pub mod config;
pub mod demo;
pub mod exec;
pub mod lab;
pub mod operator;
pub mod release;
pub mod replay;
pub mod report;
pub mod run;
pub mod sim;
pub mod version;
mod words;
