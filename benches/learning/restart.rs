//! The start of the first training after a restart: reading the training set from its copy on disk and from the log. The log
//! is on a broker in this process, so reading it from a cluster takes longer.

use std::{sync::Arc, time::Instant};

use anyhow::Context;
use foretell::{
    app::telemetry,
    events::{
        action::ExampleActions,
        answered::AnsweredCodec,
        labelled_example::{ExampleOrigin, LabelledExample},
        questionnaire::{Answer, MetadataFields, QuestionnaireSchema},
        topics::{Topics, subject},
    },
    processors::{
        learning::training_log::{DiskCopy, ReadLog, TrainingLog},
        metrics::ApplicationMetrics,
    },
};
use foretell_avro::{local::LocalRegistry, registry::SchemaRegistry};
use foretell_ml::{DataPolicy, PipelineSpec, Scaling, Seed};
use foretell_streams::{
    codec::Codec as _,
    local::{LocalBroker, LocalSettings},
    record::{OutputRecord, Partition, TopicPartition},
    runtime::broker::Broker,
    time::{EventTime, SystemClock},
};
use serde_json::json;

use crate::{CATEGORIES, NAMES, NUMBERS, columns, example};

/// A log of examples, and how it is read.
struct Log {
    broker: LocalBroker,
    topics: Topics,
    codec: Arc<AnsweredCodec<LabelledExample>>,
    events: Arc<QuestionnaireSchema>,
}

/// Time from the start of a process to its first training, without and with a copy.
pub(super) fn measure(examples: u32, report: &mut serde_json::Value) -> anyhow::Result<()> {
    let log = Log::of(examples)?;
    let folder = tempfile::tempdir()?;
    let (mut from_log, mut from_copy, mut written) = (f64::MAX, f64::MAX, f64::MAX);
    let mut bytes = 0;
    // The least of three: other processes on the machine only add.
    for _ in 0..3 {
        let mut reader = log.reader(None)?;
        from_log = from_log.min(read(&mut reader, examples)?);
        drop(reader);
        let disk = DiskCopy::open(folder.path()).context("the folder is not used")?;
        let path = disk.path();
        let mut reader = log.reader(Some(disk.replaced_after(1)))?;
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        read(&mut reader, examples)?;
        let started = Instant::now();
        reader.save(&|| true);
        written = written.min(started.elapsed().as_secs_f64());
        bytes = std::fs::metadata(&path)?.len();
        drop(reader);
        let mut reader = log.reader(DiskCopy::open(folder.path()))?;
        from_copy = from_copy.min(read(&mut reader, examples)?);
    }
    let decoded = log.decode_all(examples)?;
    println!("restart with {examples} examples:");
    println!("  from the log in this process {from_log:.2} s, of which decoding {decoded:.2} s");
    println!("  from the copy on disk {from_copy:.2} s, ratio {:.3}", from_copy / from_log);
    println!(
        "  the copy has {bytes} bytes, {:.0} an example, and is written in {written:.2} s",
        bytes as f64 / f64::from(examples)
    );
    report["restart"] = json!({
        "examples": examples, "from_log_seconds": from_log, "decode_seconds": decoded,
        "from_copy_seconds": from_copy, "copy_to_log": from_copy / from_log,
        "write_seconds": written, "bytes": bytes,
    });
    report["restart_seconds"] = from_copy.into();
    Ok(())
}

/// Reads the whole log, as the first training of a process does.
fn read(log: &mut TrainingLog, examples: u32) -> anyhow::Result<f64> {
    let started = Instant::now();
    let result = log.read_to(examples.into(), &|_, _, _| true);
    result.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    let seconds = started.elapsed().as_secs_f64();
    let read = log.stream().map_or(0, foretell_ml::training_set::History::len);
    anyhow::ensure!(read == usize::try_from(examples)?, "{read} examples were read");
    Ok(seconds)
}

