//! C's layout of records, once: a field stands at a multiple of its alignment, a record ends at a
//! multiple of its largest. Padding is skipped when read and zero when written.

use zeroize::Zeroizing;

/// Something with a fixed place in a record.
pub(crate) trait Field: Sized {
    /// Octets, padding at the end included.
    const LEN: usize;
    /// What its place is a multiple of.
    const ALIGN: usize;

    /// Reads it, or nothing where octets are missing.
    fn read(reader: &mut Reader) -> Option<Self>;

    /// Appends it.
    fn write(&self, writer: &mut Writer);
}

/// The next multiple of `to`.
pub(crate) const fn aligned(at: usize, to: usize) -> usize {
    at.next_multiple_of(to)
}

/// Walks over the octets of one record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    octets: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Reader<'a> {
        Reader { octets, at: 0 }
    }

    /// The next `N` octets.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let octets = self.octets.get(self.at..)?.first_chunk().copied()?;
        self.at += N;
        Some(octets)
    }

    /// Skips padding, which may be missing at the end: whoever needs what follows finds out.
    pub(crate) fn align(&mut self, to: usize) {
        self.at = aligned(self.at, to);
    }
}

/// Octets of a message in the making. They may be secret: what growth leaves behind is wiped.
pub(crate) struct Writer {
    octets: Zeroizing<Vec<u8>>,
    /// Where the record began that is being written.
    base: usize,
}

impl Writer {
    pub(crate) fn new() -> Writer {
        Writer::with_capacity(512)
    }

