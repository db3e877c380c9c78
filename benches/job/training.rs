//! Scoring while models are trained, to scoring while none is: in turns, at a steady rate, with one instance. Everything that a
//! retraining does is in it: the study, the judged twin, and the model.

use std::{
    thread,
    time::{Duration, Instant},
};

use foretell_ml::ModelBundle;
use serde_json::json;

use crate::{
    Settings,
    drained::Application,
    measure::verdicts::{Bound, Verdicts},
    paced::{Load, Seen, quantiles, under_load},
    process::{Http, SOON, until},
};

/// Of the p99 of the latency, to that without a training.
const LATENCY_MAX: f64 = 1.25;
/// Of the predictions a second, to those without a training.
const SPEED_MIN: f64 = 0.8;
/// Turns of each kind.
const TURNS: usize = 3;
const LOOK: Duration = Duration::from_millis(50);
/// A training takes at most this long.
const TRAINING_MAX: Duration = Duration::from_secs(300);
/// What a training learns from: enough for some seconds on one core, and no more in the last turn than in the first.
const POLICY: [&str; 2] = ["learning.last=20000", "learning.initial=age"];

/// Whether a model was being trained, at one time.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    trains: bool,
}

/// Predictions while models were trained, or while none was.
#[derive(Debug, serde::Serialize)]
struct Scored {
    seconds: f64,
    predictions_a_second: f64,
    /// p50, p99, p99.9.
    latency_millis: [f64; 3],
}

/// Measures, prints and writes `target/bench/learning-while-scoring.json`.
pub(crate) fn measure(settings: &Settings, model: &ModelBundle) -> anyhow::Result<()> {
    let application = Application::prepare(model, &POLICY.map(str::to_owned))?;
    let mut process = application.process(&["run"], &[]);
    let http = process.http();
    http.ready();
    let Load { observed: looks, seen, lost } =
        under_load(&application, settings.rate, || take_turns(&http, settings.span))?;
    let trainings = http.metric("foretell_trainings_total{result=\"succeeded\"}");
    process.signal("TERM");
    anyhow::ensure!(process.end(SOON).success(), "{}", process.errors());
    anyhow::ensure!(trainings >= TURNS as f64, "only {trainings} trainings succeeded");
    let idle = Scored::of(&seen, &looks, false)?;
    let while_training = Scored::of(&seen, &looks, true)?;
    report(settings, trainings, lost, &idle, &while_training)
}

/// Looks every [`LOOK`] whether a training runs: in turns, one is always requested anew, and none is.
fn take_turns(http: &Http, span: Duration) -> anyhow::Result<Vec<Look>> {
    let mut looks = Vec::new();
    for turn in 0..TURNS * 2 {
        let (requests, begun) = (turn % 2 == 1, Instant::now());
        loop {
            let trains = is_training(http);
            looks.push(Look { at: Instant::now(), trains });
            if !trains && begun.elapsed() > span {
                break;
            }
            anyhow::ensure!(begun.elapsed() < span + TRAINING_MAX, "a training does not end");
            if requests && !trains {
                request_training(http)?;
                until("the training is due", SOON, || is_training(http).then_some(()));
                continue;
            }
            thread::park_timeout(LOOK);
        }
    }
    Ok(looks)
}

fn is_training(http: &Http) -> bool {
    http.metric("foretell_training_pending_seconds") > 0.0
}

fn request_training(http: &Http) -> anyhow::Result<()> {
    let answer = http.post("/api/v1/trainings", r#"{"reason": "a benchmark"}"#, None);
    anyhow::ensure!(matches!(answer, Some((202, _))), "no training was requested: {answer:?}");
    Ok(())
}

impl Scored {
    /// Of the spans between two looks that both say `trains`. An event belongs to the span in which it was sent, a prediction
    /// to the one in which it was read.
    fn of(seen: &[Seen], looks: &[Look], trains: bool) -> anyhow::Result<Self> {
        let spans = looks.windows(2).filter(|pair| pair.iter().all(|look| look.trains == trains));
        let spans: Vec<_> = spans.map(|pair| pair[0].at..pair[1].at).collect();
        let includes = |at: Instant| {
            let after = spans.partition_point(|span| span.end <= at);
            spans.get(after).is_some_and(|span| span.contains(&at))
        };
        let seconds = spans.iter().map(|span| (span.end - span.start).as_secs_f64()).sum::<f64>();
        let read = seen.iter().filter(|seen| includes(seen.sent + seen.latency)).count();
        let sent = seen.iter().filter(|seen| includes(seen.sent));
        let latency_millis = quantiles(sent.map(|seen| seen.latency).collect())?;
        Ok(Self { seconds, predictions_a_second: read as f64 / seconds, latency_millis })
    }
}

fn report(
    settings: &Settings,
    trainings: f64,
    lost: usize,
    idle: &Scored,
    while_training: &Scored,
) -> anyhow::Result<()> {
    println!(
        "\n{} events/s, {trainings} trainings; {lost} events were never predicted",
        settings.rate
    );
    for (name, scored) in [("no training", idle), ("while a model is trained", while_training)] {
        let [p50, p99, p999] = scored.latency_millis;
        let Scored { seconds, predictions_a_second, .. } = scored;
        println!(
            "  {name:<26} {seconds:>5.0} s, {predictions_a_second:>6.0} predictions/s, p50 {p50:.1} ms, p99 {p99:.1} ms, p99.9 {p999:.1} ms"
        );
    }
    let mut verdicts = Verdicts::default();
    let latency = |scored: &Scored| scored.latency_millis[1];
    let ratio = latency(while_training) / latency(idle);
    verdicts.ratio("p99 while training, to idle", ratio, Some(Bound::AtMost(LATENCY_MAX)));
    let ratio = while_training.predictions_a_second / idle.predictions_a_second;
    verdicts.ratio("predictions/s while training, to idle", ratio, Some(Bound::AtLeast(SPEED_MIN)));
    verdicts.row("events without a prediction", "= 0", lost.to_string(), Some(lost == 0));
    verdicts.figure("scored", json!({ "idle": idle, "while_training": while_training }));
    verdicts.print("");
    verdicts.write("learning-while-scoring")
}
