//! A small safe wrapper of LightGBM's C API, for training; serving uses [`crate::trees`]. This is the only file that names
//! the library and, except for one call in `crates/foretell-kafka/src/token.rs`, the only one with `unsafe` code.
//!
//! Rules that make it sound and reproducible on every machine:
//! - every length is checked before a pointer is passed;
//! - a data set may move between threads but is never shared (`Send`, not `Sync`), and a booster borrows its data sets,
//!   so that they outlive it;
//! - every call runs on one thread ([`FIXED`]), because LightGBM's thread count is an unsynchronised global of the
//!   process. Parallel work uses several data sets and boosters, each on a thread of the caller;
//! - LightGBM's log level and log callback are thread-local, so they are set wherever an object is created.
#![expect(unsafe_code, reason = "LightGBM is a C library; everything it is handed is checked here")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    marker::PhantomData,
    ptr,
};

use lightgbm3_sys as c;

/// The version of LightGBM that `lightgbm3-sys` 1.0.11 builds.
pub const VERSION: &str = "4.7.0";

/// Parameters before every parameter string: one thread, deterministic results, no output.
const FIXED: &str = "num_threads=1 deterministic=true force_row_wise=true verbosity=-1 ";

/// Errors of LightGBM, and arguments that are refused before they reach it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LightGbmError {
    /// A call of LightGBM failed.
    #[error("{call} failed: {message}")]
    Call {
        /// Name of the C function.
        call: &'static str,
        /// LightGBM's error message.
        message: String,
    },
    /// An argument's length contradicts the others, or exceeds LightGBM's 31-bit counts.
    #[error("{argument} has {found} elements, not {expected}")]
    Length {
        /// Name of the argument.
        argument: &'static str,
        /// Its number of elements.
        found: usize,
        /// Expected or maximum number of elements.
        expected: usize,
    },
    /// A text contains a NUL character, so it cannot be passed to C.
    #[error("{argument} has a NUL character in it")]
    Nul {
        /// Name of the argument.
        argument: &'static str,
    },
    /// LightGBM returned a text that is not UTF-8.
    #[error("{call} returned a text that is not UTF-8")]
    NotText {
        /// Name of the C function.
        call: &'static str,
    },
}

/// Features and labels of the rows to train or validate on.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Features in row-major order: `labels.len() × feature_names.len()` numbers, NaN for missing ones.
    pub rows: &'a [f64],
    /// Label of each row: the index of its class.
    pub labels: &'a [f32],
    /// Names of the features; their number is the length of a row.
    pub feature_names: &'a [String],
    /// Indexes of the categorical features. Their values are codes: whole numbers, 0 or more.
    pub categorical: &'a [usize],
}

/// Rows in LightGBM's binned form. Boosters borrow it.
#[derive(Debug)]
pub struct Dataset {
    handle: *mut c_void,
    features: usize,
    /// Makes the type neither `Send` nor `Sync`; `Send` is implemented below.
    not_sync: PhantomData<*mut ()>,
}

// SAFETY: a data set owns its memory and is not bound to a thread; LightGBM's thread-locals (last error, log level and
// callback) do not refer to it. It is not `Sync`, so only the thread that owns it uses it.
unsafe impl Send for Dataset {}

impl Dataset {
    /// Bins rows (`LGBM_DatasetCreateFromMat`). `parameters` are LightGBM's, as `name=value` separated by blanks.
    ///
    /// # Errors
    /// [`LightGbmError::Length`] if the lengths of `matrix` contradict each other; [`LightGbmError::Call`] if LightGBM
    /// refuses the rows or the parameters.
    pub fn new(matrix: Matrix<'_>, parameters: &str) -> Result<Self, LightGbmError> {
        Self::build(matrix, parameters, ptr::null_mut())
    }

