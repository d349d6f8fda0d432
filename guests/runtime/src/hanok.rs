//! Hanok's own calls ([`abi::hanok`]), made safe. Where the hypervisor isn't Hanok, none is made, since another one may
//! mean something else by the same number: the answer is [`Error::NotSupported`].

use core::arch::asm;

use abi::hanok;
use abi::record::{BoardRecord, CrashRecord, VcpuRecord, VmRecord};
use spin::Once;

use crate::hypervisor;

pub use abi::{Control, Error, FunctionId, Identity, Speaker};

/// Bytes that go through a buffer of the runtime's own at a time: whoever calls needn't align theirs.
const BLOCK: usize = 512;

/// A buffer as calls want it.
#[repr(C, align(8))]
struct Block([u8; BLOCK]);

/// What a call may do to the caller's memory.
enum Buffer<'a> {
    /// Nothing.
    None,
    /// Read these bytes.
    Read(&'a Block),
    /// Write to these bytes.
    Write(&'a mut Block),
    /// Write to these words.
    Words(&'a mut [u64]),
}

impl Buffer<'_> {
    /// Its guest physical address, which is its address: RAM is mapped one to one ([`mmu`](crate::mmu)).
    fn address(&mut self) -> u64 {
        match self {
            Self::None => 0,
            Self::Read(block) => block.0.as_ptr() as u64,
            Self::Write(block) => block.0.as_mut_ptr() as u64,
            Self::Words(words) => words.as_mut_ptr() as u64,
        }
    }

    fn size(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Read(_) | Self::Write(_) => BLOCK as u64,
            Self::Words(words) => size_of_val(*words) as u64,
        }
    }
}

/// The hypervisor is Hanok.
pub fn is_there() -> bool {
    static HANOK: Once<bool> = Once::new();
    *HANOK.call_once(hypervisor::is_hanok)
}

/// Calls `function` with up to two arguments, then a buffer's address, then `size` or, at most, the buffer's size: x0,
/// checked, and x1 to x3.
fn call(
    function: FunctionId,
    arguments: &[u64],
    mut buffer: Buffer,
    size: u64,
) -> Result<(u64, [u64; 3]), Error> {
    if !is_there() {
        return Err(Error::NotSupported);
    }
    let mut x = [0; 4];
    for (place, argument) in x.iter_mut().zip(arguments) {
        *place = *argument;
    }
    if !matches!(buffer, Buffer::None) {
        x[arguments.len()] = buffer.address();
        x[arguments.len() + 1] = size.min(buffer.size());
    }
    let (x0, [x1, x2, x3, mut x4]) = (u64::from(function.as_u32()), x);
    let (mut r0, mut r1, mut r2, mut r3) = (x0, x1, x2, x3);
    // SAFETY: a call of Hanok's changes the results' registers, and memory only where it is told a buffer: `buffer` is
    // borrowed until here, and no more of it is told than there is. Without `nomem`, so that it is written before and read
    // afterwards. No call of this service starts code.
    unsafe {
        asm!("hvc #0",
            inout("x0") r0, inout("x1") r1, inout("x2") r2, inout("x3") r3, inout("x4") x4,
            out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
            options(nostack));
    }
    let _ = (x4, buffer);
    let status = if function.is_64bit() { r0 as i64 } else { i64::from(r0 as i32) };
    Error::check(status).map(|result| (result, [r1, r2, r3]))
}

/// As [`call`], where there is no buffer.
fn plain(function: FunctionId, arguments: &[u64]) -> Result<(u64, [u64; 3]), Error> {
    call(function, arguments, Buffer::None, 0)
}

/// The revision of Hanok's calls: major and minor number.
pub fn revision() -> Result<(u32, u32), Error> {
    let (major, [minor, ..]) = plain(hanok::REVISION, &[])?;
    Ok((major as u32, minor as u32))
}

/// Whether a call is there, as [`hanok::FEATURES`] says; where that isn't there itself, none is.
pub fn offers(function: FunctionId) -> bool {
    plain(hanok::FEATURES, &[u64::from(function.as_u32())]).is_ok()
}

/// Who this is.
pub fn identity() -> Result<Identity, Error> {
    let (_, [vm, vcpu, rights]) = plain(hanok::IDENTITY, &[])?;
    Ok(Identity { vm: vm as u32, vcpu: vcpu as u32, rights: rights as u32 })
}

/// Lets others that share the CPU go first, once.
pub fn yield_cpu() -> Result<(), Error> {
    plain(hanok::YIELD, &[]).map(drop)
}

/// Writes to the own console; how many bytes were taken, from the first one on. 0: there is no room now.
pub fn console_write(bytes: &[u8]) -> Result<usize, Error> {
    let mut block = Block([0; BLOCK]);
    let count = bytes.len().min(BLOCK);
    block.0[..count].copy_from_slice(&bytes[..count]);
    let (taken, _) = call(hanok::CONSOLE_WRITE, &[], Buffer::Read(&block), count as u64)?;
    Ok(count.min(taken as usize))
}

