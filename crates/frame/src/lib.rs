//! Packet memory: frames that exist once and are moved, never shared.
//!
//! - [`region`]: the one leaked mapping that holds every frame, and the only place that mints them.
//! - [`memory`]: where its memory comes from, in huge pages where there are any.
//! - [`slab`]: [`SlabBox`], boxes for what lies in such memory beside frames: SAs.
//! - [`token`]: [`FreeFrame`] and [`Packet`], the two states a frame can be in outside the kernel.
//! - [`io`]: [`PacketIo`], what a worker asks of the outside world, and [`Port`].
//! - [`mem`]: [`MemIo`], packets in queues, for tests, benches and the simulator.
//!
//! This crate contains unsafe code, in `token.rs`, `region.rs`, `memory.rs` and `slab.rs` only; the
//! argument for it stands at the top of `token.rs`, `memory.rs` and `slab.rs`.

pub mod io;
pub mod mem;
pub mod memory;
pub mod region;
pub mod slab;
pub mod token;

pub use io::BATCH;
pub use io::Batch;
pub use io::MAX_PORTS;
pub use io::PacketIo;
pub use io::Port;
pub use mem::MemIo;
pub use memory::Pages;
pub use region::FRAME_SIZE;
pub use region::HEADROOM;
pub use region::MAX_HEAD_GROWTH;
pub use region::MAX_JUMBO_FRAME;
pub use region::MAX_LINK_FRAME;
pub use region::MAX_SINGLE_FRAME;
pub use region::MAX_TAIL_GROWTH;
pub use region::Part;
pub use region::Parts;
pub use region::RUN_FRAMES;
pub use region::RUN_SIZE;
pub use region::Region;
pub use slab::SlabBox;
pub use token::FreeFrame;
pub use token::Packet;
pub use token::prefetch_to_write;
