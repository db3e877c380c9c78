//! What is processed how: sources, processors, stores and sinks, wired once, instantiated for every
//! task.

mod builder;
mod context;
mod describe;
mod node;
mod outbox;

pub use builder::{Edge, Topology, TopologyBuilder};
pub use context::{Context, Original, Punctuation, PunctuationKind};
pub use node::{ProcessError, Processor, Record};
pub(crate) use outbox::Origin;
pub use outbox::Outbox;

pub(crate) use builder::StoreKind;
pub(crate) use context::{DeadLetter, Scope};
pub(crate) use node::Node;
