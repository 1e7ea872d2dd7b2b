//! Keys of JSON lines. In: an object and the keys that somebody reads. Out: nothing, or which key nobody reads.
//!
//! A list under a misspelt name would be missing without a word: importance weights, a reference, an answer. So an unknown key
//! is wrong input, as an unknown setting is. What people keep beside their data stays free.

use anyhow::{Result, bail};
use hypereyes_chassis::nearest::nearest;
use serde_json::{Map, Value};

/// Keys that are the author's own, wherever an object of a line stands.
pub const FREE: [&str; 5] = ["id", "expected", "note", "notes", "metadata"];

/// Checks that every key of `value` is one of `known` or free. `what` is what the error calls the object.
///
/// # Errors
/// The first key that nobody reads, and the one that was probably meant.
pub fn check(value: &Value, what: &str, known: &[&str]) -> Result<()> {
    let Some(object) = value.as_object() else { bail!("{what} is no object") };
    let unknown = |key: &&String| !known.contains(&key.as_str()) && !FREE.contains(&key.as_str());
    let Some(key) = object.keys().find(unknown) else { return Ok(()) };
    // What is there already was not meant a second time.
    let absent = known.iter().copied().filter(|name| !object.contains_key(*name));
    match nearest(key, absent) {
        Some(near) => bail!("{what} has no key `{key}`; did you mean `{near}`?"),
        None => bail!("{what} has no key `{key}`; its keys are {}", known.join(", ")),
    }
}

/// An object without its free keys, those of `read` apart: for readers that refuse every key that they do not read.
pub fn strip(value: &Value, read: &[&str]) -> Value {
    match value {
        Value::Object(object) => {
            let kept = object.iter().filter(|(key, _)| read.contains(&key.as_str()) || !FREE.contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
        }
        other => other.clone(),
    }
}

/// An answer under the id of its line, if that has one.
pub fn under_id(line: &Value, answer: Value) -> Value {
    match (line.get("id"), answer) {
        (Some(id), Value::Object(answer)) => {
            let id = [("id".to_owned(), id.clone())];
            Value::Object(id.into_iter().chain(answer.into_iter().filter(|(key, _)| key != "id")).collect::<Map<_, _>>())
        }
        (_, answer) => answer,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_nobody_reads_is_named_with_the_one_that_was_meant() {
        let known = ["answer", "rounds"];
        let refused = |value: Value| check(&value, "a rollout", &known).expect_err("refused").to_string();
        assert_eq!(refused(json!({"answr": "x"})), "a rollout has no key `answr`; did you mean `answer`?");
        assert_eq!(refused(json!({"colour": "x"})), "a rollout has no key `colour`; its keys are answer, rounds");
        assert!(refused(json!({"answer": 1, "answers": 2})).contains("its keys are"));
        assert_eq!(refused(json!([])), "a rollout is no object");
        let free = json!({"answer": "x", "id": 1, "expected": {}, "note": "", "notes": [], "metadata": {"any": 1}});
        check(&free, "a rollout", &known).expect("free keys are free");
        assert_eq!(strip(&free, &["id"]), json!({"answer": "x", "id": 1}));
    }

    #[test]
    fn an_answer_comes_under_the_id_of_its_line() {
        assert_eq!(under_id(&json!({"id": [7]}), json!({"loss": 1})).to_string(), r#"{"id":[7],"loss":1}"#);
        assert_eq!(under_id(&json!({}), json!({"loss": 1})), json!({"loss": 1}));
    }
}
