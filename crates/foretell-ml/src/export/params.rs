//! Parameters of a training, as LightGBM writes them at the end of a model's text.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::training::Params;

/// The parameters that a model was trained with, so that a retraining can use them. Those that the text does not have, or has
/// with a value that [`Params::check`] refuses, are the defaults.
pub(super) fn of(model: &str) -> Params {
    let written = written(model);
    let defaults = serde_json::to_value(Params::default()).expect("parameters have text keys only");
    let Value::Object(defaults) = defaults else { return Params::default() };
    let mut found = Map::new();
    for (name, default) in defaults {
        let in_text = if name == "iterations" { "num_iterations" } else { &name };
        let value = written.get(in_text).and_then(|text| serde_json::from_str(text).ok());
        let mut with = found.clone();
        with.insert(name.clone(), value.unwrap_or_else(|| default.clone()));
        if checked(&with).is_none() {
            with.insert(name, default);
        }
        found = with;
    }
    checked(&found).unwrap_or_default()
}

fn checked(params: &Map<String, Value>) -> Option<Params> {
    let params: Params = serde_json::from_value(Value::Object(params.clone())).ok()?;
    params.check().is_ok().then_some(params)
}

/// The lines `[name: value]` between `parameters:` and `end of parameters`.
fn written(model: &str) -> BTreeMap<&str, &str> {
    let lines = model.lines().skip_while(|line| *line != "parameters:");
    let lines = lines.take_while(|line| *line != "end of parameters");
    lines.filter_map(|line| line.strip_prefix('[')?.strip_suffix(']')?.split_once(": ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::tests::{recipe, small_bundle};

    #[test]
    fn parameters_are_read_from_the_text_of_a_model() {
        let model = small_bundle().booster;
        // LightGBM does not write the iterations of a booster that grows by calls.
        let expected = recipe(2).params;
        let found = of(&model);
        assert_eq!(Params { iterations: expected.iterations, ..found }, expected);
        let model = model.replace("[num_iterations: 100]", "[num_iterations: 77]");
        assert_eq!(of(&model).iterations, 77);
    }

    #[test]
    fn invalid_parameters_are_the_defaults() {
        let of =
            |line: &str| of(&format!("parameters:\n{line}\n[num_leaves: 9]\nend of parameters\n"));
        let expected = Params { num_leaves: 9, ..Params::default() };
        for line in ["[learning_rate: -1]", "[learning_rate: x]", "learning_rate", "[max_bin: 1]"] {
            assert_eq!(of(line), expected, "{line}");
        }
        assert_eq!(super::of(""), Params::default());
    }
}
