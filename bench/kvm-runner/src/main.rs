//! Runs the VM of the bundle `/bundle.dtb` under KVM, with its console on standard output, and turns the machine off at its end. It is
//! the only process there, `/init` of an initramfs.
//!
//! A VMM of the least kind: memory, vCPUs, KVM's own interrupt controller, timers and PSCI, and a UART. A guest that reaches for
//! anything else is ended, with a word on what it was.

use std::fs;
use std::io::{self, Write};
use std::mem::offset_of;
use std::sync::{Mutex, PoisonError};
use std::thread;

use config::guest_tree::GicVersion;
use kvm_bindings::{
    KVM_ARM_IRQ_TYPE_SHIFT, KVM_ARM_IRQ_TYPE_SPI, KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2,
    KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL,
    KVM_DEV_ARM_VGIC_GRP_NR_IRQS, KVM_REG_ARM_CORE, KVM_REG_ARM64, KVM_REG_SIZE_U64, KVM_SYSTEM_EVENT_RESET,
    KVM_SYSTEM_EVENT_SHUTDOWN, KVM_VGIC_V2_ADDR_TYPE_CPU, KVM_VGIC_V2_ADDR_TYPE_DIST,
    KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST, kvm_create_device, kvm_device_attr,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3, kvm_regs,
    kvm_userspace_memory_region, kvm_vcpu_init, user_pt_regs,
};
use kvm_ioctls::{DeviceFd, Kvm, VcpuExit, VcpuFd, VmFd};
use kvm_runner::{LAYOUT, Pl011, Plan, plan, put_read, uart_offset, written};
use rustix::system::{RebootCommand, reboot};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
use vmm::devices::Line;

const BUNDLE: &str = "/bundle.dtb";

/// Why there is no VM, or why it was ended.
type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() {
    if let Err(why) = run() {
        eprintln!("kvm-runner: {why}");
    }
    // This is the first process: where it ended by itself, the kernel would panic.
    if let Err(why) = reboot(RebootCommand::PowerOff) {
        eprintln!("kvm-runner: the machine doesn't go off: {why}");
    }
}

/// Makes the VM and runs it until a vCPU turns it off.
fn run() -> Result<(), Error> {
    let kvm = Kvm::new().map_err(|why| format!("/dev/kvm: {why}"))?;
    let vm = kvm.create_vm()?;
    let (gic, version) = interrupt_controller(&vm)?;
    let plan = plan(&fs::read(BUNDLE).map_err(|why| format!("{BUNDLE}: {why}"))?, version)?;
    let memory = memory(&vm, &plan)?;
    let vcpus = (0..plan.cpus).map(|index| vcpu(&vm, &plan, index)).collect::<Result<Vec<_>, _>>()?;
    // Only now does it know how many CPUs it serves.
    set_attribute(&gic, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, None)?;
    let uart = Mutex::new(Pl011::new());
    let end = thread::scope(|scope| {
        let (ended, end) = std::sync::mpsc::channel();
        for mut vcpu in vcpus {
            let (ended, vm, uart) = (ended.clone(), &vm, &uart);
            scope.spawn(move || {
                let why = execute(&mut vcpu, vm, uart);
                // Nobody listens any more where another vCPU has ended the VM.
                let _ = ended.send(why);
            });
        }
        let why = end.recv().unwrap_or_else(|_| Err("no vCPU runs".into()));
        if let Err(why) = &why {
            eprintln!("kvm-runner: {why}");
        }
        // The other vCPUs may be in the guest, and nobody would ever call them back.
        reboot(RebootCommand::PowerOff).map_err(Error::from)
    });
    drop(memory);
    end
}

/// RAM with what is in it at the start.
fn memory(vm: &VmFd, plan: &Plan) -> Result<GuestMemoryMmap<()>, Error> {
    let base = GuestAddress(LAYOUT.ram.base.as_u64());
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(base, plan.memory)])?;
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: base.0,
        memory_size: plan.memory as u64,
        userspace_addr: memory.get_host_address(base)? as u64,
    };
    // SAFETY: nothing else is mapped there until the caller drops `memory`, and no vCPU runs any more when it does.
    unsafe { vm.set_user_memory_region(region)? };
    for (address, bytes) in &plan.contents {
        memory.write_slice(bytes, GuestAddress(*address))?;
    }
    Ok(memory)
}

