//! The librdkafka properties of all clients, with reasons.
//!
//! Each client starts from the tables below. The user's `properties` override them, except for those that the guarantees of
//! foretell-streams rely on, which are refused.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use rdkafka::ClientConfig;
use serde::Deserialize;

use crate::{batching::Batching, error::broker_error, logging, token};
use foretell_streams::runtime::broker::{BrokerError, Isolation, Membership};

type Property = (&'static str, &'static str);

/// Maximum size of a record that a producer sends, 16 MiB; a topic may accept less. A model is one record, and the topic for
/// models accepts as much.
const RECORD_BYTES_MAX: &str = "16777216";

const EVERY_CLIENT: &[Property] = &[
    // NATs and load balancers drop idle connections without notice.
    ("socket.keepalive.enable", "true"),
    // Brokers close idle connections regularly, which need not be logged.
    ("log.connection.close", "false"),
    // Client telemetry (KIP-714) delays the destruction of a client, and there are other metrics.
    ("enable.metrics.push", "false"),
];

const EVERY_CONSUMER: &[Property] = &[
    // Records of aborted and open transactions are invisible.
    ("isolation.level", "read_committed"),
    // Start offsets are explicit; a position that is out of range is an error, never a silent jump.
    ("auto.offset.reset", "error"),
    // Offsets are committed together with the outputs.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // Fetch again soon after the queue was full: with the default of 1000 ms, throughput fell by nearly three quarters
    // (151k instead of 553k records a second).
    ("fetch.queue.backoff.ms", "10"),
    // A mistyped name must not create a topic.
    ("allow.auto.create.topics", "false"),
];

const MEMBER: &[Property] = &[
    // Incremental rebalancing (KIP-429): partitions that stay are processed while others move.
    ("partition.assignment.strategy", "cooperative-sticky"),
    // librdkafka moves its position past everything that it returns, the end of a partition included. After a pause, also
    // its own in each rebalance, it would skip a record.
    ("enable.partition.eof", "false"),
    // Per partition, because each has its own queue (`partition_queues`): a few fetches.
    ("queued.max.messages.kbytes", "4096"),
];

const READER: &[Property] = &[
    // A restore ends at the end of the partition. With control records, the position never equals the high watermark.
    ("enable.partition.eof", "true"),
    // The end is reported by an empty response, which the broker delays by this time.
    ("fetch.wait.max.ms", "50"),
    // A restoring instance has one reader per changelog: 16 MiB each instead of 64.
    ("queued.max.messages.kbytes", "16384"),
];

const EVERY_PRODUCER: &[Property] = &[
    // librdkafka's retries cause neither duplicates nor reordering; implies acks=all.
    ("enable.idempotence", "true"),
    // The partitioner of the Java clients, so that records with the same key are in the same partition, whichever client
    // wrote them.
    ("partitioner", "murmur2_random"),
    ("message.max.bytes", RECORD_BYTES_MAX),
    // At most 64 MiB in flight; beyond that, `send` waits.
    ("queue.buffering.max.kbytes", "65536"),
    // Only failures are reported: a report for every record is a third of the producer's cost.
    ("delivery.report.only.error", "true"),
    // Costs little CPU, and the field values of records repeat.
    ("compression.type", "lz4"),
];

const PLAIN_PRODUCER: &[Property] = &[
    // Shorter than the time within which a worker must poll (`max.poll.interval.ms`).
    ("message.timeout.ms", "30000"),
    // Records share requests, although their results can be read at once.
    ("linger.ms", "5"),
];

const TRANSACTIONAL_PRODUCER: &[Property] = &[
    // While librdkafka (2.12) looks for the group's coordinator, adding offsets to a transaction has no time-out: after some
    // errors it retries only when a connection is opened or closed (`rd_kafka_coord_req_fsm`), which may never happen after
    // the failure of a node. This closes idle connections.
    ("connections.max.idle.ms", "10000"),
];

