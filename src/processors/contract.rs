//! The feature contract: a model was fitted on certain answers, of certain kinds, and mostly given. What no longer holds
//! raises an alarm, and what becomes of the observations is a policy.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use crate::{
    events::questionnaire::{Answer, Question},
    processors::{convert, metrics::ApplicationMetrics},
};
use foretell_ml::{Column, ColumnKind, Scorer, features::number_in};
use foretell_streams::topology::ProcessError;

/// What becomes of an observation that the model was not fitted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContractPolicy {
    /// It is scored, as if the answer were missing.
    #[default]
    GoOn,
    /// It goes to the dead letters as `feature_contract`.
    Refuse,
    /// It waits, and everything behind it, until a model serves that was fitted for it; `/readyz` is 503.
    HoldBack,
}

/// See [`ContractPolicy`].
#[derive(Clone, Debug)]
pub struct ContractSettings {
    /// What becomes of an observation that the model was not fitted for.
    pub policy: ContractPolicy,
    /// From this share of observations without an answer on, a feature is mostly missing; between 0 and 1.
    pub mostly_missing: f64,
    /// Over how many observations of a task that is looked at.
    pub window: u64,
    /// The columns as a training of today would make them.
    pub columns: Vec<Column>,
}

/// What no longer holds of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The event schema has no such question.
    Gone,
    /// It was a number and is a category, or the other way round.
    OtherKind,
    /// It was given in training, and hardly is any more.
    MostlyMissing,
    /// No observation of a whole window had it, and training says that some should, or had none either. So it is also
    /// with words where the model takes numbers.
    NeverGiven,
}

impl Problem {
    /// As metrics and JSON have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::OtherKind => "other_kind",
            Self::MostlyMissing => "mostly_missing",
            Self::NeverGiven => "never_given",
        }
    }
}

/// One feature that is not as the model that serves was fitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Its name in the model.
    pub feature: String,
    /// What no longer holds.
    pub problem: Problem,
}

/// What is violated on this instance, by whichever of its tasks sees it.
#[derive(Clone)]
pub struct ContractBoard {
    policy: ContractPolicy,
    seen: Arc<Mutex<BTreeMap<u64, BTreeMap<String, Problem>>>>,
    next: Arc<AtomicU64>,
    metrics: ApplicationMetrics,
}

impl ContractBoard {
    /// Nothing is violated yet.
    #[must_use]
    pub fn new(policy: ContractPolicy, metrics: ApplicationMetrics) -> Self {
        Self { policy, seen: Arc::default(), next: Arc::default(), metrics }
    }

    /// All that is violated, each once.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        all(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether observations may be waiting because of it.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        self.policy == ContractPolicy::HoldBack && !self.violations().is_empty()
    }

    fn report(&self, task: u64, problems: BTreeMap<String, Problem>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all(&seen);
        if problems.is_empty() {
            seen.remove(&task)
        } else {
            seen.insert(task, problems)
        };
        let after = all(&seen);
        for Violation { feature, problem } in before.iter().filter(|was| !after.contains(was)) {
            tracing::info!(
                feature,
                problem = problem.name(),
                "a feature is as the model was fitted again"
            );
            self.metrics.contract(feature, problem.name(), false);
        }
        for Violation { feature, problem } in after.iter().filter(|is| !before.contains(is)) {
            tracing::warn!(feature, problem = problem.name(), policy = ?self.policy,
                "a feature is not as the model was fitted");
            self.metrics.contract(feature, problem.name(), true);
        }
    }
}

fn all(seen: &BTreeMap<u64, BTreeMap<String, Problem>>) -> Vec<Violation> {
    let mut all: Vec<Violation> = Vec::new();
    for (feature, problem) in seen.values().flatten() {
        let violation = Violation { feature: feature.clone(), problem: *problem };
        if !all.contains(&violation) {
            all.push(violation);
        }
    }
    all.sort_by(|one, other| {
        (&one.feature, one.problem.name()).cmp(&(&other.feature, other.problem.name()))
    });
    all
}

/// Holds the observations of one task against the model that scores them.
pub(super) struct ContractWatch {
    settings: Arc<ContractSettings>,
    board: ContractBoard,
    task: u64,
    columns: Vec<Watched>,
    observations: u64,
}

/// A column of the model.
struct Watched {
    name: String,
    kind: ColumnKind,
    /// The place of its answer in an observation.
    place: Option<usize>,
    problem: Option<Problem>,
    /// In the training.
    missing_share: Option<f64>,
    missing: u64,
}

impl ContractWatch {
    pub(super) fn new(settings: Arc<ContractSettings>, board: ContractBoard) -> Self {
        let task = board.next.fetch_add(1, Ordering::Relaxed);
        Self { settings, board, task, columns: Vec::new(), observations: 0 }
    }

