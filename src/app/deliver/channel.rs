//! The channels: each has a sender and as many threads as it may have connections, so a channel that hangs stops no other one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use crate::{
    app::deliver::{action::DueAction, deliveries::DeliveryId, outcome::Outcome},
    config::ChannelSettings,
};
use foretell_streams::time::Clock;

/// Sends an action to the outside.
pub(super) trait Sender: Send + Sync {
    /// Makes one attempt, within the time limits of the settings.
    fn send(&self, action: &DueAction) -> Outcome;

    /// What an attempt would send, for `--dry-run`.
    fn preview(&self, action: &DueAction) -> String;
}

/// An attempt to make.
type Work = (DeliveryId, Arc<DueAction>);

/// A channel before it is started.
pub(super) struct Channel {
    pub(super) settings: ChannelSettings,
    pub(super) sender: Box<dyn Sender>,
}

/// The result of an attempt.
#[derive(Debug)]
pub(super) struct Attempted {
    pub(super) id: DeliveryId,
    pub(super) channel: usize,
    /// `None`: the sender panicked.
    pub(super) outcome: Option<Outcome>,
    pub(super) seconds: f64,
}

/// The threads of all channels. They end when this is dropped, after their attempts.
pub(super) struct Threads {
    work: Vec<mpsc::Sender<Work>>,
    results: mpsc::Receiver<Attempted>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts the threads.
    pub(super) fn start(channels: Vec<Channel>, clock: &Arc<dyn Clock>) -> std::io::Result<Self> {
        let (done, results) = mpsc::channel();
        let (mut work, mut threads) = (Vec::new(), Vec::new());
        for (channel, Channel { settings, sender }) in channels.into_iter().enumerate() {
            let (to_do, from) = mpsc::channel();
            work.push(to_do);
            let (from, sender) = (Arc::new(Mutex::new(from)), Arc::<dyn Sender>::from(sender));
            for number in 0..settings.connections_max {
                let line = Line {
                    channel,
                    from: Arc::clone(&from),
                    sender: Arc::clone(&sender),
                    done: done.clone(),
                    clock: Arc::clone(clock),
                };
                let thread = std::thread::Builder::new();
                let thread = thread.name(format!("deliver-{}-{number}", settings.name));
                threads.push(thread.spawn(move || line.run())?);
            }
        }
        Ok(Self { work, results, threads })
    }

    /// Hands over an attempt. The caller bounds their number.
    pub(super) fn attempt(&self, id: DeliveryId, channel: usize, action: Arc<DueAction>) {
        let handed_over = self.work[channel].send((id, action));
        assert!(handed_over.is_ok(), "the threads of a channel end after their work");
    }

    /// The results since the last call.
    pub(super) fn results(&self) -> impl Iterator<Item = Attempted> + '_ {
        self.results.try_iter()
    }

    /// Waits for the attempts to end, and for the threads.
    pub(super) fn join(self) {
        drop(self.work);
        for thread in self.threads {
            assert!(thread.join().is_ok(), "a panic of a sender is caught");
        }
    }
}

/// One of the threads of a channel.
struct Line {
    channel: usize,
    from: Arc<Mutex<mpsc::Receiver<Work>>>,
    sender: Arc<dyn Sender>,
    done: mpsc::Sender<Attempted>,
    clock: Arc<dyn Clock>,
}

impl Line {
    fn run(&self) {
        // The lock is held while waiting: the threads of a channel take their work one after another.
        let next = || self.from.lock().unwrap_or_else(PoisonError::into_inner).recv();
        while let Ok((id, action)) = next() {
            let began = self.clock.elapsed();
            let outcome = catch_unwind(AssertUnwindSafe(|| self.sender.send(&action))).ok();
            let seconds = self.clock.elapsed().saturating_sub(began).as_secs_f64();
            let attempted = Attempted { id, channel: self.channel, outcome, seconds };
            if self.done.send(attempted).is_err() {
                return;
            }
        }
    }
}
