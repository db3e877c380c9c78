//! Every librdkafka property that we set, and why.
//!
//! Each client starts from the tables below; the user's `properties` win over them, except for the
//! few that the guarantees of `streams` rest on, which are refused.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use rdkafka::ClientConfig;
use serde::Deserialize;

use crate::{error::broker_error, logging, token};
use foretell_streams::runtime::broker::{BrokerError, Isolation, Membership};

type Property = (&'static str, &'static str);

/// The largest record that a client of ours hands to a broker; what a topic takes may be less.
/// A model travels in one record, and the topic for them takes 16 MiB.
const RECORD_BYTES_MAX: &str = "16777216";

const EVERY_CLIENT: &[Property] = &[
    // A connection through a NAT or a load balancer dies silently when idle.
    ("socket.keepalive.enable", "true"),
    // Brokers close idle connections; that is not worth a line each time.
    ("log.connection.close", "false"),
    // Client telemetry (KIP-714) delays the destruction of a client, and we have our own metrics.
    ("enable.metrics.push", "false"),
];

const EVERY_CONSUMER: &[Property] = &[
    // Aborted and open transactions stay invisible.
    ("isolation.level", "read_committed"),
    // We always say where to start; a position that is gone is an error, never a silent jump.
    ("auto.offset.reset", "error"),
    // Offsets are committed with what came of them, and by us alone.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // After a full queue, fetch again at once: the stock 1000 ms cost nearly three quarters of the
    // throughput (151k instead of 553k records a second).
    ("fetch.queue.backoff.ms", "10"),
    // A mistyped name must not become a topic.
    ("allow.auto.create.topics", "false"),
];

const MEMBER: &[Property] = &[
    // Incremental: what stays with us goes on while the rest moves (KIP-429).
    ("partition.assignment.strategy", "cooperative-sticky"),
    // librdkafka moves its position past whatever it hands out, an end of a partition as well: the next pause, its own in
    // each rebalance too, would skip a record.
    ("enable.partition.eof", "false"),
    // There is one fetch under way per broker: what is assigned, resumed or sought meanwhile waits
    // until it comes back empty. With the stock 500 ms, an abort cost a quarter of a second.
    ("fetch.wait.max.ms", "100"),
    // A partition, since each has a queue of its own (`partition_queues`): a few fetches ahead.
    ("queued.max.messages.kbytes", "4096"),
];

const READER: &[Property] = &[
    // A restore ends here, never at "position == high watermark": control records hang that.
    ("enable.partition.eof", "true"),
    // The end is told by an empty answer, for which the broker waits this long.
    ("fetch.wait.max.ms", "50"),
    // A restoring instance has one reader a changelog: 16 MiB each, not 64.
    ("queued.max.messages.kbytes", "16384"),
];

const EVERY_PRODUCER: &[Property] = &[
    // No duplicates and no reordering from librdkafka's own retries; implies acks=all.
    ("enable.idempotence", "true"),
    // As Java's clients choose partitions, so that records of one key meet, whichever client wrote them.
    ("partitioner", "murmur2_random"),
    ("message.max.bytes", RECORD_BYTES_MAX),
    // 64 MiB under way at most; beyond that, `send` waits.
    ("queue.buffering.max.kbytes", "65536"),
    // We only ask what failed: a report for every record is a third of the producer's cost.
    ("delivery.report.only.error", "true"),
    // Nearly free, and our records repeat their field values.
    ("compression.type", "lz4"),
];

const PLAIN_PRODUCER: &[Property] = &[
    // Fail rather than hang: shorter than a worker may be silent (`max.poll.interval.ms`).
    ("message.timeout.ms", "30000"),
];

const TRANSACTIONAL_PRODUCER: &[Property] = &[
    // While librdkafka (2.12) looks for the group's coordinator, adding offsets to a transaction has no time-out: after
    // some errors it looks again only when a connection comes or goes (`rd_kafka_coord_req_fsm`), and after a node's
    // death none may. With nothing under way, these go.
    ("connections.max.idle.ms", "10000"),
];

