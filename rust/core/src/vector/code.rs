//! Directions as 10-bit codes: what the index keeps of a vector.
//!
//! What belongs here: reading vectors, normalising, coding, and the cosine of two codes. What does not: where
//! codes are kept (`flat`, `graph`).
//!
//! A number of a vector is `level / 508 x largest`, a level being an integer within ±508. Its upper eight bits are
//! what a search compares first, all of them in one instruction or two where the processor has them for bytes;
//! the lower two make the few best exact. The largest number cancels out of a cosine, so only the length of the
//! levels is kept. A cosine is off by 0.00015 (root mean square, 384 numbers). Sums are of integers: a cosine is the
//! same on every machine.

use numkong::f16;

use super::error::VectorError;

/// The largest level: 127 steps of 4, so that rounding to a step stays within a byte. A sum of products of a quarter
/// of the levels fits 32 bits: 508^2 x 4096 < 2^31.
const LEVELS: f32 = 508.0;

/// A vector's direction.
pub(super) struct Code {
    /// Levels, by number.
    levels: Vec<i16>,
    /// Their upper eight bits, rounded: `levels / 4`.
    pub(super) high: Vec<i8>,
    /// One over the length of the levels.
    pub(super) inverse: f32,
}

impl Code {
    /// Of a vector of `dimension` little-endian float32 or float16, told apart by their bytes.
    pub(super) fn new(bytes: &[u8], dimension: usize) -> Result<Self, VectorError> {
        let numbers = numbers(bytes, dimension)?;
        let largest = largest(&numbers)?;
        let scale = LEVELS / largest;
        #[expect(clippy::cast_possible_truncation, reason = "within ±508")]
        let levels: Vec<i16> = if scale.is_finite() {
            numbers
                .iter()
                .map(|number| (number * scale).round() as i16)
                .collect()
        } else {
            // Numbers so small that the scale overflows.
            numbers
                .iter()
                .map(|number| (number / largest * LEVELS).round() as i16)
                .collect()
        };
        Ok(Self::from_levels(levels))
    }

    fn from_levels(levels: Vec<i16>) -> Self {
        let squares: i64 = levels
            .iter()
            .map(|&level| i64::from(level) * i64::from(level))
            .sum();
        #[expect(clippy::cast_possible_truncation, reason = "|level| <= 508")]
        let high = levels
            .iter()
            .map(|&level| ((level + 2) >> 2) as i8)
            .collect();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "a quotient"
        )]
        let inverse = (1.0 / (squares as f64).sqrt()) as f32;
        Self {
            levels,
            high,
            inverse,
        }
    }

    /// Appends the lower two bits, four levels a byte: those of number `i` beside those of number `i + quarter`.
    pub(super) fn push_low(&self, low: &mut Vec<u8>) {
        let quarter = low_bytes(self.levels.len());
        let start = low.len();
        low.resize(start + quarter, 0);
        for (levels, shift) in self.levels.chunks(quarter).zip([0, 2, 4, 6]) {
            for (low, &level) in low[start..].iter_mut().zip(levels) {
                #[expect(clippy::cast_sign_loss, reason = "two bits")]
                let bits = ((level + 2) & 3) as u8;
                *low |= bits << shift;
            }
        }
    }

    /// About the cosine with a code of these upper bits.
    #[inline]
    pub(super) fn rough(&self, high: &[i8], inverse: f32) -> f32 {
        use numkong::Dot;
        // The constant factor is left out: only the order counts.
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let product = i8::dot(&self.high, high).unwrap_or_default() as f32;
        product * inverse
    }

    /// The cosine with a code of these bits.
    pub(super) fn cosine(&self, high: &[i8], low: &[u8], inverse: f32) -> f32 {
        let quarter = low.len();
        let product: i64 = self
            .levels
            .chunks(quarter)
            .zip(high.chunks(quarter))
            .zip([0, 2, 4, 6])
            .map(|((levels, high), shift)| i64::from(product(levels, high, low, shift)))
            .sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "a cosine"
        )]
        let cosine = (product as f64 * f64::from(self.inverse) * f64::from(inverse)) as f32;
        cosine.clamp(-1.0, 1.0)
    }
}

/// Bytes that hold the lower bits of `dimension` levels.
pub(super) fn low_bytes(dimension: usize) -> usize {
    dimension.div_ceil(4)
}

/// The sum of products of levels with levels of these bits.
fn product(levels: &[i16], high: &[i8], low: &[u8], shift: u32) -> i32 {
    levels
        .iter()
        .zip(high)
        .zip(low)
        .map(|((&level, &high), &low)| {
            let other = (i16::from(high) << 2) + i16::from((low >> shift) & 3) - 2;
            i32::from(level) * i32::from(other)
        })
        .sum()
}

/// The vector of `dimension` float32 (or float16) as float16 of length one, little-endian.
pub fn to_half(bytes: &[u8], dimension: usize) -> Result<Vec<u8>, VectorError> {
    let numbers = numbers(bytes, dimension)?;
    // Divided by the largest first: squares of what is left neither vanish nor overflow.
    let largest = f64::from(largest(&numbers)?);
    let length = numbers
        .iter()
        .map(|&number| (f64::from(number) / largest).powi(2))
        .sum::<f64>()
        .sqrt()
        * largest;
    Ok(numbers
        .iter()
        .flat_map(|&number| {
            #[expect(clippy::cast_possible_truncation, reason = "within ±1")]
            let unit = (f64::from(number) / length) as f32;
            f16::from_f32(unit).0.to_le_bytes()
        })
        .collect())
}

fn numbers(bytes: &[u8], dimension: usize) -> Result<Vec<f32>, VectorError> {
    if bytes.len() == dimension * 4 {
        let (numbers, _) = bytes.as_chunks::<4>();
        Ok(numbers
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect())
    } else if bytes.len() == dimension * 2 {
        let (numbers, _) = bytes.as_chunks::<2>();
        Ok(numbers
            .iter()
            .map(|&bytes| f16(u16::from_le_bytes(bytes)).to_f32())
            .collect())
    } else {
        Err(VectorError::Length {
            got: bytes.len(),
            dimension,
        })
    }
}

/// The largest magnitude: finite and not zero.
fn largest(numbers: &[f32]) -> Result<f32, VectorError> {
    if let Some(at) = numbers.iter().position(|number| !number.is_finite()) {
        return Err(VectorError::NotFinite(at));
    }
    let largest = numbers
        .iter()
        .fold(0.0, |largest: f32, number| largest.max(number.abs()));
    if largest > 0.0 {
        Ok(largest)
    } else {
        Err(VectorError::Zero)
    }
}
