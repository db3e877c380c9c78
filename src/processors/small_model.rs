//! A small trained model, for the tests of this folder.

use std::{ops::ControlFlow, sync::OnceLock};

use foretell_ml::{
    Calibration, Column, ColumnKind, Example, Label, ModelBundle, Origin, Params, PipelineSpec,
    Recipe, Scaling, Seed, Threshold, TrainingSet, Value, training::train,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

const EXAMPLES: usize = 400;

/// Two classes that depend on `x` and `kind` (`b` to `e`, or missing), and a column of noise.
pub(crate) fn small_bundle() -> ModelBundle {
    static BUNDLE: OnceLock<ModelBundle> = OnceLock::new();
    let trained = || {
        let recipe = recipe();
        let set = TrainingSet::of(recipe.spec.columns(), &examples());
        train(&set.sample(), &recipe, &mut |_, _| ControlFlow::Continue(())).unwrap()
    };
    BUNDLE.get_or_init(trained).clone()
}

fn examples() -> Vec<Example> {
    let mut random = StdRng::seed_from_u64(1);
    let example = |_| {
        let (x, noise) = (random.random_range(0.0..1.0), random.random_range(0.0..1.0));
        let kind = random.random_range(0..5_u8);
        let text = match kind {
            0 => Value::Missing,
            kind => Value::Text(char::from(b'a' + kind).to_string()),
        };
        let label = Label(u32::from(x + f64::from(kind % 2) > 1.0));
        Example { values: vec![Value::Number(x), text, Value::Number(noise)], label }
    };
    (0..EXAMPLES).map(example).collect()
}

fn recipe() -> Recipe {
    let columns = vec![
        Column::new("x", ColumnKind::Numeric),
        Column::new("kind", ColumnKind::Categorical),
        Column::new("noise", ColumnKind::Numeric),
    ];
    Recipe {
        spec: PipelineSpec::new(columns, Scaling::Standard, Vec::new()).unwrap(),
        classes: vec!["no".to_owned(), "yes".to_owned()],
        threshold: Threshold::Fixed(0.5),
        calibration: Calibration::None,
        intervals: false,
        profile: false,
        params: Params { iterations: 12, num_leaves: 7, min_data_in_leaf: 5, ..Params::default() },
        seed: Seed(3),
        origin: Origin::default(),
    }
}
