//! Faults of single calls to the broker: before the call takes effect, after it, or without a response.

use std::sync::Arc;

use crate::{
    runtime::broker::{BrokerError, ProcessingGuarantee},
    simulation::{
        fault_injector::{Bug, Fault, FaultInjector},
        process::Process,
        processes,
    },
};

/// The calls of one process to the broker.
#[derive(Clone)]
pub(super) struct FaultyCalls {
    pub(super) faults: Arc<FaultInjector>,
    pub(super) process: Process,
    pub(super) guarantee: ProcessingGuarantee,
}

/// The possible faults of a call that is not made as a member of a group.
pub(super) const OUTSIDE_GROUP: &[Fault] = &[
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::Unavailable,
    Fault::StalledInside,
    Fault::StalledAfter,
];

impl FaultyCalls {
    /// Makes a call, with one of the `possible` faults or none.
    pub(super) fn call<T>(
        &self,
        name: &str,
        possible: &[Fault],
        operation: impl FnOnce() -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        if self.process.has_crashed() {
            return Err(self.process.crash());
        }
        self.process.record_broker_call();
        if self.faults.is_outage() {
            return Err(BrokerError::Retry("the broker does not respond".to_owned()));
        }
        // These are few among all calls.
        let weight = if matches!(name, "commit" | "drain") { 4 } else { 1 };
        let Some(fault) = self.faults.fault(possible, weight) else { return operation() };
        self.faults.log_event(format_args!("{} {name}: {fault:?}", self.process.name));
        let reason = format!("{fault:?}");
        match fault {
            Fault::CrashBefore => Err(self.process.crash()),
            Fault::CrashAfter => {
                // The process crashed after the call took effect, so its result is dropped.
                let _dropped = operation();
                Err(self.process.crash())
            }
            Fault::Unavailable => Err(BrokerError::Retry(reason)),
            Fault::Aborted => Err(BrokerError::Abort(reason)),
            Fault::Fenced => Err(BrokerError::Fenced(reason)),
            Fault::ResponseLost => {
                operation()?;
                Err(self.lost_response(reason))
            }
            Fault::StalledInside => {
                processes::stall_caller(&self.faults);
                operation()
            }
            Fault::StalledAfter => {
                let result = operation();
                processes::stall_caller(&self.faults);
                result
            }
            Fault::PartialSuccess => {
                operation()?;
                Err(BrokerError::Retry(reason))
            }
            Fault::DeliveryFailed
            | Fault::RecordsWithError
            | Fault::EndRepeated
            | Fault::ErrorRepeated
            | Fault::TopicsRecreated
            | Fault::HangingTransaction
            | Fault::StoreCorrupted
            | Fault::Killed
            | Fault::Stalled
            | Fault::Outage
            | Fault::PowerCut
            | Fault::DiskLost => unreachable!("{fault:?} is not a fault of a call"),
        }
    }

    /// Whether a call of the process reaches the broker.
    pub(super) fn reach_broker(&self) -> bool {
        !self.process.has_crashed() && !self.faults.is_outage()
    }

    /// The error of a commit whose response is lost. librdkafka ends a transaction that may have been committed; a commit
    /// of offsets can be repeated.
    fn lost_response(&self, reason: String) -> BrokerError {
        match self.guarantee {
            _ if self.faults.has(Bug::LostResponseTakenForAnAbort) => BrokerError::Abort(reason),
            ProcessingGuarantee::ExactlyOnce => BrokerError::Fenced(reason),
            ProcessingGuarantee::AtLeastOnce => BrokerError::Retry(reason),
        }
    }
}