    /// Bins rows with the bins of `self`, so that a booster of `self` can be validated on them.
    ///
    /// # Errors
    /// As [`Self::new`]; also if the number of features differs from that of `self`.
    pub fn aligned(&self, matrix: Matrix<'_>, parameters: &str) -> Result<Self, LightGbmError> {
        same_length("a row", matrix.feature_names.len(), self.features)?;
        Self::build(matrix, parameters, self.handle)
    }

    fn build(
        matrix: Matrix<'_>,
        parameters: &str,
        reference: *mut c_void,
    ) -> Result<Self, LightGbmError> {
        let (rows, features) = (matrix.labels.len(), matrix.feature_names.len());
        same_length("the matrix", matrix.rows.len(), rows.saturating_mul(features))?;
        if let Some(beyond) = matrix.categorical.iter().find(|feature| **feature >= features) {
            return Err(LightGbmError::Length {
                argument: "a row",
                found: features,
                expected: beyond + 1,
            });
        }
        let categorical: Vec<String> = matrix.categorical.iter().map(ToString::to_string).collect();
        let categorical = match categorical.is_empty() {
            true => String::new(),
            false => format!(" categorical_feature={}", categorical.join(",")),
        };
        let parameters = text("the parameters", &format!("{FIXED}{parameters}{categorical}"))?;
        let (rows, columns) = (count("the rows", rows)?, count("the features", features)?);
        let mut handle = ptr::null_mut();
        silence()?;
        // SAFETY: the matrix has rows × columns elements, checked above; LightGBM copies what it needs before it
        // returns; `reference` is null or a live data set's handle.
        check("LGBM_DatasetCreateFromMat", unsafe {
            c::LGBM_DatasetCreateFromMat(
                matrix.rows.as_ptr().cast(),
                constant(c::C_API_DTYPE_FLOAT64),
                rows,
                columns,
                1,
                parameters.as_ptr(),
                reference,
                &raw mut handle,
            )
        })?;
        // From here on, `drop` frees the handle also after an error.
        let dataset = Self { handle, features, not_sync: PhantomData };
        // SAFETY: there are `rows` labels, and LightGBM copies them.
        check("LGBM_DatasetSetField", unsafe {
            let labels = matrix.labels.as_ptr().cast();
            c::LGBM_DatasetSetField(
                handle,
                c"label".as_ptr(),
                labels,
                rows,
                constant(c::C_API_DTYPE_FLOAT32),
            )
        })?;
        dataset.name_features(matrix.feature_names)?;
        Ok(dataset)
    }

    fn name_features(&self, names: &[String]) -> Result<(), LightGbmError> {
        let names: Result<Vec<CString>, _> =
            names.iter().map(|name| text("a feature's name", name)).collect();
        let names = names?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let length = count("the features", pointers.len())?;
        // SAFETY: `length` pointers to texts that live until the end of this function; LightGBM copies them.
        check("LGBM_DatasetSetFeatureNames", unsafe {
            c::LGBM_DatasetSetFeatureNames(self.handle, pointers.as_mut_ptr(), length)
        })
    }
}

impl Drop for Dataset {
    fn drop(&mut self) {
        // SAFETY: the handle was made by LightGBM, and no booster that borrows it is left.
        let freed = check("LGBM_DatasetFree", unsafe { c::LGBM_DatasetFree(self.handle) });
        debug_assert!(freed.is_ok(), "{freed:?}");
    }
}

/// A model in training, or a loaded one. It borrows the data sets that it is trained and validated on.
#[derive(Debug)]
pub struct Booster<'data> {
    handle: *mut c_void,
    features: usize,
    /// Number of data sets that can be evaluated: the training set and the validation sets.
    evaluated: usize,
    /// Borrows the data sets. The raw pointer in `handle` keeps the booster on its thread.
    data: PhantomData<&'data Dataset>,
}

/// Result of [`Booster::grow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// The model has one iteration more.
    Grown,
    /// No split improves the model. It is unchanged, except that a first iteration leaves a constant tree.
    Finished,
}