/// What the guarantees rest on, or what has a name of its own in `[broker]`.
const OURS: &[(&str, &str)] = &[
    ("auto.offset.reset", "start offsets are always explicit"),
    ("bootstrap.servers", "set bootstrap_servers"),
    ("client.id", "set client_id"),
    ("delivery.report.only.error", "failed deliveries must be seen, and only they"),
    ("enable.auto.commit", "offsets are committed with the outputs"),
    ("enable.auto.offset.store", "offsets are committed with the outputs"),
    ("enable.idempotence", "ordered, single writes rest on it"),
    ("enable.partition.eof", "restores end on it, and records would be skipped with it"),
    ("group.id", "the application's name decides it"),
    ("group.instance.id", "set instance_id"),
    ("isolation.level", "exactly-once rests on it"),
    ("linger.ms", "set linger"),
    ("log.queue", "log lines go to tracing"),
    ("partition.assignment.strategy", "tasks move incrementally"),
    ("partitioner", "tasks and keys must agree on partitions"),
    ("session.timeout.ms", "set session_timeout"),
    ("transaction.timeout.ms", "set transaction_timeout"),
    ("transactional.id", "the application's name decides it"),
];

/// How librdkafka gets tokens by itself, or what it hands back to us.
const OAUTH: &str = "sasl.oauthbearer.";

/// How long a worker may be busy between two polls before its group gives its tasks away, at least. A rebalance waits as
/// long for a member that is silent and not dead.
const POLL_INTERVAL_MIN: Duration = Duration::from_secs(30);

/// So that a short session in a test is not all heartbeats.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// A member hears of a rebalance by its next heartbeat, and a task that moves waits for it: with 3 s, a second
/// process had its share after 6 s, with 1 s after 2.5 s; what a process left in order went on after 1 s, not 2 s.
const HEARTBEAT_MAX: Duration = Duration::from_secs(1);

/// How to reach a cluster: `[broker]`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// Names us in the broker's logs and quotas.
    pub client_id: String,
    /// Makes the workers static members (KIP-345): after a restart within the session they get their tasks
    /// back without a rebalance. Must differ between instances and stay the same after a restart. A static
    /// member does not leave its group on shutdown: its tasks wait for it until the session runs out.
    pub instance_id: Option<String>,
    /// After this long without a heartbeat, a worker is dead and its tasks go to others.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// After this long, the broker aborts a transaction by itself. Readers wait for an open one, and
    /// so does the new owner of a dead worker's tasks: keep it near 10 s.
    #[serde(with = "humantime_serde")]
    pub transaction_timeout: Duration,
    /// How long a record waits for others to share its request; throughput against latency.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// Holds the token that we show (SASL/OAUTHBEARER); somebody else keeps it fresh.
    pub token_file: Option<PathBuf>,
    /// More of librdkafka's properties, such as those for TLS and SASL; `consumer.`, `producer.` or
    /// `admin.` in front limits one to these clients.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "localhost:9092".to_owned(),
            client_id: "foretell".to_owned(),
            instance_id: None,
            session_timeout: Duration::from_secs(15),
            transaction_timeout: Duration::from_secs(10),
            linger: Duration::from_millis(5),
            token_file: None,
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for KafkaConfig {
    /// Without the values of `properties`: passwords and keys are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("client_id", &self.client_id)
            .field("instance_id", &self.instance_id)
            .field("session_timeout", &self.session_timeout)
            .field("transaction_timeout", &self.transaction_timeout)
            .field("linger", &self.linger)
            .field("token_file", &self.token_file)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

/// Which of the user's prefixed properties a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Consumer,
    Producer,
    Admin,
}

impl Role {
    const ALL: [Self; 3] = [Self::Consumer, Self::Producer, Self::Admin];

    fn prefix(self) -> &'static str {
        match self {
            Self::Consumer => "consumer.",
            Self::Producer => "producer.",
            Self::Admin => "admin.",
        }
    }
}

