//! What a table of the schema is made of. A table says what the reader asks for; it decides nothing.

/// One kind of object in a document.
#[derive(Debug)]
pub(super) struct Object {
    /// Its name among the schema's definitions.
    pub(super) title: &'static str,
    pub(super) about: &'static str,
    /// Whether it has a name, and may have its properties in an object of their own.
    pub(super) named: bool,
    pub(super) properties: &'static [Property],
    /// What stands under `holdfast` in it.
    pub(super) own: &'static [Property],
    /// Azure's words for it that change nothing here.
    pub(super) passed: &'static [&'static str],
}

/// One property of an object.
#[derive(Debug)]
pub(super) struct Property {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: Kind,
}

/// What a property's value is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// With what holds where it is absent.
    Flag(bool),
    Number {
        least: u64,
        most: u64,
        default: Option<u64>,
    },
    /// From 0 to 1.
    Share,
    Word {
        words: &'static [&'static str],
        default: Option<&'static str>,
    },
    /// A word of the reader's own lists.
    Name(fn() -> Vec<&'static str>),
    /// A list of such.
    Names(fn() -> Vec<&'static str>),
    Text(Option<&'static str>),
    Texts,
    /// `"200-399"`, or numbers.
    Statuses,
    /// To an entry of a collection.
    Reference(&'static str),
    References(&'static str),
    /// Refused wherever it stands.
    Absent,
    Object(&'static Object),
    List(&'static Object),
}

pub(super) const fn flag(name: &'static str, default: bool, about: &'static str) -> Property {
    Property { name, about, kind: Kind::Flag(default) }
}

pub(super) const fn number(
    name: &'static str,
    [least, most]: [u64; 2],
    default: Option<u64>,
    about: &'static str,
) -> Property {
    Property { name, about, kind: Kind::Number { least, most, default } }
}

pub(super) const fn word(
    name: &'static str,
    words: &'static [&'static str],
    default: Option<&'static str>,
    about: &'static str,
) -> Property {
    Property { name, about, kind: Kind::Word { words, default } }
}

pub(super) const fn text(name: &'static str, about: &'static str) -> Property {
    Property { name, about, kind: Kind::Text(None) }
}

pub(super) const fn texts(name: &'static str, about: &'static str) -> Property {
    Property { name, about, kind: Kind::Texts }
}

pub(super) const fn reference(
    name: &'static str,
    collection: &'static str,
    about: &'static str,
) -> Property {
    Property { name, about, kind: Kind::Reference(collection) }
}

pub(super) const fn object(
    name: &'static str,
    object: &'static Object,
    about: &'static str,
) -> Property {
    Property { name, about, kind: Kind::Object(object) }
}

pub(super) const fn list(
    name: &'static str,
    object: &'static Object,
    about: &'static str,
) -> Property {
    Property { name, about, kind: Kind::List(object) }
}
