//! Why an SA cannot be installed, moved or changed.

use culvert_aead::KeyError;
use culvert_engine::WorkerId;
use culvert_engine::directory::SpiInUse;
use culvert_esp::replay::WindowSizeError;
use culvert_esp::template::FamilyMismatch;
use culvert_spd::Group;

use crate::controller::SaId;
use crate::sequence_store::StoreError;

/// Why control refuses, or fails for now.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The key does not fit the algorithm.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The window size is out of range.
    #[error(transparent)]
    Window(#[from] WindowSizeError),
    /// Extended numbers cannot be told apart without a window (RFC 4303 section 3.3.3).
    #[error("extended sequence numbers need anti-replay: expected a window, or no ESN")]
    EsnWithoutWindow,
    /// The tunnel endpoints do not fit together.
    #[error(transparent)]
    Endpoints(#[from] FamilyMismatch),
    /// ESP is never encapsulated on port 500 (RFC 7296 section 2.23).
    #[error("ESP in UDP on port 500, which is for IKE alone: expected another port")]
    IkePort,
    /// AH has no dummy packets (RFC 4303 section 2.6 is of ESP).
    #[error("dummy packets of an AH SA: expected ESP")]
    DummiesOfAh,
    /// The sequence number store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The same packets would find another inbound SA.
    #[error(transparent)]
    DuplicateSpi(#[from] SpiInUse),
    /// The numbers of a key are used up, by what is on disk.
    #[error(
        "sequence numbers up to {used} may have been used with this key, and the SA can count to \
         {end}: expected a new key"
    )]
    UsedUp {
        /// The highest number that may have been used.
        used: u64,
        /// The last number of the SA.
        end: u64,
    },
    /// Two outbound SAs with one key would use the same nonces; two inbound ones of IKE's with one
    /// key and SPI would accept packets twice. An SA has its key until it is gone.
    #[error("another SA has, or had, this key and salt: expected a new key")]
    KeyInUse,
    /// An epoch that an IV cannot have.
    #[error("epoch {0}: expected 1 to 2^24 - 1")]
    Epoch(u64),
    /// Keys that are forgotten may have sealed in this epoch.
    #[error("epoch {epoch} is used up: expected a later one than {floor}")]
    EpochUsedUp {
        /// The epoch.
        epoch: u64,
        /// The last one in which such a key sealed.
        floor: u64,
    },
    /// An implicit IV is the sequence number and has no room for an epoch (RFC 8750 section 3).
    #[error("an epoch with implicit IVs, which have no room for it: expected another algorithm")]
    EpochImplicit,
    /// Every worker's table is full.
    #[error("no free slot for another SA: expected at most {0} for each worker and direction")]
    Full(usize),
    /// There is no such SA, or no longer.
    #[error("there is no SA {0}")]
    UnknownSa(SaId),
    /// There is no such worker.
    #[error("there is no worker {}", .0.0)]
    UnknownWorker(WorkerId),
    /// The SA cannot leave its worker: it is part of a bundle, or that worker's own.
    #[error("SA {0} is bound to its worker")]
    Bound(SaId),
    /// The SA is already on its way to another worker, or out of its table.
    #[error("SA {0} is on its way already")]
    Moving(SaId),
    /// Only outbound SAs are retargeted and activated.
    #[error("SA {0} is inbound: expected an outbound one")]
    Inbound(SaId),
    /// The groups of a bundle have SAs on different workers.
    #[error("the SAs of groups {0:?} and {1:?} are on different workers: bundle them first")]
    Apart(Group, Group),
    /// A bundle has no groups, too many, or names a bundle.
    #[error("bundle {0:?}: expected 1 to {1} groups that are no bundles")]
    Bundle(Group, usize),
}
