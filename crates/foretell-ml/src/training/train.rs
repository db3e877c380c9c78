//! Training of one model. The same examples and recipe give the same bundle, byte for byte.

use std::ops::ControlFlow;

use crate::{
    FittedPipeline, PipelineSpec, Sample, Seed,
    bundle::{Lineage, ModelBundle, Origin},
    lightgbm::{self, Booster, Growth},
    scorer::Scorer,
    training::{Evaluation, Params, TrainingError, dataset, evaluation, folds, within},
};

/// The evaluation holds out one in this many examples.
const HELD_OUT_FOLDS: usize = 5;

/// Everything besides the examples that determines a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Features to make of the values.
    pub spec: PipelineSpec,
    /// Names of the classes, in the order of their labels.
    pub classes: Vec<String>,
    /// Decision threshold with two classes, 0 to 1: class 1 is chosen if its probability is at least this.
    pub threshold: f64,
    /// LightGBM's parameters.
    pub params: Params,
    /// Random seed of folds and LightGBM.
    pub seed: Seed,
    /// Provenance of the examples, which is copied into the bundle.
    pub origin: Origin,
}

/// Trains a model on all examples. To evaluate it, a second model is trained without a stratified fifth of them; its
/// metrics on that fifth are a slightly pessimistic estimate. With fewer than two examples outside the most frequent
/// class nothing is held out, and the evaluation is empty.
///
/// `progress` is called after each iteration with the iterations done and their total, of both models together; to
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
    recipe.params.check()?;
    within("threshold", recipe.threshold, 0.0, 1.0)?;
    let (iterations, both) = (recipe.params.iterations, recipe.params.iterations * 2);
    let held_out = match minority {
        // Without the held-out examples there may be only one class left.
        0 | 1 => Evaluation::default(),
        _ => evaluate_without(examples, recipe, &mut |done| progress(done, both))?,
    };
    let mut bundle = fit(examples, recipe, &mut |done| progress(iterations + done, both))?;
    bundle.evaluation = held_out;
    // An error here is better than a published model that no instance can load.
    scorer_of(&bundle)?;
    Ok(bundle)
}

fn evaluate_without(
    examples: &Sample<'_>,
    recipe: &Recipe,
    progress: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Evaluation, TrainingError> {
    let labels: Vec<_> = examples.labels().collect();
    let fold_of = folds::stratified(&labels, HELD_OUT_FOLDS, recipe.seed);
    drop(labels);
    let kept = examples.subset(|index| fold_of[index] > 0);
    let held_out = examples.subset(|index| fold_of[index] == 0);
    drop(fold_of);
    let bundle = fit(&kept, recipe, progress)?;
    Ok(evaluation::evaluate_sample(&scorer_of(&bundle)?, &bundle.pipeline, &held_out))
}

fn scorer_of(bundle: &ModelBundle) -> Result<Scorer, TrainingError> {
    Scorer::new(bundle).map_err(|error| TrainingError::Unservable { reason: error.to_string() })
}

/// Trains on all of `examples`. The bundle has no evaluation yet.
fn fit(
    examples: &Sample<'_>,
    recipe: &Recipe,
    progress: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<ModelBundle, TrainingError> {
    let pipeline = recipe.spec.fit(examples);
    let parameters = recipe.params.to_lightgbm(recipe.classes.len(), recipe.seed);
    let (booster, iterations) =
        grow(&pipeline, examples, &parameters, recipe.params.iterations, progress)?;
    Ok(ModelBundle {
        pipeline,
        booster,
        classes: recipe.classes.clone(),
        threshold: recipe.threshold,
        lineage: Lineage {
            origin: recipe.origin.clone(),
            params: recipe.params.clone(),
            iterations,
            seed: recipe.seed,
            lightgbm: lightgbm::VERSION.to_owned(),
        },
        evaluation: Evaluation::default(),
    })
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
        CalendarFeature, CalendarPart, Column, ColumnKind, Example, Label, Scaling, TimeUnit,
        TrainingSet, Value,
        scorer::Scratch,
        training::{
            self, evaluate,
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
        check(3_000, &with(2), "488395daaa6b");
        check(3_000, &with(3), "43fff17f447b");
        check(30, &with(2), "1e7c75d79b2d");
        let bagged = Params { bagging_fraction: 0.7, ..with(2).params };
        check(3_000, &Recipe { params: bagged, ..with(2) }, "de05bddfb57a");
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
        check(&some, &Recipe { threshold: -0.5, ..recipe(2) }, error);
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
}
