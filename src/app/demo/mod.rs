//! The whole loop in one process, on real data: init, run, play, settle, and then an examination of the
//! topics, which trusts nothing that the instance says of itself.

mod examine;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;

pub use report::{Check, ModelReport, Report};

use crate::{
    app::{
        cluster::Cluster,
        init::{self, InitObserver},
        player::{self, Form, PlaySettings, Script, What},
        shutdown::Shutdown,
        stage::{self, Stage, Watch},
        start::{self, Instance},
        table, telemetry,
    },
    config::Config,
    events::outcome::Outcome,
    ml::Seed,
    processors::outcome_join::UnlabelledPolicy,
    streams::{
        record::Topic,
        runtime::StopSignal,
        time::{Clock, EventTime},
    },
};

/// How the demo plays.
#[derive(Clone, Debug)]
pub struct DemoSettings {
    /// Respondents a second; 0 is as fast as it goes.
    pub rate: f64,
    /// Respondents in all, if not the whole table.
    pub limit: Option<usize>,
    /// Where chance comes from.
    pub seed: u64,
}

/// What a demo shows while it runs.
pub trait DemoObserver: InitObserver {
    /// So many of so many respondents have answered; so many predictions came back.
    fn played(&mut self, happenings: usize, of: usize, predictions: usize);
}

/// What is known about the play when it is over.
struct Played {
    script: Script,
    /// Events that are to be scored.
    expected: BTreeSet<String>,
    events_sent: usize,
    late_outcomes: usize,
    /// Whether it took its time, so that models could be trained meanwhile.
    is_paced: bool,
    watch: Watch,
    /// What settled, and what did not in time.
    unsettled: Vec<&'static str>,
}

/// What leaves no record, and so is known from the metrics alone.
struct Counted {
    unlabelled: usize,
    unseen_categories: usize,
    out_of_range: usize,
}

/// Event time between two respondents: the test split takes about an hour of it.
const GAP: Duration = Duration::from_millis(250);
/// Awaited predictions under way at most: far more than a commit interval's worth.
const OPEN_MAX: usize = 5_000;
/// Nothing more is expected when nothing has changed for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Each kind of bad input is sent so often.
const BAD_INPUT: usize = 10;
/// From a play of so few joined outcomes on, N is made smaller: so many trainings show what learning does.
const TRAININGS_WANTED: u64 = 3;

/// Runs the demo and returns its report, with the instance still running.
///
/// # Errors
/// If it can't be run; what it finds wrong is in the report.
pub fn run(
    config: &Config,
    clock: &Arc<dyn Clock>,
    shutdown: &Shutdown,
    settings: &DemoSettings,
    observer: &mut dyn DemoObserver,
) -> anyhow::Result<(Report, Instance)> {
    let started = clock.elapsed();
    start::check_address(config)?;
    anyhow::ensure!(settings.limit != Some(0), "--limit must be at least 1");
    let config = &fitted(config, settings, observer)?;
    let cluster = Cluster::embedded(clock);
    init::init(config, &cluster, clock, shutdown, false, observer)?;
    let instance = Instance::start(config, &cluster, clock, shutdown.clone())?;
    observer.step(&format!("serving on http://{}", instance.address));
    let stop = StopSignal::default();
    let director =
        Director { config, cluster: &cluster, clock, shutdown, instance: &instance, stop: &stop };
    let played = director.play(settings, observer);
    stop.stop();
    let played = played?;
    let found = examine::examine(config, &cluster)?;
    let counted = Counted {
        unlabelled: director.counter("foretell_unlabelled_total"),
        unseen_categories: director.counter("foretell_unseen_categories_total"),
        out_of_range: director.counter("foretell_out_of_range_total"),
    };
    let seconds = clock.elapsed().saturating_sub(started).as_secs_f64();
    let report = report::report(&played, &found, &counted, seconds);
    Ok((report, instance))
}

/// The configuration with an N by which the table that is played shows learning.
fn fitted(
    config: &Config,
    settings: &DemoSettings,
    observer: &mut dyn DemoObserver,
) -> anyhow::Result<Config> {
    let mut config = config.clone();
    let table = config.raw.data.play.as_ref();
    let table = table.context("there is nothing to play: name a table in [data.play]")?;
    let rows = table::read(table, &config.event_schema)?.len();
    let rows = u64::try_from(rows.min(settings.limit.unwrap_or(usize::MAX)))?;
    let written = config.raw.learning.retrain_after;
    if rows < 2 * written {
        let fitting = (rows / (TRAININGS_WANTED + 1)).clamp(1, written);
        config.raw.learning.retrain_after = fitting;
        if fitting != written {
            observer.step(&format!(
                "{rows} respondents: the demo retrains after {fitting} labelled examples, not after {written}"
            ));
        }
    }
    Ok(config)
}

