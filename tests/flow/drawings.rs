//! Snapshots of both topologies, and a comparison of their topics with the table of topics.

use std::collections::BTreeSet;

use foretell::{
    events::topics::{Client, Group, TOPICS, Topics},
    processors::actions::{CancelOn, RuleSettings},
};
use foretell_streams::topology::Topology;

use crate::{
    actions::rule,
    learning,
    scored::{self, Settings},
};

#[test]
fn scoring() {
    insta::assert_snapshot!(scored::default_topology().describe(), @r"
    source questionnaire-events (topic shop.questionnaire-events)
      questionnaire-events --> gather
    source outcomes (topic shop.outcomes)
      outcomes --> join
    processor gather [stores recent-events, observations]
      gather --> score
      gather --> reply-to-event
    processor score
      score --> predictions
      score --> summarize
      score --> reply-to-prediction
      score --> store-prediction
    sink predictions (topic shop.predictions)
    processor summarize
      summarize --> window-summaries
    sink window-summaries (topic shop.window-summaries)
    processor reply-to-prediction
      reply-to-prediction --> replies
    processor reply-to-event [stores outcomes]
      reply-to-event --> replies
    source queries (topic shop.queries)
      queries --> answer-query
    processor answer-query [stores observations, outcomes]
      answer-query --> replies
    sink replies (topic shop.replies)
    processor store-prediction [stores outcomes]
      store-prediction --> labelled-examples
    processor join [stores outcomes]
      join --> labelled-examples
    sink labelled-examples (topic shop.labelled-examples)
    ");
}

/// The scoring topology with a rule that everything cancels.
fn with_actions() -> Topology {
    let cancel_on = vec![CancelOn::Outcome, CancelOn::Event, CancelOn::BetterPrediction];
    let rule = RuleSettings { cancel_on, ..rule("call", "true") };
    scored::topology_of(&Settings { rules: vec![rule], ..Settings::default() })
}

#[test]
fn scoring_with_actions() {
    insta::assert_snapshot!(with_actions().describe(), @r"
    source questionnaire-events (topic shop.questionnaire-events)
      questionnaire-events --> gather
    source outcomes (topic shop.outcomes)
      outcomes --> cancel-on-outcome
      outcomes --> join
    processor cancel-on-outcome [stores actions-by-stream-time, actions-by-wall-clock, acted, cancelled-actions]
      cancel-on-outcome --> actions
    processor gather [stores recent-events, observations]
      gather --> cancel-on-event
      gather --> score
      gather --> reply-to-event
    processor cancel-on-event [stores actions-by-stream-time, actions-by-wall-clock, acted, cancelled-actions]
      cancel-on-event --> actions
    processor score
      score --> predictions
      score --> summarize
      score --> act-on-prediction
      score --> reply-to-prediction
      score --> store-prediction
    sink predictions (topic shop.predictions)
    processor summarize
      summarize --> window-summaries
    sink window-summaries (topic shop.window-summaries)
    processor act-on-prediction [stores actions-by-stream-time, actions-by-wall-clock, acted, cancelled-actions]
      act-on-prediction --> actions
    sink actions (topic shop.actions)
    processor reply-to-prediction [stores actions-by-stream-time, actions-by-wall-clock, acted, cancelled-actions]
      reply-to-prediction --> replies
    processor reply-to-event [stores actions-by-stream-time, actions-by-wall-clock, acted, cancelled-actions, outcomes]
      reply-to-event --> replies
    source queries (topic shop.queries)
      queries --> answer-query
    processor answer-query [stores observations, outcomes, actions-by-stream-time, actions-by-wall-clock, acted, cancelled-actions]
      answer-query --> replies
    sink replies (topic shop.replies)
    processor store-prediction [stores outcomes, acted]
      store-prediction --> labelled-examples
    processor join [stores outcomes, acted]
      join --> labelled-examples
    sink labelled-examples (topic shop.labelled-examples)
    ");
}

#[test]
fn learning() {
    insta::assert_snapshot!(learning::default_topology().describe(), @r"
    source labelled-examples (topic shop.labelled-examples)
      labelled-examples --> learner
      labelled-examples --> count-labels
    source commands (topic shop.commands)
      commands --> obey
    processor learner [stores learning]
      learner --> select-models
      learner --> select-decisions
      learner --> select-trials
    processor obey [stores learning]
      obey --> select-models
      obey --> select-decisions
      obey --> select-trials
    processor select-models
      select-models --> models
    sink models (topic shop.models)
    processor select-decisions
      select-decisions --> decisions
    sink decisions (topic shop.decisions)
    processor select-trials
      select-trials --> trials
    sink trials (topic shop.trials)
    source window-summaries (topic shop.window-summaries)
      window-summaries --> report-quality
    processor count-labels [stores quality]
      count-labels --> requested-trainings
    sink requested-trainings (topic shop.commands)
    processor report-quality [stores quality]
      report-quality --> quality
    sink quality (topic shop.quality)
    ");
}

#[test]
fn the_topologies_read_and_write_the_topics_that_the_table_says() {
    let topics = Topics::with_prefix("shop.");
    for (group, topology) in
        [(Group::Scoring, with_actions()), (Group::Learning, learning::default_topology())]
    {
        let mut inputs = vec![topology.lead().clone()];
        inputs.extend(topology.co_partitioned());
        assert_eq!(inputs, group.inputs(&topics), "{group:?}");

        let client = Client::Group(group);
        let rows = TOPICS.all().into_iter().zip(topics.all());
        let used = rows
            .filter(|(row, _)| row.read_by.contains(&client) || row.written_by.contains(&client));
        let mut used: BTreeSet<_> = used.map(|(_, topic)| topic.clone()).collect();
        used.extend(topology.changelogs());
        assert_eq!(topology.topics(), used, "{group:?}");

        let prefix = format!("{}-", group.name("shop"));
        for changelog in topology.changelogs() {
            assert!(changelog.as_str().starts_with(&prefix), "{changelog}");
        }
    }
}
