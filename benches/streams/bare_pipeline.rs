//! The bare loop that copies every record, as the topology of [`crate::streams_pipeline`] does.

use foretell_streams::{record::Topic, runtime::broker::ProcessingGuarantee};
use rdkafka::{ClientConfig, Message, producer::BaseRecord};

use crate::{
    cluster::Cluster,
    measure::{
        bare::{self, BareLoop, Inputs},
        usage::Speed,
    },
    pipeline::Pipeline,
};

pub(crate) fn consumer(cluster: &Cluster, group: &str) -> ClientConfig {
    bare::consumer(&cluster.servers, group)
}

/// Starts a loop that copies every record of `input` to each of the `outputs`.
pub(crate) fn start(
    cluster: &Cluster,
    input: &Topic,
    outputs: &[Topic],
    guarantee: ProcessingGuarantee,
) -> anyhow::Result<Box<dyn Pipeline>> {
    let outputs = outputs.to_vec();
    let bare = BareLoop::start(
        &cluster.servers,
        &cluster.name("bare"),
        &Inputs::Subscribed(&[input.as_str()]),
        guarantee,
        Box::new(move |message, producer| {
            for output in &outputs {
                let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(output.as_str());
                record.key = message.key();
                record.payload = message.payload();
                record.timestamp = message.timestamp().to_millis();
                bare::send(producer, record)?;
            }
            Ok(())
        }),
    )?;
    Ok(Box::new(bare))
}

/// Measures how fast partition 0 of `topic` can be consumed to its end.
pub(crate) fn consume(cluster: &Cluster, topic: &Topic, records: u64) -> anyhow::Result<Speed> {
    bare::consume(&cluster.servers, &cluster.name("consume"), topic.as_str(), records)
}
