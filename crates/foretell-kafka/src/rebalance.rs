//! The consumer's callbacks in a group: a rebalance is noted, and answered after `poll`.
//!
//! librdkafka holds the group at the announcement until the assignment is changed by
//! `incremental_assign` or `incremental_unassign`; it does not ask that this happens inside the callback.
//! So the callback only takes a note, and the worker answers in its own time (within the session):
//! the commit before a revocation is then an ordinary one.
//!
//! ```text
//!   Working ── Assigned/Revoked ──▶ noted ──poll──▶ the worker ──assign/unassign──▶ answered
//!   Closing ── Assigned/Revoked ──▶ answered at once, or the close never ends
//! ```

use std::{
    collections::VecDeque,
    error::Error,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaRespErr,
};

use crate::{deadline::Deadline, logging, token};
use foretell_streams::{
    record::Partition,
    runtime::broker::{BrokerError, Rebalance},
    time::Clock,
};

/// Leaving takes a request or two; a coordinator that does not answer is not waited for longer.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// One step of waiting for the close; the callbacks run inside.
const CLOSE_STEP: Duration = Duration::from_millis(2);

/// What the group asks for, and whether it has been answered.
pub(crate) struct GroupEvents {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Announced by librdkafka, not yet by `poll`. It has one open at a time; two at most, when the session
    /// runs out in between.
    announced: VecDeque<Rebalance>,
    /// What librdkafka waits for.
    unanswered: Option<Kind>,
    closing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Assign,
    Revoke,
}

impl GroupEvents {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State::default()) }
    }

    /// The next change to be answered.
    pub(crate) fn next(&self) -> Option<Rebalance> {
        self.state().announced.pop_front()
    }

    /// Notes that the assignment was changed as asked.
    pub(crate) fn answered(&self) {
        self.state().unanswered = None;
    }

    /// Whether librdkafka waits for an answer.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.state().unanswered.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding this lock")
    }
}

impl ClientContext for GroupEvents {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, file: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        token::generate(file)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        logging::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        logging::report(&error, reason);
    }
}

impl ConsumerContext for GroupEvents {
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
        if self.state().closing {
            log_failure(answer_with_nothing(consumer, kind));
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
        tracing::debug!(?rebalance, "announced");
        let mut state = self.state();
        state.unanswered = Some(kind);
        state.announced.push_back(rebalance);
    }
}

/// Gives everything up, leaves the group (unless a static member), and destroys the consumer. Takes
/// no longer than [`CLOSE_WITHIN`].
///
/// # Errors
/// [`BrokerError::Retry`] if the group did not let us go in time: the session's end will.
pub(crate) fn leave(
    consumer: BaseConsumer<GroupEvents>,
    clock: &Arc<dyn Clock>,
) -> Result<(), BrokerError> {
    let unanswered = {
        let mut state = consumer.context().state();
        state.closing = true;
        state.announced.clear();
        state.unanswered.take()
    };
    if let Some(kind) = unanswered {
        log_failure(answer_with_nothing(&consumer, kind));
    }
    close(consumer, clock)
}

/// Closes and destroys any consumer. Its own `drop` would wait without a bound, and in steps of 100 ms.
pub(crate) fn close<C: ConsumerContext>(
    consumer: BaseConsumer<C>,
    clock: &Arc<dyn Clock>,
) -> Result<(), BrokerError> {
    if consumer.close_queue().is_err() {
        // Fenced, say: there is nothing to leave, and dropping does not wait.
        return Ok(());
    }
    let deadline = Deadline::within(CLOSE_WITHIN, clock);
    while !consumer.closed() {
        if deadline.passed() {
            // To drop it would be to wait on. librdkafka sends no heartbeats once it is closing, so
            // the group will notice.
            std::mem::forget(consumer);
            let seconds = CLOSE_WITHIN.as_secs();
            return Err(BrokerError::Retry(format!("could not close within {seconds} s")));
        }
        drop(consumer.poll(CLOSE_STEP));
    }
    Ok(())
}

/// The shortest answer that librdkafka accepts: nothing more, or nothing at all.
fn answer_with_nothing(consumer: &BaseConsumer<GroupEvents>, kind: Kind) -> KafkaResult<()> {
    match kind {
        Kind::Assign => consumer.incremental_assign(&TopicPartitionList::new()),
        Kind::Revoke => {
            let held = consumer.assignment()?;
            consumer.incremental_unassign(&held).or_else(|_| consumer.unassign())
        }
    }
}

fn log_failure(answer: KafkaResult<()>) {
    if let Err(error) = answer {
        tracing::debug!(%error, "a rebalance could not be answered while closing");
    }
}
