//! A short text that lies where it is used.
//!
//! A million names would be a million allocations beside what points to them, and
//! each look at one a memory access that nothing could foresee. Most names are
//! short: they are kept in place, and only longer ones are boxed.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// Longest text kept in place, in bytes: what makes a [`Text`] 40 bytes, and a topic's entry in the
/// registry a cache line.
const IN_PLACE_BYTES: usize = 38;

const _: () = assert!(size_of::<Option<Text>>() == 40);

/// A text that does not change.
#[derive(Clone)]
pub(super) enum Text {
    /// The first so many of the bytes; the others are zero.
    InPlace(u8, [u8; IN_PLACE_BYTES]),
    Boxed(Box<str>),
}

impl Text {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::InPlace(length, bytes) => &bytes[..usize::from(*length)],
            Self::Boxed(text) => text.as_bytes(),
        }
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        match self {
            Self::InPlace(..) => str::from_utf8(self.as_bytes()).expect("copied from a text"),
            Self::Boxed(text) => text,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut bytes = [0; IN_PLACE_BYTES];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text.as_bytes());
                Self::InPlace(length, bytes)
            }
            _ => Self::Boxed(text.into()),
        }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_ref().to_owned()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

/// As texts are ordered: by their bytes.
impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_ref(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_are_what_they_were_made_of() {
        let whole = "aäb".repeat(30);
        let ends = whole.char_indices().map(|(at, _)| at);
        let texts: Vec<&str> = ends.map(|end| &whole[..end]).collect();
        for (n, text) in texts.iter().enumerate() {
            let packed = Text::from(*text);
            let in_place = matches!(packed, Text::InPlace(..));
            assert_eq!(in_place, text.len() <= IN_PLACE_BYTES, "{text}");
            assert_eq!((packed.as_ref(), packed.clone()), (*text, packed.clone()));
            assert_eq!(String::from(packed.clone()), *text);
            for (m, other) in texts.iter().enumerate() {
                let other = Text::from((*other).to_owned());
                assert_eq!(packed.cmp(&other), n.cmp(&m));
            }
        }
    }
}
