//! When one concept takes the place of another.

/// A change of concept, abrupt or gradual. As in MOA's `ConceptDriftStream` (Bifet et al., "MOA: Massive Online Analysis",
/// 2010), the share of the new concept is a logistic function of the row.
///
/// ```text
///  share   1 ┤                 ╭─────────
///         .5 ┤             ╭───╯               .018 at `at - width`, .982 at `at + width`
///          0 ┤─────────────╯
///            └──────────────┬────────────▶ row
///                           at
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConceptChange {
    /// The first row of the new concept if the change is abrupt, and else its middle.
    pub at: u64,
    /// Rows in which the change happens; 0: it is abrupt.
    pub width: u64,
}

impl ConceptChange {
    /// Probability that a row is of the new concept.
    #[must_use]
    pub fn share_of_new(&self, row: u64) -> f64 {
        if self.width == 0 {
            return if row < self.at { 0.0 } else { 1.0 };
        }
        let distance = row as f64 - self.at as f64;
        1.0 / (1.0 + (-4.0 * distance / self.width as f64).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_step_or_a_logistic_function() {
        let check = |width, row, expected: f64| {
            let share = ConceptChange { at: 1_000, width }.share_of_new(row);
            assert!((share - expected).abs() < 5e-4, "{row}: {share}");
        };
        check(0, 0, 0.0);
        check(0, 999, 0.0);
        check(0, 1_000, 1.0);
        check(500, 0, 0.0003);
        check(500, 500, 0.018);
        check(500, 1_000, 0.5);
        check(500, 1_500, 0.982);
        check(1, u64::MAX, 1.0);
        check(u64::MAX, 1_000, 0.5);
    }
}
