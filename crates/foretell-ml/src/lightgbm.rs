//! LightGBM's C functions behind a small safe wrapper: the only `unsafe` code here but for one call of `crates/foretell-kafka/src/token.rs`, and the only file
//! that names the library. Training only; what is served is walked by [`crate::trees`].
//!
//! Rules that make it sound, and its results the same on every machine:
//! - every length is checked before a pointer is passed;
//! - a data set and a booster may move between threads but are never shared (`Send`, not `Sync`), and a booster
//!   borrows its data sets, so that they outlive it;
//! - one thread a call ([`FIXED`]): LightGBM's own thread count is one unsynchronised global of the process.
//!   Parallel work is several data sets and boosters on several threads of ours;
//! - its log level and log callback are thread-local in LightGBM, so they are set wherever an object is made.
#![expect(unsafe_code, reason = "LightGBM is a C library; everything it is handed is checked here")]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    marker::PhantomData,
    ptr,
};

use lightgbm3_sys as c;

/// The version of LightGBM that `lightgbm3-sys` 1.0.11 builds.
pub const VERSION: &str = "4.7.0";

/// Put before every parameter string: one thread, the same bytes for the same input, no output.
const FIXED: &str = "num_threads=1 deterministic=true force_row_wise=true verbosity=-1 ";

/// What LightGBM refuses, and what is refused on its behalf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LightGbmError {
    /// A call failed; the message is LightGBM's own.
    #[error("{call} failed: {message}")]
    Call {
        /// The C function.
        call: &'static str,
        /// What LightGBM says about it.
        message: String,
    },
    /// A length does not go with the others, or is more than LightGBM can count.
    #[error("{what} has {found} elements, not {expected}")]
    Length {
        /// What was passed.
        what: &'static str,
        /// Its elements.
        found: usize,
        /// How many there should be, or may be at most.
        expected: usize,
    },
    /// A text with a NUL in it cannot be passed to C.
    #[error("{what} has a NUL character in it")]
    Nul {
        /// What was passed.
        what: &'static str,
    },
    /// LightGBM answered something that is not text.
    #[error("{call} answered something that is not UTF-8")]
    NotText {
        /// The C function.
        call: &'static str,
    },
}

/// Rows to learn from, row after row, and what each turned out to be.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Every row's features, one row after the other.
    pub rows: &'a [f64],
    /// The label of each row: the index of its class.
    pub labels: &'a [f32],
    /// The names of the features; their number is the length of a row.
    pub feature_names: &'a [String],
    /// Which features are categories.
    pub categorical: &'a [usize],
}

/// Binned rows. Boosters borrow it.
#[derive(Debug)]
pub struct Dataset {
    handle: *mut c_void,
    features: usize,
    /// Makes it neither `Send` nor `Sync`; `Send` is given back below.
    not_sync: PhantomData<*mut ()>,
}

// SAFETY: a data set owns its memory and refers to no thread; LightGBM's thread-locals (last error, log level and
// callback) hold nothing of it. It is not `Sync`, and all access is through `&self` on the thread that has it.
unsafe impl Send for Dataset {}

impl Dataset {
    /// Bins rows. `parameters` are LightGBM's, as `name=value` separated by blanks.
    ///
    /// # Errors
    /// If the lengths do not agree, or if LightGBM refuses the rows or the parameters.
    pub fn new(matrix: Matrix<'_>, parameters: &str) -> Result<Self, LightGbmError> {
        Self::build(matrix, parameters, ptr::null_mut())
    }

    /// Bins rows as `self` was binned, so that they can be validated on.
    ///
    /// # Errors
    /// As for [`Self::new`]; also if the features are not as many as those of `self`.
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
                what: "a row",
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
        // From here on the handle is freed whatever happens.
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

/// A model that grows: it borrows the data sets that it learns from and is validated on.
#[derive(Debug)]
pub struct Booster<'data> {
    handle: *mut c_void,
    features: usize,
    /// Data sets for `eval`: the training set and the validation sets.
    evaluated: usize,
    /// A pointer keeps it on its thread: there is no reason for it to move.
    data: PhantomData<&'data Dataset>,
}

