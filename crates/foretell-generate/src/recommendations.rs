//! Items that a shop recommends to its visitors: each row is an item shown to a visitor, who ignores it, likes it, puts it into
//! the basket or buys it. The probabilities of the four are known, and what an offer would have changed.
//!
//! ```text
//!   shown ──────▶ liked ──────▶ basket ──────▶ bought        what comes later is an upgrade; each step but the last may
//!     │  10-25 min      5-20 min       5-40 min              be left out
//!     ├─ nothing: ignored
//!     └─ an offer makes some of those buy who would not have bought: those who can be persuaded, with probability `lift`
//! ```
//!
//! A visitor who comes back does so [`RETURN_AFTER`] rows later, so that the outcomes of two visits are far apart.

use crate::{Cell, Row, random::Random};

/// Names of the columns of a [`Row`].
pub const COLUMNS: [&str; 14] = [
    "visitor_id",
    "category",
    "price",
    "position",
    "device",
    "local_hour",
    "past_purchases",
    "dwell_seconds",
    "outcomes",
    "outcomes_if_acted",
    "p_ignored",
    "p_liked",
    "p_basket",
    "p_bought",
];
/// Name of a column with the name of each row.
pub const ID: &str = "impression_id";
/// Name of the column with the label: the last of the outcomes without an offer, or `ignored`.
pub const LABEL: &str = "outcome";
/// The labels; each is worth more than the one before it.
pub const LABELS: [&str; 4] = ["ignored", "liked", "basket", "bought"];
/// Rows between two visits of a visitor.
pub const RETURN_AFTER: u64 = 2_400;

const CATEGORIES: [&str; 8] =
    ["books", "games", "garden", "kitchen", "music", "shoes", "sports", "toys"];
const DEVICES: [&str; 3] = ["phone", "tablet", "desktop"];
const BOUGHT: usize = 3;
/// Share of the rows whose visitor was there before.
const RETURNING: f64 = 0.35;

/// Settings of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Random seed.
    pub seed: u64,
    /// Probability that an offer makes a visitor buy who can be persuaded and would not have bought: from 0 to 1.
    pub lift: f64,
}

/// The rows of a table, without end.
#[derive(Clone, Debug)]
pub struct Recommendations {
    settings: Settings,
    next: u64,
}

/// What random numbers are for.
const RETURNS: u64 = 1;
const VISITOR: u64 = 2;
const ITEM: u64 = 3;
const OUTCOME: u64 = 4;
const DELAYS: u64 = 5;
const OFFER: u64 = 6;

impl Recommendations {
    /// The table, from its first row on.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, next: 0 }
    }
}

impl Iterator for Recommendations {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let Settings { seed, lift } = self.settings;
        let row = self.next;
        self.next += 1;
        let impression = Impression::of_row(seed, row);
        let probabilities = impression.probabilities();
        let label = impression.label(seed, row);
        let mut delays = Random::of_row(seed, DELAYS, row);
        let outcomes = Outcomes::until(label, &mut delays);
        let is_persuaded = label != BOUGHT
            && impression.can_be_persuaded()
            && Random::of_row(seed, OFFER, row).unit() < lift;
        let mut if_acted = outcomes.clone();
        if is_persuaded {
            if_acted.push(BOUGHT, 600.0..2_400.0, &mut delays);
        }
        let mut cells = impression.cells(seed);
        cells.extend([outcomes, if_acted].map(|outcomes| Cell::Category(outcomes.to_string())));
        cells.extend(probabilities.map(|p| Cell::Number((p * 1e6).round() / 1e6)));
        Some(Row { cells, label: LABELS[label] })
    }
}

/// An item shown to a visitor.
struct Impression {
    /// The row of the visitor's first visit.
    visitor: u64,
    device: usize,
    /// Items that the visitor has bought before, without offers.
    past_purchases: u32,
    category: usize,
    price: f64,
    /// Place of the item on the page, from 1.
    position: u32,
    hour: u32,
    /// Time for which the item was on the screen.
    dwell: u32,
}

