//! Line charts as SVG, and pages of HTML that contain them and a table.

use std::{fmt::Write as _, ops::Range};

use plotters::prelude::*;

/// Width and height of a chart in pixels.
const SIZE: (u32, u32) = (960, 480);
/// Colours that people with colour blindness can tell apart (Okabe and Ito). Series beyond the last begin again.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

/// A chart of several series over one axis.
#[derive(Clone, Debug, Default)]
pub struct LineChart {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    /// Drawn in this order, so a later one is above an earlier one.
    pub series: Vec<Series>,
}

/// A line with a name in the legend.
#[derive(Clone, Debug, Default)]
pub struct Series {
    pub name: String,
    /// Pairs of x and y, in the order of the line. A pair with a number that is not finite is left out.
    pub points: Vec<(f64, f64)>,
    /// Points that are marked by a dot.
    pub marks: Vec<(f64, f64)>,
}

impl LineChart {
    /// The chart as one `<svg>` element. The same chart gives the same text.
    ///
    /// # Errors
    /// If the drawing fails, which is not known to happen.
    pub fn to_svg(&self) -> anyhow::Result<String> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            area.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&area)
                .caption(&self.title, ("sans-serif", 20))
                .margin(16)
                .x_label_area_size(44)
                .y_label_area_size(72)
                .build_cartesian_2d(self.bounds(|point| point.0), self.bounds(|point| point.1))?;
            chart
                .configure_mesh()
                .x_desc(&self.x_label)
                .y_desc(&self.y_label)
                .light_line_style(TRANSPARENT)
                .draw()?;
            for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
                let style = colour.stroke_width(2);
                chart
                    .draw_series(LineSeries::new(series.finite(), style))?
                    .label(&series.name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
                let dot = |mark: &(f64, f64)| Circle::new(*mark, 4, colour.filled());
                chart.draw_series(series.marks.iter().map(dot))?;
            }
            chart
                .configure_series_labels()
                .position(self.emptiest_corner())
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.3))
                .draw()?;
            area.present()?;
        }
        Ok(svg)
    }

    /// The corner with the fewest points, for the legend.
    fn emptiest_corner(&self) -> SeriesLabelPosition {
        let (x, y) = (self.bounds(|point| point.0), self.bounds(|point| point.1));
        // A legend takes about a quarter of the width and a third of the height.
        let is_near = |value: f64, range: &Range<f64>, at_end: bool, share: f64| {
            let place = (value - range.start) / (range.end - range.start);
            if at_end { place > 1.0 - share } else { place < share }
        };
        let points = |right: bool, top: bool| {
            let near = |point: &(f64, f64)| {
                is_near(point.0, &x, right, 0.25) && is_near(point.1, &y, top, 0.35)
            };
            self.series.iter().flat_map(Series::finite).filter(near).count()
        };
        let corners = [
            (SeriesLabelPosition::UpperRight, points(true, true)),
            (SeriesLabelPosition::LowerRight, points(true, false)),
            (SeriesLabelPosition::UpperLeft, points(false, true)),
            (SeriesLabelPosition::LowerLeft, points(false, false)),
        ];
        let emptiest = corners.into_iter().min_by_key(|(_, points)| *points);
        emptiest.map_or(SeriesLabelPosition::UpperRight, |(corner, _)| corner)
    }

    /// The range of one coordinate over all series, a little wider than the points; 0 to 1 without points.
    fn bounds(&self, of: fn((f64, f64)) -> f64) -> Range<f64> {
        let values = || self.series.iter().flat_map(Series::finite).map(of);
        let (low, high) =
            (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        if low > high {
            return 0.0..1.0;
        }
        let margin = (high - low) * 0.03;
        // A range of one value has no length, and axes need one.
        let margin = if margin > 0.0 { margin } else { low.abs().max(1.0) * 0.03 };
        low - margin..high + margin
    }
}

impl Series {
    fn finite(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite())
    }
}

