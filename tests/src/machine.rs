//! The machine that QEMU is to be: its command line.

use std::path::PathBuf;

use crate::Socket;

/// Where QEMU loads the image on its `virt` board.
pub const IMAGE: u64 = 0x4020_0000;

/// QEMU's `virt` board, or its Raspberry Pi 4. What is not said is as `make run` has it, but for one thing: Hanok's own log says
/// more.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Of a Raspberry Pi 4 the device tree, which QEMU doesn't have.
    pub(crate) raspberry: Option<PathBuf>,
    pub(crate) gic: u8,
    pub(crate) cpu: String,
    pub(crate) cpus: u8,
    pub(crate) memory: String,
    pub(crate) at_el2: bool,
    pub(crate) image: Option<PathBuf>,
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) arguments: String,
    pub(crate) kernel: Kernel,
    pub(crate) control: Control,
    /// Which of its serial ports is the console.
    pub(crate) port: u8,
    /// The socket that the port behind the console goes to.
    pub(crate) second_port: Option<PathBuf>,
    pub(crate) more: Vec<String>,
}

/// How the image comes into memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// By QEMU's own boot loader.
    Loaded,
    /// By something else, or not at all.
    Left,
}

/// What QEMU speaks on the control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// QMP.
    Qmp,
    /// gdb's remote protocol; the machine waits for gdb before its first instruction.
    Gdb,
}

impl Machine {
    /// With the GIC of this version, 2 or 3, and `cpus` CPUs.
    pub fn new(gic: u8, cpus: u8) -> Self {
        Self {
            raspberry: None,
            gic,
            cpu: "cortex-a72".to_owned(),
            cpus,
            memory: "2G".to_owned(),
            at_el2: true,
            image: None,
            bundle: None,
            arguments: "hanok.log=debug hanok.color=off".to_owned(),
            kernel: Kernel::Loaded,
            control: Control::Qmp,
            port: 0,
            second_port: None,
            more: Vec::new(),
        }
    }

    /// A Raspberry Pi 4 with this device tree: four CPUs, GICv2. QEMU's boot loader leaves CPUs in a spin table, and no PSCI.
    pub fn raspberry_pi_4(tree: PathBuf) -> Self {
        Self { raspberry: Some(tree), ..Self::new(2, 4) }
    }

    /// CPUs of this model.
    pub fn cpu(mut self, model: &str) -> Self {
        self.cpu = model.to_owned();
        self
    }

    /// RAM, in QEMU's words: `2G`.
    pub fn memory(mut self, size: &str) -> Self {
        self.memory = size.to_owned();
        self
    }

    /// Another image than the one that is tested else.
    pub fn image(mut self, image: PathBuf) -> Self {
        self.image = Some(image);
        self
    }

    /// A VM bundle, handed over as the initrd.
    pub fn bundle(mut self, bundle: PathBuf) -> Self {
        self.bundle = Some(bundle);
        self
    }

    /// Hanok's own command line.
    pub fn arguments(mut self, arguments: &str) -> Self {
        self.arguments = arguments.to_owned();
        self
    }

    /// Time is what instructions take: one of them, whatever it does, is a nanosecond and a tick of the counter. Two runs of the
    /// same image take the same instructions, whatever the host does meanwhile.
    pub fn counted(self) -> Self {
        self.cpu("max,cntfrq=1000000000")
            .option("-M", "dtb-randomness=off")
            .option("-icount", "shift=0,sleep=off")
            .option("-rtc", "base=2024-01-01,clock=vm")
    }

    /// Time is what instructions take, 32 ns each, so that a host with much else to do makes nobody late.
    pub fn paced(self) -> Self {
        self.option("-icount", "shift=5,sleep=off")
    }

    /// CPUs without EL2: the image is entered at EL1.
    pub fn without_el2(mut self) -> Self {
        self.at_el2 = false;
        self
    }

    /// The boot loader doesn't load the image: something else does.
    pub fn without_kernel(mut self) -> Self {
        self.kernel = Kernel::Left;
        self
    }

    /// The console is this serial port of the machine's, and nobody listens at those before it. A Raspberry Pi 4 has the
    /// PL011 as port 0 and the mini-UART as port 1.
    pub fn console_at(mut self, port: u8) -> Self {
        self.port = port;
        self
    }

    /// The serial port behind the console goes to this socket.
    pub fn second_port(mut self, socket: &Socket) -> Self {
        self.second_port = Some(socket.path().to_owned());
        self
    }

    /// The machine is driven by [`Board::gdb`](crate::Board::gdb), in place of [`Board::qmp`](crate::Board::qmp), and
    /// waits for it before its first instruction.
    pub fn with_gdb(mut self) -> Self {
        self.control = Control::Gdb;
        self
    }

    /// More of QEMU's options.
    pub fn option(mut self, name: &str, value: impl Into<String>) -> Self {
        self.more.extend([name.to_owned(), value.into()]);
        self
    }

    fn board(&self) -> Vec<String> {
        if let Some(tree) = &self.raspberry {
            let mut all = vec!["-M".to_owned(), "raspi4b".to_owned()];
            if self.kernel == Kernel::Loaded {
                all.extend(["-dtb".to_owned(), tree.display().to_string()]);
            }
            return all;
        }
        let el2 = if self.at_el2 { ",virtualization=on" } else { "" };
        let mut all: Vec<String> =
            ["-M", &format!("virt,gic-version={}{el2}", self.gic), "-cpu", &self.cpu, "-m", &self.memory]
                .map(str::to_owned)
                .into();
        all.extend(["-smp".to_owned(), self.cpus.to_string()]);
        all
    }

    /// QEMU's arguments that make the machine, without its console.
    pub(crate) fn qemu_arguments(&self, image: &str) -> Vec<String> {
        let mut all = self.board();
        if self.kernel == Kernel::Loaded {
            all.extend(["-kernel", image].map(str::to_owned));
        }
        if let Some(bundle) = &self.bundle {
            all.extend(["-initrd".to_owned(), bundle.display().to_string()]);
        }
        if !self.arguments.is_empty() && self.kernel == Kernel::Loaded {
            all.extend(["-append", &self.arguments].map(str::to_owned));
        }
        all.extend(self.more.iter().cloned());
        all
    }
}