/// Output of [`Booster::predict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictionKind {
    /// Sums of the leaves: one per class, or a single one for a binary model.
    Raw,
    /// Probabilities: one per class, or only that of class 1 for a binary model.
    Probability,
}

impl<'data> Booster<'data> {
    /// Creates a model without trees (`LGBM_BoosterCreate`). `parameters` are LightGBM's, as `name=value` separated by
    /// blanks.
    ///
    /// # Errors
    /// [`LightGbmError::Call`] if LightGBM refuses the parameters or the labels.
    pub fn new(training: &'data Dataset, parameters: &str) -> Result<Self, LightGbmError> {
        let parameters = text("the parameters", &format!("{FIXED}{parameters}"))?;
        let mut handle = ptr::null_mut();
        silence()?;
        // SAFETY: the data set is alive, and outlives the booster by the lifetime `'data`.
        check("LGBM_BoosterCreate", unsafe {
            c::LGBM_BoosterCreate(training.handle, parameters.as_ptr(), &raw mut handle)
        })?;
        Ok(Self { handle, features: training.features, evaluated: 1, data: PhantomData })
    }

    /// Loads a trained model from its text (`LGBM_BoosterLoadModelFromString`).
    ///
    /// LightGBM's parser does not validate its input: check a text from an untrusted source with
    /// [`crate::trees::Trees::parse`] first.
    ///
    /// # Errors
    /// [`LightGbmError::Call`] if LightGBM cannot read it.
    pub fn load(model: &str) -> Result<Booster<'static>, LightGbmError> {
        let model = text("the model", model)?;
        let (mut handle, mut iterations, mut features) = (ptr::null_mut(), 0, 0);
        silence()?;
        // SAFETY: the text ends in a NUL, and LightGBM copies what it needs.
        check("LGBM_BoosterLoadModelFromString", unsafe {
            c::LGBM_BoosterLoadModelFromString(model.as_ptr(), &raw mut iterations, &raw mut handle)
        })?;
        let mut booster = Booster { handle, features: 0, evaluated: 0, data: PhantomData };
        // SAFETY: the handle is alive.
        check("LGBM_BoosterGetNumFeature", unsafe {
            c::LGBM_BoosterGetNumFeature(handle, &raw mut features)
        })?;
        booster.features = usize::try_from(features).expect("LightGBM counts features from 0");
        Ok(booster)
    }

    /// Adds a validation set, which must be made with [`Dataset::aligned`] of the training set.
    ///
    /// # Errors
    /// [`LightGbmError`] if the bins or the number of features differ.
    pub fn validate_on(&mut self, validation: &'data Dataset) -> Result<(), LightGbmError> {
        same_length("a row", validation.features, self.features)?;
        // SAFETY: both are alive, and the data set outlives the booster.
        check("LGBM_BoosterAddValidData", unsafe {
            c::LGBM_BoosterAddValidData(self.handle, validation.handle)
        })?;
        self.evaluated += 1;
        Ok(())
    }

    /// Grows by one iteration: one tree for two classes, else one per class.
    ///
    /// # Errors
    /// [`LightGbmError::Call`] if LightGBM fails.
    pub fn grow(&mut self) -> Result<Growth, LightGbmError> {
        let mut finished = 0;
        // SAFETY: the handle is alive, and so are the data sets it borrows.
        check("LGBM_BoosterUpdateOneIter", unsafe {
            c::LGBM_BoosterUpdateOneIter(self.handle, &raw mut finished)
        })?;
        Ok(if finished == 0 { Growth::Grown } else { Growth::Finished })
    }

    /// Names of the metrics, in the order of the results of [`Self::evaluate`].
    ///
    /// # Errors
    /// [`LightGbmError`] if a name is longer than 127 bytes or not UTF-8.
    pub fn metric_names(&self) -> Result<Vec<String>, LightGbmError> {
        const NAME_BYTES: usize = 128;
        let metrics = self.metrics()?;
        let mut names = vec![0_u8; metrics * NAME_BYTES];
        let mut pointers: Vec<*mut c_char> =
            names.chunks_exact_mut(NAME_BYTES).map(|name| name.as_mut_ptr().cast()).collect();
        let (mut length, mut bytes) = (0, 0);
        // SAFETY: `metrics` buffers of NAME_BYTES each; LightGBM writes at most that much, with a NUL.
        check("LGBM_BoosterGetEvalNames", unsafe {
            c::LGBM_BoosterGetEvalNames(
                self.handle,
                count("the metrics", metrics)?,
                &raw mut length,
                NAME_BYTES,
                &raw mut bytes,
                pointers.as_mut_ptr(),
            )
        })?;
        same_length("the buffer of a metric's name", NAME_BYTES, NAME_BYTES.max(bytes))?;
        let texts = names.chunks_exact(NAME_BYTES).map(|name| {
            let name = CStr::from_bytes_until_nul(name).ok().and_then(|name| name.to_str().ok());
            name.map(str::to_owned)
                .ok_or(LightGbmError::NotText { call: "LGBM_BoosterGetEvalNames" })
        });
        texts.collect()
    }

    /// Computes the metrics on a data set: number 0 is the training set, 1 the first validation set.
    ///
    /// # Errors
    /// [`LightGbmError::Length`] if there is no such data set.
    pub fn evaluate(&self, dataset: usize) -> Result<Vec<f64>, LightGbmError> {
        if dataset >= self.evaluated {
            let (found, expected) = (self.evaluated, dataset + 1);
            return Err(LightGbmError::Length {
                argument: "the list of data sets",
                found,
                expected,
            });
        }
        let mut results = vec![0.0; self.metrics()?];
        let mut length = 0;
        // SAFETY: LightGBM writes one number per metric.
        check("LGBM_BoosterGetEval", unsafe {
            let dataset = count("the data sets", dataset)?;
            c::LGBM_BoosterGetEval(self.handle, dataset, &raw mut length, results.as_mut_ptr())
        })?;
        Ok(results)
    }

    fn metrics(&self) -> Result<usize, LightGbmError> {
        let mut metrics = 0;
        // SAFETY: the handle is alive.
        check("LGBM_BoosterGetEvalCounts", unsafe {
            c::LGBM_BoosterGetEvalCounts(self.handle, &raw mut metrics)
        })?;
        Ok(usize::try_from(metrics).expect("LightGBM counts metrics from 0"))
    }

    /// Writes the model as LightGBM's text; with `Some(n)`, only its first n iterations (at least one).
    ///
    /// # Errors
    /// [`LightGbmError`] if LightGBM fails, or the text is not UTF-8.
    pub fn save(&self, iterations: Option<u32>) -> Result<String, LightGbmError> {
        const CALL: &str = "LGBM_BoosterSaveModelToString";
        let iterations = match iterations {
            // LightGBM would take 0 for all iterations.
            Some(iterations) => {
                count("the iterations", usize::try_from(iterations.max(1)).unwrap_or(usize::MAX))?
            }
            None => -1,
        };
        let mut length = 0_i64;
        let mut buffer = vec![0_u8; 1 << 20];
        for _ in 0..2 {
            let size = i64::try_from(buffer.len()).expect("a buffer is shorter than 2^63");
            // SAFETY: LightGBM writes only if the text and its NUL fit into `size` bytes, and returns the size needed.
            check(CALL, unsafe {
                let target = buffer.as_mut_ptr().cast();
                c::LGBM_BoosterSaveModelToString(
                    self.handle,
                    0,
                    iterations,
                    constant(c::C_API_FEATURE_IMPORTANCE_SPLIT),
                    size,
                    &raw mut length,
                    target,
                )
            })?;
            let needed = usize::try_from(length).expect("a length is not negative");
            if needed <= buffer.len() {
                buffer.truncate(needed.saturating_sub(1)); // Without the NUL.
                return String::from_utf8(buffer)
                    .map_err(|_| LightGbmError::NotText { call: CALL });
            }
            buffer = vec![0; needed];
        }
        Err(LightGbmError::Call {
            call: CALL,
            message: "the model's size changed while it was written".to_owned(),
        })
    }

    /// Predicts rows, given in row-major order; for tests and comparisons with [`crate::trees`].
    ///
    /// # Errors
    /// [`LightGbmError::Length`] if the last row is incomplete.
    pub fn predict(&self, rows: &[f64], kind: PredictionKind) -> Result<Vec<f64>, LightGbmError> {
        let number = rows.len() / self.features.max(1);
        same_length("the matrix", rows.len(), number * self.features)?;
        let (nrow, ncol) = (count("the rows", number)?, count("the features", self.features)?);
        let kind = constant(match kind {
            PredictionKind::Raw => c::C_API_PREDICT_RAW_SCORE,
            PredictionKind::Probability => c::C_API_PREDICT_NORMAL,
        });
        let mut length = 0_i64;
        // SAFETY: the handle is alive.
        check("LGBM_BoosterCalcNumPredict", unsafe {
            c::LGBM_BoosterCalcNumPredict(self.handle, nrow, kind, 0, -1, &raw mut length)
        })?;
        let mut results = vec![0.0; usize::try_from(length).expect("a length is not negative")];
        let parameters = text("the parameters", FIXED)?;
        // SAFETY: the matrix has nrow × ncol elements; the results have the length that LightGBM returned above.
        check("LGBM_BoosterPredictForMat", unsafe {
            c::LGBM_BoosterPredictForMat(
                self.handle,
                rows.as_ptr().cast(),
                constant(c::C_API_DTYPE_FLOAT64),
                nrow,
                ncol,
                1,
                kind,
                0,
                -1,
                parameters.as_ptr(),
                &raw mut length,
                results.as_mut_ptr(),
            )
        })?;
        Ok(results)
    }
}