/// Whether a booster can grow on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It has grown by one iteration.
    Grown,
    /// No split was worth making: it is as it was, but for a first constant tree.
    Finished,
}

/// What [`Booster::predict`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The sums of the leaves, one a class (one in all, if binary).
    Raw,
    /// Probabilities, one a class (that of class 1, if binary).
    Probability,
}

impl<'data> Booster<'data> {
    /// A model without trees yet. `parameters` are LightGBM's, as `name=value` separated by blanks.
    ///
    /// # Errors
    /// If LightGBM refuses the parameters or the labels.
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

    /// A finished model, from its text.
    ///
    /// The text must be one that LightGBM wrote: its parser trusts what it reads. Check others with
    /// [`crate::trees::Trees::parse`] first.
    ///
    /// # Errors
    /// If LightGBM cannot read it.
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

    /// Also evaluates on `validation`, which must be aligned to the training set.
    ///
    /// # Errors
    /// If LightGBM finds that it is not.
    pub fn validate_on(&mut self, validation: &'data Dataset) -> Result<(), LightGbmError> {
        same_length("a row", validation.features, self.features)?;
        // SAFETY: both are alive, and the data set outlives the booster.
        check("LGBM_BoosterAddValidData", unsafe {
            c::LGBM_BoosterAddValidData(self.handle, validation.handle)
        })?;
        self.evaluated += 1;
        Ok(())
    }

    /// Grows by one iteration: one tree, or one a class.
    ///
    /// # Errors
    /// If LightGBM fails.
    pub fn grow(&mut self) -> Result<Growth, LightGbmError> {
        let mut finished = 0;
        // SAFETY: the handle is alive, and so are the data sets it borrows.
        check("LGBM_BoosterUpdateOneIter", unsafe {
            c::LGBM_BoosterUpdateOneIter(self.handle, &raw mut finished)
        })?;
        Ok(if finished == 0 { Growth::Grown } else { Growth::Finished })
    }

    /// The names of the metrics, in the order in which [`Self::evaluate`] answers.
    ///
    /// # Errors
    /// If a name is longer than 127 bytes, or not UTF-8.
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

    /// The metrics on a data set: 0 is the training set, then the validation sets.
    ///
    /// # Errors
    /// If there is no such data set.
    pub fn evaluate(&self, dataset: usize) -> Result<Vec<f64>, LightGbmError> {
        if dataset >= self.evaluated {
            let (found, expected) = (self.evaluated, dataset + 1);
            return Err(LightGbmError::Length { what: "the list of data sets", found, expected });
        }
        let mut results = vec![0.0; self.metrics()?];
        let mut length = 0;
        // SAFETY: LightGBM writes one number a metric.
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

    /// The model as LightGBM's text, with its first `iterations` only, if given.
    ///
    /// # Errors
    /// If LightGBM fails.
    pub fn save(&self, iterations: Option<u32>) -> Result<String, LightGbmError> {
        const CALL: &str = "LGBM_BoosterSaveModelToString";
        let iterations = match iterations {
            // LightGBM takes 0 for all of them; a model has at least its constant tree anyway.
            Some(iterations) => {
                count("the iterations", usize::try_from(iterations.max(1)).unwrap_or(usize::MAX))?
            }
            None => -1,
        };
        let mut length = 0_i64;
        let mut buffer = vec![0_u8; 1 << 20];
        for _ in 0..2 {
            let size = i64::try_from(buffer.len()).expect("a buffer is shorter than 2^63");
            // SAFETY: LightGBM writes only if the text and its NUL fit into `size` bytes, and says what it needs.
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
            message: "the model grew while it was written".to_owned(),
        })
    }

