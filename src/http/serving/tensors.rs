//! Tensors of the Open Inference Protocol: the values of one column, in JSON or in the binary extension.

use serde::Deserialize;
use serde_json::{Map, Number, Value as Json};

/// A tensor of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Tensor {
    pub(super) name: String,
    shape: Vec<usize>,
    datatype: String,
    #[serde(default)]
    parameters: Map<String, Json>,
    #[serde(default)]
    data: Option<Json>,
}

/// The type of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Datatype {
    Bool,
    Signed(usize),
    Unsigned(usize),
    Float32,
    Float64,
    Bytes,
}

impl Datatype {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "BOOL" => Self::Bool,
            "INT8" => Self::Signed(1),
            "INT16" => Self::Signed(2),
            "INT32" => Self::Signed(4),
            "INT64" => Self::Signed(8),
            "UINT8" => Self::Unsigned(1),
            "UINT16" => Self::Unsigned(2),
            "UINT32" => Self::Unsigned(4),
            "UINT64" => Self::Unsigned(8),
            "FP32" => Self::Float32,
            "FP64" => Self::Float64,
            "BYTES" => Self::Bytes,
            _ => return None,
        })
    }
}

impl Tensor {
    /// The values, one for each row. Takes the bytes of a binary tensor from the front of `binary`.
    ///
    /// # Errors
    /// A message for the caller.
    pub(super) fn values(self, binary: &mut &[u8]) -> Result<Vec<Json>, String> {
        let Self { name, shape, datatype, parameters, data } = self;
        let wrong = |problem: &str| format!("input `{name}` {problem}");
        let Some(datatype) = Datatype::parse(&datatype) else {
            return Err(wrong(&format!("has the datatype {datatype}, which is not supported")));
        };
        let rows = match shape.as_slice() {
            [rows] | [rows, 1] => *rows,
            shape => {
                return Err(wrong(&format!(
                    "has the shape {shape:?}: it must be [rows] or [rows, 1]"
                )));
            }
        };
        let values = match (data, parameters.get("binary_data_size")) {
            (Some(data), None) => {
                let mut values = Vec::new();
                flatten(data, &mut values);
                values
            }
            (None, Some(size)) => {
                let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
                let bytes = size.and_then(|size| binary.split_off(..size));
                let bytes = bytes.ok_or_else(|| wrong("has more bytes than the body"))?;
                values_of_bytes(datatype, bytes)
                    .ok_or_else(|| wrong("has bytes that are not of its datatype"))?
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(wrong("must have either data or the parameter binary_data_size"));
            }
        };
        if values.len() != rows {
            return Err(wrong(&format!("has {} values for the shape {shape:?}", values.len())));
        }
        Ok(values)
    }
}

/// Appends the values of nested lists, in their order.
fn flatten(data: Json, values: &mut Vec<Json>) {
    match data {
        Json::Array(items) => items.into_iter().for_each(|item| flatten(item, values)),
        value @ (Json::Null
        | Json::Bool(_)
        | Json::Number(_)
        | Json::String(_)
        | Json::Object(_)) => {
            values.push(value);
        }
    }
}

/// The little-endian values; none if the bytes do not end with a value.
fn values_of_bytes(datatype: Datatype, bytes: &[u8]) -> Option<Vec<Json>> {
    match datatype {
        Datatype::Bool => Some(bytes.iter().map(|byte| Json::Bool(*byte != 0)).collect()),
        Datatype::Signed(width) => each(bytes, width, |value| {
            let mut wide = [if value.last()? >> 7 == 1 { 0xff } else { 0 }; 8];
            wide[..width].copy_from_slice(value);
            Some(i64::from_le_bytes(wide).into())
        }),
        Datatype::Unsigned(width) => each(bytes, width, |value| {
            let mut wide = [0; 8];
            wide[..width].copy_from_slice(value);
            Some(u64::from_le_bytes(wide).into())
        }),
        Datatype::Float32 => {
            each(bytes, 4, |value| Some(number(f32::from_le_bytes(value.try_into().ok()?).into())))
        }
        Datatype::Float64 => {
            each(bytes, 8, |value| Some(number(f64::from_le_bytes(value.try_into().ok()?))))
        }
        Datatype::Bytes => texts(bytes),
    }
}

