//! What was measured so far, and the policy that was the best of it, in a folder that survives the process.
//!
//! In: evaluations, each with the weights that were measured. Out: a line of `evaluations.jsonl` each, the best policy in `best/`, what it
//! was measured to be in `best.json`. Wherever a process dies, the next one finds a best policy and its own numbers: `best/` changes as a
//! whole, and what it is about to become stands in `best.next.json` meanwhile. It knows nobody who measures.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hypereyes_chassis::BadInput;
use hypereyes_eval::curve::{BEST, BEST_JSON, BestBy, EVALUATIONS, Evaluation, read};
use hypereyes_policy::checkpoint::{HostWeights, Saver, StoredDtype, digest, digest_of};
use hypereyes_policy::config::ModelConfig;
use hypereyes_run::{Lines, read_json, write_json};
use metrics::{counter, gauge};

use crate::metrics::{BEST_FAILED, BEST_STEP};

/// What `best.json` is about to become.
const NEXT: &str = "best.next.json";
/// How a best policy is saved: as the learner saves its newest.
const DTYPE: StoredDtype = StoredDtype::F32;

/// The evaluations of a run.
pub struct Journal {
    out: PathBuf,
    by: BestBy,
    model: ModelConfig,
    saver: Saver,
    lines: Lines,
    all: Vec<Evaluation>,
    best: Option<Evaluation>,
}

