//! The thread on which models are trained, at low priority, one at a time, while scoring goes on.

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

/// A training, as a pure function's arguments: the initial data and the log up to an offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingRequest {
    /// Its number; the first model's is 0.
    pub training: u64,
    /// It learns from the records of `labelled-examples` before this offset.
    pub through: i64,
    /// The model that was champion when it fell due.
    pub parent: Option<ModelVersion>,
}

/// What came of a training.
pub type TrainingResult = Result<ModelBundle, TrainingFailure>;

/// Why there is no model, named for what happens next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrainingFailure {
    /// What it needs can't be had just now: the same request again.
    #[error("not just now: {0}")]
    Retry(String),
    /// These examples make no model; the next ones may.
    #[error("{0}")]
    Failed(String),
    /// The training log lacks what it should have: nothing is trained until somebody has mended it.
    #[error("{0}")]
    Incomplete(String),
}

/// How far a training is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrainingProgress {
    /// The number of the training.
    pub training: u64,
    /// Boosting iterations done.
    pub iteration: u32,
    /// Boosting iterations in all.
    pub of: u32,
}

/// Reports how far a training is: iteration, of how many. False: give up, the process is stopping.
pub type Progress<'a> = &'a mut dyn FnMut(u32, u32) -> bool;

/// What is done on the thread.
pub trait TrainingJob: Send {
    /// Trains. Blocks for as long as it takes.
    fn train(&mut self, request: &TrainingRequest, progress: Progress<'_>) -> TrainingResult;
}

/// A handle on the training thread, which ends when its last handle is gone.
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
    /// Why the last training was not done, if the training log is not whole.
    refused: Option<String>,
    is_stopped: bool,
}

impl Trainer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives no thread.
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

    /// The result of `request`, once; starts it if it is not under way. Never waits.
    #[must_use]
    pub fn ask(&self, request: &TrainingRequest) -> Option<TrainingResult> {
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

    /// How far the training under way is.
    #[must_use]
    pub fn progress(&self) -> Option<TrainingProgress> {
        lock(&self.mailbox).progress.clone()
    }

    /// Why the last training was not done, if the training log is not whole.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        lock(&self.mailbox).refused.clone()
    }

    /// Gives up the training under way, and takes no other.
    pub fn stop(&self) {
        lock(&self.mailbox).is_stopped = true;
    }
}

fn lock(mailbox: &Mutex<Mailbox>) -> MutexGuard<'_, Mailbox> {
    mailbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of 100, which comes to a niceness of about 10: where all of the machine is wanted, a tenth of a core is left for training.
