//! Uplift: what a rule changes, counted from labelled examples.

use std::time::Duration;

use foretell::{
    events::{
        action::{ExampleActionRef, ExampleActions},
        labelled_example::{ExampleOrigin, LabelledExample},
    },
    processors::{
        learning::{
            job::{Job, JobFailure, JobResult},
            rules::Rules,
            trainer::{Progress, Trainer, Work},
        },
        metrics::ApplicationMetrics,
        model_table::Serving,
        quality::QualityBoard,
        topology::{LearningParts, learning},
        uplift::{LabelUplift, RuleUplift, UpliftBoard, UpliftSettings},
    },
};
use foretell_streams::{
    local::TopologyDriver,
    metrics::StreamsMetrics,
    record::Topic,
    time::{Clock as _, EventTime, ManualClock},
    topology::Topology,
};
use prometheus::Registry;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    fixture::{EPOCH_MS, Fixture, NOW, classes},
    quality_instance,
    scored::encoded,
};

/// Never trains.
struct NoTraining;

impl Work for NoTraining {
    fn run(&mut self, _job: &Job, _progress: Progress<'_>) -> JobResult {
        Err(JobFailure::Failed("of a test".to_owned()))
    }
}

/// A learner that counts uplift.
struct Counted {
    fixture: Fixture,
    driver: TopologyDriver,
    board: UpliftBoard,
    registry: Registry,
    labels: Vec<String>,
}

impl Counted {
    fn new(labels: &[&str], rules: &[(&str, &str)]) -> Self {
        let (fixture, board, registry) = (Fixture::new(), UpliftBoard::default(), Registry::new());
        let labels = classes(labels);
        let topology = topology(&fixture, (&labels, rules), &board, &registry);
        let metrics = StreamsMetrics::register(&Registry::new()).unwrap();
        let mut driver = TopologyDriver::new(topology, NOW, &metrics);
        driver.advance(Duration::ZERO).unwrap();
        Self { fixture, driver, board, registry, labels }
    }

    /// Another process takes the task over, with these rules.
    fn restart(&mut self, rules: &[(&str, &str)]) {
        self.registry = Registry::new();
        self.board = UpliftBoard::default();
        let parts = (self.labels.as_slice(), rules);
        let topology = topology(&self.fixture, parts, &self.board, &self.registry);
        self.driver.restart_with(topology);
        self.driver.advance(Duration::ZERO).unwrap();
    }

    /// An example of a respondent of its own with these actions: rule, version, and whether it was done.
    fn learn(
        &mut self,
        id: &str,
        label: &str,
        replaced: Option<&str>,
        acted: &[(&str, &str, bool)],
    ) {
        self.learn_of((id, id, 0), label, replaced, acted);
    }

    /// An example of a respondent: respondent, id and second.
    fn learn_of(
        &mut self,
        (who, id, at): (&str, &str, i64),
        label: &str,
        replaced: Option<&str>,
        acted: &[(&str, &str, bool)],
    ) {
        let event_time = EventTime(EPOCH_MS + at * 1_000);
        let actions = acted.iter().map(|(rule, rule_version, acted)| ExampleActionRef {
            action_id: "a",
            rule,
            rule_version,
            acted: *acted,
            propensity: 0.9,
            acted_at: event_time,
        });
        let example = LabelledExample {
            example_id: id.to_owned(),
            respondent_id: who.to_owned(),
            origin: ExampleOrigin::Stream,
            event_time,
            outcome_time: Some(event_time),
            label: label.to_owned(),
            challenger: None,
            prediction: None,
            correction: replaced.is_some(),
            replaced: replaced.map(str::to_owned),
            actions: ExampleActions::of(actions),
            answers: self.fixture.row(&[]),
        };
        let bytes = encoded(self.fixture.codecs.labelled_example.as_ref(), &example);
        let written_at = EventTime(self.driver.clock().now().0);
        let topic = self.fixture.topics.labelled_examples.clone();
        self.driver.pipe(&topic, Some(who.as_bytes()), Some(&bytes), written_at).unwrap();
    }

