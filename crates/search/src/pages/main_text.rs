//! The main text of a page. In: bytes, and what HTTP says of them. Out: a title and a text, without menus, scripts and advertisements.
//!
//! What an article is, Mozilla's Readability says (`legible`). A page can be written so that a tree of it is far larger than it is, or so
//! deep that every step through it is slow; therefore the page is built once into nothing, by the same builder and piece by piece, and one
//! that has too many nodes, is too deep or takes too long is refused before anybody takes it apart.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use html5ever::interface::{ElemName, ElementFlags, NodeOrText, QuirksMode, TreeSink};
use html5ever::tendril::{StrTendril, TendrilSink};
use html5ever::{Attribute, LocalName, Namespace, ParseOpts, QualName, local_name, ns, parse_document};
use hypereyes_environment::Fault;
use reqwest::Url;

use super::{Failed, charset};

/// Letters of a page that are taken apart.
const MOST_LETTERS: usize = 2 << 20;
/// Nodes of its tree.
const MOST_NODES: usize = 200_000;
/// Elements within each other. Browsers stop at 512.
const MOST_DEPTH: u32 = 1000;
/// How long its tree may take to build.
const LONGEST: Duration = Duration::from_secs(3);
/// Letters between two looks at these.
const PIECE: usize = 512;
/// Letters of a title, a site's name and a date.
const MOST_TITLE: usize = 500;
/// Elements that a builder opens again wherever they were left open: a few of them make a tree without end. To a text they say nothing.
const FORMATTING: [&str; 13] = ["b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"];

/// What is read of a page.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Read {
    /// Its title; may be empty.
    pub(super) title: String,
    /// Its main text, or all of it where there is no main one.
    pub(super) text: String,
    /// The site, as it calls itself.
    pub(super) site: Option<String>,
    /// When it was published, in its own words.
    pub(super) date: Option<String>,
    /// Whether it has more than is taken apart.
    pub(super) is_cut: bool,
}

/// Kinds of pages that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Html,
    Text,
}

/// Refuses what is neither HTML nor text.
///
/// # Errors
/// [`Failed`], naming what it is.
pub(super) fn check(header: Option<&str>) -> Result<(), Failed> {
    kind(header).map(|_| ())
}

fn kind(header: Option<&str>) -> Result<Kind, Failed> {
    let named = header.unwrap_or("text/html").split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match named.as_str() {
        "" | "text/html" | "application/xhtml+xml" => Ok(Kind::Html),
        named if named.starts_with("text/") && !matches!(named, "text/css" | "text/javascript" | "text/event-stream") => Ok(Kind::Text),
        named => {
            let named: String = named.chars().filter(|letter| letter.is_ascii_graphic()).take(60).collect();
            Err(Failed::new(Fault::Refused, format!("the page is {named}, and HTML and text are read")))
        }
    }
}

/// Takes a page apart. It takes up to some seconds of a processor: not for the runtime's threads.
///
/// # Errors
/// [`Failed`]: it is neither HTML nor text, or too large a tree.
pub(super) fn of(header: Option<&str>, bytes: &[u8], url: &Url) -> Result<Read, Failed> {
    let text = charset::text(header, bytes);
    let (text, is_cut) = match text.char_indices().nth(MOST_LETTERS) {
        Some((end, _)) => (&text[..end], true),
        None => (&text[..], false),
    };
    let read = match kind(header)? {
        Kind::Text => Read { text: tidy(text), ..Read::default() },
        Kind::Html => html(text, url)?,
    };
    Ok(Read { is_cut, ..read })
}

fn html(text: &str, url: &Url) -> Result<Read, Failed> {
    let text = without_formatting(text);
    let Seen { title, text: all } = built(&text)?;
    let short = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MOST_TITLE).collect::<String>();
    let options = legible::Options::new().max_elems_to_parse(MOST_NODES).char_threshold(200);
    let whole = || Read { title: short(&title), text: tidy(&all), ..Read::default() };
    let Ok(article) = legible::parse(&text, Some(url.as_str()), Some(options)) else { return Ok(whole()) };
    // Its own text has no lines.
    let main = tidy(&built(&article.content)?.text);
    if main.is_empty() {
        return Ok(whole());
    }
    let said = |said: &Option<String>| said.as_deref().map(short).filter(|said| !said.is_empty());
    let title = if article.title.trim().is_empty() { title } else { article.title.clone() };
    Ok(Read { title: short(&title), text: main, site: said(&article.site_name), date: said(&article.published_time), is_cut: false })
}

