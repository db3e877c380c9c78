//! The store of the learning task: for each model and window, the counts of the scoring tasks and the sums over the labels.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::processors::quality::{ModelReference, QualitySettings};
use foretell_ml::{
    Scorer,
    drift::{LiveCounts, Progressive},
};
use foretell_streams::{
    codec::{Codec, Stored},
    state::{KeyValueHandle, StateError},
    time::EventTime,
    topology::Context,
};

/// Maximum number of stored pairs of a window and a model. Each takes 2 to 5 KB with two classes. Beyond, the oldest windows are
/// removed before all their labels can have come.
const WINDOWS_MAX: usize = 1_000;
/// Windows stay at least as long as this many windows, so that alerts have the labels of a day with windows of an hour.
const WINDOWS_KEPT: i64 = 24;

const INDEX_KEY: &str = "index";

/// A value of the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum QualityEntry {
    /// At one key, the list of the others.
    Index(QualityIndex),
    /// Counts of a window.
    Counts(LiveCounts),
    /// Sums over the labels of a window.
    Labels(Progressive),
}

/// The windows that are stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QualityIndex {
    /// The start of the window, and the model version.
    pub(super) windows: BTreeSet<(EventTime, String)>,
    /// The models of these windows from which a summary has come.
    pub(super) models: BTreeMap<String, ModelReference>,
    /// The start of the newest window so far.
    pub(super) newest: Option<EventTime>,
    /// Windows before this are not stored any more.
    pub(super) removed_before: Option<EventTime>,
    /// The model and the window for which drift last requested a training.
    pub(super) requested: Option<(String, EventTime)>,
}

/// A handle of the store.
#[derive(Clone, Debug)]
pub struct QualityStore(KeyValueHandle<QualityEntry>);

/// An open store.
pub(super) struct OpenStore<'s, 't, Out> {
    handle: &'s KeyValueHandle<QualityEntry>,
    ctx: &'s mut Context<'t, Out>,
}

impl QualityEntry {
    /// The format version of this type and all types in it. A changed field needs a new version.
    pub const FORMAT: u8 = 1;

    /// The codec of the store's values.
    #[must_use]
    pub fn codec() -> Arc<dyn Codec<Self>> {
        Arc::new(Stored::version(Self::FORMAT))
    }
}

impl QualityStore {
    /// A handle of a store with the values of [`QualityEntry::codec`].
    #[must_use]
    pub fn new(store: KeyValueHandle<QualityEntry>) -> Self {
        Self(store)
    }

    pub(super) fn open<'s, 't, Out>(
        &'s self,
        ctx: &'s mut Context<'t, Out>,
    ) -> OpenStore<'s, 't, Out> {
        OpenStore { handle: &self.0, ctx }
    }
}

impl QualityIndex {
    /// What the live predictions of the model that serves are compared with. Before its first prediction, no summary has come.
    pub(super) fn reference_of(&self, serving: &Scorer) -> Cow<'_, ModelReference> {
        let known = self.models.get(serving.version().as_str());
        known.map_or_else(|| Cow::Owned(ModelReference::of(serving)), Cow::Borrowed)
    }

    /// Whether no label of the window can come any more, unless a task lags behind.
    pub(super) fn is_closed(&self, window: EventTime, settings: &QualitySettings) -> bool {
        let end = window + settings.window + settings.labels_within;
        self.newest.is_some_and(|newest| end <= newest)
    }

    /// Whether the window may be stored.
    pub(super) fn accepts(&self, window: EventTime, settings: &QualitySettings) -> bool {
        let is_old = self.newest.is_some_and(|newest| is_over(window, newest, settings));
        !is_old && self.removed_before.is_none_or(|before| window >= before)
    }

    /// The starts of the windows to remove: those that are over, and the oldest of too many.
    pub(super) fn over(&self, settings: &QualitySettings) -> BTreeSet<EventTime> {
        let newest = self.newest.unwrap_or(EventTime::MIN);
        let surplus = self.windows.len().saturating_sub(WINDOWS_MAX);
        let (oldest, others) = (self.windows.iter().take(surplus), self.windows.iter());
        let over = others.filter(|(start, _)| is_over(*start, newest, settings));
        oldest.chain(over).map(|(start, _)| *start).collect()
    }
}

