//! Units of boxes. In: a box as the policy wrote it. Out: ratios of the picture, or what is wrong with it; and the way back. Knows no
//! call.
//!
//! Models were taught to write boxes in different units, and one unit's box is another's whole picture: what lies outside the picture
//! is said and never clipped to it, but for a margin of rounding.

use hypereyes_domain::Area;
use serde::{Deserialize, Serialize};

/// Share of a side by which an edge may lie outside the picture and is taken for its edge: policies round.
pub const MARGIN: f64 = 0.05;

/// In what boxes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoxUnits {
    /// Ratios of width and height, 0 to 1. The default, and the grammar of the shipped policies.
    #[default]
    Ratio,
    /// Thousandths of width and height, 0 to 1000, as Qwen3-VL was taught.
    Thousandths,
    /// Pixels of the picture as the policy sees it, as Qwen2.5-VL was taught.
    Pixels,
}

impl BoxUnits {
    /// What the prompt says of boxes; nothing for ratios, which the grammar has.
    pub fn sentence(self) -> Option<&'static str> {
        match self {
            Self::Ratio => None,
            Self::Thousandths => Some("Areas are [x1,y1,x2,y2] in thousandths of the picture's width and height, 0 to 1000."),
            Self::Pixels => Some("Areas are [x1,y1,x2,y2] in pixels of the picture."),
        }
    }

    /// What edges are, in the words of a description.
    pub fn edges(self) -> &'static str {
        match self {
            Self::Ratio => "ratios of width and height, 0 to 1",
            Self::Thousandths => "thousandths of width and height, 0 to 1000",
            Self::Pixels => "pixels of the picture",
        }
    }

    /// A box as ratios, on a picture that the policy sees in `size` (width, height).
    ///
    /// # Errors
    /// What was expected, for the policy to read.
    pub fn read(self, area: Area, size: (u32, u32)) -> Result<Area, String> {
        let full = self.full(size);
        let edges = <[f64; 4]>::from(area);
        let within = |(edge, full): (&f64, &f64)| (-MARGIN * full..=(1.0 + MARGIN) * full).contains(edge);
        // A box of at most one pixel or thousandth is a box of ratios.
        let ratios = self != Self::Ratio && edges.iter().all(|edge| (0.0..=1.0).contains(edge));
        if ratios || !edges.iter().zip(&full).all(within) {
            return Err(format!("is {}, but edges are {}", shown(edges), self.expected(size)));
        }
        let ratio = |at: usize| (edges[at] / full[at]).clamp(0.0, 1.0);
        Ok(Area::from([ratio(0), ratio(1), ratio(2), ratio(3)]))
    }

    /// A box as a policy writes it in these units.
    pub fn write(self, area: Area, size: (u32, u32)) -> String {
        let (edges, full) = (<[f64; 4]>::from(area), self.full(size));
        let edge = |at: usize| match self {
            Self::Ratio => format!("{:.2}", edges[at]),
            Self::Thousandths | Self::Pixels => format!("{:.0}", edges[at] * full[at]),
        };
        format!("[{},{},{},{}]", edge(0), edge(1), edge(2), edge(3))
    }

    fn full(self, (width, height): (u32, u32)) -> [f64; 4] {
        match self {
            Self::Ratio => [1.0; 4],
            Self::Thousandths => [1000.0; 4],
            Self::Pixels => [width, height, width, height].map(f64::from),
        }
    }

    fn expected(self, (width, height): (u32, u32)) -> String {
        match self {
            Self::Ratio | Self::Thousandths => self.edges().into(),
            Self::Pixels => format!("pixels of a picture of {width} x {height}"),
        }
    }
}

/// Numbers in few letters, however large they are.
fn shown(edges: [f64; 4]) -> String {
    let number = |edge: f64| if edge.abs() < 1e7 { format!("{}", (edge * 1e4).round() / 1e4) } else { format!("{edge:e}") };
    format!("[{}]", edges.map(number).join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (u32, u32) = (192, 128);
    const UNITS: [BoxUnits; 3] = [BoxUnits::Ratio, BoxUnits::Thousandths, BoxUnits::Pixels];

    fn read(units: BoxUnits, edges: [f64; 4]) -> Result<[f64; 4], String> {
        units.read(edges.into(), SIZE).map(Into::into)
    }

    #[test]
    fn each_unit_reads_the_same_half_and_writes_it_back() {
        let half = [0.5, 0.25, 1.0, 0.75];
        let written = [half, [500.0, 250.0, 1000.0, 750.0], [96.0, 32.0, 192.0, 96.0]];
        let texts = ["[0.50,0.25,1.00,0.75]", "[500,250,1000,750]", "[96,32,192,96]"];
        for ((units, edges), text) in UNITS.into_iter().zip(written).zip(texts) {
            assert_eq!(read(units, edges), Ok(half), "{units:?}");
            assert_eq!(units.write(half.into(), SIZE), text);
        }
    }

    #[test]
    fn a_box_in_other_units_is_refused_with_what_was_expected() {
        let refused = |units, edges| read(units, edges).expect_err("other units");
        assert_eq!(
            refused(BoxUnits::Ratio, [0.0, 0.0, 500.0, 1000.0]),
            "is [0,0,500,1000], but edges are ratios of width and height, 0 to 1"
        );
        assert!(refused(BoxUnits::Ratio, [0.0, 0.0, 96.0, 64.0]).contains("ratios"));
        assert!(refused(BoxUnits::Thousandths, [0.0, 0.0, 0.5, 1.0]).contains("thousandths of width and height, 0 to 1000"));
        assert!(refused(BoxUnits::Thousandths, [0.0, 0.0, 1920.0, 1080.0]).contains("0 to 1000"));
        assert_eq!(
            refused(BoxUnits::Pixels, [0.0, 0.0, 1000.0, 1000.0]),
            "is [0,0,1000,1000], but edges are pixels of a picture of 192 x 128"
        );
        assert!(refused(BoxUnits::Pixels, [0.0, 0.0, 0.5, 1.0]).contains("pixels"));
    }

    #[test]
    fn rounding_is_forgiven_and_nothing_more() {
        assert_eq!(read(BoxUnits::Ratio, [-0.02, 0.0, 1.000_000_1, 1.05]), Ok([0.0, 0.0, 1.0, 1.0]));
        assert_eq!(read(BoxUnits::Thousandths, [0.0, 0.0, 1024.0, 1000.0]), Ok([0.0, 0.0, 1.0, 1.0]));
        for edges in [[0.0, 0.0, 1.06, 1.0], [-0.06, 0.0, 1.0, 1.0], [0.0, -1.0, 0.5, 2.0]] {
            assert!(read(BoxUnits::Ratio, edges).is_err(), "{edges:?}");
        }
        let nothing = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300];
        for (units, edge) in UNITS.into_iter().flat_map(|units| nothing.map(|edge| (units, edge))) {
            let said = read(units, [0.0, 0.0, edge, 1.0]).expect_err("no edge");
            assert!(said.len() < 100, "{said}");
        }
    }
}
