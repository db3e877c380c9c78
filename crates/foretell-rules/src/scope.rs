//! The variables that a condition may name.

use std::collections::BTreeMap;

/// The type of a variable, by CEL's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `bool`
    Bool,
    /// `int`, of 64 bits
    Int,
    /// `double`
    Double,
    /// `string`
    Text,
}

/// The number of a variable: 0 for the one declared first, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(usize);

impl Slot {
    /// The number.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// A declared variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// How a condition names it: `label`, `answers.age` or `probability["yes"]`.
    pub path: String,
    /// The type of its values.
    pub kind: Type,
    /// Whether it may be null.
    pub nullable: bool,
    /// The values that it can have; none if they are not known.
    pub values: Option<Vec<String>>,
}

/// The declared variables: plain ones, fields of records and entries of maps. The keys of a map are fixed.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    variables: Vec<Variable>,
    plain: BTreeMap<String, Slot>,
    groups: BTreeMap<String, Group>,
}

/// A record or a map.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) kind: GroupKind,
    /// What one of its members is called in messages.
    member_name: String,
    pub(crate) members: BTreeMap<String, Slot>,
}

/// Whether the members of a group are named or looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupKind {
    /// Fields: `record.name`.
    Record,
    /// Entries: `map["key"]`.
    Map,
}

impl Scope {
    /// Without variables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares the variable `name`, which is never null.
    ///
    /// # Panics
    ///
    /// If the name is declared already, as all these methods do.
    pub fn plain(&mut self, name: &str, kind: Type) -> Slot {
        let slot = self.declare(name.to_owned(), kind, false);
        let before = self.plain.insert(name.to_owned(), slot);
        assert!(before.is_none() && !self.groups.contains_key(name), "{name} is declared twice");
        slot
    }

    /// Declares the field `record.name`.
    ///
    /// # Panics
    ///
    /// If the field is declared already, or `record` as something else.
    pub fn field(&mut self, record: &str, name: &str, kind: Type, nullable: bool) -> Slot {
        let slot = self.declare(format!("{record}.{name}"), kind, nullable);
        self.insert(record, GroupKind::Record, name, slot);
        slot
    }

    /// Declares the entry `map["key"]`. All entries of a map have the same type, and none is null.
    ///
    /// # Panics
    ///
    /// If the entry is declared already, `map` as something else, or an entry with another type.
    pub fn entry(&mut self, map: &str, key: &str, kind: Type) -> Slot {
        let slot = self.declare(format!("{map}[{key:?}]"), kind, false);
        let group = self.insert(map, GroupKind::Map, key, slot);
        let first = group.members.values().next().copied();
        let first_kind = first.map_or(kind, |first| self.variables[first.0].kind);
        assert!(first_kind == kind, "entries of {map} have two types");
        slot
    }

    /// Sets what a member of the record or map `group` is in messages, with an article: `a question of the event schema`.
    pub fn describe(&mut self, group: &str, member_name: &str) {
        if let Some(group) = self.groups.get_mut(group) {
            group.member_name = member_name.to_owned();
        }
    }

    /// Sets the values that a text variable can have. A condition that compares it with another literal is refused.
    pub fn one_of(&mut self, slot: Slot, values: impl IntoIterator<Item = String>) {
        self.variables[slot.0].values = Some(values.into_iter().collect());
    }

    /// The variable of a slot.
    #[must_use]
    pub fn variable(&self, slot: Slot) -> &Variable {
        &self.variables[slot.0]
    }

    pub(crate) fn plain_slot(&self, name: &str) -> Option<Slot> {
        self.plain.get(name).copied()
    }

