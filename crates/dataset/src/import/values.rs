//! What single columns mean, in whatever layout they stand: answers, names, kinds, references. In: their values. Out: what a task has; or what
//! is wrong with them.

use hypereyes_domain::{Metadata, Reference, TaskKind};
use hypereyes_tables::Cell;
use serde_json::Value;

/// Columns with which others number or name rows.
const IDS: [&str; 6] = ["id", "data_id", "question_id", "sample_id", "uid", "index"];
/// Columns after which others split their tables.
const KINDS: [&str; 3] = ["kind", "category", "data_source"];

/// What a row calls its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A name of its own.
    Said(String),
    /// A number, which other files may have as well.
    Numbered(String),
    /// Nothing.
    None,
}

/// Right answers: a text, a number, several of them, or `{target: ..}` as Search-R1 has it.
pub(super) fn answers_of(name: &str, value: Value) -> Result<Vec<String>, String> {
    Ok(match value {
        Value::Null => vec![],
        Value::String(text) => vec![text],
        Value::Number(number) => vec![number.to_string()],
        Value::Bool(value) => vec![value.to_string()],
        Value::Array(values) => {
            let mut answers = vec![];
            for value in values {
                answers.extend(answers_of(name, value)?);
            }
            answers
        }
        Value::Object(mut map) => match map.shift_remove("target") {
            Some(target) => answers_of(name, target)?,
            None => return Err(format!("{name} is an object without target, which is no answer")),
        },
    })
}

/// Further accepted answers: a list, or one as JSON text.
pub(super) fn candidates(value: Option<Value>) -> Result<Vec<String>, String> {
    const NAME: &str = "reward_model.candidate_answers";
    match value {
        Some(Value::String(text)) if text.trim().is_empty() => Ok(vec![]),
        Some(Value::String(text)) => match serde_json::from_str(&text) {
            Ok(list @ Value::Array(_)) => answers_of(NAME, list),
            _ => Err(format!("{NAME} is a text, and no JSON list")),
        },
        value => answers_of(NAME, value.unwrap_or_default()),
    }
}

/// What a row calls itself.
pub(super) fn name(row: &Cell, extra: &Metadata) -> Name {
    let column = IDS.iter().find_map(|name| row.get(name).filter(|cell| !cell.is_null()).cloned());
    let value = column.and_then(|cell| cell.into_json().ok()).or_else(|| IDS.iter().find_map(|name| extra.get(*name).cloned()));
    match value {
        Some(Value::String(text)) if !text.trim().is_empty() => Name::Said(text),
        Some(Value::Number(number)) => Name::Numbered(number.to_string()),
        _ => Name::None,
    }
}

/// After what reports are split; empty where the row does not say.
pub(super) fn kind(row: &Cell, extra: &Metadata) -> String {
    let fits = |text: &str| !text.is_empty() && text.len() <= TaskKind::MAX_BYTES;
    let columns = KINDS.iter().find_map(|name| row.get(name).and_then(Cell::as_text).filter(|text| fits(text)));
    let kind = columns.or_else(|| KINDS.iter().find_map(|name| extra.get(*name).and_then(Value::as_str).filter(|text| fits(text))));
    kind.unwrap_or_default().to_owned()
}

/// The cost of the success that a row's maker knew: `tool_call` rounds, and searches of each in `parallel`.
pub(super) fn reference(extra: &Metadata, warnings: &mut Vec<String>) -> Option<Reference> {
    let mut odd = |why: &str| {
        warnings.push(format!("{why}: the task has no reference"));
        None
    };
    let rounds = match extra.get("tool_call")? {
        Value::Null => return None,
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_i64().or_else(|| value.as_f64().and_then(whole)),
    };
    // What the released code has for a reference that is not known.
    if rounds == Some(-1) {
        return None;
    }
    let Some(rounds) = rounds.and_then(|rounds| u32::try_from(rounds).ok()) else { return odd("tool_call is no number of rounds") };
    let each = match extra.get("parallel") {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_default(),
        Some(value) => value.clone(),
        None => Value::Null,
    };
    let Value::Array(each) = each else { return odd("parallel is no list of searches") };
    let add = |sum: u32, value: &Value| sum.checked_add(u32::try_from(value.as_u64()?).ok()?);
    let Some(searches) = each.iter().try_fold(0, add) else { return odd("parallel is no list of searches") };
    let reference = Reference { rounds, searches };
    if reference.is_possible() { Some(reference) } else { odd("nobody who searched has cost so little") }
}

/// A whole number that is written as any other, as pandas writes a column in which some are missing.
fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() <= f64::from(u32::MAX)).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_that_nobody_can_have_cost_are_left_out_and_said() {
        let with = |tool_call: &str, parallel: &str| {
            let extra = serde_json::from_str(&format!(r#"{{"tool_call": {tool_call}, "parallel": {parallel}}}"#)).expect("JSON");
            let mut warnings = vec![];
            let reference = reference(&extra, &mut warnings);
            (reference.map(|reference| (reference.rounds, reference.searches)), warnings.len())
        };
        assert_eq!(with("2", "[2, 1]"), (Some((2, 3)), 0));
        assert_eq!(with("\"2\"", "\"[2]\""), (Some((2, 2)), 0));
        assert_eq!(with("2.0", "\"[1]\""), (Some((2, 1)), 0), "as pandas writes it beside a null");
        assert_eq!(with("-1", "\"[]\""), (None, 0), "what is not known");
        assert_eq!(with("-1.0", "null"), (None, 0));
        assert_eq!(with("null", "null"), (None, 0));
        assert_eq!(with("2", "\"[]\""), (None, 1));
        assert_eq!(with("2", "\"two\""), (None, 1));
        assert_eq!(with("0", "\"[0]\""), (None, 1));
        assert_eq!(with("2.5", "\"[1]\""), (None, 1));
        // Their sum would be 2 where nobody looks whether it has room.
        assert_eq!(with("2", "[9223372036854775808, 9223372036854775808, 2]"), (None, 1));
    }

    #[test]
    fn answers_are_texts_numbers_lists_and_targets() {
        let of = |json: &str| answers_of("label", serde_json::from_str(json).expect("JSON"));
        assert_eq!(of(r#"["a", [7, true], {"target": ["b"]}]"#), Ok(["a", "7", "true", "b"].map(str::to_owned).to_vec()));
        assert_eq!(of("null"), Ok(vec![]));
        assert_eq!(of(r#"{"a": 1}"#), Err("label is an object without target, which is no answer".into()));
    }
}
