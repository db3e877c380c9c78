"""Predicts with a model of Foretell, from the files `model.txt` and `pipeline.json` next to this one.

    from foretell_model import Model

    model = Model.load(".")
    probabilities = model.predict([{"age": 39, "education": "Bachelors"}])
    labels = model.decide(probabilities)

It needs `lightgbm` 4 and `numpy`. A row is a mapping from the names of columns (or their earlier names, the aliases) to
values: a number, a text, a bool, or None if the value is missing. Columns that a row lacks are missing, others are ignored.
`table.to_dict("records")` makes such rows of a pandas DataFrame.
"""

import json
import math
import pathlib
import re
import sys
from decimal import Decimal

import lightgbm
import numpy

FORMAT = 1
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# What Foretell removes around a number: the characters of the Unicode property White_Space.
BLANKS = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
SECONDS_PER_DAY = 86_400.0
DAYS_MAX = 10_000.0 * 366.0
LOG_ODDS_MIN = 1e-15


class Model:
    """Trees, and the pipeline that turns rows into their features."""

    def __init__(self, booster, pipeline):
        if pipeline["format"] != FORMAT:
            raise ValueError(f"pipeline.json is in format {pipeline['format']}, not {FORMAT}")
        self.booster = booster
        self.classes = pipeline["classes"]
        self.threshold = pipeline.get("threshold", 0.5)
        self.calibration = pipeline.get("calibration")
        self.columns = [_Column(column) for column in pipeline["columns"]]
        self.crosses = pipeline.get("crosses", [])
        self.calendar = pipeline.get("calendar", [])
        self._index = {column.name: index for index, column in enumerate(self.columns)}
        self._pairs = [
            {tuple(pair): code for code, pair in enumerate(cross["pairs"])} for cross in self.crosses
        ]
        if self.feature_names() != booster.feature_name():
            raise ValueError("the features of pipeline.json are not those of model.txt")

    @classmethod
    def load(cls, folder):
        """Reads the files of an exported model."""
        folder = pathlib.Path(folder)
        pipeline = json.loads((folder / "pipeline.json").read_text(encoding="utf-8"))
        text = (folder / "model.txt").read_bytes().decode("utf-8")
        return cls(lightgbm.Booster(model_str=text), pipeline)

    def feature_names(self):
        """The names of the features, in the order of the trees."""
        names = [column.name for column in self.columns]
        names += ["_x_".join(cross["columns"]) for cross in self.crosses]
        return names + [f"{part['column']}_{part['part']}" for part in self.calendar]

    def predict(self, rows):
        """The probability of each class (a column) for each row."""
        features = self.features(rows)
        if len(features) == 0:
            return numpy.empty((0, len(self.classes)))
        predicted = self.booster.predict(features)
        if predicted.ndim == 1:
            predicted = numpy.column_stack([1.0 - predicted, predicted])
        return predicted if self.calibration is None else self._calibrated(predicted)

    def decide(self, probabilities):
        """The name of the class to decide on, for each row of `probabilities`."""
        if len(self.classes) == 2:
            labels = (probabilities[:, 1] >= self.threshold).astype(int)
        else:
            labels = probabilities.argmax(axis=1)
        return [self.classes[label] for label in labels]

    def features(self, rows):
        """The features of rows, as the trees take them."""
        return numpy.array([self._features(row) for row in rows], dtype=numpy.float64)

    def _features(self, row):
        values = [column.value(row) for column in self.columns]
        features = [column.encode(value) for column, value in zip(self.columns, values)]
        for cross, pairs in zip(self.crosses, self._pairs):
            pair = tuple(int(features[self._index[name]]) for name in cross["columns"])
            features.append(float(pairs.get(pair, len(pairs))))
        for part in self.calendar:
            index = self._index[part["column"]]
            number = _number(values[index])
            number = self.columns[index].fill if number is None else number
            features.append(math.nan if number is None else _part_of_date(number, part["part"], part["unit"]))
        return features

    def _calibrated(self, probabilities):
        if len(self.classes) == 2:
            of_one = numpy.array([_corrected(self.calibration[0], one) for one in probabilities[:, 1]])
            return numpy.column_stack([1.0 - of_one, of_one])
        corrected = numpy.empty_like(probabilities)
        for number, curve in enumerate(self.calibration):
            corrected[:, number] = [_corrected(curve, one) for one in probabilities[:, number]]
        total = corrected.sum(axis=1, keepdims=True)
        return numpy.where(total > 0.0, corrected / numpy.where(total > 0.0, total, 1.0), probabilities)