/// A page of HTML that needs no other file: the title, the charts, and tables with their headings. The first row of a table is
/// its head.
///
/// # Errors
/// As [`LineChart::to_svg`].
pub fn page(
    title: &str,
    charts: &[LineChart],
    tables: &[(&str, Vec<Vec<String>>)],
) -> anyhow::Result<String> {
    let title = escaped(title);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>\nbody {{ font-family: sans-serif; margin: 2rem; }}\nsvg {{ max-width: 100%; height: auto; }}\n\
         div {{ overflow-x: auto; }}\ntable {{ border-collapse: collapse; }}\nth, td {{ padding: 0.3rem 0.8rem; text-align: left; \
         border-bottom: 1px solid #ccc; }}\n</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    );
    for chart in charts {
        writeln!(page, "{}", chart.to_svg()?)?;
    }
    for (heading, rows) in tables {
        writeln!(page, "<h2>{}</h2>\n<div><table>", escaped(heading))?;
        for (number, row) in rows.iter().enumerate() {
            let tag = if number == 0 { "th" } else { "td" };
            let cells: String =
                row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
            writeln!(page, "<tr>{cells}</tr>")?;
        }
        page.push_str("</table></div>\n");
    }
    page.push_str("</body>\n</html>\n");
    Ok(page)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(series: &[(&str, &[(f64, f64)])]) -> LineChart {
        let series = series.iter().map(|(name, points)| Series {
            name: (*name).to_owned(),
            points: points.to_vec(),
            marks: Vec::new(),
        });
        LineChart {
            title: "loss <by> trial & sampler".to_owned(),
            x_label: "trials".to_owned(),
            y_label: "log loss".to_owned(),
            series: series.collect(),
        }
    }

    #[test]
    fn each_series_is_a_line_with_its_name() {
        let chart =
            chart(&[("tpe", &[(0.0, 0.3), (1.0, 0.28)]), ("gp", &[(0.0, 0.3), (1.0, 0.2)])]);
        let svg = chart.to_svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for text in ["tpe", "gp", "trials", "log loss", "loss &lt;by&gt; trial &amp; sampler"] {
            assert!(svg.contains(text), "{text}");
        }
        for colour in ["#0072B2", "#D55E00"] {
            let lines = svg.lines().filter(|line| line.starts_with("<polyline"));
            let lines = lines.filter(|line| line.contains(colour)).count();
            assert_eq!(lines, 2, "one in the chart and one in the legend: {colour}");
        }
        assert_eq!(chart.to_svg().unwrap(), svg);
    }

    #[test]
    fn charts_without_points_and_of_one_point_can_be_drawn() {
        let check = |series: &[(&str, &[(f64, f64)])], x: Range<f64>| {
            let chart = chart(series);
            let bounds = chart.bounds(|point| point.0);
            assert!((bounds.start - x.start).abs() < 1e-9, "{bounds:?}");
            assert!((bounds.end - x.end).abs() < 1e-9, "{bounds:?}");
            assert!(!chart.to_svg().unwrap().contains("NaN"));
        };
        check(&[], 0.0..1.0);
        check(&[("none", &[])], 0.0..1.0);
        check(&[("one", &[(100.0, 3.0)])], 97.0..103.0);
        check(&[("odd", &[(f64::NAN, 1.0), (2.0, f64::INFINITY), (0.0, 0.0)])], -0.03..0.03);
        check(&[("two", &[(0.0, 0.0), (100.0, 0.0)])], -3.0..103.0);
    }

    #[test]
    fn more_series_than_colours_can_be_drawn() {
        let names: Vec<String> = (0..20).map(|number| format!("series {number}")).collect();
        let series: Vec<_> =
            names.iter().map(|name| (name.as_str(), [(0.0, 0.0), (1.0, 1.0)])).collect();
        let series: Vec<(&str, &[(f64, f64)])> =
            series.iter().map(|(name, points)| (*name, points.as_slice())).collect();
        let svg = chart(&series).to_svg().unwrap();
        assert!(names.iter().all(|name| svg.contains(name.as_str())));
    }

    #[test]
    fn a_page_has_its_charts_and_its_table() {
        let table = vec![vec!["sampler".to_owned()], vec!["<tpe>".to_owned()]];
        let page = page("tune & co", &[chart(&[]), chart(&[])], &[("Best & rest", table)]).unwrap();
        assert_eq!(page.matches("<svg").count(), 2);
        for part in [
            "<title>tune &amp; co</title>",
            "<th>sampler</th>",
            "<td>&lt;tpe&gt;</td>",
            "</table>",
            "Best &amp; rest",
        ] {
            assert!(page.contains(part), "{part}");
        }
    }
}
