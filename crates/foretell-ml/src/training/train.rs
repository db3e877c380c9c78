//! Training of one model. The same examples and recipe give the same bundle, byte for byte.

use std::ops::ControlFlow;

use crate::{
    FittedPipeline, Label, Probabilities, Sample,
    bundle::{Lineage, ModelBundle},
    drift::Profile,
    judge::{self, Comparison},
    lightgbm::{self, Booster, Growth},
    scorer::Scorer,
    training::{
        EvaluatedOn, Evaluation, Recipe, Threshold, TrainingError, dataset, folds,
        held_out::{DecisionRule, HeldOut, evaluate_predictions},
    },
};

/// One in this many examples is held out, to evaluate on and to fit the calibration and the threshold to.
const HELD_OUT_FOLDS: usize = 5;
/// Minimum number of examples of a holdout that a model is evaluated on. With fewer, the fifth that is held out of the
/// others says more.
const HOLDOUT_MIN: usize = 500;

/// Examples that are held out of a training, to judge it.
#[derive(Clone, Copy, Debug)]
pub struct Holdout<'a> {
    /// The examples without the held-out ones.
    pub kept: &'a Sample<'a>,
    /// The held-out examples: the newest ones, which the opponent was not trained on.
    pub held_out: &'a Sample<'a>,
    /// The model that the new one is compared with. It does not change the bytes of the new one.
    pub opponent: Option<&'a Scorer>,
    /// Settings of the comparison.
    pub judge: judge::Settings,
}

/// A model, and how it compares with its opponent.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The model.
    pub bundle: ModelBundle,
    /// Comparison on the holdout; the candidate is a model of the same recipe that was trained without it. `None` without an
    /// opponent, if the examples kept cannot be trained on, if the classes of the models differ, or if the holdout permits no
    /// conclusion (see [`judge::compare`]).
    pub comparison: Option<Comparison>,
}

/// Trains a model on all examples. Before that, a model is trained without a stratified fifth of them. Its predictions for
/// that fifth give the evaluation, a slightly pessimistic estimate, and what the recipe fits to held-out examples: the
/// calibration, and the best threshold. The evaluation of these is cross-validated within the fifth. With fewer than two
/// examples outside the most frequent class nothing is held out: the evaluation is empty, and nothing is fitted.
///
/// `progress` is called after each iteration with the iterations done and their total, of all models together; to
/// stop the training it returns [`ControlFlow::Break`].
///
/// # Errors
/// [`TrainingError`] if the examples cannot be trained on, the recipe is out of its bounds, LightGBM fails, or
/// `progress` stopped the training.
pub fn train(
    examples: &Sample<'_>,
    recipe: &Recipe,
    progress: &mut dyn FnMut(u32, u32) -> ControlFlow<()>,
) -> Result<ModelBundle, TrainingError> {
    let minority = dataset::check(examples, recipe.classes.len())?;
    recipe.check()?;
    let has_fifth = can_hold_out(minority);
    let mut training = Training { recipe, models: 1 + u32::from(has_fifth), trained: 0, progress };
    let (rule, evaluation, scores) = match has_fifth {
        true => {
            let held_out = training.predict_fifth(examples)?;
            let rule = held_out.rule(recipe);
            let scores = held_out.calibrated(&rule);
            (rule, held_out.evaluate(recipe), scores)
        }
        false => (DecisionRule::unfitted(recipe), Evaluation::default(), Vec::new()),
    };
    let bundle = finish(training.fit(examples)?, rule, evaluation)?;
    Ok(profiled(bundle, recipe, examples, &scores))
}

