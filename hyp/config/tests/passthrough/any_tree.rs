//! Any bytes as the tree of a board whose devices VMs name: nothing is handed out that another VM, or Hanok, has.

use config::guest_tree::{self, GicVersion, GuestTree};
use devicetree::Tree;
use vmm::layout::VIRT;

use crate::apart::{configs, hand_out};
use crate::board::{PI_GICD, pi_own};

/// Checks one input.
pub fn check(blob: &[u8]) {
    let (_, given) = hand_out(blob, PI_GICD, &configs(), &pi_own(), &[]);
    for given in &given {
        // What the VM's tree has of them can be read, whatever the board's is like.
        let tree = guest_tree::build(&GuestTree {
            layout: &VIRT,
            memory: 1 << 30,
            affinities: &[0],
            gic: GicVersion::V2,
            bootargs: None,
            has_initrd: false,
            channels: &[],
            has_seeds: false,
            watchdog: None,
            counters: None,
            has_flash: false,
            devices: &given.nodes,
        });
        Tree::check(&tree).expect("a tree that is made is good");
    }
}