/// The same page in which formatting is none.
fn without_formatting(text: &str) -> String {
    let (mut plain, mut done) = (String::with_capacity(text.len()), 0);
    for (at, _) in text.match_indices('<') {
        let name_at = at + 1 + usize::from(text[at + 1..].starts_with('/'));
        let rest = &text.as_bytes()[name_at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let is_over = rest.get(length).is_none_or(|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>'));
        let name = &text[name_at..name_at + length];
        if is_over && FORMATTING.iter().any(|formatting| formatting.eq_ignore_ascii_case(name)) {
            plain.push_str(&text[done..name_at]);
            plain.push_str("span");
            done = name_at + length;
        }
    }
    plain.push_str(&text[done..]);
    plain
}

/// Lines without what is blank around them, and no more than one empty one between them.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let mut gap = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() {
            gap = !tidy.is_empty();
            continue;
        }
        if !tidy.is_empty() {
            tidy.push_str(if gap { "\n\n" } else { "\n" });
        }
        gap = false;
        tidy.push_str(line);
    }
    tidy
}

/// What a page says, whatever of it is main.
struct Seen {
    title: String,
    text: String,
}

/// Builds a page's tree into nothing.
fn built(text: &str) -> Result<Seen, Failed> {
    let refused = |what: &str| Err(Failed::new(Fault::Refused, format!("the page {what}")));
    let began = Instant::now();
    let mut parser = parse_document(Nothing::new(), ParseOpts::default());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.char_indices().nth(PIECE).map_or(rest.len(), |(end, _)| end);
        let (piece, after) = rest.split_at(end);
        rest = after;
        parser.process(StrTendril::from_slice(piece));
        let sink = &parser.tokenizer.sink.sink;
        if sink.nodes.borrow().len() > MOST_NODES {
            return refused(&format!("has more than {MOST_NODES} elements"));
        }
        if sink.deepest.get() > MOST_DEPTH {
            return refused(&format!("is more than {MOST_DEPTH} elements deep"));
        }
        if began.elapsed() > LONGEST {
            return refused(&format!("takes longer than {} s to read", LONGEST.as_secs()));
        }
    }
    let sink = &parser.tokenizer.sink.sink;
    Ok(Seen { title: sink.title.take(), text: sink.text.take() })
}

/// A tree of which depths are known, and the text.
struct Nothing {
    nodes: RefCell<Vec<Node>>,
    deepest: Cell<u32>,
    /// The block of what was said last.
    block: Cell<usize>,
    title: RefCell<String>,
    text: RefCell<String>,
}

struct Node {
    name: QualName,
    depth: u32,
    parent: usize,
    /// Whether what is said in it is seen.
    is_seen: bool,
    /// Whether its lines are lines.
    is_pre: bool,
    /// The nearest block that it is in, or is.
    block: usize,
}

/// A name on its own.
#[derive(Debug)]
struct Name(QualName);

impl ElemName for Name {
    fn ns(&self) -> &Namespace {
        &self.0.ns
    }

    fn local_name(&self) -> &LocalName {
        &self.0.local
    }
}

const DOCUMENT: usize = 0;

impl Nothing {
    fn new() -> Self {
        let document = Node { name: named(local_name!("")), depth: 0, parent: DOCUMENT, is_seen: true, is_pre: false, block: DOCUMENT };
        Self {
            nodes: RefCell::new(vec![document]),
            deepest: Cell::new(0),
            block: Cell::new(DOCUMENT),
            title: RefCell::default(),
            text: RefCell::default(),
        }
    }

