//! A scenario by name, as a test.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Completion, Trial};
use tests::{Inputs, Outcome, Scenario};

/// The versions of the interrupt controller.
pub const GICS: [u8; 2] = [2, 3];

/// How long each scenario took.
static TIMES: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

/// Says which scenarios took longest: they bound how fast all of them can be.
pub fn print_longest() {
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    times.sort_unstable_by(|a, b| b.cmp(a));
    let longest: Vec<String> =
        times.iter().take(5).map(|(time, name)| format!("{name} {} s", time.as_secs())).collect();
    println!("longest: {}", longest.join(", "));
}

/// What a scenario does with each version of the interrupt controller, by its name.
pub type Named = (&'static str, fn(&Scenario, u8) -> Outcome);

/// These scenarios with each version: `<prefix><name>/gicv<version>`.
pub fn on_both_gics(prefix: &'static str, all: &[Named]) -> impl Iterator<Item = Case> {
    let case = move |gic: u8| {
        move |&(name, run): &Named| {
            Case::new(format!("{prefix}{name}/gicv{gic}"), move |scenario| run(scenario, gic))
        }
    };
    GICS.into_iter().flat_map(move |gic| all.iter().map(case(gic)))
}

/// A scenario that can be run.
pub struct Case {
    name: String,
    needs_linux: bool,
    run: Box<dyn FnOnce(&Scenario) -> Outcome + Send>,
}

impl Case {
    /// A scenario. Its name is `/`-separated, from the general to the particular.
    pub fn new(name: impl Into<String>, run: impl FnOnce(&Scenario) -> Outcome + Send + 'static) -> Self {
        Self { name: name.into(), needs_linux: false, run: Box::new(run) }
    }

    /// It runs files of Debian's, which `LINUX=no` says are not to be had.
    pub fn needs_linux(mut self) -> Self {
        self.needs_linux = true;
        self
    }

    /// As a test, with files below `folder`.
    pub fn into_trial(self, inputs: &Inputs, folder: &Path) -> Trial {
        let (inputs, folder, name) = (inputs.clone(), folder.to_owned(), self.name.clone());
        Trial::ignorable_test(self.name, move || {
            if self.needs_linux && inputs.without_linux {
                return Ok(Completion::ignored_with("LINUX=no"));
            }
            let scenario = Scenario::new(&inputs, &folder, &name)?;
            let start = Instant::now();
            let outcome = (self.run)(&scenario);
            TIMES.lock().unwrap_or_else(PoisonError::into_inner).push((start.elapsed(), name));
            match outcome {
                Ok(()) => scenario.clean(),
                Err(failure) => return Err(scenario.report(&failure).into()),
            }
            Ok(Completion::Completed)
        })
    }
}
