//! The tags of an assistant turn (docs/spec.md#grammar, #episodes, #d4). In: any text; out: its reason, its first call as JSON and its
//! answer. It never fails. Knows no tool.
//!
//! What stands inside a thought is neither a call nor an answer. A thought is what lies between `<reason>` or `<think>` (in any case,
//! with attributes) and the first closing tag of its name. One that is not closed reaches to the end of the turn. A closing tag that
//! nothing opened ends a thought that began before the turn did, in the prompt, as templates of thinking models have it. The tags of
//! calls and answers are read exactly as the grammar spells them, wherever else they stand, code fences included.

use serde_json::Value;

use crate::json;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
/// The end token as text; it may still be on the turn.
const END: &str = "<|im_end|>";
/// Names of tags around thoughts.
const THOUGHTS: [&str; 4] = ["reason", "reasoning", "think", "thinking"];
/// Bytes of a tag's attributes; what is longer is no tag.
const MAX_ATTRIBUTES: usize = 200;

/// How tags are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Ours (docs/spec.md#d4): thoughts are apart, a trailing end token is not part of the text, an answer must be closed.
    Strict,
    /// As the reference environment reads; only for its golden vectors.
    Compat,
}

/// The parts of a turn before they are understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tags {
    /// The first thought, to the end of the turn if it is not closed.
    pub reason: Option<String>,
    /// JSON of the first `<tool_call>`, to the end of the turn if it is not closed; `None` when it is no JSON.
    pub call: Option<Value>,
    /// Text of `<answer>`.
    pub answer: Option<String>,
}

/// Splits a turn into its tags.
pub fn read_tags(text: &str, reading: Reading) -> Tags {
    match reading {
        Reading::Strict => strict(text.trim_end().strip_suffix(END).unwrap_or(text)),
        Reading::Compat => compat(text),
    }
}

/// What a prompt whose last words are `prompt` puts into the policy's mouth, if that begins a thought: turns are read as if they
/// began with it.
pub fn opened_thought(prompt: &str) -> &str {
    let spoken = prompt.rsplit_once("<|im_start|>").and_then(|(_, turn)| turn.split_once('\n')).map_or("", |(_, spoken)| spoken);
    if before_the_turn(spoken).1.is_some() { spoken } else { "" }
}

fn strict(text: &str) -> Tags {
    let (start, _) = before_the_turn(text);
    let reason = (start > 0).then(|| text[..last_tag(&text[..start])].trim().to_owned());
    let Spoken { aloud, call, first_thought } = Spoken::of(&text[start..]);
    let answer = innermost(&aloud, "<answer>", "</answer>").map(|answer| answer.trim().to_owned());
    Tags { reason: reason.or(first_thought), call, answer }
}

/// Where a thought tag that closes a text begins.
fn last_tag(text: &str) -> usize {
    text.rfind('<').unwrap_or(text.len())
}

/// Where the turn begins once thoughts that were opened before it are over, and the name of the thought that is still open at its end.
fn before_the_turn(text: &str) -> (usize, Option<usize>) {
    let (mut start, mut at, mut open) = (0, 0, None);
    let (mut call, mut close) = (find(text, OPEN, 0), find(text, CLOSE, 0));
    while let Some(mark) = mark(text, at) {
        // What stands in the JSON of a call that was said aloud is no tag.
        while open.is_none()
            && let Some(tag) = call.filter(|tag| *tag < mark.start)
        {
            let inside = tag + OPEN.len();
            if close.is_some_and(|close| close < inside) {
                close = find(text, CLOSE, inside);
            }
            let ends = close.unwrap_or(text.len());
            let aloud = tag >= at && call_in(text, inside, ends).0.is_some();
            if aloud {
                at = (ends + CLOSE.len()).min(text.len());
            }
            call = find(text, OPEN, if aloud { at } else { inside });
        }
        if mark.start < at {
            continue;
        }
        at = mark.end;
        match (open, mark.opens) {
            (None, true) => open = Some(mark.name),
            (None, false) => start = mark.end,
            (Some(name), false) if name == mark.name => open = None,
            // Within a thought other tags are words.
            _ => {}
        }
    }
    (start, open)
}