impl KafkaConfig {
    /// Refuses a property that is ours, or that librdkafka does not know.
    pub(crate) fn check(&self) -> Result<(), BrokerError> {
        for property in self.properties.keys() {
            let (name, _) = without_prefix(property);
            if let Some((_, instead)) = OURS.iter().find(|(ours, _)| *ours == name) {
                let text = format!("[broker] properties: {name} cannot be set: {instead}");
                return Err(BrokerError::Fatal(text));
            }
        }
        let is_oauth = |name: &&String| without_prefix(name).0.starts_with(OAUTH);
        if let Some(name) = self.properties.keys().find(is_oauth) {
            let text = format!(
                "[broker] properties: {name} cannot be set: fetching tokens takes libcurl, which is not built in; \
                 let somebody else keep one fresh in a file, and set token_file"
            );
            return Err(BrokerError::Fatal(text));
        }
        for client in [
            self.admin(),
            self.metadata(Isolation::ReadUncommitted),
            self.reader(),
            self.plain_producer(),
        ] {
            client.create_native_config().map_err(|error| broker_error("configure", &error))?;
        }
        Ok(())
    }

    /// A worker's consumer.
    pub(crate) fn member_consumer(&self, membership: &Membership) -> ClientConfig {
        let mut config = self.start_consumer(MEMBER);
        config.set("group.id", &membership.group);
        config.set("client.id", format!("{}-{}", self.client_id, membership.member));
        if let Some(instance) = &self.instance_id {
            config.set("group.instance.id", format!("{instance}-{}", membership.member));
        }
        self.finish(config, Role::Consumer)
    }

    /// A worker's producer, if its commits are transactions.
    pub(crate) fn transactional_producer(&self, membership: &Membership) -> ClientConfig {
        let mut config = self.start(&[EVERY_PRODUCER, TRANSACTIONAL_PRODUCER]);
        // Stable, so that a process that starts again under this name fences what is left of the last one,
        // and few: every id ever used stays in the broker's memory for days.
        config.set("transactional.id", format!("{}-{}", membership.group, membership.member));
        config.set("client.id", format!("{}-{}", self.client_id, membership.member));
        config.set("transaction.timeout.ms", millis(self.transaction_timeout));
        config.set("linger.ms", millis(self.linger));
        self.finish(config, Role::Producer)
    }

    /// Any other producer.
    pub(crate) fn plain_producer(&self) -> ClientConfig {
        let mut config = self.start(&[EVERY_PRODUCER, PLAIN_PRODUCER]);
        config.set("linger.ms", millis(self.linger));
        self.finish(config, Role::Producer)
    }

    /// A reader of one partition.
    pub(crate) fn reader(&self) -> ClientConfig {
        let mut config = self.start_consumer(READER);
        // Nobody joins it, but librdkafka assigns nothing without one.
        config.set("group.id", format!("{}-reader", self.client_id));
        self.finish(config, Role::Consumer)
    }

    /// Creates topics and reads their settings.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.finish(self.start(&[]), Role::Admin)
    }

    /// Asks for metadata. A consumer, because a producer's questions create topics where the
    /// broker allows it.
    pub(crate) fn metadata(&self, isolation: Isolation) -> ClientConfig {
        let mut config = self.start_consumer(&[]);
        if isolation == Isolation::ReadUncommitted {
            config.set("isolation.level", "read_uncommitted");
        }
        self.finish(config, Role::Consumer)
    }

    fn start_consumer(&self, table: &[Property]) -> ClientConfig {
        let mut config = self.start(&[EVERY_CONSUMER, table]);
        // Only a group's members live by these, but librdkafka wants them to fit together always.
        config.set("session.timeout.ms", millis(self.session_timeout));
        // At least four may get lost.
        let heartbeat = (self.session_timeout / 5).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
        config.set("heartbeat.interval.ms", millis(heartbeat));
        config.set("max.poll.interval.ms", millis(self.session_timeout.max(POLL_INTERVAL_MIN)));
        config
    }

    fn start(&self, tables: &[&[Property]]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config.set("client.id", &self.client_id);
        for (name, value) in EVERY_CLIENT.iter().chain(tables.iter().copied().flatten()) {
            config.set(*name, *value);
        }
        if let Some(file) = &self.token_file {
            config.set("sasl.mechanisms", "OAUTHBEARER");
            config.set(token::FILE, file.to_string_lossy());
        }
        logging::listen(&mut config);
        config
    }

    fn finish(&self, mut config: ClientConfig, role: Role) -> ClientConfig {
        for (property, value) in &self.properties {
            let (name, only) = without_prefix(property);
            if only.is_none() {
                config.set(name, value);
            }
        }
        for (property, value) in &self.properties {
            let (name, only) = without_prefix(property);
            if only == Some(role) {
                config.set(name, value);
            }
        }
        config
    }
}