    /// With room for so many octets, all of which are wiped in the end.
    pub(crate) fn with_capacity(room: usize) -> Writer {
        Writer { octets: Zeroizing::new(Vec::with_capacity(room)), base: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.octets.len()
    }

    pub(crate) fn finish(self) -> Zeroizing<Vec<u8>> {
        self.octets
    }

    /// Appends octets.
    pub(crate) fn put(&mut self, octets: &[u8]) {
        let needed = self.octets.len() + octets.len();
        if needed > self.octets.capacity() {
            // A vector that grows by itself leaves an unwiped copy behind.
            let mut grown = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.octets.len())));
            grown.extend_from_slice(&self.octets);
            self.octets = grown;
        }
        self.octets.extend_from_slice(octets);
    }

    /// Appends a whole record, whose padding counts from here.
    pub(crate) fn record<T: Field>(&mut self, record: &T) {
        let outer = std::mem::replace(&mut self.base, self.octets.len());
        record.write(self);
        self.base = outer;
    }

    /// Zeros up to the next multiple, counted from the record's beginning.
    pub(crate) fn align(&mut self, to: usize) {
        let at = self.octets.len() - self.base;
        let zeros = aligned(at, to) - at;
        self.put(&[0; 8][..zeros]);
    }

    /// Writes over four octets that are there already.
    pub(crate) fn patch<const N: usize>(&mut self, at: usize, octets: [u8; N]) {
        self.octets[at..at + N].copy_from_slice(&octets);
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Field for $number {
            const LEN: usize = size_of::<$number>();
            const ALIGN: usize = size_of::<$number>();

            fn read(reader: &mut Reader) -> Option<$number> {
                reader.align(Self::ALIGN);
                Some(<$number>::from_ne_bytes(reader.array()?))
            }

            fn write(&self, writer: &mut Writer) {
                writer.align(Self::ALIGN);
                writer.put(&self.to_ne_bytes());
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64 i32);

/// The value of an attribute that only is there.
impl Field for () {
    const LEN: usize = 0;
    const ALIGN: usize = 1;

    fn read(_: &mut Reader) -> Option<()> {
        Some(())
    }

    fn write(&self, _: &mut Writer) {}
}

/// The larger of two.
pub(crate) const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// A record: its fields in C's order, and its size, which is checked when this is compiled.
macro_rules! record {
    (
        $(#[$meta:meta])*
        pub struct $name:ident: $len:literal {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $name {
            /// Octets on the wire.
            pub const LEN: usize = $len;

            /// Reads the record that `octets` begin with, or nothing where they are too few.
            #[must_use]
            pub fn read(octets: &[u8]) -> Option<$name> {
                let octets = octets.get(..$len)?;
                $crate::octets::Field::read(&mut $crate::octets::Reader::new(octets))
            }
        }

        impl $crate::octets::Field for $name {
            const ALIGN: usize = {
                let align = 1;
                $(let align = $crate::octets::max(
                    align,
                    <$type as $crate::octets::Field>::ALIGN,
                );)*
                align
            };
            const LEN: usize = {
                let at = 0;
                $(let at = $crate::octets::aligned(
                    at,
                    <$type as $crate::octets::Field>::ALIGN,
                ) + <$type as $crate::octets::Field>::LEN;)*
                $crate::octets::aligned(at, <$name as $crate::octets::Field>::ALIGN)
            };

            fn read(reader: &mut $crate::octets::Reader) -> Option<$name> {
                reader.align(<$name as $crate::octets::Field>::ALIGN);
                let record = $name {
                    $($field: <$type as $crate::octets::Field>::read(reader)?,)*
                };
                reader.align(<$name as $crate::octets::Field>::ALIGN);
                Some(record)
            }

            fn write(&self, writer: &mut $crate::octets::Writer) {
                writer.align(<$name as $crate::octets::Field>::ALIGN);
                $($crate::octets::Field::write(&self.$field, writer);)*
                writer.align(<$name as $crate::octets::Field>::ALIGN);
            }
        }

        const _: () = assert!(<$name as $crate::octets::Field>::LEN == $len);
    };
}

/// A number with names for some of its values; all others pass as well.
macro_rules! code {
    (
        $(#[$meta:meta])*
        pub struct $name:ident($number:ty) {
            $($(#[$value_meta:meta])* $value:ident = $literal:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(
            /// The number.
            pub $number,
        );

        impl $name {
            $($(#[$value_meta])* pub const $value: $name = $name($literal);)*
        }

        impl $crate::octets::Field for $name {
            const LEN: usize = <$number as $crate::octets::Field>::LEN;
            const ALIGN: usize = <$number as $crate::octets::Field>::ALIGN;

            fn read(reader: &mut $crate::octets::Reader) -> Option<$name> {
                <$number as $crate::octets::Field>::read(reader).map($name)
            }

            fn write(&self, writer: &mut $crate::octets::Writer) {
                $crate::octets::Field::write(&self.0, writer);
            }
        }
    };
}

pub(crate) use code;
pub(crate) use record;

#[cfg(test)]
#[expect(unreachable_pub, reason = "records are public")]
mod tests {
    use super::*;

    record! {
        /// One field of every size.
        pub struct Mixed: 24 {
            /// At 0.
            pub small: u8,
            /// At 2.
            pub middle: u16,
            /// At 8.
            pub large: u64,
            /// At 16, with padding up to 24.
            pub last: u8,
        }
    }

    /// Fields stand where a C compiler puts them, and padding is zero.
    #[test]
    fn records_are_laid_out_as_in_c() {
        let mixed = Mixed { small: 1, middle: 0x0202, large: 0x0303_0303_0303_0303, last: 4 };
        let mut writer = Writer::new();
        writer.put(&[9; 4]);
        writer.record(&mixed);
        let octets = writer.finish();
        let expected = [1, 0, 2, 2, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3, 3, 3, 4, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(octets.len(), 4 + Mixed::LEN);
        assert_eq!(octets[4..], expected);
        assert_eq!(Mixed::read(&octets[4..]), Some(mixed));
        assert_eq!(Mixed::read(&octets[5..]), None);
    }

    /// Nothing is lost when the buffer grows several times.
    #[test]
    fn writers_grow() {
        let mut writer = Writer::new();
        for octet in 0..=255 {
            writer.put(&[octet; 20]);
        }
        let octets = writer.finish();
        assert_eq!(octets.len(), 256 * 20);
        assert!(octets.chunks(20).zip(0..=255).all(|(chunk, octet)| chunk == [octet; 20]));
    }
}