impl Impression {
    fn of_row(seed: u64, row: u64) -> Self {
        let mut item = Random::of_row(seed, ITEM, row);
        let category = place(item.below(8));
        let price = (item.between(2.0, 12.0).powi(2) * 100.0).round() / 100.0;
        let position = 1 + item.below(10);
        let hour = item.below(24);
        // Long looks are rare.
        let dwell = (60.0 * item.unit() * item.unit()).floor();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 59")]
        let dwell = dwell as u32;
        let before = earlier_visit(seed, row).map(|earlier| (Self::of_row(seed, earlier), earlier));
        let (visitor, device, past_purchases) = match before {
            Some((before, earlier)) => {
                let has_bought = before.label(seed, earlier) == BOUGHT;
                (before.visitor, before.device, before.past_purchases + u32::from(has_bought))
            }
            None => {
                let mut visitor = Random::of_row(seed, VISITOR, row);
                (row, place(visitor.below(3)), visitor.below(4))
            }
        };
        Self { visitor, device, past_purchases, category, price, position, hour, dwell }
    }

    /// The label without an offer.
    fn label(&self, seed: u64, row: u64) -> usize {
        let mut rest = Random::of_row(seed, OUTCOME, row).unit();
        let at = self.probabilities().iter().position(|probability| {
            rest -= probability;
            rest < 0.0
        });
        // Rounding may leave a rest.
        at.unwrap_or(0)
    }

    /// The probabilities of the labels without an offer: a multinomial logit with interactions.
    fn probabilities(&self) -> [f64; 4] {
        let Self { device, past_purchases, category, position, hour, .. } = *self;
        let (dwell, position) = (f64::from(self.dwell), f64::from(position));
        let past = f64::from(past_purchases.min(5));
        let is_evening = (18..23).contains(&hour);
        let when = |condition: bool, value: f64| if condition { value } else { 0.0 };
        let looks = (dwell / 20.0).min(2.0);
        // On phones, only the first places are seen without scrolling.
        let seen = -0.08 * position - when(device == 0 && position > 4.0, 1.5);
        let taste = [0.9, 0.4, -0.5, -0.2, 0.7, -0.8, 0.1, -0.4][category];
        let liked = -0.8 + 1.5 * taste + 1.1 * looks + seen + when(is_evening, 0.4);
        let basket = -1.6 + 1.3 * looks + 0.4 * past + seen - self.price / 80.0
            + when(device == 2, 0.6)
            + when(category == 5 && device == 0, 2.5);
        let bought = -3.4 + 1.9 * looks + 1.0 * past + seen - self.price / 50.0
            + when(device == 2 && is_evening, 1.6)
            + when(category % 3 == 0 && past >= 2.0, 1.2);
        let weights = [0.0, liked, basket, bought].map(f64::exp);
        let sum: f64 = weights.iter().sum();
        weights.map(|weight| weight / sum)
    }

    /// Whether an offer may change what the visitor does: they know the shop, and the item costs something.
    fn can_be_persuaded(&self) -> bool {
        self.past_purchases >= 1 && self.price >= 25.0
    }

    /// The first of [`COLUMNS`].
    fn cells(&self, seed: u64) -> Vec<Cell> {
        vec![
            Cell::Category(format!("visitor-{seed}-{}", self.visitor)),
            Cell::Category(CATEGORIES[self.category].to_owned()),
            Cell::Number(self.price),
            Cell::Number(self.position.into()),
            Cell::Category(DEVICES[self.device].to_owned()),
            Cell::Number(self.hour.into()),
            Cell::Number(self.past_purchases.into()),
            Cell::Number(self.dwell.into()),
        ]
    }
}

/// The row of the previous visit of a row's visitor; none if it is the first visit.
fn earlier_visit(seed: u64, row: u64) -> Option<u64> {
    let earlier = row.checked_sub(RETURN_AFTER)?;
    (Random::of_row(seed, RETURNS, row).unit() < RETURNING).then_some(earlier)
}

/// What a visitor does after an item was shown, in order of time: labels with the seconds since then.
#[derive(Clone)]
struct Outcomes(Vec<(usize, u64)>);

