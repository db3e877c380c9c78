//! The whole loop in one process, on the user's data: init, run, play, settle, and then an examination of the
//! topics, which trusts nothing that the instance says of itself.
//!
//! ```text
//!  table ─▶ fit: clock, N ─▶ director: play ─▶ wait for a training ─▶ play on ─▶ close windows ─▶ settle
//!                                                   topics ─▶ examine ─▶ report: numbers and checks
//! ```

mod director;
mod examine;
mod fit;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use report::{Check, ModelReport, Report};

use crate::{
    app::{
        cluster::Cluster,
        demo::director::Director,
        init::{self, InitObserver},
        replay::io::Watch,
        replay::{Action, EventForm, Joins, ReplaySettings, Script},
        shutdown::Shutdown,
        start::{self, Instance},
    },
    config::Config,
    events::questionnaire::Answer,
    processors::outcome_join::UnlabelledPolicy,
};
use foretell_streams::{
    runtime::StopSignal,
    time::{Clock, EventTime},
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
    /// So many of so many actions are sent; so many predictions came back.
    fn played(&mut self, actions: usize, of: usize, predictions: usize);
    /// Something is waited for, of which so much of so much is there.
    fn waiting(&mut self, what: &str, reached: usize, of: usize);
}

/// What is played, and what must come of it.
struct Play {
    settings: ReplaySettings,
    form: EventForm,
    script: Script,
    /// Whether the schema lets events without a respondent be written.
    has_nobody: bool,
    /// What joins, if it is processed in order.
    joins: Joins,
    /// Before which actions to wait, so that it is; else why it can't be waited for.
    waits: Result<BTreeSet<usize>, String>,
    /// Rows of the table, and those of them that are not scored, by why.
    rows: usize,
    not_scored: BTreeMap<&'static str, usize>,
    /// Answers that are scored as they are.
    sample: Vec<Option<Answer>>,
}

/// What is known about the play when it is over.
struct Played {
    /// Names of the predictions that are to come of the play.
    expected: BTreeSet<String>,
    /// Of those that are to come of the events that close the windows.
    advancers: BTreeSet<String>,
    events_sent: usize,
    late_outcomes: usize,
    /// Whether it was waited for a model that was trained on the way; else why not.
    trained_on_the_way: Result<(), String>,
    watch: Watch,
    /// What did not come about in time.
    unsettled: Vec<&'static str>,
}

/// What leaves no record, and so is known from the metrics alone.
struct Counted {
    unlabelled: usize,
    unseen_categories: usize,
    out_of_range: usize,
}

/// Each kind of bad input is sent so often.
const BAD_INPUT: u32 = 10;

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
    let source = fit::source(config, settings)?;
    let cluster = Cluster::embedded(clock);
    init::init(config, &cluster, clock, shutdown, false, observer)?;
    let mut lines = source.lines.clone();
    let (config, mut play) = prepare(config, &cluster, clock, settings, (&source, &mut lines))?;
    for line in lines {
        observer.step(&line);
    }
    let instance = Instance::start(&config, &cluster, clock, shutdown.clone())?;
    observer.step(&format!("serving on http://{}", instance.address));
    let stop = StopSignal::default();
    let director = Director {
        config: &config,
        cluster: &cluster,
        clock,
        shutdown,
        instance: &instance,
        stop: &stop,
    };
    let played = director.play(&mut play, settings.rate, observer);
    stop.stop();
    let played = played?;
    let found = examine::examine(&config, &cluster, &played.expected)?;
    let counted = Counted {
        unlabelled: director.counter("foretell_unlabelled_total"),
        unseen_categories: director.counter("foretell_unseen_categories_total"),
        out_of_range: director.counter("foretell_out_of_range_total"),
    };
    let seconds = clock.elapsed().saturating_sub(started).as_secs_f64();
    let report = report::report(&config, (&play, &played), &found, &counted, seconds);
    Ok((report, instance))
}

fn prepare(
    config: &Config,
    cluster: &Cluster,
    clock: &Arc<dyn Clock>,
    settings: &DemoSettings,
    (source, lines): (&fit::Source, &mut Vec<String>),
) -> anyhow::Result<(Config, Play)> {
    let rows = &source.rows;
    let play = fit::play(config, rows, EventTime(clock.now().0), settings.seed);
    let codec = cluster.sample_codec(config)?;
    let mut form = EventForm::new(config, codec, rows, ("demo", play.pace.start))?;
    let sample = fit::sample(rows, &form, play.pace.start)?;
    let mut script = Script::of(rows, &mut form, &play);
    lines.extend(fit::describe(rows, &play, &script));
    let joining = script.joins(script.actions.len(), &play.join).joined;
    let fitted = fit::configuration(config, joining, lines)?;
    let not_scored = fit::not_scored(&script);
    let sampled = (sample.answers.as_slice(), sample.label.as_str());
    let has_nobody = script.add_bad_input(sampled, BAD_INPUT, &mut form, &play);
    let joins = script.joins(script.actions.len(), &play.join);
    let waits = script.waits(&play.join);
    let (sample, rows) = (sample.answers.clone(), rows.len());
    let play =
        Play { settings: play, form, script, has_nobody, joins, waits, rows, not_scored, sample };
    Ok((fitted, play))
}

impl Play {
    /// Examples from the stream that must be in the training log; else why that is not known.
    fn examples(&self, config: &Config) -> Result<usize, &str> {
        let joins = self.known()?;
        Ok(match config.join.unlabelled {
            UnlabelledPolicy::Drop => joins.joined,
            // No outcome is an outcome, too.
            UnlabelledPolicy::Label(_) => joins.joined + joins.unlabelled,
        })
    }

    /// What joins; else why all of it may be processed in another order.
    fn known(&self) -> Result<Joins, &str> {
        self.waits.as_ref().map(|_| self.joins).map_err(String::as_str)
    }

    /// Records that must be among the dead letters, by class; those of outcomes only if it is known what joins.
    fn dead_letters(&self, late_outcomes: usize) -> BTreeMap<&'static str, usize> {
        let mut expected = BTreeMap::new();
        for scheduled in &self.script.actions {
            if let Action::Bad { class, .. } = &scheduled.action {
                *expected.entry(*class).or_default() += 1;
            }
        }
        if let Ok(joins) = self.known() {
            expected.insert("late_outcome", late_outcomes);
            expected.insert("unmatched_outcome", joins.unmatched);
        }
        expected.retain(|_, times| *times > 0);
        expected
    }
}