    /// From here on, `scorer` scores; `questions` are an observation's.
    pub(super) fn begin(&mut self, scorer: &Scorer, questions: &[Question]) {
        let today = &self.settings.columns;
        let watched = |(number, column): (usize, &Column)| {
            let place = convert::place_of(column, questions);
            let now = place.map(|place| {
                let question = &questions[place];
                let configured = today.iter().find(|column| column.name == question.name);
                configured.map_or_else(|| convert::column_of(question).kind, |column| column.kind)
            });
            let problem = match now {
                None => Some(Problem::Gone),
                Some(kind) if kind != column.kind => Some(Problem::OtherKind),
                Some(_) => None,
            };
            let missing_share = scorer.missing_share(number);
            let (name, kind) = (column.name.clone(), column.kind);
            Watched { name, kind, place, problem, missing_share, missing: 0 }
        };
        self.columns = scorer.columns().iter().enumerate().map(watched).collect();
        self.observations = 0;
        self.report();
    }

    /// Whether an observation may be scored.
    ///
    /// # Errors
    /// By the policy, if it may not.
    pub(super) fn admit(&self, answers: &[Option<Answer>]) -> Result<(), ProcessError> {
        if self.settings.policy == ContractPolicy::GoOn {
            return Ok(());
        }
        let offends = |column: &&Watched| match column.problem {
            None => false,
            Some(Problem::Gone | Problem::OtherKind) => true,
            Some(Problem::MostlyMissing) => column.is_missing_in(answers),
            // The model has never had it either, or so rarely that it does without.
            Some(Problem::NeverGiven) => false,
        };
        let Some(column) = self.columns.iter().find(offends) else { return Ok(()) };
        let problem = column.problem.map_or("", Problem::name);
        let message = format!("feature {} is not as the model was fitted: {problem}", column.name);
        match self.settings.policy {
            ContractPolicy::GoOn => Ok(()),
            ContractPolicy::Refuse => Err(ProcessError::reject("feature_contract", message)),
            ContractPolicy::HoldBack => Err(ProcessError::Retry(message)),
        }
    }

    /// Counts an observation that does not come again.
    pub(super) fn count(&mut self, answers: &[Option<Answer>]) {
        self.observations += 1;
        for column in &mut self.columns {
            column.missing += u64::from(column.is_missing_in(answers));
        }
        if self.observations >= self.settings.window {
            self.judge();
        }
    }

    fn judge(&mut self) {
        let mostly = self.settings.mostly_missing;
        for column in &mut self.columns {
            let share = column.missing as f64 / self.observations as f64;
            let was_given = column.missing_share.is_some_and(|trained| trained < mostly / 2.0);
            match column.problem {
                Some(Problem::Gone | Problem::OtherKind) => (),
                None | Some(Problem::MostlyMissing | Problem::NeverGiven) => {
                    column.problem = if was_given && share >= mostly {
                        Some(Problem::MostlyMissing)
                    } else if column.missing == self.observations
                        && column.should_have_come(self.observations)
                    {
                        Some(Problem::NeverGiven)
                    } else {
                        None
                    };
                }
            }
            column.missing = 0;
        }
        self.observations = 0;
        self.report();
    }

    fn report(&self) {
        let problems =
            self.columns.iter().filter_map(|column| Some((column.name.clone(), column.problem?)));
        self.board.report(self.task, problems.collect());
    }
}

/// A feature that is given so often in a window, as a rule, is there at least once but for one window in 22,000 (e^-10).
const EXPECTED_MIN: f64 = 10.0;

impl Watched {
    fn is_missing_in(&self, answers: &[Option<Answer>]) -> bool {
        match self.place.and_then(|place| answers[place].as_ref()) {
            None => true,
            Some(Answer::Number(_) | Answer::Whole(_)) => false,
            Some(Answer::Text(text)) => {
                self.kind == ColumnKind::Numeric && number_in(text).is_none()
            }
        }
    }

    /// Whether it is strange that none of so many observations had it: in training some had, or none had, which makes it
    /// a feature that says nothing to anybody.
    fn should_have_come(&self, observations: u64) -> bool {
        let given_share = 1.0 - self.missing_share.unwrap_or(1.0);
        given_share <= 0.0 || given_share * observations as f64 >= EXPECTED_MIN
    }
}