    fn uplift(&mut self) -> Vec<RuleUplift> {
        self.driver.advance(Duration::from_secs(5)).unwrap();
        self.driver.commit();
        self.board.read()
    }

    /// Examples and those with each label, of both groups of the only rule.
    fn shares(&mut self) -> [(u64, Vec<Option<f64>>); 2] {
        let [rule] = self.uplift().try_into().unwrap();
        let of = |rate: fn(&LabelUplift) -> Option<f64>| rule.labels.iter().map(rate).collect();
        [(rule.acted, of(|label| label.acted)), (rule.held_out, of(|label| label.held_out))]
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        Some(family.get_metric().first()?.get_gauge().get_value())
    }
}

fn topology(
    fixture: &Fixture,
    (labels, rules): (&[String], &[(&str, &str)]),
    board: &UpliftBoard,
    registry: &Registry,
) -> Topology {
    let metrics = ApplicationMetrics::register(registry).unwrap();
    let clock = std::sync::Arc::new(ManualClock::at(NOW));
    let (trainer, _thread) =
        Trainer::spawn(NoTraining, clock, metrics.clone(), Duration::MAX).unwrap();
    let owned = |(rule, version): &(&str, &str)| ((*rule).to_owned(), (*version).to_owned());
    learning(LearningParts {
        application: "shop-learning".to_owned(),
        topics: fixture.topics.clone(),
        codecs: fixture.codecs.clone(),
        rules: Rules {
            retrain_after: u64::MAX,
            check_after: 0,
            always: true,
            margin: 0.0,
            confidence: 0.95,
        },
        schedule: None,
        metrics,
        serving: Serving::default(),
        trainer,
        quality: quality_instance::settings(),
        quality_board: QualityBoard::default(),
        uplift: UpliftSettings {
            rules: rules.iter().map(owned).collect(),
            classes: labels.to_vec(),
        },
        uplift_board: board.clone(),
    })
}

const DONE: &[(&str, &str, bool)] = &[("call", "v1", true)];
const HELD: &[(&str, &str, bool)] = &[("call", "v1", false)];

#[test]
fn uplift_is_the_difference_between_acted_and_held_out() {
    let mut counted = Counted::new(&["no", "yes"], &[("call", "v1")]);
    for number in 0..70 {
        counted.learn(&format!("d{number}"), if number < 56 { "yes" } else { "no" }, None, DONE);
    }
    assert_eq!(counted.metric("foretell_uplift"), None);
    for number in 0..80 {
        counted.learn(&format!("h{number}"), if number < 48 { "yes" } else { "no" }, None, HELD);
    }
    // Without an action, by an unknown rule, and by an earlier version.
    counted.learn("n", "yes", None, &[]);
    counted.learn("o", "yes", None, &[("mail", "v1", true), ("call", "v0", true)]);
    let [rule] = counted.uplift().try_into().unwrap();
    assert_eq!((rule.rule.as_str(), rule.version.as_str()), ("call", "v1"));
    assert_eq!((rule.acted, rule.held_out), (70, 80));
    let [label] = rule.labels.try_into().unwrap();
    assert_eq!((label.label.as_str(), label.acted, label.held_out), ("yes", Some(0.8), Some(0.6)));
    let uplift = label.uplift.unwrap();
    let near = |a: f64, b: f64| assert!((a - b).abs() < 5e-5, "{a}, not {b}");
    // Newcombe's table II.
    near(uplift.difference, 0.2);
    near(uplift.low, 0.0524);
    near(uplift.high, 0.3339);
    near(counted.metric("foretell_uplift").unwrap(), uplift.difference);
    near(counted.metric("foretell_uplift_low").unwrap(), uplift.low);
    near(counted.metric("foretell_uplift_high").unwrap(), uplift.high);
}

