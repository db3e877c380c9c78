//! Topologies: graphs of sources, processors, stores and sinks, built once and instantiated for every task.
//!
//! Start with [`TopologyBuilder`] and implement [`Processor`]. A processor uses its stores, its child nodes and the time
//! through its [`Context`].

mod builder;
mod context;
mod describe;
mod node;
mod outbox;

pub(crate) use builder::StoreKind;
pub use builder::{Edge, Topology, TopologyBuilder};
pub use context::{Context, Original, Punctuation, PunctuationKind};
pub use node::{ProcessError, Processor, Record};
pub(crate) use outbox::Origin;
pub use outbox::Outbox;

#[cfg(test)]
pub(crate) use builder::{NodeKind, NodeSpec};
pub(crate) use context::{DeadLetter, Scope};
pub(crate) use node::Node;
