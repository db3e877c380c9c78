//! The feature contract: observations must have the features that the serving model was fitted on, of the same kinds, and
//! about as often. A violation is reported, and a policy decides what happens to the observations.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};

use crate::{
    events::questionnaire::{AnswerRef, AnswerRow, Question, RowLayout, RowReader},
    processors::{convert, metrics::ApplicationMetrics},
};
use foretell_ml::{Column, ColumnKind, Scorer, features::number_in};
use foretell_streams::topology::ProcessError;

/// Treatment of an observation that the model was not fitted for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContractPolicy {
    /// It is scored as if the answer were missing.
    #[default]
    GoOn,
    /// It goes to the dead letters as `feature_contract`.
    Refuse,
    /// It waits, with the records after it, until a model that was fitted for it serves; `/readyz` is 503.
    HoldBack,
}

/// The settings of the feature contract.
#[derive(Clone, Debug)]
pub struct ContractSettings {
    /// Treatment of an observation that the model was not fitted for.
    pub policy: ContractPolicy,
    /// Share of observations without an answer from which a feature is mostly missing; between 0 and 1.
    pub mostly_missing: f64,
    /// Number of observations of a task that the share is computed over.
    pub window: u64,
    /// The columns that a training with the current configuration has.
    pub columns: Vec<Column>,
}

/// The kind of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The event schema does not have the question.
    Gone,
    /// It was a number and is a category, or the other way round.
    OtherKind,
    /// It was mostly given in training, and is mostly missing now.
    MostlyMissing,
    /// No observation of a window had it, although by its share in training some should, or it was never given in training
    /// either. A text in place of a number counts as not given.
    NeverGiven,
}

impl Problem {
    /// The name in metrics and JSON.
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

/// A feature that differs from what the serving model was fitted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The name of the feature in the model.
    pub feature: String,
    /// The kind.
    pub problem: Problem,
}

/// The violations on this instance, as its tasks report them.
#[derive(Clone)]
pub struct ContractBoard {
    policy: ContractPolicy,
    seen: Arc<Mutex<BTreeMap<u64, BTreeMap<String, Problem>>>>,
    next: Arc<AtomicU64>,
    metrics: ApplicationMetrics,
}

impl ContractBoard {
    /// A board without violations.
    #[must_use]
    pub fn new(policy: ContractPolicy, metrics: ApplicationMetrics) -> Self {
        Self { policy, seen: Arc::default(), next: Arc::default(), metrics }
    }