/// Trains a model on all `examples`, and judges it on a holdout of them: a twin, a model of the same recipe, is trained on
/// the others and compared with the opponent. What the recipe fits to held-out examples is fitted to a fifth of the others,
/// as in [`train`], and is the same for the twin and the model: fitted to the holdout, it would be unfair to the opponent.
///
/// The evaluation is that of the twin on the holdout if that has at least 500 examples, else that of a fifth of the others.
/// Up to two models are trained besides the one that is returned.
///
/// # Errors
/// As [`train`]; also if the settings of the comparison are out of their bounds.
pub fn train_judged(
    examples: &Sample<'_>,
    holdout: &Holdout<'_>,
    recipe: &Recipe,
    progress: &mut dyn FnMut(u32, u32) -> ControlFlow<()>,
) -> Result<Judged, TrainingError> {
    holdout.judge.check()?;
    let held_out = holdout.held_out.len();
    let Ok(minority) = dataset::check(holdout.kept, recipe.classes.len()) else {
        let bundle = judged_on(held_out, train(examples, recipe, progress)?);
        return Ok(Judged { bundle, comparison: None });
    };
    dataset::check(examples, recipe.classes.len())?;
    recipe.check()?;
    let is_evaluated = held_out >= HOLDOUT_MIN;
    let has_fifth = can_hold_out(minority) && (recipe.fits_to_held_out() || !is_evaluated);
    let opponent = holdout.opponent.filter(|opponent| opponent.classes() == recipe.classes);
    let has_twin = is_evaluated || (opponent.is_some() && held_out >= judge::EXAMPLES_MIN);
    let models = 1 + u32::from(has_fifth) + u32::from(has_twin);
    let mut training = Training { recipe, models, trained: 0, progress };
    let (mut rule, mut evaluation) = (DecisionRule::unfitted(recipe), Evaluation::default());
    let mut scores = Vec::new();
    if has_fifth {
        let predictions = training.predict_fifth(holdout.kept)?;
        rule = predictions.rule(recipe);
        if !is_evaluated {
            scores = predictions.calibrated(&rule);
            evaluation = predictions.evaluate(recipe);
        }
    }
    let mut comparison = None;
    if has_twin {
        let twin = finish(training.fit(holdout.kept)?, rule.clone(), Evaluation::default())?;
        let predict =
            |scorer: &Scorer| judge::predict(scorer, recipe.spec.columns(), holdout.held_out);
        let (candidate, labels) = (predict(&scorer_of(&twin)?), labels_of(holdout.held_out));
        if is_evaluated {
            evaluation = evaluate_predictions(&candidate, &labels, recipe, EvaluatedOn::Holdout);
        }
        comparison = opponent.and_then(|opponent| {
            judge::compare(&candidate, &predict(opponent), &labels, &holdout.judge)
        });
        if is_evaluated {
            scores = candidate.probabilities;
        }
    }
    let bundle = finish(training.fit(examples)?, rule, evaluation)?;
    let bundle = profiled(bundle, recipe, examples, &scores);
    Ok(Judged { bundle: judged_on(held_out, bundle), comparison })
}

/// Whether there are two classes left without the held-out examples.
fn can_hold_out(minority: usize) -> bool {
    minority > 1
}

fn labels_of(sample: &Sample<'_>) -> Vec<Label> {
    sample.labels().collect()
}

fn judged_on(held_out: usize, mut bundle: ModelBundle) -> ModelBundle {
    bundle.lineage.held_out = u64::try_from(held_out).expect("a length has at most 64 bits");
    bundle
}

/// The bundle of a model that can serve.
fn finish(
    bundle: ModelBundle,
    rule: DecisionRule,
    evaluation: Evaluation,
) -> Result<ModelBundle, TrainingError> {
    let DecisionRule { calibrator, threshold } = rule;
    let bundle = ModelBundle { calibrator, threshold, evaluation, ..bundle };
    // An error here is better than a published model that no instance can load.
    scorer_of(&bundle)?;
    Ok(bundle)
}

/// The bundle with the profile of its examples and of the scores of those that it is evaluated on, if the recipe has one.
fn profiled(
    bundle: ModelBundle,
    recipe: &Recipe,
    examples: &Sample<'_>,
    scores: &[Probabilities],
) -> ModelBundle {
    let profile = recipe.profile.then(|| Profile::of(examples).with_scores(scores));
    ModelBundle { profile, ..bundle }
}

fn scorer_of(bundle: &ModelBundle) -> Result<Scorer, TrainingError> {
    Scorer::new(bundle).map_err(|error| TrainingError::Unservable { reason: error.to_string() })
}