class _Column:
    def __init__(self, column):
        self.name = column["name"]
        self.names = [self.name, *column.get("aliases", [])]
        self.is_numeric = column["kind"] == "numeric"
        if self.is_numeric:
            self.shift, self.span = column.get("shift", 0.0), column.get("span", 1.0)
            fill = column.get("fill")
            self.fill = None if fill is None else float(fill)
        else:
            self.codes = {category: code for code, category in enumerate(column["categories"])}

    def value(self, row):
        for name in self.names:
            if name in row:
                return row[name]
        return None

    def encode(self, value):
        if self.is_numeric:
            number = _number(value)
            number = self.fill if number is None else number
            if number is None:
                return math.nan
            scaled = (number - self.shift) / self.span
            return min(max(scaled, -sys.float_info.max), sys.float_info.max)
        text = _text(value)
        unseen = len(self.codes)
        return float(unseen + 1 if text is None else self.codes.get(text, unseen))


def _number(value):
    """The finite number that a value is or can be parsed as; None if it is missing."""
    if isinstance(value, str):
        text = value.strip(BLANKS)
        value = float(text) if NUMBER.fullmatch(text) else None
    if value is None or isinstance(value, (bool, numpy.bool_)):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _text(value):
    """The category of a value; None if it is missing."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, numpy.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, numpy.integer)):
        return str(int(value))
    number = float(value)
    if not math.isfinite(number):
        return None
    # Without an exponent, and without a fraction of 0.
    text = format(Decimal(repr(number)), "f")
    return text[:-2] if text.endswith(".0") else text


def _part_of_date(number, part, unit):
    if unit == "days":
        seconds, days = 0.0, math.floor(number)
    else:
        if unit["parts_of_second"] == 0:
            return math.nan
        seconds = math.floor(number / unit["parts_of_second"])
        days = math.floor(float(seconds) / SECONDS_PER_DAY)
    if abs(days) > DAYS_MAX:
        return math.nan
    second = 0.0 if unit == "days" else seconds - days * SECONDS_PER_DAY
    if part == "weekday":
        return float((days + 3) % 7 + 1)
    if part == "hour":
        return float(second // 3600)
    if part == "minute":
        return float(second // 60 % 60)
    return float(dict(zip(("year", "month", "day"), _civil(days)))[part])


def _civil(days):
    """Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar."""
    from_march = days + 719_468
    era, day_of_era = divmod(from_march, 146_097)
    leap_days = day_of_era // 1_460 - day_of_era // 36_524 + day_of_era // 146_096
    year_of_era = (day_of_era - leap_days) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = (month_from_march + 2) % 12 + 1
    return era * 400 + year_of_era + (month <= 2), month, day


def _corrected(curve, probability):
    if curve == "identity":
        return probability
    if "platt" in curve:
        inside = min(max(probability, LOG_ODDS_MIN), 1.0 - LOG_ODDS_MIN)
        log_odds = math.log(inside / (1.0 - inside))
        exponent = -(curve["platt"]["slope"] * log_odds + curve["platt"]["intercept"])
        return 1.0 / (1.0 + math.exp(exponent)) if exponent < 700.0 else 0.0
    points = curve["isotonic"]
    return numpy.interp(probability, points["scores"], points["probabilities"])