impl Drop for Booster<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle was made by LightGBM and is freed once.
        let freed = check("LGBM_BoosterFree", unsafe { c::LGBM_BoosterFree(self.handle) });
        debug_assert!(freed.is_ok(), "{freed:?}");
    }
}

/// Discards LightGBM's log on this thread; errors are returned anyway. Without a callback LightGBM prints to the
/// standard output until the first call with parameters has set its log level.
fn silence() -> Result<(), LightGbmError> {
    extern "C" fn discard(_message: *const c_char) {}
    // SAFETY: the callback is a function of this process, and does nothing.
    check("LGBM_RegisterLogCallback", unsafe { c::LGBM_RegisterLogCallback(Some(discard)) })
}

fn check(call: &'static str, status: c_int) -> Result<(), LightGbmError> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: LightGBM returns a pointer to this thread's last message, which ends in a NUL.
    let message = unsafe { CStr::from_ptr(c::LGBM_GetLastError()) };
    Err(LightGbmError::Call { call, message: message.to_string_lossy().into_owned() })
}

fn same_length(argument: &'static str, found: usize, expected: usize) -> Result<(), LightGbmError> {
    if found == expected {
        Ok(())
    } else {
        Err(LightGbmError::Length { argument, found, expected })
    }
}

fn count(argument: &'static str, number: usize) -> Result<i32, LightGbmError> {
    i32::try_from(number).map_err(|_| {
        let expected = usize::try_from(i32::MAX).expect("31 bits fit");
        LightGbmError::Length { argument, found: number, expected }
    })
}

