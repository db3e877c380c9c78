//! Sums up the summaries of the scoring tasks, and reports quality: records, status, metrics and alerts.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    events::quality::Quality,
    processors::{
        metrics::ApplicationMetrics,
        model_table::Serving,
        quality::{
            Alert, AlertCause, Maturity, QualityBoard, QualitySettings, QualityStatus,
            QualityStore, VERSIONS_MAX, VersionQuality, WindowSummary,
            alert::{self, Assessment},
            maturity::{self, WindowLabels},
            store::{OpenStore, QualityIndex},
        },
    },
};
use foretell_ml::drift::Progressive;
use foretell_streams::{
    state::StateError,
    time::EventTime,
    topology::{Context, ProcessError, Processor, Punctuation, PunctuationKind, Record},
};

/// The interval of the reports, in wall-clock time. A window is a record only if it has changed.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Windows in the status.
const STATUS_WINDOWS_MAX: usize = 12;

/// The processor from summaries to records of `quality`.
pub struct ReportQuality {
    settings: QualitySettings,
    serving: Serving,
    metrics: ApplicationMetrics,
    board: QualityBoard,
    store: QualityStore,
    /// What each stored window had when it was last reported. After a restart of the task, every window is reported once more.
    reported: BTreeMap<(EventTime, String), Reported>,
    /// The newest windows, with some that are not stored any more.
    recent: BTreeMap<(EventTime, String), Quality>,
    alerts: Vec<Alert>,
}

/// What a record of a window depends on.
#[derive(Clone, Copy, PartialEq)]
struct Reported {
    predictions: u64,
    labels: u64,
    /// A corrected label changes it, and not the number of labels.
    log_loss: f64,
    closed: bool,
}

type ReportContext<'t> = Context<'t, Quality>;

impl ReportQuality {
    /// A processor on `store`, which publishes to `board`.
    #[must_use]
    pub fn new(
        settings: QualitySettings,
        serving: Serving,
        metrics: ApplicationMetrics,
        board: QualityBoard,
        store: QualityStore,
    ) -> Self {
        let (reported, recent, alerts) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Self { settings, serving, metrics, board, store, reported, recent, alerts }
    }
}

impl Processor for ReportQuality {
    type In = WindowSummary;
    type Out = Quality;

    fn start(&mut self, ctx: &mut ReportContext<'_>) {
        ctx.schedule(PunctuationKind::WallClock, REPORT_INTERVAL);
    }

    fn process(
        &mut self,
        record: &Record<WindowSummary>,
        ctx: &mut ReportContext<'_>,
    ) -> Result<(), ProcessError> {
        let WindowSummary { window, model, counts } = &record.value;
        let mut store = self.store.open(ctx);
        let sum = match store.counts(*window, &model.version)? {
            Some(mut sum) => {
                sum.merge(counts);
                sum
            }
            None if store.add_window(*window, &model.version, &self.settings)? => {
                let mut index = store.index()?;
                if !index.models.contains_key(&model.version) {
                    index.models.insert(model.version.clone(), model.clone());
                    store.put_index(index)?;
                }
                counts.clone()
            }
            None => {
                ctx.count(&self.metrics.quality.late("predictions"), counts.predictions());
                return Ok(());
            }
        };
        store.put_counts(*window, &model.version, sum)?;
        Ok(())
    }

    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        ctx: &mut ReportContext<'_>,
    ) -> Result<(), ProcessError> {
        let index = self.store.open(ctx).index()?;
        let over = index.over(&self.settings);
        for key in &index.windows {
            let closed = over.contains(&key.0) || index.is_closed(key.0, &self.settings);
            self.report_window(key, closed, &index, ctx)?;
        }
        self.reported.retain(|(window, _), _| !over.contains(window));
        self.publish(&index, ctx)?;
        self.store.open(ctx).remove(index, &over)?;
        Ok(())
    }
}

impl ReportQuality {
    /// Forwards a window's record, if it has changed since the last one.
    fn report_window(
        &mut self,
        key: &(EventTime, String),
        closed: bool,
        index: &QualityIndex,
        ctx: &mut ReportContext<'_>,
    ) -> Result<(), ProcessError> {
        let ((window, version), now) = (key, ctx.now());
        let window = *window;
        let mut store = self.store.open(ctx);
        let counts = store.counts(window, version)?;
        let labels = store.labels(window, version)?;
        let state = Reported {
            predictions: counts.as_ref().map_or(0, |counts| counts.predictions()),
            labels: labels.as_ref().map_or(0, |labels| labels.labels()),
            log_loss: labels.as_ref().map_or(0.0, |labels| labels.log_loss_sum()),
            closed,
        };
        if self.reported.get(key) == Some(&state) {
            return Ok(());
        }
        let mut quality = Quality {
            model_version: version.clone(),
            window_start: window,
            window_end: window + self.settings.window,
            closed,
            predictions: count(state.predictions),
            labels: count(state.labels),
            trained: Default::default(),
            estimated: counts.as_ref().map(alert::estimated).unwrap_or_default(),
            live: labels.map(|labels| alert::live(&labels.metrics())).unwrap_or_default(),
            features: Vec::new(),
            scores: Vec::new(),
            updated_at: now,
        };
        if let Some(model) = index.models.get(version) {
            quality.trained = alert::trained(model);
            if let Some(counts) = &counts {
                let [features, scores] = alert::indices(model, counts, &self.settings);
                (quality.features, quality.scores) = (features, scores);
            }
        }
        self.reported.insert(key.clone(), state);
        let (features, scores) = (Vec::new(), Vec::new());
        self.recent.insert(key.clone(), Quality { features, scores, ..quality.clone() });
        while self.recent.len() > STATUS_WINDOWS_MAX {
            self.recent.pop_first();
        }
        let record_key = Some(quality.key().into_bytes());
        ctx.forward(&Record { key: record_key, value: quality, time: window })
    }

