//! What a device fails with, and how that reaches whoever asked: as an error of the call, and as the end of the process.
//!
//! In: panics and errors of a GPU's own threads, reads of its tensors. Out: values that can be trusted, or [`Error::Device`].
//!
//! CubeCL computes on threads of its own, named `DSU-..` and `DSD-..`. A panic there (memory is full, a launch fails) is caught
//! and logged, no more: what the lost operation should have written is whatever lay there, and the next read gives it out as a
//! result. An error of a launch is kept for whoever next reads or waits *on the same thread*, once. So every panic is overheard
//! where it happens, every read asks whether there was one, work on a device ends with a wait on the thread that began it, and a
//! device that has failed once is not asked again: the process ends, with the reason, and whoever supervises it starts another.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::Error;
use crate::device::OnDevice;
use crate::ops::Kernels;

/// Time for calls under way to be answered with the error before the process ends.
const GRACE: Duration = Duration::from_secs(5);
/// Longest wait for a device: the first pass compiles its kernels, which takes a minute or two.
const PATIENCE: Duration = Duration::from_secs(900);
/// Most of a reason that is kept: compilers answer with the whole source.
const MOST_REASON: usize = 2000;

static FIRST: OnceLock<String> = OnceLock::new();
static WATCHED: AtomicBool = AtomicBool::new(false);
static WAITS: Mutex<(u64, BTreeMap<u64, Instant>)> = Mutex::new((0, BTreeMap::new()));

/// What went wrong first, if anything did since the process began.
pub fn first() -> Option<&'static str> {
    FIRST.get().map(String::as_str)
}

/// Says what went wrong with something that this process cannot go on without; returns what went wrong first. The process ends
/// with exit code 1 and the reason, a few seconds later, so that calls under way are answered.
pub fn report(reason: impl Into<String>) -> &'static str {
    static ENDING: Once = Once::new();
    let first = FIRST.get_or_init(|| one_line(&reason.into()));
    ENDING.call_once(|| {
        tracing::error!(reason = first, "this process cannot go on, and ends");
        let end = std::thread::Builder::new().name("ending".into()).spawn(|| {
            std::thread::sleep(GRACE);
            end();
        });
        if end.is_err() {
            self::end();
        }
    });
    first
}

fn end() -> ! {
    // Nobody is left to be told if stderr is gone.
    let _ = writeln!(std::io::stderr(), "error: {}", first().unwrap_or("a device failed"));
    // A driver whose GPU hangs may not let the process end in order.
    let _ = std::thread::Builder::new().spawn(|| {
        std::thread::sleep(GRACE);
        std::process::abort();
    });
    std::process::exit(1)
}

fn one_line(reason: &str) -> String {
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MOST_REASON).collect()
}

/// The words of a panic.
pub fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}

/// From now on panics of devices' threads are overheard, and waits for devices have an end. Work on a GPU begins with it.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let (thread, file) = (std::thread::current(), panic.location().map_or("", std::panic::Location::file));
            if of_a_device(thread.name(), file) {
                report(format!("the GPU's thread panicked: {}", words(panic.payload())));
            }
            before(panic);
        }));
        WATCHED.store(true, Ordering::Relaxed);
        let watching = std::thread::Builder::new().name("device-watch".into()).spawn(|| {
            loop {
                std::thread::sleep(Duration::from_secs(1));
                if longest_wait().is_some_and(|waited| waited > PATIENCE) {
                    report(format!("the GPU has not answered for {} s", PATIENCE.as_secs()));
                }
            }
        });
        if let Err(error) = watching {
            tracing::warn!(%error, "waits for the GPU have no deadline: there is no thread to watch them");
        }
    });
}

/// Whether a panic is of a device's own threads: those that run its work have names, one that frees its memory has none.
fn of_a_device(thread: Option<&str>, file: &str) -> bool {
    match thread {
        Some(name) => name.starts_with("DSU-") || name.starts_with("DSD-"),
        None => file.contains("cubecl-") || file.contains("cudarc-"),
    }
}

fn longest_wait() -> Option<Duration> {
    let waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
    waits.1.values().map(Instant::elapsed).max()
}

/// A wait for a device, for as long as it lives.
struct Wait(Option<u64>);

impl Wait {
    fn begin() -> Self {
        if !WATCHED.load(Ordering::Relaxed) {
            return Self(None);
        }
        let mut waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
        waits.0 += 1;
        let number = waits.0;
        waits.1.insert(number, Instant::now());
        Self(Some(number))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(number) = self.0 {
            WAITS.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&number);
        }
    }
}

/// What a wait for a device came to: its value, unless anything went wrong, now or before.
fn waited<T, E: std::fmt::Display>(wait: impl FnOnce() -> Result<T, E>) -> Result<T, Error> {
    let waiting = Wait::begin();
    // A device whose thread has lost the question answers with a panic here.
    let answer = catch_unwind(AssertUnwindSafe(wait));
    drop(waiting);
    if let Some(first) = first() {
        return Err(Error::Device(first.into()));
    }
    let failed = |reason: String| Error::Device(report(format!("the device failed: {reason}")).into());
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(panic) => Err(failed(words(&*panic))),
    }
}

