//! Data sets: rows of features in bins, made in two passes over the rows, which need not be in memory.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    marker::PhantomData,
    ptr,
};

use lightgbm3_sys as c;

use crate::lightgbm::{FIXED, LightGbmError, check, constant, count, same_length, silence, text};

/// Rows in LightGBM's binned form. Boosters borrow it.
#[derive(Debug)]
pub struct Dataset {
    pub(super) handle: *mut c_void,
    pub(super) features: usize,
    /// Makes the type neither `Send` nor `Sync`; `Send` is implemented below.
    not_sync: PhantomData<*mut ()>,
}

// SAFETY: a data set owns its memory and is not bound to a thread; LightGBM's thread-locals (last error, log level and
// callback) do not refer to it. It is not `Sync`, so only the thread that owns it uses it.
unsafe impl Send for Dataset {}

impl Dataset {
    /// Sets a field that has one number for each row.
    fn set(&self, field: &CStr, numbers: &[f32]) -> Result<(), LightGbmError> {
        let rows = count("the rows", numbers.len())?;
        // SAFETY: there are `rows` numbers, and LightGBM copies them.
        check("LGBM_DatasetSetField", unsafe {
            let numbers = numbers.as_ptr().cast();
            let kind = constant(c::C_API_DTYPE_FLOAT32);
            c::LGBM_DatasetSetField(self.handle, field.as_ptr(), numbers, rows, kind)
        })
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

/// Finds the bins of a data set from the rows that LightGBM draws: the first of two passes over the rows, which need not be
/// in memory. The result is that of `LGBM_DatasetCreateFromMat` with all rows.
#[derive(Debug)]
pub struct DatasetDraft {
    rows: usize,
    feature_names: Vec<String>,
    parameters: CString,
    /// By feature: the values of the drawn rows that are not 0, and the places of these rows among the drawn ones.
    drawn: Vec<(Vec<f64>, Vec<c_int>)>,
    rows_drawn: usize,
    rows_learned: usize,
}

impl DatasetDraft {
    /// A data set of `rows` rows. `parameters` are LightGBM's, as `name=value` separated by blanks; `categorical` are the
    /// indexes of the features whose values are codes: whole numbers, 0 or more.
    ///
    /// # Errors
    /// [`LightGbmError`] if there are no or too many rows, or `categorical` names a feature that there is not.
    pub fn new(
        rows: usize,
        feature_names: Vec<String>,
        categorical: &[usize],
        parameters: &str,
    ) -> Result<Self, LightGbmError> {
        let features = feature_names.len();
        same_length("the rows", rows, rows.max(1))?;
        count("the rows", rows)?;
        count("the features", features)?;
        if let Some(beyond) = categorical.iter().find(|feature| **feature >= features) {
            same_length("a row", features, beyond + 1)?;
        }
        let categorical: Vec<String> = categorical.iter().map(ToString::to_string).collect();
        let categorical = match categorical.is_empty() {
            true => String::new(),
            false => format!(" categorical_feature={}", categorical.join(",")),
        };
        let parameters = text("the parameters", &format!("{FIXED}{parameters}{categorical}"))?;
        let drawn = vec![(Vec::new(), Vec::new()); features];
        Ok(Self { rows, feature_names, parameters, drawn, rows_drawn: 0, rows_learned: 0 })
    }

    /// The indexes of the drawn rows, ascending (`LGBM_SampleIndices`). [`Self::learn`] takes them in this order.
    ///
    /// # Errors
    /// [`LightGbmError::Call`] if LightGBM refuses the parameters.
    pub fn draw(&mut self) -> Result<Vec<usize>, LightGbmError> {
        let (rows, parameters) = (count("the rows", self.rows)?, self.parameters.as_ptr());
        let (mut number, mut written) = (0, 0);
        silence()?;
        // SAFETY: the parameters end in a NUL.
        check("LGBM_GetSampleCount", unsafe {
            c::LGBM_GetSampleCount(rows, parameters, &raw mut number)
        })?;
        let mut indexes = vec![0_i32; usize::try_from(number).expect("LightGBM counts from 0")];
        // SAFETY: LightGBM writes as many indexes as it has counted.
        check("LGBM_SampleIndices", unsafe {
            c::LGBM_SampleIndices(rows, parameters, indexes.as_mut_ptr().cast(), &raw mut written)
        })?;
        indexes.truncate(usize::try_from(written).expect("LightGBM counts from 0"));
        self.rows_drawn = indexes.len();
        let index = |index| usize::try_from(index).expect("LightGBM numbers rows from 0");
        Ok(indexes.into_iter().map(index).collect())
    }

    /// Takes the features of the next drawn row; NaN is missing.
    ///
    /// # Errors
    /// [`LightGbmError::Length`] if the row has another number of features.
    pub fn learn(&mut self, row: &[f64]) -> Result<(), LightGbmError> {
        /// LightGBM's `kZeroThreshold`: numbers up to it are left out as zeros.
        const ZERO_MAX: f32 = 1e-35;
        same_length("a row", row.len(), self.drawn.len())?;
        let place = count("the drawn rows", self.rows_learned)?;
        for (value, (values, places)) in row.iter().zip(&mut self.drawn) {
            if value.abs() > f64::from(ZERO_MAX) || value.is_nan() {
                values.push(*value);
                places.push(place);
            }
        }
        self.rows_learned += 1;
        Ok(())
    }

    /// Makes the bins (`LGBM_DatasetCreateFromSampledColumn`), for the second pass.
    ///
    /// # Errors
    /// [`LightGbmError::Length`] if other rows than the drawn ones were learned; [`LightGbmError::Call`] if LightGBM refuses
    /// the parameters.
    pub fn build(mut self) -> Result<DatasetBuilder, LightGbmError> {
        same_length("the drawn rows", self.rows_learned, self.rows_drawn)?;
        let lengths: Result<Vec<i32>, _> =
            self.drawn.iter().map(|(values, _)| count("the drawn rows", values.len())).collect();
        let lengths = lengths?;
        let (mut values, mut places): (Vec<*mut f64>, Vec<*mut c_int>) =
            self.drawn.iter_mut().map(|(v, p)| (v.as_mut_ptr(), p.as_mut_ptr())).unzip();
        let rows = count("the rows", self.rows)?;
        let mut handle = ptr::null_mut();
        silence()?;
        // SAFETY: for each feature a pointer to as many values and places as `lengths` says, which LightGBM may reorder;
        // it keeps none of them.
        check("LGBM_DatasetCreateFromSampledColumn", unsafe {
            c::LGBM_DatasetCreateFromSampledColumn(
                values.as_mut_ptr(),
                places.as_mut_ptr(),
                count("the features", lengths.len())?,
                lengths.as_ptr(),
                count("the drawn rows", self.rows_drawn)?,
                rows,
                rows.into(),
                self.parameters.as_ptr(),
                &raw mut handle,
            )
        })?;
        DatasetBuilder::new(handle, self.rows, &self.feature_names)
    }
}

/// A data set whose rows are pushed one after the other. Only their bins are kept.
#[derive(Debug)]
pub struct DatasetBuilder {
    dataset: Dataset,
    rows: usize,
    pushed: usize,
    /// Features of rows that LightGBM has not got yet, in row-major order.
    block: Vec<f64>,
}

/// Rows that are handed to LightGBM in one call.
const BLOCK_ROWS: usize = 1_024;

impl DatasetBuilder {
    /// A data set of `rows` rows with the bins of another, so that a booster of `other` can be validated on it.
    ///
    /// # Errors
    /// [`LightGbmError::Length`] if there are no or too many rows, or their number of features differs from that of `other`.
    pub fn aligned(
        other: &Dataset,
        rows: usize,
        feature_names: &[String],
    ) -> Result<Self, LightGbmError> {
        same_length("a row", feature_names.len(), other.features)?;
        same_length("the rows", rows, rows.max(1))?;
        let mut handle = ptr::null_mut();
        silence()?;
        // SAFETY: the other data set is alive.
        check("LGBM_DatasetCreateByReference", unsafe {
            let rows = count("the rows", rows)?.into();
            c::LGBM_DatasetCreateByReference(other.handle, rows, &raw mut handle)
        })?;
        Self::new(handle, rows, feature_names)
    }

    fn new(handle: *mut c_void, rows: usize, names: &[String]) -> Result<Self, LightGbmError> {
        // From here on, `drop` frees the handle also after an error.
        let dataset = Dataset { handle, features: names.len(), not_sync: PhantomData };
        dataset.name_features(names)?;
        let block = Vec::with_capacity(BLOCK_ROWS.min(rows) * names.len());
        Ok(Self { dataset, rows, pushed: 0, block })
    }

    /// Takes the features of the next row; NaN is missing.
    ///
    /// # Errors
    /// [`LightGbmError::Length`] if the row has another number of features, or there are too many rows.
    pub fn push(&mut self, row: &[f64]) -> Result<(), LightGbmError> {
        same_length("a row", row.len(), self.dataset.features)?;
        self.block.extend_from_slice(row);
        let waiting = self.block.len() / row.len().max(1);
        let after = self.pushed + waiting;
        same_length("the rows", after, after.min(self.rows))?;
        if waiting == BLOCK_ROWS || after == self.rows {
            self.flush(waiting)?;
        }
        Ok(())
    }

    /// Bins the rows of the block (`LGBM_DatasetPushRows`); with the last row, LightGBM finishes the data set.
    fn flush(&mut self, waiting: usize) -> Result<(), LightGbmError> {
        // SAFETY: the block has `waiting` rows, and LightGBM has room for them: `push` has checked their number.
        check("LGBM_DatasetPushRows", unsafe {
            c::LGBM_DatasetPushRows(
                self.dataset.handle,
                self.block.as_ptr().cast(),
                constant(c::C_API_DTYPE_FLOAT64),
                count("the rows", waiting)?,
                count("the features", self.dataset.features)?,
                count("the rows", self.pushed)?,
            )
        })?;
        self.pushed += waiting;
        self.block.clear();
        Ok(())
    }

    /// The data set. There is one label for each row, the index of its class, and one weight, or none if all are 1.
    ///
    /// # Errors
    /// [`LightGbmError::Length`] if rows, labels or weights are missing.
    pub fn finish(self, labels: &[f32], weights: &[f32]) -> Result<Dataset, LightGbmError> {
        same_length("the rows", self.pushed, self.rows)?;
        same_length("the labels", labels.len(), self.rows)?;
        self.dataset.set(c"label", labels)?;
        if !weights.is_empty() {
            same_length("the weights", weights.len(), self.rows)?;
            self.dataset.set(c"weight", weights)?;
        }
        Ok(self.dataset)
    }
}

impl Drop for Dataset {
    fn drop(&mut self) {
        // SAFETY: the handle was made by LightGBM, and no booster that borrows it is left.
        let freed = check("LGBM_DatasetFree", unsafe { c::LGBM_DatasetFree(self.handle) });
        debug_assert!(freed.is_ok(), "{freed:?}");
    }
}