/// The training of some models of one recipe, one after the other.
struct Training<'a> {
    recipe: &'a Recipe,
    models: u32,
    trained: u32,
    progress: &'a mut dyn FnMut(u32, u32) -> ControlFlow<()>,
}

impl Training<'_> {
    /// Predicts a stratified fifth of the examples with a model of the others.
    fn predict_fifth(&mut self, examples: &Sample<'_>) -> Result<HeldOut, TrainingError> {
        let fold_of = folds::stratified(&labels_of(examples), HELD_OUT_FOLDS, self.recipe.seed);
        let kept = examples.subset(|index| fold_of[index] > 0);
        let held_out = examples.subset(|index| fold_of[index] == 0);
        drop(fold_of);
        let scorer = scorer_of(&self.fit(&kept)?)?;
        let predictions = judge::predict(&scorer, self.recipe.spec.columns(), &held_out);
        Ok(HeldOut { probabilities: predictions.probabilities, labels: labels_of(&held_out) })
    }

    /// Trains on all of `examples`. The bundle has no evaluation yet, and nothing that is fitted to held-out examples.
    fn fit(&mut self, examples: &Sample<'_>) -> Result<ModelBundle, TrainingError> {
        let recipe = self.recipe;
        let pipeline = recipe.spec.fit(examples);
        let parameters = recipe.params.to_lightgbm(recipe.classes.len(), recipe.seed);
        let of_model = recipe.params.iterations;
        let (before, total) = (self.trained * of_model, self.models * of_model);
        let (booster, iterations) =
            grow(&pipeline, examples, &parameters, of_model, &mut |done| {
                (self.progress)(before + done, total)
            })?;
        self.trained += 1;
        let DecisionRule { threshold, calibrator } = DecisionRule::unfitted(recipe);
        Ok(ModelBundle {
            pipeline,
            booster,
            classes: recipe.classes.clone(),
            threshold,
            calibrator,
            lineage: Lineage {
                origin: recipe.origin.clone(),
                params: recipe.params.clone(),
                iterations,
                seed: recipe.seed,
                lightgbm: lightgbm::VERSION.to_owned(),
                threshold_metric: match recipe.threshold {
                    Threshold::Fixed(_) => None,
                    Threshold::Best(metric) => Some(metric),
                },
                calibration: recipe.calibration,
                held_out: 0,
                imported: false,
            },
            evaluation: Evaluation::default(),
            profile: None,
        })
    }
}