/// An interrupt controller of the version that the machine has: KVM can't make another one here.
fn interrupt_controller(vm: &VmFd) -> Result<(DeviceFd, GicVersion), Error> {
    let create = |kind| vm.create_device(&mut kvm_create_device { type_: kind, fd: 0, flags: 0 });
    let (gic, version, places) = match create(kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3) {
        Ok(gic) => {
            let places =
                [(KVM_VGIC_V3_ADDR_TYPE_DIST, LAYOUT.gicd), (KVM_VGIC_V3_ADDR_TYPE_REDIST, LAYOUT.gicr)];
            (gic, GicVersion::V3, places)
        }
        Err(_) => {
            let gic = create(kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2)?;
            let places =
                [(KVM_VGIC_V2_ADDR_TYPE_DIST, LAYOUT.gicd), (KVM_VGIC_V2_ADDR_TYPE_CPU, LAYOUT.gicc)];
            (gic, GicVersion::V2, places)
        }
    };
    for (kind, place) in places {
        set_attribute(&gic, KVM_DEV_ARM_VGIC_GRP_ADDR, kind, Some(place.base.as_u64()))?;
    }
    // A number of 32 bits is read where this points; on a little-endian machine, that is the lower half.
    set_attribute(&gic, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, Some(u64::from(LAYOUT.spis) + 32))?;
    Ok((gic, version))
}

fn set_attribute(device: &DeviceFd, group: u32, attribute: u32, value: Option<u64>) -> Result<(), Error> {
    let address = value.as_ref().map_or(0, |value| core::ptr::from_ref(value) as u64);
    let attribute = kvm_device_attr { group, attr: u64::from(attribute), addr: address, flags: 0 };
    Ok(device.set_device_attr(&attribute)?)
}

/// A vCPU; the first one is ready to start, the others are off.
fn vcpu(vm: &VmFd, plan: &Plan, index: u8) -> Result<VcpuFd, Error> {
    let vcpu = vm.create_vcpu(u64::from(index))?;
    let mut kind = kvm_vcpu_init::default();
    vm.get_preferred_target(&mut kind)?;
    kind.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    if index > 0 {
        kind.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
    }
    vcpu.vcpu_init(&kind)?;
    if index == 0 {
        let core = offset_of!(kvm_regs, regs);
        set_register(&vcpu, core + offset_of!(user_pt_regs, regs), plan.tree)?;
        set_register(&vcpu, core + offset_of!(user_pt_regs, pc), plan.entry)?;
    }
    Ok(vcpu)
}

/// Sets the core register at this offset of [`kvm_regs`], by which KVM numbers them, in words.
fn set_register(vcpu: &VcpuFd, offset: usize, value: u64) -> Result<(), Error> {
    let id = KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | (offset as u64 / 4);
    vcpu.set_one_reg(id, &value.to_le_bytes())?;
    Ok(())
}

/// Runs a vCPU until it turns the VM off.
fn execute(vcpu: &mut VcpuFd, vm: &VmFd, uart: &Mutex<Pl011>) -> Result<(), Error> {
    loop {
        match vcpu.run()? {
            VcpuExit::MmioRead(address, data) => {
                let offset = uart_offset(address).ok_or_else(|| format!("a read of {address:#x}"))?;
                let (value, line) = uart.lock().unwrap_or_else(PoisonError::into_inner).read(offset);
                put_read(data, value);
                drive(vm, line)?;
            }
            VcpuExit::MmioWrite(address, data) => {
                let offset = uart_offset(address).ok_or_else(|| format!("a write to {address:#x}"))?;
                let mut uart = uart.lock().unwrap_or_else(PoisonError::into_inner);
                drive(vm, uart.write(offset, written(data)))?;
                send(vm, &mut uart)?;
            }
            VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN | KVM_SYSTEM_EVENT_RESET, _) => return Ok(()),
            other => return Err(format!("the guest is ended: {other:?}").into()),
        }
    }
}

/// Writes out what the guest has sent.
fn send(vm: &VmFd, uart: &mut Pl011) -> Result<(), Error> {
    let mut bytes = [0; 64];
    let mut output = io::stdout().lock();
    while uart.pending_output() > 0 {
        let (count, line) = uart.drain(&mut bytes);
        output.write_all(&bytes[..count])?;
        drive(vm, line)?;
    }
    Ok(output.flush()?)
}

/// Tells the interrupt controller of a change of the UART's line.
fn drive(vm: &VmFd, line: Line) -> Result<(), Error> {
    let number = KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | LAYOUT.uart.intid();
    line.level().map_or(Ok(()), |level| Ok(vm.set_irq_line(number, level)?))
}
