//! Prometheus scrapes two instances and a `foretell deliver`, while they score, learn and act. Then every query of every
//! dashboard in `deploy/grafana` returns data, and every alert in `deploy/prometheus` is evaluated without an error.

use std::{fs, path::Path, process::Command};

use serde_json::Value as Json;

use crate::{
    application::Application,
    end_to_end::QUICK,
    process::{Http, Process, SOON, at, tool, until},
    receiver::Receiver,
};

const EVENTS: &str = "1500";

/// Panels that are empty as long as nothing is wrong or undecided, with the reason why they are empty here.
const EMPTY: [(&str, &str); 3] = [
    ("Challenger", "the judge promotes every model"),
    ("Feature contract", "every feature is as the model was fitted"),
    ("Blocked tasks", "no record has to wait"),
];

/// A query of a panel, with the dashboard's variables replaced: any job, any instance, and the last five minutes.
struct Query {
    place: String,
    is_empty: bool,
    query: String,
}

fn queries() -> Vec<Query> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/dashboards");
    let mut queries = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let dashboard: Json = serde_json::from_str(&text).unwrap();
        for panel in at(&dashboard, "/panels").as_array().unwrap() {
            let title = at(panel, "/title").as_str().unwrap();
            let targets = panel.pointer("/targets").and_then(Json::as_array);
            for target in targets.into_iter().flatten() {
                let written = at(target, "/expr").as_str().unwrap();
                let mut query = written.replace("$__rate_interval", "5m");
                for variable in ["$job", "$instance"] {
                    query = query.replace(variable, ".+");
                }
                assert!(!query.contains('$'), "a variable that this test does not know: {query}");
                queries.push(Query {
                    place: format!("{}, {title}", at(&dashboard, "/title")),
                    is_empty: EMPTY.iter().any(|(empty, _)| *empty == title),
                    query,
                });
            }
        }
    }
    queries
}

/// A Prometheus that scrapes `targets` every second, with the alerts of `deploy/prometheus`.
struct Prometheus {
    process: Process,
    http: Http,
}

impl Prometheus {
    fn start(folder: &Path, targets: &[&Http]) -> Self {
        let alerts = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/prometheus/alerts.yml");
        let targets: Vec<_> = targets.iter().map(|it| it.base.replace("http://", "")).collect();
        let config = serde_json::json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": [alerts],
            "scrape_configs": [{ "job_name": "foretell", "static_configs": [{ "targets": targets }] }],
        });
        let file = folder.join("prometheus.json"); // JSON is YAML
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new(tool("prometheus", ".ci/setup check"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        command.arg("--web.listen-address=127.0.0.1:0");
        let mut process = Process::spawn("prometheus".to_owned(), command);
        let http = process.http_after("msg=\"Listening on\" address=");
        Self { process, http }
    }

    fn get(&self, path: &str) -> Option<Json> {
        let (code, body) = self.http.get(path)?;
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str(&body).ok()
    }

    /// Whether a query returns a number.
    fn has_data(&self, query: &str) -> bool {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.get(&format!("/api/v1/query?query={encoded}")).is_some_and(|answer| {
            let series = at(&answer, "/data/result").as_array().unwrap();
            series.iter().any(|one| at(one, "/value/1").as_str() != Some("NaN"))
        })
    }

    /// The alerts that were evaluated, and the errors of those that cannot be.
    fn alerts(&self) -> Option<(usize, Vec<String>)> {
        let answer = self.get("/api/v1/rules")?;
        let groups = at(&answer, "/data/groups").as_array().unwrap();
        let rules: Vec<&Json> =
            groups.iter().flat_map(|group| at(group, "/rules").as_array().unwrap()).collect();
        if rules.iter().any(|rule| at(rule, "/health") == "unknown") {
            return None;
        }
        let failed = rules.iter().filter(|rule| at(rule, "/health") != "ok");
        Some((rules.len(), failed.map(|rule| rule.to_string()).collect()))
    }
}

/// Settings with which everything that a panel shows happens within some seconds: actions and their delivery, held-out
/// respondents, standby copies, and quality of few labels.
fn settings(folder: &Path, receiver: &Receiver) -> Vec<String> {
    let actions = "actions=[{ name = \"offer\", when = 'label == \">50K\"', control = 0.5 }]";
    let webhook = format!("delivery.webhooks=[{{ name = \"crm\", url = \"{}\" }}]", receiver.url());
    let state_dir = format!("streams.state_dir={}", folder.join("state").display());
    let others = [
        actions,
        "streams.standby=true",
        "quality.labels_min=10",
        "quality.predictions_min=10",
        "delivery.bind=127.0.0.1:0",
    ];
    others.into_iter().map(str::to_owned).chain([webhook, state_dir]).collect()
}

#[test]
fn every_panel_of_the_dashboards_has_data_and_every_alert_is_evaluated() {
    let (folder, receiver) = (tempfile::tempdir().unwrap(), Receiver::start());
    let application = Application::new("monitoring", QUICK);
    let application = application.with(&settings(folder.path(), &receiver));
    application.init();
    let (mut one, mut two) = (application.instance("one"), application.instance("two"));
    let mut deliver = application.start(&["deliver", "--set", "application.instance=deliver"]);
    let https = [one.http(), two.http(), deliver.http()];
    let prometheus = Prometheus::start(folder.path(), &https.each_ref());
    https.iter().for_each(Http::ready);

    // The dashboards show rates, so Prometheus has to see counters both before and after their increase.
    until("every instance was scraped", SOON, || {
        prometheus.has_data("count(process_start_time_seconds) == 3").then_some(())
    });
    let send = ["send", "--limit", EVENTS, "--rate", "100", "--outcome-delay", "3s"];
    let mut sending = application.start(&send);

    let (empty, filled): (Vec<_>, Vec<_>) = queries().into_iter().partition(|query| query.is_empty);
    assert!(filled.len() > 60, "found only {} queries", filled.len());
    for Query { place, query, .. } in &filled {
        until(&format!("{place} has data: {query}"), SOON, || {
            prometheus.has_data(query).then_some(())
        });
    }
    assert!(sending.end(SOON).success(), "{}{}", sending.output(), sending.errors());
    for Query { place, query, .. } in &empty {
        assert!(!prometheus.has_data(query), "{place} is not empty: remove it from EMPTY");
    }

    let (alerts, failed) = until("the alerts are evaluated", SOON, || prometheus.alerts());
    assert!(alerts > 20 && failed.is_empty(), "{alerts} alerts: {failed:?}");
    assert!(
        !prometheus.process.errors().contains("level=error"),
        "{}",
        prometheus.process.errors()
    );
}
