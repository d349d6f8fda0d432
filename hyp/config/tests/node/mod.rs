//! Makes bundles for tests.

use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

/// A node under construction.
pub struct Node(DeviceTreeNode);

impl Node {
    pub fn new(name: &str) -> Self {
        Self(DeviceTreeNode::new(name).unwrap())
    }

    /// A VM's node, so far without payload.
    pub fn vm(name: &str) -> Self {
        Self::new(name).with("compatible", "hanok,vm")
    }

    /// A root with nothing in it.
    pub fn bare_root() -> Self {
        Self(DeviceTree::new().root)
    }

    pub fn with(mut self, name: &str, value: impl ToPropertyValue) -> Self {
        self.0.add_property(DeviceTreeProperty::new(name, value).unwrap());
        self
    }

    pub fn child(mut self, node: Node) -> Self {
        self.0.add_child(node.0);
        self
    }
}

/// The root of a bundle.
pub fn root() -> Node {
    Node::bare_root().with("compatible", "hanok,bundle")
}

pub fn blob(root: Node) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    tree.root = root.0;
    tree.to_dtb()
}

/// The blob of a bundle with these VMs.
pub fn bundle(vms: impl IntoIterator<Item = Node>) -> Vec<u8> {
    blob(vms.into_iter().fold(root(), Node::child))
}
