//! Manifests: which virtual machines run, as device-tree source, and the bundles that `dtc` makes of them.

use std::fmt::Write;
use std::path::Path;

/// A virtual machine of a manifest.
#[derive(Clone, Debug)]
pub struct Vm {
    name: String,
    properties: Vec<(String, String)>,
}

impl Vm {
    /// A node with nothing in it but `compatible`.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), properties: Vec::new() }.property("compatible", "\"hanok,vm\"")
    }

    fn sized(name: &str, cpus: u8, mebibytes: u32) -> Self {
        Self::new(name).property("cpus", &format!("<{cpus}>")).memory(mebibytes)
    }

    /// Debian's Linux, as `make run` has it.
    pub fn linux(cpus: u8) -> Self {
        Self::sized("linux", cpus, 512)
            .payload("kernel", "linux/Image")
            .payload("initrd", "linux/initrd.cpio")
            .property("bootargs", "\"console=ttyAMA0\"")
    }

    /// A Linux that runs nothing but this shell script, from the moment that it is up.
    pub fn linux_running(cpus: u8, script: &str) -> Self {
        let arguments = format!(r#""console=ttyAMA0 quiet rdinit=/bin/sh -- -c \"{script}\"""#);
        Self::linux(cpus).property("bootargs", &arguments)
    }

    /// The small guest that the image has built in.
    pub fn hello(name: &str) -> Self {
        Self::sized(name, 1, 16).payload("elf", "hello.elf")
    }

    /// The guest that checks its machine. `arguments` is its command line: which cases, or which other program.
    pub fn selftest(cpus: u8, arguments: &str) -> Self {
        Self::sized("selftest", cpus, 64)
            .payload("elf", "selftest.elf")
            .property("bootargs", &format!("\"{arguments}\""))
    }

    /// The real-time guest. `arguments` is its command line: `ticks=`, `reports=`, `work=`.
    pub fn pulse(arguments: &str) -> Self {
        Self::sized("pulse", 1, 16)
            .payload("elf", "pulse.elf")
            .property("bootargs", &format!("\"{arguments}\""))
    }

    /// The guest that measures what its hypervisor costs. `arguments` is its command line: `bench=`, `rounds=`.
    pub fn bench(cpus: u8, arguments: &str) -> Self {
        Self::sized("bench", cpus, 16)
            .payload("elf", "bench.elf")
            .property("bootargs", &format!("\"{arguments}\""))
    }

    /// The guest that is busy and checks its CPUs' state. `arguments` is its command line, see its `main.rs`.
    pub fn busy(cpus: u8, arguments: &str) -> Self {
        Self::sized("busy", cpus, 16)
            .payload("elf", "busy.elf")
            .property("bootargs", &format!("\"{arguments}\""))
    }

    /// The guest that sends messages through a channel. `arguments` is its command line, see its `main.rs`.
    pub fn courier(name: &str, arguments: &str) -> Self {
        Self::sized(name, 1, 16)
            .payload("elf", "courier.elf")
            .property("bootargs", &format!("\"{arguments}\""))
    }

    /// The guest that drives devices of the board. `arguments` is its command line, see its `main.rs`.
    pub fn driver(arguments: &str, nodes: &[&str]) -> Self {
        let nodes: Vec<String> = nodes.iter().map(|node| format!("{node:?}")).collect();
        Self::sized("driver", 1, 16)
            .payload("elf", "driver.elf")
            .property("bootargs", &format!("\"{arguments}\""))
            .property("passthrough", &nodes.join(", "))
    }

    /// A channel between two virtual machines, which stands beside them in the manifest. `size` in KiB.
    pub fn channel(name: &str, [first, second]: [&str; 2], size: u32) -> Self {
        let channel = Self { name: name.to_owned(), properties: Vec::new() };
        channel
            .property("compatible", "\"hanok,channel\"")
            .property("vms", &format!("\"{first}\", \"{second}\""))
            .property("size", &format!("<{size}>"))
    }

    /// The guest that does something to another one. `arguments` is its command line, see its `main.rs`.
    pub fn keeper(arguments: &str) -> Self {
        Self::sized("keeper", 1, 16)
            .payload("elf", "keeper.elf")
            .property("bootargs", &format!("\"{arguments}\""))
            .property("rights", "\"control\", \"statistics\"")
    }

    /// The guest that tries to reach what isn't its own. `arguments` is its command line, see its `main.rs`.
    pub fn attacker(cpus: u8, arguments: &str) -> Self {
        Self::sized("attacker", cpus, 8)
            .payload("elf", "attacker.elf")
            .property("bootargs", &format!("\"{arguments}\""))
    }

    /// The guest that does anything at all. `arguments` is its command line, see its `main.rs`. It needs the channel `progress`.
    pub fn chaos(cpus: u8, arguments: &str) -> Self {
        Self::sized("chaos", cpus, 4)
            .payload("elf", "chaos.elf")
            .property("bootargs", &format!("\"{arguments}\""))
    }

    /// Shares CPUs with others, in proportion to the weights.
    pub fn weight(self, weight: u32) -> Self {
        self.property("weight", &format!("<{weight}>"))
    }

    /// Shares CPUs with others, and has `budget` of each `period` microseconds.
    pub fn reserved(self, budget: u32, period: u32) -> Self {
        self.property("budget", &format!("<{budget}>")).property("period", &format!("<{period}>"))
    }

    /// RAM, in MiB.
    pub fn memory(self, mebibytes: u32) -> Self {
        self.property("memory", &format!("<0x0 {:#x}>", u64::from(mebibytes) << 10))
    }

    /// Another name.
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// A property with its value in device-tree source, or with none where that is empty; one of the same name is replaced.
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A property less.
    pub fn without(mut self, name: &str) -> Self {
        self.properties.retain(|(present, _)| present != name);
        self
    }

    /// A property that is the contents of a file, looked for beside the manifest and among the guests.
    pub fn payload(self, name: &str, file: impl AsRef<Path>) -> Self {
        self.property(name, &format!("/incbin/(\"{}\")", file.as_ref().display()))
    }
}

/// The source of a manifest with these virtual machines, and with these properties of its root.
pub(crate) fn source(root: &str, vms: &[Vm]) -> String {
    let mut text = format!("/dts-v1/;\n\n/ {{\n\tcompatible = \"hanok,bundle\";\n{root}");
    for vm in vms {
        // Writing to a string can't fail.
        let _ = writeln!(text, "\n\t{} {{", vm.name);
        for (name, value) in &vm.properties {
            let _ = match value.as_str() {
                "" => writeln!(text, "\t\t{name};"),
                value => writeln!(text, "\t\t{name} = {value};"),
            };
        }
        text.push_str("\t};\n");
    }
    text.push_str("};\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_value_replaces_an_earlier_one() {
        let vm = Vm::hello("a").property("cpus", "<9>").without("memory");
        let text = source("", &[vm]);
        assert!(text.contains("\ta {\n\t\tcompatible = \"hanok,vm\";\n"), "{text}");
        assert!(text.contains("cpus = <9>;") && !text.contains("<1>") && !text.contains("memory"), "{text}");
        assert!(text.contains("elf = /incbin/(\"hello.elf\");"), "{text}");
    }
}