/// The lowest, 19, leaves a hundredth, and a training that takes a minute would take hours.
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
        other => tracing::debug!(?other, "training at normal priority"),
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
        // A fault of ours costs this training, not the ones to come.
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

    /// What a training does next.
    enum Next {
        Report(u32, u32),
        End(Box<TrainingResult>),
    }

    /// Does what the test says, and tells it of what comes of that.
    struct Scripted {
        begun: Sender<u64>,
        next: Receiver<Next>,
        may_go_on: Sender<bool>,
    }

    impl TrainingJob for Scripted {
        fn train(&mut self, request: &TrainingRequest, progress: Progress<'_>) -> TrainingResult {
            self.begun.send(request.training).unwrap();
            loop {
                match self.next.recv().unwrap() {
                    Next::Report(iteration, of) => {
                        self.may_go_on.send(progress(iteration, of)).unwrap();
                    }
                    Next::End(result) => return *result,
                }
            }
        }
    }

    struct Scene {
        trainer: Trainer,
        thread: std::thread::JoinHandle<()>,
        clock: Arc<ManualClock>,
        metrics: TestMetrics,
        begun: Receiver<u64>,
        next: Sender<Next>,
        may_go_on: Receiver<bool>,
    }

    /// In real time, before a test fails.
    const PATIENCE: Duration = Duration::from_secs(60);

    impl Scene {
        fn new() -> Self {
            let ((begun, was_begun), (next, comes_next)) = (mpsc::channel(), mpsc::channel());
            let (may_go_on, answers) = mpsc::channel();
            let job = Scripted { begun, next: comes_next, may_go_on };
            let clock = Arc::new(ManualClock::at(WallTime(0)));
            clock.advance(Duration::from_secs(100));
            let metrics = TestMetrics::new();
            let its_clock = Arc::<ManualClock>::clone(&clock) as Arc<dyn Clock>;
            let (trainer, thread) =
                Trainer::spawn(job, its_clock, metrics.metrics.clone()).unwrap();
            Self { trainer, thread, clock, metrics, begun: was_begun, next, may_go_on: answers }
        }

        /// Asks for a training that is not under way, until it is.
        fn begin(&self, training: u64) {
            for _ in 0..PATIENCE.as_millis() {
                assert_eq!(self.trainer.ask(&request(training)), None);
                match self.begun.recv_timeout(Duration::from_millis(1)) {
                    Ok(begun) => return assert_eq!(begun, training),
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the thread has ended"),
                }
            }
            panic!("training {training} has not begun");
        }

        fn end(&self, result: TrainingResult) {
            self.next.send(Next::End(Box::new(result))).unwrap();
        }

        /// Asks for a training that is under way, until there is a result.
        fn result(&self, training: u64) -> TrainingResult {
            let (_sender, silence) = mpsc::channel::<()>();
            for _ in 0..PATIENCE.as_millis() {
                if let Some(result) = self.trainer.ask(&request(training)) {
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
    fn a_finished_training_answers_its_own_request_alone() {
        let scene = Scene::new();
        scene.begin(1);
        scene.end(failed("the first"));
        // The task was given back and came again, with another request by now.
        scene.begin(2);
        scene.end(failed("the second"));
        assert_eq!(scene.result(2), failed("the second"));
        // A result is given once. The same request again is another training.
        scene.begin(2);
        scene.end(failed("the third"));
        assert_eq!(scene.result(2), failed("the third"));
    }

    #[test]
    fn a_training_that_is_asked_for_again_and_again_is_done_once() {
        let scene = Scene::new();
        scene.begin(1);
        for _ in 0..3 {
            assert_eq!(scene.trainer.ask(&request(1)), None);
            assert_eq!(scene.trainer.ask(&request(2)), None, "one at a time");
        }
        scene.end(failed("the only one"));
        assert_eq!(scene.result(1), failed("the only one"));
        scene.begin(3);
        scene.end(failed("another"));
        assert_eq!(scene.result(3), failed("another"));
    }

    #[test]
    fn progress_is_that_of_the_training_under_way() {
        let scene = Scene::new();
        assert_eq!(scene.trainer.progress(), None);
        scene.begin(7);
        scene.next.send(Next::Report(3, 10)).unwrap();
        assert!(scene.may_go_on.recv_timeout(PATIENCE).unwrap());
        let expected = TrainingProgress { training: 7, iteration: 3, of: 10 };
        assert_eq!(scene.trainer.progress(), Some(expected));
        scene.end(failed("it does not matter"));
        scene.result(7).unwrap_err();
        assert_eq!(scene.trainer.progress(), None);
    }

    #[test]
    fn a_trainer_that_is_stopped_gives_up_and_takes_nothing_more() {
        let scene = Scene::new();
        scene.begin(1);
        scene.trainer.stop();
        scene.next.send(Next::Report(1, 10)).unwrap();
        assert!(!scene.may_go_on.recv_timeout(PATIENCE).unwrap(), "it is to give up");
        scene.end(failed("it was stopped"));
        scene.thread.join().unwrap();
        assert_eq!(scene.trainer.ask(&request(1)), None, "what was given up is no result");
        assert_eq!(scene.trainer.ask(&request(2)), None);
    }

    #[test]
    fn what_the_log_lacks_is_reported_until_a_training_succeeds() {
        let scene = Scene::new();
        let gauge = "foretell_training_log_incomplete";
        let round = |training, result: TrainingResult, refused: Option<&str>| {
            scene.begin(training);
            scene.end(result.clone());
            assert_eq!(scene.result(training), result);
            assert_eq!(scene.trainer.refused().as_deref(), refused);
            let expected = f64::from(u8::from(refused.is_some()));
            assert!((scene.metrics.value(gauge, "") - expected).abs() < f64::EPSILON);
        };
        round(1, Err(TrainingFailure::Incomplete("no head".to_owned())), Some("no head"));
        round(2, Ok(small_bundle()), None);
    }

    #[test]
    fn trainings_are_counted_by_how_they_ended_with_the_time_they_took() {
        let scene = Scene::new();
        let results = [
            ("succeeded", Ok(small_bundle())),
            ("retried", Err(TrainingFailure::Retry("away".to_owned()))),
            ("failed", failed("one class")),
            ("incomplete", Err(TrainingFailure::Incomplete("no head".to_owned()))),
        ];
        for (training, (name, result)) in (1..).zip(&results) {
            scene.begin(training);
            scene.clock.advance(Duration::from_secs(7));
            scene.end(result.clone());
            assert_eq!(scene.result(training), *result);
            let counted = scene.metrics.value("foretell_trainings_total", name);
            assert!((counted - 1.0).abs() < f64::EPSILON, "{name}: {counted}");
        }
        let took = scene.metrics.sum("foretell_training_seconds");
        assert!((took - 28.0).abs() < f64::EPSILON, "{took}");
    }

    #[test]
    fn training_yields_to_scoring_and_is_not_starved_by_it() {
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