/// Grows the booster; returns LightGBM's text of the model and the number of its iterations.
fn grow(
    pipeline: &FittedPipeline,
    examples: &Sample<'_>,
    parameters: &str,
    iterations: u32,
    progress: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<(String, u32), TrainingError> {
    let dataset = dataset::bin(pipeline, examples, parameters)?;
    let mut booster = Booster::new(&dataset, parameters)?;
    for done in 1..=iterations {
        if booster.grow()? == Growth::Finished {
            // If there was nothing to split, LightGBM still has the constant tree of the first iteration.
            return Ok((booster.save(None)?, (done - 1).max(1)));
        }
        if progress(done).is_break() {
            return Err(TrainingError::Stopped);
        }
    }
    Ok((booster.save(None)?, iterations))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        CalendarFeature, CalendarPart, Column, ColumnKind, Example, Metric, PipelineSpec, Scaling,
        Seed, TimeUnit, TrainingSet, Value,
        scorer::Scratch,
        training::{
            self, Calibration, Params, evaluate,
            tests::{examples, recipe},
        },
        trees::Trees,
    };

    fn train_all(examples: &[Example], recipe: &Recipe) -> Result<ModelBundle, TrainingError> {
        let set = TrainingSet::of(recipe.spec.columns(), examples);
        train(&set.sample(), recipe, &mut |_, _| ControlFlow::Continue(()))
    }

    #[test]
    fn the_same_examples_and_recipe_give_the_same_bytes() {
        let (examples, recipe) = (examples(400, 2, 1), recipe(2));
        let bytes = |recipe: &Recipe| train_all(&examples, recipe).unwrap().to_bytes().unwrap();
        assert_eq!(bytes(&recipe), bytes(&recipe));
        assert_ne!(bytes(&recipe), bytes(&Recipe { seed: Seed(4), ..recipe.clone() }));
    }

    #[test]
    fn a_profile_has_all_examples_and_the_scores_of_those_held_out() {
        let (examples, recipe) = (examples(400, 2, 1), recipe(2));
        let plain = train_all(&examples, &recipe).unwrap();
        let bundle = train_all(&examples, &Recipe { profile: true, ..recipe }).unwrap();
        let Some(profile) = &bundle.profile else { panic!("the recipe has one") };
        let baseline = profile.baseline(bundle.pipeline.columns());
        let total = |counts: &[u64]| counts.iter().sum::<u64>();
        assert!(baseline.columns.iter().all(|column| total(&column.counts) == 400));
        let scores = baseline.scores.iter().map(|scores| total(&scores.counts));
        assert_eq!(scores.collect::<Vec<_>>(), [bundle.evaluation.examples]);
        assert!(Recipe::of(&bundle).profile && !Recipe::of(&plain).profile);
        assert_eq!(ModelBundle { profile: None, ..bundle }, plain);
    }

    /// Models of a release must be reproducible by the next one: these versions never change with a layout of examples.
    #[test]
    fn the_bytes_of_models_are_those_of_the_first_release() {
        let check = |number: usize, recipe: &Recipe, expected: &str| {
            let classes = u32::try_from(recipe.classes.len()).unwrap();
            let mut examples = examples(number, classes, 5);
            for (number, example) in (0_u32..).zip(&mut examples) {
                let category = Value::Number(f64::from(number % 7) / 2.0);
                let date = Value::Number(f64::from(number % 400));
                let odd = match number % 11 {
                    0 => Value::Text(" 2.5 ".to_owned()),
                    1 => Value::Text("many".to_owned()),
                    2 => Value::Number(f64::NAN),
                    _ => Value::Number(f64::from(number) * 0.1),
                };
                example.values.extend([category, date, odd]);
            }
            let version = train_all(&examples, recipe).unwrap().version();
            assert_eq!(version.as_str(), expected);
        };
        let mut columns = training::tests::spec().columns().to_vec();
        columns.push(Column::new("size", ColumnKind::Categorical));
        columns.push(Column::new("day", ColumnKind::Numeric));
        columns.push(Column::new("odd", ColumnKind::Numeric));
        let crosses = vec![("kind".to_owned(), "size".to_owned())];
        let spec = PipelineSpec::new(columns, Scaling::MinMax, crosses).unwrap();
        let part = CalendarFeature {
            column: "day".to_owned(),
            part: CalendarPart::Weekday,
            unit: TimeUnit::Days,
        };
        let spec = spec.with_calendar(vec![part]).unwrap();
        let with = |classes| Recipe { spec: spec.clone(), ..recipe(classes) };
        check(3_000, &with(2), "b60ca8f37f36");
        check(3_000, &with(3), "c47daffdf602");
        check(30, &with(2), "3d71867a2149");
        let bagged = Params { bagging_fraction: 0.7, ..with(2).params };
        check(3_000, &Recipe { params: bagged, ..with(2) }, "7f8ce2208f71");
    }

    #[test]
    fn the_evaluation_agrees_with_fresh_examples() {
        let fresh = examples(2000, 2, 99);
        let bundle = train_all(&examples(1000, 2, 1), &recipe(2)).unwrap();
        let live = evaluate(&Scorer::new(&bundle).unwrap(), &fresh);
        assert_eq!(bundle.evaluation.examples, 200);
        assert!(live.auc.unwrap() > 0.9, "{live:?}");
        assert!(
            (bundle.evaluation.auc.unwrap() - live.auc.unwrap()).abs() < 0.05,
            "{bundle:?} {live:?}"
        );
    }

    #[test]
    fn the_evaluation_uses_examples_that_its_model_was_not_trained_on() {
        // Random labels: only a model that was trained on an example can predict its label.
        let mut examples = examples(400, 2, 1);
        let others = training::tests::examples(400, 2, 77);
        for (example, other) in examples.iter_mut().zip(others) {
            example.label = other.label;
        }
        let params = Params {
            iterations: 60,
            num_leaves: 31,
            min_data_in_leaf: 1,
            learning_rate: 0.3,
            ..recipe(2).params
        };
        let bundle = train_all(&examples, &Recipe { params, ..recipe(2) }).unwrap();
        let seen = evaluate(&Scorer::new(&bundle).unwrap(), &examples).auc.unwrap();
        assert!(seen > 0.95, "the model does not overfit, so the test proves nothing: {seen}");
        let held_out = bundle.evaluation.auc.unwrap();
        assert!(held_out < 0.7, "{held_out}");
    }

    #[test]
    fn three_classes_are_distinguished_and_one_may_be_absent() {
        let check = |classes: u32, named: u32| {
            let bundle = train_all(&examples(600, classes, 2), &recipe(named)).unwrap();
            let scorer = Scorer::new(&bundle).unwrap();
            let live = evaluate(&scorer, &examples(600, classes, 3));
            assert!(live.auc.unwrap() > 0.8 && live.accuracy.unwrap() > 0.5, "{live:?}");
            let probabilities = scorer.score(&[Value::Number(0.5)], &mut Scratch::default());
            assert_eq!(probabilities.as_slice().len(), named as usize);
            assert!((probabilities.as_slice().iter().sum::<f64>() - 1.0).abs() < 1e-9);
        };
        check(3, 3);
        check(2, 3);
    }

    #[test]
    fn progress_is_reported_and_can_stop() {
        let (examples, recipe) = (examples(200, 2, 1), recipe(2));
        let mut reports = Vec::new();
        let set = TrainingSet::of(recipe.spec.columns(), &examples);
        train(&set.sample(), &recipe, &mut |done, total| {
            reports.push((done, total));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(reports.first(), Some(&(1, 24)));
        assert_eq!(reports.last(), Some(&(24, 24)));
        let stopped = train(&set.sample(), &recipe, &mut |done, _| match done {
            3 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert_eq!(stopped, Err(TrainingError::Stopped));
    }

    #[test]
    fn unusable_examples_and_recipes_are_errors() {
        let some = examples(100, 2, 1);
        let of = |label| {
            some.iter().map(|e| Example { label: Label(label), ..e.clone() }).collect::<Vec<_>>()
        };
        let check = |examples: &[Example], recipe: &Recipe, expected: TrainingError| {
            assert_eq!(train_all(examples, recipe), Err(expected));
        };
        check(&[], &recipe(2), TrainingError::NoExamples);
        check(&of(1), &recipe(2), TrainingError::OneClass { class: 1 });
        check(&of(2), &recipe(2), TrainingError::Label { example: 0, label: 2, classes: 2 });
        check(&some, &recipe(1), TrainingError::Classes { classes: 1 });
        check(&some, &recipe(257), TrainingError::Classes { classes: 257 });
        let error = TrainingError::Setting { name: "threshold", value: -0.5, low: 0.0, high: 1.0 };
        let threshold = Threshold::Fixed(-0.5);
        check(&some, &Recipe { threshold, ..recipe(2) }, error);
        let params = Params { num_leaves: 1, ..recipe(2).params };
        let result = train_all(&some, &Recipe { params, ..recipe(2) });
        assert!(
            matches!(result, Err(TrainingError::Setting { name: "num_leaves", .. })),
            "{result:?}"
        );
    }

    #[test]
    fn examples_without_a_useful_split_give_a_constant_model() {
        let missing = |example: &Example| Example { values: Vec::new(), ..example.clone() };
        let examples: Vec<Example> = examples(200, 2, 1).iter().map(missing).collect();
        let bundle = train_all(&examples, &recipe(2)).unwrap();
        let probabilities =
            Scorer::new(&bundle).unwrap().score::<&Value>([], &mut Scratch::default());
        let share =
            examples.iter().filter(|example| example.label == Label(1)).count() as f64 / 200.0;
        assert!((probabilities.as_slice()[1] - share).abs() < 1e-6, "{probabilities:?} {share}");
        assert_eq!(
            Trees::parse(&bundle.booster).unwrap().iterations(),
            bundle.lineage.iterations as usize
        );
    }

    #[test]
    fn a_column_of_missing_values_only_does_no_harm() {
        let mut examples = examples(400, 2, 1);
        for example in &mut examples {
            example.values[2] = Value::Missing;
        }
        let bundle = train_all(&examples, &recipe(2)).unwrap();
        assert!(bundle.evaluation.auc.unwrap() > 0.8, "{:?}", bundle.evaluation);
    }

    #[test]
    fn a_minority_of_one_gives_a_model_without_an_evaluation() {
        let mut examples = examples(20, 2, 1);
        for (number, example) in examples.iter_mut().enumerate() {
            example.label = Label(u32::from(number == 0));
        }
        let bundle = train_all(&examples, &recipe(2)).unwrap();
        assert_eq!(bundle.evaluation, Evaluation::default());
        assert!(Scorer::new(&bundle).is_ok());
    }

    fn fitted(threshold: Threshold, calibration: Calibration, classes: u32) -> Recipe {
        Recipe { threshold, calibration, intervals: true, ..recipe(classes) }
    }

    #[test]
    fn the_best_threshold_is_part_of_the_bundle() {
        let examples = examples(4_000, 2, 1);
        let train = |threshold| train_all(&examples, &fitted(threshold, Calibration::None, 2));
        let given = train(Threshold::Fixed(0.9)).unwrap();
        let best = train(Threshold::Best(Metric::F1)).unwrap();
        assert!((0.1..0.9).contains(&best.threshold), "{}", best.threshold);
        assert_eq!(best.lineage.threshold_metric, Some(Metric::F1));
        assert_eq!(
            (given.threshold.to_bits(), given.lineage.threshold_metric),
            (0.9_f64.to_bits(), None)
        );
        let fresh = training::tests::examples(2_000, 2, 99);
        let f1 = |bundle: &ModelBundle| evaluate(&Scorer::new(bundle).unwrap(), &fresh).f1.unwrap();
        assert!(f1(&best) > f1(&given) + 0.05, "{} {}", f1(&best), f1(&given));
        // The cross-validated evaluation is as good as on fresh examples.
        assert!((best.evaluation.f1.unwrap() - f1(&best)).abs() < 0.05, "{:?}", best.evaluation);
    }

    #[test]
    fn calibration_corrects_a_model_that_was_trained_too_long() {
        let examples = examples(2_000, 2, 1);
        let params = Params { iterations: 600, min_data_in_leaf: 1, ..recipe(2).params };
        let fresh = training::tests::examples(4_000, 2, 99);
        let train = |calibration| {
            let recipe = fitted(Threshold::Fixed(0.5), calibration, 2);
            train_all(&examples, &Recipe { params: params.clone(), ..recipe }).unwrap()
        };
        let live = |bundle: &ModelBundle| {
            evaluate(&Scorer::new(bundle).unwrap(), &fresh).log_loss.unwrap()
        };
        let raw = live(&train(Calibration::None));
        for calibration in [Calibration::Platt, Calibration::Isotonic] {
            let bundle = train(calibration);
            assert_eq!(bundle.lineage.calibration, calibration);
            assert!(bundle.calibrator.is_some());
            let calibrated = live(&bundle);
            assert!(calibrated < raw - 0.03, "{calibration:?}: {calibrated}, {raw}");
            let evaluated = bundle.evaluation.log_loss.unwrap();
            assert!((evaluated - calibrated).abs() < 0.06, "{evaluated} {calibrated}");
            let back = ModelBundle::from_bytes(&bundle.to_bytes().unwrap()).unwrap();
            assert_eq!(back, bundle);
        }
    }

    #[test]
    fn an_evaluation_is_not_of_what_was_fitted_to_its_examples() {
        // Random labels: only a curve that was fitted to an example can tell anything about it.
        let mut examples = examples(1_000, 2, 1);
        for (example, other) in examples.iter_mut().zip(training::tests::examples(1_000, 2, 77)) {
            example.label = other.label;
        }
        let zeros = examples.iter().filter(|example| example.label == Label(0)).count() as f64;
        let share = zeros / 1_000.0;
        let entropy = -share * share.ln() - (1.0 - share) * (1.0 - share).ln();
        for calibration in [Calibration::Platt, Calibration::Isotonic] {
            let recipe = fitted(Threshold::Best(Metric::Accuracy), calibration, 2);
            let evaluation = train_all(&examples, &recipe).unwrap().evaluation;
            assert!(evaluation.log_loss.unwrap() > entropy, "{entropy} {evaluation:?}");
            assert!(evaluation.accuracy.unwrap() < share + 0.05, "{share} {evaluation:?}");
        }
    }

    #[test]
    fn an_evaluation_has_intervals_around_its_metrics() {
        let recipe = fitted(Threshold::Best(Metric::Accuracy), Calibration::Platt, 3);
        let evaluation = train_all(&examples(1_000, 3, 1), &recipe).unwrap().evaluation;
        let intervals = evaluation.intervals.unwrap();
        let check = |metric: Option<f64>, interval: Option<(f64, f64)>| {
            let (metric, (low, high)) = (metric.unwrap(), interval.unwrap());
            assert!(low < metric && metric < high && high - low < 0.5, "{low} {metric} {high}");
        };
        check(evaluation.log_loss, intervals.log_loss);
        check(evaluation.auc, intervals.auc);
        check(evaluation.accuracy, intervals.accuracy);
        check(evaluation.f1, intervals.f1);
    }

    /// Judges a model of the examples on the last `held_out` of them.
    fn judge(
        examples: &[Example],
        held_out: usize,
        recipe: &Recipe,
        opponent: Option<&Scorer>,
    ) -> Judged {
        let set = TrainingSet::of(recipe.spec.columns(), examples);
        let sample = set.sample();
        let from = examples.len() - held_out;
        let (kept, held_out) = (sample.subset(|n| n < from), sample.subset(|n| n >= from));
        let judge = judge::Settings { resamples: 200, ..judge::Settings::default() };
        let holdout = Holdout { kept: &kept, held_out: &held_out, opponent, judge };
        let mut last = (0, 0);
        let judged = train_judged(&sample, &holdout, recipe, &mut |done, total| {
            last = (done, total);
            ControlFlow::Continue(())
        });
        assert_eq!(last.0, last.1, "the progress does not end");
        judged.unwrap()
    }

    #[test]
    fn a_candidate_is_judged_on_a_holdout() {
        use judge::Verdict::{Better, Undecided, Worse};
        let examples = examples(1_600, 2, 1);
        let opponent = |number: usize, swapped: bool| {
            let mut examples = training::tests::examples(number, 2, 7);
            for example in &mut examples {
                example.label.0 = if swapped { 1 - example.label.0 } else { example.label.0 };
            }
            Scorer::new(&train_all(&examples, &recipe(2)).unwrap()).unwrap()
        };
        let check = |recipe: &Recipe, opponent: &Scorer, expected| {
            let Judged { bundle, comparison } = judge(&examples, 600, recipe, Some(opponent));
            let comparison = comparison.unwrap();
            assert_eq!(comparison.verdict(0.0), expected, "{comparison:?}");
            assert_eq!((comparison.examples, bundle.lineage.held_out), (600, 600));
            assert_eq!(bundle.evaluation.on, EvaluatedOn::Holdout);
            assert_eq!(bundle.evaluation.log_loss, Some(comparison.candidate));
        };
        let fitted = fitted(Threshold::Best(Metric::F1), Calibration::Isotonic, 2);
        for recipe in [&recipe(2), &fitted] {
            check(recipe, &opponent(1_000, true), Better);
            check(recipe, &opponent(60, false), Better);
        }
        check(&recipe(2), &opponent(1_000, false), Undecided);
        let hasty = Params { iterations: 1, learning_rate: 0.01, ..recipe(2).params };
        check(&Recipe { params: hasty, ..recipe(2) }, &opponent(1_000, false), Worse);
    }

    #[test]
    fn the_holdout_does_not_decide_what_it_judges() {
        // The labels of the holdout are reversed: what were fitted to it would be reversed, too.
        let mut examples = examples(1_600, 2, 1);
        for example in &mut examples[1_000..] {
            example.label.0 = 1 - example.label.0;
        }
        let recipe = fitted(Threshold::Best(Metric::F1), Calibration::Isotonic, 2);
        let bundle = judge(&examples, 600, &recipe, None).bundle;
        let kept = train_all(&examples[..1_000], &recipe).unwrap();
        assert_eq!(bundle.calibrator, kept.calibrator);
        assert_eq!(bundle.threshold.to_bits(), kept.threshold.to_bits());
        assert!(bundle.evaluation.auc.unwrap() < 0.2, "{:?}", bundle.evaluation);
    }

    #[test]
    fn the_published_model_is_that_of_all_examples_whoever_the_opponent_is() {
        let examples = examples(1_600, 2, 1);
        let opponent = Scorer::new(&train_all(&examples[..300], &recipe(2)).unwrap()).unwrap();
        let fitted = fitted(Threshold::Best(Metric::F1), Calibration::Platt, 2);
        for recipe in [&recipe(2), &fitted] {
            for held_out in [0, 20, 100, 600] {
                let judged = judge(&examples, held_out, recipe, Some(&opponent));
                let unopposed = judge(&examples, held_out, recipe, None);
                assert_eq!(judged.bundle, unopposed.bundle, "{held_out}");
                assert_eq!(judged.comparison.is_some(), held_out >= judge::EXAMPLES_MIN);
                assert!(unopposed.comparison.is_none());
                let plain = train_all(&examples, recipe).unwrap();
                assert_eq!(judged.bundle.booster, plain.booster);
                assert_eq!(judged.bundle == plain, held_out == 0, "{held_out}");
            }
        }
    }

    #[test]
    fn a_model_without_anything_to_be_judged_on_is_trained_nevertheless() {
        let examples = examples(400, 2, 1);
        let opponent = Scorer::new(&train_all(&examples, &recipe(2)).unwrap()).unwrap();
        let check = |examples: &[Example], held_out, opponent| {
            let judged = judge(examples, held_out, &recipe(2), Some(opponent));
            assert_eq!(judged.comparison, None);
            assert_eq!(judged.bundle.lineage.held_out, held_out as u64);
        };
        // All examples that are kept are of one class, or there are none.
        let mut sorted = examples.clone();
        sorted.sort_by_key(|example| example.label);
        let of_zero = sorted.iter().filter(|example| example.label == Label(0)).count();
        check(&sorted, 400 - of_zero, &opponent);
        check(&examples, 400, &opponent);
        // The opponent has other classes.
        let classes = vec!["class 1".to_owned(), "class 0".to_owned()];
        let other = Recipe { classes, ..recipe(2) };
        check(&examples, 100, &Scorer::new(&train_all(&examples, &other).unwrap()).unwrap());
    }

    #[test]
    fn a_model_is_reproduced_from_its_bundle_and_the_examples() {
        for classes in [2, 3] {
            let examples = examples(1_200, classes, 1);
            for (threshold, calibration) in [
                (Threshold::Fixed(0.3), Calibration::None),
                (Threshold::Best(Metric::F1), Calibration::Isotonic),
                (Threshold::Best(Metric::LogLoss), Calibration::Platt),
            ] {
                for held_out in [0, 50, 600] {
                    let recipe = fitted(threshold, calibration, classes);
                    let bytes =
                        judge(&examples, held_out, &recipe, None).bundle.to_bytes().unwrap();
                    let stored = ModelBundle::from_bytes(&bytes).unwrap();
                    assert_eq!(stored.lineage.held_out, held_out as u64);
                    assert_eq!(Recipe::of(&stored), recipe);
                    let again = judge(&examples, held_out, &Recipe::of(&stored), None).bundle;
                    assert_eq!(again.to_bytes().unwrap(), bytes);
                }
            }
        }
    }
}
