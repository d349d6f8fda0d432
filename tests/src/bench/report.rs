//! What was measured, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Accesses, Boot, Budget, CrateSize, Memory, OnModel, Path, Row, Sizes, System, measure, trace};
use crate::{Outcome, Scenario};

/// All that is measured.
pub struct Figures {
    /// What rows come to.
    pub rows: Vec<Row>,
    paths: Vec<Path>,
    /// By the GIC's version.
    boots: BTreeMap<u8, Boot>,
    memory: Vec<Memory>,
    models: Vec<OnModel>,
    sizes: Sizes,
}

impl Figures {
    /// None yet, but for sizes.
    pub fn new(sizes: Sizes) -> Self {
        Self {
            rows: Vec::new(),
            paths: Vec::new(),
            boots: BTreeMap::new(),
            memory: Vec::new(),
            models: Vec::new(),
            sizes,
        }
    }

    /// Takes those with the GIC of this version.
    ///
    /// # Errors
    /// As those who take them.
    pub fn take(&mut self, scenario: &Scenario, gic: u8, rounds: u32) -> Outcome {
        let boot = super::boot(scenario, gic)?;
        self.rows.push(boot.row(gic));
        self.rows.extend(measure(scenario, gic, rounds)?);
        self.boots.insert(gic, boot);
        self.paths.extend(trace(scenario, gic)?);
        self.memory.push(Memory::measure(scenario, gic)?);
        Ok(())
    }

    /// Takes those of CPUs of several models.
    ///
    /// # Errors
    /// As [`OnModel::measure`].
    pub fn take_models(&mut self, scenario: &Scenario, rounds: u32) -> Outcome {
        self.models = OnModel::measure(scenario, rounds)?;
        Ok(())
    }

    /// Fails where something is over its ceiling.
    ///
    /// # Errors
    /// [`crate::Failure::Wrong`].
    pub fn check(&self, budget: &Budget) -> Outcome {
        for memory in &self.memory {
            budget.check(memory.gic, &self.rows)?;
            budget.check_sizes(&self.sizes.with(memory))?;
        }
        budget.check_devices(&self.paths)
    }

    /// For people, in Markdown.
    pub fn text(&self, budget: &Budget, rounds: u32) -> String {
        let mut text = format!("Instructions, {rounds} rounds each:\n\n{}\n", table(budget, &self.rows));
        text.push_str("On the way through EL2, in the round with the median of instructions:\n\n");
        for gic in [3, 2] {
            text.push_str(&paths(budget, &self.paths, gic));
            text.push('\n');
        }
        text.push_str("From reset to the first instruction of a guest:\n\n");
        text.push_str(&boots(&self.boots));
        text.push_str(
            "\n| memory, KiB | in all, with one VM | a further VM | a further vCPU |\n|---|--:|--:|--:|\n",
        );
        for Memory { gic, all, vm, vcpu } in &self.memory {
            let _ = writeln!(text, "| GICv{gic} | {} | {} | {} |", all >> 10, vm >> 10, vcpu >> 10);
        }
        text.push('\n');
        text.push_str(&models(budget, &self.models));
        let (code, must) = (self.sizes.code(), budget.size_must("code"));
        // Writing to a string can't fail.
        let _ = write!(text, "\n{}", self.sizes);
        let _ = writeln!(
            text,
            "\nText and rodata: {code} bytes; must: {}; {}",
            number(must),
            verdict(code, must, None)
        );
        text
    }

    /// For programs.
    pub fn json(&self) -> String {
        let all = serde_json::json!({
            "rows": self.rows,
            "paths": self.paths,
            "boots": self.boots,
            "memory": self.memory,
            "models": self.models,
            "image": BTreeMap::from(self.sizes.image()),
            "crates": self.sizes.crates,
            "modules": self.sizes.modules,
        });
        format!("{all:#}\n")
    }
}