    /// Every violation, each once.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        all(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether observations may wait because of a violation.
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
            tracing::info!(feature, problem = problem.name(), "a feature matches the model again");
            self.metrics.contract(feature, problem.name(), false);
        }
        for Violation { feature, problem } in after.iter().filter(|is| !before.contains(is)) {
            tracing::warn!(feature, problem = problem.name(), policy = ?self.policy,
                "a feature violates the feature contract");
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

/// Checks the observations of one task against the serving model.
pub(super) struct ContractWatch {
    settings: Arc<ContractSettings>,
    board: ContractBoard,
    task: u64,
    /// In the order of their questions.
    columns: Vec<WatchedColumn>,
    observations: u64,
}

/// A column of the model.
struct WatchedColumn {
    name: String,
    kind: ColumnKind,
    /// The index of its answer in an observation.
    index: Option<usize>,
    problem: Option<Problem>,
    /// The share of training examples without it.
    missing_share: Option<f64>,
    missing: u64,
}

impl ContractWatch {
    pub(super) fn new(settings: Arc<ContractSettings>, board: ContractBoard) -> Self {
        let task = board.next.fetch_add(1, Ordering::Relaxed);
        Self { settings, board, task, columns: Vec::new(), observations: 0 }
    }

    /// Starts to check for the model of `scorer`. `questions` are those of the observations.
    pub(super) fn begin(&mut self, scorer: &Scorer, questions: &[Question]) {
        let current = &self.settings.columns;
        let watched = |(number, column): (usize, &Column)| {
            let index = convert::position_of(column, questions);
            let kind_now = index.map(|index| {
                let question = &questions[index];
                let configured = current.iter().find(|column| column.name == question.name);
                configured.map_or_else(|| convert::column_of(question).kind, |column| column.kind)
            });
            let problem = match kind_now {
                None => Some(Problem::Gone),
                Some(kind) if kind != column.kind => Some(Problem::OtherKind),
                Some(_) => None,
            };
            let missing_share = scorer.missing_share(number);
            let (name, kind) = (column.name.clone(), column.kind);
            WatchedColumn { name, kind, index, problem, missing_share, missing: 0 }
        };
        self.columns = scorer.columns().iter().enumerate().map(watched).collect();
        self.columns.sort_by_key(|column| column.index);
        self.observations = 0;
        self.report();
    }

    /// Checks whether an observation may be scored.
    ///
    /// # Errors
    /// If it may not; the policy decides which error.
    pub(super) fn admit(
        &self,
        layout: &RowLayout,
        answers: &AnswerRow,
    ) -> Result<(), ProcessError> {
        if self.settings.policy == ContractPolicy::GoOn {
            return Ok(());
        }
        let mut answers = layout.answers(answers);
        let is_violation = |column: &&WatchedColumn| match column.problem {
            None => false,
            Some(Problem::Gone | Problem::OtherKind) => true,
            Some(Problem::MostlyMissing) => column.is_missing_in(&mut answers),
            // The model was trained without it, or almost.
            Some(Problem::NeverGiven) => false,
        };
        let Some(column) = self.columns.iter().find(is_violation) else { return Ok(()) };
        let problem = column.problem.map_or("", Problem::name);
        let message = format!("feature {} violates the feature contract: {problem}", column.name);
        match self.settings.policy {
            ContractPolicy::GoOn => Ok(()),
            ContractPolicy::Refuse => Err(ProcessError::reject("feature_contract", message)),
            ContractPolicy::HoldBack => Err(ProcessError::Retry(message)),
        }
    }

    /// Counts an observation that is not processed again.
    pub(super) fn count(&mut self, layout: &RowLayout, answers: &AnswerRow) {
        self.observations += 1;
        let mut answers = layout.answers(answers);
        for column in &mut self.columns {
            column.missing += u64::from(column.is_missing_in(&mut answers));
        }
        if self.observations >= self.settings.window {
            self.evaluate_window();
        }
    }

    fn evaluate_window(&mut self) {
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
                        && column.is_expected_in(self.observations)
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

/// Expected number of answers in a window from which their absence is a violation: with 10, one window in 22,000 (e^-10) has
/// none by chance.
const EXPECTED_MIN: f64 = 10.0;

impl WatchedColumn {
    /// Whether the answer is missing, or a numeric column takes it as missing. Columns are asked in the order of their questions.
    fn is_missing_in(&self, answers: &mut RowReader<'_>) -> bool {
        let Some(index) = self.index else { return true };
        if self.kind == ColumnKind::Categorical {
            return answers.is_missing_at(index);
        }
        match answers.at(index) {
            AnswerRef::Missing | AnswerRef::Flag(_) => true,
            AnswerRef::Number(_) | AnswerRef::Whole(_) | AnswerRef::Id(_) => false,
            AnswerRef::Text(text) => number_in(text).is_none(),
        }
    }

    /// Whether some of so many observations should have it, by its share in training. A feature that was never given in
    /// training counts too, because it is of no use.
    fn is_expected_in(&self, observations: u64) -> bool {
        let given_share = 1.0 - self.missing_share.unwrap_or(1.0);
        given_share <= 0.0 || given_share * observations as f64 >= EXPECTED_MIN
    }
}

impl Drop for ContractWatch {
    /// Removes the reports of the task, which has moved to another instance.
    fn drop(&mut self) {
        self.board.report(self.task, BTreeMap::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::small_model::small_bundle;
    use crate::{
        events::questionnaire::{Answer, MetadataFields, QuestionKind, QuestionnaireSchema},
        processors::metrics::tests::TestMetrics,
    };

    const WINDOW: u64 = 20;

    /// A schema with one question of each type.
    fn layouts() -> (RowLayout, RowLayout) {
        let layout = |avro: &str| {
            let avsc = format!(
                r#"{{"type":"record","name":"R","fields":[{{"name":"who","type":"string"}},
                {{"name":"at","type":"long"}},{{"name":"x","type":"{avro}"}}]}}"#
            );
            let fields = MetadataFields {
                event_id: None,
                respondent_id: "who".to_owned(),
                event_time: "at".to_owned(),
                completed: None,
            };
            QuestionnaireSchema::new(&avsc, &fields, &[]).unwrap().layout().clone()
        };
        (layout("double"), layout("string"))
    }

    fn watched(kind: ColumnKind, missing_share: Option<f64>) -> WatchedColumn {
        WatchedColumn {
            name: "x".to_owned(),
            kind,
            index: Some(0),
            problem: None,
            missing_share,
            missing: 0,
        }
    }

    fn watch(columns: Vec<Column>, watched: Vec<WatchedColumn>) -> ContractWatch {
        let policy = ContractPolicy::GoOn;
        let metrics = TestMetrics::new().metrics;
        let settings = ContractSettings { policy, mostly_missing: 0.9, window: WINDOW, columns };
        let board = ContractBoard::new(policy, metrics);
        let mut watch = ContractWatch::new(Arc::new(settings), board);
        watch.columns = watched;
        watch
    }

    #[test]
    fn missing_answers_are_recognised() {
        let (numbers, texts) = layouts();
        let check = |kind, answer: Option<Answer>, expected: bool| {
            let column = watched(kind, None);
            let layout = if matches!(answer, Some(Answer::Text(_))) { &texts } else { &numbers };
            let row = layout.row_of(std::slice::from_ref(&answer));
            assert_eq!(column.is_missing_in(&mut layout.answers(&row)), expected, "{answer:?}");
        };
        let (number, text) = (Answer::Number, |text: &str| Answer::Text(text.to_owned()));
        for kind in [ColumnKind::Numeric, ColumnKind::Categorical] {
            check(kind, None, true);
            check(kind, Some(number(0.0)), false);
            check(kind, Some(text("7.5")), false);
        }
        check(ColumnKind::Numeric, Some(text("many")), true);
        check(ColumnKind::Categorical, Some(text("many")), false);
        let gone = WatchedColumn { index: None, ..watched(ColumnKind::Categorical, None) };
        assert!(gone.is_missing_in(&mut numbers.answers(&numbers.row_of(&[Some(number(1.0))]))));
    }

    #[test]
    fn a_feature_is_expected_by_its_share_in_training() {
        let check = |missing_share, observations, expected: bool| {
            let column = watched(ColumnKind::Numeric, missing_share);
            assert_eq!(column.is_expected_in(observations), expected, "{missing_share:?}");
        };
        check(Some(0.5), 20, true);
        check(Some(0.5), 19, false);
        check(Some(0.0), 10, true);
        // It was never given in training, or its share is not known.
        check(Some(1.0), 1, true);
        check(None, 1, true);
    }

    /// The problem after a window in which `given` observations had the answer.
    fn problem_after(missing_share: f64, given: u64) -> Option<Problem> {
        let column = watched(ColumnKind::Categorical, Some(missing_share));
        let mut watch = watch(Vec::new(), vec![column]);
        let (layout, _) = layouts();
        for number in 0..WINDOW {
            assert_eq!(watch.columns[0].problem, None);
            let answer = (number < given).then_some(Answer::Number(1.0));
            watch.count(&layout, &layout.row_of(&[answer]));
        }
        let problem = watch.columns[0].problem;
        let violations = watch.board.violations();
        assert_eq!(violations.first().map(|violation| violation.problem), problem);
        problem
    }

    #[test]
    fn a_window_is_compared_with_the_share_in_training() {
        // 18 of 20 missing are nine tenths.
        assert_eq!(problem_after(0.2, 2), Some(Problem::MostlyMissing));
        assert_eq!(problem_after(0.2, 3), None);
        // About half was missing in training: many missing answers are expected, but not a window without any.
        assert_eq!(problem_after(0.44, 0), Some(Problem::MostlyMissing));
        assert_eq!(problem_after(0.45, 1), None);
        assert_eq!(problem_after(0.45, 0), Some(Problem::NeverGiven));
        assert_eq!(problem_after(0.6, 0), None, "it was given so rarely that a window may lack it");
        assert_eq!(problem_after(1.0, 0), Some(Problem::NeverGiven));
    }

    #[test]
    fn each_window_is_evaluated_separately() {
        let mut watch = watch(Vec::new(), vec![watched(ColumnKind::Numeric, Some(0.0))]);
        let (layout, _) = layouts();
        let (given, missing) =
            (layout.row_of(&[Some(Answer::Number(1.0))]), layout.row_of(&[None]));
        let mut window = |answers: &AnswerRow, during, after| {
            for _ in 1..WINDOW {
                watch.count(&layout, answers);
                assert_eq!(watch.columns[0].problem, during, "it takes a whole window");
            }
            watch.count(&layout, answers);
            assert_eq!(watch.columns[0].problem, after);
        };
        let problem = Some(Problem::MostlyMissing);
        window(&missing, None, problem);
        window(&given, problem, None);
        window(&missing, None, problem);
        // A new model starts a new window.
        let scorer = Scorer::new(&small_bundle()).unwrap();
        watch.count(&layout, &missing);
        watch.begin(&scorer, &[]);
        assert_eq!(watch.observations, 0);
    }

    #[test]
    fn a_question_has_the_configured_kind() {
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
        let violations = watch.board.violations();
        let violations: Vec<_> =
            violations.iter().map(|found| (found.feature.as_str(), found.problem)).collect();
        assert_eq!(violations, [("noise", Problem::OtherKind)]);
    }
}
