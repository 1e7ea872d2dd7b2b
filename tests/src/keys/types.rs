//! Types as far as a reader of signatures knows them. In: types and paths of Rust. Out: the named type inside its wrappers, because who
//! reads a field of `Option<Arc<T>>` reads a field of `T`.

use std::collections::BTreeMap;
use std::fmt;

use syn::{GenericArgument, PathArguments, ReturnType, Type, UseTree};

/// A struct, an enum, or a variant with fields of one (`Enum::Variant`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The crate as Rust spells it.
    pub package: String,
    /// The type.
    pub name: String,
}

impl Name {
    /// A type of a crate.
    pub fn new(package: &str, name: &str) -> Self {
        Self { package: package.to_owned(), name: name.to_owned() }
    }

    /// A variant of an enum.
    pub fn variant(&self, variant: &str) -> Self {
        Self { package: self.package.clone(), name: format!("{}::{variant}", self.name) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.package, self.name)
    }
}

/// What is known of a value's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ty {
    /// A type of the workspace.
    Named(Name),
    /// Several values.
    Tuple(Vec<Ty>),
    /// Anything else.
    Unknown,
}

/// Types that hold others, of which the last counts.
const WRAPPERS: &[&str] = &[
    "Option",
    "Result",
    "Box",
    "Arc",
    "Rc",
    "Vec",
    "VecDeque",
    "Mutex",
    "RwLock",
    "Cow",
    "BTreeMap",
    "HashMap",
    "BTreeSet",
    "HashSet",
    "Cell",
    "RefCell",
    "OnceLock",
    "LazyLock",
    "MutexGuard",
    "Pin",
    "Weak",
];

/// Where the names of a file come from: its `use` lines.
#[derive(Clone, Debug, Default)]
pub struct Uses(BTreeMap<String, (String, String)>);

impl Uses {
    /// Takes in a `use` line of a crate.
    pub fn add(&mut self, package: &str, tree: &UseTree) {
        self.walk(package, package, true, tree);
    }

    fn walk(&mut self, own: &str, from: &str, first: bool, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                let name = path.ident.to_string();
                let from = match name.as_str() {
                    "crate" | "self" | "super" => own.to_owned(),
                    _ if first => self.0.get(&name).map_or(name.clone(), |(package, _)| package.clone()),
                    _ => from.to_owned(),
                };
                self.walk(own, &from, false, &path.tree);
            }
            UseTree::Name(name) => drop(self.0.insert(name.ident.to_string(), (from.to_owned(), name.ident.to_string()))),
            UseTree::Rename(rename) => drop(self.0.insert(rename.rename.to_string(), (from.to_owned(), rename.ident.to_string()))),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.walk(own, from, first, tree)),
            UseTree::Glob(_) => {}
        }
    }

    /// Crate and name that a path means in a file of `package`. A path to a variant means its enum's variant.
    pub fn resolve(&self, package: &str, path: &syn::Path) -> Option<(String, String)> {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let (last, before) = segments.split_last()?;
        match before.first() {
            None => Some(self.0.get(last).cloned().unwrap_or_else(|| (package.to_owned(), last.clone()))),
            Some(first) => {
                let from = match first.as_str() {
                    "crate" | "self" | "super" => package.to_owned(),
                    _ => match self.0.get(first) {
                        Some((from, _)) => from.clone(),
                        None if first.starts_with("hypereyes") => first.clone(),
                        None => package.to_owned(),
                    },
                };
                Some((from, last.clone()))
            }
        }
    }
}

/// The path inside a type's wrappers, or the parts of a tuple.
pub fn core(ty: &Type) -> Core<'_> {
    match ty {
        Type::Reference(reference) => core(&reference.elem),
        Type::Paren(paren) => core(&paren.elem),
        Type::Group(group) => core(&group.elem),
        Type::Slice(slice) => core(&slice.elem),
        Type::Array(array) => core(&array.elem),
        Type::Tuple(tuple) => Core::Tuple(tuple.elems.iter().collect()),
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else { return Core::Other };
            if !WRAPPERS.contains(&last.ident.to_string().as_str()) {
                return Core::Path(&path.path);
            }
            let PathArguments::AngleBracketed(arguments) = &last.arguments else { return Core::Other };
            let mut types = arguments.args.iter().filter_map(|argument| match argument {
                GenericArgument::Type(ty) => Some(ty),
                _ => None,
            });
            // Of a result what is right, of a map what it holds.
            let inner = if last.ident == "Result" { types.next() } else { types.last() };
            inner.map_or(Core::Other, core)
        }
        _ => Core::Other,
    }
}

/// A type without its wrappers.
pub enum Core<'a> {
    /// A named type.
    Path(&'a syn::Path),
    /// A tuple.
    Tuple(Vec<&'a Type>),
    /// Neither.
    Other,
}

/// The type that a function returns; nothing for none.
pub fn returned(output: &ReturnType) -> Option<&Type> {
    match output {
        ReturnType::Type(_, ty) => Some(ty),
        ReturnType::Default => None,
    }
}
