//! An array in a record, kept as Avro encodes it: a record is copied, stored and forwarded without decoding its items.

use std::{fmt, marker::PhantomData};

use foretell_avro::wire::{self, Cursor, Malformed};

/// The items of one array field.
pub trait Item: 'static {
    /// An item, borrowed.
    type Ref<'a>: Copy + fmt::Debug;

    /// Appends an item.
    fn write(item: Self::Ref<'_>, out: &mut Vec<u8>);

    /// Reads an item.
    ///
    /// # Errors
    /// [`Malformed`] if it is not one.
    fn read<'a>(cursor: &mut Cursor<'a>) -> Result<Self::Ref<'a>, Malformed>;
}

/// An encoded array.
pub struct Items<I> {
    bytes: Box<[u8]>,
    item: PhantomData<fn() -> I>,
}

/// Borrowed [`Items`].
pub struct ItemsRef<'a, I> {
    bytes: &'a [u8],
    item: PhantomData<fn() -> I>,
}

/// The encoding of an array without items.
const EMPTY: &[u8] = &[0];

impl<I: Item> Items<I> {
    /// Encodes items.
    pub fn of<'i>(items: impl ExactSizeIterator<Item = I::Ref<'i>>) -> Self {
        ItemsRef::encode(items, &mut Vec::new()).to_owned()
    }

    /// Borrows them.
    #[must_use]
    pub fn borrow(&self) -> ItemsRef<'_, I> {
        ItemsRef { bytes: &self.bytes, item: PhantomData }
    }

    /// Every item.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = I::Ref<'_>> {
        self.borrow().iter()
    }
}

impl<'a, I: Item> ItemsRef<'a, I> {
    /// Encodes items into `buffer`, in place of its contents.
    pub fn encode<'i>(
        items: impl ExactSizeIterator<Item = I::Ref<'i>>,
        buffer: &'a mut Vec<u8>,
    ) -> Self {
        buffer.clear();
        if items.len() > 0 {
            wire::write_count(items.len(), buffer);
            items.for_each(|item| I::write(item, buffer));
        }
        wire::write_count(0, buffer);
        Self { bytes: buffer, item: PhantomData }
    }

    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let before = cursor.rest();
        cursor.items(|cursor| I::read(cursor).map(drop))?;
        let length = before.len() - cursor.rest().len();
        Ok(Self { bytes: &before[..length], item: PhantomData })
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bytes);
    }

    /// A copy.
    #[must_use]
    pub fn to_owned(self) -> Items<I> {
        Items { bytes: self.bytes.into(), item: PhantomData }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.bytes == EMPTY
    }

    /// Every item.
    pub fn iter(self) -> impl ExactSizeIterator<Item = I::Ref<'a>> {
        let mut items = Vec::new();
        let read = Cursor::new(self.bytes).items(|cursor| {
            items.push(I::read(cursor)?);
            Ok(())
        });
        debug_assert!(read.is_ok(), "the bytes are checked when they are read");
        items.into_iter()
    }
}

impl<I> Default for Items<I> {
    fn default() -> Self {
        Self { bytes: EMPTY.into(), item: PhantomData }
    }
}

impl<I> Default for ItemsRef<'_, I> {
    fn default() -> Self {
        Self { bytes: EMPTY, item: PhantomData }
    }
}

impl<I> Clone for Items<I> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), item: PhantomData }
    }
}

impl<I> Clone for ItemsRef<'_, I> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I> Copy for ItemsRef<'_, I> {}

impl<I> PartialEq for Items<I> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<I> PartialEq for ItemsRef<'_, I> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl<I: Item> fmt::Debug for Items<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrow().fmt(f)
    }
}

impl<I: Item> fmt::Debug for ItemsRef<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