#[test]
fn an_example_with_two_actions_of_a_rule_counts_once() {
    let mut counted = Counted::new(&["no", "yes"], &[("call", "v1"), ("mail", "v7")]);
    counted.learn(
        "a",
        "yes",
        None,
        &[("call", "v1", true), ("mail", "v7", false), ("call", "v1", true)],
    );
    let uplift = counted.uplift();
    let counts = uplift.iter().map(|rule| (rule.rule.as_str(), rule.acted, rule.held_out));
    assert_eq!(counts.collect::<Vec<_>>(), [("call", 1, 0), ("mail", 0, 1)]);
}

#[test]
fn a_correction_moves_its_example() {
    let mut counted = Counted::new(&["no", "liked", "bought"], &[("call", "v1")]);
    counted.learn("a", "liked", None, DONE);
    counted.learn("b", "no", None, DONE);
    assert_eq!(counted.shares()[0], (2, vec![Some(0.5), Some(0.5), Some(0.0)]));
    counted.learn("a", "bought", Some("liked"), DONE);
    assert_eq!(counted.shares()[0], (2, vec![Some(0.5), Some(0.0), Some(0.5)]));
    // The action came between both outcomes: the first example did not count.
    counted.learn("c", "liked", None, &[]);
    counted.learn("c", "bought", Some("liked"), HELD);
    assert_eq!(counted.shares()[1], (1, vec![Some(0.0), Some(0.0), Some(1.0)]));
    // Back.
    counted.learn("c", "no", Some("bought"), HELD);
    assert_eq!(counted.shares()[1], (1, vec![Some(1.0), Some(0.0), Some(0.0)]));
}

#[test]
fn counts_survive_a_restart_and_begin_anew_with_another_version() {
    let mut counted = Counted::new(&["no", "yes"], &[("call", "v1")]);
    counted.learn("a", "yes", None, DONE);
    counted.driver.commit();
    counted.learn("b", "yes", None, DONE);
    counted.driver.abort();
    counted.learn("b", "yes", None, DONE);
    counted.driver.commit();
    counted.restart(&[("call", "v1")]);
    assert_eq!(counted.shares()[0], (2, vec![Some(1.0)]));
    counted.restart(&[("call", "v2")]);
    counted.learn("a", "no", Some("yes"), DONE);
    counted.learn("c", "yes", None, &[("call", "v2", true)]);
    assert_eq!(counted.shares()[0], (1, vec![Some(1.0)]));
}

#[test]
fn a_respondent_counts_once_by_the_earliest_example() {
    let mut counted = Counted::new(&["no", "yes"], &[("call", "v1")]);
    counted.learn_of(("ann", "b", 20), "yes", None, DONE);
    assert_eq!(counted.shares()[0], (1, vec![Some(1.0)]));
    // Later ones do not count, with whatever outcome.
    counted.learn_of(("ann", "c", 30), "no", None, DONE);
    assert_eq!(counted.shares()[0], (1, vec![Some(1.0)]));
    // Its outcome came later, and it is earlier.
    counted.learn_of(("ann", "a", 10), "no", None, DONE);
    assert_eq!(counted.shares()[0], (1, vec![Some(0.0)]));
    // Corrections of the one that counts, and of another.
    counted.learn_of(("ann", "b", 20), "no", Some("yes"), DONE);
    assert_eq!(counted.shares()[0], (1, vec![Some(0.0)]));
    counted.learn_of(("ann", "a", 10), "yes", Some("no"), DONE);
    assert_eq!(counted.shares()[0], (1, vec![Some(1.0)]));
    // Corrected by an outcome of before the action: nothing is known of the respondent with the action.
    counted.learn_of(("ann", "a", 10), "no", Some("yes"), &[]);
    assert_eq!(counted.shares()[0], (0, vec![None]));
    // Without an action of the rule, an example is none of it.
    counted.learn_of(("bob", "d", 10), "no", None, &[]);
    counted.learn_of(("bob", "e", 20), "yes", None, HELD);
    assert_eq!(counted.shares()[1], (1, vec![Some(1.0)]));
}