    fn add(&self, name: QualName) -> usize {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { name, depth: 0, parent: DOCUMENT, is_seen: true, is_pre: false, block: DOCUMENT });
        nodes.len() - 1
    }

    /// A node is put into another.
    fn put(&self, child: usize, parent: usize) {
        let mut nodes = self.nodes.borrow_mut();
        let Node { depth, is_seen, is_pre, block, .. } = nodes[parent];
        let node = &mut nodes[child];
        let (is_block, is_hidden) = said(&node.name.local);
        (node.depth, node.parent, node.block) = (depth + 1, parent, if is_block { child } else { block });
        (node.is_seen, node.is_pre) = (is_seen && !is_hidden, is_pre || &*node.name.local == "pre");
        self.deepest.set(self.deepest.get().max(depth + 1));
        if is_block {
            self.line();
        }
    }

    /// What comes next begins a line.
    fn line(&self) {
        let mut text = self.text.borrow_mut();
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }

    fn say(&self, parent: usize, text: &str) {
        let nodes = self.nodes.borrow();
        let block = nodes[parent].block;
        if self.block.replace(block) != block {
            self.line();
        }
        if nodes[parent].name.local == local_name!("title") && nodes[parent].name.ns == ns!(html) {
            self.title.borrow_mut().push_str(text);
        } else if nodes[parent].is_pre && nodes[parent].is_seen {
            self.text.borrow_mut().push_str(text);
        } else if nodes[parent].is_seen {
            let mut said = self.text.borrow_mut();
            for letter in text.chars() {
                // However much is blank, it is one blank.
                match letter.is_whitespace() {
                    true if said.ends_with([' ', '\n']) => {}
                    true => said.push(' '),
                    false => said.push(letter),
                }
            }
        }
    }

    fn child(&self, parent: usize, child: NodeOrText<usize>) {
        match child {
            NodeOrText::AppendNode(node) => self.put(node, parent),
            NodeOrText::AppendText(text) => self.say(parent, &text),
        }
    }

    fn parent(&self, node: usize) -> usize {
        self.nodes.borrow()[node].parent
    }
}

/// Whether an element begins a line, and whether nobody sees what is in it.
fn said(name: &LocalName) -> (bool, bool) {
    let hidden = matches!(
        &**name,
        "head" | "script" | "style" | "noscript" | "template" | "iframe" | "object" | "svg" | "math" | "select" | "button"
    );
    let inline = matches!(&**name, "a" | "abbr" | "span" | "sub" | "sup" | "q" | "cite" | "time" | "mark" | "label" | "img" | "wbr" | "");
    (!inline, hidden)
}

fn named(local: LocalName) -> QualName {
    QualName::new(None, ns!(html), local)
}

impl TreeSink for Nothing {
    type Handle = usize;
    type Output = ();
    type ElemName<'a> = Name;

    fn finish(self) {}

    fn parse_error(&self, _: Cow<'static, str>) {}

    fn get_document(&self) -> usize {
        DOCUMENT
    }

    fn elem_name<'a>(&'a self, target: &'a usize) -> Name {
        Name(self.nodes.borrow()[*target].name.clone())
    }

    fn create_element(&self, name: QualName, _: Vec<Attribute>, _: ElementFlags) -> usize {
        self.add(name)
    }

    fn create_comment(&self, _: StrTendril) -> usize {
        self.add(named(local_name!("")))
    }

    fn create_pi(&self, _: StrTendril, _: StrTendril) -> usize {
        self.add(named(local_name!("")))
    }

    fn append(&self, parent: &usize, child: NodeOrText<usize>) {
        self.child(*parent, child);
    }

    fn append_based_on_parent_node(&self, element: &usize, _: &usize, child: NodeOrText<usize>) {
        self.child(self.parent(*element), child);
    }

    fn append_doctype_to_document(&self, _: StrTendril, _: StrTendril, _: StrTendril) {}

    /// Its contents are a tree of their own; here they are its children, which is as deep.
    fn get_template_contents(&self, target: &usize) -> usize {
        *target
    }

    fn same_node(&self, one: &usize, other: &usize) -> bool {
        one == other
    }

    fn set_quirks_mode(&self, _: QuirksMode) {}

    fn append_before_sibling(&self, sibling: &usize, child: NodeOrText<usize>) {
        self.child(self.parent(*sibling), child);
    }

    fn add_attrs_if_missing(&self, _: &usize, _: Vec<Attribute>) {}

    fn remove_from_parent(&self, _: &usize) {}