impl Journal {
    /// Opens what is there, or begins. `start` is the folder that training started from: what lies beside its weights goes along with the
    /// best. Reads `best/` once.
    ///
    /// # Errors
    /// [`BadInput`] when nothing can be written there, or what is there is none of ours.
    pub fn open(out: &Path, start: &Path, by: BestBy) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(|error| BadInput::new(format!("cannot make {}: {error}", out.display())))?;
        let bad = |error: hypereyes_policy::Error| BadInput::new(error.to_string());
        let model = ModelConfig::load(start).map_err(bad)?;
        let saver = Saver::new(&out.join(BEST), Some(start)).map_err(bad)?;
        let path = out.join(EVALUATIONS);
        let all = read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut journal = Self { out: out.to_owned(), by, model, saver, lines: Lines::new(&path, "evaluations"), all, best: None };
        journal.mend()?;
        Ok(journal)
    }

    /// Takes up what a process that died has left of its last evaluation.
    fn mend(&mut self) -> Result<()> {
        let (folder, next, named) = (self.out.join(BEST), self.out.join(NEXT), self.out.join(BEST_JSON));
        let there = digest(&folder).ok();
        let is_there = |evaluation: &Evaluation| there.as_ref() == Some(&evaluation.digest);
        if let Ok(about_to_be) = read_json::<Evaluation>(&next) {
            if is_there(&about_to_be) {
                write_json(&named, &about_to_be)?;
            }
            std::fs::remove_file(&next).with_context(|| format!("cannot remove {}", next.display()))?;
        }
        let best = match read_json::<Evaluation>(&named) {
            Ok(best) => Some(best),
            Err(error) => {
                if named.exists() {
                    tracing::warn!(error = format!("{error:#}"), "it is not known what the best is: the next version takes its place");
                }
                None
            }
        };
        if best.as_ref().is_some_and(|best| !is_there(best)) {
            tracing::warn!(folder = %folder.display(), "it holds another policy than best.json says: the next version that is measured takes its place");
        }
        self.best = best.filter(is_there);
        if let Some(best) = self.best.clone().filter(|best| !self.has(best.step, &best.digest)) {
            self.line(best);
        }
        if let Some(best) = &self.best {
            gauge!(BEST_STEP).set(best.step as f64);
        }
        Ok(())
    }

    /// Whether this policy was measured, and not only another one of the same step. Of step 0 there is only one, the start: it may have been
    /// measured before it was rounded for the wire.
    pub fn has(&self, step: u64, digest: &str) -> bool {
        self.all.iter().any(|one| one.step == step && (step == 0 || one.digest == digest))
    }

    /// What was measured of the latest step.
    pub fn last(&self) -> Option<&Evaluation> {
        self.all.iter().max_by_key(|one| one.step)
    }

    /// The best, if its policy is there.
    pub fn best(&self) -> Option<&Evaluation> {
        self.best.as_ref()
    }

    /// The first step that may have to be measured: behind all that were due.
    pub fn next(&self) -> u64 {
        self.all.iter().map(|one| one.due.max(one.step).saturating_add(1)).max().unwrap_or(0)
    }

    /// What a policy is called: the digest of its tensors.
    ///
    /// # Errors
    /// When they are not those of the model.
    pub fn digest_of(&self, weights: &HostWeights) -> Result<String> {
        Ok(digest_of(&self.model, weights, DTYPE)?)
    }

    /// Keeps an evaluation of these weights, and the weights where it is the best; returns whether it is. A policy that cannot be saved is
    /// said and counted, and the best before stays; one that is saved and cannot be named in `best.json` is named by the next process.
    /// Takes as long as the policy takes to be written.
    pub fn keep(&mut self, evaluation: Evaluation, weights: &HostWeights) -> bool {
        let is_best = self.best.as_ref().is_none_or(|best| self.by.prefers(&evaluation.report, &best.report));
        let saved = if is_best { self.save(&evaluation, weights) } else { Ok(()) };
        if let Err(error) = &saved {
            counter!(BEST_FAILED).increment(1);
            tracing::error!(step = evaluation.step, error = format!("{error:#}"), "the best policy so far could not be saved");
        }
        self.line(evaluation);
        is_best && saved.is_ok()
    }

    fn save(&mut self, evaluation: &Evaluation, weights: &HostWeights) -> Result<()> {
        let next = self.out.join(NEXT);
        write_json(&next, evaluation)?;
        let saved = self.saver.save(&self.model, weights, DTYPE)?;
        anyhow::ensure!(saved.digest == evaluation.digest, "{BEST} holds other tensors than those that were measured");
        // It is in `best/` from here on, and what comes must be better than it, even where `best.json` cannot say so yet.
        self.best = Some(evaluation.clone());
        gauge!(BEST_STEP).set(evaluation.step as f64);
        write_json(&self.out.join(BEST_JSON), evaluation)?;
        std::fs::remove_file(&next).with_context(|| format!("cannot remove {}", next.display()))
    }

    fn line(&mut self, evaluation: Evaluation) {
        self.lines.append(&evaluation);
        self.all.push(evaluation);
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_eval::Report;
    use hypereyes_miniature::shipped::Shipped;
    use hypereyes_policy::checkpoint;

    use super::*;

    struct Run {
        folder: tempfile::TempDir,
        weights: HostWeights,
    }

    impl Run {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            Shipped::Policy.unpack(&folder.path().join("start")).expect("is shipped");
            let (_, weights) = checkpoint::read(&folder.path().join("start")).expect("sound");
            Self { folder, weights }
        }

        fn out(&self) -> PathBuf {
            self.folder.path().join("out")
        }

        fn open(&self) -> Journal {
            Journal::open(&self.out(), &self.folder.path().join("start"), BestBy::Accuracy).expect("opens")
        }

        /// The start with one value changed, so that each step's is another.
        fn weights(&self, step: u64) -> HostWeights {
            let mut weights = self.weights.clone();
            weights.values_mut().next().expect("a tensor").values[0] = step as f32;
            weights
        }

        fn evaluation(&self, journal: &Journal, step: u64, accuracy: f64) -> Evaluation {
            let report = Report { accuracy, ..Report::new(4, &[], 0) };
            let digest = journal.digest_of(&self.weights(step)).expect("the model's");
            Evaluation { step, version: step, due: step, digest, seconds: Some(1.0), time: 2, report }
        }

        fn keep(&self, journal: &mut Journal, step: u64, accuracy: f64) -> bool {
            let evaluation = self.evaluation(journal, step, accuracy);
            journal.keep(evaluation, &self.weights(step))
        }

        fn lines(&self) -> Vec<u64> {
            read(&self.out().join(EVALUATIONS)).expect("there").iter().map(|one| one.step).collect()
        }

        fn best(&self) -> Evaluation {
            let best: Evaluation = read_json(&self.out().join(BEST_JSON)).expect("there is one");
            assert_eq!(digest(&self.out().join(BEST)).expect("whole"), best.digest, "best.json is of what is in best/");
            best
        }
    }

    #[test]
    fn the_best_stays_until_a_better_one_comes_and_is_found_again() {
        let run = Run::new();
        let mut journal = run.open();
        assert_eq!((journal.next(), journal.best()), (0, None));
        assert!(run.keep(&mut journal, 0, 0.5));
        assert!(run.keep(&mut journal, 10, 0.75));
        assert!(!run.keep(&mut journal, 20, 0.75), "an equal is not better");
        assert!(!run.keep(&mut journal, 30, 0.25));
        assert_eq!((run.best().step, run.lines()), (10, vec![0, 10, 20, 30]));
        drop(journal);
        let mut journal = run.open();
        assert_eq!((journal.next(), journal.best().map(|best| best.step)), (31, Some(10)));
        let digest = run.evaluation(&journal, 30, 0.0).digest;
        assert!(journal.has(30, &digest) && !journal.has(30, "another") && !journal.has(40, &digest));
        assert!(journal.has(0, "the start in bf16"));
        assert!(run.keep(&mut journal, 40, 1.0));
        assert_eq!((run.best().step, run.lines()), (40, vec![0, 10, 20, 30, 40]));
    }

    #[test]
    fn wherever_a_process_dies_best_json_is_of_what_is_in_best() {
        // Killed once it said what it is about to save; once that was in place; once best.json said so.
        for (at, want) in [(0, (10, vec![10])), (1, (20, vec![10, 20])), (2, (20, vec![10, 20]))] {
            let run = Run::new();
            let mut journal = run.open();
            run.keep(&mut journal, 10, 0.5);
            let evaluation = run.evaluation(&journal, 20, 0.75);
            write_json(&run.out().join(NEXT), &evaluation).expect("written");
            if at >= 1 {
                journal.saver.save(&journal.model, &run.weights(20), DTYPE).expect("saved");
            }
            if at >= 2 {
                write_json(&run.out().join(BEST_JSON), &evaluation).expect("written");
            }
            drop(journal);
            let journal = run.open();
            assert_eq!((run.best().step, run.lines()), want, "killed at {at}");
            assert_eq!(journal.best().map(|best| best.step), Some(want.0));
            assert!(!run.out().join(NEXT).exists());
        }
    }

    #[test]
    fn a_best_policy_that_best_json_could_not_name_is_the_best_and_is_named_later() {
        let run = Run::new();
        let mut journal = run.open();
        run.keep(&mut journal, 10, 0.5);
        let named = run.out().join(BEST_JSON);
        std::fs::remove_file(&named).expect("there");
        std::fs::create_dir(&named).expect("in its way");
        assert!(!run.keep(&mut journal, 20, 0.75));
        assert!(!run.keep(&mut journal, 30, 0.6), "no worse one takes its place");
        drop(journal);
        std::fs::remove_dir(&named).expect("empty");
        let journal = run.open();
        assert_eq!((run.best().step, run.lines(), journal.best().map(|best| best.step)), (20, vec![10, 20, 30], Some(20)));
    }

    #[test]
    fn a_best_policy_that_somebody_changed_is_not_taken_for_it() {
        let run = Run::new();
        let mut journal = run.open();
        run.keep(&mut journal, 10, 0.75);
        journal.saver.save(&journal.model, &run.weights(99), DTYPE).expect("saved");
        drop(journal);
        let mut journal = run.open();
        assert_eq!(journal.best(), None);
        assert!(run.keep(&mut journal, 20, 0.5));
        assert_eq!((run.best().step, run.lines()), (20, vec![10, 20]));
    }
}