/// Whether a window is not needed any more, neither for labels nor for alerts.
fn is_over(window: EventTime, newest: EventTime, settings: &QualitySettings) -> bool {
    let length = i64::try_from(settings.window.as_millis()).unwrap_or(i64::MAX);
    let kept = EventTime(newest.0.saturating_sub(length.saturating_mul(WINDOWS_KEPT)));
    window + settings.window + settings.labels_within <= newest && window < kept
}

impl<Out: 'static> OpenStore<'_, '_, Out> {
    pub(super) fn index(&mut self) -> Result<QualityIndex, StateError> {
        match self.ctx.key_value(self.handle).get(INDEX_KEY)? {
            Some(QualityEntry::Index(index)) => Ok(index),
            Some(QualityEntry::Counts(_) | QualityEntry::Labels(_)) | None => {
                Ok(QualityIndex::default())
            }
        }
    }

    pub(super) fn put_index(&mut self, index: QualityIndex) -> Result<(), StateError> {
        self.ctx.key_value(self.handle).put(INDEX_KEY, &QualityEntry::Index(index))
    }

    /// Adds a window of a model to the index, if it is new. Returns false if the window is too old to be stored.
    pub(super) fn add_window(
        &mut self,
        window: EventTime,
        version: &str,
        settings: &QualitySettings,
    ) -> Result<bool, StateError> {
        let mut index = self.index()?;
        if !index.accepts(window, settings) {
            return Ok(false);
        }
        if index.windows.insert((window, version.to_owned())) {
            index.newest = index.newest.max(Some(window));
            self.put_index(index)?;
        }
        Ok(true)
    }

    pub(super) fn counts(
        &mut self,
        window: EventTime,
        version: &str,
    ) -> Result<Option<LiveCounts>, StateError> {
        match self.ctx.key_value(self.handle).get(&counts_key(window, version))? {
            Some(QualityEntry::Counts(counts)) => Ok(Some(counts)),
            Some(QualityEntry::Index(_) | QualityEntry::Labels(_)) | None => Ok(None),
        }
    }

    pub(super) fn put_counts(
        &mut self,
        window: EventTime,
        version: &str,
        counts: LiveCounts,
    ) -> Result<(), StateError> {
        let entry = QualityEntry::Counts(counts);
        self.ctx.key_value(self.handle).put(&counts_key(window, version), &entry)
    }

    pub(super) fn labels(
        &mut self,
        window: EventTime,
        version: &str,
    ) -> Result<Option<Progressive>, StateError> {
        match self.ctx.key_value(self.handle).get(&labels_key(window, version))? {
            Some(QualityEntry::Labels(labels)) => Ok(Some(labels)),
            Some(QualityEntry::Index(_) | QualityEntry::Counts(_)) | None => Ok(None),
        }
    }

    pub(super) fn put_labels(
        &mut self,
        window: EventTime,
        version: &str,
        labels: Progressive,
    ) -> Result<(), StateError> {
        let entry = QualityEntry::Labels(labels);
        self.ctx.key_value(self.handle).put(&labels_key(window, version), &entry)
    }

    /// Removes the windows that start at `over`, and the models without a window.
    pub(super) fn remove(
        &mut self,
        mut index: QualityIndex,
        over: &BTreeSet<EventTime>,
    ) -> Result<(), StateError> {
        let Some(last) = over.last() else { return Ok(()) };
        let is_over = |(start, _): &&(EventTime, String)| over.contains(start);
        for (window, version) in index.windows.iter().filter(is_over) {
            let mut store = self.ctx.key_value(self.handle);
            store.delete(&counts_key(*window, version));
            store.delete(&labels_key(*window, version));
        }
        index.windows.retain(|(start, _)| !over.contains(start));
        let used: BTreeSet<&String> = index.windows.iter().map(|(_, version)| version).collect();
        index.models.retain(|version, _| used.contains(version));
        index.removed_before = index.removed_before.max(Some(EventTime(last.0.saturating_add(1))));
        self.put_index(index)
    }
}

fn counts_key(window: EventTime, version: &str) -> String {
    format!("counts/{}/{version}", window.0)
}

fn labels_key(window: EventTime, version: &str) -> String {
    format!("labels/{}/{version}", window.0)
}