/// `consumer.fetch.min.bytes` is `fetch.min.bytes`, for consumers only.
fn without_prefix(property: &str) -> (&str, Option<Role>) {
    for role in Role::ALL {
        if let Some(name) = property.strip_prefix(role.prefix()) {
            return (name, Some(role));
        }
    }
    (property, None)
}

fn millis(span: Duration) -> String {
    span.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_streams::{record::Topic, runtime::broker::ProcessingGuarantee};

    fn config(properties: &[(&str, &str)]) -> KafkaConfig {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        KafkaConfig { properties: properties.iter().map(own).collect(), ..KafkaConfig::default() }
    }

    fn membership() -> Membership {
        Membership {
            group: "adult-scoring".to_owned(),
            member: "a-0".to_owned(),
            lead: Topic::new("questionnaire-events"),
            co_partitioned: Vec::new(),
            guarantee: ProcessingGuarantee::ExactlyOnce,
        }
    }

    fn refused(properties: &[(&str, &str)]) -> String {
        match config(properties).check() {
            Err(BrokerError::Fatal(text)) => text,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn every_client_is_accepted_by_librdkafka() {
        let config = config(&[]);
        config.check().unwrap();
        config.member_consumer(&membership()).create_native_config().unwrap();
        config.transactional_producer(&membership()).create_native_config().unwrap();
    }

    #[test]
    fn a_users_property_wins() {
        let config = config(&[("fetch.queue.backoff.ms", "7"), ("compression.type", "zstd")]);
        config.check().unwrap();
        assert_eq!(config.reader().get("fetch.queue.backoff.ms"), Some("7"));
        assert_eq!(config.plain_producer().get("compression.type"), Some("zstd"));
    }

    #[test]
    fn a_prefix_limits_a_property_and_wins_over_none() {
        let config = config(&[("socket.timeout.ms", "5000"), ("admin.socket.timeout.ms", "9000")]);
        assert_eq!(config.admin().get("socket.timeout.ms"), Some("9000"));
        assert_eq!(config.reader().get("socket.timeout.ms"), Some("5000"));
    }

    #[test]
    fn what_is_ours_is_refused_with_the_way_out() {
        assert!(refused(&[("isolation.level", "read_uncommitted")]).contains("exactly-once"));
        assert!(refused(&[("consumer.group.id", "mine")]).contains("group.id"));
        assert!(refused(&[("linger.ms", "1")]).contains("set linger"));
        assert!(refused(&[("sasl.oauthbearer.method", "oidc")]).contains("token_file"));
    }

    #[test]
    fn an_unknown_property_is_refused_by_name() {
        assert!(refused(&[("fetch.quantum", "7")]).contains("fetch.quantum"));
    }

    #[test]
    fn names_come_from_the_membership() {
        let static_member =
            KafkaConfig { instance_id: Some("pod-3".to_owned()), ..KafkaConfig::default() };
        let consumer = static_member.member_consumer(&membership());
        assert_eq!(consumer.get("group.id"), Some("adult-scoring"));
        assert_eq!(consumer.get("group.instance.id"), Some("pod-3-a-0"));
        let producer = static_member.transactional_producer(&membership());
        assert_eq!(producer.get("transactional.id"), Some("adult-scoring-a-0"));
    }

    #[test]
    fn heartbeats_fit_the_session() {
        let check = |session_millis, expected| {
            let session_timeout = Duration::from_millis(session_millis);
            let config = KafkaConfig { session_timeout, ..KafkaConfig::default() };
            let consumer = config.member_consumer(&membership());
            assert_eq!(consumer.get("heartbeat.interval.ms"), Some(expected), "{session_millis}");
        };
        check(200, "100");
        check(3_000, "600");
        check(15_000, "1000");
        check(60_000, "1000");
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = format!("{:?}", config(&[("sasl.password", "hunter2")]));
        assert!(text.contains("sasl.password") && !text.contains("hunter2"));
    }
}
