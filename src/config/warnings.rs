//! Warnings about configurations that are valid, and probably not intended.

use humantime_serde::re::humantime::format_duration;

use crate::{
    config::Config,
    processors::{actions::After, gather::ScoreWhen},
};
use foretell_ml::{InitialPolicy, Retention, training::Threshold};

impl Config {
    /// The warnings of a start and of `foretell doctor`, each with what to do.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.sources.is_written("scoring.retention") {
            warnings.push(
                "[scoring] retention is the former name of [sessions] gap: write that".to_owned(),
            );
        }
        if self.gather.at_session_end && self.gather.when == ScoreWhen::EveryEvent {
            warnings.push(
                "[scoring] at_session_end has no effect while when is \"every_event\": every observation was scored before \
                 its session ends; remove it"
                    .to_owned(),
            );
        }
        let needs_completion =
            self.gather.when == ScoreWhen::Complete && !self.gather.at_session_end;
        if self.events.completed.is_none() && needs_completion {
            warnings.push(
                "[scoring] when is \"complete\", and [events] completed names no field: an observation in which one \
                 answer stays blank is never scored (counted in foretell_incomplete_observations_total when it is \
                 dropped); name a boolean field that the last event sets, or set [scoring] when = { answers = N } or at_session_end = true"
                    .to_owned(),
            );
        }
        let policy = self.learning.policy;
        let is_all = policy.retention == Retention::All && policy.half_life.is_none();
        if policy.initial == InitialPolicy::Age && is_all {
            warnings.push(
                "[learning] initial is \"age\", which has no effect while all examples are used and count the same: set \
                 last, reservoir or half_life, or remove it"
                    .to_owned(),
            );
        }
        let is_set = matches!(self.learning.threshold, Threshold::Fixed(_));
        if is_set && self.classes.len() > 2 {
            warnings.push(format!(
                "[learning] threshold has no effect with {} classes: a prediction has the most probable one as its \
                 label; remove it",
                self.classes.len()
            ));
        }
        let unused = ["token", "username", "ca_file", "experiment", "registered_model"]
            .into_iter()
            .find(|key| self.sources.is_written(&format!("mlflow.{key}")));
        if let Some(key) = unused.filter(|_| self.mlflow.is_none()) {
            warnings.push(format!(
                "[mlflow] {key} has no effect without tracking_uri: nothing is tracked; set it, or remove {key}"
            ));
        }
        warnings.extend(self.actions_after_outcomes());
        warnings.extend(self.quiet_hours_that_expire());
        warnings
    }

    /// Rules whose actions come when no outcome is joined any more.
    fn actions_after_outcomes(&self) -> impl Iterator<Item = String> {
        let window = self.join.window;
        self.actions.rules.iter().filter_map(move |rule| {
            let (After::EventTime(after) | After::Wall(after)) = rule.settings.after;
            (after > window).then(|| {
                format!(
                    "[[actions]] {:?} after is {}, longer than [outcomes] window ({}): its actions come after every outcome \
                     that is joined, so labelled examples do not have them, and its uplift cannot be measured; set a longer window",
                    rule.settings.name,
                    format_duration(after),
                    format_duration(window),
                )
            })
        })
    }

    /// Channels whose actions may expire before their quiet hours end.
    fn quiet_hours_that_expire(&self) -> impl Iterator<Item = String> {
        let webhooks = self.delivery.webhooks.iter().map(|webhook| &webhook.channel);
        let channels = webhooks.chain(self.delivery.emails.iter().map(|email| &email.channel));
        channels.filter_map(|channel| {
            let quiet = channel.quiet_hours?.length();
            (quiet >= channel.expires).then(|| {
                format!(
                    "[delivery] channel {:?}: quiet_hours take {}, and expires is {}: an action that is due at their \
                     beginning is not sent after them, but goes to the dead letters; set a longer expires",
                    channel.name,
                    format_duration(quiet),
                    format_duration(channel.expires),
                )
            })
        })
    }
}