/// A turn without its thoughts.
#[derive(Default)]
struct Spoken {
    /// What is left when thoughts and calls are taken out.
    aloud: String,
    call: Option<Value>,
    first_thought: Option<String>,
}

impl Spoken {
    fn of(text: &str) -> Self {
        let mut this = Self::default();
        let (mut at, mut called) = (0, false);
        // The next of each kind of tag, searched for again only once it lies behind.
        let (mut thought, mut open, mut close) = (mark(text, 0), find(text, OPEN, 0), find(text, CLOSE, 0));
        loop {
            while let Some(next) = thought.filter(|next| next.start < at || !next.opens) {
                thought = mark(text, next.end.max(at));
            }
            if open.is_some_and(|open| open < at) {
                open = find(text, OPEN, at);
            }
            match (thought, open) {
                (Some(thought), open) if open.is_none_or(|open| thought.start < open) => {
                    this.aloud.push_str(&text[at..thought.start]);
                    let end = closing(text, thought);
                    let inside = &text[thought.end..end.map_or(text.len(), |end| end.start)];
                    this.first_thought.get_or_insert_with(|| inside.trim().to_owned());
                    at = end.map_or(text.len(), |end| end.end);
                }
                (_, Some(open)) => {
                    this.aloud.push_str(&text[at..open]);
                    let inside = open + OPEN.len();
                    if close.is_some_and(|close| close < inside) {
                        close = find(text, CLOSE, inside);
                    }
                    let ends = close.unwrap_or(text.len());
                    let (value, mentioned) = call_in(text, inside, ends);
                    at = match value {
                        Some(value) => {
                            // Of several calls the first counts; what stands in the JSON of any is no tag.
                            if !std::mem::replace(&mut called, true) {
                                this.call = Some(value);
                            }
                            (ends + CLOSE.len()).min(text.len())
                        }
                        None => {
                            called |= !mentioned;
                            inside
                        }
                    };
                }
                _ => break,
            }
        }
        this.aloud.push_str(&text[at..]);
        this
    }
}

/// The JSON of a call between its tags, and whether its opening tag was only mentioned: another one follows before it is closed, and
/// not as text in JSON.
fn call_in(text: &str, inside: usize, ends: usize) -> (Option<Value>, bool) {
    let mentioned = find(text, OPEN, inside).is_some_and(|next| next < ends);
    let strict = serde_json::from_str(&text[inside..ends]).ok();
    (strict.or_else(|| if mentioned { None } else { json::read(&text[inside..ends]) }), mentioned)
}

/// A tag of a thought.
#[derive(Clone, Copy, Debug)]
struct Mark {
    start: usize,
    end: usize,
    opens: bool,
    /// Place in [`THOUGHTS`].
    name: usize,
}

/// The next tag of a thought from `from` on.
fn mark(text: &str, from: usize) -> Option<Mark> {
    let mut at = from;
    loop {
        let start = find(text, "<", at)?;
        at = start + 1;
        let (opens, named) = match text[at..].strip_prefix('/') {
            Some(rest) => (false, rest),
            None => (true, &text[at..]),
        };
        let length = named.bytes().take_while(u8::is_ascii_alphabetic).count();
        let Some(name) = THOUGHTS.iter().position(|known| known.eq_ignore_ascii_case(&named[..length])) else { continue };
        let rest = &named.as_bytes()[length..];
        let Some(close) = rest.iter().take(MAX_ATTRIBUTES).position(|byte| matches!(byte, b'>' | b'<')) else { continue };
        let apart = close == 0 || rest[0].is_ascii_whitespace();
        // `<think/>` opens nothing.
        if rest[close] == b'>' && apart && (close == 0 || rest[close - 1] != b'/') {
            let end = start + usize::from(!opens) + 1 + length + close + 1;
            return Some(Mark { start, end, opens, name });
        }
    }
}

/// The tag that closes a thought.
fn closing(text: &str, opened: Mark) -> Option<Mark> {
    let mut at = opened.end;
    while let Some(next) = mark(text, at) {
        if !next.opens && next.name == opened.name {
            return Some(next);
        }
        at = next.end;
    }
    None
}

