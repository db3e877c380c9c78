//! Where the records of a replay come from: a table, or the topics of the application.

use crate::{
    app::replay::{feed::Feed, history::History, table::PlayedTable},
    config::Config,
    events::codecs::Codecs,
};
use foretell_streams::time::EventTime;

/// The history that every variant is given.
pub(super) enum Source {
    Table(PlayedTable),
    Topics(Box<History>),
}

impl Source {
    /// The records from the beginning, for one variant.
    pub(super) fn feed(&self, config: &Config) -> anyhow::Result<Box<dyn Feed>> {
        match self {
            Self::Table(table) => Ok(table.feed()),
            Self::Topics(history) => history.feed(config),
        }
    }

    /// The codecs of a variant, given those of its own registry: events and outcomes are decoded as their writers encoded them.
    pub(super) fn codecs(&self, own: Codecs, config: &Config) -> anyhow::Result<Codecs> {
        match self {
            Self::Table(_) => Ok(own),
            Self::Topics(history) => {
                let (mut events, outcome) = history.codecs(config)?;
                let questionnaire = events.remove(0);
                Ok(Codecs { questionnaire, companions: events, outcome, ..own })
            }
        }
    }

    /// The time that the clock shows before the first record.
    pub(super) fn start(&self) -> EventTime {
        match self {
            Self::Table(table) => table.start(),
            Self::Topics(history) => history.start(),
        }
    }
}
