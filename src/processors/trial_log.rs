//! The trials of the topic `trials`, as the studies of `foretell-ml` take them.

use std::collections::VecDeque;

use serde_json::Value as Json;

use crate::events::trial::{Trial as TrialRecord, TrialParameter};
use foretell_ml::{
    Metric, Params,
    training::{EARLIER_TRIALS_MAX, ParamValue, SamplerKind, Trial},
};
use foretell_streams::time::WallTime;

/// The newest trials of the topic, which warm-start the next study.
#[derive(Clone, Debug, Default)]
pub struct TrialLog {
    /// Each with the name of its study, in the order of the log.
    trials: VecDeque<(String, Trial)>,
}

impl TrialLog {
    /// Adds the next record of the topic. A record with a parameter that this release does not know is left out.
    pub fn take(&mut self, record: &TrialRecord) {
        let Some(trial) = trial_of(record) else { return };
        // The key of a record is its study and number, so a study that is run again replaces its trials.
        let is_replaced = |(study, other): &(String, Trial)| {
            *study == record.study && other.number == trial.number
        };
        if let Some(index) = self.trials.iter().position(is_replaced) {
            self.trials.remove(index);
        }
        if self.trials.len() == EARLIER_TRIALS_MAX {
            self.trials.pop_front();
        }
        self.trials.push_back((record.study.clone(), trial));
    }

    /// The trials by study, in the order of the studies' trials 0, each study from its trial 0 on. Studies without a trial 0,
    /// and trials that an interrupted repetition of their study left behind, are left out.
    #[must_use]
    pub fn by_study(&self) -> Vec<Trial> {
        let firsts = self.trials.iter().enumerate().filter(|(_, (_, trial))| trial.number == 0);
        let of_study = |(index, (study, _)): (usize, &(String, Trial))| {
            let later = self.trials.iter().skip(index);
            later.filter(|(other, _)| other == study).map(|(_, trial)| trial.clone()).collect()
        };
        firsts.map(of_study).collect::<Vec<Vec<Trial>>>().concat()
    }
}

/// Converts a trial to its record.
#[must_use]
pub fn record_of(study: &str, trial: &Trial, now: WallTime) -> TrialRecord {
    TrialRecord {
        study: study.to_owned(),
        number: trial.number,
        parameters: parameters_of(&trial.params),
        log_loss: trial.log_loss,
        auc: trial.auc,
        iterations: trial.iterations,
        pruned: trial.pruned,
        created_at: now,
        objective: trial.objective.name().to_owned(),
        value: trial.value,
        sampler: trial.sampler.name().to_owned(),
        failure: trial.failure.clone(),
    }
}

/// Converts the record of a trial; none if this release does not have one of its parameters, its objective or its sampler.
#[must_use]
pub fn trial_of(record: &TrialRecord) -> Option<Trial> {
    let objective = Metric::ALL.into_iter().find(|metric| metric.name() == record.objective)?;
    let sampler = SamplerKind::ALL.into_iter().find(|sampler| sampler.name() == record.sampler)?;
    // A record of version 1 has no value: its metric is the log loss.
    let of_log_loss = || Some(record.log_loss).filter(|_| objective == Metric::LogLoss);
    Some(Trial {
        number: record.number,
        params: params_of(&record.parameters)?,
        log_loss: record.log_loss,
        auc: record.auc,
        iterations: record.iterations,
        pruned: record.pruned,
        objective,
        value: record.value.or_else(of_log_loss).filter(|_| record.failure.is_none()),
        sampler,
        failure: record.failure.clone(),
    })
}

/// The parameters by their names in LightGBM, so that a new parameter needs no change here.
fn parameters_of(params: &Params) -> Vec<TrialParameter> {
    let Ok(Json::Object(fields)) = serde_json::to_value(params) else { return Vec::new() };
    let fields = fields.into_iter().filter_map(|(name, value)| {
        Some(TrialParameter { name, value: value.as_f64()?, text: None })
    });
    let further = params.extra.iter().map(|(name, value)| TrialParameter {
        name: name.clone(),
        value: value.number().unwrap_or_default(),
        text: value.number().is_none().then(|| value.to_string()),
    });
    fields.chain(further).collect()
}

