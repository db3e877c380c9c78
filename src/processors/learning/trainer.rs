//! The trainer: a thread that runs one job at a time at low priority, while the workers continue to score.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

use serde::Serialize;
use thread_priority::{ThreadPriority, ThreadPriorityValue, set_current_thread_priority};

use crate::processors::{
    learning::job::{Job, JobFailure, JobOutput, JobResult},
    metrics::ApplicationMetrics,
};
use foretell_streams::time::Clock;

/// The progress of a training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrainingProgress {
    /// The number of the training.
    pub training: u64,
    /// The phase.
    pub phase: Phase,
    /// Completed boosting iterations; trials while it tunes.
    pub iteration: u32,
    /// Total boosting iterations; trials while it tunes.
    pub of: u32,
}

/// The phase of a training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reads the training log.
    #[default]
    Reading,
    /// Searches for hyper-parameters.
    Tuning,
    /// Trains the models: one to be evaluated, and the one that is published.
    Training,
}

impl Phase {
    /// The name that users see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Tuning => "tuning",
            Self::Training => "training",
        }
    }
}

/// Reports progress: the phase, and how much of it is done. Returns false to cancel the job: the process stops, or the job's
/// time is over. It can be called from several threads.
pub type Progress<'a> = &'a (dyn Fn(Phase, u32, u32) -> bool + Sync);

/// The work of the thread.
pub trait Work: Send {
    /// Runs a job; blocks until it ends.
    fn run(&mut self, job: &Job, progress: Progress<'_>) -> JobResult;

    /// Does what nobody waits for, after the result of a job was handed over. It should end early when `goes_on` returns
    /// false: the process stops.
    fn between_jobs(&mut self, _goes_on: &dyn Fn() -> bool) {}
}

/// A handle on the trainer thread, which ends when the last handle is dropped.
#[derive(Clone)]
pub struct Trainer {
    mailbox: Arc<Mutex<Mailbox>>,
    jobs: Sender<Job>,
}

#[derive(Default)]
struct Mailbox {
    running: Option<Job>,
    finished: Option<(Job, JobResult)>,
    progress: Option<TrainingProgress>,
    /// The reason that the last job did not run, if the training log is incomplete.
    refused: Option<String>,
    /// Whether the running job is to end, because another one is polled.
    is_cancelled: bool,
    is_stopped: bool,
}

impl Trainer {
    /// Starts the thread. A job that takes longer than `time_max` fails.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn spawn(
        work: impl Work + 'static,
        clock: Arc<dyn Clock>,
        metrics: ApplicationMetrics,
        time_max: Duration,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (jobs, inbox) = mpsc::channel();
        let trainer = Self { mailbox: Arc::default(), jobs };
        let mailbox = Arc::clone(&trainer.mailbox);
        let thread = std::thread::Builder::new().name("trainer".to_owned());
        let mut worker = JobThread { work, mailbox, clock, metrics, time_max };
        let thread = thread.spawn(move || worker.run_all(&inbox))?;
        Ok((trainer, thread))
    }

    /// Returns the result of `job` once, or starts it if it does not run. Another job that runs is cancelled first. Does not
    /// block.
    #[must_use]
    pub fn poll(&self, job: &Job) -> Option<JobResult> {
        let mut mailbox = lock(&self.mailbox);
        if let Some((finished, result)) = mailbox.finished.take()
            && finished == *job
        {
            return Some(result);
        }
        mailbox.is_cancelled = mailbox.running.as_ref().is_some_and(|running| running != job);
        if mailbox.running.is_none() && !mailbox.is_stopped {
            mailbox.running = Some(job.clone());
            if self.jobs.send(job.clone()).is_err() {
                mailbox.running = None;
                let reason = "the trainer thread has ended".to_owned();
                return Some(Err(JobFailure::Failed(reason)));
            }
        }
        None
    }

