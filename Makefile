# What a person types. Each target does its own set-up, says what it installs and does it once; downloads stay in
# target/deps. The work is cargo's and the scripts'; here are the names, the order and the options.

# Options, on the command line or from the environment:
MANIFEST ?=
GIC ?= 3
CPUS ?= 2
CPU ?= cortex-a72
MEM ?= 2G
DEBUG ?=
ARGS ?=
KERNEL ?=
INITRD ?=
LINUX ?= yes
TEST ?=
TOOLCHAIN ?= auto
QEMU ?= qemu-system-aarch64
LOCKED ?=
STUB ?= stock
FIRMWARE ?=
SDCARD_SIZE ?= 128
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
CHAOS_OPERATIONS ?= 1000000
CHAOS_SEED ?= 1
FUZZ_SANITIZER ?= none
MUTANTS ?=

TARGET := aarch64-unknown-none-softfloat
TARGET_CRATES := el2 runtime hello selftest pulse busy attacker chaos keeper courier driver monitor bench
GUESTS := hello selftest pulse busy attacker chaos keeper courier driver monitor bench

OUT := $(or $(CARGO_TARGET_DIR),target)
TOOLS := $(OUT)/debug/tools
IMAGE := target/image/hanok.img
CHECK_IMAGE := target/image/hanok-stage2-check.img
GUEST_ELFS := $(GUESTS:%=target/guests/%.elf)
LINUX_FILES := target/guests/linux/Image target/guests/linux/initrd.cpio target/guests/u-boot.bin target/guests/edk2.fd
LINUX_RPI4_FILES := target/guests/linux-rpi4/Image target/guests/linux-rpi4/initrd.cpio