/// Number of experiments, each a rule of its own.
const EXPERIMENTS: usize = 200;
const RESPONDENTS: usize = 60;
/// The share of "yes" of those who were acted on, and of the others.
const RATES: [f64; 2] = [0.5, 0.35];

/// Respondents who return up to eleven times, and whose outcomes are mostly the same: the first is drawn by the rate of their
/// group, each other one is like the first with a probability of 0.9.
fn outcomes(random: &mut StdRng, rate: f64) -> Vec<bool> {
    let first = random.random_range(0.0..1.0) < rate;
    let returns = random.random_range(0..12);
    let mut all = vec![first];
    for _ in 0..returns {
        let is_alike = random.random_range(0.0..1.0) < 0.9;
        all.push(if is_alike { first } else { random.random_range(0.0..1.0) < rate });
    }
    all
}

/// The number of experiments whose interval of 95 % has the true difference, if examples are of the respondents that `who` names:
/// the number of the respondent and of the example.
fn covered(who: impl Fn(usize, usize) -> String) -> usize {
    let names: Vec<String> = (0..EXPERIMENTS).map(|number| format!("rule{number}")).collect();
    let rules: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "v1")).collect();
    let mut counted = Counted::new(&["no", "yes"], &rules);
    for (seed, (rule, version)) in rules.iter().enumerate() {
        let mut random = StdRng::seed_from_u64(seed as u64);
        for respondent in 0..RESPONDENTS {
            let is_acted = respondent % 2 == 0;
            let rate = RATES[usize::from(!is_acted)];
            for (number, is_yes) in outcomes(&mut random, rate).into_iter().enumerate() {
                let who = who(respondent, number);
                let id = format!("{rule}-{respondent}-{number}");
                let at = i64::try_from(number).unwrap();
                let label = if is_yes { "yes" } else { "no" };
                let acted = [(*rule, *version, is_acted)];
                counted.learn_of((&who, &id, at), label, None, &acted);
            }
        }
        counted.driver.commit();
    }
    let uplift = counted.uplift();
    let truth = RATES[0] - RATES[1];
    let covers = |rule: &RuleUplift| {
        let found = rule.labels[0].uplift.unwrap();
        (found.low..=found.high).contains(&truth)
    };
    uplift.iter().filter(|rule| covers(rule)).count()
}

#[test]
fn the_interval_holds_when_respondents_return() {
    let by_respondent = covered(|respondent, _| format!("r{respondent}"));
    // 190 are expected, with a standard deviation of 3.
    assert!(by_respondent >= EXPERIMENTS * 9 / 10, "{by_respondent} of {EXPERIMENTS}");
    // The same examples, if each were of another respondent.
    let by_example = covered(|respondent, number| format!("r{respondent}-{number}"));
    assert!(by_example < EXPERIMENTS * 8 / 10, "{by_example} of {EXPERIMENTS}");
}

#[test]
fn respondents_of_a_version_that_is_gone_are_removed() {
    const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    let mut counted = Counted::new(&["no", "yes"], &[("call", "v1")]);
    counted.learn("a", "yes", None, DONE);
    counted.driver.commit();
    counted.restart(&[("call", "v2")]);
    let second = &[("call", "v2", true)];
    counted.learn("b", "yes", None, second);
    let mut removed_after = |span: Duration, id: &str| {
        counted.driver.advance(span).unwrap();
        counted.learn(id, "yes", None, second);
        assert!(counted.shares()[0].0 > 1);
        let changelog =
            counted.driver.changelog(&Topic::new("shop-learning-uplift-respondents-changelog"));
        // Those that stay are moved, which removes their former entries.
        let written = changelog.iter().filter(|record| record.value.is_some()).count();
        (written, changelog.iter().filter(|record| record.value.is_none()).count())
    };
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!(removed_after(MONTH - day, "c"), (3, 0));
    assert_eq!(removed_after(2 * day, "d"), (5, 2));
    // Those of the present version count on, and once.
    counted.learn_of(("b", "e", 30), "no", None, second);
    assert_eq!(counted.shares()[0], (3, vec![Some(1.0)]));
}
