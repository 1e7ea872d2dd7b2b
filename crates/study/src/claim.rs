//! Claims: comparisons of what arms come to. In: a line such as `rounds(trace) <= 0.8 x rounds(accuracy) and accuracy(trace) >=
//! accuracy(accuracy) - 3 points`. Out: its comparisons. It knows no number.
//!
//! ```text
//! claim      = comparison { "and" comparison }
//! comparison = quantity ( "<=" | ">=" ) side
//! side       = number | [ number "x" ] quantity [ ( "+" | "-" ) number [ "points" ] ]
//! quantity   = metric "(" arm [ "," kind of task ] ")"
//! ```

use std::fmt;
use std::str::FromStr;

use hypereyes_domain::TaskKind;
use hypereyes_eval::sums::Sums;
use serde::{Deserialize, Serialize};

/// What is measured of an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of right answers, 0..=1.
    Accuracy,
    /// Mean tool rounds.
    Rounds,
    /// Mean searches.
    Searches,
    /// Mean thousands of tokens.
    Kilotokens,
    /// Cost-aware score.
    Cas,
}

impl Metric {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 5] = [Self::Accuracy, Self::Rounds, Self::Searches, Self::Kilotokens, Self::Cas];

    /// As claims spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::Rounds => "rounds",
            Self::Searches => "searches",
            Self::Kilotokens => "kilotokens",
            Self::Cas => "cas",
        }
    }

    /// Its value over some rollouts.
    pub fn of(self, sums: &Sums) -> f64 {
        match self {
            Self::Accuracy => sums.accuracy(),
            Self::Rounds => sums.mean_rounds(),
            Self::Searches => sums.mean_searches(),
            Self::Kilotokens => sums.mean_kilotokens(),
            Self::Cas => sums.cas(),
        }
    }
}

/// A metric of an arm, of all tasks or of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quantity {
    /// What is measured.
    pub metric: Metric,
    /// Of which arm.
    pub arm: String,
    /// On which tasks; none for all.
    pub kind: Option<TaskKind>,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.as_ref().map(|kind| format!(", {kind}")).unwrap_or_default();
        write!(f, "{}({}{kind})", self.metric.name(), self.arm)
    }
}

/// Which way a comparison goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    /// `<=`
    AtMost,
    /// `>=`
    AtLeast,
}

/// What a quantity is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Side {
    /// A number.
    Number(f64),
    /// A part of another quantity: both are compared as a ratio.
    Times(f64, Quantity),
    /// Another quantity and so much: both are compared as a difference.
    Plus(Quantity, f64),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What is compared.
    pub left: Quantity,
    /// Which way.
    pub sense: Sense,
    /// With what.
    pub right: Side,
}

impl Comparison {
    /// The quantities in it.
    pub fn quantities(&self) -> impl Iterator<Item = &Quantity> {
        let right = match &self.right {
            Side::Number(_) => None,
            Side::Times(_, quantity) | Side::Plus(quantity, _) => Some(quantity),
        };
        std::iter::once(&self.left).chain(right)
    }
}

/// A claim: all of its comparisons.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// As it was written.
    pub text: String,
    /// At least one.
    pub comparisons: Vec<Comparison>,
}

impl Claim {
    /// Names of the arms in it.
    pub fn arms(&self) -> impl Iterator<Item = &str> {
        self.comparisons.iter().flat_map(Comparison::quantities).map(|quantity| quantity.arm.as_str())
    }
}

impl FromStr for Claim {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let comparisons = text.split(" and ").map(comparison).collect::<Result<_, _>>()?;
        Ok(Self { text: text.trim().to_owned(), comparisons })
    }
}

fn comparison(text: &str) -> Result<Comparison, String> {
    let (left, sense, right) = if let Some((left, right)) = text.split_once("<=") {
        (left, Sense::AtMost, right)
    } else if let Some((left, right)) = text.split_once(">=") {
        (left, Sense::AtLeast, right)
    } else {
        return Err(format!("{:?} is no comparison: it has neither <= nor >=", text.trim()));
    };
    let left = quantity(left)?;
    let right = side(right.trim(), left.metric)?;
    Ok(Comparison { left, sense, right })
}

fn side(text: &str, metric: Metric) -> Result<Side, String> {
    if !text.contains('(') {
        return Ok(Side::Number(amount(text, metric)?));
    }
    if let Some((factor, rest)) = text.split_once(" x ") {
        let factor = number(factor)?;
        if factor <= 0.0 {
            return Err(format!("{factor} x: give a factor above 0"));
        }
        return Ok(Side::Times(factor, same(rest, metric)?));
    }
    let Some(end) = text.find(')') else { return Err(format!("{text:?} has no closing parenthesis")) };
    let (of, rest) = text.split_at(end + 1);
    let of = same(of, metric)?;
    let rest = rest.trim();
    let more = match (rest.strip_prefix('+'), rest.strip_prefix('-')) {
        _ if rest.is_empty() => 0.0,
        (Some(more), _) => amount(more, metric)?,
        (_, Some(less)) => -amount(less, metric)?,
        _ => return Err(format!("{rest:?} behind a quantity: give + or - and a number")),
    };
    Ok(Side::Plus(of, more))
}