/// Where instructions go at boot, in Markdown.
fn boots(boots: &BTreeMap<u8, Boot>) -> String {
    let mut text = String::from(
        "| | clearing the VM's memory | payload and tree | the image's lines | rest |\n|---|--:|--:|--:|--:|\n",
    );
    for (gic, Boot { scrub, payload, caches, rest, .. }) in boots {
        // Writing to a string can't fail.
        let _ = writeln!(text, "| GICv{gic} | {scrub} | {payload} | {caches} | {rest} |");
    }
    text
}

/// A table in Markdown: a line for each row that was measured, with both GICs beside each other.
fn table(budget: &Budget, rows: &[Row]) -> String {
    let mut text = String::from(
        "| | GICv3: median | min | p99 | max | must | stretch | | GICv2: median | min | p99 | max | must | |\n\
         |---|--:|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|---|\n",
    );
    for v3 in rows.iter().filter(|row| row.gic == 3) {
        let limits = budget.row(&v3.row);
        let about = limits.map_or(v3.row.as_str(), |limits| limits.about.as_str());
        let must = limits.and_then(|limits| limits.must(3));
        let stretch = limits.and_then(|limits| limits.stretch);
        let v2 = rows.iter().find(|row| row.gic == 2 && row.row == v3.row);
        let must_v2 = limits.and_then(|limits| limits.must(2));
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| {about} | {} | {} | {} | {} | {} | {} | {} |",
            figures(Some(v3)),
            number(must),
            number(stretch),
            verdict(v3.median, must, stretch),
            figures(v2),
            number(must_v2),
            v2.map_or_else(String::new, |v2| verdict(v2.median, must_v2, None))
        );
    }
    text
}

/// A table in Markdown: what the rounds of each row have on their way through EL2, with the GIC of this version.
fn paths(budget: &Budget, paths: &[Path], gic: u8) -> String {
    let mut text = format!("| GICv{gic} ");
    text.push_str(
        "| instructions | system registers | interrupt registers | barriers | maintenance | atomics ",
    );
    text.push_str("| ordered | devices | at most |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for path in paths.iter().filter(|path| path.gic == gic) {
        let limits = budget.row(&path.row);
        let about = limits.map_or(path.row.as_str(), |limits| limits.about.as_str());
        let most = limits.and_then(|limits| limits.devices_gicv2).filter(|_| gic == 2);
        // Writing to a string can't fail.
        let _ = writeln!(text, "| {about} | {} | {} |", counts(path), number(most));
    }
    text
}

/// A table in Markdown of the medians of systems beside each other, those on GICv3 and then those on GICv2: a line for each row that
/// one of Hanok's peers has too.
pub fn side_by_side(budget: &Budget, rows: &[Row], systems: &[(System, String)]) -> String {
    let columns = || [3, 2].into_iter().flat_map(|gic| systems.iter().map(move |system| (gic, system)));
    let heads: Vec<String> = columns().map(|(gic, (_, name))| format!("GICv{gic}: {name}")).collect();
    let mut text = format!("| | {} |\n|---|{}\n", heads.join(" | "), "--:|".repeat(heads.len()));
    let median = |name: &str, system, gic| {
        let is_it = |row: &&Row| row.row == name && row.system == system && row.gic == gic;
        rows.iter().find(is_it).map(|row| row.median)
    };
    for row in rows.iter().filter(|row| row.system == System::Hanok && row.gic == 3) {
        let name = row.row.as_str();
        if !rows.iter().any(|row| row.row == name && row.system != System::Hanok) {
            continue;
        }
        let about = budget.row(name).map_or(name, |limits| limits.about.as_str());
        let medians = columns().map(|(gic, (system, _))| {
            median(name, *system, gic).map_or_else(|| "-".to_owned(), |median| median.to_string())
        });
        // Writing to a string can't fail.
        let _ = writeln!(text, "| {about} | {} |", medians.collect::<Vec<_>>().join(" | "));
    }
    text
}

