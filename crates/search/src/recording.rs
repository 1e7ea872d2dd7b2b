//! Recordings: what services answered, in one file that can be shared. In: a store. Out: JSON lines, the first of which says what there
//! is, from when, and whose terms restrict sharing it; and back.
//!
//! Answers hold no key and no account. What of an address was made to open it for a while (a signature) is left out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::asked::Key;
use crate::backends;
use crate::store::{Entry, Kept, Store};

/// What a recording is called in its first line.
const KIND: &str = "hypereyes search recording";
/// The format that is written and read.
const FORMAT: u32 = 1;
/// Bytes of a line that are read: far above any list of results.
const MOST_LINE: u64 = 16 << 20;
/// Entries that are written at once.
const BATCH: usize = 1000;
/// Names of parameters of an address that open it for whoever holds it.
const SIGNED: [&str; 13] = [
    "access_token",
    "api_key",
    "apikey",
    "awsaccesskeyid",
    "expires",
    "key",
    "key-pair-id",
    "policy",
    "sig",
    "signature",
    "token",
    "x-amz-",
    "x-goog-",
];

/// What the hash of a value begins with.
const HASH: &str = "blake3-";

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// [`KIND`].
    pub kind: String,
    /// [`FORMAT`].
    pub format: u32,
    /// What there is, by service.
    pub services: BTreeMap<String, Recorded>,
}

/// What there is of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Entries.
    pub entries: u64,
    /// The oldest, in seconds since 1970.
    pub from: u64,
    /// The newest.
    pub to: u64,
    /// Whether the service's terms restrict passing on what it answered: read them before you do.
    pub restricted: bool,
}

/// Writes everything that a store keeps.
///
/// # Errors
/// A sentence that names the file.
pub fn export(store: &Store, path: &Path) -> Result<About, String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let recorded = |(name, totals): (String, crate::store::Totals)| {
        let restricted = backends::named(&name).is_none_or(|kind| kind.is_restricted);
        (name, Recorded { entries: totals.entries, from: totals.from, to: totals.to, restricted })
    };
    let services = store.totals()?.into_iter().map(recorded).collect();
    let about = About { kind: KIND.into(), format: FORMAT, services };
    // In the order of what was asked, so that equal stores give equal files.
    let mut places = vec![];
    store.each(|entry| {
        places.push(entry.key);
        Ok(())
    })?;
    places.sort();
    hypereyes_outside::atomic::replace(path, |out| {
        line(out, &about)?;
        for key in &places {
            let entry = store.get(key).map_err(std::io::Error::other)?;
            line(out, &unsigned(entry.ok_or_else(|| std::io::Error::other("an entry vanished while it was written"))?))?;
        }
        Ok(())
    })
    .map_err(named)?;
    Ok(about)
}

fn line(out: &mut dyn Write, value: &impl Serialize) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    out.write_all(&text)
}

/// Whether a file begins as a recording does.
pub fn is_one(path: &Path) -> bool {
    let mut first = [0; 1];
    File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == *b"{"
}

/// Reads a recording into a store, in which newer hits stay, and hits where the recording has failures.
///
/// # Errors
/// A sentence that names the file and the line; what stands before that line is kept.
pub fn import(path: &Path, store: &Store) -> Result<About, String> {
    let named = |number: usize, why: &dyn std::fmt::Display| format!("{}: line {number}: {why}", path.display());
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut reader = BufReader::new(file);
    let (mut about, mut batch, mut number) = (None, vec![], 0);
    loop {
        let mut line = vec![];
        number += 1;
        let read = (&mut reader).take(MOST_LINE + 1).read_until(b'\n', &mut line).map_err(|error| named(number, &error))?;
        if read == 0 {
            break;
        }
        if read as u64 > MOST_LINE {
            return Err(named(number, &format!("has more than {MOST_LINE} bytes")));
        }
        if about.is_none() {
            let first: About = serde_json::from_slice(&line).map_err(|error| named(number, &format!("is no recording: {error}")))?;
            if first.kind != KIND || first.format != FORMAT {
                let why = format!("is {:?} of format {}; this release reads {KIND:?} of format {FORMAT}", first.kind, first.format);
                return Err(named(number, &why));
            }
            about = Some(first);
            continue;
        }
        batch.push(serde_json::from_slice::<Entry>(&line).map_err(|error| named(number, &error))?);
        if batch.len() >= BATCH {
            store.merge(&std::mem::take(&mut batch))?;
        }
    }
    store.merge(&batch)?;
    let about = about.ok_or_else(|| format!("{}: is empty, and no recording", path.display()))?;
    let (said, found) = (about.services.values().map(|of| of.entries).sum::<u64>(), number as u64 - 2);
    if said != found {
        return Err(format!("{}: says {said} entries and holds {found}; it was cut off", path.display()));
    }
    Ok(about)
}