fn find(text: &str, what: &str, from: usize) -> Option<usize> {
    text[from..].find(what).map(|at| from + at)
}

/// What lies between the first `close` that follows an `open` and the last `open` before it: tags before were only mentioned.
fn innermost<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let inside = &text[text.find(open)? + open.len()..];
    let inside = &inside[..inside.find(close)?];
    Some(inside.rfind(open).map_or(inside, |last| &inside[last + open.len()..]))
}

/// The reference environment: every tag on its own, from the first opening to the next closing tag or the end of the text.
fn compat(text: &str) -> Tags {
    let between = |open: &str, close: &str| {
        let inside = &text[text.find(open)? + open.len()..];
        Some(&inside[..inside.find(close).unwrap_or(inside.len())])
    };
    let trimmed = |answer: &str| answer.trim().trim_end_matches(['<', '>', '\n', '\r', '\t']).trim().to_owned();
    Tags {
        reason: between("<reason>", "</reason>").map(|inside| inside.trim().to_owned()),
        call: between("<tool_call>", "</tool_call>").and_then(|inside| serde_json::from_str(inside).ok()),
        answer: between("<answer>", "</answer>").map(trimmed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = r#"<tool_call>{"name":"text_search","arguments":{"input":["a"]}}</tool_call>"#;

    fn tags(text: &str) -> Tags {
        read_tags(text, Reading::Strict)
    }

    fn answer(text: &str) -> Option<String> {
        tags(text).answer
    }

    fn query(text: &str) -> Option<String> {
        let call = tags(text).call?;
        Some(call["arguments"]["input"][0].as_str().expect("a query").to_owned())
    }

    #[test]
    fn golden_turns_read_as_in_the_reference() {
        let golden: Value = serde_json::from_str(include_str!("../tests/data/golden.json")).expect("the file is JSON");
        let cases = golden["extract_action"].as_array().expect("a list of cases");
        assert_eq!(cases.len(), 10);
        for case in cases {
            let tags = read_tags(case["text"].as_str().expect("text"), Reading::Compat);
            let expected = &case["expected"];
            assert_eq!(tags.reason.as_deref(), expected["reason"].as_str(), "{case}");
            assert_eq!(tags.answer.as_deref(), expected["answer"].as_str(), "{case}");
            assert_eq!(tags.call.unwrap_or_default(), expected["tool_call"], "{case}");
        }
    }

    #[test]
    fn nothing_inside_a_thought_is_an_action() {
        for name in ["reason", "think", "thinking", "reasoning", "Think", "REASON"] {
            for attributes in ["", " ", " time=\"3\"", "\n"] {
                let thought = |inside: &str| format!("<{name}{attributes}>{inside}</{name} >");
                let inside = format!("I will end with <answer>X</answer> or {CALL} when I am sure.");
                assert_eq!(tags(&thought(&inside)), Tags { reason: Some(inside.clone()), ..Tags::default() });
                assert_eq!(answer(&format!("{}<answer>Y</answer>", thought(&inside))).as_deref(), Some("Y"));
                assert_eq!(query(&format!("{}{CALL}", thought("the <answer> or <tool_call> tag"))).as_deref(), Some("a"));
            }
        }
    }

    #[test]
    fn a_tag_that_is_mentioned_swallows_nothing() {
        assert_eq!(answer("<reason>the <answer> tag comes next</reason><answer>Argentina</answer>").as_deref(), Some("Argentina"));
        assert_eq!(answer("<think>the <think> tag</think><answer>A</answer>").as_deref(), Some("A"));
        assert_eq!(answer("the <answer> tag comes next: <answer>A</answer>").as_deref(), Some("A"));
        assert_eq!(query(&format!("with <tool_call> I ask: {CALL}")).as_deref(), Some("a"));
        let in_json = r#"<tool_call>{"arguments":{"input":["is <think> or <answer>X</answer> or <tool_call> a tag"]}}</tool_call>"#;
        assert!(query(in_json).is_some_and(|query| query.contains("<answer>X</answer>")) && answer(in_json).is_none());
        assert_eq!(answer("<answer> mentioned <think>or <answer>Y</answer></think> and <answer>X</answer>").as_deref(), Some("X"));
    }

    #[test]
    fn a_thought_that_was_opened_in_the_prompt_ends_where_it_is_closed() {
        let turn = format!("maybe {CALL} or <answer>X</answer>\n</think>\n\n<answer>Y</answer>");
        assert_eq!(tags(&turn), Tags { reason: Some(format!("maybe {CALL} or <answer>X</answer>")), call: None, answer: Some("Y".into()) });
        // A tag that closes once more: what was said before it was thought as well.
        let nested = "<think>a<think>b</think> maybe <answer>X</answer></think><answer>Y</answer>";
        assert_eq!(answer(nested).as_deref(), Some("Y"));
        assert_eq!(opened_thought("<|im_start|>user\n<think>q<|im_end|>\n<|im_start|>assistant\n<think>\n"), "<think>\n");
        for closed in ["<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n\n</think>\n\n", "<think>", ""] {
            assert_eq!(opened_thought(closed), "", "{closed:?}");
        }
    }

    #[test]
    fn a_tag_of_a_thought_in_the_json_of_a_call_ends_none() {
        let call = r#"<tool_call>{"name":"text_search","arguments":{"input":["what is </think> or </reason> for"]}}</tool_call>"#;
        for before in ["", "<reason>r</reason>", "<think>a </reason> b</think>", "maybe <tool_call> or so</think>"] {
            assert_eq!(query(&format!("{before}{call}")).as_deref(), Some("what is </think> or </reason> for"), "{before}");
        }
        let turn = format!("{call}</think><answer>Y</answer>");
        assert_eq!((tags(&turn).call, answer(&turn).as_deref()), (None, Some("Y")));
    }

    #[test]
    fn a_thought_that_is_not_closed_reaches_to_the_end() {
        for turn in
            ["<think>maybe <answer>X</answer>", "<reason>r<tool_call>{\"name\":\"a\"}</tool_call>", "<think>a</reason><answer>X</answer>"]
        {
            let read = tags(turn);
            assert!(read.answer.is_none() && read.call.is_none(), "{turn}: {read:?}");
        }
        let before = format!("{CALL}<reason>and now <answer>X</answer>");
        assert_eq!((query(&before).as_deref(), answer(&before)), (Some("a"), None));
        assert_eq!(tags("<reason> why ").reason.as_deref(), Some("why"));
    }

    #[test]
    fn other_spellings_of_actions_and_what_only_looks_like_a_thought_are_words() {
        assert_eq!(tags("<Answer>X</Answer><answer final>X</answer>"), Tags::default());
        for text in ["<thinker>", "< think>", "<think<", "<think/>", "<reasons>", "a < b <think", &format!("<think {}>", "a".repeat(300))] {
            assert_eq!(answer(&format!("{text}<answer>A</answer>")).as_deref(), Some("A"), "{text}");
        }
        assert_eq!(answer("```\n<answer>A</answer>\n```").as_deref(), Some("A"), "a fence is no thought");
    }

    #[test]
    fn the_first_call_counts_and_a_broken_one_is_none() {
        assert_eq!(query(&format!("{CALL}{}", CALL.replace("\"a\"", "\"b\""))).as_deref(), Some("a"));
        assert_eq!(query(&format!("<tool_call>{{bad}}</tool_call>{CALL}")), None);
        assert_eq!(answer("<tool_call>{bad}</tool_call><answer>A</answer>").as_deref(), Some("A"));
    }

    #[test]
    fn long_turns_of_nothing_but_tags_are_read_in_no_time() {
        for piece in [
            "<tool_call>",
            "<think>",
            "</think>",
            "<answer>",
            "<",
            "<think ",
            "<tool_call>\"",
            "<tool_call></tool_call>",
            "<tool_call>1</tool_call></think>",
            "<tool_call></think>",
        ] {
            let began = std::time::Instant::now();
            let _ = tags(&piece.repeat(400_000 / piece.len()));
            assert!(began.elapsed() < std::time::Duration::from_secs(20), "{piece}: {:?}", began.elapsed());
        }
    }
}
