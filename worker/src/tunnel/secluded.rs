//! Places for values that hold keys: in memory that no core dump shows, overwritten as soon as a value is gone.
//!
//! Only the places are kept from dumps: a value that is put here has been on its maker's stack. Memory is taken a page at a
//! time, by the first value there, and given back with the last. No place may be read but one that is filled.
#![allow(unsafe_code, reason = "mmap, and values in it")]

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use zeroize::Zeroize as _;

/// What places are counted by. Where the machine's pages are longer, memory stays taken a little longer.
const PAGE: usize = 4096;

/// So many pages of places, each for one `T`. Only what a `T` holds itself is secluded, not what it points to.
pub(super) struct Secluded<T> {
    base: NonNull<u8>,
    /// For each page, a bit for each place that holds a value.
    filled: Box<[u8]>,
    values: PhantomData<T>,
}

// SAFETY: the mapping belongs to no thread, and is nobody else's.
unsafe impl<T: Send> Send for Secluded<T> {}

// === impl Secluded ===

impl<T> Secluded<T> {
    /// Places in a page: what fits, and what there are bits for.
    pub(super) const PER_PAGE: usize = {
        let fit = PAGE / size_of::<T>();
        if fit < u8::BITS as usize { fit } else { u8::BITS as usize }
    };

    pub(super) fn new(pages: usize) -> io::Result<Self> {
        const { assert!(Self::PER_PAGE > 0 && align_of::<T>() <= PAGE) };
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of anybody.
        let base = unsafe {
            mmap_anonymous(ptr::null_mut(), pages * PAGE, protection, MapFlags::PRIVATE)
        }?;
        let Some(address) = NonNull::new(base.cast::<u8>()) else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let this = Self { base: address, filled: vec![0; pages].into(), values: PhantomData };
        // SAFETY: the range is the mapping made above; the advice changes core dumps only.
        unsafe { madvise(base, pages * PAGE, Advice::LinuxDontDump) }?;
        Ok(this)
    }

    /// The value of a place.
    pub(super) fn get(&self, page: usize, place: usize) -> Option<&T> {
        if !self.is_filled(page, place) {
            return None;
        }
        // SAFETY: the place exists and holds a value, which changes through `&mut self` only.
        self.address(page, place).map(|address| unsafe { address.as_ref() })
    }

    /// Puts a value into a place, over what was there. False: there is no such place, and the value is dropped.
    pub(super) fn put(&mut self, page: usize, place: usize, value: T) -> bool {
        self.clear(page, place);
        let (Some(address), Some(filled)) = (self.address(page, place), self.filled.get_mut(page))
        else {
            return false;
        };
        // SAFETY: the place exists, is aligned, and holds no value.
        unsafe { address.write(value) };
        *filled |= 1 << place;
        true
    }

    /// Drops the value of a place, if there is one, and overwrites it.
    pub(super) fn clear(&mut self, page: usize, place: usize) {
        if !self.is_filled(page, place) {
            return;
        }
        let (Some(address), Some(filled)) = (self.address(page, place), self.filled.get_mut(page))
        else {
            return;
        };
        // First: should the value's drop panic, it is not dropped again.
        *filled &= !(1 << place);
        let is_last = *filled == 0;
        // SAFETY: the place holds a value, and from here on nobody takes it for one.
        let bytes = unsafe {
            address.drop_in_place();
            let bytes = address.cast::<MaybeUninit<u8>>();
            NonNull::slice_from_raw_parts(bytes, size_of::<T>()).as_mut()
        };
        bytes.zeroize();
        if is_last {
            self.give_back(page);
        }
    }

    fn is_filled(&self, page: usize, place: usize) -> bool {
        place < Self::PER_PAGE && self.filled.get(page).is_some_and(|bits| bits & 1 << place != 0)
    }

    /// Where a place is. None: there is no such place.
    fn address(&self, page: usize, place: usize) -> Option<NonNull<T>> {
        (page < self.filled.len() && place < Self::PER_PAGE).then(|| {
            // SAFETY: both are bounded, so the whole place is inside the mapping.
            unsafe { self.base.add(page * PAGE + place * size_of::<T>()) }.cast()
        })
    }

