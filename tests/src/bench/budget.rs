//! What rows may come to, and sizes: `bench/budget.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::Row;
use crate::{Failure, Outcome};

/// What is said of one row.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// What it is, for people.
    pub about: String,
    /// The most that its median should be, on GICv3.
    pub must: Option<u64>,
    /// What would be better.
    pub stretch: Option<u64>,
    /// The most that its median should be, on GICv2.
    pub must_gicv2: Option<u64>,
    /// The most accesses to devices that a round may have on its way, on GICv2: what counts most there. More is an error.
    pub devices_gicv2: Option<u64>,
    /// The most that its median may be on GICv2: more is an error.
    ceiling_gicv2: u64,
    /// And on GICv3.
    ceiling_gicv3: u64,
}

impl Limits {
    /// The most that the median may be.
    pub fn ceiling(&self, gic: u8) -> u64 {
        if gic == 2 { self.ceiling_gicv2 } else { self.ceiling_gicv3 }
    }

    /// The most that it should be, if there is a target.
    pub fn must(&self, gic: u8) -> Option<u64> {
        if gic == 2 { self.must_gicv2 } else { self.must }
    }
}

/// What a size should be, and may be, in bytes.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SizeLimits {
    must: Option<u64>,
    ceiling: u64,
}

/// All rows, and sizes, by name.
#[derive(Deserialize)]
pub struct Budget {
    size: BTreeMap<String, SizeLimits>,
    #[serde(flatten)]
    rows: BTreeMap<String, Limits>,
}

