//! `foretell run` on a real Kafka, working off a backlog: CPU by thread, memory, and the size of what it wrote.

use std::{collections::BTreeMap, env, fs, path::Path, thread, time::Duration, time::Instant};

use anyhow::Context;
use foretell::{app::cluster::Cluster, config::Config};
use foretell_ml::ModelBundle;
use foretell_streams::{record::OutputRecord, time::EventTime};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use tempfile::TempDir;

use crate::{
    process::{Http, Process, SOON, example, quick_settings, until},
    workload::{self, Workload},
};

/// Share of the backlog that is not measured: afterwards caches, stores and fetches have their sizes.
const WARM_UP_PERCENT: usize = 20;
/// Examples that `init` writes to the training log.
const INITIAL_EXAMPLES: usize = 3_000;
const LOOK: Duration = Duration::from_millis(20);
const READ_WAIT: Duration = Duration::from_secs(10);

/// An application with topics, schemas and the model of 200 × 63.
pub(crate) struct Application {
    settings: Vec<String>,
    config: Config,
    cluster: Cluster,
    pub(crate) servers: String,
    _folder: TempDir,
}

/// What a run took.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Drained {
    pub(crate) threads: usize,
    /// Events, each with its outcome, a second.
    pub(crate) events_a_second: f64,
    /// CPU microseconds an event, of the whole process and by thread.
    pub(crate) cpu_micros: f64,
    pub(crate) cpu_micros_by_thread: BTreeMap<String, f64>,
    pub(crate) resident_bytes_max: usize,
}

/// What was written to a topic.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Traffic {
    pub(crate) topic: String,
    pub(crate) records: usize,
    /// Bytes of keys and values, uncompressed.
    pub(crate) bytes: usize,
}

impl Application {
    /// Creates it under a name of its own. `more` are settings of the configuration besides.
    pub(crate) fn prepare(model: &ModelBundle, more: &[String]) -> anyhow::Result<Self> {
        let variable = |name: &str| {
            env::var(name).with_context(|| {
                format!("{name} is not set: make bench-job and make bench-growth start a Kafka")
            })
        };
        let servers = variable("FORETELL_TEST_BROKERS")?;
        let folder = tempfile::tempdir()?;
        let unique = folder.path().file_name().and_then(|name| name.to_str()).context("UTF-8")?;
        let mut settings = quick_settings(folder.path(), INITIAL_EXAMPLES);
        settings.extend([
            format!("topics.prefix=bench-{}-", unique.trim_start_matches('.')),
            format!("broker.bootstrap_servers={servers}"),
            format!("schema_registry.url={}", variable("FORETELL_TEST_REGISTRY")?),
            "learning.retrain_after=1000000000".to_owned(),
        ]);
        settings.extend_from_slice(more);
        settings.extend(crate::more_settings()?);
        let config = Config::load(Path::new(example()), &settings)?;
        let cluster = Cluster::connect(&config, &foretell::app::clock())?;
        let application = Self { settings, config, cluster, servers, _folder: folder };
        application.process(&["init"], &[]).succeed(SOON);
        application.announce(model)?;
        Ok(application)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Starts a command of it.
    pub(crate) fn process(&self, command: &[&str], more: &[String]) -> Process {
        let settings = self.settings.iter().chain(more);
        let settings = settings.flat_map(|setting| ["--set", setting.as_str()]);
        let arguments: Vec<&str> =
            command.iter().copied().chain(["--config", example()]).chain(settings).collect();
        Process::start(&arguments)
    }

    /// Writes a backlog of `count` events with their outcomes.
    pub(crate) fn publish_backlog(&self, count: usize) -> anyhow::Result<()> {
        let (workload, start) = (Workload::new(&self.config, &self.cluster)?, workload::start());
        let mut publisher = self.cluster.broker.publish()?;
        for number in 0..count {
            for record in workload.backlog(number, start)? {
                publisher.send(record)?;
            }
        }
        publisher.flush()?;
        Ok(())
    }

    fn announce(&self, model: &ModelBundle) -> anyhow::Result<()> {
        let topic = &self.config.topics.models;
        let codec = self.cluster.codecs(&self.config)?.model;
        let mut publisher = self.cluster.broker.publish()?;
        for record in workload::announcements(model)? {
            let key = record.alias.clone().unwrap_or_else(|| record.version.clone());
            let mut value = Vec::new();
            codec.encode(&record, &mut value)?;
            publisher.send(OutputRecord {
                topic: topic.clone(),
                partition: None,
                timestamp: EventTime(foretell::app::clock().now().0),
                key: Some(key.into_bytes()),
                value: Some(value),
                headers: Vec::new(),
            })?;
            publisher.flush()?;
        }
        Ok(())
    }

    /// Runs an instance until each of the `events` has its prediction and its labelled example.
    pub(crate) fn drain(&self, threads: usize, events: usize) -> anyhow::Result<Drained> {
        let mut process = self.process(&["run"], &[format!("streams.threads={threads}")]);
        let http = process.http();
        let first = process_sample(&process, &http, events * WARM_UP_PERCENT / 100)?;
        let last = process_sample(&process, &http, events)?;
        let resident_bytes_max = high_water_bytes(process.id())?;
        process.signal("TERM");
        anyhow::ensure!(process.end(SOON).success(), "{}", process.errors());
        let done = last.joined - first.joined;
        let micros = |seconds: f64| seconds * 1e6 / done;
        let by_thread = last.cpu.iter().map(|(name, seconds)| {
            (name.clone(), micros(seconds - first.cpu.get(name).unwrap_or(&0.0)))
        });
        let by_thread: BTreeMap<_, _> = by_thread.collect();
        Ok(Drained {
            threads,
            events_a_second: done / last.at.duration_since(first.at).as_secs_f64(),
            cpu_micros: by_thread.values().sum(),
            cpu_micros_by_thread: by_thread,
            resident_bytes_max,
        })
    }

    /// Number and size of the records on the topics that the job wrote, in the order of their names.
    pub(crate) fn traffic(&self, events: usize) -> anyhow::Result<Vec<Traffic>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("group.id", "bench-job-traffic")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()?;
        let metadata = consumer.fetch_metadata(None, READ_WAIT)?;
        let prefix = self.config.topics.models.as_str().trim_end_matches("models").to_owned();
        let training_log = self.config.topics.labelled_examples.as_str();
        let mut traffic = Vec::new();
        for topic in metadata.topics().iter().filter(|topic| topic.name().starts_with(&prefix)) {
            let skipped = if topic.name() == training_log { INITIAL_EXAMPLES } else { 0 };
            let partitions = topic.partitions().len();
            let (records, bytes) = size(&consumer, topic.name(), partitions, skipped)?;
            let name = topic.name().trim_start_matches(&prefix).to_owned();
            // Models, trials and so on were written by `init`.
            if records > events / 10 {
                traffic.push(Traffic { topic: name, records, bytes });
            }
        }
        traffic.sort_by(|one, other| one.topic.cmp(&other.topic));
        Ok(traffic)
    }
}

