//! The ids and the time of a row's event: those of the table, or else generated ones.

use std::collections::BTreeMap;

use crate::{
    app::{
        play::{EventFactory, PlaySettings},
        table::Row,
    },
    events::questionnaire::QuestionnaireEvent,
};
use foretell_streams::time::EventTime;

/// Replaces generated metadata of `event` by what the table has. Returns whether the event can be sent in two pieces: the first
/// piece of a later row at the same time would be before the earlier row, and belong to its questionnaire.
pub(super) fn set(
    event: &mut QuestionnaireEvent,
    row: &Row,
    (factory, names): (&EventFactory, &mut EventNames),
    settings: &PlaySettings,
) -> bool {
    if let Some(time) = row.event_time.filter(|_| settings.with_times) {
        event.event_time = time - settings.pace.moved_back;
    }
    if row.respondent_id.is_empty() {
        if !row.event_id.is_empty() {
            event.event_id.clone_from(&row.event_id);
        }
        return true;
    }
    event.respondent_id.clone_from(&row.respondent_id);
    let (name, is_alone) = names.next(event);
    event.event_id =
        if row.event_id.is_empty() { factory.event_id(&name) } else { row.event_id.clone() };
    is_alone
}

/// Names the events of rows that have a respondent and no event id. Each row is an event of its own, also if rows of a respondent
/// have one time, such as dates without a time of day. The same rows get the same names.
#[derive(Default)]
pub(super) struct EventNames {
    /// Number of rows by respondent and event time.
    rows: BTreeMap<(String, EventTime), u32>,
}

impl EventNames {
    /// A name that no other row of the respondent gets, and whether it is the first one of its respondent at its time.
    fn next(&mut self, event: &QuestionnaireEvent) -> (String, bool) {
        let (respondent, at) = (&event.respondent_id, event.event_time);
        let row = self.rows.entry((respondent.clone(), at)).or_default();
        *row += 1;
        match row {
            1 => (format!("{respondent}-{}", at.0), true),
            later => (format!("{respondent}-{}-{later}", at.0), false),
        }
    }
}
