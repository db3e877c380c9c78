//! Values of LightGBM's parameters.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The value of a parameter. In JSON and TOML it is a boolean, a number or a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParamValue {
    /// `true` or `false`.
    Flag(bool),
    /// A number, whole or not.
    Number(f64),
    /// One of the texts that LightGBM knows for the parameter, such as `"dart"`.
    Text(String),
}

impl ParamValue {
    /// A value from its text: `true` and `false` are booleans, since no parameter has them as a text.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        match text {
            "true" => Self::Flag(true),
            "false" => Self::Flag(false),
            text => Self::Text(text.to_owned()),
        }
    }

    /// The value as in TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Flag(_) | Self::Number(_) => self.to_string(),
        }
    }

    /// The number; `None` for other values.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Flag(_) | Self::Text(_) => None,
        }
    }
}

/// As LightGBM reads it.
impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_lightgbm_and_json_have_them() {
        let check = |value: ParamValue, lightgbm: &str, json: &str| {
            assert_eq!(value.to_string(), lightgbm);
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
            assert_eq!(serde_json::from_str::<ParamValue>(json).unwrap(), value);
        };
        check(ParamValue::Number(63.0), "63", "63.0");
        check(ParamValue::Number(0.05), "0.05", "0.05");
        check(ParamValue::Number(-1.0), "-1", "-1.0");
        check(ParamValue::of_text("true"), "true", "true");
        check(ParamValue::of_text("dart"), "dart", "\"dart\"");
        assert_eq!(serde_json::from_str::<ParamValue>("7").unwrap(), ParamValue::Number(7.0));
    }
}
