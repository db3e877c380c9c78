"""The panels of the dashboards: what each asks, in which unit, and what an operator reads from it."""

# One instance, several, or all; several applications in one Prometheus differ by the job.
SELECTOR = 'job=~"$job", instance=~"$instance"'


def select(metric, extra=""):
    """A selector of the series of `metric` that the variables choose."""
    return f"{metric}{{{SELECTOR}{', ' + extra if extra else ''}}}"


def rate(metric, by="", extra=""):
    """The increase per second, summed."""
    return f"sum{f' by ({by})' if by else ''} (rate({select(metric, extra)}[$__rate_interval]))"


def quantile(q, metric, by=""):
    """A quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({select(metric + '_bucket')}[$__rate_interval])))"


def mean(metric, by):
    """The mean of a histogram."""
    return f"{rate(metric + '_sum', by)} / {rate(metric + '_count', by)}"


def top(metric, by="", extra=""):
    """The largest value over the instances."""
    return f"max{f' by ({by})' if by else ''} ({select(metric, extra)})"


def within_an_hour(metric, by):
    """The increase within the last hour, summed: for what is rare."""
    return f"sum by ({by}) (increase({select(metric)}[1h]))"


def total(metric, by=""):
    """The sum over the instances."""
    return f"sum{f' by ({by})' if by else ''} ({select(metric)})"


def row(title):
    return {"row": title}


def graph(title, unit, description, *targets, width=8, stack=False):
    """A time series. A target is a query and its legend."""
    about = {"title": title, "unit": unit, "description": description, "width": width}
    return {"kind": "timeseries", "targets": targets, "stack": stack, **about}


def number(title, unit, description, query, red_from=None, width=4):
    """One number, red from a threshold on."""
    about = {"title": title, "unit": unit, "description": description, "width": width}
    return {"kind": "stat", "targets": ((query, ""),), "red_from": red_from, **about}


def table(title, description, query, columns, width=8):
    """The series of an instant query, with these labels as columns."""
    about = {"title": title, "unit": "short", "description": description, "width": width}
    return {"kind": "table", "targets": ((query, ""),), "columns": columns, **about}


OVERVIEW = [
    row("Now"),
    number(
        "Instances",
        "short",
        "Instances that run at least one worker thread.",
        f"count({select('foretell_stream_threads_alive')} > 0)",
    ),
    number("Predictions", "reqps", "Predictions a second.", rate("foretell_predictions_total")),
    number(
        "Scoring latency, p99",
        "s",
        "Time from a record's timestamp to its score, without the commit.",
        quantile(0.99, "foretell_scoring_latency_seconds"),
        red_from=1,
    ),
    number(
        "Lag",
        "short",
        "Records that are committed to the inputs and not processed yet.",
        total("foretell_stream_lag_records"),
        red_from=10_000,
    ),
    number(
        "Dead letters",
        "reqps",
        "Records a second that cannot be used.",
        rate("foretell_dead_letters_total"),
        red_from=1,
    ),
    number(
        "Blocked for",
        "s",
        "Longest time for which a task has processed nothing because a record waits.",
        top("foretell_stream_task_blocked_seconds") + " or vector(0)",  # a task has the series once it was blocked
        red_from=120,
    ),
    row("Traffic"),
    graph(
        "Records processed",
        "reqps",
        "By input topic.",
        (rate("foretell_records_processed_total", "topic"), "{{topic}}"),
    ),
    graph(
        "Predictions",
        "reqps",
        "By model version: a swap is where one line ends and another begins.",
        (rate("foretell_predictions_total", "model_version"), "{{model_version}}"),
        stack=True,
    ),
    graph(
        "Outcomes",
        "reqps",
        "By result; docs/concepts.md says what each means.",
        (rate("foretell_outcomes_total", "result"), "{{result}}"),
        stack=True,
    ),
    row("Latency"),
    graph(
        "Scoring latency",
        "s",
        "Time from a record's timestamp to its score, without the commit.",
        (quantile(0.5, "foretell_scoring_latency_seconds"), "p50"),
        (quantile(0.95, "foretell_scoring_latency_seconds"), "p95"),
        (quantile(0.99, "foretell_scoring_latency_seconds"), "p99"),
    ),
    graph(
        "Commit latency",
        "s",
        "Consumers see a prediction with its commit.",
        (quantile(0.5, "foretell_stream_commit_latency_seconds"), "p50"),
        (quantile(0.99, "foretell_stream_commit_latency_seconds"), "p99"),
    ),
    graph(
        "Lag",
        "short",
        "Records that are committed to an input and not processed yet.",
        (total("foretell_stream_lag_records", "topic"), "{{topic}}"),
    ),
    row("What could not be used"),
    graph(
        "Dead letters",
        "reqps",
        "By class; docs/operations.md says what each means.",
        (rate("foretell_dead_letters_total", "class"), "{{class}}"),
        stack=True,
    ),
    graph(
        "Answers unlike the training data",
        "reqps",
        "They are scored, and counted.",
        (rate("foretell_unseen_categories_total"), "unseen category"),
        (rate("foretell_out_of_range_total"), "out of range"),
        (rate("foretell_not_numbers_total"), "text for a number"),
    ),
    graph(
        "Not joined",
        "reqps",
        "Repeats, and predictions without an outcome.",
        (rate("foretell_duplicate_events_total"), "repeated event"),
        (rate("foretell_unlabelled_total"), "unlabelled prediction"),
        (rate("foretell_incomplete_observations_total"), "incomplete observation"),
        (rate("foretell_predictions_not_kept_total"), "prediction not kept"),
    ),
    row("Actions"),
    graph(
        "Actions",
        "reqps",
        "Records of actions, by rule and state.",
        (rate("foretell_actions_total", "rule, state"), "{{rule}} {{state}}"),
        stack=True,
    ),
    graph(
        "Deliveries",
        "reqps",
        "By channel and result.",
        (rate("foretell_deliveries_total", "channel, result"), "{{channel}} {{result}}"),
        stack=True,
    ),
    graph(
        "Oldest open delivery",
        "s",
        "Time since the earliest due time of an open delivery.",
        (top("foretell_delivery_age_seconds", "channel"), "{{channel}}"),
    ),
    graph(
        "Delivery attempts",
        "s",
        "Time of an attempt, and open deliveries.",
        (quantile(0.99, "foretell_delivery_seconds", "channel"), "{{channel}} p99"),
    ),
    graph(
        "Open deliveries",
        "short",
        "Read, and neither delivered nor dead-lettered.",
        (total("foretell_deliveries_open", "channel"), "{{channel}}"),
    ),
    graph(
        "Uplift",
        "percentunit",
        "Share of a label where the rule acted, less that among those held out, with its 95 % interval.",
        (top("foretell_uplift", "rule, label"), "{{rule}} {{label}}"),
        (top("foretell_uplift_low", "rule, label"), "{{rule}} {{label}} low"),
        (top("foretell_uplift_high", "rule, label"), "{{rule}} {{label}} high"),
    ),
    row("Process"),
    graph(
        "CPU",
        "short",
        "Cores in use, by instance.",
        (rate("process_cpu_seconds_total", "instance"), "{{instance}}"),
        width=6,
    ),
    graph(
        "Memory",
        "bytes",
        "Resident set size, by instance.",
        (total("process_resident_memory_bytes", "instance"), "{{instance}}"),
        width=6,
    ),
    graph(
        "HTTP requests",
        "reqps",
        "By class of status code.",
        (rate("foretell_http_requests_total", "status"), "{{status}}"),
        width=6,
        stack=True,
    ),
    graph(
        "HTTP connections",
        "short",
        "Open ones, and requests that wait for a prediction.",
        (total("foretell_http_connections"), "open"),
        (total("foretell_http_waits"), "waiting"),
        width=6,
    ),
]

STREAMS = [
    row("Workers"),
    number(
        "Worker threads",
        "short",
        "Threads that run. An instance has streams.threads and one for learning.",
        total("foretell_stream_threads_alive"),
    ),
    number("Commits", "ops", "Commits a second.", rate("foretell_stream_commits_total", extra='result="committed"')),
    number(
        "Aborts",
        "ops",
        "Aborted commits a second: rebalances, fenced members, an unavailable broker.",
        rate("foretell_stream_commits_total", extra='result="aborted"'),
        red_from=1,
    ),
    number(
        "Punctuations failed",
        "ops",
        "Windows are not closed, or a trained model is not announced.",
        rate("foretell_stream_punctuations_failed_total"),
        red_from=0.01,
    ),
    number(
        "To restore",
        "short",
        "Changelog records still to be read before all tasks run.",
        total("foretell_stream_task_restore_remaining_records"),
    ),
    number(
        "Standby lag",
        "short",
        "Changelog records that standby copies have still to read.",
        total("foretell_stream_standby_lag_records"),
        red_from=100_000,
    ),
    row("Processing"),
    graph(
        "Records processed",
        "reqps",
        "By instance.",
        (rate("foretell_records_processed_total", "instance"), "{{instance}}"),
    ),
    graph(
        "Lag",
        "short",
        "By instance and topic.",
        (total("foretell_stream_lag_records", "instance, topic"), "{{instance}} {{topic}}"),
    ),
    graph(
        "Blocked tasks",
        "s",
        "Time for which a task has processed nothing because a record waits; `blocked_by` in /api/v1/status says why.",
        (top("foretell_stream_task_blocked_seconds", "instance, worker, task"), "{{worker}} task {{task}}"),
    ),
    row("Commits"),
    graph(
        "Commits",
        "ops",
        "By result.",
        (rate("foretell_stream_commits_total", "instance, result"), "{{instance}} {{result}}"),
    ),
    graph(
        "Commit latency, p99",
        "s",
        "By instance.",
        (quantile(0.99, "foretell_stream_commit_latency_seconds", "instance"), "{{instance}}"),
    ),
    graph(
        "Mean time of a phase",
        "s",
        "send: encode; write: the broker's disks and replicas; commit: the coordinators; apply: the stores.",
        (mean("foretell_stream_commit_phase_seconds", "phase"), "{{phase}}"),
        stack=True,
    ),
    row("State stores"),
    graph(
        "Restored",
        "ops",
        "Changelog records read to restore stores.",
        (rate("foretell_stream_task_restore_records_total", "instance"), "{{instance}}"),
    ),
    graph(
        "To restore",
        "short",
        "Changelog records still to be read, at most.",
        (total("foretell_stream_task_restore_remaining_records", "instance"), "{{instance}}"),
    ),
    graph(
        "Standby",
        "short",
        "Standby tasks, and what they have still to read.",
        (total("foretell_stream_standby_tasks", "instance, group"), "{{instance}} {{group}} tasks"),
        (total("foretell_stream_standby_lag_records", "instance, group"), "{{instance}} {{group}} lag"),
    ),
    row("Event time and keys"),
    graph(
        "Ahead of the clock",
        "reqps",
        "Event times ahead of the clock by more than streams.clock_tolerance.",
        (rate("foretell_stream_records_ahead_total", "topic"), "{{topic}}"),
    ),
    graph(
        "Before the year 2000",
        "reqps",
        "The event time is probably in another unit.",
        (rate("foretell_stream_records_before_2000_total", "topic"), "{{topic}}"),
    ),
    graph(
        "In another partition than their key's",
        "reqps",
        "An event and its outcome may not be joined.",
        (rate("foretell_records_misplaced_total", "topic"), "{{topic}}"),
    ),
    graph(
        "Sessions that ended",
        "reqps",
        "By the reason; docs/sessions.md says what each means.",
        (rate("foretell_sessions_total", "end"), "{{end}}"),
        stack=True,
    ),
    graph(
        "Open files",
        "short",
        "Files and connections that are open, by instance.",
        (total("process_open_fds", "instance"), "{{instance}}"),
    ),
    graph(
        "Threads",
        "short",
        "Operating system threads, by instance.",
        (total("process_threads", "instance"), "{{instance}}"),
    ),
]

LEARNING = [
    row("Models"),
    table(
        "Serves now",
        "More than one version for more than some seconds: an instance cannot load the newest.",
        f"{select('foretell_model_info')} == 1",
        ["instance", "version"],
    ),
    table(
        "Challenger",
        "Scored beside the champion.",
        f"{select('foretell_challenger_info')} == 1",
        ["instance", "version"],
    ),
    graph(
        "Decisions",
        "short",
        "Decisions about models within the last hour, by outcome.",
        (within_an_hour("foretell_decisions_total", "outcome"), "{{outcome}}"),
        stack=True,
    ),
    row("Quality"),
    graph(
        "Log loss",
        "short",
        "Of the model that serves: live on labelled predictions, estimated without labels, and in its training.",
        (top("foretell_quality", "source, model_version", 'metric="log_loss"'), "{{source}} {{model_version}}"),
    ),
    graph(
        "AUC",
        "percentunit",
        "Area under the ROC curve.",
        (top("foretell_quality", "source, model_version", 'metric="auc"'), "{{source}} {{model_version}}"),
    ),
    graph(
        "Calibration error",
        "percentunit",
        "Mean difference between a probability and the share of the label.",
        (
            top("foretell_quality", "source, model_version", 'metric="calibration_error"'),
            "{{source}} {{model_version}}",
        ),
    ),
    row("Drift"),
    graph(
        "Features",
        "short",
        "Population stability index against the training data: 0.1 is a small, 0.25 a large change. The ten largest.",
        ("topk(10, " + top("foretell_quality_psi", "name", 'kind="feature"') + ")", "{{name}}"),
    ),
    graph(
        "Scores",
        "short",
        "Population stability index of the scores, by class.",
        (top("foretell_quality_psi", "name", 'kind="score"'), "{{name}}"),
    ),
    graph(
        "Alerts", "short", "1 for a cause of a quality alert.", (top("foretell_quality_alert", "cause"), "{{cause}}")
    ),
    table(
        "Feature contract",
        "Features that are not as the model was fitted.",
        f"{top('foretell_feature_contract_violated', 'feature, problem')} > 0",
        ["feature", "problem"],
    ),
    graph(
        "Refused models",
        "short",
        "Models that an instance cannot use, within the last hour.",
        (within_an_hour("foretell_models_refused_total", "alias"), "{{alias}}"),
    ),
    graph(
        "Unreadable records",
        "short",
        "Records of Foretell's own topics that were skipped, within the last hour.",
        (within_an_hour("foretell_unreadable_records_total", "topic"), "{{topic}}"),
    ),
    row("Training"),
    graph(
        "Trainings",
        "short",
        "Within the last hour, by result.",
        (within_an_hour("foretell_trainings_total", "result"), "{{result}}"),
        stack=True,
    ),
    graph(
        "Duration",
        "s",
        "Of trainings within the last hour.",
        (f"histogram_quantile(0.5, {within_an_hour('foretell_training_seconds_bucket', 'le')})", "p50"),
        (f"histogram_quantile(0.95, {within_an_hour('foretell_training_seconds_bucket', 'le')})", "p95"),
    ),
    graph(
        "Not going well",
        "short",
        "Trainings that failed, and models that were refused, since the last that was not; seconds since a training became due.",
        (top("foretell_trainings_failed_in_a_row"), "failed in a row"),
        (top("foretell_models_refused_in_a_row"), "refused in a row"),
        (top("foretell_training_pending_seconds"), "due for, s"),
        (top("foretell_training_log_incomplete"), "training log incomplete"),
    ),
    graph(
        "Training set",
        "bytes",
        "In memory, and its copy on disk.",
        (total("foretell_training_set_bytes", "instance, place"), "{{instance}} {{place}}"),
    ),
    graph(
        "Copies of the training set",
        "short",
        "Within the last hour, by what was done with them.",
        (within_an_hour("foretell_training_set_copies_total", "result"), "{{result}}"),
    ),
    graph(
        "Too late for live metrics",
        "reqps",
        "Predictions and labels that came after their window was removed.",
        (rate("foretell_quality_late_total", "kind"), "{{kind}}"),
    ),
    row("Labels"),
    graph(
        "Label delay",
        "s",
        "Event time from a prediction to its outcome.",
        (quantile(0.5, "foretell_label_delay_seconds"), "p50"),
        (quantile(0.95, "foretell_label_delay_seconds"), "p95"),
    ),
    graph(
        "Labelled share",
        "percentunit",
        "Share of the predictions of an age whose label is known.",
        (top("foretell_labelled_share", "older_than"), "older than {{older_than}}"),
    ),
    graph(
        "Labelled examples",
        "reqps",
        "Labelled examples made by the outcome join, by the source of their label, and taken by the learning task.",
        (rate("foretell_labelled_examples_total", "source"), "made: {{source}}"),
        (rate("foretell_records_processed_total", extra='topic=~".*labelled-examples"'), "taken"),
    ),
]

DASHBOARDS = [
    ("foretell-overview", "Foretell / Overview", "Traffic, latency, errors and actions of all instances.", OVERVIEW),
    ("foretell-streams", "Foretell / Streams layer", "Tasks, commits, lag, restores and standby copies.", STREAMS),
    ("foretell-learning", "Foretell / Learning", "Models, their quality, drift, trainings and labels.", LEARNING),
]
