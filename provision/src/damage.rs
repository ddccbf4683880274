//! What happens to input on its way, for tests that want to see what becomes of it then.

use proptest::{prelude::*, sample::Index};

/// How many cases a test of damaged input tries: its own number, or what `KILN_DAMAGE_CASES` says, for who wants to try
/// it for longer (`make damage`).
pub(crate) fn cases(own: u32) -> u32 {
    std::env::var("KILN_DAMAGE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(own)
}

/// One thing that happens to a sequence of bytes.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    /// A byte becomes another.
    Byte(Index, u8),
    /// A bit flips.
    Bit(Index, u8),
    /// The end is missing.
    Truncate(Index),
    /// Some bytes are missing.
    Remove(Index, u16),
    /// Some bytes come once more, in another place.
    Splice(Index, u16, Index),
    /// The same in whole blocks of a tar archive, so that what follows stays readable.
    SpliceBlocks(Index, u8, Index),
}

impl Damage {
    /// Lets it happen.
    pub(crate) fn inflict(&self, bytes: &mut Vec<u8>) {
        const BLOCK: usize = 512;
        let length = bytes.len();
        let piece = |start: usize, count: usize| start.min(length)..start.saturating_add(count).min(length);
        match *self {
            _ if length == 0 => {}
            Self::Byte(at, value) => bytes[at.index(length)] = value,
            Self::Bit(at, bit) => bytes[at.index(length)] ^= 1 << (bit % 8),
            Self::Truncate(at) => bytes.truncate(at.index(length)),
            Self::Remove(at, count) => drop(bytes.drain(piece(at.index(length), count.into()))),
            Self::Splice(from, count, to) => {
                let copy = bytes[piece(from.index(length), count.into())].to_vec();
                let to = to.index(length);
                bytes.splice(to..to, copy);
            }
            Self::SpliceBlocks(from, count, to) => {
                let blocks = length / BLOCK + 1;
                let copy = bytes[piece(from.index(blocks) * BLOCK, usize::from(count % 8) * BLOCK)].to_vec();
                let to = (to.index(blocks) * BLOCK).min(length);
                bytes.splice(to..to, copy);
            }
        }
    }
}

impl Arbitrary for Damage {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let at = any::<Index>;
        prop_oneof![
            4 => (at(), any::<u8>()).prop_map(|(at, value)| Self::Byte(at, value)),
            4 => (at(), any::<u8>()).prop_map(|(at, bit)| Self::Bit(at, bit)),
            1 => at().prop_map(Self::Truncate),
            2 => (at(), any::<u16>()).prop_map(|(at, count)| Self::Remove(at, count)),
            2 => (at(), any::<u16>(), at()).prop_map(|(from, count, to)| Self::Splice(from, count, to)),
            4 => (at(), any::<u8>(), at()).prop_map(|(from, count, to)| Self::SpliceBlocks(from, count, to)),
        ]
        .boxed()
    }
}
