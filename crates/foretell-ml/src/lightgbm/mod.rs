//! A small safe wrapper of LightGBM's C API, for training; serving uses [`crate::trees`]. These are the only files that
//! name the library and, except for one call in `crates/foretell-kafka/src/token.rs`, the only ones with `unsafe` code.
//!
//! Rules that make it sound and reproducible on every machine:
//! - every length is checked before a pointer is passed;
//! - a data set may move between threads but is never shared (`Send`, not `Sync`), and a booster borrows its data sets,
//!   so that they outlive it;
//! - every call runs on one thread ([`FIXED`]), because LightGBM's thread count is an unsynchronised global of the
//!   process. Parallel work uses several data sets and boosters, each on a thread of the caller;
//! - LightGBM's log level and log callback are thread-local, so they are set wherever an object is created.
#![expect(unsafe_code, reason = "LightGBM is a C library; everything it is handed is checked here")]

mod booster;
mod dataset;

use std::ffi::{CStr, CString, c_char, c_int};

use lightgbm3_sys as c;

pub use self::{
    booster::{Booster, Growth, PredictionKind},
    dataset::{Dataset, DatasetBuilder, DatasetDraft},
};

/// The version of LightGBM that `lightgbm3-sys` 1.0.11 builds.
pub const VERSION: &str = "4.7.0";

/// Parameters before every parameter string: one thread, deterministic results, no output. In one thread, histograms by column
/// give the same trees as histograms by row, and take up to 30 % less time if a tree uses a part of the features.
const FIXED: &str = "num_threads=1 deterministic=true force_col_wise=true verbosity=-1 ";

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

/// Discards LightGBM's log on this thread; errors are returned anyway. Without a callback LightGBM prints to the
/// standard output until the first call with parameters has set its log level. Fatal errors pass by the callback: LightGBM
/// prints them to the standard error before it returns them.
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
pub(crate) mod tests {
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

