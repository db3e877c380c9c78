//! The training thread: trains one model at a time at low priority, while the workers continue to score.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
};

use serde::{Deserialize, Serialize};
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

use crate::processors::metrics::ApplicationMetrics;
use foretell_ml::{ModelBundle, ModelVersion};
use foretell_streams::time::Clock;

/// The arguments of a training, which is a pure function of them and the training log before an offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingRequest {
    /// The number of the training; the first model has 0.
    pub training: u64,
    /// The training set is the records of `labelled-examples` before this offset.
    pub through: i64,
    /// The champion when the training became due.
    pub parent: Option<ModelVersion>,
}

/// The result of a training.
pub type TrainingResult = Result<ModelBundle, TrainingFailure>;

/// A training without a model, named for what happens next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrainingFailure {
    /// The broker or the registry is not available: the same request is retried.
    #[error("not available now: {0}")]
    Retry(String),
    /// No model can be trained on these examples; the next training may succeed.
    #[error("{0}")]
    Failed(String),
    /// The training log lacks examples. No model is trained until an operator has restored them.
    #[error("{0}")]
    Incomplete(String),
}

/// The progress of a training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrainingProgress {
    /// The number of the training.
    pub training: u64,
    /// Completed boosting iterations.
    pub iteration: u32,
    /// Total boosting iterations.
    pub of: u32,
}

/// Reports progress: completed and total iterations. Returns false to cancel the training, because the process stops.
pub type Progress<'a> = &'a mut dyn FnMut(u32, u32) -> bool;

/// The work of the thread.
pub trait TrainingJob: Send {
    /// Trains a model; blocks until it ends.
    fn train(&mut self, request: &TrainingRequest, progress: Progress<'_>) -> TrainingResult;
}

/// A handle on the training thread, which ends when the last handle is dropped.
#[derive(Clone)]
pub struct Trainer {
    mailbox: Arc<Mutex<Mailbox>>,
    requests: Sender<TrainingRequest>,
}

#[derive(Default)]
struct Mailbox {
    running: Option<TrainingRequest>,
    finished: Option<(TrainingRequest, TrainingResult)>,
    progress: Option<TrainingProgress>,
    /// The reason that the last training did not run, if the training log is incomplete.
    refused: Option<String>,
    is_stopped: bool,
}

impl Trainer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn spawn(
        job: impl TrainingJob + 'static,
        clock: Arc<dyn Clock>,
        metrics: ApplicationMetrics,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (requests, inbox) = mpsc::channel();
        let trainer = Self { mailbox: Arc::default(), requests };
        let mailbox = Arc::clone(&trainer.mailbox);
        let thread = std::thread::Builder::new().name("trainer".to_owned());
        let thread = thread.spawn(move || work(job, &inbox, &mailbox, clock.as_ref(), &metrics))?;
        Ok((trainer, thread))
    }

    /// Returns the result of `request` once, or starts it if it does not run. Does not block.
    #[must_use]
    pub fn poll(&self, request: &TrainingRequest) -> Option<TrainingResult> {
        let mut mailbox = lock(&self.mailbox);
        if let Some((finished, result)) = mailbox.finished.take()
            && finished == *request
        {
            return Some(result);
        }
        if mailbox.running.is_none() && !mailbox.is_stopped {
            mailbox.running = Some(request.clone());
            if self.requests.send(request.clone()).is_err() {
                mailbox.running = None;
                let reason = "the training thread has ended".to_owned();
                return Some(Err(TrainingFailure::Failed(reason)));
            }
        }
        None
    }

    /// The progress of the running training.
    #[must_use]
    pub fn progress(&self) -> Option<TrainingProgress> {
        lock(&self.mailbox).progress.clone()
    }

    /// The reason that the last training did not run, if the training log is incomplete.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        lock(&self.mailbox).refused.clone()
    }

    /// Cancels the running training, and starts no other.
    pub fn stop(&self) {
        lock(&self.mailbox).is_stopped = true;
    }
}

fn lock(mailbox: &Mutex<Mailbox>) -> MutexGuard<'_, Mailbox> {
    mailbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A priority of 100, which is a niceness of about 10: on a fully loaded machine, training gets about a tenth of a core. With the
/// lowest, 19, it would get a hundredth, and a training of a minute would take hours.
const PRIORITY: u8 = 24;

