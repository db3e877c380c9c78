//! Models in training, and loaded ones.

use std::{
    ffi::{CStr, c_char, c_void},
    marker::PhantomData,
    ptr,
};

use lightgbm3_sys as c;

use crate::lightgbm::{
    Dataset, FIXED, LightGbmError, check, constant, count, same_length, silence, text,
};

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
    /// Contributions of the features to [`Self::Raw`] (SHAP values): for each sum, one per feature, then the expected value.
    Contributions,
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

    /// Adds a validation set, which must be made with [`DatasetBuilder::aligned`] of the training set.
    ///
    /// [`DatasetBuilder::aligned`]: crate::lightgbm::DatasetBuilder::aligned
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
            PredictionKind::Contributions => c::C_API_PREDICT_CONTRIB,
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