impl Log {
    fn of(examples: u32) -> anyhow::Result<Self> {
        let topics = Topics::with_prefix("bench.");
        let number = |n| format!(r#"{{"name":"n{n}","type":["null","double"],"default":null}}"#);
        let text = |n| format!(r#"{{"name":"c{n}","type":["null","string"],"default":null}}"#);
        let questions = (0..NUMBERS).map(number);
        let questions = questions.chain((NUMBERS..NUMBERS + CATEGORIES).map(text));
        let avsc = format!(
            r#"{{"type":"record","name":"Visit","fields":[
                {{"name":"who","type":"string"}},{{"name":"at","type":"long"}},{}]}}"#,
            questions.collect::<Vec<_>>().join(",")
        );
        let fields = MetadataFields {
            event_id: None,
            respondent_id: "who".to_owned(),
            event_time: "at".to_owned(),
            completed: None,
        };
        let events = Arc::new(QuestionnaireSchema::new(&avsc, &fields, &[])?);
        let registry = Arc::new(LocalRegistry::new());
        for (topic, text) in topics.schemas(&Arc::clone(&events).into()) {
            registry.register(&subject(topic), &text)?;
        }
        let subject = subject(&topics.labelled_examples);
        let codec = Arc::new(AnsweredCodec::new(registry, &subject, Arc::clone(&events))?);
        let settings = LocalSettings { log_bytes_max: u64::MAX, ..LocalSettings::default() };
        let broker = LocalBroker::with_settings(Arc::new(SystemClock::new()), settings);
        broker.create_topics(&topics.specs(1))?;
        let log = Self { broker, topics, codec, events };
        let mut publisher = log.broker.publish()?;
        for number in 0..examples {
            publisher.send(log.record(number)?)?;
        }
        publisher.flush()?;
        Ok(log)
    }

    fn record(&self, number: u32) -> anyhow::Result<OutputRecord> {
        let (numbers, categories, label) = example(number);
        let numbers = numbers.into_iter().map(|number| Some(Answer::Number(number)));
        let texts = categories.into_iter().map(|at| Some(Answer::Text(NAMES[at].to_owned())));
        let id = format!("{number:032x}");
        let example = LabelledExample {
            example_id: id.clone(),
            respondent_id: id.clone(),
            origin: ExampleOrigin::Stream,
            event_time: EventTime(number.into()),
            outcome_time: Some(EventTime(number.into())),
            label: ["no", "yes"][usize::try_from(label)?].to_owned(),
            prediction: None,
            challenger: None,
            correction: false,
            replaced: None,
            actions: ExampleActions::default(),
            answers: self.events.layout().row_of(&numbers.chain(texts).collect::<Vec<_>>()),
        };
        let mut bytes = Vec::new();
        self.codec.encode(&example, &mut bytes)?;
        let (topic, key) = (&self.topics.labelled_examples, id.as_bytes());
        Ok(OutputRecord::new(topic, Some(key), Some(&bytes), EventTime(number.into())))
    }

    /// A process that has read nothing.
    fn reader(&self, disk: Option<DiskCopy>) -> anyhow::Result<TrainingLog> {
        let topic = self.topics.labelled_examples.clone();
        Ok(TrainingLog {
            broker: Arc::new(self.broker.clone()),
            source: TopicPartition { topic, partition: Partition(0) },
            codec: Arc::<AnsweredCodec<_>>::clone(&self.codec),
            events: Arc::clone(&self.events),
            spec: PipelineSpec::new(columns(), Scaling::None, Vec::new())?,
            classes: vec!["no".to_owned(), "yes".to_owned()],
            policy: DataPolicy::default(),
            metrics: ApplicationMetrics::register(&telemetry::metrics_registry()?)?,
            seed: Seed(1),
            read: ReadLog::default(),
            disk,
        })
    }

    /// Seconds to decode as many records as the log has, without adding them.
    fn decode_all(&self, examples: u32) -> anyhow::Result<f64> {
        let value = self.record(7)?.value.context("it has a value")?;
        let started = Instant::now();
        for _ in 0..examples {
            let example: LabelledExample = self.codec.decode(&value)?;
            std::hint::black_box(example);
        }
        Ok(started.elapsed().as_secs_f64())
    }
}
