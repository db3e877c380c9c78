//! Where the records of a replay come from: a table, or the topics of the application.

use crate::{
    app::replay::{history::History, table::PlayedTable},
    config::Config,
    events::codecs::Codecs,
};
use foretell_streams::{record::OutputRecord, time::EventTime};

/// The events and outcomes of a history, in the order in which the application processes them.
pub(super) trait Feed {
    /// The next record; its timestamp is when it was written.
    ///
    /// # Errors
    /// If it cannot be read.
    fn next(&mut self) -> anyhow::Result<Option<OutputRecord>>;

    /// How much was read.
    fn position(&self) -> FeedPosition;
}

/// Number of records that were read, and in total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FeedPosition {
    pub(super) done: u64,
    pub(super) of: u64,
}

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
                let (questionnaire, outcome) = history.codecs(config)?;
                Ok(Codecs { questionnaire, outcome, ..own })
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