impl Outcomes {
    /// The steps to a label.
    fn until(label: usize, delays: &mut Random) -> Self {
        let mut outcomes = Self(Vec::new());
        let [likes, fills, likes_again] = [delays.unit(), delays.unit(), delays.unit()];
        if label == 1 || (label > 1 && likes < 0.7) {
            outcomes.push(1, 0.0..900.0, delays);
        }
        if label == 2 || (label > 2 && fills < 0.8) {
            outcomes.push(2, 300.0..1_200.0, delays);
        }
        if label == BOUGHT {
            outcomes.push(BOUGHT, 300.0..2_400.0, delays);
            // It changes nothing: what was bought stays bought.
            if likes_again < 0.1 {
                outcomes.push(1, 300.0..900.0, delays);
            }
        }
        outcomes
    }

    /// Adds an outcome after the others; the first one comes 10 minutes later than that.
    fn push(&mut self, label: usize, after: std::ops::Range<f64>, delays: &mut Random) {
        let last = self.0.last().map_or(600, |(_, at)| *at);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
        let after = delays.between(after.start, after.end) as u64;
        self.0.push((label, last + after));
    }
}

/// As `foretell` reads them: `liked after 725s; bought after 3010s`.
impl std::fmt::Display for Outcomes {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (label, seconds)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(to, "{separator}{} after {seconds}s", LABELS[*label])?;
        }
        Ok(())
    }
}

