//! The measurements of a run, compared with their bounds: a table, and a file in `target/bench`.

use std::{fs, path::Path};

use serde_json::{Map, Value, json};

/// All measurements of a run.
#[derive(Default)]
pub(crate) struct Verdicts {
    rows: Vec<Row>,
    figures: Map<String, Value>,
}

struct Row {
    name: String,
    bound: String,
    measured: String,
    /// The same by another measure, or what the measurement consists of.
    besides: String,
    /// `None` for a measurement without a bound.
    holds: Option<bool>,
}

/// The side of a bound on which a measurement must be.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            Self::AtMost(bound) => measured <= bound,
            Self::AtLeast(bound) => measured >= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(bound) => format!("<= {bound:.2}"),
            Self::AtLeast(bound) => format!(">= {bound:.2}"),
        }
    }
}

impl Verdicts {
    /// Adds a ratio.
    pub(crate) fn ratio(&mut self, name: &str, measured: f64, bound: Option<Bound>) {
        let text = bound.map_or("-".to_owned(), Bound::text);
        let holds = bound.map(|bound| bound.holds(measured));
        self.row(name, &text, format!("{measured:.2}"), holds);
    }

    /// Adds a measurement.
    pub(crate) fn row(&mut self, name: &str, bound: &str, measured: String, holds: Option<bool>) {
        let (name, bound) = (name.to_owned(), bound.to_owned());
        self.rows.push(Row { name, bound, measured, besides: String::new(), holds });
    }

    /// Adds to the last measurement.
    pub(crate) fn besides(&mut self, text: String) {
        if let Some(row) = self.rows.last_mut() {
            row.besides = text;
        }
    }

    /// Adds figures to the file only.
    pub(crate) fn figure(&mut self, name: &str, figures: Value) {
        self.figures.insert(name.to_owned(), figures);
    }

    /// Prints the table; `besides` is the heading of its last column.
    pub(crate) fn print(&self, besides: &str) {
        println!("\n{:<48} {:>12} {:>14}  {besides}", "", "bound", "measured");
        for Row { name, bound, measured, besides, holds } in &self.rows {
            let verdict = match holds {
                None => "      ",
                Some(true) => "ok    ",
                Some(false) => "MISSED",
            };
            let line = format!("{name:<48} {bound:>12} {measured:>14}  {verdict}  {besides}");
            println!("{}", line.trim_end());
        }
    }

    /// Writes `target/bench/<name>.json`.
    pub(crate) fn write(self, name: &str) -> anyhow::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&folder)?;
        let verdicts = self.rows.iter().map(|row| {
            json!({ "name": row.name.trim(), "bound": row.bound, "measured": row.measured,
                "besides": row.besides, "holds": row.holds })
        });
        let all = json!({ "verdicts": verdicts.collect::<Vec<_>>(), "figures": self.figures });
        let file = folder.join(name).with_extension("json");
        fs::write(&file, format!("{all:#}\n"))?;
        println!("\nall figures are in {}", file.display());
        Ok(())
    }
}
