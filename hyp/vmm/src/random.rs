//! Random numbers of one VM: ChaCha20, of which a key is used once.
//!
//! Each use takes the next key out of the key stream before anything else, and overwrites the one that it came from. So who
//! learns the state learns nothing of what was given out before; and what was given out tells nothing of the state, or of another
//! generator that was made from the same one ([`Generator::fork`]). What it gives is as good as the key that it begins with, and as what
//! is [mixed in](Generator::mix).

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// A generator, which is its next key.
pub struct Generator([u8; KEY_BYTES]);

// A key is a secret: no log shows it.
impl core::fmt::Debug for Generator {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Generator(..)")
    }
}

impl Generator {
    /// One that nobody can tell the numbers of who doesn't know `key`.
    pub const fn new(key: [u8; KEY_BYTES]) -> Self {
        Self(key)
    }

    /// Adds bytes that may be random; they can't make it worse, for whoever knows them doesn't know the key.
    pub fn mix(&mut self, fresh: &[u8; KEY_BYTES]) {
        for (byte, fresh) in self.0.iter_mut().zip(fresh) {
            *byte ^= fresh;
        }
    }

    /// Random bytes. Takes the time of four blocks of ChaCha20 for as many as 224.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        // What it holds is overwritten when it is dropped.
        let mut stream = ChaCha20Rng::from_seed(self.0);
        stream.fill_bytes(&mut self.0);
        stream.fill_bytes(&mut bytes);
        bytes
    }

    /// Another one, which has nothing to do with this one from now on.
    pub fn fork(&mut self) -> Self {
        Self(self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first two blocks of the key stream of an all-zero key, nonce and counter: RFC 8439, A.1, test vectors 1 and 2.
    const OF_ZEROS: [[u8; 64]; 2] = [
        [
            0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86, 0xbd, 0x28,
            0xbd, 0xd2, 0x19, 0xb8, 0xa0, 0x8d, 0xed, 0x1a, 0xa8, 0x36, 0xef, 0xcc, 0x8b, 0x77, 0x0d, 0xc7,
            0xda, 0x41, 0x59, 0x7c, 0x51, 0x57, 0x48, 0x8d, 0x77, 0x24, 0xe0, 0x3f, 0xb8, 0xd8, 0x4a, 0x37,
            0x6a, 0x43, 0xb8, 0xf4, 0x15, 0x18, 0xa1, 0x1c, 0xc3, 0x87, 0xb6, 0x69, 0xb2, 0xee, 0x65, 0x86,
        ],
        [
            0x9f, 0x07, 0xe7, 0xbe, 0x55, 0x51, 0x38, 0x7a, 0x98, 0xba, 0x97, 0x7c, 0x73, 0x2d, 0x08, 0x0d,
            0xcb, 0x0f, 0x29, 0xa0, 0x48, 0xe3, 0x65, 0x69, 0x12, 0xc6, 0x53, 0x3e, 0x32, 0xee, 0x7a, 0xed,
            0x29, 0xb7, 0x21, 0x76, 0x9c, 0xe6, 0x4e, 0x43, 0xd5, 0x71, 0x33, 0xb0, 0x74, 0xd8, 0x39, 0xd5,
            0x31, 0xed, 0x1f, 0x28, 0x51, 0x0a, 0xfb, 0x45, 0xac, 0xe1, 0x0a, 0x1f, 0x4b, 0x79, 0x4d, 0x6f,
        ],
    ];

    #[test]
    fn it_is_the_key_stream_of_chacha20_behind_the_next_key() {
        let mut generator = Generator::new([0; KEY_BYTES]);
        let [first, second] = OF_ZEROS;
        let bytes: [u8; 96] = generator.bytes();
        assert_eq!(bytes[..32], first[32..]);
        assert_eq!(bytes[32..], second);
        assert_eq!(generator.0, first[..32], "the key that was used is gone");
    }

    #[test]
    fn what_comes_next_is_of_the_next_key() {
        let mut generator = Generator::new([0; KEY_BYTES]);
        let before: [u8; 24] = generator.bytes();
        let key = generator.0;
        let after: [u8; 24] = generator.bytes();
        assert_ne!(before, after);
        assert_eq!(after, Generator::new(key).bytes());
    }

    #[test]
    fn forks_go_ways_of_their_own() {
        let mut parent = Generator::new([7; KEY_BYTES]);
        let mut forks = [parent.fork(), parent.fork()];
        let [one, other] = forks.each_mut().map(|fork| fork.bytes::<24>());
        assert_ne!(one, other);
        let of_parent: [u8; 24] = parent.bytes();
        assert!(one != of_parent && other != of_parent);
    }

    #[test]
    fn no_message_shows_a_key() {
        let shown = |key| std::format!("{:?}", Generator::new([key; KEY_BYTES]));
        assert_eq!(shown(7), shown(0xa5));
    }

    #[test]
    fn what_is_mixed_in_matters() {
        let of = |fresh| {
            let mut generator = Generator::new([7; KEY_BYTES]);
            generator.mix(&fresh);
            generator.bytes::<24>()
        };
        assert_ne!(of([0; KEY_BYTES]), of([1; KEY_BYTES]));
        assert_eq!(of([0; KEY_BYTES]), Generator::new([7; KEY_BYTES]).bytes());
    }
}
