//! The text form of a topology, like `Topology.describe()` of Kafka Streams.

use std::fmt::Write;

use crate::topology::{Topology, builder::NodeKind};

impl Topology {
    /// Returns a text with the nodes, their topics, stores and edges, in the order in which they were added: for logs, and for
    /// snapshot tests, which show a change of the wiring in a review.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let line = match &node.kind {
                NodeKind::Source(topic) => format!("source {} (topic {topic})", node.name),
                NodeKind::Processor => format!("processor {}", node.name),
                NodeKind::Sink(topic) => format!("sink {} (topic {topic})", node.name),
            };
            write!(text, "{line}").expect("writing to a string cannot fail");
            if !node.stores.is_empty() {
                let stores = node.stores.iter().map(|id| self.stores[id.0].name.as_str());
                let stores = stores.collect::<Vec<_>>().join(", ");
                write!(text, " [stores {stores}]").expect("writing to a string cannot fail");
            }
            text.push('\n');
            for child in &self.children[index] {
                let child = &self.nodes[*child].name;
                writeln!(text, "  {} --> {child}", node.name)
                    .expect("writing to a string cannot fail");
            }
        }
        text
    }
}