    /// What the model says of rows, one row after the other; for tests and comparisons.
    ///
    /// # Errors
    /// If the rows are not whole.
    pub fn predict(&self, rows: &[f64], answer: Answer) -> Result<Vec<f64>, LightGbmError> {
        let number = rows.len() / self.features.max(1);
        same_length("the matrix", rows.len(), number * self.features)?;
        let (nrow, ncol) = (count("the rows", number)?, count("the features", self.features)?);
        let kind = constant(match answer {
            Answer::Raw => c::C_API_PREDICT_RAW_SCORE,
            Answer::Probability => c::C_API_PREDICT_NORMAL,
        });
        let mut length = 0_i64;
        // SAFETY: the handle is alive.
        check("LGBM_BoosterCalcNumPredict", unsafe {
            c::LGBM_BoosterCalcNumPredict(self.handle, nrow, kind, 0, -1, &raw mut length)
        })?;
        let mut results = vec![0.0; usize::try_from(length).expect("a length is not negative")];
        let parameters = text("the parameters", FIXED)?;
        // SAFETY: the matrix has nrow × ncol elements, and the results as many as LightGBM said it writes.
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

/// Swallows LightGBM's log on this thread: an error comes back as one anyway. Without a callback it would print
/// to the standard output until the first call with parameters has set its level.
fn silence() -> Result<(), LightGbmError> {
    extern "C" fn swallow(_message: *const c_char) {}
    // SAFETY: the callback is a function of this process, and does nothing.
    check("LGBM_RegisterLogCallback", unsafe { c::LGBM_RegisterLogCallback(Some(swallow)) })
}

fn check(call: &'static str, status: c_int) -> Result<(), LightGbmError> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: LightGBM answers a pointer to this thread's last message, which ends in a NUL.
    let message = unsafe { CStr::from_ptr(c::LGBM_GetLastError()) };
    Err(LightGbmError::Call { call, message: message.to_string_lossy().into_owned() })
}

fn same_length(what: &'static str, found: usize, expected: usize) -> Result<(), LightGbmError> {
    if found == expected { Ok(()) } else { Err(LightGbmError::Length { what, found, expected }) }
}

fn count(what: &'static str, number: usize) -> Result<i32, LightGbmError> {
    let most = usize::try_from(i32::MAX).expect("31 bits fit");
    i32::try_from(number).map_err(|_| LightGbmError::Length { what, found: number, expected: most })
}

fn text(what: &'static str, text: &str) -> Result<CString, LightGbmError> {
    CString::new(text).map_err(|_| LightGbmError::Nul { what })
}

fn constant(value: u32) -> c_int {
    c_int::try_from(value).expect("LightGBM's constants are small")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: &str = "objective=binary metric=binary_logloss,auc min_data_in_leaf=2 min_data_in_bin=1 \
        min_data_per_group=1 cat_smooth=1";

    /// 200 rows of a number and a category; the label is whether the category is 1 or 3.
    fn rows() -> (Vec<f64>, Vec<f32>) {
        let rows = (0..200_u8).flat_map(|n| [f64::from(n % 17), f64::from(n % 5)]);
        (rows.collect(), (0..200_u8).map(|n| f32::from(u8::from(matches!(n % 5, 1 | 3)))).collect())
    }

    fn names() -> Vec<String> {
        vec!["number".to_owned(), "category".to_owned()]
    }

    #[test]
    fn a_booster_learns_and_travels_as_text() {
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
        assert!(text.contains("num_cat=1"), "a category was split on as one");
        let copy = Booster::load(&text).unwrap();
        let probability = Answer::Probability;
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
        let check = |matrix: Matrix<'_>, what: &str| {
            let error = Dataset::new(matrix, PARAMETERS).unwrap_err();
            assert!(
                matches!(error, LightGbmError::Length { what: found, .. } if found == what),
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
            booster.predict(&rows[1..], Answer::Raw),
            Err(LightGbmError::Length { .. })
        ));
    }

    #[test]
    fn what_lightgbm_refuses_is_an_error() {
        let ((rows, labels), names) = (rows(), names());
        let matrix =
            Matrix { rows: &rows, labels: &labels, feature_names: &names, categorical: &[1] };
        let training = Dataset::new(matrix, PARAMETERS).unwrap();
        let error = Booster::new(&training, "objective=binary num_leaves=-1").unwrap_err();
        assert!(matches!(error, LightGbmError::Call { call: "LGBM_BoosterCreate", .. }), "{error}");
        let error = Booster::new(&training, "objective=binary\0").unwrap_err();
        assert_eq!(error, LightGbmError::Nul { what: "the parameters" });
        assert!(Booster::load("not a model").is_err());
    }
}