fn each(bytes: &[u8], width: usize, read: impl Fn(&[u8]) -> Option<Json>) -> Option<Vec<Json>> {
    let values = bytes.chunks_exact(width);
    if values.remainder().is_empty() { values.map(read).collect() } else { None }
}

/// NaN and infinities mean "no answer", as in the stream.
fn number(value: f64) -> Json {
    Number::from_f64(value).map_or(Json::Null, Json::Number)
}

/// Texts, each after its length in 4 bytes.
fn texts(mut bytes: &[u8]) -> Option<Vec<Json>> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let length = bytes.split_off(..4)?;
        let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
        let text = str::from_utf8(bytes.split_off(..length)?).ok()?;
        texts.push(Json::String(text.to_owned()));
    }
    Some(texts)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tensor(datatype: &str, shape: &[usize], more: Json) -> Tensor {
        let mut tensor = json!({ "name": "a", "datatype": datatype, "shape": shape });
        tensor.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(tensor).unwrap()
    }

    #[test]
    fn binary_values_are_read_by_their_datatype() {
        let check = |datatype: &str, bytes: &[u8], expected: Json| {
            let rows = expected.as_array().unwrap().len();
            // The bytes of the next tensor stay.
            let body = [bytes, b"next"].concat();
            let mut rest = body.as_slice();
            let size = json!({"parameters": {"binary_data_size": bytes.len()}});
            let values = tensor(datatype, &[rows, 1], size).values(&mut rest).unwrap();
            assert_eq!((Json::Array(values), rest), (expected, b"next".as_slice()), "{datatype}");
        };
        check("BOOL", &[1, 0], json!([true, false]));
        check("INT8", &[0xff, 5], json!([-1, 5]));
        check("INT32", &(-7_i32).to_le_bytes(), json!([-7]));
        check("INT64", &i64::MIN.to_le_bytes(), json!([i64::MIN]));
        check("UINT16", &[0xff, 0xff], json!([65535]));
        check("UINT64", &u64::MAX.to_le_bytes(), json!([u64::MAX]));
        check("FP32", &1.5_f32.to_le_bytes(), json!([1.5]));
        check(
            "FP64",
            &[39.5_f64.to_le_bytes(), f64::NAN.to_le_bytes()].concat(),
            json!([39.5, null]),
        );
        check("BYTES", b"\x02\0\0\0ab\0\0\0\0", json!(["ab", ""]));
    }

    #[test]
    fn json_values_are_flat_or_nested() {
        for data in [json!([1, null, "x"]), json!([[1], [null], ["x"]])] {
            let values = tensor("BYTES", &[3, 1], json!({ "data": data })).values(&mut &[][..]);
            assert_eq!(values.unwrap(), [json!(1), Json::Null, json!("x")]);
        }
    }

    #[test]
    fn a_malformed_tensor_is_refused() {
        let check = |datatype: &str, shape: &[usize], more: Json, words: &str| {
            let error =
                tensor(datatype, shape, more).values(&mut &b"\x05\0\0\0ab"[..]).unwrap_err();
            assert!(error.contains(words), "{words:?} in {error:?}");
        };
        check("FP16", &[1], json!({"data": [1]}), "FP16");
        check("FP64", &[1, 2], json!({"data": [1, 2]}), "[rows, 1]");
        check("FP64", &[2], json!({"data": [1]}), "1 values for the shape [2]");
        check("FP64", &[1], json!({}), "either data or");
        check("FP64", &[1], json!({"parameters": {"binary_data_size": 7}}), "more bytes");
        check("FP64", &[1], json!({"parameters": {"binary_data_size": -1}}), "more bytes");
        check("FP64", &[1], json!({"parameters": {"binary_data_size": 6}}), "not of its datatype");
        check("BYTES", &[1], json!({"parameters": {"binary_data_size": 6}}), "not of its datatype");
    }
}
