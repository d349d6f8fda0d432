//! Records that calls write into a caller's buffer: little-endian 64-bit words, the fields in this order.
//!
//! A record grows at its end, and only with the minor number of [`REVISION`](crate::hanok::REVISION): whoever knows less
//! of it asks for less, and whoever knows more gets fewer bytes than asked for. Times are ticks of the board's counter.

/// A field: a word, or several.
trait Words {
    /// How many.
    const COUNT: usize;
    /// Writes them to the start of `out`, which has room.
    fn put(&self, out: &mut [u64]);
    /// Reads them from the start of `words`; what isn't there is 0.
    fn get(words: &[u64]) -> Self;
}

impl Words for u64 {
    const COUNT: usize = 1;

    fn put(&self, out: &mut [u64]) {
        if let Some(word) = out.first_mut() {
            *word = *self;
        }
    }

    fn get(words: &[u64]) -> Self {
        words.first().copied().unwrap_or(0)
    }
}

impl<const N: usize> Words for [u64; N] {
    const COUNT: usize = N;

    fn put(&self, out: &mut [u64]) {
        for (word, value) in out.iter_mut().zip(self) {
            *word = *value;
        }
    }

    fn get(words: &[u64]) -> Self {
        let mut words = words.iter().copied();
        core::array::from_fn(|_| words.next().unwrap_or(0))
    }
}

macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$about])* pub $field: $type,)*
        }

        impl $name {
            /// Its size in words.
            pub const WORDS: usize = 0 $(+ <$type as Words>::COUNT)*;

            /// All of its words, in order.
            pub fn to_words(&self) -> [u64; Self::WORDS] {
                let mut words = [0; Self::WORDS];
                let mut rest = &mut words[..];
                $(
                    self.$field.put(rest);
                    rest = rest.split_at_mut_checked(<$type as Words>::COUNT).unwrap_or_default().1;
                )*
                let _ = rest;
                words
            }

            /// The record that has these words; those that are missing are 0.
            pub fn from_words(words: &[u64]) -> Self {
                let mut rest = words;
                $(
                    let $field = <$type as Words>::get(rest);
                    rest = rest.get(<$type as Words>::COUNT..).unwrap_or(&[]);
                )*
                let _ = rest;
                Self { $($field),* }
            }
        }
    };
}

record! {
    /// The board.
    BoardRecord {
        /// Its physical CPUs that run.
        cpus: u64,
        /// The VMs, whatever they do: their numbers are less than this.
        vms: u64,
        /// Bytes of memory that VMs have or could have.
        memory: u64,
        /// Bytes of these that nobody has.
        free: u64,
        /// The counter when this was written.
        now: u64,
        /// Ticks in a second.
        frequency: u64,
    }
}

record! {
    /// A VM.
    VmRecord {
        /// Its name, in 32 bytes, the rest of them 0: [`name`](Self::name).
        name: [u64; 4],
        /// Where it is in its life: a [`state`].
        state: u64,
        /// Its vCPUs.
        vcpus: u64,
        /// Bytes of RAM that it has while it runs.
        memory: u64,
        /// Bytes of memory of all kinds that it has now, but for the frames of its tables and what it shares.
        held: u64,
        /// How its vCPUs come by their time: 0: they are pinned; 1: by weight; 2: by budget and period.
        sharing: u64,
        /// The weight, or the budget in ticks.
        share: u64,
        /// The period in ticks.
        period: u64,
        /// How often it has been started, the first time included.
        starts: u64,
        /// How often it has crashed.
        crashes: u64,
        /// How often it made a call that it has no right to.
        denied: u64,
        /// The counter when this was written.
        now: u64,
        /// Ticks in a second.
        frequency: u64,
    }
}

record! {
    /// A vCPU.
    VcpuRecord {
        /// Its physical CPU.
        cpu: u64,
        /// 0: off; 1: about to start; 2: on.
        power: u64,
        /// Ticks for which it had its CPU, since the board started. A pinned vCPU has it all the time that its VM runs.
        ran: u64,
        /// Ticks for which it was ready, and another one had its CPU.
        waited: u64,
        /// Its exits, by [`EXITS`].
        exits: [u64; 8],
        /// Interrupts that were put before it.
        interrupts: u64,
        /// The counter when this was written.
        now: u64,
    }
}