/// Reads from the own console; how many bytes came. 0: there are none now.
pub fn console_read(buffer: &mut [u8]) -> Result<usize, Error> {
    read_bytes(hanok::CONSOLE_READ, &[], buffer).map(|(count, _)| count)
}

/// Rings the bell of the VM at the other end of a channel.
pub fn doorbell(channel: u32) -> Result<(), Error> {
    plain(hanok::DOORBELL, &[u64::from(channel)]).map(drop)
}

/// Does it to the VM with this number. That it succeeds says that it was begun, not that it is done.
pub fn control(what: Control, vm: u32) -> Result<(), Error> {
    plain(what.function(), &[u64::from(vm)]).map(drop)
}

/// Says that this VM has crashed. Where that is heard, it doesn't return.
pub fn crash() -> Result<(), Error> {
    plain(hanok::CRASH, &[]).map(drop)
}

/// What the board has.
pub fn board_info() -> Result<BoardRecord, Error> {
    let mut words = [0; BoardRecord::WORDS];
    read_words(hanok::BOARD_INFO, &[], &mut words)?;
    Ok(BoardRecord::from_words(&words))
}

/// What a VM is and does.
pub fn vm_info(vm: u32) -> Result<VmRecord, Error> {
    let mut words = [0; VmRecord::WORDS];
    read_words(hanok::VM_INFO, &[u64::from(vm)], &mut words)?;
    Ok(VmRecord::from_words(&words))
}

/// What a VM's vCPU does.
pub fn vcpu_info(vm: u32, vcpu: u32) -> Result<VcpuRecord, Error> {
    let mut words = [0; VcpuRecord::WORDS];
    read_words(hanok::VCPU_INFO, &[u64::from(vm), u64::from(vcpu)], &mut words)?;
    Ok(VcpuRecord::from_words(&words))
}

/// The report of a VM's last crash, if it has crashed.
pub fn vm_crash(vm: u32) -> Result<Option<CrashRecord>, Error> {
    let mut words = [0; CrashRecord::WORDS];
    let count = read_words(hanok::VM_CRASH, &[u64::from(vm)], &mut words)?;
    Ok((count > 0).then(|| CrashRecord::from_words(&words)))
}

/// What was said last, from this position on, 0 being the oldest that is kept: how many bytes there are in `buffer` now,
/// 0 at the end, and the position to go on at. It may be less than there is room for.
pub fn history(whose: Speaker, position: u64, buffer: &mut [u8]) -> Result<(usize, u64), Error> {
    read_bytes(hanok::HISTORY, &[whose.argument(), position], buffer)
}

/// Gives a VM the board's console.
pub fn focus(vm: u32) -> Result<(), Error> {
    plain(hanok::FOCUS, &[u64::from(vm)]).map(drop)
}

/// This VM's watchdog.
pub mod watchdog {
    use super::{Error, hanok, plain};
    use abi::hanok::watchdog;

    fn call(what: u32, argument: u32) -> Result<[u64; 3], Error> {
        plain(hanok::WATCHDOG, &[u64::from(what), u64::from(argument)]).map(|(_, results)| results)
    }

    /// The least and the most that a timeout can be, in seconds.
    pub fn limits() -> Result<(u32, u32), Error> {
        call(watchdog::INIT, 0).map(|[least, most, _]| (least as u32, most as u32))
    }

    /// Sets the timeout, in seconds.
    pub fn set_timeout(seconds: u32) -> Result<(), Error> {
        call(watchdog::SET_TIMEOUT, seconds).map(drop)
    }

    /// Turns it on or off.
    pub fn enable(on: bool) -> Result<(), Error> {
        call(watchdog::ENABLE, u32::from(on)).map(drop)
    }

    /// Says that all is well.
    pub fn feed() -> Result<(), Error> {
        call(watchdog::PET, 0).map(drop)
    }

    /// How many seconds are left.
    pub fn time_left() -> Result<u32, Error> {
        call(watchdog::GET_TIMELEFT, 0).map(|[left, ..]| left as u32)
    }
}

/// A call that writes a record; how many bytes of it it wrote.
fn read_words(function: FunctionId, arguments: &[u64], words: &mut [u64]) -> Result<u64, Error> {
    call(function, arguments, Buffer::Words(words), u64::MAX).map(|(count, _)| count)
}

/// A call that writes text: how many bytes of it, and X1.
fn read_bytes(function: FunctionId, arguments: &[u64], buffer: &mut [u8]) -> Result<(usize, u64), Error> {
    let mut block = Block([0; BLOCK]);
    let room = buffer.len().min(BLOCK);
    let (count, [x1, ..]) = call(function, arguments, Buffer::Write(&mut block), room as u64)?;
    let count = room.min(count as usize);
    buffer[..count].copy_from_slice(&block.0[..count]);
    Ok((count, x1))
}