/// What is played, and how.
struct Play<'a> {
    form: &'a Form<'a>,
    settings: &'a PlaySettings,
    row: &'a table::Row,
}

/// Plays, and waits until all of it has come to its end.
struct Director<'a> {
    config: &'a Config,
    cluster: &'a Cluster,
    clock: &'a Arc<dyn Clock>,
    shutdown: &'a Shutdown,
    instance: &'a Instance,
    stop: &'a StopSignal,
}

impl Director<'_> {
    fn play(
        &self,
        settings: &DemoSettings,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<Played> {
        let config = self.config;
        let table = config.raw.data.play.as_ref();
        let table = table.context("there is nothing to play: name a table in [data.play]")?;
        let mut rows = table::read(table, &config.event_schema)?;
        rows.truncate(settings.limit.unwrap_or(usize::MAX));
        anyhow::ensure!(!rows.is_empty(), "the table in [data.play] has no rows");
        let labelled = self.count_records(&config.topics.labelled_examples)?;
        let dead = self.count_records(&config.topics.dead_letters)?;
        let trainer = self.instance.overview.trainer.clone();
        let is_training = move || trainer.progress().is_some();
        let (watch, _) = stage::watch_predictions(
            config,
            self.cluster,
            self.clock,
            self.stop,
            is_training.clone(),
        )?;

        let mut stage = Stage::open(config, self.cluster, self.clock)?;
        let questionnaires = stage.questionnaires();
        let round_trip = |event: &_| stage::round_trip(questionnaires.as_ref(), event);
        let form = Form::of(config.event_schema.questions(), &rows[0], &round_trip)
            .context("the event schema takes no event of the first row of [data.play]")?;
        let play_settings = self.play_settings(rows.len(), settings.seed)?;
        let mut script = Script::of(&rows, &play_settings, &form);
        player::add_bad_input(&mut script, &rows, BAD_INPUT, &play_settings, &form);
        let mut played = Played {
            script,
            expected: BTreeSet::new(),
            events_sent: 0,
            late_outcomes: 0,
            is_paced: settings.rate > 0.0,
            watch,
            unsettled: Vec::new(),
        };
        let play = Play { form: &form, settings: &play_settings, row: &rows[0] };
        self.play_script(&mut played, &mut stage, (settings.rate, &form), &is_training, observer)?;
        let answered = || played.watch.lock().answered;
        let mut unsettled = Vec::new();
        let joined = played.script.joined;
        unsettled.extend(self.settle("every event predicted", answered, played.expected.len())?);
        unsettled.extend(self.settle("every outcome joined", || count(&labelled), joined)?);
        // Only now may stream time close the windows.
        let late = self.close_windows(&mut played, &mut stage, &play)?;
        let open = played.script.unlabelled;
        unsettled.extend(self.settle(
            "every window closed",
            || self.counter("foretell_unlabelled_total"),
            open,
        )?);
        // Not before: of two inputs the earlier goes first, and these are of long ago.
        for outcome in late {
            stage.play(&What::Outcome(outcome))?;
            played.late_outcomes += 1;
        }
        stage.flush()?;
        let letters = played.expected_dead_letters().values().sum();
        unsettled.extend(self.settle("bad input set aside", || count(&dead), letters)?);
        if matches!(config.join.unlabelled, UnlabelledPolicy::Label(_)) {
            // No outcome is an outcome, too.
            played.script.joined += open;
        }
        let learned = self.last_training_learns_from(played.script.joined)?;
        unsettled.extend(self.settle("the last model swapped in", || self.learned(), learned)?);
        played.unsettled = unsettled;
        Ok(played)
    }

    /// All of it in the past, windows included, so that nothing is ahead of the clock.
    fn play_settings(&self, rows: usize, seed: u64) -> anyhow::Result<PlaySettings> {
        let join = &self.config.join;
        // Within the play, or nothing would be learned before it is over.
        let played_within = GAP * u32::try_from(rows)?;
        let outcome_delay_max = (join.window / 12).min(played_within / 10);
        let span = played_within + outcome_delay_max + join.window * 2 + join.grace;
        Ok(PlaySettings {
            seed: Seed(seed),
            start: EventTime(self.clock.now().0) - span,
            gap: GAP,
            outcome_delay_max,
            when: self.config.raw.scoring.when,
            learn_from: join.learn_from,
            learned_as: stage::learned_as(self.config),
            crowd: "demo".to_owned(),
        })
    }

    fn count_records(&self, topic: &Topic) -> anyhow::Result<Arc<AtomicUsize>> {
        let records = Arc::new(AtomicUsize::new(0));
        let into = Arc::clone(&records);
        stage::follow(self.cluster.broker.as_ref(), topic, self.stop, move |_| {
            into.fetch_add(1, Ordering::SeqCst);
        })?;
        Ok(records)
    }

    fn play_script(
        &self,
        played: &mut Played,
        stage: &mut Stage,
        (rate, form): (f64, &Form<'_>),
        is_training: &dyn Fn() -> bool,
        observer: &mut dyn DemoObserver,
    ) -> anyhow::Result<()> {
        let started = self.clock.elapsed();
        let happenings = std::mem::take(&mut played.script.happenings);
        for (number, happening) in happenings.iter().enumerate() {
            if let What::Event { event, is_scored } = &happening.what {
                played.events_sent += 1;
                if *is_scored {
                    let id = form.id(event);
                    played.watch.expect(&id, self.clock.elapsed(), is_training());
                    played.expected.insert(id);
                }
            }
            stage.play(&happening.what)?;
            if number % 50 == 0 {
                stage.flush()?;
                observer.played(number, happenings.len(), played.watch.lock().answered);
                anyhow::ensure!(
                    played.watch.wait_for_open(OPEN_MAX, PATIENCE),
                    "nothing has been predicted for {PATIENCE:?}: see the log"
                );
                let due = if rate > 0.0 { played.events_sent as f64 / rate } else { 0.0 };
                let ahead = due - self.clock.elapsed().saturating_sub(started).as_secs_f64();
                let wait = Duration::from_secs_f64(ahead.max(0.0));
                anyhow::ensure!(self.shutdown.wait(wait).is_none(), "stopped before the end");
            }
        }
        stage.flush()?;
        observer.played(happenings.len(), happenings.len(), played.watch.lock().answered);
        played.script.happenings = happenings;
        Ok(())
    }

    /// In each partition a respondent leaves a window open, and then moves stream time past it and all others. Returns
    /// their outcomes, for which it is too late by then.
    fn close_windows(
        &self,
        played: &mut Played,
        stage: &mut Stage,
        play: &Play<'_>,
    ) -> anyhow::Result<Vec<Outcome>> {
        let join = &self.config.join;
        let end = played.script.end();
        // The next punctuation after that: they come every twentieth of a window.
        let at = end + join.window + join.grace + join.window / 20 + Duration::from_secs(2);
        let partitions = self.config.raw.topics.partitions;
        let (settings, form) = (play.settings, play.form);
        let mut late = Vec::new();
        for time in [end, at] {
            for (event, is_scored) in
                player::time_advancers(time, at, partitions, play.row, settings, form)
            {
                played.events_sent += 1;
                if is_scored {
                    let id = form.id(&event);
                    played.watch.expect(&id, self.clock.elapsed(), false);
                    played.expected.insert(id);
                }
                if time == end {
                    played.script.unlabelled += usize::from(is_scored);
                    late.push(Outcome {
                        respondent_id: event.respondent_id.clone(),
                        outcome_time: settings.start,
                        label: self.config.raw.outcomes.labels[0].clone(),
                        outcome_id: None,
                    });
                }
                stage.play(&What::Event { event, is_scored })?;
            }
            stage.flush()?;
        }
        Ok(late)
    }

    /// Waits until `count` has reached its goal; what it was for, if nothing changes any more.
    fn settle(
        &self,
        what: &'static str,
        count: impl Fn() -> usize,
        goal: usize,
    ) -> anyhow::Result<Option<&'static str>> {
        let (mut last, mut since) = (count(), self.clock.elapsed());
        while last < goal {
            let stopped = self.shutdown.wait(Duration::from_millis(20));
            anyhow::ensure!(stopped.is_none(), "stopped before the end: waiting for {what}");
            let now = count();
            if now != last {
                (last, since) = (now, self.clock.elapsed());
            } else if self.clock.elapsed().saturating_sub(since) > PATIENCE {
                tracing::error!(what, goal, reached = now, "gave up waiting");
                return Ok(Some(what));
            }
        }
        Ok(None)
    }

    /// What the instance has counted.
    fn counter(&self, name: &str) -> usize {
        rounded(telemetry::total(&self.instance.registry, name))
    }

    /// Examples from the stream that the model that serves has learned from.
    fn learned(&self) -> usize {
        let model = self.instance.overview.snapshot().model;
        model.map_or(0, |model| usize::try_from(model.examples[1]).unwrap_or(usize::MAX))
    }

    fn last_training_learns_from(&self, joined: usize) -> anyhow::Result<usize> {
        let learning = &self.config.raw.learning;
        let every = usize::try_from(learning.retrain_after)?;
        Ok((joined / every * every).min(learning.stream_examples_max.unwrap_or(usize::MAX)))
    }
}

fn count(records: &AtomicUsize) -> usize {
    records.load(Ordering::SeqCst)
}

fn rounded(count: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a counter's value"
    )]
    let count = count as usize;
    count
}

impl Played {
    /// Records that must be set aside, by class.
    fn expected_dead_letters(&self) -> BTreeMap<&'static str, usize> {
        let mut expected = self.script.set_aside.clone();
        expected.insert("late_outcome", self.late_outcomes);
        expected
    }
}
