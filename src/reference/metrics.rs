//! `docs/metrics.md`: every metric, from its declaration. Gathered metrics are not enough, because a metric with labels has no
//! series at first.

use std::{fmt::Write, fs, path::Path};

use prometheus::Registry;

use crate::{
    app::{deliver::metrics::DeliveryMetrics, telemetry},
    http::HttpMetrics,
    processors::metrics::{ApplicationMetrics, DEAD_LETTER_CLASSES},
    reference::{assert_current, head, row, source},
    tracking::metrics::TrackingMetrics,
};
use foretell_streams::metrics::{Registration, StreamsMetrics};

/// The values of a label at the start, sorted.
fn known_values(registry: &Registry, name: &str, label: &str) -> Vec<String> {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let series = family.map_or(&[][..], |family| family.get_metric());
    let pairs = series.iter().flat_map(|one| one.get_label());
    let mut values: Vec<String> =
        pairs.filter(|pair| pair.name() == label).map(|pair| pair.value().to_owned()).collect();
    values.sort();
    values.dedup();
    values
}

fn table(title: &str, registry: &Registry, registration: &Registration<'_>) -> String {
    let mut table = format!("## {title}\n\n{}", head(&["metric", "type", "labels", "meaning"]));
    for declared in registration.declared() {
        let labels = declared.labels.iter().map(|label| {
            let values = known_values(registry, &declared.name, label);
            if values.is_empty() {
                return format!("`{label}`");
            }
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("`{label}`: {}", values.join(", "))
        });
        let labels = labels.collect::<Vec<_>>().join("; ");
        let mut meaning = declared.help.clone();
        if !declared.buckets.is_empty() {
            let bounds: Vec<String> = declared.buckets.iter().map(ToString::to_string).collect();
            write!(meaning, " Buckets: {} s.", bounds.join(", ")).unwrap();
        }
        let name = format!("`{}`", declared.name);
        table += &row(&[&name, declared.kind.name(), &labels, &meaning]);
    }
    table + "\n"
}

#[test]
fn every_metric_is_in_the_docs() {
    let registry = Registry::new();
    let [streams, application, http, delivery, tracking] =
        [(); 5].map(|()| Registration::in_registry(&registry));
    let streams_metrics = StreamsMetrics::declare(&streams).unwrap();
    streams_metrics.begin_at_zero(&DEAD_LETTER_CLASSES);
    ApplicationMetrics::declare(&application).unwrap();
    HttpMetrics::declare(&http).unwrap();
    let mut page = table("Processing", &registry, &streams);
    page += &table("Predictions, outcomes and learning", &registry, &application);
    page += &table("HTTP", &registry, &http);
    DeliveryMetrics::declare(&delivery).unwrap();
    page += &table("Delivery", &registry, &delivery);
    TrackingMetrics::declare(&tracking).unwrap();
    page += &table("Tracking in MLflow", &registry, &tracking);
    page += &format!("## The process\n\n{}", head(&["metric", "type", "meaning"]));
    for family in telemetry::metrics_registry().unwrap().gather() {
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        page += &row(&[&format!("`{}`", family.name()), &kind, family.help()]);
    }
    assert_current("metrics.md", "metrics", &page);
}

/// Metrics that are not registered through [`Registration`] would be missing from the docs.
#[test]
fn nothing_is_registered_elsewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "crates"].map(|folder| source::files(&root.join(folder)));
    let mut found: Vec<String> = Vec::new();
    for path in files.into_iter().flatten() {
        let calls = fs::read_to_string(&path).unwrap().matches(".register(Box::new(").count();
        let path = path.strip_prefix(root).unwrap().display().to_string();
        found.extend(vec![path; calls]);
    }
    found.retain(|path| path != "src/reference/metrics.rs");
    let (registration, process): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|path| path.ends_with("/metrics.rs"));
    assert_eq!(registration.len(), 1, "register through `Registration`: {registration:?}");
    assert_eq!(process, ["src/app/telemetry.rs"]);
}