/// Without what opens addresses, wherever they stand.
fn unsigned(mut entry: Entry) -> Entry {
    entry.key = plain(&entry.key);
    match &mut entry.outcome {
        Kept::Hits(hits) => {
            for hit in hits {
                let optional = [&mut hit.url, &mut hit.detail].into_iter().filter_map(Option::as_mut);
                for text in optional.chain([&mut hit.title, &mut hit.content]) {
                    *text = without_signatures(text);
                }
            }
        }
        Kept::Failure(_, why) => *why = without_signatures(why),
    }
    entry
}

/// The name under which a recording that is shared has an outcome: pages may be asked for by addresses with signatures.
pub(crate) fn plain(key: &Key) -> Key {
    Key { parameters: without_signatures(&key.parameters), ..key.clone() }
}

/// Whether a value is one's hash already.
fn is_hash(value: &str) -> bool {
    value.strip_prefix(HASH).is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A text in which no address has a parameter that opens it: the hash of its value stands there, by which two addresses are still two.
fn without_signatures(text: &str) -> String {
    let ends = |letter: char| letter.is_whitespace() || matches!(letter, '(' | ')' | '<' | '>' | '[' | ']' | '"' | '\'');
    let plain = |word: &str| {
        let (address, query) = word.split_once('?').filter(|(address, _)| address.contains("://"))?;
        let signed = |pair: &&str| {
            let name = pair.split('=').next().unwrap_or_default().to_lowercase();
            SIGNED.iter().any(|signed| name == *signed || (signed.ends_with('-') && name.starts_with(signed)))
        };
        let told = |pair: &str| match pair.split_once('=').filter(|_| signed(&pair)) {
            Some((name, value)) if !is_hash(value) => format!("{name}={HASH}{}", &blake3::hash(value.as_bytes()).to_hex()[..16]),
            _ => pair.to_owned(),
        };
        Some(format!("{address}?{}", query.split('&').map(told).collect::<Vec<_>>().join("&")))
    };
    text.split_inclusive(ends)
        .map(|piece| {
            let word = piece.trim_end_matches(ends);
            plain(word).map_or_else(|| piece.to_owned(), |plain| plain + &piece[word.len()..])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypereyes_environment::{Fault, Hit};

    fn entry(service: &str, text: &str, outcome: Kept) -> Entry {
        let key = Key { service: service.into(), endpoint: "http://x/search".into(), parameters: text.into() };
        Entry { key, at: 7, usd: 0.001, outcome }
    }

    #[test]
    fn a_recording_holds_everything_but_what_opens_addresses() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let url = "https://b/p.jpg?size=3&X-Amz-Signature=abc&Expires=9&sig=1";
        let content = format!("see [it]({url}) and what? nothing");
        let hit = Hit { title: "t".into(), content, url: Some(url.into()), ..Hit::default() };
        let store = Store::open(&at("one")).expect("opens");
        store
            .put(&[
                entry("serper", "b", Kept::Hits(vec![hit])),
                entry("searxng", "a", Kept::Failure(Fault::Timeout, "slow".into())),
                entry("serper", "a", Kept::Hits(vec![])),
            ])
            .expect("kept");
        let page = format!(r#"{{"hits":10,"page":"{url}"}}"#);
        store.put(&[entry("tavily", &page, Kept::Failure(Fault::Unavailable, format!("{url}: gone")))]).expect("kept");
        let about = export(&store, &at("recording.jsonl")).expect("written");
        assert_eq!((about.services["serper"].entries, about.services["serper"].restricted), (2, true));
        assert!(!about.services["searxng"].restricted);
        assert!(is_one(&at("recording.jsonl")) && !is_one(&at("one")));
        let text = std::fs::read_to_string(at("recording.jsonl")).expect("read");
        let plainly = without_signatures(url);
        assert!(plainly.starts_with("https://b/p.jpg?size=3&X-Amz-Signature=blake3-") && without_signatures(&plainly) == plainly);
        assert!(without_signatures("https://b/?key=Physics") != without_signatures("https://b/?key=Chemistry"), "two pages are two");
        assert!(text.contains(&format!("see [it]({plainly}) and what? nothing")), "{text}");
        assert!(text.contains(&format!("{plainly}\"")) && !text.contains("abc") && !text.contains("Expires=9"), "{text}");
        let other = Store::open(&at("two")).expect("opens");
        assert_eq!(import(&at("recording.jsonl"), &other), Ok(about));
        assert_eq!(other.entries(), Ok(4));
        let plain = entry("tavily", &format!(r#"{{"hits":10,"page":"{plainly}"}}"#), Kept::Hits(vec![]));
        let known = other.get(&plain.key).expect("read").expect("there");
        assert_eq!(known.outcome, Kept::Failure(Fault::Unavailable, without_signatures(&format!("{url}: gone"))));
        // Equal stores give equal files.
        export(&other, &at("again.jsonl")).expect("written");
        assert_eq!(std::fs::read_to_string(at("again.jsonl")).expect("read"), text);
    }

    #[test]
    fn what_is_newer_or_better_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let hits = |title: &str| Kept::Hits(vec![Hit { title: title.into(), ..Hit::default() }]);
        let of = |at: u64, outcome: Kept| Entry { at, ..entry("serper", "a", outcome) };
        let failed = || Kept::Failure(Fault::Timeout, "slow".into());
        for (number, (known, taken, stays)) in [
            (of(7, hits("known")), of(6, hits("taken")), true),
            (of(7, hits("known")), of(8, hits("taken")), false),
            (of(7, hits("known")), of(9, failed()), true),
            (of(7, failed()), of(6, hits("taken")), false),
            (of(7, failed()), of(8, failed()), false),
        ]
        .into_iter()
        .enumerate()
        {
            let at = |name: &str| folder.path().join(format!("{name}-{number}"));
            let (one, other) = (Store::open(&at("one")).expect("opens"), Store::open(&at("other")).expect("opens"));
            one.put(std::slice::from_ref(&taken)).expect("kept");
            other.put(std::slice::from_ref(&known)).expect("kept");
            export(&one, &at("recording")).expect("written");
            import(&at("recording"), &other).expect("taken in");
            assert_eq!(other.get(&known.key), Ok(Some(if stays { known } else { taken })), "case {number}");
        }
    }

    #[test]
    fn what_is_cut_off_or_none_is_refused_by_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let store = Store::open(&at("one")).expect("opens");
        store.put(&[entry("serper", "a", Kept::Hits(vec![])), entry("serper", "b", Kept::Hits(vec![]))]).expect("kept");
        export(&store, &at("whole")).expect("written");
        let text = std::fs::read_to_string(at("whole")).expect("read");
        let refused = |content: &str| {
            std::fs::write(at("other"), content).expect("written");
            import(&at("other"), &store).expect_err("refused")
        };
        let two_lines: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
        assert!(refused(&two_lines).ends_with("says 2 entries and holds 1; it was cut off"));
        assert!(refused(&text[..text.len() - 9]).contains("other: line 3: "));
        assert!(refused("").ends_with("is empty, and no recording"));
        assert!(refused("{\"a\":1}\n").contains("line 1: is no recording"));
        assert!(refused(&text.replacen("\"format\":1", "\"format\":9", 1)).contains("of format 9"));
    }
}