/// The values of a tensor, on the host.
///
/// # Errors
/// [`Error::Device`] when they cannot be trusted.
pub fn read<B: Backend, const D: usize>(x: Tensor<B, D>) -> Result<TensorData, Error> {
    waited(|| x.try_into_data())
}

/// As [`read`], in f32.
///
/// # Errors
/// As [`read`].
pub fn floats<B: Backend, const D: usize>(x: Tensor<B, D>) -> Result<Vec<f32>, Error> {
    read(x)?.convert::<f32>().into_vec::<f32>().map_err(|error| Error::Device(format!("values that are no floats: {error:?}")))
}

/// As [`floats`], for where there is nobody to give an error to.
///
/// # Panics
/// With the error; the process is ending.
#[track_caller]
pub fn floats_or_panic<B: Backend, const D: usize>(x: Tensor<B, D>) -> Vec<f32> {
    floats(x).unwrap_or_else(|error| panic!("{error}"))
}

/// Waits until a device has done what this thread has asked of it.
///
/// # Errors
/// [`Error::Device`] when it could not.
pub fn settle<B: Backend>(device: &B::Device) -> Result<(), Error> {
    waited(|| B::sync(device))
}

/// Does work on a device whose threads may fail; what it gives is there when this returns.
///
/// # Errors
/// [`Error::Device`] when anything went wrong.
pub fn guarded<B: Kernels, W: OnDevice>(work: W, device: B::Device) -> Result<W::Output, Error> {
    watch();
    waited(|| {
        let done = work.run::<B>(device.clone());
        B::sync(&device).map(|()| done)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_of_devices_are_told_from_those_of_others() {
        let cubecl = "/root/.cargo/registry/src/x/cubecl-runtime-0.10.0/src/stream/event.rs";
        for (thread, file, device) in [
            (Some("DSU-0-0"), "", true),
            (Some("DSD-0-1"), cubecl, true),
            (None, cubecl, true),
            (None, "/x/cudarc-0.19.10/src/driver/result.rs", true),
            (Some("engine"), cubecl, false),
            (Some("main"), "src/main.rs", false),
            (None, "src/main.rs", false),
        ] {
            assert_eq!(of_a_device(thread, file), device, "{thread:?} {file}");
        }
    }

    #[test]
    fn a_reason_is_one_line_of_a_bounded_length() {
        assert_eq!(one_line("[Compilation Error]\n    line 3:\t x"), "[Compilation Error] line 3: x");
        assert_eq!(one_line(&"é".repeat(5000)).chars().count(), MOST_REASON);
    }

    /// The process of a test that must end; a test of this name runs in it.
    fn ends(test: &str) -> std::process::Output {
        let this = std::env::current_exe().expect("a test is a program");
        let args = ["--exact", test, "--ignored", "--nocapture", "--test-threads=1"];
        std::process::Command::new(this).args(args).output().expect("it starts")
    }

    #[test]
    fn a_panic_of_a_devices_thread_fails_the_next_read_and_ends_the_process() {
        let ended = ends("faults::tests::child_whose_device_panics");
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert_eq!(ended.status.code(), Some(1), "{out}{err}");
        assert!(out.contains("before: [1.0, 2.0]"), "{out}");
        for call in ["read", "settle", "guarded", "again"] {
            assert!(out.contains(&format!("{call}: the GPU's thread panicked: memory is full\n")), "{call}: {out}");
        }
        assert!(err.contains("error: the GPU's thread panicked: memory is full\n"), "{err}");
    }

    #[test]
    #[ignore = "runs in a process of its own, which it ends"]
    fn child_whose_device_panics() {
        use crate::backend::Cpu;
        struct Nothing;
        impl OnDevice for Nothing {
            type Output = ();

            fn run<B: Kernels>(self, _: B::Device) {}
        }
        let tensor = || Tensor::<Cpu, 1>::from_floats([1.0, 2.0], &Default::default());
        watch();
        println!("before: {:?}", floats(tensor()).unwrap());
        // As CubeCL runs what it is given: a panic is caught, and the next operation goes on with what is there.
        let device = || assert!(catch_unwind(|| panic!("memory is full")).is_err());
        std::thread::Builder::new().name("DSD-0-0".into()).spawn(device).unwrap().join().unwrap();
        println!("read: {}", floats(tensor()).unwrap_err());
        println!("settle: {}", settle::<Cpu>(&Default::default()).unwrap_err());
        println!("guarded: {}", guarded::<Cpu, _>(Nothing, Default::default()).unwrap_err());
        println!("again: {}", report("something else"));
        std::thread::sleep(Duration::from_secs(600));
    }

    #[test]
    fn panics_have_words() {
        let caught = |panic: &dyn Fn()| catch_unwind(AssertUnwindSafe(panic)).expect_err("it panics");
        assert_eq!(words(&*caught(&|| std::panic::panic_any("plain"))), "plain");
        assert_eq!(words(&*caught(&|| std::panic::panic_any("made".to_owned()))), "made");
        assert_eq!(words(&*caught(&|| std::panic::panic_any(3))), "a panic without words");
    }
}
