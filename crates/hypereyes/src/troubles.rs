//! Files for people that cannot be written or read for a while: a full disk, a folder in their place. In: how each try went. Out: a
//! count, and one line when it begins and one when it is over. Nothing ends because of them.

use std::collections::BTreeMap;

use crate::metrics::FILES_FAILED;

/// Files in trouble, by what they are.
#[derive(Debug, Default)]
pub struct Troubles {
    failing: BTreeMap<&'static str, u64>,
}

impl Troubles {
    /// Takes note of a try, and gives out what came of it.
    pub fn pass<T>(&mut self, what: &'static str, tried: anyhow::Result<T>, mut say: impl FnMut(&str)) -> Option<T> {
        match tried {
            Ok(done) => {
                if let Some(failed) = self.failing.remove(what) {
                    say(&format!("{what}: it works again, after {failed} tries that failed"));
                }
                Some(done)
            }
            Err(error) => {
                metrics::counter!(FILES_FAILED, "file" => what).increment(1);
                let failed = self.failing.entry(what).or_default();
                *failed += 1;
                if *failed == 1 {
                    say(&format!("{error:#}; the run goes on, and it is tried again"));
                }
                None
            }
        }
    }

    /// Whether the last try failed.
    pub fn has(&self, what: &str) -> bool {
        self.failing.contains_key(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_said_when_it_begins_and_when_it_is_over() {
        let (mut troubles, mut said) = (Troubles::default(), vec![]);
        for failed in [false, true, true, true, false, false, true] {
            let tried = if failed { Err(anyhow::anyhow!("the disk is full")) } else { Ok(()) };
            assert_eq!(troubles.pass("progress", tried, |text| said.push(text.to_owned())).is_none(), failed);
            assert_eq!(troubles.has("progress"), failed);
        }
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("disk is full") && said[1].contains("after 3 tries"), "{said:?}");
    }
}