fn text(argument: &'static str, text: &str) -> Result<CString, LightGbmError> {
    CString::new(text).map_err(|_| LightGbmError::Nul { argument })
}

fn constant(value: u32) -> c_int {
    c_int::try_from(value).expect("LightGBM's constants are small")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: &str = "objective=binary metric=binary_logloss,auc min_data_in_leaf=2 min_data_in_bin=1 \
        min_data_per_group=1 cat_smooth=1";

    /// 200 rows of a number and a category; the label is 1 if the category is 1 or 3.
    fn rows() -> (Vec<f64>, Vec<f32>) {
        let rows = (0..200_u8).flat_map(|n| [f64::from(n % 17), f64::from(n % 5)]);
        (rows.collect(), (0..200_u8).map(|n| f32::from(u8::from(matches!(n % 5, 1 | 3)))).collect())
    }

    fn names() -> Vec<String> {
        vec!["number".to_owned(), "category".to_owned()]
    }

    #[test]
    fn a_booster_learns_and_survives_a_round_trip_as_text() {
        let ((rows, labels), names) = (rows(), names());
        let matrix =
            Matrix { rows: &rows, labels: &labels, feature_names: &names, categorical: &[1] };
        let training = Dataset::new(matrix, PARAMETERS).unwrap();
        let validation = training.aligned(matrix, PARAMETERS).unwrap();
        let mut booster = Booster::new(&training, PARAMETERS).unwrap();
        booster.validate_on(&validation).unwrap();
        assert_eq!(booster.metric_names().unwrap(), ["binary_logloss", "auc"]);
        for _ in 0..5 {
            assert_eq!(booster.grow().unwrap(), Growth::Grown);
        }
        let metrics = booster.evaluate(1).unwrap();
        assert!(metrics[0] < 0.5 && metrics[1] > 0.99, "{metrics:?}");
        let text = booster.save(None).unwrap();
        assert!(text.contains("num_cat=1"), "no split is by category");
        let copy = Booster::load(&text).unwrap();
        let probability = PredictionKind::Probability;
        assert_eq!(
            copy.predict(&rows, probability).unwrap(),
            booster.predict(&rows, probability).unwrap()
        );
        assert_eq!(copy.save(None).unwrap().matches("Tree=").count(), 5);
        assert_eq!(booster.save(Some(2)).unwrap().matches("Tree=").count(), 2);
    }

    #[test]
    fn lengths_are_checked() {
        let ((rows, labels), names) = (rows(), names());
        let check = |matrix: Matrix<'_>, expected: &str| {
            let error = Dataset::new(matrix, PARAMETERS).unwrap_err();
            assert!(
                matches!(error, LightGbmError::Length { argument, .. } if argument == expected),
                "{error}"
            );
        };
        let matrix =
            Matrix { rows: &rows, labels: &labels, feature_names: &names, categorical: &[1] };
        check(Matrix { rows: &rows[1..], ..matrix }, "the matrix");
        check(Matrix { labels: &labels[1..], ..matrix }, "the matrix");
        check(Matrix { feature_names: &names[1..], ..matrix }, "the matrix");
        check(Matrix { categorical: &[2], ..matrix }, "a row");
        let training = Dataset::new(matrix, PARAMETERS).unwrap();
        let booster = Booster::new(&training, PARAMETERS).unwrap();
        assert!(matches!(booster.evaluate(1), Err(LightGbmError::Length { .. })));
        assert!(matches!(
            booster.predict(&rows[1..], PredictionKind::Raw),
            Err(LightGbmError::Length { .. })
        ));
    }

    #[test]
    fn invalid_parameters_and_models_are_errors() {
        let ((rows, labels), names) = (rows(), names());
        let matrix =
            Matrix { rows: &rows, labels: &labels, feature_names: &names, categorical: &[1] };
        let training = Dataset::new(matrix, PARAMETERS).unwrap();
        let error = Booster::new(&training, "objective=binary num_leaves=-1").unwrap_err();
        assert!(matches!(error, LightGbmError::Call { call: "LGBM_BoosterCreate", .. }), "{error}");
        let error = Booster::new(&training, "objective=binary\0").unwrap_err();
        assert_eq!(error, LightGbmError::Nul { argument: "the parameters" });
        assert!(Booster::load("not a model").is_err());
    }
}