    /// Whether a job runs, and has no result yet.
    #[must_use]
    pub fn is_running(&self) -> bool {
        lock(&self.mailbox).running.is_some()
    }

    /// The progress of the running training.
    #[must_use]
    pub fn progress(&self) -> Option<TrainingProgress> {
        lock(&self.mailbox).progress.clone()
    }

    /// The reason that the last job did not run, if the training log is incomplete.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        lock(&self.mailbox).refused.clone()
    }

    /// Cancels the running job, and starts no other.
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

/// The state of the thread.
struct JobThread<W> {
    work: W,
    mailbox: Arc<Mutex<Mailbox>>,
    clock: Arc<dyn Clock>,
    metrics: ApplicationMetrics,
    time_max: Duration,
}

impl<W: Work> JobThread<W> {
    /// Runs jobs until the last handle is dropped, or until it is stopped.
    fn run_all(&mut self, inbox: &Receiver<Job>) {
        let priority = ThreadPriorityValue::try_from(PRIORITY).map(ThreadPriority::Crossplatform);
        match priority.map(set_current_thread_priority) {
            Ok(Ok(())) => {}
            other => tracing::debug!(?other, "cannot lower the priority of the trainer thread"),
        }
        while let Ok(job) = inbox.recv() {
            let result = self.run(&job);
            let refused = match &result {
                Err(JobFailure::Incomplete(reason)) => Some(reason.clone()),
                Ok(_) | Err(JobFailure::Retry(_) | JobFailure::Failed(_)) => None,
            };
            self.metrics.training_log_incomplete(refused.is_some());
            let mut mailbox = lock(&self.mailbox);
            mailbox.refused = refused;
            mailbox.progress = None;
            mailbox.running = None;
            mailbox.is_cancelled = false;
            if mailbox.is_stopped {
                return;
            }
            mailbox.finished = Some((job, result));
            drop(mailbox);
            self.between_jobs();
        }
    }

    fn between_jobs(&mut self) {
        let Self { work, mailbox, .. } = self;
        let goes_on = || !lock(mailbox).is_stopped;
        let done = catch_unwind(AssertUnwindSafe(|| work.between_jobs(&goes_on)));
        if done.is_err() {
            tracing::error!("work after a job panicked; the message is in the log");
        }
    }

    fn run(&mut self, job: &Job) -> JobResult {
        let Self { work, mailbox, clock, metrics, time_max } = self;
        let started = clock.elapsed();
        let is_late = AtomicBool::new(false);
        let training = match job {
            Job::Train(request) => Some(request.training),
            Job::Judge(_) | Job::Check(_) => None,
        };
        tracing::info!(?job, "running a job of the learner");
        let report = |phase, iteration, of| {
            let mut mailbox = lock(mailbox);
            mailbox.progress =
                training.map(|training| TrainingProgress { training, phase, iteration, of });
            if clock.elapsed().saturating_sub(started) > *time_max {
                is_late.store(true, Ordering::Relaxed);
            }
            let goes_on = !mailbox.is_stopped && !mailbox.is_cancelled;
            goes_on && !is_late.load(Ordering::Relaxed)
        };
        // A panic fails this job, and not the later ones.
        let result = catch_unwind(AssertUnwindSafe(|| work.run(job, &report)));
        let mut result = result.unwrap_or_else(|_| {
            Err(JobFailure::Failed("it panicked; the message is in the log".to_owned()))
        });
        if result.is_err() && is_late.into_inner() {
            let reason = format!("it took longer than {time_max:?} ([learning] time_max)");
            result = Err(JobFailure::Failed(reason));
        } else if result.is_err() && lock(mailbox).is_cancelled {
            result = Err(JobFailure::Retry("another job took its place".to_owned()));
        }
        if training.is_some() {
            let took = clock.elapsed().saturating_sub(started);
            metrics.trained(result_name(&result), took.as_secs_f64());
            if let Ok(JobOutput::Trained(trained)) = &result {
                tracing::info!(training, version = %trained.bundle.version(), ?took, "trained");
            }
        }
        result
    }
}

