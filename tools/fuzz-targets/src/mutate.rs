//! A small mutator for the ordinary test: seeded, so that the same run finds the same.

use standfast_wal::storage::sim::Random;

/// No input grows beyond this.
pub const INPUT_BYTES_MAX: usize = 16 << 10;

/// Numbers at which lengths, counts and places go wrong.
const EXTREMES: [u64; 14] = [
    0,
    1,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    u64::MAX >> 1,
    u64::MAX,
];

/// Words of the text formats, and numbers as text.
const WORDS: [&[u8]; 16] = [
    b"\r\n",
    b"*",
    b"$",
    b"-1",
    b"0",
    b"\"",
    b"'",
    b"\\x",
    b"= ",
    b"[",
    b"]",
    b"{",
    b"\0",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"18446744073709551616",
];

fn index(random: &mut Random, len: usize) -> usize {
    usize::try_from(random.below(len.max(1) as u64)).unwrap_or(0)
}

/// Changes `input` in one to four places; `others` lend their bytes.
pub fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(4) {
        once(input, others, random);
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn once(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    let at = index(random, input.len());
    let len = 1 + index(random, (input.len() - at.min(input.len())).min(64));
    let end = (at + len).min(input.len());
    match random.below(10) {
        0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        1 if !input.is_empty() => input[at] = random.draw().to_le_bytes()[0],
        2 => input.truncate(at),
        3 => drop(input.drain(at..end)),
        4 => {
            let copy = input[at..end].to_vec();
            let to = index(random, input.len() + 1);
            drop(input.splice(to..to, copy));
        }
        5 => number(input, at, random),
        6 => {
            let word = WORDS[index(random, WORDS.len())];
            drop(input.splice(at..at, word.iter().copied()));
        }
        7 if !others.is_empty() => splice(input, &others[index(random, others.len())], random),
        // The first byte says how the rest is meant.
        8 if !input.is_empty() => input[0] = random.draw().to_le_bytes()[0],
        _ => {
            let bytes = random.draw().to_le_bytes();
            let len = 1 + index(random, bytes.len());
            drop(input.splice(at..at, bytes[..len].iter().copied()));
        }
    }
}

/// Overwrites one number: by an extreme, or by its neighbour.
fn number(input: &mut [u8], at: usize, random: &mut Random) {
    let width = [1, 2, 4, 8][index(random, 4)];
    let aligned = at - at % width;
    let at = if random.below(2) == 0 { at } else { aligned };
    let Some(field) = input.get_mut(at..at + width) else {
        return;
    };
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(field);
    let old = u64::from_le_bytes(wide);
    let new = match random.below(4) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        _ => EXTREMES[index(random, EXTREMES.len())],
    };
    field.copy_from_slice(&new.to_le_bytes()[..width]);
}

/// Goes on as another input does.
fn splice(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let keep = index(random, input.len() + 1);
    let from = index(random, other.len() + 1);
    input.truncate(keep);
    input.extend_from_slice(&other[from..]);
}
