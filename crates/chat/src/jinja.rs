//! The Jinja of chat templates, as transformers sets it up.
//!
//! In: a template's text and what it may see. Out: what it renders, or one line that says why it cannot.
//!
//! Added to the library: `{% generation %}` (around the assistant's words; it changes nothing in what is rendered),
//! `strftime_now`, `raise_exception`, `tojson` with Python's arguments, `break` and `continue`, Python's string methods, and
//! values printed as Python prints them.
//!
//! The template itself is code of the model's maker and is trusted as far as the model folder is: fuel bounds its time and
//! a limit its recursion, but a template that doubles a string can still end the process.

use std::borrow::Cow;
use std::fmt::Write;

use chrono::format::{Item, StrftimeItems};
use minijinja::{Environment, Error, ErrorKind, Value};

use crate::python;

/// Steps of one rendering: a published template takes some thousand for a dialogue of ten turns.
const FUEL: u64 = 5_000_000;

/// Renders `template`.
///
/// # Errors
/// One line: what is wrong, and in which line of the template.
pub(crate) fn render(template: &str, context: Value) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(python::method);
    environment.set_recursion_limit(64);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(|out, _, value| out.write_str(&python::str(value)?).map_err(Error::from));
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("string", |value: &Value| python::str(value));
    environment.add_function("strftime_now", strftime_now);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.render_named_str("template", &without_generation(template), context).map_err(|error| one_line(&error))
}

/// Whether a template asks for the time: what it renders then depends on the day.
pub(crate) fn reads_the_clock(template: &str) -> bool {
    template.contains("strftime_now")
}

fn one_line(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(deeper) = source {
        let _ = write!(text, ": {deeper}"); // Writing to a text cannot fail.
        source = deeper.source();
    }
    text.replace(['\n', '\r'], " ")
}

/// The local time in `strftime`'s language.
fn strftime_now(format: &str) -> Result<String, Error> {
    // The time has no zone in Python either, where these two are empty.
    let format = format.replace("%Z", "").replace("%z", "");
    let items: Vec<Item<'_>> = StrftimeItems::new(&format).collect();
    if items.iter().any(|item| matches!(item, Item::Error)) {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {format:?} is no format of a time")));
    }
    let mut text = String::new();
    let now = chrono::Local::now().naive_local();
    write!(text, "{}", now.format_with_items(items.iter()))
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {format:?} asks for what a local time has not")))?;
    Ok(text)
}

