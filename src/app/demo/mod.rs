//! `foretell demo`: init, run and traffic in one process, with the table of the user. Then it checks the topics
//! themselves, and does not rely on what the instance reports.
//!
//! ```text
//!  table ─▶ adapt: event times, N ─▶ runner: send ─▶ wait for a training ─▶ send the rest ─▶ close windows ─▶ wait
//!                                                  topics ─▶ examine ─▶ report: numbers and checks
//! ```

mod acting;
mod adapt;
mod examine;
mod instance_reader;
mod quality;
mod report;
mod runner;
mod uplift;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

pub use quality::{ClassReport, QualityReport, TruthReport};
pub use report::{Check, DecisionReport, ModelReport, Report};
pub use uplift::{LabelReport, RuleReport};

use crate::{
    app::{
        cluster::Cluster,
        demo::{instance_reader::InstanceReader, runner::Runner},
        init::{self, InitObserver},
        play::io::PredictionLog,
        play::{Action, EventFactory, Joins, PlaySettings, PlaySources, Script},
        shutdown::Shutdown,
        start::{self, Instance},
    },
    config::Config,
    events::questionnaire::AnswerRow,
    processors::{outcome_join::Emit, uplift::RuleUplift},
};
use foretell_streams::time::{Clock, EventTime};

/// Settings of a demo.
#[derive(Clone, Debug)]
pub struct DemoSettings {
    /// Respondents per second; 0 is as fast as possible.
    pub rate: f64,
    /// Maximum number of rows.
    pub limit: Option<usize>,
    /// Random seed.
    pub seed: u64,
    /// Whether the labels of one batch of examples are inverted.
    pub poison: bool,
}

/// The batch of examples whose labels are inverted, from 0. Before it there are trainings whose models are better, and after
/// it labels that show that its model is worse.
const POISONED_BATCH: usize = 2;

/// Shows the progress of a demo.
pub trait DemoObserver: InitObserver {
    /// `actions` of `of` were sent, and `predictions` were received.
    fn sent(&mut self, actions: usize, of: usize, predictions: usize);
    /// The instance serves its dashboard and its API at `address`.
    fn serving(&mut self, address: SocketAddr);
    /// The demo waits for `goal`, and `reached` of `of` is done.
    fn waiting(&mut self, goal: &str, reached: usize, of: usize);
}

/// The records to send, and the expected result.
struct Plan {
    settings: PlaySettings,
    factory: EventFactory,
    script: Script,
    /// Whether the schema allows events without a respondent.
    respondent_is_optional: bool,
    /// Expected joins, if records are processed in order of event time.
    joins: Joins,
    /// Indexes of actions to wait before, which ensures that order; or the reason why it cannot be ensured.
    waits: Result<BTreeSet<usize>, String>,
    /// Indexes of actions to wait before, so that the parts of an event are gathered in order.
    waits_for_parts: BTreeSet<usize>,
    /// Number of rows in the table.
    rows: usize,
    /// Number of rows that are not scored, by reason.
    not_scored: BTreeMap<&'static str, usize>,
    /// Answers that are scored in one event.
    sample: AnswerRow,
    /// Whether the labels of one batch are inverted.
    is_poisoned: bool,
}

/// The records sent and the predictions received so far.
struct RunState {
    /// Ids of the expected predictions for events of the script.
    expected: BTreeSet<String>,
    /// Ids of the expected predictions at the ends of sessions.
    session_ends: BTreeSet<String>,
    /// Ids of the expected predictions for the events that close the windows.
    advancers: BTreeSet<String>,
    events_sent: usize,
    late_outcomes: usize,
    /// Ids of predictions whose outcomes came as without an action.
    taken_as_not_acted: BTreeSet<String>,
    /// Those of them for which an action was requested later.
    acted_too_late: usize,
    /// Whether the runner waited for a training during the script; else the reason why not.
    waited_for_training: Result<(), String>,
    log: PredictionLog,
    /// Goals that were not reached in time.
    unreached: Vec<&'static str>,
}

/// Counters of the instance that have no records on a topic.
struct Counters {
    unlabelled: usize,
    /// Outcomes that replaced the label of a prediction.
    corrected: usize,
    unseen_categories: usize,
    out_of_range: usize,
    actions: usize,
    /// What the instance has measured.
    uplift: Vec<RuleUplift>,
}

/// Number of records of each kind of bad input.
const BAD_INPUT: u32 = 10;

