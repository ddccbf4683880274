//! A picture of boots: for each mark a bar up to its median, with a line from its least to its largest value.

use plotters::prelude::*;

use super::{MEASURES, Measure, Series, spread};
use crate::{Error, Result};

const SIZE: (u32, u32) = (900, 420);
const COLORS: [RGBColor; 2] = [RGBColor(31, 119, 180), RGBColor(255, 127, 14)];

/// Draws the times of some boots as SVG.
///
/// # Errors
/// [`Error::Chart`] when it cannot be drawn.
pub fn chart(title: &str, all: &[Series]) -> Result<String> {
    draw(title, all).map_err(|error| Error::Chart { problem: error.to_string() })
}

fn draw(title: &str, all: &[Series]) -> Result<String, Box<dyn std::error::Error>> {
    let measures: Vec<&Measure> =
        MEASURES.iter().filter(|measure| measure.unit == "s" && measure.name != "delete").collect();
    let most = all
        .iter()
        .flat_map(|series| measures.iter().filter_map(|measure| spread(measure, &series.runs)))
        .fold(1.0_f64, |most, spread| most.max(spread.max));
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        // A unit of the vertical axis for each mark, the first on top.
        let height = measures.len() as f64;
        let mut context = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(150)
            .build_cartesian_2d(0.0..most * 1.08, 0.0..height)?;
        context
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc("seconds from the start of create")
            .x_label_formatter(&|seconds| format!("{seconds:.0}"))
            .draw()?;
        for (place, series) in all.iter().enumerate() {
            let color = COLORS[place % COLORS.len()];
            let thickness = 0.7 / all.len() as f64;
            let mut bars = Vec::new();
            let mut lines = Vec::new();
            for (index, measure) in measures.iter().enumerate() {
                let Some(spread) = spread(measure, &series.runs) else { continue };
                let top = height - index as f64 - 0.15 - place as f64 * thickness;
                let middle = top - thickness / 2.0;
                bars.push(Rectangle::new(
                    [(0.0, top), (spread.median, top - thickness * 0.9)],
                    color.mix(0.7).filled(),
                ));
                lines.push(PathElement::new(
                    [(spread.min, middle), (spread.max, middle)],
                    BLACK.stroke_width(2),
                ));
            }
            context
                .draw_series(bars)?
                .label(format!("{}, {} runs", series.tool, series.runs.len()))
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.mix(0.7).filled()));
            context.draw_series(lines)?;
        }
        let labels = measures.iter().enumerate().map(|(index, measure)| {
            let place = context.backend_coord(&(0.0, height - index as f64 - 0.5));
            Text::new(measure.title.to_owned(), (20, place.1 - 6), ("sans-serif", 14))
        });
        for label in labels {
            area.draw(&label)?;
        }
        context
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .border_style(BLACK)
            .background_style(WHITE)
            .draw()?;
        area.present()?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Boot, Tool};

    #[test]
    fn charts_name_what_they_show() {
        let boot = |pod| Boot { created_seconds: 12.0, pod_seconds: pod, ..Boot::default() };
        let all = [
            Series { tool: Tool::Kiln, runs: vec![boot(17.0), boot(19.0)] },
            Series { tool: Tool::Kind, runs: vec![boot(37.0)] },
        ];
        let text = chart("Boots of kiln/node:v1", &all).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"), "{text}");
        for part in ["Boots of kiln/node:v1", "pod resolved Service", "kiln, 2 runs", "kind, 1 runs"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        chart("nothing", &[]).unwrap();
    }
}