fn place(number: u32) -> usize {
    usize::try_from(number).expect("it is below a small bound")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ROWS: usize = 20_000;

    fn rows(lift: f64) -> Vec<Row> {
        Recommendations::new(Settings { seed: 1, lift }).take(ROWS).collect()
    }

    fn text(row: &Row, column: &str) -> String {
        let place = COLUMNS.iter().position(|name| *name == column).unwrap();
        row.cells[place].to_string()
    }

    fn number(row: &Row, column: &str) -> f64 {
        text(row, column).parse().unwrap()
    }

    fn probability(row: &Row, label: &str) -> f64 {
        number(row, &format!("p_{label}"))
    }

    /// Labels and seconds of a cell.
    fn outcomes(row: &Row, column: &str) -> Vec<(String, u64)> {
        let text = text(row, column);
        let parts = text.split("; ").filter(|part| !part.is_empty()).map(|part| {
            let (label, after) = part.split_once(" after ").unwrap();
            (label.to_owned(), after.trim_end_matches('s').parse().unwrap())
        });
        parts.collect()
    }

    #[test]
    fn labels_come_with_the_probabilities_of_their_columns() {
        let rows = rows(0.25);
        for label in LABELS {
            let expected: f64 = rows.iter().map(|row| probability(row, label)).sum();
            let variance: f64 = rows
                .iter()
                .map(|row| probability(row, label))
                .map(|probability| probability * (1.0 - probability))
                .sum();
            let found = rows.iter().filter(|row| row.label == label).count() as f64;
            // Four standard deviations.
            assert!(
                (found - expected).abs() < 4.0 * variance.sqrt(),
                "{label}: {found} {expected}"
            );
            assert!(found > 0.08 * ROWS as f64, "{label}: {found}");
        }
        let of_labels = rows.iter().map(|row| probability(row, row.label).ln());
        let log_loss = -of_labels.sum::<f64>() / ROWS as f64;
        let entropy = LABELS.map(|label| {
            let share = rows.iter().filter(|row| row.label == label).count() as f64 / ROWS as f64;
            -share * share.ln()
        });
        let without_answers: f64 = entropy.iter().sum();
        assert!(log_loss < 0.85 * without_answers, "{log_loss} {without_answers}");
    }

    #[test]
    fn outcomes_ascend_in_time_and_the_greatest_is_the_label() {
        let place = |label: &str| LABELS.iter().position(|one| *one == label).unwrap();
        let (mut upgraded, mut liked_after) = (0, 0);
        for row in rows(0.25) {
            let outcomes = outcomes(&row, "outcomes");
            assert!(outcomes.iter().is_sorted_by_key(|(_, after)| after), "{outcomes:?}");
            assert!(outcomes.iter().all(|(_, after)| (600..6_600).contains(after)), "{outcomes:?}");
            let greatest = outcomes.iter().map(|(label, _)| place(label)).max();
            assert_eq!(LABELS[greatest.unwrap_or(0)], row.label, "{outcomes:?}");
            upgraded += usize::from(outcomes.len() > 1);
            let last = outcomes.last().map(|(label, _)| label.as_str());
            liked_after += usize::from(row.label == "bought" && last == Some("liked"));
        }
        assert!(upgraded > ROWS / 10 && liked_after > ROWS / 200, "{upgraded} {liked_after}");
    }

    #[test]
    fn an_offer_raises_the_share_of_bought_by_the_lift_among_those_who_can_be_persuaded() {
        let is_bought = |row: &Row, column: &str| {
            let outcomes = outcomes(row, column);
            outcomes.iter().any(|(label, _)| label == "bought")
        };
        let (mut persuadable, mut bought, mut if_acted) = (0.0, 0.0, 0.0);
        for row in rows(0.25) {
            let without = outcomes(&row, "outcomes");
            let with = outcomes(&row, "outcomes_if_acted");
            assert_eq!(with[..without.len()], without, "an offer adds an outcome");
            if number(&row, "past_purchases") < 1.0 || number(&row, "price") < 25.0 {
                assert_eq!(with, without);
                continue;
            }
            persuadable += 1.0;
            bought += f64::from(u8::from(is_bought(&row, "outcomes")));
            if_acted += f64::from(u8::from(is_bought(&row, "outcomes_if_acted")));
        }
        assert!(persuadable > 0.3 * ROWS as f64, "{persuadable}");
        let expected = 0.25 * (persuadable - bought);
        let found = if_acted - bought;
        // Four standard deviations of a binomial distribution.
        assert!((found - expected).abs() < 4.0 * (0.75 * expected).sqrt(), "{found} {expected}");
        for row in rows(0.0) {
            assert_eq!(text(&row, "outcomes_if_acted"), text(&row, "outcomes"));
        }
    }

    #[test]
    fn visitors_return_far_apart_with_what_they_have_bought_before() {
        let mut visits: BTreeMap<String, Vec<(usize, Row)>> = BTreeMap::new();
        for (number, row) in rows(0.25).into_iter().enumerate() {
            visits.entry(text(&row, "visitor_id")).or_default().push((number, row));
        }
        let returning = visits.values().filter(|rows| rows.len() > 1).count();
        assert!((ROWS / 10..ROWS / 2).contains(&returning), "{returning} of {}", visits.len());
        for pair in visits.values().flat_map(|rows| rows.windows(2)) {
            let [(first, before), (second, after)] = pair else { unreachable!("pairs") };
            assert_eq!(u64::try_from(second - first).unwrap(), RETURN_AFTER);
            assert_eq!(text(before, "device"), text(after, "device"));
            let bought = number(after, "past_purchases") - number(before, "past_purchases");
            assert_eq!(bought > 0.5, before.label == "bought");
        }
    }

    /// Documents and tests of learning quote results on these tables.
    #[test]
    fn a_table_stays_the_same_with_every_release() {
        let lines = rows(0.25).into_iter().take(3).map(|row| {
            let cells: Vec<String> = row.cells.iter().map(Cell::to_string).collect();
            format!("{},{}", cells.join(","), row.label)
        });
        let lines: Vec<String> = lines.collect();
        let expected = [
            "visitor-1-0,sports,119.96,10,tablet,15,2,21,,,0.461556,0.343643,0.081459,0.113341,ignored",
            "visitor-1-1,books,16.11,3,phone,13,0,9,liked after 722s,liked after 722s,0.284535,0.636419,0.066319,0.012726,liked",
            "visitor-1-2,music,22.5,9,phone,14,2,11,,,0.725037,0.18516,0.054597,0.035206,ignored",
        ];
        assert_eq!(lines, expected);
    }
}