impl Drop for ContractWatch {
    /// The task has gone elsewhere, and what it saw with it.
    fn drop(&mut self) {
        self.board.report(self.task, BTreeMap::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::small_model::small_bundle;
    use crate::{events::questionnaire::QuestionKind, processors::metrics::tests::TestMetrics};

    const WINDOW: u64 = 20;

    fn watched(kind: ColumnKind, missing_share: Option<f64>) -> Watched {
        Watched {
            name: "x".to_owned(),
            kind,
            place: Some(0),
            problem: None,
            missing_share,
            missing: 0,
        }
    }

    fn watch(columns: Vec<Column>, watched: Vec<Watched>) -> ContractWatch {
        let policy = ContractPolicy::GoOn;
        let metrics = TestMetrics::new().metrics;
        let settings = ContractSettings { policy, mostly_missing: 0.9, window: WINDOW, columns };
        let board = ContractBoard::new(policy, metrics);
        let mut watch = ContractWatch::new(Arc::new(settings), board);
        watch.columns = watched;
        watch
    }

    #[test]
    fn what_is_not_given() {
        let check = |kind, answer: Option<Answer>, expected: bool| {
            let column = watched(kind, None);
            assert_eq!(column.is_missing_in(std::slice::from_ref(&answer)), expected, "{answer:?}");
        };
        let (number, text) = (Answer::Number, |text: &str| Answer::Text(text.to_owned()));
        for kind in [ColumnKind::Numeric, ColumnKind::Categorical] {
            check(kind, None, true);
            check(kind, Some(number(0.0)), false);
            check(kind, Some(text("7.5")), false);
        }
        check(ColumnKind::Numeric, Some(text("many")), true);
        check(ColumnKind::Categorical, Some(text("many")), false);
        let gone = Watched { place: None, ..watched(ColumnKind::Categorical, None) };
        assert!(gone.is_missing_in(&[Some(number(1.0))]));
    }

    #[test]
    fn how_often_a_feature_should_have_come() {
        let check = |missing_share, observations, expected: bool| {
            let column = watched(ColumnKind::Numeric, missing_share);
            assert_eq!(column.should_have_come(observations), expected, "{missing_share:?}");
        };
        check(Some(0.5), 20, true);
        check(Some(0.5), 19, false);
        check(Some(0.0), 10, true);
        // It was never given in training, or that is not known: it says nothing to anybody.
        check(Some(1.0), 1, true);
        check(None, 1, true);
    }

    /// What is told after a window in which an answer was given so often.
    fn judged(missing_share: f64, given: u64) -> Option<Problem> {
        let column = watched(ColumnKind::Categorical, Some(missing_share));
        let mut watch = watch(Vec::new(), vec![column]);
        for number in 0..WINDOW {
            assert_eq!(watch.columns[0].problem, None);
            watch.count(&[(number < given).then_some(Answer::Number(1.0))]);
        }
        let problem = watch.columns[0].problem;
        let told = watch.board.violations();
        assert_eq!(told.first().map(|violation| violation.problem), problem);
        problem
    }

    #[test]
    fn a_window_is_judged_by_what_training_had() {
        // 18 of 20 missing are nine tenths.
        assert_eq!(judged(0.2, 2), Some(Problem::MostlyMissing));
        assert_eq!(judged(0.2, 3), None);
        // Where about half was missing in training, that is no news; that nothing comes is.
        assert_eq!(judged(0.44, 0), Some(Problem::MostlyMissing));
        assert_eq!(judged(0.45, 1), None);
        assert_eq!(judged(0.45, 0), Some(Problem::NeverGiven));
        assert_eq!(judged(0.6, 0), None, "so rarely given, a window without it is nothing");
        assert_eq!(judged(1.0, 0), Some(Problem::NeverGiven));
    }

    #[test]
    fn each_window_is_judged_by_itself() {
        let mut watch = watch(Vec::new(), vec![watched(ColumnKind::Numeric, Some(0.0))]);
        let (given, missing) = ([Some(Answer::Number(1.0))], [None]);
        let mut window = |answers: &[Option<Answer>], during, after| {
            for _ in 1..WINDOW {
                watch.count(answers);
                assert_eq!(watch.columns[0].problem, during, "it takes a whole window");
            }
            watch.count(answers);
            assert_eq!(watch.columns[0].problem, after);
        };
        let problem = Some(Problem::MostlyMissing);
        window(&missing, None, problem);
        window(&given, problem, None);
        window(&missing, None, problem);
        // Another model begins another window.
        let scorer = Scorer::new(&small_bundle()).unwrap();
        watch.count(&missing);
        watch.begin(&scorer, &[]);
        assert_eq!(watch.observations, 0);
    }

    #[test]
    fn a_question_is_of_the_kind_that_the_configuration_says() {
        // The model has `x` and `noise` as numbers, and `kind` as a category.
        let scorer = Scorer::new(&small_bundle()).unwrap();
        let question = |name: &str| Question {
            name: name.to_owned(),
            kind: QuestionKind::Text,
            aliases: Vec::new(),
        };
        let questions = ["x", "kind", "noise"].map(question);
        let configured = vec![Column::new("x", ColumnKind::Numeric)];
        let mut watch = watch(configured, Vec::new());
        watch.begin(&scorer, &questions);
        let told = watch.board.violations();
        let told: Vec<_> = told.iter().map(|told| (told.feature.as_str(), told.problem)).collect();
        assert_eq!(told, [("noise", Problem::OtherKind)]);
    }
}
