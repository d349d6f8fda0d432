//! Random numbers of one VM: ChaCha20, of which a key is used once.
//!
//! Each use takes the next key out of the key stream before anything else, and overwrites the one that it came from. So who
//! learns the state learns nothing of what was given out before; and what was given out tells nothing of the state, or of another
//! generator that was made from the same one ([`Generator::fork`]). What it gives is as good as the key that it begins with, and as what
//! is [mixed in](Generator::mix).

use chacha20::variants::Ietf;
use chacha20::{ChaChaCore, Nonce, R20};
use cipher::consts::U32;
use cipher::zeroize::Zeroize;
use cipher::{Block, KeyIvInit, StreamCipherCore};

/// RFC 8439's block function.
type ChaCha20 = ChaChaCore<R20, Ietf>;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// The same in words.
pub const KEY_WORDS: usize = KEY_BYTES / 8;

/// A generator, which is its next key. It is aligned, as a block is, for words to be loaded and stored: EL2's code has no access that isn't
/// aligned, and takes what may be at any address byte by byte.
#[repr(align(8))]
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

    /// Adds words that may be random; they can't make it worse, for whoever knows them doesn't know the key.
    pub fn mix(&mut self, fresh: [u64; KEY_WORDS]) {
        for (bytes, fresh) in self.0.as_chunks_mut().0.iter_mut().zip(fresh) {
            *bytes = (u64::from_le_bytes(*bytes) ^ fresh).to_le_bytes();
        }
    }

    /// Random bytes. Takes the time of one block of ChaCha20 for each 32 of them: the other half of it is the next key.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(KEY_BYTES) {
            let mut stream = Stream::default();
            self.begin(&mut stream);
            let (key, given) = stream.0.split_ref::<U32>();
            self.0 = key.0;
            for (byte, given) in chunk.iter_mut().zip(given) {
                *byte = *given;
            }
        }
        bytes
    }

    /// Another one, which has nothing to do with this one from now on.
    pub fn fork(&mut self) -> Self {
        Self(self.bytes())
    }

    /// The beginning of the key's stream. A function of its own in the image too: inlined, the compiler takes the stream apart, and leaves pieces
    /// of it on the stack where nobody overwrites them.
    #[inline(never)]
    fn begin(&self, stream: &mut Stream) {
        // The cipher overwrites its copy of the key when it is dropped.
        ChaCha20::new((&self.0).into(), &Nonce::default()).write_keystream_block(&mut stream.0);
    }
}

/// A block of a key's stream, which is overwritten when it is dropped.
#[derive(Default)]
#[repr(align(8))]
struct Stream(Block<ChaCha20>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use chacha20::rand_core::{Rng, SeedableRng};

    use super::*;

    /// The first block of the key stream of an all-zero key and nonce, counter 0: RFC 8439, A.1, test vector 1.
    const OF_ZEROS: [[u8; 32]; 2] = [
        [
            0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86, 0xbd, 0x28,
            0xbd, 0xd2, 0x19, 0xb8, 0xa0, 0x8d, 0xed, 0x1a, 0xa8, 0x36, 0xef, 0xcc, 0x8b, 0x77, 0x0d, 0xc7,
        ],
        [
            0xda, 0x41, 0x59, 0x7c, 0x51, 0x57, 0x48, 0x8d, 0x77, 0x24, 0xe0, 0x3f, 0xb8, 0xd8, 0x4a, 0x37,
            0x6a, 0x43, 0xb8, 0xf4, 0x15, 0x18, 0xa1, 0x1c, 0xc3, 0x87, 0xb6, 0x69, 0xb2, 0xee, 0x65, 0x86,
        ],
    ];

    #[test]
    fn a_block_is_the_next_key_and_what_is_given() {
        let mut generator = Generator::new([0; KEY_BYTES]);
        let [key, given] = OF_ZEROS;
        assert_eq!(generator.bytes(), given);
        assert_eq!(generator.0, key, "the key that was used is gone");
    }

    /// The same by another interface of the library: words of a stream whose counter has 64 bits, four blocks at a time.
    #[test]
    fn it_is_chacha20_of_any_key() {
        for seed in 0..=u8::MAX {
            let key = core::array::from_fn(|n| seed.wrapping_mul(n as u8 + 3) ^ n as u8);
            let mut wanted = [0; 64];
            ChaCha20Rng::from_seed(key).fill_bytes(&mut wanted);
            let mut generator = Generator::new(key);
            let bytes: [u8; 32] = generator.bytes();
            assert_eq!([generator.0, bytes].as_flattened(), wanted);
        }
    }

    #[test]
    fn each_32_bytes_are_of_a_key_of_their_own() {
        let [mut one, mut other] = [7; 2].map(|byte| Generator::new([byte; KEY_BYTES]));
        let bytes: [u8; 72] = one.bytes();
        let (first, second, rest): ([u8; 32], [u8; 32], [u8; 8]) =
            (other.bytes(), other.bytes(), other.bytes());
        assert_eq!(bytes[..32], first);
        assert_eq!(bytes[32..64], second);
        assert_eq!(bytes[64..], rest);
        assert_eq!(one.0, other.0);
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
            generator.mix(fresh);
            generator.bytes::<24>()
        };
        for word in 0..KEY_WORDS {
            let mut fresh = [0; KEY_WORDS];
            fresh[word] = 1;
            assert_ne!(of([0; KEY_WORDS]), of(fresh), "{word}");
        }
        assert_eq!(of([0; KEY_WORDS]), Generator::new([7; KEY_BYTES]).bytes());
    }
}