/// A quantity of the metric that stands on the other side.
fn same(text: &str, metric: Metric) -> Result<Quantity, String> {
    let quantity = quantity(text)?;
    match quantity.metric == metric {
        true => Ok(quantity),
        false => Err(format!("{quantity} is compared with {}", metric.name())),
    }
}

fn quantity(text: &str) -> Result<Quantity, String> {
    let text = text.trim();
    let wrong = || format!("{text:?} is no quantity such as rounds(ARM) or accuracy(ARM, KIND)");
    let (metric, rest) = text.split_once('(').ok_or_else(wrong)?;
    let inside = rest.strip_suffix(')').ok_or_else(wrong)?;
    let metric = Metric::ALL.into_iter().find(|one| one.name() == metric.trim()).ok_or_else(|| {
        let names = Metric::ALL.map(Metric::name).join(", ");
        format!("{:?} is none of {names}", metric.trim())
    })?;
    let (arm, kind) = match inside.split_once(',') {
        Some((arm, kind)) => (arm, Some(TaskKind::new(kind.trim()))),
        None => (inside, None),
    };
    let arm = arm.trim().to_owned();
    if arm.is_empty() { Err(wrong()) } else { Ok(Quantity { metric, arm, kind }) }
}

/// A number in the unit of a metric; points are hundredths, which only a share has.
fn amount(text: &str, metric: Metric) -> Result<f64, String> {
    match text.trim().strip_suffix("points") {
        Some(points) if metric == Metric::Accuracy => Ok(number(points)? / 100.0),
        Some(_) => Err(format!("{} has no points", metric.name())),
        None => number(text),
    }
}

fn number(text: &str) -> Result<f64, String> {
    let value: f64 = text.trim().parse().map_err(|_| format!("{:?} is no number", text.trim()))?;
    if value.is_finite() { Ok(value) } else { Err(format!("{value} is no number to compare with")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(metric: Metric, arm: &str, kind: Option<&str>) -> Quantity {
        Quantity { metric, arm: arm.into(), kind: kind.map(TaskKind::new) }
    }

    #[test]
    fn claims_are_read() {
        let claim: Claim =
            "rounds(trace) <= 0.8 x rounds(accuracy) and accuracy(trace) >= accuracy(accuracy) - 3 points".parse().expect("sound");
        assert_eq!(claim.arms().collect::<Vec<_>>(), ["trace", "accuracy", "trace", "accuracy"]);
        let [first, second] = &claim.comparisons[..] else { panic!("two: {claim:?}") };
        assert_eq!(first.right, Side::Times(0.8, of(Metric::Rounds, "accuracy", None)));
        assert_eq!((first.sense, second.sense), (Sense::AtMost, Sense::AtLeast));
        assert_eq!(second.right, Side::Plus(of(Metric::Accuracy, "accuracy", None), -0.03));
        let kind: Claim = "accuracy(a, visual_hop) >= accuracy(start, visual_hop) + 0.05".parse().expect("sound");
        assert_eq!(kind.comparisons[0].left, of(Metric::Accuracy, "a", Some("visual_hop")));
        assert_eq!(kind.comparisons[0].left.to_string(), "accuracy(a, visual_hop)");
        let level: Claim = "accuracy(a) >= 80 points".parse().expect("sound");
        assert_eq!(level.comparisons[0].right, Side::Number(0.8));
        let equal: Claim = "cas(a) >= cas(b)".parse().expect("sound");
        assert_eq!(equal.comparisons[0].right, Side::Plus(of(Metric::Cas, "b", None), 0.0));
    }

    #[test]
    fn what_is_none_says_why() {
        for (text, says) in [
            ("rounds(a) < 3", "neither <= nor >="),
            ("speed(a) <= 3", "none of accuracy, rounds"),
            ("rounds(a) <= accuracy(b)", "accuracy(b) is compared with rounds"),
            ("rounds(a) <= 3 points", "rounds has no points"),
            ("rounds(a) <= -1 x rounds(b)", "above 0"),
            ("rounds(a) <= many", "\"many\" is no number"),
            ("rounds(a) <= rounds(b) * 2", "give + or -"),
            ("rounds() <= 2", "no quantity"),
            ("rounds(a) <= inf", "no number to compare with"),
            ("", "neither"),
        ] {
            let error = text.parse::<Claim>().expect_err(text);
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
