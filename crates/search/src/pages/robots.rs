//! What robots.txt lets programs have (RFC 9309). In: its text, and what we are called there. Out: whether we may have a path. It reads in
//! one pass and compares in bounded time, whatever a site writes.

/// Rules of a site that are for us.
#[derive(Debug, Default)]
pub(super) struct Robots(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    allows: bool,
    /// What a path begins with: pieces between `*`.
    pieces: Vec<Vec<u8>>,
    /// Whether the path ends where the rule does.
    is_whole: bool,
    /// Octets of the rule: of those that match the longest counts.
    length: usize,
}

/// Rules of one group; more are not read.
const MOST_RULES: usize = 10_000;
/// Letters of a rule.
const MOST_RULE: usize = 2000;
/// Wildcards of a rule.
const MOST_STARS: usize = 20;

impl Robots {
    /// Rules for a name: of all groups that name it, or else of those for everybody.
    pub(super) fn of(text: &str, product: &str) -> Self {
        let (mut ours, mut everybody) = (vec![], vec![]);
        let mut is_named = false;
        // Who the group is for: us, everybody.
        let (mut for_us, mut for_all, mut begun) = (false, false, true);
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.split('#').next().unwrap_or_default();
            let Some((name, value)) = line.split_once(':') else { continue };
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            match name.as_str() {
                "user-agent" => {
                    if begun {
                        (for_us, for_all, begun) = (false, false, false);
                    }
                    let called: String =
                        value.chars().take_while(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')).collect();
                    for_us |= called.eq_ignore_ascii_case(product);
                    for_all |= value.starts_with('*');
                    is_named |= for_us;
                }
                "allow" | "disallow" => {
                    begun = true;
                    let Some(rule) = Rule::of(name == "allow", value) else { continue };
                    let lists = [(for_us, &mut ours), (for_all && !for_us, &mut everybody)];
                    if let Some((_, list)) = lists.into_iter().find(|(is_for, _)| *is_for)
                        && list.len() < MOST_RULES
                    {
                        list.push(rule);
                    }
                }
                _ => {}
            }
        }
        Self(if is_named { ours } else { everybody })
    }

    /// Whether a path, with what follows its question mark, may be had.
    pub(super) fn allows(&self, path: &str) -> bool {
        if path == "/robots.txt" {
            return true;
        }
        let path = plain(path);
        let matching = self.0.iter().filter(|rule| rule.matches(&path));
        matching.max_by_key(|rule| (rule.length, rule.allows)).is_none_or(|rule| rule.allows)
    }
}

impl Rule {
    /// A rule; none of one that forbids nothing, or that is no rule.
    fn of(allows: bool, text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MOST_RULE || text.matches('*').count() > MOST_STARS {
            return None;
        }
        let (text, is_whole) = text.strip_suffix('$').map_or((text, false), |text| (text, true));
        let pieces: Vec<Vec<u8>> = text.split('*').map(plain).collect();
        Some(Self { allows, length: pieces.iter().map(Vec::len).sum::<usize>() + pieces.len() - 1, pieces, is_whole })
    }

    fn matches(&self, path: &[u8]) -> bool {
        let (first, rest) = self.pieces.split_first().expect("a text has a first piece");
        let Some(mut after) = path.strip_prefix(&first[..]) else { return false };
        let Some((last, between)) = rest.split_last() else { return !self.is_whole || after.is_empty() };
        for piece in between {
            let Some(at) = find(after, piece) else { return false };
            after = &after[at + piece.len()..];
        }
        if self.is_whole { after.ends_with(last) } else { find(after, last).is_some() }
    }
}

fn find(text: &[u8], piece: &[u8]) -> Option<usize> {
    if piece.is_empty() { Some(0) } else { text.windows(piece.len()).position(|window| window == piece) }
}

/// Octets without their escapes: however a path is written, it is the same one.
fn plain(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let digits = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rule_of_our_group_counts() {
        let text = "\u{feff}# all\nUser-Agent: *\nDisallow: /private\nAllow: /private/open$\nDisallow: /*.pdf$\nDisallow: /a%20b\nCrawl-delay: 3\n\n\
            user-agent: OtherBot\nuser-agent: HyperEyes/2.0\nDISALLOW: /only # us\nallow: /only/this\nSitemap: x\n";
        let (we, they) = (Robots::of(text, "hypereyes"), Robots::of(text, "somebody"));
        for (path, us, them) in [
            ("/", true, true),
            ("/private/x", true, false),
            ("/private/open", true, true),
            ("/private/open/x", true, false),
            ("/x/y.pdf", true, false),
            ("/x/y.pdf?z", true, true),
            ("/a%20b", true, false),
            ("/a b", true, false),
            ("/only", false, true),
            ("/only/this/too", true, true),
            ("/robots.txt", true, true),
        ] {
            assert_eq!((we.allows(path), they.allows(path)), (us, them), "{path}");
        }
    }

    #[test]
    fn nothing_is_forbidden_where_nothing_is_said_and_a_tie_allows() {
        for text in ["", "User-agent: *\nDisallow:\n", "garbage\n: :\nDisallow: /\n", "User-agent: hypereyes\n"] {
            assert!(Robots::of(text, "hypereyes").allows("/x"), "{text}");
        }
        let everything = Robots::of("user-agent: *\ndisallow: /\nuser-agent: hypereyes\nuser-agent: x\n\nallow: /", "hypereyes");
        assert!(everything.allows("/x"), "our own group counts, and no other");
        assert!(Robots::of("user-agent: *\ndisallow: /x\nallow: /x", "a").allows("/x"));
        assert!(!Robots::of("user-agent: *\ndisallow: /*/*/c\n", "a").allows("/a/b/c"));
    }

    #[test]
    fn hostile_rules_are_compared_in_no_time() {
        let stars = format!("user-agent: *\n{}", format!("disallow: /{}\n", "*a".repeat(20)).repeat(5000));
        let began = std::time::Instant::now();
        let robots = Robots::of(&stars, "a");
        assert!(robots.allows(&format!("/{}", "b".repeat(1900))));
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(Robots::of(&"user-agent: *\ndisallow: /*********************x\n".repeat(9), "a").allows("/x"), "no rule of ours");
    }
}