    pub(crate) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.get(name)
    }

    /// Says that `name` is not declared, with the nearest of the declared names and of `locals`.
    pub(crate) fn unknown_name<'s>(
        &'s self,
        name: &str,
        locals: impl Iterator<Item = &'s str>,
    ) -> String {
        let names = self.plain.keys().chain(self.groups.keys()).map(String::as_str);
        let names = names.chain(locals).chain(["true", "false", "null"]);
        let fields = self.groups.values().filter(|group| group.kind == GroupKind::Record);
        let fields = fields.flat_map(|group| &group.members);
        // `age` for `answers.age` is the more likely mistake, if there is such a field.
        let field = fields.clone().find(|(field, _)| *field == name);
        let path = |slot: &Slot| self.variables[slot.0].path.as_str();
        let found = field
            .map(|(_, slot)| path(slot))
            .or_else(|| nearest(name, names.map(|name| (name, name))))
            .or_else(|| nearest(name, fields.map(|(field, slot)| (field.as_str(), path(slot)))));
        match found {
            Some(found) => format!("there is no {name}; did you mean {found}?"),
            None => match &self.tops()[..] {
                [] => format!("there is no {name}"),
                names => format!("there is no {name}; {}", listed("there are", names)),
            },
        }
    }

    /// Says that the record or map `name` has no such member, with the nearest one.
    pub(crate) fn unknown_member(&self, name: &str, group: &Group, member: &str) -> String {
        let path = match group.kind {
            GroupKind::Record => format!("{name}.{member}"),
            GroupKind::Map => format!("{name}[{member:?}]"),
        };
        let members = group.members.iter();
        let members =
            members.map(|(key, slot)| (key.as_str(), self.variables[slot.0].path.as_str()));
        let problem = format!("{path} is not {}", group.member_name);
        match nearest(member, members.clone()) {
            Some(found) => format!("{problem}; did you mean {found}?"),
            None => {
                let paths: Vec<_> = members.map(|(_, path)| path).collect();
                format!("{problem}; {}", listed("there are", &paths))
            }
        }
    }

    fn tops(&self) -> Vec<&str> {
        self.plain.keys().chain(self.groups.keys()).map(String::as_str).collect()
    }

    fn declare(&mut self, path: String, kind: Type, nullable: bool) -> Slot {
        self.variables.push(Variable { path, kind, nullable, values: None });
        Slot(self.variables.len() - 1)
    }

    fn insert(&mut self, name: &str, kind: GroupKind, member: &str, slot: Slot) -> &Group {
        let member_name = match kind {
            GroupKind::Record => format!("a field of {name}"),
            GroupKind::Map => format!("a key of {name}"),
        };
        assert!(!self.plain.contains_key(name), "{name} is declared twice");
        let group = self.groups.entry(name.to_owned());
        let group = group.or_insert(Group { kind, member_name, members: BTreeMap::new() });
        let before = group.members.insert(member.to_owned(), slot);
        assert!(before.is_none() && group.kind == kind, "{name} {member} is declared twice");
        group
    }
}

/// Says that a text is not one of `values`, with the nearest one.
pub(crate) fn unknown_value(path: &str, value: &str, values: &[String]) -> String {
    let problem = format!("{path} is never {value:?}");
    match nearest(value, values.iter().map(|value| (value.as_str(), value.as_str()))) {
        Some(found) => format!("{problem}; did you mean {found:?}?"),
        None => {
            let shown: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
            format!("{problem}; {}", listed("it can be", &shown))
        }
    }
}

/// Of `names`, each paired with a result, the result of the most similar to `name`. At most a third of the letters, and at
/// least one, may differ; the case may.
pub(crate) fn nearest<'n>(
    name: &str,
    names: impl Iterator<Item = (&'n str, &'n str)>,
) -> Option<&'n str> {
    let most = (name.chars().count() / 3).max(1);
    let lower = name.to_lowercase();
    let distances =
        names.map(|(other, result)| (strsim::osa_distance(&lower, &other.to_lowercase()), result));
    distances.filter(|(distance, _)| *distance <= most).min().map(|(_, result)| result)
}

/// The first of `names` after `introduction`.
fn listed(introduction: &str, names: &[impl AsRef<str>]) -> String {
    const SHOWN_MAX: usize = 8;
    let shown: Vec<_> = names.iter().take(SHOWN_MAX).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(SHOWN_MAX);
    match more {
        0 => format!("{introduction} {}", shown.join(", ")),
        more => format!("{introduction} {} and {more} more", shown.join(", ")),
    }
}