    /// What moves is as deep as before: it moves for the sake of formatting.
    fn reparent_children(&self, _: &usize, _: &usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAYS: &str =
        "This is a paragraph of the article, with commas, and enough words, to be taken for what the page is about by whoever reads it.";

    fn page(kind: &str, text: &str) -> Result<Read, Failed> {
        of(Some(kind), text.as_bytes(), &Url::parse("https://x.example/y").expect("an address"))
    }

    #[test]
    fn the_main_text_is_read_and_the_rest_is_not() {
        let article: String = (0..12).map(|number| format!("<p>{number}: <b>{SAYS}</b></p>")).collect();
        let text = format!(
            "<html><head><title>Lima | Site</title><meta property='og:site_name' content='The Site'><script>var tracking = 1;</script></head>\
             <body><nav><a href='/a'>Home</a> <a href='/b'>Shop</a></nav><article><h1>Lima</h1>{article}</article>\
             <footer>All rights reserved</footer></body></html>"
        );
        let read = page("text/html; charset=utf-8", &text).expect("a page");
        assert!(read.title.contains("Lima") && read.site.as_deref() == Some("The Site"), "{read:?}");
        assert!(read.text.contains("\n11: This is a paragraph") && read.text.lines().count() >= 12, "{}", read.text);
        assert!(!read.text.contains("tracking") && !read.text.contains("Shop") && !read.text.contains("<"), "{}", read.text);
        let short =
            page("text/html", "<title>T</title><style>x</style><p>One.</p><div>Two<br>Three</div><script>no</script>").expect("a page");
        assert!(short.text.contains("One.") && short.text.contains("Two\nThree") && !short.text.contains("no"), "{short:?}");
        let blanks = page("text/html", "<p>a\n  b</p><pre>c\n d</pre>e").expect("a page").text;
        assert_eq!(blanks, "a b\nc\nd\ne");
        assert_eq!(page("text/plain", " a \n\n\n b\n").expect("text").text, "a\n\nb");
        assert_eq!(page("text/html", "").expect("nothing"), Read::default());
    }

    #[test]
    fn what_is_no_page_is_refused_by_its_kind() {
        for kind in ["application/pdf", "image/png", "video/mp4", "application/octet-stream", "text/css"] {
            let failed = page(kind, "x").expect_err(kind);
            assert!(failed.fault == Fault::Refused && failed.why.contains(kind), "{failed:?}");
        }
    }

    /// Pages that are small, and that nobody can read to their end: each is one refusal, in time, on a small stack.
    #[test]
    fn hostile_pages_are_refused_in_time() {
        let numbered = |count: usize, of: &dyn Fn(usize) -> String| (0..count).map(of).collect::<String>();
        let cases: Vec<(&str, String, bool)> = vec![
            ("deep", "<div>".repeat(400_000), false),
            ("deep lists", "<ul><li>".repeat(100_000) + SAYS, false),
            ("deep tables", "<table><tr><td>".repeat(50_000) + SAYS, false),
            ("deep drawings", "<svg><g>".repeat(100_000) + SAYS, false),
            ("deep templates", "<template>".repeat(50_000) + SAYS, false),
            ("many", "<p>a".repeat(500_000), false),
            // Each `<p>` would hold all of them again.
            ("formatting", numbered(20_000, &|number| format!("<font size={number}>")) + &"<p>x".repeat(20_000), false),
            ("links", "<a href=x><object>".repeat(30_000) + &"<p>x".repeat(10_000), false),
            ("attributes", format!("<p {}>x</p>", numbered(200_000, &|number| format!("a{number} "))), false),
            ("a long word", "x".repeat(2_000_000), true),
            ("entities", "&amp;".repeat(400_000), true),
            ("comments", "<!-- -->".repeat(20_000) + SAYS, true),
            ("not closed", "<!--".to_owned() + &"-".repeat(1_000_000), true),
            ("siblings", format!("<p>{SAYS}</p>").repeat(10_000), true),
            ("breaks", format!("<div>{}</div>", "a<br>".repeat(90_000)), true),
            ("comb", format!("<div><p>{SAYS}</p>").repeat(900), true),
            ("spans", format!("<div>{}</div>", "<span>word, </span>".repeat(90_000)), true),
        ];
        for (name, text, is_read) in cases {
            let began = Instant::now();
            let reading = std::thread::Builder::new().stack_size(2 << 20).spawn(move || page("text/html", &text));
            let read = reading.expect("a thread").join().expect("it ends by itself");
            println!("{name}: {:?}, {:?}", began.elapsed(), read.as_ref().map(|read| read.text.len()).map_err(|failed| &failed.why));
            assert_eq!(read.is_ok(), is_read, "{name}: {read:?}");
            assert!(began.elapsed() < Duration::from_secs(20), "{name}: {:?}", began.elapsed());
            if let Err(failed) = read {
                assert!(failed.fault == Fault::Refused && failed.why.starts_with("the page "), "{failed:?}");
            }
        }
    }
}
