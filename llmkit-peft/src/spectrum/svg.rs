use std::fmt::Write;

use super::{LayerSpectrum, Spectrum};

const PANEL: (f64, f64) = (220.0, 150.0);
const GAP: (f64, f64) = (60.0, 60.0);
const MARGIN: (f64, f64) = (50.0, 40.0);
const COLUMNS: usize = 4;

/// Draws [`Spectrum::to_svg`](super::Spectrum::to_svg)'s picture.
pub(super) fn draw(spectrum: &Spectrum) -> String {
    let panels = panels(spectrum);
    let columns = panels.len().clamp(1, COLUMNS);
    let rows = panels.len().div_ceil(COLUMNS).max(1);
    let width = 2.0 * MARGIN.0 + columns as f64 * (PANEL.0 + GAP.0) - GAP.0;
    let height = 2.0 * MARGIN.1 + rows as f64 * (PANEL.1 + GAP.1) - GAP.1 + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, (kind, layers)) in panels.iter().enumerate() {
        let x = MARGIN.0 + (index % COLUMNS) as f64 * (PANEL.0 + GAP.0);
        let y = MARGIN.1 + (index / COLUMNS) as f64 * (PANEL.1 + GAP.1);
        panel(&mut svg, (x, y), kind, layers);
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" fill=\"#555\">singular values over the largest; light: first block, dark: last; dot: effective rank</text>",
        MARGIN.0,
        height - 8.0
    );
    svg + "</svg>\n"
}

/// The layers by the last part of their path, in the order in which the kinds come.
fn panels(spectrum: &Spectrum) -> Vec<(&str, Vec<&LayerSpectrum>)> {
    let mut panels: Vec<(&str, Vec<&LayerSpectrum>)> = Vec::new();
    for layer in &spectrum.layers {
        let kind = layer.path.rsplit('.').next().unwrap_or(&layer.path);
        match panels.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, layers)) => layers.push(layer),
            None => panels.push((kind, vec![layer])),
        }
    }
    panels
}

fn panel(svg: &mut String, (x, y): (f64, f64), kind: &str, layers: &[&LayerSpectrum]) {
    let most = layers.iter().map(|layer| layer.singular_values.len()).max().unwrap_or(1);
    let across = |index: f64| x + PANEL.0 * index / (most.max(2) - 1) as f64;
    let up = |share: f64| y + PANEL.1 * (1.0 - share);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>\n\
         <rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"none\" stroke=\"#bbb\"/>",
        y - 8.0,
        escape(kind),
        PANEL.0,
        PANEL.1
    );
    for (text, share) in [("1", 1.0), ("0.5", 0.5), ("0", 0.0)] {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{text}</text>",
            x - 5.0,
            up(share) + 4.0
        );
    }
    for index in [1, most] {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{index}</text>",
            across((index - 1) as f64),
            y + PANEL.1 + 14.0
        );
    }
    for (number, layer) in layers.iter().enumerate() {
        let largest = layer.singular_values.first().copied().filter(|value| *value > 0.0);
        let Some(largest) = largest else { continue };
        let depth = number as f64 / (layers.len().max(2) - 1) as f64;
        let colour = colour(depth);
        let share = |value: f32| f64::from(value / largest);
        let points = layer.singular_values.iter().enumerate();
        let points: Vec<String> = points
            .map(|(index, value)| format!("{:.1},{:.1}", across(index as f64), up(share(*value))))
            .collect();
        let effective = layer.effective_rank();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"><title>{}: effective rank {effective:.2}, norm {:.3e}</title></polyline>",
            points.join(" "),
            escape(&layer.path),
            layer.norm()
        );
        // On the curve, between its points.
        let place = (effective - 1.0).max(0.0);
        let at = |index: usize| layer.singular_values.get(index).map_or(0.0, |value| share(*value));
        let (left, part) = (place.floor(), place.fract());
        let height = at(left as usize) * (1.0 - part) + at(left as usize + 1) * part;
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>",
            across(place),
            up(height)
        );
    }
}

/// From light to dark blue.
fn colour(depth: f64) -> String {
    let mix = |light: f64, dark: f64| (light + (dark - light) * depth).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(158.0, 8.0), mix(202.0, 48.0), mix(225.0, 107.0))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
