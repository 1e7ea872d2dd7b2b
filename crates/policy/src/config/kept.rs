//! A trained model's `config.json`: that of its start, with what a save changes.
//!
//! In: the start's JSON, all of it. Out: the same with the type of the stored weights; nothing that others read there is lost.

use serde_json::{Map, Value};

use super::ModelConfig;
use crate::checkpoint::StoredDtype;

/// What the type of the stored weights is called; the second is its older name.
const DTYPES: [&str; 2] = ["dtype", "torch_dtype"];
const TIED: &str = "tie_word_embeddings";
const SECTIONS: [&str; 2] = ["text_config", "vision_config"];

impl ModelConfig {
    /// The JSON of this model, of weights stored as `stored`, over that of the model that it was trained from: every key stays
    /// with its value, but the type of the weights, and what would describe another model.
    ///
    /// # Errors
    /// A text, when the two cannot be brought together.
    pub fn to_json_over(&self, start: Option<&Value>, stored: StoredDtype) -> Result<Value, String> {
        let own = self.to_json(stored);
        let Some(Value::Object(start)) = start else { return Ok(own) };
        let mut kept = Value::Object(start.clone());
        set_types(&mut kept, stored);
        if Self::from_json(&kept).as_ref() != Ok(self) {
            // The start was read with what its weights say, as that its head is its embeddings.
            lay_over(&mut kept, &own);
        }
        match Self::from_json(&kept) {
            Ok(config) if config == *self => Ok(kept),
            Ok(_) => Err("config.json of the start describes another model".into()),
            Err(why) => Err(format!("config.json of the start: {why}")),
        }
    }
}

/// Says how weights are stored wherever that is said, and at least once.
fn set_types(config: &mut Value, stored: StoredDtype) {
    let label = Value::from(stored.label());
    let say = |map: &mut Map<String, Value>| {
        let said: Vec<&str> = DTYPES.into_iter().filter(|key| map.contains_key(*key)).collect();
        said.iter().for_each(|key| drop(map.insert((*key).to_owned(), label.clone())));
        !said.is_empty()
    };
    let Value::Object(map) = config else { return };
    for section in SECTIONS {
        if let Some(Value::Object(section)) = map.get_mut(section) {
            say(section);
        }
    }
    if !say(map) {
        map.insert(DTYPES[0].to_owned(), label);
    }
    // Who reads only the top must find there what stands in a section.
    if !map.contains_key(TIED)
        && let Some(tied) = map.get(SECTIONS[0]).and_then(|text| text.get(TIED)).cloned()
    {
        map.insert(TIED.to_owned(), tied);
    }
}

/// Puts our values over others, key by key; rotary keys in our style go in the place of the other style.
fn lay_over(kept: &mut Value, own: &Value) {
    let (Value::Object(kept), Value::Object(own)) = (kept, own) else { return };
    if own.contains_key("rope_parameters") {
        ["rope_scaling", "rope_theta"].iter().for_each(|key| drop(kept.shift_remove(*key)));
    }
    for (key, value) in own {
        match kept.get_mut(key) {
            Some(inner @ Value::Object(_)) if value.is_object() => lay_over(inner, value),
            _ => drop(kept.insert(key.clone(), value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::SOME;
    use super::*;

    #[test]
    fn every_key_stays_but_the_type_of_the_weights() {
        let model = SOME.model(300, 290, 291, 292);
        let mut start = model.to_json(StoredDtype::F32);
        start["torch_dtype"] = json!("float16");
        start["vision_config"]["dtype"] = json!("float16");
        start["my_note"] = json!({"deep": [1, null, 1e-6]});
        start["text_config"]["eos_token_id"] = json!([1, 2]);
        let mut wanted = start.clone();
        for place in ["/dtype", "/torch_dtype", "/vision_config/dtype"] {
            *wanted.pointer_mut(place).unwrap() = json!("bfloat16");
        }
        assert_eq!(model.to_json_over(Some(&start), StoredDtype::Bf16), Ok(wanted));
        assert_eq!(model.to_json_over(None, StoredDtype::F32), Ok(model.to_json(StoredDtype::F32)));
    }

    #[test]
    fn the_older_style_stays_and_a_bare_config_gets_what_it_lacks() {
        let model = SOME.model(300, 290, 291, 292);
        let mut start = model.to_json(StoredDtype::F32);
        let text = start["text_config"].as_object_mut().unwrap();
        let mut rope = text.shift_remove("rope_parameters").unwrap();
        text.insert("rope_theta".into(), rope.as_object_mut().unwrap().shift_remove("rope_theta").unwrap());
        text.insert("rope_scaling".into(), rope);
        start.as_object_mut().unwrap().shift_remove("tie_word_embeddings");
        let kept = model.to_json_over(Some(&start), StoredDtype::F32).unwrap();
        assert_eq!((&kept["text_config"], &kept["tie_word_embeddings"]), (&start["text_config"], &json!(true)));
        // A start whose files say more than its config.
        start["text_config"].as_object_mut().unwrap().shift_remove("tie_word_embeddings");
        let kept = model.to_json_over(Some(&start), StoredDtype::F32).unwrap();
        assert_eq!(ModelConfig::from_json(&kept).as_ref(), Ok(&model));
        assert!(kept["text_config"].get("rope_scaling").is_none());
        assert!(model.to_json_over(Some(&json!({"model_type": "x", "text_config": 3})), StoredDtype::F32).is_ok(), "laid over whole");
    }
}