/// A table in Markdown of the medians of calls and of reading an ID register on CPUs of several models.
fn models(budget: &Budget, models: &[OnModel]) -> String {
    let names: Vec<_> = models.iter().map(|on| on.model).collect();
    let mut text = format!("| GICv3 | {} |\n|---|{}\n", names.join(" | "), "--:|".repeat(names.len()));
    for name in ["hvc-psci-version", "hvc-unknown", "id-register", "sgi-self"] {
        let about = budget.row(name).map_or(name, |limits| limits.about.as_str());
        let median = |on: &OnModel| number(on.rows.iter().find(|row| row.row == name).map(|row| row.median));
        let medians: Vec<_> = models.iter().map(median).collect();
        // Writing to a string can't fail.
        let _ = writeln!(text, "| {about} | {} |", medians.join(" | "));
    }
    text
}

fn counts(path: &Path) -> String {
    let Accesses {
        instructions,
        system_registers,
        interrupt_registers,
        barriers,
        maintenance,
        atomics,
        ordered,
        devices,
    } = path.accesses;
    let all = [instructions, system_registers, interrupt_registers, barriers];
    let rest = [maintenance, atomics, ordered, devices];
    all.iter().chain(&rest).map(u64::to_string).collect::<Vec<_>>().join(" | ")
}

fn figures(row: Option<&Row>) -> String {
    let all = row.map_or([None; 4], |row| [row.median, row.min, row.p99, row.max].map(Some));
    all.map(number).join(" | ")
}

fn number(number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

/// How a median stands to its targets.
fn verdict(median: u64, must: Option<u64>, stretch: Option<u64>) -> String {
    match (must, stretch) {
        (_, Some(stretch)) if median <= stretch => "stretch met".to_owned(),
        (Some(must), _) if median <= must => "must met".to_owned(),
        (Some(must), _) => format!("over must by {}", median - must),
        (None, _) => String::new(),
    }
}

/// Bytes as KiB, with one digit behind the point.
fn kib(bytes: u64) -> String {
    format!("{}.{}", bytes >> 10, (bytes & 1023) * 10 / 1024)
}

/// Sizes, in Markdown.
impl std::fmt::Display for Sizes {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        writeln!(f, "| image | KiB |\n|---|--:|")?;
        for (part, bytes) in self.image() {
            writeln!(f, "| {part} | {} |", kib(bytes))?;
        }
        writeln!(f, "\n| crate | text, KiB | lines of code | `unsafe` blocks |\n|---|--:|--:|--:|")?;
        for CrateSize { name, text, lines, unsafe_blocks } in &self.crates {
            writeln!(f, "| {name} | {} | {lines} | {unsafe_blocks} |", kib(*text))?;
        }
        writeln!(f, "\n| module of hyp/el2 | text, KiB |\n|---|--:|")?;
        for (module, text) in self.modules.iter().filter(|(_, text)| *text >= 1 << 10) {
            writeln!(f, "| {module} | {} |", kib(*text))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_stand_beside_each_other() {
        let row = |system, name: &str, gic, median| Row {
            system,
            row: name.to_owned(),
            gic,
            rounds: 1,
            min: 0,
            median,
            p99: 999,
            max: 999,
            histogram: Vec::new(),
        };
        let rows = [
            row(System::Hanok, "empty", 3, 2),
            row(System::Hanok, "own", 3, 3),
            row(System::Hanok, "empty", 2, 4),
            row(System::Xen, "empty", 2, 5),
        ];
        let budget = Budget::load().expect("it is read");
        let systems = [(System::Hanok, "Hanok".to_owned()), (System::Xen, "Xen 4".to_owned())];
        let table = side_by_side(&budget, &rows, &systems);
        let about = &budget.row("empty").expect("it is there").about;
        let wanted = format!(
            "| | GICv3: Hanok | GICv3: Xen 4 | GICv2: Hanok | GICv2: Xen 4 |\n\
             |---|--:|--:|--:|--:|\n\
             | {about} | 2 | - | 4 | 5 |\n"
        );
        assert_eq!(table, wanted);
    }

    #[test]
    fn a_median_is_held_against_both_targets() {
        assert_eq!(verdict(80, Some(100), Some(80)), "stretch met");
        assert_eq!(verdict(81, Some(100), Some(80)), "must met");
        assert_eq!(verdict(101, Some(100), Some(80)), "over must by 1");
        assert_eq!(verdict(101, None, None), "");
    }
}