fn work(
    mut job: impl TrainingJob,
    inbox: &Receiver<TrainingRequest>,
    mailbox: &Mutex<Mailbox>,
    clock: &dyn Clock,
    metrics: &ApplicationMetrics,
) {
    let priority = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
    match priority.map(set_current_thread_priority) {
        Ok(Ok(())) => {}
        other => tracing::debug!(?other, "cannot lower the priority of the training thread"),
    }
    while let Ok(request) = inbox.recv() {
        let started = clock.elapsed();
        let training = request.training;
        tracing::info!(training, through = request.through, "training");
        let report = |iteration, of| {
            let mut mailbox = lock(mailbox);
            mailbox.progress = Some(TrainingProgress { training, iteration, of });
            !mailbox.is_stopped
        };
        // A panic fails this training, and not the later ones.
        let result = catch_unwind(AssertUnwindSafe(|| job.train(&request, &mut { report })));
        let result = result.unwrap_or_else(|_| {
            Err(TrainingFailure::Failed("it panicked; the message is in the log".to_owned()))
        });
        let took = clock.elapsed().saturating_sub(started);
        match &result {
            Ok(bundle) => {
                metrics.trained("succeeded", took.as_secs_f64());
                tracing::info!(training, version = %bundle.version(), ?took, "trained");
            }
            Err(TrainingFailure::Retry(_)) => metrics.trained("retried", took.as_secs_f64()),
            Err(TrainingFailure::Failed(_)) => metrics.trained("failed", took.as_secs_f64()),
            Err(TrainingFailure::Incomplete(_)) => {
                metrics.trained("incomplete", took.as_secs_f64());
            }
        }
        let refused = match &result {
            Err(TrainingFailure::Incomplete(reason)) => Some(reason.clone()),
            Ok(_) | Err(TrainingFailure::Retry(_) | TrainingFailure::Failed(_)) => None,
        };
        metrics.training_log_incomplete(refused.is_some());
        let mut mailbox = lock(mailbox);
        mailbox.refused = refused;
        mailbox.progress = None;
        mailbox.running = None;
        if mailbox.is_stopped {
            return;
        }
        mailbox.finished = Some((request, result));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::processors::{metrics::tests::TestMetrics, small_model::small_bundle};
    use foretell_streams::time::{ManualClock, WallTime};

    /// The next operation of a training.
    enum Command {
        Report(u32, u32),
        End(Box<TrainingResult>),
    }

    /// Executes the commands of the test, and reports the results to it.
    struct Scripted {
        begun: Sender<u64>,
        next: Receiver<Command>,
        may_go_on: Sender<bool>,
    }

    impl TrainingJob for Scripted {
        fn train(&mut self, request: &TrainingRequest, progress: Progress<'_>) -> TrainingResult {
            self.begun.send(request.training).unwrap();
            loop {
                match self.next.recv().unwrap() {
                    Command::Report(iteration, of) => {
                        self.may_go_on.send(progress(iteration, of)).unwrap();
                    }
                    Command::End(result) => return *result,
                }
            }
        }
    }

    struct Fixture {
        trainer: Trainer,
        thread: std::thread::JoinHandle<()>,
        clock: Arc<ManualClock>,
        metrics: TestMetrics,
        begun: Receiver<u64>,
        next: Sender<Command>,
        may_go_on: Receiver<bool>,
    }

    /// Real time before a test fails.
    const PATIENCE: Duration = Duration::from_secs(60);

    impl Fixture {
        fn new() -> Self {
            let ((begun, was_begun), (next, comes_next)) = (mpsc::channel(), mpsc::channel());
            let (may_go_on, answers) = mpsc::channel();
            let job = Scripted { begun, next: comes_next, may_go_on };
            let clock = Arc::new(ManualClock::at(WallTime(0)));
            clock.advance(Duration::from_secs(100));
            let metrics = TestMetrics::new();
            let trainer_clock = Arc::<ManualClock>::clone(&clock) as Arc<dyn Clock>;
            let (trainer, thread) =
                Trainer::spawn(job, trainer_clock, metrics.metrics.clone()).unwrap();
            Self { trainer, thread, clock, metrics, begun: was_begun, next, may_go_on: answers }
        }

        /// Requests a training until it has begun.
        fn begin(&self, training: u64) {
            for _ in 0..PATIENCE.as_millis() {
                assert_eq!(self.trainer.poll(&request(training)), None);
                match self.begun.recv_timeout(Duration::from_millis(1)) {
                    Ok(begun) => return assert_eq!(begun, training),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the thread has ended"),
                }
            }
            panic!("training {training} has not begun");
        }

        fn end(&self, result: TrainingResult) {
            self.next.send(Command::End(Box::new(result))).unwrap();
        }

        /// Polls a running training until it has a result.
        fn result(&self, training: u64) -> TrainingResult {
            let (_sender, silence) = mpsc::channel::<()>();
            for _ in 0..PATIENCE.as_millis() {
                if let Some(result) = self.trainer.poll(&request(training)) {
                    return result;
                }
                assert!(silence.recv_timeout(Duration::from_millis(1)).is_err());
            }
            panic!("training {training} has no result");
        }
    }

    fn request(training: u64) -> TrainingRequest {
        TrainingRequest { training, through: 10, parent: None }
    }

    fn failed(reason: &str) -> TrainingResult {
        Err(TrainingFailure::Failed(reason.to_owned()))
    }

    #[test]
    fn a_result_is_returned_for_its_own_request_only() {
        let fixture = Fixture::new();
        fixture.begin(1);
        fixture.end(failed("the first"));
        // The task was moved away and back, with another request.
        fixture.begin(2);
        fixture.end(failed("the second"));
        assert_eq!(fixture.result(2), failed("the second"));
        // A result is returned once; the same request again starts a new training.
        fixture.begin(2);
        fixture.end(failed("the third"));
        assert_eq!(fixture.result(2), failed("the third"));
    }

    #[test]
    fn a_training_that_is_polled_repeatedly_runs_once() {
        let fixture = Fixture::new();
        fixture.begin(1);
        for _ in 0..3 {
            assert_eq!(fixture.trainer.poll(&request(1)), None);
            assert_eq!(fixture.trainer.poll(&request(2)), None, "one at a time");
        }
        fixture.end(failed("the only one"));
        assert_eq!(fixture.result(1), failed("the only one"));
        fixture.begin(3);
        fixture.end(failed("another"));
        assert_eq!(fixture.result(3), failed("another"));
    }

    #[test]
    fn progress_is_of_the_running_training() {
        let fixture = Fixture::new();
        assert_eq!(fixture.trainer.progress(), None);
        fixture.begin(7);
        fixture.next.send(Command::Report(3, 10)).unwrap();
        assert!(fixture.may_go_on.recv_timeout(PATIENCE).unwrap());
        let expected = TrainingProgress { training: 7, iteration: 3, of: 10 };
        assert_eq!(fixture.trainer.progress(), Some(expected));
        fixture.end(failed("it does not matter"));
        fixture.result(7).unwrap_err();
        assert_eq!(fixture.trainer.progress(), None);
    }

    #[test]
    fn a_stopped_trainer_cancels_and_starts_no_other_training() {
        let fixture = Fixture::new();
        fixture.begin(1);
        fixture.trainer.stop();
        fixture.next.send(Command::Report(1, 10)).unwrap();
        assert!(!fixture.may_go_on.recv_timeout(PATIENCE).unwrap(), "the training is cancelled");
        fixture.end(failed("it was stopped"));
        fixture.thread.join().unwrap();
        assert_eq!(fixture.trainer.poll(&request(1)), None, "a cancelled training has no result");
        assert_eq!(fixture.trainer.poll(&request(2)), None);
    }

    #[test]
    fn an_incomplete_log_is_reported_until_a_training_succeeds() {
        let fixture = Fixture::new();
        let gauge = "foretell_training_log_incomplete";
        let round = |training, result: TrainingResult, refused: Option<&str>| {
            fixture.begin(training);
            fixture.end(result.clone());
            assert_eq!(fixture.result(training), result);
            assert_eq!(fixture.trainer.refused().as_deref(), refused);
            let expected = f64::from(u8::from(refused.is_some()));
            assert!((fixture.metrics.value(gauge, "") - expected).abs() < f64::EPSILON);
        };
        round(1, Err(TrainingFailure::Incomplete("no head".to_owned())), Some("no head"));
        round(2, Ok(small_bundle()), None);
    }

    #[test]
    fn trainings_are_counted_by_result_with_their_duration() {
        let fixture = Fixture::new();
        let results = [
            ("succeeded", Ok(small_bundle())),
            ("retried", Err(TrainingFailure::Retry("away".to_owned()))),
            ("failed", failed("one class")),
            ("incomplete", Err(TrainingFailure::Incomplete("no head".to_owned()))),
        ];
        for (training, (name, result)) in (1..).zip(&results) {
            fixture.begin(training);
            fixture.clock.advance(Duration::from_secs(7));
            fixture.end(result.clone());
            assert_eq!(fixture.result(training), *result);
            let counted = fixture.metrics.value("foretell_trainings_total", name);
            assert!((counted - 1.0).abs() < f64::EPSILON, "{name}: {counted}");
        }
        let took = fixture.metrics.sum("foretell_training_seconds");
        assert!((took - 28.0).abs() < f64::EPSILON, "{took}");
    }

    #[test]
    fn the_training_thread_has_a_niceness_of_about_10() {
        let niceness = std::thread::spawn(|| {
            let priority = ThreadPriorityValue::try_from(PRIORITY).unwrap();
            set_current_thread_priority(ThreadPriority::Crossplatform(priority)).unwrap();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The 19th field (proc(5)); the second may have spaces in it.
            let after_name = stat.rsplit(')').next().unwrap();
            after_name.split_whitespace().nth(16).unwrap().to_owned()
        });
        let niceness: i32 = niceness.join().unwrap().parse().unwrap();
        assert!((9..=11).contains(&niceness), "{niceness}");
    }
}