record! {
    /// What a vCPU was at when its VM crashed.
    CrashRecord {
        /// Why: a [`crash`].
        why: u64,
        /// The vCPU's number.
        vcpu: u64,
        /// The counter then.
        at: u64,
        /// ESR_EL2: what brought it to EL2 last.
        esr: u64,
        /// Its PC.
        pc: u64,
        /// Its PSTATE, as SPSR_EL2 has it.
        pstate: u64,
        /// FAR_EL2.
        far: u64,
        /// HPFAR_EL2.
        hpfar: u64,
        /// The instruction at the PC in bits 31:0; bit 32 is set where it could be read.
        instruction: u64,
        /// X0 to X30.
        x: [u64; 31],
        /// SP_EL0, SP_EL1.
        sp: [u64; 2],
        /// ELR_EL1, SPSR_EL1, ESR_EL1, FAR_EL1: the last exception that it took itself.
        el1: [u64; 4],
        /// SCTLR_EL1, VBAR_EL1, TTBR0_EL1, TTBR1_EL1.
        system: [u64; 4],
        /// How many exits follow.
        exits: u64,
        /// The last exits, the latest first: ESR_EL2 (0 for an interrupt) and PC of each.
        exit: [u64; 32],
    }
}

/// Where a VM is in its life ([`VmRecord::state`]).
pub mod state {
    /// It has never been started.
    pub const CREATED: u64 = 0;
    /// It is being given memory and loaded.
    pub const STARTING: u64 = 1;
    /// It runs.
    pub const RUNNING: u64 = 2;
    /// Its vCPUs and its counters stand still.
    pub const PAUSED: u64 = 3;
    /// Its memory is being scrubbed and given back.
    pub const STOPPING: u64 = 4;
    /// It turned itself off, or was stopped.
    pub const STOPPED: u64 = 5;
    /// It crashed.
    pub const CRASHED: u64 = 6;
    /// It is paused, and some of its vCPUs are still on their way off their CPUs.
    pub const PAUSING: u64 = 7;

    /// In words.
    pub const fn name(state: u64) -> &'static str {
        match state {
            CREATED => "created",
            STARTING => "starting",
            RUNNING => "running",
            PAUSED => "paused",
            STOPPING => "stopping",
            STOPPED => "stopped",
            CRASHED => "crashed",
            PAUSING => "pausing",
            _ => "?",
        }
    }
}

/// Why a VM crashed ([`CrashRecord::why`]).
pub mod crash {
    /// It has not.
    pub const NONE: u64 = 0;
    /// An SError came while it ran.
    pub const SERROR: u64 = 1;
    /// Its watchdog was not fed.
    pub const WATCHDOG: u64 = 2;
    /// It said so itself.
    pub const SAID_SO: u64 = 3;

    /// In words.
    pub const fn name(why: u64) -> &'static str {
        match why {
            NONE => "none",
            SERROR => "SError",
            WATCHDOG => "its watchdog was not fed",
            SAID_SO => "it says so itself",
            _ => "?",
        }
    }
}

/// What brought a vCPU to EL2, as [`VcpuRecord::exits`] counts it.
pub const EXITS: [&str; 8] = ["irq", "hvc", "smc", "sysreg", "mmio", "abort", "wfx", "other"];

impl VmRecord {
    /// A name as the record has it; what is longer than 32 bytes loses its end.
    pub fn words_of_name(name: &str) -> [u64; 4] {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(name.as_bytes().chunks(8)) {
            for (place, byte) in bytes.iter().enumerate() {
                *word |= u64::from(*byte) << (8 * place);
            }
        }
        words
    }

    /// The name's bytes, padded with 0.
    pub fn name_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (eight, word) in bytes.chunks_mut(8).zip(self.name) {
            eight.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_in_the_order_of_the_fields() {
        let words: [u64; VcpuRecord::WORDS] = core::array::from_fn(|n| n as u64 + 1);
        let record = VcpuRecord::from_words(&words);
        assert_eq!((record.cpu, record.power, record.ran, record.waited), (1, 2, 3, 4));
        assert_eq!(record.exits, [5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!((record.interrupts, record.now), (13, 14));
        assert_eq!(record.to_words(), words);
    }

    #[test]
    fn a_record_that_is_cut_short_has_zeros() {
        let record = VcpuRecord::from_words(&[7, 1, 9]);
        assert_eq!((record.cpu, record.power, record.ran, record.waited), (7, 1, 9, 0));
        assert_eq!(record.exits, [0; 8]);
    }

    #[test]
    fn names_go_through_words() {
        for name in ["", "a", "linux", "12345678", "a-name-of-thirty-one-characters"] {
            let record = VmRecord { name: VmRecord::words_of_name(name), ..VmRecord::from_words(&[]) };
            let bytes = record.name_bytes();
            assert_eq!(&bytes[..name.len()], name.as_bytes());
            assert!(bytes[name.len()..].iter().all(|byte| *byte == 0));
        }
    }
}