/// `None` if a parameter has no place in [`Params`], or a value that it cannot have.
fn params_of(parameters: &[TrialParameter]) -> Option<Params> {
    let Ok(Json::Object(known)) = serde_json::to_value(Params::default()) else { return None };
    let (mut fields, mut further) = (serde_json::Map::new(), serde_json::Map::new());
    for TrialParameter { name, value, text } in parameters {
        let (is_field, value) = match text {
            Some(text) => (false, serde_json::to_value(ParamValue::of_text(text)).ok()?),
            None => (known.contains_key(name), json_of(*value)),
        };
        let place = if is_field { &mut fields } else { &mut further };
        place.insert(name.clone(), value);
    }
    if !further.is_empty() {
        fields.insert("extra".to_owned(), Json::Object(further));
    }
    let params: Params = serde_json::from_value(Json::Object(fields)).ok()?;
    params.check().ok().map(|()| params)
}

/// JSON of a whole number without a fraction: `31.0` is not valid for a number of leaves.
fn json_of(value: f64) -> Json {
    #[expect(clippy::cast_possible_truncation, reason = "guarded: it is whole, and small")]
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Json::from(value as i64);
    }
    Json::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(number: u32) -> Trial {
        Trial {
            number,
            params: Params { learning_rate: 0.125, ..Params::default() },
            log_loss: 0.25,
            auc: Some(0.75),
            iterations: 9,
            pruned: false,
            objective: Metric::LogLoss,
            value: Some(0.25),
            sampler: SamplerKind::Tpe,
            failure: None,
        }
    }

    fn record(study: &str, number: u32) -> TrialRecord {
        record_of(study, &trial(number), WallTime(1))
    }

    #[test]
    fn a_trial_survives_a_round_trip() {
        let further = [
            ("max_depth".to_owned(), ParamValue::Number(6.0)),
            ("path_smooth".to_owned(), ParamValue::Number(0.5)),
            ("boosting".to_owned(), ParamValue::of_text("dart")),
            ("extra_trees".to_owned(), ParamValue::Flag(true)),
        ];
        let params = Params { extra: further.into(), ..Params::default() };
        let by_f1 = Trial {
            params,
            objective: Metric::F1,
            value: Some(0.5),
            sampler: SamplerKind::Gp,
            ..trial(3)
        };
        let failed = Trial {
            log_loss: f64::INFINITY,
            value: None,
            failure: Some("no".to_owned()),
            pruned: true,
            ..trial(4)
        };
        for trial in [trial(0), by_f1, failed] {
            assert_eq!(trial_of(&record_of("s", &trial, WallTime(1))), Some(trial));
        }
    }

    #[test]
    fn a_record_of_the_first_version_is_a_trial_by_log_loss() {
        let old = TrialRecord { value: None, ..record("s", 2) };
        assert_eq!(trial_of(&old), Some(trial(2)));
    }

    #[test]
    fn a_record_that_this_release_does_not_know_is_left_out() {
        let check = |change: fn(&mut TrialRecord)| {
            let mut record = record("s", 0);
            change(&mut record);
            assert_eq!(trial_of(&record), None, "{record:?}");
        };
        let push = |record: &mut TrialRecord, name: &str, text: Option<&str>| {
            let text = text.map(str::to_owned);
            record.parameters.push(TrialParameter { name: name.to_owned(), value: 3.0, text });
        };
        let pushed = |name, text| {
            let mut record = record("s", 0);
            push(&mut record, name, text);
            trial_of(&record)
        };
        assert_eq!(pushed("num_threads", None), None);
        assert_eq!(pushed("boosting", Some("dart output_model=x")), None);
        assert!(pushed("max_depth", None).is_some());
        check(|record| record.objective = "rmse".to_owned());
        check(|record| record.sampler = "grid".to_owned());
        check(|record| record.parameters[1].value = 0.5);
    }

    #[test]
    fn trials_are_grouped_by_study() {
        let numbers = |records: &[(&str, u32)]| -> Vec<u32> {
            let mut log = TrialLog::default();
            for (study, number) in records {
                log.take(&record(study, *number));
            }
            log.by_study().iter().map(|trial| trial.number).collect()
        };
        assert_eq!(numbers(&[("a", 0), ("a", 1), ("b", 0), ("a", 2), ("b", 5)]), [0, 1, 2, 0, 5]);
        // The repetition of a study was interrupted: trial 7 is of the first run.
        assert_eq!(numbers(&[("a", 0), ("a", 1), ("a", 7), ("a", 0), ("a", 1)]), [0, 1]);
        assert_eq!(numbers(&[("a", 3), ("b", 0)]), [0]);
        assert!(numbers(&[]).is_empty());
    }

    #[test]
    fn the_newest_trials_are_kept() {
        let mut log = TrialLog::default();
        for number in 0..1500 {
            log.take(&record("a", number));
        }
        log.take(&record("b", 0));
        assert_eq!(log.trials.len(), EARLIER_TRIALS_MAX);
        assert_eq!(log.by_study(), [trial(0)]);
    }
}