/// `{% generation %}` and `{% endgeneration %}` as the block that renders its content in a scope of its own, dashes kept.
fn without_generation(template: &str) -> Cow<'_, str> {
    if !template.contains("generation") {
        return Cow::Borrowed(template);
    }
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    let mut raw = false;
    while let Some(at) = rest.find("{%").into_iter().chain(rest.find("{{")).chain(rest.find("{#")).min() {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let length = if raw && !is_named(tag, "endraw") { 2 } else { length(tag) };
        let (tag, after) = tag.split_at(length);
        match (["generation", "endgeneration", "raw", "endraw"]).into_iter().find(|name| is_named(tag, name)) {
            Some("generation") => out.push_str(&tag.replacen("generation", "with", 1)),
            Some("endgeneration") => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
            named => {
                raw = named.map_or(raw, |named| named == "raw");
                out.push_str(tag);
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Whether a text begins with the block tag of that name and no arguments.
fn is_named(text: &str, name: &str) -> bool {
    let inside = text.strip_prefix("{%").and_then(|rest| rest.split_once("%}")).map(|(inside, _)| inside);
    inside.is_some_and(|inside| inside.trim_matches(|edge: char| edge.is_whitespace() || edge == '-' || edge == '+') == name)
}

/// Bytes of the tag that a text begins with, its end included; texts in quotes may hold what looks like an end.
fn length(text: &str) -> usize {
    let end = match &text[..2] {
        "{#" => return text.find("#}").map_or(text.len(), |at| at + 2),
        "{{" => "}}",
        _ => "%}",
    };
    let mut quote = None;
    let mut characters = text.char_indices().skip(2);
    while let Some((at, character)) = characters.next() {
        match quote {
            Some(_) if character == '\\' => drop(characters.next()),
            Some(open) => quote = (character != open).then_some(open),
            None if character == '\'' || character == '"' => quote = Some(character),
            None if text[at..].starts_with(end) => return at + 2,
            None => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use minijinja::context;
    use serde_json::json;

    use super::*;

    fn shown(template: &str) -> String {
        let data = json!({"b": 1, "a": [true, null, 1.0, "ü\"<'"], "e": {}, "l": []});
        render(template, context! { data => Value::from_serialize(&data), words => vec!["x", "y", "z"], none => () })
            .unwrap_or_else(|why| panic!("{template}: {why}"))
    }

    #[test]
    fn the_generation_block_renders_its_content_and_keeps_dashes_and_newlines() {
        // The right sides are what Jinja 3.1.6 makes of them with transformers' extension.
        assert_eq!(shown("a\n{% generation %}\nb\n{% endgeneration %}\nc"), "a\nb\nc");
        assert_eq!(shown("a\n{%- generation -%}\nb\n{%- endgeneration -%}\nc"), "abc");
        assert_eq!(shown("{%generation%}{{ words[0] }}{%endgeneration%}"), "x");
        assert_eq!(shown("{% set v = 1 %}{% generation %}{% set v = 2 %}{% endgeneration %}{{ v }}"), "1");
        assert_eq!(
            shown("{{ '{% generation %}' }}{# {% generation %} #}{% raw %}{% generation %}{{ x }}{% endraw %}"),
            "{% generation %}{% generation %}{{ x }}"
        );
        assert!(render("{% generation %}", context! {}).is_err());
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        assert_eq!(shown("{{ data | tojson }}"), r#"{"b": 1, "a": [true, null, 1.0, "ü\"<'"], "e": {}, "l": []}"#);
        assert_eq!(
            shown("{{ data | tojson(ensure_ascii=True, sort_keys=True) }}"),
            r#"{"a": [true, null, 1.0, "\u00fc\"<'"], "b": 1, "e": {}, "l": []}"#
        );
        assert_eq!(
            shown("{{ data | tojson(indent=1) }}"),
            "{\n \"b\": 1,\n \"a\": [\n  true,\n  null,\n  1.0,\n  \"ü\\\"<'\"\n ],\n \"e\": {},\n \"l\": []\n}"
        );
        assert_eq!(shown("{{ [1, 'a'] | tojson(separators=(',', ':')) }}{{ [] | tojson(indent=2) }}"), r#"[1,"a"][]"#);
        assert_eq!(shown("{{ [1e20, 1e-5, 0.1, 123456789.5, -2.0] | tojson }}"), "[1e+20, 1e-05, 0.1, 123456789.5, -2.0]");
        assert!(render("{{ nothing | tojson }}", context! {}).is_err());
        assert!(render("{{ 1 | tojson(colour=1) }}", context! {}).is_err());
    }

    #[test]
    fn values_are_printed_as_python_prints_them() {
        assert_eq!(
            shown("{{ true }} {{ none }} {{ 1.0 }} {{ data.a }} {{ data.e }} {{ undefined_one }}"),
            "True None 1.0 [True, None, 1.0, 'ü\"<\\''] {} "
        );
        assert_eq!(shown("{{ [\"it's\"] | string }}"), "[\"it's\"]");
    }

    #[test]
    fn loops_slices_and_methods_work_as_in_python() {
        assert_eq!(shown("{% for w in words %}{% if w == 'y' %}{% continue %}{% endif %}{{ w }}{% endfor %}"), "xz");
        assert_eq!(shown("{% for w in words %}{% if loop.index == 2 %}{% break %}{% endif %}{{ w }}{% endfor %}"), "x");
        assert_eq!(
            shown("{% for w in words[::-1] %}{{ w }}{{ loop.index0 }}{% endfor %}{{ words[1:] | length }}{{ words[-1] }}"),
            "z0y1x22z"
        );
        assert_eq!(shown("{{ 'a-b-c'.rsplit('-', 1)[0] }} {{ 'abc'.removeprefix('a') }} {{ 'a=b'.partition('=')[2] }}"), "a-b bc b");
        assert_eq!(shown("{{ 'a</think>\\n\\nb'.split('</think>')[-1].lstrip('\\n') }}{{ data.items() | list | length }}"), "b4");
        assert_eq!(
            shown(
                "{% macro m(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ m(1) }}{% set ns = namespace(k=1) %}{% set ns.k = ns.k + 1 %}{{ ns.k }}"
            ),
            "122"
        );
        assert_eq!(shown("{% for k, v in data.items() %}{{ k }}{% endfor %}{{ data.get('zz', 'no') }}"), "baelno");
    }

    #[test]
    fn the_clock_is_read_in_the_words_of_strftime() {
        let year = chrono::Local::now().format("%Y").to_string();
        assert_eq!(shown("{{ strftime_now('%Y') }}"), year);
        assert_eq!(shown("{{ strftime_now('%d %b %Y%Z') | length }}"), "11");
        assert!(render("{{ strftime_now('%Q') }}", context! {}).unwrap_err().contains("strftime_now"));
        assert!(reads_the_clock("{{ strftime_now('%Y') }}") && !reads_the_clock("{{ now }}"));
    }

    #[test]
    fn what_cannot_be_rendered_is_said_in_one_line() {
        for (template, part) in [
            ("{{ raise_exception('no\npictures') }}", "no pictures"),
            ("{% for %}", "template:1"),
            ("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}", "fuel"),
        ] {
            let why = render(template, context! {}).expect_err(template);
            assert!(why.contains(part) && !why.contains('\n'), "{why}");
        }
    }
}