impl Budget {
    /// The project's.
    ///
    /// # Errors
    /// When the file can't be read, or something in it is wrong.
    pub fn load() -> Outcome<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/budget.toml");
        let text = fs::read_to_string(&path).map_err(Failure::io(format!("read {}", path.display())))?;
        Self::parse(&text).map_err(|error| Failure::Wrong(format!("{}: {error}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// What is said of a row.
    pub fn row(&self, name: &str) -> Option<&Limits> {
        self.rows.get(name)
    }

    /// Fails unless each row has been measured on this GIC, and no median is over its ceiling; says all that are.
    ///
    /// # Errors
    /// [`Failure::Wrong`].
    pub fn check(&self, gic: u8, rows: &[Row]) -> Outcome {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.gic == gic).collect();
        let missing = self.rows.keys().filter(|name| !rows.iter().any(|row| row.row == **name));
        let missing = missing.map(|name| format!("{name} was not measured on GICv{gic}"));
        let over = rows.iter().filter_map(|Row { row, median, .. }| match self.row(row) {
            None => Some(format!("{row} has no ceiling in bench/budget.toml")),
            Some(limits) if *median <= limits.ceiling(gic) => None,
            Some(limits) => Some(format!(
                "{row} on GICv{gic} takes {median} instructions, its ceiling is {}",
                limits.ceiling(gic)
            )),
        });
        none_wrong(missing.chain(over))
    }

    /// The most bytes that a size should be, if there is a target.
    pub fn size_must(&self, name: &str) -> Option<u64> {
        self.size.get(name)?.must
    }

    /// Fails unless each size has a ceiling, and is not over it, and the other way round.
    ///
    /// # Errors
    /// [`Failure::Wrong`].
    pub fn check_sizes(&self, sizes: &BTreeMap<&'static str, u64>) -> Outcome {
        let missing = self.size.keys().filter(|name| !sizes.contains_key(name.as_str()));
        let missing = missing.map(|name| format!("the size of {name} was not measured"));
        let over = sizes.iter().filter_map(|(name, bytes)| match self.size.get(*name) {
            None => Some(format!("the size of {name} has no ceiling in bench/budget.toml")),
            Some(limits) if *bytes <= limits.ceiling => None,
            Some(limits) => Some(format!("{name} takes {bytes} bytes, its ceiling is {}", limits.ceiling)),
        });
        none_wrong(missing.chain(over))
    }

    /// Fails unless each row that has a target for accesses to devices was traced on GICv2, and none is over it.
    ///
    /// # Errors
    /// [`Failure::Wrong`].
    pub fn check_devices(&self, paths: &[super::Path]) -> Outcome {
        let targets = self.rows.iter().filter_map(|(name, limits)| Some((name, limits.devices_gicv2?)));
        none_wrong(targets.filter_map(|(name, most)| {
            match paths.iter().find(|path| path.gic == 2 && path.row == *name) {
                None => Some(format!("{name} was not traced on GICv2")),
                Some(path) if path.accesses.devices <= most => None,
                Some(path) => Some(format!(
                    "{name} on GICv2 accesses devices {} times, and may {most} times",
                    path.accesses.devices
                )),
            }
        }))
    }
}

fn none_wrong(wrong: impl Iterator<Item = String>) -> Outcome {
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Wrong(wrong.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Accesses, System};

    const TEXT: &str = "[size]\ntext = { must = 50, ceiling = 70 }\n\
                        [a]\nabout = \"A\"\nmust = 90\nceiling-gicv2 = 200\nceiling-gicv3 = 100\n";

    fn row(name: &str, gic: u8, median: u64) -> Row {
        Row {
            system: System::Hanok,
            row: name.to_owned(),
            gic,
            rounds: 1,
            min: 0,
            median,
            p99: 999,
            max: 999,
            histogram: Vec::new(),
        }
    }

    fn complaint(gic: u8, rows: &[Row]) -> String {
        let budget = Budget::parse(TEXT).expect("it is sound");
        budget.check(gic, rows).map_or_else(|failure| failure.to_string(), |()| String::new())
    }

    #[test]
    fn a_median_may_come_up_to_its_ceiling() {
        assert_eq!(complaint(3, &[row("a", 3, 100), row("a", 2, 201)]), "");
        assert_eq!(
            complaint(3, &[row("a", 3, 101)]),
            "a on GICv3 takes 101 instructions, its ceiling is 100"
        );
        assert_eq!(
            complaint(2, &[row("a", 2, 201)]),
            "a on GICv2 takes 201 instructions, its ceiling is 200"
        );
    }

    #[test]
    fn rows_and_ceilings_are_the_same_ones() {
        assert_eq!(complaint(3, &[row("a", 2, 1)]), "a was not measured on GICv3");
        let new = complaint(2, &[row("a", 2, 1), row("b", 2, 1)]);
        assert_eq!(new, "b has no ceiling in bench/budget.toml");
    }

    #[test]
    fn accesses_to_devices_have_targets_on_gicv2() {
        let path = |gic, devices| {
            let accesses = Accesses { devices, ..Accesses::default() };
            crate::bench::Path { row: "a".to_owned(), gic, accesses }
        };
        let complaint = |paths: &[_]| {
            let budget = Budget::parse(&format!("{TEXT}devices-gicv2 = 2\n")).expect("it is sound");
            budget.check_devices(paths).map_or_else(|failure| failure.to_string(), |()| String::new())
        };
        assert_eq!(complaint(&[path(3, 9), path(2, 2)]), "");
        assert_eq!(complaint(&[path(2, 3)]), "a on GICv2 accesses devices 3 times, and may 2 times");
        assert_eq!(complaint(&[path(3, 0)]), "a was not traced on GICv2");
    }

    #[test]
    fn a_size_may_come_up_to_its_ceiling() {
        let complaint = |sizes: &[(&'static str, u64)]| {
            let budget = Budget::parse(TEXT).expect("it is sound");
            let checked = budget.check_sizes(&sizes.iter().copied().collect());
            checked.map_or_else(|failure| failure.to_string(), |()| String::new())
        };
        assert_eq!(complaint(&[("text", 70)]), "");
        assert_eq!(complaint(&[("text", 71)]), "text takes 71 bytes, its ceiling is 70");
        assert_eq!(complaint(&[]), "the size of text was not measured");
        let new = complaint(&[("text", 1), ("bss", 1)]);
        assert_eq!(new, "the size of bss has no ceiling in bench/budget.toml");
    }

    #[test]
    fn the_project_s_budget_is_sound() {
        Budget::load().expect("it is read");
        assert!(Budget::parse(&TEXT.replace("must", "mist")).is_err());
    }
}
