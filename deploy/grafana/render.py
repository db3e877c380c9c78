"""Makes the JSON of a dashboard from its panels."""

COLUMNS = 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def variables():
    """Variables that choose the data source, the jobs and the instances."""
    shared = {"hide": 0, "options": [], "regex": "", "skipUrlSync": False}

    def labels(name, series):
        values = f"label_values({series}, {name})"
        return {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": values, "refId": name},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".+",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            **shared,
        }

    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        **shared,
    }
    job = labels("job", "foretell_stream_threads_alive")
    return [source, job, labels("instance", 'process_start_time_seconds{job=~"$job"}')]


def graph_style(spec):
    """Field defaults and options of a time series."""
    stacking = {"mode": "normal" if spec["stack"] else "none", "group": "A"}
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 20 if spec["stack"] else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": stacking,
    }
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    return {"custom": custom}, {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def number_style(spec):
    """Field defaults and options of a number."""
    steps = [{"color": "green", "value": None}]
    if spec["red_from"] is not None:
        steps.append({"color": "red", "value": spec["red_from"]})
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": "auto",
    }
    return {"thresholds": {"mode": "absolute", "steps": steps}, "noValue": "-"}, options


def table_style(_):
    """Field defaults and options of a table."""
    footer = {"show": False, "reducer": ["sum"], "countRows": False, "fields": ""}
    return {}, {"showHeader": True, "cellHeight": "sm", "footer": footer}


STYLES = {"timeseries": graph_style, "stat": number_style, "table": table_style}


def panel(spec, identity, place):
    """The JSON of one panel."""
    is_table = spec["kind"] == "table"
    defaults, options = STYLES[spec["kind"]](spec)
    defaults["unit"] = spec["unit"]
    if spec["unit"] != "percentunit":  # An uplift may be negative.
        defaults["min"] = 0
    targets = []
    for index, (query, legend) in enumerate(spec["targets"]):
        target = {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": query,
            "legendFormat": legend or "__auto",
            "editorMode": "code",
            "range": not is_table,
            "instant": is_table,
        }
        targets.append({**target, "format": "table"} if is_table else target)
    made = {
        "id": identity,
        "type": spec["kind"],
        "title": spec["title"],
        "description": spec["description"],
        "datasource": DATASOURCE,
        "gridPos": place,
        "options": options,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
    }
    if is_table:
        order = {name: index for index, name in enumerate(spec["columns"])}
        made["transformations"] = [
            {"id": "filterFieldsByName", "options": {"include": {"names": spec["columns"]}}},
            {"id": "organize", "options": {"indexByName": order, "excludeByName": {}, "renameByName": {}}},
        ]
    return made


def panels(specs):
    """The panels in rows of 24 columns; a row begins with each title and wherever a panel has no room."""
    made, x, y, height = [], 0, 0, 0
    for spec in specs:
        identity = len(made) + 1
        if "row" in spec:
            y, x = y + height, 0
            place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
            title = {"id": identity, "type": "row", "title": spec["row"], "collapsed": False}
            made.append({**title, "gridPos": place, "panels": []})
            y, height = y + 1, 0
            continue
        if x + spec["width"] > COLUMNS:
            y, x, height = y + height, 0, 0
        tall = 4 if spec["kind"] == "stat" else 8
        made.append(panel(spec, identity, {"h": tall, "w": spec["width"], "x": x, "y": y}))
        x, height = x + spec["width"], max(height, tall)
    return made


def dashboard(uid, title, description, specs):
    link = {
        "type": "dashboards",
        "tags": ["foretell"],
        "title": "Foretell",
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "",
        "url": "",
    }
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["foretell"],
        "links": [link],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": []},
        "templating": {"list": variables()},
        "panels": panels(specs),
    }