# Manifests that are bundled ahead of the tests; without Linux, those that need neither it nor U-Boot nor EDK2.
MANIFESTS := $(wildcard guests/*.dts tests/manifests/*.dts)
TEST_CARDS := test-cards
TEST_TOOLS := payloads-tools
ifeq ($(LINUX),no)
TEST_CARDS :=
TEST_TOOLS :=
MANIFESTS := $(shell grep -LE 'incbin/..(linux|u-boot|edk2)' $(MANIFESTS))
LINUX_FILES :=
LINUX_RPI4_FILES :=
endif
BUNDLES := $(patsubst %.dts,target/bundles/%.dtb,$(notdir $(MANIFESTS)))

export QEMU TOOLS KERNEL INITRD GIC CPUS CPU MEM DEBUG ARGS MANIFEST IMAGE LINUX LOCKED FUZZ_SECONDS FUZZ_TARGETS \
       FUZZ_SANITIZER STUB FIRMWARE SDCARD_SIZE

.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help image run sdcard-rpi4 run-rpi4 test test-host test-target test-cards loom fuzz chaos miri mutants coverage stage2-costs bundles \
        bench bench-peers bench-linux check-manifest sysregs fmt fmt-check clippy doc emulator payloads payloads-rpi4 payloads-tools clean distclean FORCE

# The toolchain, chosen once for everything but what needs no target: there any cargo will do.
TOOLCHAIN_MK := target/toolchain-$(TOOLCHAIN).mk
ifneq ($(filter-out help clean distclean fmt fmt-check test-host loom fuzz miri mutants coverage check-manifest,$(or $(MAKECMDGOALS),help)),)
include $(TOOLCHAIN_MK)
else ifneq ($(filter-out help clean distclean,$(MAKECMDGOALS)),)
ifeq ($(shell command -v cargo),)
include $(TOOLCHAIN_MK)
endif
endif
HOST_CARGO ?= cargo
FOR_TARGET := $(TARGET_FLAGS) $(LOCKED) --target $(TARGET)

help:
	@echo 'Hanok, a type-1 hypervisor for ARMv8-A'
	@echo
	@echo 'make run        boot it in QEMU with the default manifest: an unmodified Debian Linux (Ctrl-A x leaves)'
	@echo 'make test       everything: host tests, then the scenarios in QEMU'
	@echo 'make image      the boot image, $(IMAGE), and its debug ELF beside it'
	@echo 'make sdcard-rpi4  a card for a Raspberry Pi 4: target/rpi4/sdcard.img, and its files in target/rpi4/boot'
	@echo 'make run-rpi4   the files of that card in QEMU'"'"'s model of the board'
	@echo 'make test-host  host tests alone; they need nothing but a stable Rust'
	@echo 'make loom       stage 2 under running CPUs, and the ring of channels, in every interleaving (part of make test)'
	@echo 'make fuzz       random inputs for what guests and trees reach, steered by coverage, FUZZ_SECONDS=$(FUZZ_SECONDS) each; needs a nightly Rust'
	@echo 'make chaos      a guest that does anything at all, CHAOS_OPERATIONS=$(CHAOS_OPERATIONS) times over all machines, seeds from CHAOS_SEED=$(CHAOS_SEED) on'
	@echo 'make miri       host tests of the pure crates in an interpreter that finds undefined behaviour; needs a nightly Rust'
	@echo 'make mutants    do the tests of stage 2 notice when it is wrong? Hours; MUTANTS="--file hyp/stage2/src/bbm.rs" minutes'
	@echo 'make coverage   how many lines of the pure crates the host tests execute, and which they don'"'"'t; minutes'
	@echo 'make bench      what exits, interrupts and switches cost, in instructions, and how large the image is'
	@echo 'make bench-peers  the same of Xen, KVM and the bare board beside it: writes the table in docs/benchmarks.md; minutes'
	@echo 'make bench-linux  what a whole Linux costs, beside the bare board: writes the tables in docs/benchmarks.md; minutes'
	@echo 'make stage2-costs  what operations on stage-2 tables cost, in instructions'
	@echo 'make bundles    every manifest in guests/ as a bundle in target/bundles'
	@echo 'make check-manifest M=x.dts  read it as the hypervisor will: what is in it, or what is wrong; BOARD=tree.dtb with devices'
	@echo 'make sysregs    docs/sysregs.md anew, from the tables of what guests have of system registers'
	@echo 'make fmt | clippy | doc | clean | distclean (clean keeps the downloads)'
	@echo
	@echo 'MANIFEST=x.dts  the virtual machines to run (guests/default.dts) KERNEL=, INITRD=  in place of Debian'"'"'s'
	@echo 'GIC=2|3         interrupt controller ($(GIC))                        CPUS=n, MEM=size  of the board ($(CPUS), $(MEM))'
	@echo 'CPU=model       cortex-a53, cortex-a72, neoverse-n1, max ($(CPU))'
	@echo 'DEBUG=1         wait for gdb at port 1234                        ARGS="hanok.log=debug" Hanok'"'"'s own command line'
	@echo 'STUB=stock|tf-a what runs at EL3 of a Raspberry Pi 4 ($(STUB))     SDCARD_SIZE=n  of its card, in MiB ($(SDCARD_SIZE))'
	@echo 'FIRMWARE=folder the Pi'"'"'s firmware in place of Debian'"'"'s'
	@echo 'TEST=name       only the scenarios whose name has it             LINUX=no  test without Debian'"'"'s files'
	@echo 'TOOLCHAIN=rustup|debian, QEMU=path, DEBIAN_SUITE=name, DEBIAN_MIRROR=url'

$(TOOLCHAIN_MK): scripts/toolchain scripts/lib.sh Cargo.toml
	@mkdir -p $(@D)
	@scripts/toolchain $(TOOLCHAIN) >$@.new
	@mv $@.new $@

image: $(IMAGE)
	@echo 'hanok: $(IMAGE) and target/image/hanok.elf are up to date'

run: $(IMAGE) $(GUEST_ELFS) $(TOOLS) emulator
	@scripts/run

# Payloads that a manifest includes: the guests are there, and the script brings Linux where it is wanted.
sdcard-rpi4: $(IMAGE) $(GUEST_ELFS) $(TOOLS)
	@scripts/sdcard-rpi4 target/rpi4

# The files of that card in QEMU's model of the board.
run-rpi4: sdcard-rpi4 emulator
	@scripts/run-rpi4

test: test-host loom test-target

# The crates that any host can build; see default-members in Cargo.toml.
test-host:
	$(HOST_CARGO) test $(LOCKED)

# With a target folder of its own, so that nothing else is built again. To optimise across crates takes longer than the test.
LOOM := RUSTFLAGS='--cfg loom' CARGO_PROFILE_RELEASE_LTO=off $(HOST_CARGO)
loom:
	$(LOOM) test $(LOCKED) --target-dir target/loom --release -p stage2 -p ring --test loom

fuzz:
	@scripts/fuzz

miri:
	@scripts/miri

mutants:
	@scripts/mutants $(MUTANTS)

coverage:
	@HOST_CARGO='$(HOST_CARGO)' scripts/coverage

# Both flavours of what `make sdcard-rpi4` makes without options.
test-cards: $(IMAGE) $(GUEST_ELFS) $(TOOLS)
	@scripts/mtools
	@for stub in stock tf-a; do \
	    env MANIFEST= ARGS= SDCARD_SIZE= STUB=$$stub scripts/sdcard-rpi4 target/test-cards/$$stub || exit; done

test-target: $(IMAGE) $(CHECK_IMAGE) bundles $(TEST_CARDS) $(TEST_TOOLS) emulator
	HANOK_IMAGE=$(CURDIR)/$(IMAGE) HANOK_STAGE2_CHECK=$(CURDIR)/$(CHECK_IMAGE) \
	    HANOK_GUESTS=$(CURDIR)/target/guests HANOK_BUNDLES=$(CURDIR)/target/bundles \
	    HANOK_CARDS=$(CURDIR)/target/test-cards \
	    $(HOST_CARGO) test $(LOCKED) -p tests $(TEST)

# Anything at all, by chance, for longer than in `make test`.
CHAOS_GUESTS := chaos keeper busy pulse
chaos: $(IMAGE) $(CHAOS_GUESTS:%=target/guests/%.elf) emulator
	@HANOK_IMAGE=$(CURDIR)/$(IMAGE) HANOK_GUESTS=$(CURDIR)/target/guests \
	    $(HOST_CARGO) run -q $(LOCKED) -p tests --bin chaos -- $(CHAOS_OPERATIONS) $(CHAOS_SEED)

# What exits, interrupts and switches cost, in instructions; `make test` sees that it doesn't grow.
bench: $(IMAGE) target/guests/bench.elf emulator
	@HANOK_IMAGE=$(CURDIR)/$(IMAGE) HANOK_GUESTS=$(CURDIR)/target/guests \
	    $(HOST_CARGO) run -q $(LOCKED) -p tests --bin bench -- target/bench.json

# The same guest under what Hanok is compared with, which is Debian's.
PEERS := target/deps/peers
bench-peers: $(IMAGE) target/guests/bench.elf target/peers/kvm-runner emulator
	@scripts/peer-packages
	@HANOK_IMAGE=$(CURDIR)/$(IMAGE) HANOK_GUESTS=$(CURDIR)/target/guests HANOK_PEERS=$(CURDIR)/$(PEERS) \
	    HANOK_KVM_RUNNER=$(CURDIR)/target/peers/kvm-runner \
	    $(HOST_CARGO) run -q $(LOCKED) -p tests --bin bench-peers -- target/bench-peers.json docs/benchmarks.md

target/peers/kvm-runner: FORCE
	@scripts/kvm-runner "$(TOOLCHAIN_CHOSEN)" $@

# A whole Linux on the bare board, and as a guest.
bench-linux: $(IMAGE) payloads emulator
	@HANOK_IMAGE=$(CURDIR)/$(IMAGE) HANOK_GUESTS=$(CURDIR)/target/guests \
	    HANOK_BUSYBOX=$(CURDIR)/target/deps/guest/busybox \
	    $(HOST_CARGO) run -q $(LOCKED) -p tests --bin bench-linux -- target/bench-linux.json docs/benchmarks.md

# What operations on stage 2 cost, in instructions: one tick of the counter is one, and a run repeats.
stage2-costs: $(CHECK_IMAGE) emulator
	@$(QEMU) -M virt,virtualization=on,gic-version=3,dtb-randomness=off -cpu $(CPU),cntfrq=1000000000 -smp 1 -m 2G \
	    -icount shift=0,sleep=off -rtc base=2024-01-01,clock=vm -nographic -nic none -kernel $(CHECK_IMAGE) \
	    -append hanok.costs 2>/dev/null | tr -d '\r' | sed -n 's/^.*hanok: cost: //p; /error/p'

bundles: $(BUNDLES)

# Payloads that it includes have to be there: the build's own after `make bundles`.
M ?=
BOARD ?=
check-manifest: $(TOOLS)
	@scripts/check-manifest '$(M)' '$(BOARD)'

# The page of what guests have of system registers, from the tables in vmm.
sysregs: $(TOOLS)
	@$(TOOLS) sysregs >docs/sysregs.md.new && mv docs/sysregs.md.new docs/sysregs.md

fmt:
	$(HOST_CARGO) fmt --all
	$(HOST_CARGO) fmt --manifest-path fuzz/Cargo.toml

fmt-check:
	$(HOST_CARGO) fmt --all --check
	$(HOST_CARGO) fmt --manifest-path fuzz/Cargo.toml --check

# The target's crates one by one: together, features that EL2 has its allocator for would be on in the guests too.
clippy:
	$(HOST_CARGO) clippy $(LOCKED) --all-targets -- -D warnings
	$(HOST_CARGO) clippy $(LOCKED) -p tests --all-targets -- -D warnings
	$(LOOM) clippy $(LOCKED) --target-dir target/loom -p stage2 -p ring --test loom -- -D warnings
	for crate in $(TARGET_CRATES); do $(TARGET_CARGO) clippy $(FOR_TARGET) -p $$crate -- -D warnings || exit; done
	$(TARGET_CARGO) clippy $(FOR_TARGET) -p el2 --features stage2-check -- -D warnings
	scripts/kvm-runner "$(TOOLCHAIN_CHOSEN)" --clippy

doc:
	RUSTDOCFLAGS='-D warnings' $(HOST_CARGO) doc $(LOCKED) --no-deps
	RUSTDOCFLAGS='-D warnings' $(TARGET_CARGO) doc $(FOR_TARGET) --no-deps $(TARGET_CRATES:%=-p %)

clean:
	@if [ -d target ]; then find target -mindepth 1 -maxdepth 1 ! -name deps -exec rm -rf {} +; fi

distclean:
	rm -rf target

emulator:
	@scripts/emulator

# Programs are built whenever asked for, since cargo knows best what changed; files that depend on them are made
# again only when they differ.
FORCE:

$(TOOLS): FORCE
	@$(HOST_CARGO) build -q $(LOCKED) -p tools

target/guests/%.elf: $(TOOLS) FORCE
	@mkdir -p $(@D)
	@$(TARGET_CARGO) build $(FOR_TARGET) --release -p $*
	@$(TOOLS) strip $(OUT)/$(TARGET)/release/$* $@

target/image/builtin.dtb: guests/builtin.dts target/guests/hello.elf scripts/bundle
	@scripts/bundle $< $@

target/image/hanok.elf: FORCE target/image/builtin.dtb
	@HANOK_BUILTIN_BUNDLE=$(CURDIR)/target/image/builtin.dtb $(TARGET_CARGO) build $(FOR_TARGET) --release -p el2
	@. scripts/lib.sh; put $@ $(OUT)/$(TARGET)/release/hanok

$(IMAGE): target/image/hanok.elf $(TOOLS)
	@$(TOOLS) image $< $@

# The hardware check of stage 2: the same image, but that it runs this and no VM.
target/image/hanok-stage2-check.elf: FORCE
	@mkdir -p $(@D)
	@$(TARGET_CARGO) build $(FOR_TARGET) --release -p el2 --features stage2-check
	@. scripts/lib.sh; put $@ $(OUT)/$(TARGET)/release/hanok

$(CHECK_IMAGE): target/image/hanok-stage2-check.elf $(TOOLS)
	@$(TOOLS) image $< $@

payloads: $(TOOLS)
	@scripts/payloads

target/guests/linux/Image target/guests/linux/initrd.cpio target/guests/u-boot.bin target/guests/edk2.fd: payloads
	@:

# After the others, which use the same downloads.
payloads-rpi4: payloads
	@scripts/payloads rpi4

# Programs that tests run in Linux.
payloads-tools: payloads
	@scripts/payloads tools

target/guests/linux-rpi4/Image target/guests/linux-rpi4/initrd.cpio: payloads-rpi4
	@:

target/bundles/rpi4-devices.dtb: $(LINUX_RPI4_FILES)

target/bundles/%.dtb: guests/%.dts $(GUEST_ELFS) $(LINUX_FILES) scripts/bundle
	@scripts/bundle $< $@

target/bundles/%.dtb: tests/manifests/%.dts $(GUEST_ELFS) $(LINUX_FILES) scripts/bundle
	@scripts/bundle $< $@
