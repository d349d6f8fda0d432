//! The short form of a fuzz target, in an ordinary test: its corpus, and some thousands of random inputs, the same ones each
//! time. It runs with any compiler, so that what the targets check can't rot where nobody fuzzes.

use std::fs;
use std::path::{Path, PathBuf};

/// Shows an input whose check panics, so that it can be kept as a file of the corpus.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
            println!("the input, for xxd -r -p: {hex}");
        }
    }
}

/// Numbers that look random: SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// A byte: any, or one that often means something.
    fn byte(&mut self) -> u8 {
        let number = self.next();
        match number & 3 {
            0 => [0, 1, 0x7f, 0x80, 0xff, b'/', b'@', 9][(number >> 8 & 7) as usize],
            _ => (number >> 8) as u8,
        }
    }
}

/// The files of `fuzz/corpus/<target>`, sorted by name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = crate_folder.ancestors().map(|folder| folder.join("fuzz/corpus").join(target));
    let folder = folders.into_iter().find(|folder| folder.is_dir()).expect("fuzz/corpus has the target");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
}

/// Checks the corpus of `target`, at least `least` files, and `random` inputs of at most `longest` bytes: half of them bytes
/// without sense, half of them changed files of the corpus.
pub fn replay(target: &str, least: usize, random: usize, longest: usize, check: fn(&[u8])) {
    let files = corpus(target);
    assert!(files.len() >= least, "{} files: is this the corpus?", files.len());
    for (path, input) in &files {
        println!("{}", path.display());
        let shown = Shown(input);
        check(shown.0);
    }
    let mut numbers = Numbers(target.len() as u64);
    for _ in 0..random {
        let input = match numbers.next() & 1 {
            0 => (0..numbers.below(longest + 1)).map(|_| numbers.byte()).collect(),
            _ => changed(&files[numbers.below(files.len())].1, &mut numbers),
        };
        let shown = Shown(&input);
        check(shown.0);
    }
}

/// With a few bytes changed, a part put elsewhere, or the end cut off.
fn changed(input: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut input = input.to_vec();
    if input.is_empty() {
        return input;
    }
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(input.len());
        match numbers.below(8) {
            0 => {
                let to = numbers.below(input.len());
                let length = numbers.below(32).min(input.len() - at.max(to));
                input.copy_within(at..at + length, to);
            }
            1 if at > 0 && numbers.below(4) == 0 => input.truncate(at),
            _ => input[at] = numbers.byte(),
        }
    }
    input
}
