//! What can invalidate an entry, read from its packed facts.
//!
//! What belongs here: the forms that entries usually have. What does not: all others, which are left to the decoder
//! that writes them (`None` here), and what the names mean.

/// What an entry can be invalidated by, beside its namespace and its key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named<'a> {
    /// In the order given.
    pub tags: Vec<&'a str>,
    /// A path.
    pub label: Option<&'a str>,
    /// Names of versions.
    pub versions: Vec<&'a str>,
}

/// The names in packed facts: an array of tags, label, versions, model, usage and micros of computing, of which the
/// last ones may be left out. `None` of what has a usage, and of anything that is not just so: whoever made it
/// up is to be found out by the decoder that later unpacks all of it.
#[must_use]
pub fn named(packed: &[u8]) -> Option<Named<'_>> {
    let mut rest = Packed(packed);
    let mut found = Named::default();
    let fields = rest.array()?;
    if fields > 6 {
        return None;
    }
    for field in 0..fields {
        match field {
            0 => found.tags = rest.texts()?,
            1 => rest.text_or_nil(&mut found.label)?,
            2 => found.versions = rest.texts()?,
            3 => rest.text_or_nil(&mut None)?,
            4 => rest.nil()?,
            _ => rest.number()?,
        }
    }
    rest.0.is_empty().then_some(found)
}

struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    /// How many items follow: fewer than sixteen.
    fn array(&mut self) -> Option<u8> {
        let mark = self.byte()?;
        (0x90..=0x9F).contains(&mark).then_some(mark & 0x0F)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = match self.byte()? {
            mark @ 0xA0..=0xBF => usize::from(mark & 0x1F),
            0xD9 => usize::from(self.byte()?),
            0xDA => usize::from(u16::from_be_bytes(self.take(2)?.try_into().ok()?)),
            _ => return None,
        };
        str::from_utf8(self.take(length)?).ok()
    }

    fn texts(&mut self) -> Option<Vec<&'a str>> {
        let count = self.array()?;
        (0..count).map(|_| self.text()).collect()
    }

    fn nil(&mut self) -> Option<()> {
        (self.byte()? == 0xC0).then_some(())
    }

    fn text_or_nil(&mut self, into: &mut Option<&'a str>) -> Option<()> {
        if self.0.first() == Some(&0xC0) {
            return self.nil();
        }
        *into = Some(self.text()?);
        Some(())
    }

    /// A number that is not negative.
    fn number(&mut self) -> Option<()> {
        let length = match self.byte()? {
            0x00..=0x7F => 0,
            0xCC => 1,
            0xCD => 2,
            0xCE => 4,
            0xCF => 8,
            _ => return None,
        };
        self.take(length).map(drop)
    }
}