    /// Has the kernel take a page back in which no value is left.
    fn give_back(&self, page: usize) {
        if self.filled.get(page).is_none_or(|bits| *bits != 0) {
            return;
        }
        // SAFETY: the page is inside the mapping, and nothing in it is a value; it reads as zeroes afterwards.
        let outcome = unsafe {
            madvise(self.base.add(page * PAGE).as_ptr().cast(), PAGE, Advice::LinuxDontNeed)
        };
        // Where pages are longer the kernel refuses; the bytes are overwritten already.
        if let Err(error) = outcome {
            tracing::debug!(%error, "a page stays taken");
        }
    }
}

impl<T> Drop for Secluded<T> {
    fn drop(&mut self) {
        let pages = self.filled.len();
        for page in 0..pages {
            (0..Self::PER_PAGE).for_each(|place| self.clear(page, place));
        }
        // SAFETY: this is the mapping made in `new`, and all references into it borrow from `self`.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), pages * PAGE) } {
            tracing::error!(%error, "memory stays mapped");
        }
    }
}

impl<T> fmt::Debug for Secluded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secluded").field("pages", &self.filled.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::*;

    /// Four to a page, and told when it is dropped.
    struct Value {
        byte: [u8; 1000],
        _alive: Arc<()>,
    }

    fn value(byte: u8, alive: &Arc<()>) -> Value {
        Value { byte: [byte; 1000], _alive: Arc::clone(alive) }
    }

    /// Flags of the mapping that holds an address, and how much of it is resident, in KiB.
    fn of_mapping(address: usize) -> (String, u64) {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut here = false;
        let mut resident = 0;
        for line in smaps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            if let Some((from, to)) = range
                && let (Ok(from), Ok(to)) =
                    (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                here = (from..to).contains(&address);
            } else if let (true, Some(rest)) = (here, line.strip_prefix("Rss:")) {
                resident = rest.trim().trim_end_matches(" kB").parse().unwrap();
            } else if let (true, Some(flags)) = (here, line.strip_prefix("VmFlags:")) {
                return (flags.to_owned(), resident);
            }
        }
        (String::new(), resident)
    }

    #[test]
    fn a_value_stays_until_it_is_cleared_or_replaced() {
        let alive = Arc::new(());
        let mut places = Secluded::new(2).unwrap();
        assert_eq!(Secluded::<Value>::PER_PAGE, 4);
        for (page, place) in [(0, 0), (0, 3), (1, 2)] {
            assert!(places.put(page, place, value(1, &alive)));
        }
        assert!(places.put(0, 3, value(2, &alive)));
        assert_eq!(Arc::strong_count(&alive), 4);
        let byte = |places: &Secluded<Value>, page, place| {
            places.get(page, place).map(|value| value.byte.first().copied().unwrap())
        };
        assert_eq!(byte(&places, 0, 0), Some(1));
        assert_eq!(byte(&places, 0, 3), Some(2));
        assert_eq!(byte(&places, 1, 3), None);
        places.clear(0, 3);
        places.clear(0, 3);
        assert_eq!((byte(&places, 0, 3), byte(&places, 0, 0)), (None, Some(1)));
        assert_eq!(Arc::strong_count(&alive), 3);
        drop(places);
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn there_is_no_place_beyond_the_last() {
        let alive = Arc::new(());
        let mut places = Secluded::new(1).unwrap();
        assert!(!places.put(0, 4, value(1, &alive)));
        assert!(!places.put(1, 0, value(1, &alive)));
        places.clear(1, 0);
        assert!(places.get(0, 4).is_none() && places.get(1, 0).is_none());
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn what_is_cleared_is_overwritten_and_its_page_given_back_with_the_last() {
        let mut places = Secluded::<[u8; 1000]>::new(16).unwrap();
        assert!(places.put(3, 0, [7; 1000]) && places.put(3, 1, [8; 1000]));
        let address = places.address(3, 1).unwrap();
        let (flags, resident) = of_mapping(address.as_ptr() as usize);
        assert!(flags.contains(" dd"), "{flags}");
        assert!(resident >= 4);
        places.clear(3, 1);
        // SAFETY: the place is inside the mapping, and any bytes are a value of this type.
        assert_eq!(unsafe { address.read() }, [0; 1000]);
        assert_eq!(places.get(3, 0), Some(&[7; 1000]));
        // The read above has touched it.
        places.clear(3, 0);
        assert_eq!(of_mapping(address.as_ptr() as usize).1, 0);
    }
}
