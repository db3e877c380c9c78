//! The limit: bare librdkafka that consumes the same inputs, and produces as many records of the same sizes in transactions of
//! the same length, on as many threads. It decodes nothing, scores nothing, and keeps no state.

use std::thread;

use foretell_streams::{
    record::Topic,
    runtime::broker::{Cleanup, ProcessingGuarantee, TopicSpec},
};
use rdkafka::{
    Message,
    message::BorrowedMessage,
    producer::{BaseProducer, BaseRecord},
};

use crate::{
    drained::{Application, Traffic},
    measure::{
        bare::{self, BareLoop, Inputs},
        pipeline::Pipeline,
        usage::{Speed, Start},
    },
};

/// One output: how many records of which size follow from an event.
#[derive(Clone)]
struct Output {
    topic: String,
    records_an_event: f64,
    value: Vec<u8>,
    /// Records that are due and not sent, less than one.
    due: f64,
}

/// A loop, and how many records its partitions have.
struct Share {
    bare: BareLoop,
    records: u64,
}

/// Works off the same backlog on so many threads, which share the partitions evenly.
pub(crate) fn measure(
    application: &Application,
    traffic: &[Traffic],
    events: usize,
    threads: usize,
) -> anyhow::Result<Speed> {
    let topics = &application.config().topics;
    let inputs = [topics.questionnaire_events.as_str(), topics.outcomes.as_str()];
    let outputs = outputs(application, traffic, &inputs, events)?;
    let shares = (0..threads).map(|thread| share(application, inputs, &outputs, thread, threads));
    let mut shares = shares.collect::<anyhow::Result<Vec<_>>>()?.into_iter();
    let mut first = shares.next().expect("at least one thread");
    thread::scope(|scope| {
        let others: Vec<_> = shares.map(|share| scope.spawn(move || share.work_off())).collect();
        // From the first message: the time to find the leaders is not counted.
        while first.bare.read() == 0 {
            first.bare.turn()?;
        }
        let (start, before) = (Start::now()?, first.bare.read());
        let mut done = vec![first.work_off()?];
        for other in others {
            done.push(other.join().expect("a loop does not panic")?);
        }
        let speed = start.until_now(u64::try_from(events)? - before / inputs.len() as u64)?;
        done.into_iter().try_for_each(|bare| Box::new(bare).leave())?;
        Ok(speed)
    })
}

impl Share {
    fn work_off(mut self) -> anyhow::Result<BareLoop> {
        while self.bare.read() < self.records {
            self.bare.turn()?;
        }
        self.bare.commit()?;
        Ok(self.bare)
    }
}

/// The loop of one thread: every `threads`th partition of each input.
fn share(
    application: &Application,
    inputs: [&str; 2],
    outputs: &[Output],
    thread: usize,
    threads: usize,
) -> anyhow::Result<Share> {
    let partitions = (thread..application.config().partitions as usize).step_by(threads);
    let partitions = partitions.map(i32::try_from).collect::<Result<Vec<_>, _>>()?;
    let assigned: Vec<(&str, i32)> = inputs
        .into_iter()
        .flat_map(|topic| partitions.iter().map(move |partition| (topic, *partition)))
        .collect();
    let (lead, mut outputs) = (inputs[0].to_owned(), outputs.to_vec());
    let bare = BareLoop::start(
        &application.servers,
        &format!("{lead}-bare-{threads}-{thread}"),
        &Inputs::Assigned(&assigned),
        ProcessingGuarantee::ExactlyOnce,
        Box::new(move |message: &BorrowedMessage<'_>, producer: &BaseProducer| {
            if message.topic() == lead {
                for output in &mut outputs {
                    output.send(producer, message.key().unwrap_or_default())?;
                }
            }
            Ok(())
        }),
    )?;
    let records = bare.backlog()?;
    Ok(Share { bare, records })
}

fn outputs(
    application: &Application,
    traffic: &[Traffic],
    inputs: &[&str],
    events: usize,
) -> anyhow::Result<Vec<Output>> {
    let prefix = inputs[0].trim_end_matches("questionnaire-events");
    let mut outputs = Vec::new();
    for traffic in
        traffic.iter().filter(|traffic| !inputs.contains(&&*format!("{prefix}{}", traffic.topic)))
    {
        let topic = format!("{prefix}bare-{}", traffic.topic);
        let spec = TopicSpec {
            name: Topic::new(&topic),
            partitions: application.config().partitions,
            cleanup: Cleanup::Delete { retention: None },
            message_bytes_max: None,
        };
        application.cluster().broker.create_topics(&[spec])?;
        // The key of an event stands for the key of its outputs.
        let key_bytes = "respondent-123456".len();
        let value_bytes = traffic.bytes / traffic.records;
        outputs.push(Output {
            topic,
            records_an_event: traffic.records as f64 / events as f64,
            value: sample(value_bytes.saturating_sub(key_bytes)),
            due: 0.0,
        });
    }
    Ok(outputs)
}

/// Bytes that compress about as well as records do.
fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|index| if index % 4 == 0 { (index * 37 % 251) as u8 } else { b'a' }).collect()
}

impl Output {
    fn send(&mut self, producer: &BaseProducer, key: &[u8]) -> anyhow::Result<()> {
        self.due += self.records_an_event;
        while self.due >= 1.0 {
            self.due -= 1.0;
            bare::send(producer, BaseRecord::to(&self.topic).key(key).payload(&self.value))?;
        }
        Ok(())
    }
}