/// Runs the demo. Returns its report, and the instance, which still runs.
///
/// # Errors
/// If the demo cannot run to its end. Failed checks are in the report.
pub fn run(
    config: &Config,
    clock: &Arc<dyn Clock>,
    shutdown: &Shutdown,
    settings: &DemoSettings,
    observer: &mut dyn DemoObserver,
) -> anyhow::Result<(Report, Instance)> {
    let started = clock.elapsed();
    start::check_local(config)?;
    anyhow::ensure!(settings.limit != Some(0), "--limit must be at least 1");
    let source = adapt::source(config, settings)?;
    let cluster = Cluster::embedded(clock);
    init::init(config, &cluster, clock, shutdown, false, observer)?;
    let (config, mut plan) = prepare(config, &cluster, clock, settings, source, observer)?;
    let instance = Instance::start(&config, &cluster, clock, shutdown.clone())?;
    observer.serving(instance.address);
    let reader = InstanceReader { config: &config, instance: &instance };
    let runner = Runner::open(&cluster, clock, shutdown, reader, observer)?;
    let state = runner.run(&mut plan, settings.rate)?;
    let contents = examine::examine(&config, &cluster, &plan.script, &state.of_script())?;
    let counters = Counters {
        unlabelled: reader.counter("foretell_unlabelled_total"),
        corrected: reader.outcomes("corrected"),
        unseen_categories: reader.counter("foretell_unseen_categories_total"),
        out_of_range: reader.counter("foretell_out_of_range_total"),
        actions: reader.counter("foretell_actions_total"),
        uplift: instance.overview.uplift.read(),
    };
    let seconds = clock.elapsed().saturating_sub(started).as_secs_f64();
    Ok((report::report(&config, &plan, &state, contents, &counters, seconds), instance))
}

/// The configuration of the demo, adapted to the table, and the plan.
fn prepare(
    config: &Config,
    cluster: &Cluster,
    clock: &Arc<dyn Clock>,
    demo: &DemoSettings,
    source: adapt::Source,
    observer: &mut dyn DemoObserver,
) -> anyhow::Result<(Config, Plan)> {
    let adapt::Source { rows, mut lines } = source;
    let settings = adapt::play_settings(config, &rows, EventTime(clock.now().0), demo.seed);
    let (sources, start) = (PlaySources::open(config, cluster)?, settings.pace.start);
    let mut factory = EventFactory::new(config, &sources, &rows, "demo", start)?;
    let sample = adapt::sample(&rows, &factory, start)?;
    let mut script = Script::of(&rows, &mut factory, &settings);
    lines.extend(adapt::describe(&rows, &settings, &script));
    let joined = script.joins(script.actions.len(), &settings.join).joined;
    let expected = script.examples_in_the_end(&settings.join);
    let adapted = adapt::configuration(config, expected, &mut lines)?;
    for line in lines {
        observer.step(&line);
    }
    let every = usize::try_from(adapted.learning.rules.retrain_after)?;
    let in_order = settings.join.emit == Emit::OnUpdate;
    let is_poisoned = demo.poison && in_order && joined >= (POISONED_BATCH + 3) * every;
    if is_poisoned {
        let skipped = POISONED_BATCH * every;
        script.invert_labels(skipped..skipped + every, &config.classes, &settings.join);
        observer.step(&format!("the labels of {every} outcomes are inverted"));
    } else if demo.poison && !in_order {
        observer.step(
            "no labels are inverted, because outcomes.emit is \"on_close\": a batch of outcomes is not a batch of examples",
        );
    } else if demo.poison {
        observer.step(&format!(
            "no labels are inverted, because {joined} outcomes are joined, fewer than five batches of {every}"
        ));
    }
    let not_scored = adapt::not_scored(&script);
    let respondent_is_optional = script.add_bad_input(sample, BAD_INPUT, &mut factory, &settings);
    script.end_sessions(sample, config.partitions, &mut factory, &settings);
    let plan = Plan {
        joins: script.joins(script.actions.len(), &settings.join),
        waits: script.waits(&settings),
        waits_for_parts: script.waits_for_parts().map_err(anyhow::Error::msg)?,
        rows: rows.len(),
        sample: sample.answers.clone(),
        settings,
        factory,
        script,
        respondent_is_optional,
        not_scored,
        is_poisoned,
    };
    Ok((adapted, plan))
}

impl RunState {
    /// Ids of the expected predictions of the script.
    fn of_script(&self) -> BTreeSet<&str> {
        self.expected.iter().chain(&self.session_ends).map(String::as_str).collect()
    }
}

impl Plan {
    /// Expected joins; or the reason why records may be processed in another order.
    fn known_joins(&self) -> Result<Joins, &str> {
        self.waits.as_ref().map(|_| self.joins).map_err(String::as_str)
    }

    /// Says which of the outcomes that depend on actions were sent, by their indexes.
    fn decide(&mut self, sent: &BTreeSet<usize>) {
        self.script.decide(sent);
        self.joins = self.script.joins(self.script.actions.len(), &self.settings.join);
    }

    /// Expected number of dead letters by class. Those of outcomes are included only if it is known what joins.
    fn dead_letters(&self, late_outcomes: usize) -> BTreeMap<&'static str, usize> {
        let mut expected = BTreeMap::new();
        for scheduled in &self.script.actions {
            if let Action::Bad { class, .. } = &scheduled.action {
                *expected.entry(*class).or_default() += 1;
            }
        }
        if let Ok(joins) = self.known_joins() {
            expected.insert("late_outcome", late_outcomes);
            expected.insert("unmatched_outcome", joins.unmatched);
        }
        expected.retain(|_, count| *count > 0);
        expected
    }
}
