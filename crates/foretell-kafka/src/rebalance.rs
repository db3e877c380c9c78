//! Rebalance callbacks of a consumer in a group. A rebalance is queued by the callback, and completed after `poll` returned.
//!
//! librdkafka stops the group at the callback until the assignment is changed by `incremental_assign` or
//! `incremental_unassign`, but does not require that this happens inside the callback. So the callback only queues the
//! rebalance, and the worker completes it later (within the session). The commit before a revocation is then an ordinary
//! one.
//!
//! ```text
//!   open    ── Assigned/Revoked ──▶ queued ──poll──▶ the worker ──assign/unassign──▶ completed
//!   closing ── Assigned/Revoked ──▶ completed at once, or the close would never end
//! ```

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaResult,
    types::RDKafkaRespErr,
};

use crate::{deadline::Deadline, logging::LoggingContext};
use foretell_streams::{
    record::Partition,
    runtime::broker::{BrokerError, Rebalance},
    time::Clock,
};

/// Time limit of closing a consumer, which takes a request or two, if the coordinator does not respond.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Time limit of one `poll` while closing, in which the callbacks run.
const CLOSE_STEP: Duration = Duration::from_millis(2);

/// The context of a consumer in a group.
pub(crate) type GroupContext = LoggingContext<GroupEvents>;

/// Rebalances that are queued or not completed.
#[derive(Default)]
pub(crate) struct GroupEvents {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Rebalances that `poll` has not returned yet: one at a time, or two if the session expires in between.
    queued: VecDeque<Rebalance>,
    /// The rebalance whose completion librdkafka waits for.
    uncompleted: Option<Kind>,
    closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Assign,
    Revoke,
}

impl GroupEvents {
    /// Removes the next rebalance from the queue.
    pub(crate) fn next(&self) -> Option<Rebalance> {
        self.state().queued.pop_front()
    }

    /// Records that the assignment was changed as required.
    pub(crate) fn complete(&self) {
        self.state().uncompleted = None;
    }

    /// Whether librdkafka waits for the completion of a rebalance.
    pub(crate) fn is_uncompleted(&self) -> bool {
        self.state().uncompleted.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while holding this lock")
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let kind = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Kind::Assign
        } else {
            Kind::Revoke
        };
        if self.state.state().closing {
            log_failure(complete_empty(consumer, kind));
            return;
        }
        let elements = partitions.elements();
        let mut tasks: Vec<Partition> =
            elements.iter().map(|element| Partition(element.partition())).collect();
        tasks.sort_unstable();
        let rebalance = match kind {
            Kind::Assign => Rebalance::Assigned(tasks),
            Kind::Revoke => Rebalance::Revoked { tasks, lost: consumer.assignment_lost() },
        };
        tracing::debug!(?rebalance, "rebalance");
        let mut state = self.state.state();
        state.uncompleted = Some(kind);
        state.queued.push_back(rebalance);
    }
}

/// Revokes all partitions, leaves the group (unless a static member), and destroys the consumer, within [`CLOSE_WITHIN`].
///
/// # Errors
/// [`BrokerError::Retry`] if the consumer could not be closed in time; the group removes it when its session expires.
pub(crate) fn leave(
    consumer: BaseConsumer<GroupContext>,
    clock: &Arc<dyn Clock>,
) -> Result<(), BrokerError> {
    let uncompleted = {
        let mut state = consumer.context().state.state();
        state.closing = true;
        state.queued.clear();
        state.uncompleted.take()
    };
    if let Some(kind) = uncompleted {
        log_failure(complete_empty(&consumer, kind));
    }
    close(consumer, clock)
}

/// Closes and destroys any consumer, within [`CLOSE_WITHIN`]. rdkafka's `drop` would wait without a bound, in steps of
/// 100 ms.
pub(crate) fn close<C: ConsumerContext>(
    consumer: BaseConsumer<C>,
    clock: &Arc<dyn Clock>,
) -> Result<(), BrokerError> {
    if consumer.close_queue().is_err() {
        // For example after being fenced: there is nothing to leave, and dropping does not wait.
        return Ok(());
    }
    let deadline = Deadline::within(CLOSE_WITHIN, clock);
    while !consumer.closed() {
        if deadline.passed() {
            // Dropping it would wait on. librdkafka sends no heartbeats while it is closing, so the group removes the member.
            std::mem::forget(consumer);
            let seconds = CLOSE_WITHIN.as_secs();
            return Err(BrokerError::Retry(format!("could not close within {seconds} s")));
        }
        drop(consumer.poll(CLOSE_STEP));
    }
    Ok(())
}

/// Completes a rebalance without taking any partitions: assigns none, or unassigns all.
fn complete_empty(consumer: &BaseConsumer<GroupContext>, kind: Kind) -> KafkaResult<()> {
    match kind {
        Kind::Assign => consumer.incremental_assign(&TopicPartitionList::new()),
        Kind::Revoke => {
            let held = consumer.assignment()?;
            consumer.incremental_unassign(&held).or_else(|_| consumer.unassign())
        }
    }
}

fn log_failure(result: KafkaResult<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, "cannot complete a rebalance while closing");
    }
}
