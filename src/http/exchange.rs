//! Writes a record to the stream and waits for the reply of the task that processes it.

use std::time::Duration;

use tokio::{sync::oneshot, time::timeout};

use crate::{
    http::{
        HttpState,
        api::{stopping, write},
        error::HttpError,
        parameters::{Named, Parameters},
    },
    processors::gateway::Answer,
};
use foretell_streams::record::OutputRecord;

/// Default and maximum of `timeout_ms`.
const WAIT_MS: u64 = 10_000;
const WAIT_MS_MAX: u64 = 60_000;

pub(super) const TIMEOUT: Named =
    ("timeout_ms", "Maximum time that the request waits, from 1 to 60000 ms. Default: 10000.");

/// The result of an exchange.
pub(super) enum Exchanged {
    Answered(Answer),
    /// The time was up.
    TimedOut {
        /// Whether the record was certainly written.
        is_written: bool,
    },
}

/// The value of the parameter `timeout_ms`.
pub(super) fn timeout_of(parameters: &Parameters) -> Result<Duration, HttpError> {
    Ok(Duration::from_millis(parameters.number(TIMEOUT.0, WAIT_MS, WAIT_MS_MAX)?))
}

/// Writes `record`, and waits for its reply for at most `at_most`.
pub(super) async fn exchange(
    state: &HttpState,
    mut record: OutputRecord,
    at_most: Duration,
) -> Result<Exchanged, HttpError> {
    let (open, opened) = oneshot::channel();
    let (answer, answered) = oneshot::channel();
    let gateway = &state.gateway;
    // Dropped at the end of this future, also when the client disconnects.
    let wait = gateway.wait(
        &mut record,
        Box::new(move |result| drop(open.send(result))),
        Box::new(move |what| drop(answer.send(what))),
    );
    let _wait = wait.inspect_err(|_| state.metrics.wait_refused())?;
    let _counted = state.metrics.wait();
    let mut is_written = false;
    let result = async {
        opened.await.map_err(|_| stopping())??;
        write(gateway, record)?.await?;
        is_written = true;
        answered.await.map_err(|_| stopping())
    };
    match timeout(at_most, result).await {
        Ok(answer) => Ok(Exchanged::Answered(answer?)),
        Err(_) => Ok(Exchanged::TimedOut { is_written }),
    }
}