/// The result of a training in metrics.
fn result_name(result: &JobResult) -> &'static str {
    match result {
        Ok(_) => "succeeded",
        Err(JobFailure::Retry(_)) => "retried",
        Err(JobFailure::Failed(_)) => "failed",
        Err(JobFailure::Incomplete(_)) => "incomplete",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::{
        learning::job::{Cause, Trained, TrainingRequest},
        metrics::tests::TestMetrics,
        small_model::small_bundle,
    };
    use foretell_streams::time::{ManualClock, WallTime};

    /// The next operation of a training.
    enum Command {
        Report(u32, u32),
        End(Box<JobResult>),
    }

    /// Executes the commands of the test, and reports the results to it.
    struct Scripted {
        begun: Sender<u64>,
        next: Receiver<Command>,
        may_go_on: Sender<bool>,
    }

    impl Work for Scripted {
        fn run(&mut self, job: &Job, progress: Progress<'_>) -> JobResult {
            let Job::Train(request) = job else { panic!("{job:?}") };
            self.begun.send(request.training).unwrap();
            loop {
                match self.next.recv().unwrap() {
                    Command::Report(iteration, of) => {
                        let may_go_on = progress(Phase::Training, iteration, of);
                        self.may_go_on.send(may_go_on).unwrap();
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

    /// Time limit of a training.
    const TIME_MAX: Duration = Duration::from_secs(30);
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
                Trainer::spawn(job, trainer_clock, metrics.metrics.clone(), TIME_MAX).unwrap();
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

        fn end(&self, result: JobResult) {
            self.next.send(Command::End(Box::new(result))).unwrap();
        }

        /// Polls a running training until it has a result.
        fn result(&self, training: u64) -> JobResult {
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

    fn request(training: u64) -> Job {
        let cause = Cause::default();
        Job::Train(TrainingRequest { training, through: 10, parent: None, cause })
    }

    fn trained() -> JobResult {
        Ok(JobOutput::Trained(Box::new(Trained::new(small_bundle()))))
    }

    fn failed(reason: &str) -> JobResult {
        Err(JobFailure::Failed(reason.to_owned()))
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
            assert_eq!(fixture.trainer.poll(&request(2)), None, "one at a time");
            assert_eq!(fixture.trainer.poll(&request(1)), None);
        }
        fixture.end(failed("the only one"));
        assert_eq!(fixture.result(1), failed("the only one"));
        fixture.begin(3);
        fixture.end(failed("another"));
        assert_eq!(fixture.result(3), failed("another"));
    }

    #[test]
    fn another_job_cancels_the_running_one() {
        let fixture = Fixture::new();
        fixture.begin(1);
        assert_eq!(fixture.trainer.poll(&request(2)), None);
        fixture.next.send(Command::Report(1, 10)).unwrap();
        assert!(!fixture.may_go_on.recv_timeout(PATIENCE).unwrap());
        fixture.end(failed("it was cancelled"));
        fixture.begin(2);
        assert!((fixture.metrics.value("foretell_trainings_total", "failed")).abs() < 0.1);
        fixture.next.send(Command::Report(1, 10)).unwrap();
        assert!(fixture.may_go_on.recv_timeout(PATIENCE).unwrap(), "it goes on");
        fixture.end(failed("the second"));
        assert_eq!(fixture.result(2), failed("the second"));
    }

    /// Its jobs succeed at once; what it does after each waits for the test.
    struct SlowBetween {
        begun: Sender<()>,
        may_end: Receiver<bool>,
        went_on: Sender<bool>,
    }

    impl Work for SlowBetween {
        fn run(&mut self, _job: &Job, _progress: Progress<'_>) -> JobResult {
            trained()
        }

        fn between_jobs(&mut self, goes_on: &dyn Fn() -> bool) {
            self.begun.send(()).unwrap();
            let may_end = self.may_end.recv().unwrap();
            self.went_on.send(goes_on()).unwrap();
            assert!(may_end, "a panic that the test has asked for");
        }
    }

    #[test]
    fn work_between_jobs_delays_no_result_and_no_failure_of_it_ends_the_thread() {
        let ((begun, was_begun), (end, may_end)) = (mpsc::channel(), mpsc::channel());
        let (went_on, answers) = mpsc::channel();
        let (clock, metrics) = (ManualClock::at(WallTime(0)), TestMetrics::new());
        let work = SlowBetween { begun, may_end, went_on };
        let (trainer, thread) =
            Trainer::spawn(work, Arc::new(clock), metrics.metrics.clone(), TIME_MAX).unwrap();
        assert_eq!(trainer.poll(&request(1)), None);
        for (training, may_end) in [(1, true), (2, false)] {
            was_begun.recv_timeout(PATIENCE).unwrap();
            assert_eq!(trainer.poll(&request(training)), Some(trained()), "it is not waited for");
            assert_eq!(trainer.poll(&request(training + 1)), None, "the next one waits");
            assert!(was_begun.try_recv().is_err());
            end.send(may_end).unwrap();
            assert!(answers.recv_timeout(PATIENCE).unwrap());
        }
        was_begun.recv_timeout(PATIENCE).unwrap();
        trainer.stop();
        end.send(true).unwrap();
        assert!(!answers.recv_timeout(PATIENCE).unwrap(), "the process stops");
        drop(trainer);
        thread.join().unwrap();
    }

    #[test]
    fn progress_is_of_the_running_training() {
        let fixture = Fixture::new();
        assert_eq!(fixture.trainer.progress(), None);
        fixture.begin(7);
        fixture.next.send(Command::Report(3, 10)).unwrap();
        assert!(fixture.may_go_on.recv_timeout(PATIENCE).unwrap());
        let expected =
            TrainingProgress { training: 7, phase: Phase::Training, iteration: 3, of: 10 };
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
    fn a_training_beyond_its_time_is_cancelled_and_fails() {
        let fixture = Fixture::new();
        fixture.begin(1);
        let report = || {
            fixture.next.send(Command::Report(1, 10)).unwrap();
            fixture.may_go_on.recv_timeout(PATIENCE).unwrap()
        };
        fixture.clock.advance(TIME_MAX);
        assert!(report());
        fixture.clock.advance(Duration::from_millis(1));
        assert!(!report());
        fixture.end(failed("it was stopped"));
        assert_eq!(fixture.result(1), failed("it took longer than 30s ([learning] time_max)"));
        assert!((fixture.metrics.value("foretell_trainings_total", "failed") - 1.0).abs() < 0.1);
    }

    #[test]
    fn an_incomplete_log_is_reported_until_a_training_succeeds() {
        let fixture = Fixture::new();
        let gauge = "foretell_training_log_incomplete";
        let round = |training, result: JobResult, refused: Option<&str>| {
            fixture.begin(training);
            fixture.end(result.clone());
            assert_eq!(fixture.result(training), result);
            assert_eq!(fixture.trainer.refused().as_deref(), refused);
            let expected = f64::from(u8::from(refused.is_some()));
            assert!((fixture.metrics.value(gauge, "") - expected).abs() < f64::EPSILON);
        };
        round(1, Err(JobFailure::Incomplete("no head".to_owned())), Some("no head"));
        round(2, trained(), None);
    }

    #[test]
    fn trainings_are_counted_by_result_with_their_duration() {
        let fixture = Fixture::new();
        let results = [
            ("succeeded", trained()),
            ("retried", Err(JobFailure::Retry("away".to_owned()))),
            ("failed", failed("one class")),
            ("incomplete", Err(JobFailure::Incomplete("no head".to_owned()))),
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