    /// Rows in row-major order, with their labels.
    #[derive(Clone, Copy)]
    pub(crate) struct Matrix<'a> {
        pub(crate) rows: &'a [f64],
        pub(crate) labels: &'a [f32],
        pub(crate) feature_names: &'a [String],
        pub(crate) categorical: &'a [usize],
    }

    pub(crate) fn dataset(matrix: Matrix<'_>, parameters: &str) -> Result<Dataset, LightGbmError> {
        let Matrix { rows, labels, feature_names, categorical } = matrix;
        let names = feature_names.to_vec();
        let mut draft = DatasetDraft::new(labels.len(), names, categorical, parameters)?;
        let row = |index: usize| &rows[index * feature_names.len()..][..feature_names.len()];
        for index in draft.draw()? {
            draft.learn(row(index))?;
        }
        pushed(draft.build()?, matrix)
    }

    fn pushed(mut builder: DatasetBuilder, matrix: Matrix<'_>) -> Result<Dataset, LightGbmError> {
        for row in matrix.rows.chunks(matrix.feature_names.len()) {
            builder.push(row)?;
        }
        builder.finish(matrix.labels, &[])
    }

    fn aligned(other: &Dataset, matrix: Matrix<'_>) -> Result<Dataset, LightGbmError> {
        pushed(DatasetBuilder::aligned(other, matrix.labels.len(), matrix.feature_names)?, matrix)
    }

    #[test]
    fn a_booster_learns_and_survives_a_round_trip_as_text() {
        let ((rows, labels), names) = (rows(), names());
        let matrix =
            Matrix { rows: &rows, labels: &labels, feature_names: &names, categorical: &[1] };
        let training = dataset(matrix, PARAMETERS).unwrap();
        let validation = aligned(&training, matrix).unwrap();
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
        fn check<T: std::fmt::Debug>(result: Result<T, LightGbmError>, expected: &str) {
            let error = result.unwrap_err();
            assert!(
                matches!(error, LightGbmError::Length { argument, .. } if argument == expected),
                "{error}"
            );
        }
        let ((rows, labels), names) = (rows(), names());
        let matrix =
            Matrix { rows: &rows, labels: &labels, feature_names: &names, categorical: &[1] };
        let training = dataset(matrix, PARAMETERS).unwrap();
        check(aligned(&training, Matrix { rows: &rows[1..], ..matrix }), "a row");
        check(aligned(&training, Matrix { rows: &rows[2..], ..matrix }), "the rows");
        check(aligned(&training, Matrix { labels: &labels[1..], ..matrix }), "the rows");
        check(aligned(&training, Matrix { labels: &[], ..matrix }), "the rows");
        check(aligned(&training, Matrix { feature_names: &names[1..], ..matrix }), "a row");
        check(dataset(Matrix { categorical: &[2], ..matrix }, PARAMETERS), "a row");
        let draft = |rows| DatasetDraft::new(rows, names.clone(), &[1], PARAMETERS);
        check(draft(0), "the rows");
        check(draft(1 << 31), "the rows");
        let mut untaught = draft(200).unwrap();
        assert_eq!(untaught.draw().unwrap(), (0..200).collect::<Vec<_>>());
        check(untaught.learn(&rows[..1]), "a row");
        check(untaught.build(), "the drawn rows");
        let full = || {
            let mut builder = DatasetBuilder::aligned(&training, 1, &names).unwrap();
            builder.push(&rows[..2]).unwrap();
            builder
        };
        check(full().push(&rows[..2]), "the rows");
        check(full().finish(&[], &[]), "the labels");
        check(full().finish(&[0.0], &[1.0, 1.0]), "the weights");
        let booster = Booster::new(&training, PARAMETERS).unwrap();
        assert!(matches!(booster.evaluate(1), Err(LightGbmError::Length { .. })));
        assert!(matches!(
            booster.predict(&rows[1..], PredictionKind::Raw),
            Err(LightGbmError::Length { .. })
        ));
    }

    #[test]
    fn more_rows_than_a_draw_and_a_block_are_binned() {
        let rows: Vec<f64> =
            (0..5_000_u32).flat_map(|n| [(n % 90).into(), (n % 5).into()]).collect();
        let labels: Vec<f32> = (0..5_000_u32).map(|n| ((n % 90) / 45) as f32).collect();
        let names = names();
        let matrix =
            Matrix { rows: &rows, labels: &labels, feature_names: &names, categorical: &[1] };
        let parameters = format!("{PARAMETERS} bin_construct_sample_cnt=300");
        let mut draft = DatasetDraft::new(5_000, names.clone(), &[1], &parameters).unwrap();
        let drawn = draft.draw().unwrap();
        assert!(drawn.len() == 300 && drawn.is_sorted() && drawn[299] < 5_000, "{drawn:?}");
        let training = dataset(matrix, &parameters).unwrap();
        let mut booster = Booster::new(&training, &parameters).unwrap();
        for _ in 0..10 {
            booster.grow().unwrap();
        }
        assert!(booster.evaluate(0).unwrap()[1] > 0.999);
    }

    #[test]
    fn weights_decide_between_contradicting_labels() {
        let (rows, names) = ([1.0, 0.0].repeat(100), names());
        let labels: Vec<f32> = (0..100_u8).map(|n| f32::from(n % 2)).collect();
        let weights: Vec<f32> = labels.iter().map(|label| 1.0 + 2.0 * label).collect();
        let matrix =
            Matrix { rows: &rows, labels: &labels, feature_names: &names, categorical: &[1] };
        let unweighted = dataset(matrix, PARAMETERS).unwrap();
        let mut builder = DatasetBuilder::aligned(&unweighted, 100, &names).unwrap();
        for row in rows.chunks(2) {
            builder.push(row).unwrap();
        }
        let weighted = builder.finish(&labels, &weights).unwrap();
        let probability = |dataset: &Dataset| {
            let mut booster = Booster::new(dataset, PARAMETERS).unwrap();
            booster.grow().unwrap();
            booster.predict(&[1.0, 0.0], PredictionKind::Probability).unwrap()[0]
        };
        assert!((probability(&unweighted) - 0.5).abs() < 1e-6);
        assert!((probability(&weighted) - 0.75).abs() < 1e-6);
    }

    #[test]
    fn invalid_parameters_and_models_are_errors() {
        let ((rows, labels), names) = (rows(), names());
        let matrix =
            Matrix { rows: &rows, labels: &labels, feature_names: &names, categorical: &[1] };
        let training = dataset(matrix, PARAMETERS).unwrap();
        let error = Booster::new(&training, "objective=binary num_leaves=-1").unwrap_err();
        assert!(matches!(error, LightGbmError::Call { call: "LGBM_BoosterCreate", .. }), "{error}");
        let error = Booster::new(&training, "objective=binary\0").unwrap_err();
        assert_eq!(error, LightGbmError::Nul { argument: "the parameters" });
        assert!(Booster::load("not a model").is_err());
    }
}