/// Other names of properties that this crate sets, which librdkafka accepts as well.
const ALIASES: &[(&str, &str)] = &[
    ("compression.codec", "compression.type"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("queue.buffering.max.ms", "linger.ms"),
];

/// Properties that users cannot set, with the reason or the key of `[broker]` to use instead.
const RESERVED: &[(&str, &str)] = &[
    ("auto.offset.reset", "start offsets are always explicit"),
    ("bootstrap.servers", "set bootstrap_servers"),
    ("client.id", "it follows from the instance's name"),
    ("delivery.report.only.error", "failed deliveries must be seen, and only they"),
    ("enable.auto.commit", "offsets are committed with the outputs"),
    ("enable.auto.offset.store", "offsets are committed with the outputs"),
    ("enable.idempotence", "ordered writes without duplicates rely on it"),
    ("enable.partition.eof", "restores end on it, and members would skip records with it"),
    ("group.id", "it follows from the application's name"),
    ("group.instance.id", "members of the group are dynamic"),
    ("isolation.level", "exactly-once processing relies on it"),
    ("log.queue", "log lines go to tracing"),
    ("partition.assignment.strategy", "tasks move incrementally"),
    ("partitioner", "tasks and keys must agree on partitions"),
    ("session.timeout.ms", "set session_timeout"),
    ("transaction.timeout.ms", "set transaction_timeout"),
    ("transactional.id", "it follows from the application's name"),
];

/// Prefix of the properties by which librdkafka fetches tokens itself, or by which this crate passes it the token file.
const OAUTH: &str = "sasl.oauthbearer.";

/// Minimum of `max.poll.interval.ms`: the time between two polls after which the group revokes a worker's tasks. A rebalance
/// waits as long for a member that sends heartbeats but does not poll.
const POLL_INTERVAL_MIN: Duration = Duration::from_secs(30);

/// Minimum heartbeat interval, for short sessions in tests.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);

/// Maximum heartbeat interval. A member learns of a rebalance from the response to its next heartbeat, and tasks that move
/// wait for that. With 3 s, a second process got its tasks after 6 s; with 1 s, after 2.5 s. The tasks of a process that left
/// the group were resumed after 1 s instead of 2 s.
const HEARTBEAT_MAX: Duration = Duration::from_secs(1);

/// Connection settings of a cluster: the section `[broker]`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to connect to first, `host:port`, separated by commas (`bootstrap.servers`).
    pub bootstrap_servers: String,
    /// Prefix of the client ids in the broker's logs, metrics and quotas (`client.id`).
    pub client_id: String,
    /// Makes the workers static members (KIP-345): after a restart within the session time-out they own the same tasks,
    /// without a rebalance. Must differ between instances and be the same after a restart. A static member does not leave
    /// its group at shutdown, so its tasks are not processed until it returns or its session expires.
    pub instance_id: Option<String>,
    /// Time without a heartbeat after which the group assigns a worker's tasks to others (`session.timeout.ms`).
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// Time after which the broker aborts an open transaction (`transaction.timeout.ms`). Readers wait for open
    /// transactions, and so does the new owner of a failed worker's tasks, so it should be near 10 s.
    #[serde(with = "humantime_serde")]
    pub transaction_timeout: Duration,
    /// File with the token for SASL/OAUTHBEARER, which another process must keep fresh.
    pub token_file: Option<PathBuf>,
    /// Further librdkafka properties, such as those for TLS and SASL. The prefix `consumer.`, `producer.` or `admin.` limits
    /// a property to these clients.
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
            token_file: None,
            properties: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for KafkaConfig {
    /// Omits the values of `properties`, which can be passwords and keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("client_id", &self.client_id)
            .field("instance_id", &self.instance_id)
            .field("session_timeout", &self.session_timeout)
            .field("transaction_timeout", &self.transaction_timeout)
            .field("token_file", &self.token_file)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

/// Kind of a client, which selects the prefixed properties that it gets.
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
    /// Checks that no property is reserved or unknown to librdkafka.
    pub(crate) fn check(&self) -> Result<(), BrokerError> {
        for property in self.properties.keys() {
            let (name, _) = without_prefix(property);
            if let Some((_, instead)) = RESERVED.iter().find(|(reserved, _)| *reserved == name) {
                let text = format!("[broker] properties: {name} cannot be set: {instead}");
                return Err(BrokerError::Fatal(text));
            }
        }
        let is_oauth = |name: &&String| without_prefix(name).0.starts_with(OAUTH);
        if let Some(name) = self.properties.keys().find(is_oauth) {
            let text = format!(
                "[broker] properties: {name} cannot be set: fetching tokens requires libcurl, which is not built in; \
                 let another process keep a fresh token in a file, and set token_file"
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

    /// Properties of a worker's consumer.
    pub(crate) fn member_consumer(&self, membership: &Membership) -> ClientConfig {
        let mut config = self.start_consumer(MEMBER);
        config.set("group.id", &membership.group);
        config.set("client.id", format!("{}-{}", self.client_id, membership.member));
        if let Some(instance) = &self.instance_id {
            config.set("group.instance.id", format!("{instance}-{}", membership.member));
        }
        let batching = Batching::of(membership);
        config.set("fetch.wait.max.ms", millis(batching.fetch_wait));
        // With the size alone, a wait that the user has set is the longest, and with ours it would be that of each fetch.
        if !self.sets("fetch.wait.max.ms", Role::Consumer) {
            config.set("fetch.min.bytes", batching.fetch_bytes.to_string());
        }
        self.finish(config, Role::Consumer)
    }

    /// Properties of a worker's producer with exactly-once processing.
    pub(crate) fn transactional_producer(&self, membership: &Membership) -> ClientConfig {
        let mut config = self.start(&[EVERY_PRODUCER, TRANSACTIONAL_PRODUCER]);
        // Stable, so that a restarted process fences its predecessor; and few, because the broker keeps every id in memory
        // for days.
        config.set("transactional.id", format!("{}-{}", membership.group, membership.member));
        config.set("client.id", format!("{}-{}", self.client_id, membership.member));
        config.set("transaction.timeout.ms", millis(self.transaction_timeout));
        config.set("linger.ms", millis(Batching::of(membership).linger));
        self.finish(config, Role::Producer)
    }

    /// Properties of an idempotent producer without transactions.
    pub(crate) fn plain_producer(&self) -> ClientConfig {
        self.finish(self.start(&[EVERY_PRODUCER, PLAIN_PRODUCER]), Role::Producer)
    }

    /// Properties of a consumer outside of groups.
    pub(crate) fn reader(&self) -> ClientConfig {
        let mut config = self.start_consumer(READER);
        // The reader does not join this group, but librdkafka cannot assign partitions without a group id.
        config.set("group.id", format!("{}-reader", self.client_id));
        self.finish(config, Role::Consumer)
    }

    /// Properties of the client that creates topics and reads settings.
    pub(crate) fn admin(&self) -> ClientConfig {
        self.finish(self.start(&[]), Role::Admin)
    }

    /// Properties of the client that reads metadata. It is a consumer, because the metadata requests of a producer create
    /// topics if the broker allows it.
    pub(crate) fn metadata(&self, isolation: Isolation) -> ClientConfig {
        let mut config = self.start_consumer(&[]);
        if isolation == Isolation::ReadUncommitted {
            config.set("isolation.level", "read_uncommitted");
        }
        self.finish(config, Role::Consumer)
    }

    fn start_consumer(&self, table: &[Property]) -> ClientConfig {
        let mut config = self.start(&[EVERY_CONSUMER, table]);
        // Only members of a group use these, but librdkafka checks their consistency for every consumer.
        config.set("session.timeout.ms", millis(self.session_timeout));
        // At least four heartbeats may get lost within a session.
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

    /// Whether the user has set the property `name` for clients of this role.
    fn sets(&self, name: &str, role: Role) -> bool {
        self.properties.keys().any(|property| {
            let (own, only) = without_prefix(property);
            canonical(own) == name && only.is_none_or(|only| only == role)
        })
    }

    /// Adds the user's properties.
    fn finish(&self, mut config: ClientConfig, role: Role) -> ClientConfig {
        for only_for in [None, Some(role)] {
            for (property, value) in &self.properties {
                let (name, only) = without_prefix(property);
                if only == only_for {
                    config.set(canonical(name), value);
                }
            }
        }
        config
    }
}

/// The name that this crate uses for a property. If two names of a property were set, librdkafka would take either value.
fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, canonical)| canonical)
}

/// Splits a property into its name and the role of its prefix: `consumer.fetch.min.bytes` is `fetch.min.bytes`, for
/// consumers only.
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
            commit_interval: Membership::COMMIT_INTERVAL,
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
    fn a_users_property_overrides_a_default() {
        let config = config(&[
            ("fetch.queue.backoff.ms", "7"),
            ("compression.type", "zstd"),
            ("linger.ms", "50"),
        ]);
        config.check().unwrap();
        assert_eq!(config.reader().get("fetch.queue.backoff.ms"), Some("7"));
        assert_eq!(config.plain_producer().get("compression.type"), Some("zstd"));
        assert_eq!(config.plain_producer().get("linger.ms"), Some("50"));
    }

    #[test]
    fn a_prefixed_property_overrides_an_unprefixed_one() {
        let config = config(&[("socket.timeout.ms", "5000"), ("admin.socket.timeout.ms", "9000")]);
        assert_eq!(config.admin().get("socket.timeout.ms"), Some("9000"));
        assert_eq!(config.reader().get("socket.timeout.ms"), Some("5000"));
    }

    #[test]
    fn a_member_gathers_records_for_a_part_of_the_commit_interval() {
        let commit_interval = Duration::from_millis(50);
        let membership = Membership { commit_interval, ..membership() };
        let consumer = config(&[]).member_consumer(&membership);
        assert_eq!(consumer.get("fetch.wait.max.ms"), Some("12"));
        assert_eq!(consumer.get("fetch.min.bytes"), Some("100000"));
        let producer = config(&[]).transactional_producer(&membership);
        assert_eq!(producer.get("linger.ms"), Some("50"));
        assert_eq!(config(&[]).plain_producer().get("linger.ms"), Some("5"));
    }

    #[test]
    fn a_users_property_overrides_how_long_a_member_gathers_records() {
        let consumer = |own: &[(&str, &str)]| config(own).member_consumer(&membership());
        let smaller = consumer(&[("consumer.fetch.min.bytes", "1000")]);
        assert_eq!(smaller.get("fetch.min.bytes"), Some("1000"));
        assert_eq!(smaller.get("fetch.wait.max.ms"), Some("28"));
        for name in ["fetch.wait.max.ms", "consumer.fetch.wait.max.ms"] {
            let longer = consumer(&[(name, "500")]);
            assert_eq!(longer.get("fetch.wait.max.ms"), Some("500"));
            assert_eq!(longer.get("fetch.min.bytes"), None, "no fetch waits so long for more");
        }
        let of_others = consumer(&[("producer.linger.ms", "1")]);
        assert_eq!(of_others.get("fetch.min.bytes"), Some("100000"));
        for name in ["linger.ms", "producer.linger.ms", "queue.buffering.max.ms"] {
            let own = config(&[(name, "1")]);
            let producer = own.transactional_producer(&membership());
            assert_eq!(producer.get("linger.ms"), Some("1"), "{name}");
            assert_eq!(producer.get("queue.buffering.max.ms"), None, "{name}");
        }
    }

    #[test]
    fn reserved_properties_are_refused_with_a_fix() {
        assert!(refused(&[("isolation.level", "read_uncommitted")]).contains("exactly-once"));
        assert!(refused(&[("consumer.group.id", "mine")]).contains("group.id"));
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
