//! What the documentation says of itself, as tests: links and citations lead somewhere, and nothing cites what a reader cannot open.

use std::collections::{BTreeMap, BTreeSet};

use hypereyes_tests::pages::{anchors, citations, links, words};
use hypereyes_tests::{root, texts};

/// The anchors of every page, by path from the root.
fn pages() -> BTreeMap<String, BTreeSet<String>> {
    texts(&["md"]).into_iter().map(|(path, text)| (path, anchors(&text))).collect()
}

#[test]
fn citations_in_the_code_resolve() {
    let pages = pages();
    let mut count = 0;
    for (path, text) in texts(&["rs", "proto", "toml", "py"]).into_iter().filter(|(path, _)| !path.ends_with("pages.rs")) {
        for (page, anchor) in citations(&text) {
            let known = pages.get(&page).unwrap_or_else(|| panic!("{path} cites {page}, which is not there"));
            assert!(known.contains(&anchor), "{path} cites {page}#{anchor}; its anchors are {known:?}");
            count += 1;
        }
    }
    assert!(count > 50, "{count} citations");
}

#[test]
fn links_between_pages_resolve() {
    let (pages, mut wrong) = (pages(), vec![]);
    for (path, text) in texts(&["md"]) {
        for link in links(&text).into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { beside(&path, file) };
            let found = root().join(&target).exists();
            let anchored = anchor.is_empty() || pages.get(&target).is_none_or(|known| known.contains(anchor));
            if !found || !anchored {
                wrong.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

/// `file` as a page at `path` names it, from the root.
fn beside(path: &str, file: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in file.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Before there was `docs/spec.md`, comments cited a specification that is not in the repository.
#[test]
fn nothing_cites_what_a_reader_cannot_open() {
    let numbered = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
    for (path, text) in texts(&["rs", "proto", "toml", "py", "md"]) {
        for (at, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_start_matches('(')).collect();
            let unresolved = words.windows(3).map(|three| (three[0], three[1], three[2])).chain(match words[..] {
                [.., one, two] => Some((one, two, "")),
                _ => None,
            });
            for cited in unresolved {
                let foreign = match cited {
                    ("spec", "section" | "sections", third) => numbered(third),
                    ("spec", second, _) => numbered(second),
                    ("resolution" | "resolutions", second, _) => second.strip_prefix('D').is_some_and(numbered),
                    _ => false,
                };
                assert!(!foreign, "{path}:{}: cite an anchor of docs/spec.md instead: {line}", at + 1);
            }
        }
    }
}

/// A file that a page or a comment names from the root, as in `crates/policy/src/frozen.rs`, is there. Files move.
#[test]
fn files_that_are_named_are_there() {
    let roots = [
        "crates/",
        "actor/src/",
        "evaluator/src/",
        "learner/src/",
        "proto/",
        "reward-service/",
        "teacher-service/",
        "tests/kubesim/",
        "bench/",
        "k8s/",
    ];
    let ends = [".rs", ".proto", ".py", ".sh", ".md"];
    let (mut wrong, mut count) = (vec![], 0);
    for (path, text) in texts(&["md", "rs"]).into_iter().filter(|(path, _)| path != "CHANGELOG.md") {
        let said = text.lines().filter(|line| path.ends_with(".md") || line.trim_start().starts_with("//"));
        for named in said.flat_map(|line| line.split('`').skip(1).step_by(2)) {
            // `NAME.rs` stands for whatever a reader adds.
            let file = roots.iter().any(|root| named.starts_with(root)) && ends.iter().any(|end| named.ends_with(end));
            if file && !named.contains(|letter: char| letter.is_uppercase() || " *{<".contains(letter)) {
                count += 1;
                if !root().join(named).is_file() {
                    wrong.push(format!("{path}: {named}"));
                }
            }
        }
    }
    assert!(count > 20, "{count} files are named");
    assert!(wrong.is_empty(), "files that are not there:\n{}", wrong.join("\n"));
}

/// Words that this project once had of its own, and the field's for the same thing. Documentation uses the latter; where the former mean
/// what they always mean (room for more, a floor that is swept), there is another way to say it.
const WORDS: &[(&str, &str)] = &[
    ("room", "service, or space"),
    ("rooms", "services"),
    ("house", "project, workspace"),
    ("floor", "layer"),
    ("floors", "layers"),
    ("front door", "CLI"),
    ("wish", "command"),
    ("wishes", "commands"),
    ("lane", "worker, core partition"),
    ("lanes", "workers, core partitions"),
    ("obey", "handle, follow"),
    ("obeys", "handles, follows"),
    ("trunk", "shared prefix"),
    ("hunger", "starvation"),
    ("hungry", "starved"),
];

#[test]
fn documentation_speaks_the_fields_language() {
    let mut wrong = vec![];
    // The page on style names the words to say that they are not to be used; the record of measurements keeps what was written then.
    let exempt = ["docs/contributing/style.md", "bench/RESULTS.md"];
    for (path, text) in texts(&["md"]).into_iter().filter(|(path, _)| !exempt.contains(&path.as_str())) {
        for (line, said) in words(&text) {
            for (word, instead) in WORDS {
                if said.windows(word.split(' ').count()).any(|some| some.join(" ") == *word) {
                    wrong.push(format!("{path}:{line}: {word} (say {instead})"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Those of them that can mean nothing else in code. Others have their usual sense there: room for more, the floor of a number, lanes of a
/// processor.
const GONE: &[&str] = &["rooms", "Rooms", "front door", "front_door", "the house", "sittings", "wishes", "Wish"];

/// Words of [`GONE`] in a text, with their lines. As the alias by which older files are read, and in a constant of
/// what was there formerly, they stay.
fn gone(text: &str) -> Vec<(usize, &'static str)> {
    let is_part = |letter: Option<char>| letter.is_some_and(char::is_alphanumeric);
    let mut found = vec![];
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.contains("alias = \"") && !line.contains("const FORMER_")) {
        for word in GONE {
            let is_whole = |at: usize| !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next());
            if line.match_indices(*word).any(|(at, _)| is_whole(at)) {
                found.push((number, *word));
            }
        }
    }
    found
}

#[test]
fn code_speaks_the_fields_language() {
    let example = "let sittings = 1; // The front door.\n#[serde(alias = \"sittings\")]\nlet rooms_left = bathrooms(Judge::alias);";
    assert_eq!(gone(example), [(1, "front door"), (1, "sittings"), (3, "rooms")]);
    let mut wrong = vec![];
    for (path, text) in texts(&["rs", "toml", "proto", "py", "sh", "yaml"]) {
        // This file has the list.
        if path != "tests/tests/it/docs.rs" {
            wrong.extend(gone(&text).into_iter().map(|(line, word)| format!("{path}:{line}: {word}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
