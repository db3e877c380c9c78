//! Both topologies as they are wired: a change of the wiring is a change of these drawings.

use crate::{learning, scored};

#[test]
fn scoring() {
    insta::assert_snapshot!(scored::drawing(), @r"
    source questionnaire-events (topic shop.questionnaire-events)
      questionnaire-events --> gather
    source outcomes (topic shop.outcomes)
      outcomes --> join
    processor gather [stores recent-events, observations]
      gather --> score
      gather --> reply-to-event
    processor score
      score --> predictions
      score --> reply-to-prediction
      score --> remember
    sink predictions (topic shop.predictions)
    processor reply-to-event [stores outcomes]
      reply-to-event --> replies
    processor reply-to-prediction
      reply-to-prediction --> replies
    sink replies (topic shop.replies)
    processor remember [stores outcomes]
      remember --> labelled-examples
    processor join [stores outcomes]
      join --> labelled-examples
    sink labelled-examples (topic shop.labelled-examples)
    ");
}

#[test]
fn learning() {
    insta::assert_snapshot!(learning::drawing(), @r"
    source labelled-examples (topic shop.labelled-examples)
      labelled-examples --> trigger
    processor trigger [stores learning]
      trigger --> models
    sink models (topic shop.models)
    ");
}