    /// Publishes the status and the metrics of the model that serves, and logs alerts that begin and end.
    fn publish(
        &mut self,
        index: &QualityIndex,
        ctx: &mut ReportContext<'_>,
    ) -> Result<(), ProcessError> {
        let Some(serving) = self.serving.scorer() else { return Ok(()) };
        let version = serving.version().as_str();
        let mut store = self.store.open(ctx);
        let model = index.reference_of(&serving);
        let assessment = Assessment::of(&serving, &model, index, &self.settings, &mut store)?;
        let rings =
            |alerts: &[Alert], cause: AlertCause| alerts.iter().any(|one| one.cause == cause);
        for alert in assessment.alerts.iter().filter(|one| !rings(&self.alerts, one.cause)) {
            tracing::warn!(version, cause = alert.cause.name(), alert.message, "quality alert");
        }
        for alert in self.alerts.iter().filter(|one| !rings(&assessment.alerts, one.cause)) {
            tracing::info!(version, cause = alert.cause.name(), "the quality alert has ended");
        }
        let versions = versions(index, &mut store)?;
        let windows = self.recent.values().cloned().collect();
        let maturity = self.maturity(index);
        let status = QualityStatus::new(version, &assessment, maturity, versions, windows);
        self.expose(&status);
        self.board.publish(Some(status));
        self.alerts = assessment.alerts;
        Ok(())
    }
}

impl ReportQuality {
    /// The share of labelled predictions by age, of every model that served.
    fn maturity(&self, index: &QualityIndex) -> Vec<Maturity> {
        let windows = self.reported.iter().map(|((start, _), reported)| WindowLabels {
            start: *start,
            predictions: reported.predictions,
            labels: reported.labels,
        });
        maturity::maturity(windows, index.newest.unwrap_or(EventTime::MIN), &self.settings)
    }

    /// Sets the gauges to the status. They have the series of one model: the one that serves.
    fn expose(&self, status: &QualityStatus) {
        let QualityStatus { model_version, trained, estimated, live, .. } = status;
        self.metrics.quality.reset(&AlertCause::ALL.map(AlertCause::name));
        for alert in &status.alerts {
            self.metrics.quality.alert(alert.cause.name());
        }
        for (source, metrics) in [("trained", trained), ("estimated", estimated), ("live", live)] {
            for (metric, value) in metrics.named() {
                if let Some(value) = value {
                    self.metrics.quality.value([model_version, source, metric], value);
                }
            }
        }
        for (age, of_age) in maturity::ages(&self.settings).into_iter().zip(&status.maturity) {
            if let Some(labelled) = of_age.labelled {
                self.metrics.quality.labelled_share(age, labelled);
            }
        }
        for (kind, indices) in [("feature", &status.features), ("score", &status.scores)] {
            for index in indices {
                self.metrics.quality.psi([kind, &index.name], index.psi);
            }
        }
    }
}

/// Windows that the live metrics by version are summed over, the newest: some 10 µs each.
const SUMMED_WINDOWS_MAX: usize = 200;

/// The live metrics by version, those with the newest windows first.
fn versions(
    index: &QualityIndex,
    store: &mut OpenStore<'_, '_, Quality>,
) -> Result<Vec<VersionQuality>, StateError> {
    let mut sums: Vec<(&str, Progressive)> = Vec::new();
    for (window, version) in index.windows.iter().rev().take(SUMMED_WINDOWS_MAX) {
        let Some(labels) = store.labels(*window, version)? else { continue };
        if let Some((_, sum)) = sums.iter_mut().find(|(of, _)| of == version) {
            sum.merge(&labels);
        } else if sums.len() < VERSIONS_MAX {
            sums.push((version, labels));
        }
    }
    let all = sums.iter().map(|(version, labels)| VersionQuality::of(version, labels));
    Ok(all.collect())
}

impl Drop for ReportQuality {
    /// Withdraws status and metrics, because the task has moved to another instance.
    fn drop(&mut self) {
        self.board.publish(None);
        self.metrics.quality.reset(&AlertCause::ALL.map(AlertCause::name));
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
