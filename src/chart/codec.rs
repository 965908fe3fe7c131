//! Numbers as bytes of variable length, and blobs with a checksum.
//!
//! Invariant: one value has one spelling, and reading never fails but by [`Malformed`]: a blob that is cut off, too long or changed is
//! not opened. Deliberately absent: types that describe themselves; what is written here is a cache of one version.

/// Bytes that nothing of ours wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not what was written")]
pub struct Malformed;

const CHECKSUM_LEN: usize = 4;

/// Writes numbers.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes, ended by their checksum.
    pub fn sealed(mut self) -> Vec<u8> {
        let checksum = crc32fast::hash(&self.bytes);
        self.bytes.extend_from_slice(&checksum.to_le_bytes());
        self.bytes
    }

    pub fn unsigned(&mut self, value: u64) {
        self.large(u128::from(value));
    }

    /// Zigzag: small magnitudes are short, whatever their sign.
    pub fn signed(&mut self, value: i64) {
        self.unsigned((value.wrapping_shl(1) ^ (value >> 63)).cast_unsigned());
    }

    pub fn large(&mut self, mut value: u128) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    pub fn text(&mut self, text: &[u8]) {
        self.unsigned(text.len() as u64);
        self.bytes.extend_from_slice(text);
    }
}

/// Reads numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What [`Writer::sealed`] gave.
    pub fn unsealed(blob: &'a [u8]) -> Result<Self, Malformed> {
        let (bytes, checksum) = blob.split_last_chunk::<CHECKSUM_LEN>().ok_or(Malformed)?;
        if crc32fast::hash(bytes) == u32::from_le_bytes(*checksum) { Ok(Self::new(bytes)) } else { Err(Malformed) }
    }

    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn unsigned(&mut self) -> Result<u64, Malformed> {
        // Almost every number is short; the general way is for the few that are not.
        match self.rest {
            [byte @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => u64::try_from(self.large()?).map_err(|_| Malformed),
        }
    }

    pub fn signed(&mut self) -> Result<i64, Malformed> {
        let zigzag = self.unsigned()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    pub fn large(&mut self) -> Result<u128, Malformed> {
        let mut value = 0_u128;
        for (place, byte) in self.rest.iter().enumerate() {
            let bits = u128::from(byte & 0x7f);
            let shift = u32::try_from(place).map_err(|_| Malformed)? * 7;
            if shift >= 128 || bits.checked_shl(shift).is_none_or(|moved| moved >> shift != bits) {
                return Err(Malformed);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // A last byte of 0 would spell the same number in another way.
                self.rest = self.rest.get(place + 1..).filter(|_| place == 0 || *byte != 0).ok_or(Malformed)?;
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    pub fn length(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.unsigned()?).map_err(|_| Malformed)
    }

    pub fn small(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.unsigned()?).map_err(|_| Malformed)
    }

    pub fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length()?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were() {
        let signed = [0, 1, -1, 63, 64, -64, -65, i64::MAX, i64::MIN];
        let large = [0, 127, 128, u128::from(u64::MAX) + 1, u128::MAX];
        let mut out = Writer::default();
        signed.iter().for_each(|value| out.signed(*value));
        large.iter().for_each(|value| out.large(*value));
        out.text(b"AAPL");
        let bytes = out.sealed();
        let mut text = Reader::unsealed(&bytes).unwrap();
        signed.iter().for_each(|value| assert_eq!(text.signed(), Ok(*value)));
        large.iter().for_each(|value| assert_eq!(text.large(), Ok(*value)));
        assert_eq!(text.text(), Ok(b"AAPL".as_slice()));
        assert!(text.is_empty());
    }

    #[test]
    fn what_is_cut_off_changed_or_spelled_otherwise_is_not_read() {
        let mut out = Writer::default();
        out.text(b"a text");
        let blob = out.sealed();
        for cut in 0..blob.len() {
            assert!(Reader::unsealed(&blob[..cut]).is_err());
        }
        for bit in 0..blob.len() * 8 {
            let mut flipped = blob.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Reader::unsealed(&flipped).is_err(), "bit {bit}");
        }
        assert_eq!(Reader::new(&[0x80, 0x00]).unsigned(), Err(Malformed), "zero in two bytes");
        assert_eq!(Reader::new(&[0xff; 30]).large(), Err(Malformed));
        assert_eq!(Reader::new(&[0x80]).unsigned(), Err(Malformed));
        assert_eq!(Reader::new(&[5, 1]).text(), Err(Malformed));
    }
}
