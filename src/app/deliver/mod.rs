//! `foretell deliver`: delivers actions to webhooks and by e-mail, at least once, with an idempotency key.
//!
//! ```text
//!   actions ─▶ consumer (one thread, a member of the group <application>-delivery)
//!                │  reader: decodes, selects requested actions
//!                │  deliveries: what to do now; pure: backoff, quiet_hours, rate
//!                ▼
//!              channel: threads ─▶ webhook (signature) ─▶ HTTP
//!                               └▶ email (templates)   ─▶ SMTP
//!                │
//!                └▶ outcome ─▶ dead letters, commits
//! ```
//!
//! The reasons for a consumer of its own, and what blocks what: docs/decisions/026-delivery.md.

mod action;
mod backoff;
mod channel;
mod consumer;
mod deliveries;
mod dry_run;
mod email;
pub(crate) mod metrics;
pub(crate) mod outcome;
mod quiet_hours;
mod rate;
mod reader;
mod readiness;
mod signature;
#[cfg(test)]
mod tests;
mod webhook;

use std::{net::SocketAddr, sync::Arc, thread::JoinHandle};

use anyhow::Context;
use rand::{TryRng, rngs::SysRng};

use crate::{
    app::{
        cluster::Cluster,
        deliver::{
            channel::{Channel, Threads},
            consumer::{Consumer, ConsumerParts},
            deliveries::Deliveries,
            email::Email,
            metrics::DeliveryMetrics,
            reader::ActionReader,
            readiness::Readiness,
            webhook::Webhook,
        },
        http_server::{BoundServer, HttpServer},
        shutdown::{Shutdown, StopReason},
        telemetry,
    },
    config::{ChannelSettings, Config},
};
use foretell_streams::{
    runtime::broker::{Membership, ProcessingGuarantee},
    time::Clock,
};

pub use dry_run::dry_run;

/// The last part of the group's name.
const GROUP: &str = "delivery";

/// A running delivery.
pub struct Delivery {
    /// The address of the HTTP server.
    pub address: SocketAddr,
    shutdown: Shutdown,
    consumer: JoinHandle<()>,
    server: HttpServer,
}

impl Delivery {
    /// Checks the settings, and starts the consumer, the channels and the HTTP server.
    ///
    /// # Errors
    /// If the settings are invalid, topics or schemas are missing, or the port is taken.
    pub fn start(
        config: &Config,
        cluster: &Cluster,
        clock: &Arc<dyn Clock>,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let channels = channels(config, clock)?;
        cluster.check_topics(&config.topics, config.partitions)?;
        let names: Vec<String> = names(&channels);
        let registry = telemetry::metrics_registry()?;
        let metrics = DeliveryMetrics::register(&registry, &names)?;
        let settings: Vec<ChannelSettings> =
            channels.iter().map(|channel| channel.settings.clone()).collect();
        // Not from the configured seed: two processes must not repeat at the same times.
        let seed = SysRng.try_next_u64().context("the system has no random numbers")?;
        let readiness = Readiness::default();
        let server = BoundServer::bind_probes(config)?;
        let address = server.address;
        let parts = ConsumerParts {
            broker: Arc::clone(&cluster.broker),
            membership: membership(config),
            reader: reader(config, cluster)?,
            deliveries: Deliveries::new(settings, seed),
            threads: Threads::start(channels, clock)?,
            channels: names,
            dead_letters: config.topics.dead_letters.clone(),
            in_flight_max: config.delivery.in_flight_max,
            clock: Arc::clone(clock),
            metrics,
            readiness: readiness.clone(),
        };
        let is_ready = Arc::new(move || readiness.has_joined());
        let server = server.serve_probes(config, &registry, is_ready)?;
        let (stop, failed) = (shutdown.signal(), shutdown.clone());
        // The member is joined on its own thread, the only one that may use it.
        let run = move || Consumer::new(parts).run(&stop).map_err(|error| error.to_string());
        let consumer = std::thread::Builder::new().name(GROUP.to_owned());
        let consumer = consumer.spawn(move || failed.stop_on_failure(run))?;
        Ok(Self { address, shutdown, consumer, server })
    }

    /// Waits for the attempts, commits, leaves the group and stops.
    ///
    /// # Errors
    /// The failure that made the delivery stop.
    pub fn stop(self) -> anyhow::Result<()> {
        self.shutdown.stop(StopReason::Asked);
        let ended = self.consumer.join();
        let served = self.server.stop();
        if let Some(StopReason::Failed(reason)) = self.shutdown.wait(std::time::Duration::ZERO) {
            anyhow::bail!(reason);
        }
        ended.map_err(|_| anyhow::anyhow!("a thread panicked; its message is above"))?;
        served
    }
}

/// Checks the channels' settings. Connects to nothing.
///
/// # Errors
/// If a setting or a template is invalid, or there is no channel. The message names the line.
pub fn check(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<()> {
    channels(config, clock).map(drop)
}

/// The membership of this process in the group, which reads only the topic of actions. Offsets are committed after the
/// deliveries: a transaction would not include these.
fn membership(config: &Config) -> Membership {
    let group = group(config);
    Membership {
        member: format!("{group}-{}", config.instance()),
        group,
        lead: config.topics.actions.clone(),
        co_partitioned: Vec::new(),
        guarantee: ProcessingGuarantee::AtLeastOnce,
        commit_interval: Membership::COMMIT_INTERVAL,
    }
}

/// The name of the consumer group.
pub(super) fn group(config: &Config) -> String {
    format!("{}-{GROUP}", config.application())
}

fn reader(config: &Config, cluster: &Cluster) -> anyhow::Result<ActionReader> {
    let codec = cluster.codec(config, &config.topics.actions)?;
    Ok(ActionReader { codec, schema: Arc::clone(&config.event_schema) })
}

/// The configured channels, checked.
fn channels(config: &Config, clock: &Arc<dyn Clock>) -> anyhow::Result<Vec<Channel>> {
    let mut channels = Vec::new();
    for webhook in &config.delivery.webhooks {
        let sender = Box::new(Webhook::new(webhook, clock)?);
        channels.push(Channel { settings: webhook.channel.clone(), sender });
    }
    for email in &config.delivery.emails {
        let sender = Box::new(Email::new(email, config, clock)?);
        channels.push(Channel { settings: email.channel.clone(), sender });
    }
    if channels.is_empty() {
        anyhow::bail!(
            "{}: there is no channel: add a [[delivery.webhooks]] or a [[delivery.emails]]",
            config.sources.of("delivery")
        );
    }
    Ok(channels)
}

fn names(channels: &[Channel]) -> Vec<String> {
    channels.iter().map(|channel| channel.settings.name.clone()).collect()
}
