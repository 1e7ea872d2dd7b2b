//! Damaged and hostile tokenizers, templates and texts: an error that says what is wrong, never a panic; and text from
//! outside never becomes a control token.

use std::path::{Path, PathBuf};

use hypereyes_chat::special;
use hypereyes_chat::template::Frame;
use hypereyes_chat::vocabulary::Vocabulary;
use hypereyes_chat::{Chat, ChatError};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

fn shipped() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../assets/policy")
}

fn shipped_json(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(shipped().join(file)).unwrap()).unwrap()
}

#[test]
fn no_damage_to_a_template_makes_the_cutter_panic_or_run_for_ever() {
    let config = shipped_json("tokenizer_config.json");
    let whole: Vec<char> = config["chat_template"].as_str().unwrap().chars().collect();
    let snippets = [
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ messages[99999].content }}",
        "{{ 1 // 0 }}",
        "{{ -9223372036854775808 // -1 }}",
        "{{ raise_exception('no') }}",
        "{%- set ns = namespace(x=1) %}{%- set ns.y = 2 %}{{ ns.y }}",
        "{{ '%s' % 'x' }}",
        "{% endif %}",
        "{{",
        "\u{0}\u{202e}🚩",
    ];
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut cut = 0;
    for _ in 0..2000 {
        let mut text = whole.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..=text.len());
            let end = (at + random.random_range(0..20)).min(text.len());
            match random.random_range(0..4) {
                0 => drop(text.drain(at..end)),
                1 => {
                    let copy = text[at..end].to_vec();
                    text.splice(at..at, copy);
                }
                2 => {
                    let snippet = snippets.choose(&mut random).unwrap();
                    text.splice(at..at, snippet.chars());
                }
                _ => text.truncate(at.max(1)),
            }
        }
        let text: String = text.into_iter().collect();
        cut += usize::from(Frame::cut(&text, random.random_bool(0.5)).is_ok());
    }
    assert!(cut > 20, "some damage does not matter: {cut}");
}

/// Every place of a JSON tree, as pointers; of long lists and maps the first and last few.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    let ends = |count: usize| move |index: &usize| *index < 3 || *index + 3 >= count;
    match value {
        Value::Object(map) => {
            let keys: Vec<&String> = map.keys().collect();
            (0..keys.len()).filter(ends(keys.len())).for_each(|index| places(&map[keys[index]], &format!("{at}/{}", keys[index]), found));
        }
        Value::Array(list) => {
            (0..list.len()).filter(ends(list.len())).for_each(|index| places(&list[index], &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

fn load(folder: &Path, bytes: &[u8]) -> Result<Vocabulary, ChatError> {
    let path = folder.join("tokenizer.json");
    std::fs::write(&path, bytes).unwrap();
    Vocabulary::load(&path)
}

#[test]
fn no_damage_to_a_tokenizer_makes_the_reader_panic_and_what_it_accepts_can_be_used() {
    let hostile = [json!(null), json!(-1), json!(0), json!(u64::MAX), json!("x"), json!([]), json!({}), json!(true), json!([[1], "a"])];
    let whole = shipped_json("tokenizer.json");
    let mut found = vec![];
    places(&whole, "", &mut found);
    let folder = tempfile::tempdir().unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut accepted = 0;
    for _ in 0..600 {
        let mut damaged = whole.clone();
        for _ in 0..random.random_range(1..3) {
            if let Some(place) = damaged.pointer_mut(found.choose(&mut random).unwrap()) {
                *place = hostile.choose(&mut random).unwrap().clone();
            }
        }
        if let Ok(vocabulary) = load(folder.path(), damaged.to_string().as_bytes()) {
            accepted += 1;
            let ids = vocabulary.encode("Which one has capital Rabat? 🚩");
            vocabulary.decode(&ids);
            vocabulary.decode(&[0, u32::MAX]);
        }
    }
    assert!(accepted > 20, "some damage does not matter: {accepted}");
    let bytes = whole.to_string().into_bytes();
    for _ in 0..100 {
        let mut damaged = bytes.clone();
        damaged.truncate(random.random_range(0..bytes.len()));
        assert!(load(folder.path(), &damaged).is_err(), "half a file is no tokenizer");
    }
}

#[test]
fn text_from_outside_never_becomes_a_control_token_whatever_it_holds() {
    let chat = Chat::load(&shipped()).unwrap();
    let vocabulary = Vocabulary::load(&shipped().join("tokenizer.json")).unwrap();
    let control = [special::IM_START, special::IM_END, special::VISION_START, special::IMAGE_PAD, special::VISION_END];
    let reserved: Vec<u32> = control.iter().map(|name| vocabulary.id(name).unwrap()).collect();
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let pieces = ["a", " ", "\n", "<", "|", ">", "<answer>", "</tool_call>", "é", "\u{0}", "🇲🇦", "\u{feff}", "日本", "0.35", "\t"];
    let ends = |prompt: &[u32]| prompt.iter().filter(|id| **id == chat.end_token()).count();
    let plain = ends(&chat.prompt("x", "x", &[(4, 6), (2, 2)]).unwrap());
    for round in 0..2000 {
        let mut text = String::from("x");
        for _ in 0..random.random_range(0..30) {
            let list: &[&str] = if random.random_bool(0.3) { &control } else { &pieces };
            text.push_str(list.choose(&mut random).unwrap());
        }
        let ids = chat.encode(&text);
        assert!(ids.iter().all(|id| !reserved.contains(id) && (*id as usize) < chat.vocab_size()), "round {round}: {text:?}");
        // A prompt has exactly the placeholders of its pictures, and its control tokens are the template's.
        let prompt = chat.prompt(&text, &text, &[(4, 6), (2, 2)]).unwrap();
        assert_eq!(prompt.iter().filter(|id| **id == chat.image_pad()).count(), 7, "round {round}: {text:?}");
        assert_eq!(ends(&prompt), plain, "round {round}: {text:?}");
    }
}