/// Records and bytes of a topic without its first records.
fn size(
    consumer: &BaseConsumer,
    topic: &str,
    partitions: usize,
    skipped: usize,
) -> anyhow::Result<(usize, usize)> {
    let mut assignment = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions)? {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let (mut ended, mut read, mut bytes) = (0, 0, 0);
    while ended < partitions {
        match consumer.poll(READ_WAIT).context("a topic could not be read to its end")? {
            Ok(message) => {
                read += 1;
                if read > skipped {
                    bytes += message.key_len() + message.payload_len();
                }
            }
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok((read.saturating_sub(skipped), bytes))
}

/// What a process had used when so many events were joined with their outcomes.
struct Sample {
    at: Instant,
    joined: f64,
    /// Seconds of CPU, by the name of the thread.
    cpu: BTreeMap<String, f64>,
}

fn process_sample(process: &Process, http: &Http, joined: usize) -> anyhow::Result<Sample> {
    let joined = until("the events are joined", SOON * 4, || {
        thread::park_timeout(LOOK);
        let joined_now = http.metric("foretell_outcomes_total");
        (joined_now >= joined as f64).then_some(joined_now)
    });
    Ok(Sample { at: Instant::now(), joined, cpu: cpu_by_thread(process.id())? })
}

/// Seconds of CPU of a process, by the kind of thread: numbers in names are left out.
pub(crate) fn cpu_by_thread(process: u32) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut cpu = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let folder = thread?.path();
        // A thread may end meanwhile.
        let Ok(name) = fs::read_to_string(folder.join("comm")) else { continue };
        let Ok(stat) = fs::read_to_string(folder.join("schedstat")) else { continue };
        let nanos: u64 = stat.split(' ').next().context("an empty schedstat")?.parse()?;
        let kind = match name.trim_end() {
            name if name.starts_with("rdk:") => "librdkafka".to_owned(),
            name if name.starts_with("bench-") => "workers".to_owned(),
            name => {
                name.trim_end_matches(|last: char| last.is_ascii_digit() || last == '-').to_owned()
            }
        };
        *cpu.entry(kind).or_default() += Duration::from_nanos(nanos).as_secs_f64();
    }
    Ok(cpu)
}

fn high_water_bytes(process: u32) -> anyhow::Result<usize> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kilobytes = line.trim().strip_suffix(" kB").context("not in kB")?;
    Ok(kilobytes.parse::<usize>()? << 10)
}
