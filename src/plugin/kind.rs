//! The kinds that verbs are about, and how people write them.

use std::str::FromStr;

use crate::api::GROUP;

/// A kind that a verb is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Cell.
    Cell,
    /// An ActualLRP.
    ActualLRP,
    /// A Task.
    Task,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Cell, Kind::ActualLRP, Kind::Task];

    /// As the API has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Cell => "Cell",
            Kind::ActualLRP => "ActualLRP",
            Kind::Task => "Task",
        }
    }

    /// As it stands before the '/' in short.
    pub fn singular(self) -> &'static str {
        match self {
            Kind::Cell => "cell",
            Kind::ActualLRP => "actuallrp",
            Kind::Task => "task",
        }
    }

    /// The object's full name, which kubectl takes too.
    pub fn id(self, name: &str) -> String {
        format!("{}.{GROUP}/{name}", self.singular())
    }

    fn short(self) -> &'static str {
        match self {
            Kind::Cell => "dcell",
            Kind::ActualLRP => "alrp",
            Kind::Task => "dtask",
        }
    }

    /// Whether this word means the kind: singular, plural, short name, with the group or without.
    fn is_meant(self, word: &str) -> bool {
        let word = word.to_ascii_lowercase();
        let bare = match word.split_once('.') {
            Some((bare, group)) if group == GROUP => bare,
            Some(_) => return false,
            None => &word,
        };
        let singular = self.singular();
        bare == singular || bare.strip_suffix('s') == Some(singular) || bare == self.short()
    }

    /// The name in `NAME` or `KIND/NAME`.
    ///
    /// # Errors
    /// When it is of another kind.
    pub fn name_in(self, text: &str) -> Result<String, String> {
        let name = match text.split_once('/') {
            None => text,
            Some((kind, name)) if self.is_meant(kind) => name,
            Some(_) => "",
        };
        match valid(name) {
            true => Ok(name.to_owned()),
            false => Err(format!("write NAME or {}/NAME", self.singular())),
        }
    }
}

/// Whether an object may have this name: what is none would become a part of the URL.
fn valid(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (1..=253).contains(&name.len()) && name.bytes().all(letter) && !name.starts_with('.')
}

/// One object, as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl FromStr for Object {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || "write cell/NAME, actuallrp/NAME or task/NAME".to_owned();
        let (word, name) = text.split_once('/').ok_or_else(wrong)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.is_meant(word));
        match kind {
            Some(kind) if valid(name) => Ok(Object {
                kind,
                name: name.to_owned(),
            }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_kubectl_has_them() {
        for (text, kind) in [
            ("cell/a", Kind::Cell),
            ("Cells/a", Kind::Cell),
            ("dcell/a", Kind::Cell),
            ("cell.diego.cloudfoundry.org/a", Kind::Cell),
            ("alrp/a", Kind::ActualLRP),
            ("actuallrps/a", Kind::ActualLRP),
            ("tasks.diego.cloudfoundry.org/a", Kind::Task),
        ] {
            let object: Object = text.parse().expect(text);
            assert_eq!((object.kind, &*object.name), (kind, "a"), "{text}");
            assert_eq!(kind.name_in(text).as_deref(), Ok("a"));
        }
        for text in [
            "a",
            "pod/a",
            "task.tekton.dev/a",
            "cell/",
            "cell/a/b",
            "cell/../x",
        ] {
            assert!(text.parse::<Object>().is_err(), "{text}");
        }
        assert!(Kind::Cell.name_in("task/a").is_err());
    }
}
