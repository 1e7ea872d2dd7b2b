//! The sources of the workspace, parsed, with the types that they declare. In: files or texts, each of a crate. Out: structs with their
//! fields, and functions with what they return. Tests are no part of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::{Attribute, Expr, Fields, ImplItem, Item, Lit, Meta, Type};

use super::types::{Core, Name, Ty, Uses, core, returned};

/// A parsed file.
pub struct Source {
    /// The crate as Rust spells it.
    pub package: String,
    /// Where it lies, for messages and for what is left out.
    pub path: String,
    /// Its items, without tests.
    pub items: Vec<Item>,
    /// Where its names come from.
    pub uses: Uses,
}

/// A field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// In Rust.
    pub name: String,
    /// In settings.
    pub key: String,
    /// Its type.
    pub ty: Ty,
    /// Its documentation, on one line.
    pub docs: String,
    /// Whether settings cannot say it.
    pub skipped: bool,
}

/// A struct, or a variant of an enum.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Its named fields.
    pub fields: Vec<Field>,
    /// Whether it is read from settings.
    pub settings: bool,
}

/// All sources.
#[derive(Default)]
pub struct Program {
    /// Every file.
    pub sources: Vec<Source>,
    shapes: BTreeMap<Name, Shape>,
    by_name: BTreeMap<String, Vec<Name>>,
    methods: BTreeMap<(Name, String), Ty>,
    functions: BTreeMap<(String, String), Ty>,
}

impl Program {
    /// The product crates below a folder: everything but `tests`.
    ///
    /// # Panics
    /// When a file cannot be read or is no Rust.
    pub fn of_workspace(root: &Path) -> Self {
        Self::of(&texts(root))
    }

    /// Texts, each with its crate and its path.
    ///
    /// # Panics
    /// When a text is no Rust.
    pub fn of(texts: &[(String, String, String)]) -> Self {
        let mut program = Self::default();
        for (package, path, text) in texts {
            let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
            let mut items = Vec::new();
            flatten(file.items, &mut items);
            let mut uses = Uses::default();
            for item in &items {
                if let Item::Use(line) = item {
                    uses.add(package, &line.tree);
                }
            }
            program.sources.push(Source { package: package.clone(), path: path.clone(), items, uses });
        }
        program.declare();
        program
    }

    /// Names first, then what refers to them.
    fn declare(&mut self) {
        let sources = std::mem::take(&mut self.sources);
        for source in &sources {
            for (name, _, _) in declared(source) {
                self.by_name.entry(name.name.clone()).or_default().push(name.clone());
                self.shapes.entry(name).or_default();
            }
        }
        for source in &sources {
            for (name, fields, attributes) in declared(source) {
                let settings = derives(attributes, "Deserialize");
                let fields = named(fields).map(|field| self.field(source, field)).collect();
                let shape = self.shapes.entry(name).or_default();
                // Two of a name in one crate: their fields are taken together.
                let before = std::mem::replace(&mut shape.fields, fields);
                shape.fields.extend(before);
                shape.settings |= settings;
            }
            for item in &source.items {
                match item {
                    Item::Fn(function) => {
                        let ty = self.of_output(source, None, returned(&function.sig.output));
                        self.functions.insert((source.package.clone(), function.sig.ident.to_string()), ty);
                    }
                    Item::Impl(block) => {
                        let Ty::Named(own) = self.of_type(source, None, &block.self_ty) else { continue };
                        for item in &block.items {
                            if let ImplItem::Fn(method) = item {
                                let ty = self.of_output(source, Some(&own), returned(&method.sig.output));
                                self.methods.insert((own.clone(), method.sig.ident.to_string()), ty);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        self.sources = sources;
    }

    fn field(&self, source: &Source, field: &syn::Field) -> Field {
        let name = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
        let serde = attribute(&field.attrs, "serde");
        let key = serde.iter().find_map(|text| Some(text.split("rename = \"").nth(1)?.split('"').next()?.to_owned()));
        let skipped = serde.iter().any(|text| text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == "skip"));
        let ty = self.of_type(source, None, &field.ty);
        Field { key: key.unwrap_or_else(|| name.trim_start_matches("r#").to_owned()), name, ty, docs: docs(&field.attrs), skipped }
    }

    fn of_output(&self, source: &Source, own: Option<&Name>, output: Option<&Type>) -> Ty {
        output.map_or(Ty::Unknown, |ty| self.of_type(source, own, ty))
    }

    /// What a type of a file is; `own` is `Self`.
    pub fn of_type(&self, source: &Source, own: Option<&Name>, ty: &Type) -> Ty {
        match core(ty) {
            Core::Tuple(parts) => Ty::Tuple(parts.into_iter().map(|part| self.of_type(source, own, part)).collect()),
            Core::Path(path) => self.of_path(source, own, path).map_or(Ty::Unknown, Ty::Named),
            Core::Other => Ty::Unknown,
        }
    }

    /// The type that a path of a file names.
    pub fn of_path(&self, source: &Source, own: Option<&Name>, path: &syn::Path) -> Option<Name> {
        if path.is_ident("Self") {
            return own.cloned();
        }
        let (package, name) = source.uses.resolve(&source.package, path)?;
        let here = Name::new(&package, &name);
        if self.shapes.contains_key(&here) {
            return Some(here);
        }
        // A crate that hands on another's type.
        match self.by_name.get(&name).map(Vec::as_slice) {
            Some([only]) if package.starts_with("hypereyes") || self.sources.is_empty() => Some(only.clone()),
            _ => None,
        }
    }

    /// The fields of a type.
    pub fn shape(&self, name: &Name) -> Option<&Shape> {
        self.shapes.get(name)
    }

    /// Whether a type has keys: it, or variants of it, is read from settings and has fields.
    pub fn is_settings(&self, name: &Name) -> bool {
        let has = |name: &Name| self.shape(name).is_some_and(|shape| shape.settings && !shape.fields.is_empty());
        has(name) || self.variants(name).iter().any(has)
    }

    /// The variants with fields of an enum.
    pub fn variants(&self, name: &Name) -> Vec<Name> {
        let begins = format!("{}::", name.name);
        self.shapes.keys().filter(|other| other.package == name.package && other.name.starts_with(&begins)).cloned().collect()
    }

    /// The type of a field.
    pub fn field_of(&self, owner: &Name, field: &str) -> Option<&Ty> {
        self.shape(owner)?.fields.iter().find(|one| one.name == field).map(|one| &one.ty)
    }

    /// What a method returns.
    pub fn method(&self, owner: &Name, method: &str) -> Option<&Ty> {
        self.methods.get(&(owner.clone(), method.to_owned()))
    }

    /// What a function returns.
    pub fn function(&self, package: &str, name: &str) -> Option<&Ty> {
        self.functions.get(&(package.to_owned(), name.to_owned()))
    }
}

/// Folders of the product's packages: those of the workspace that are not for its tests.
///
/// # Panics
/// When the workspace's manifest cannot be read.
pub fn members(root: &Path) -> Vec<PathBuf> {
    let manifest: toml::Table = std::fs::read_to_string(root.join("Cargo.toml")).expect("a manifest").parse().expect("TOML");
    let named = manifest["workspace"]["members"].as_array().expect("a list").iter().map(|name| name.as_str().expect("a folder"));
    let mut members = Vec::new();
    for name in named.filter(|name| !Path::new(name).starts_with("tests")) {
        match name.strip_suffix("/*") {
            Some(around) => members.extend(std::fs::read_dir(root.join(around)).expect("a folder").flatten().map(|entry| entry.path())),
            None => members.push(root.join(name)),
        }
    }
    members.retain(|member| member.join("Cargo.toml").is_file());
    members.sort();
    members
}

/// Package, path and text of every product file.
///
/// # Panics
/// When a file cannot be read.
pub fn texts(root: &Path) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for member in members(root) {
        let manifest: toml::Table = std::fs::read_to_string(member.join("Cargo.toml")).expect("a manifest").parse().expect("TOML");
        let package = manifest["package"]["name"].as_str().expect("a name").replace('-', "_");
        let mut folders = vec![member.join("src")];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|end| end == "rs") && path.file_name().is_some_and(|name| name != "tests.rs") {
                    let text = std::fs::read_to_string(&path).expect("a text file");
                    found.push((package.clone(), path.strip_prefix(root).expect("below").display().to_string(), text));
                }
            }
        }
    }
    found
}

/// Items of a file and of its modules, without what is for tests.
fn flatten(items: Vec<Item>, into: &mut Vec<Item>) {
    for item in items {
        let attributes = match &item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => &vec![],
        };
        if attribute(attributes, "cfg").iter().any(|text| text == "test") {
            continue;
        }
        match item {
            Item::Mod(module) => flatten(module.content.map(|(_, items)| items).unwrap_or_default(), into),
            item => into.push(item),
        }
    }
}

/// Structs, and enums with their variants.
fn declared(source: &Source) -> Vec<(Name, Option<&Fields>, &[Attribute])> {
    let mut found: Vec<(Name, Option<&Fields>, &[Attribute])> = Vec::new();
    for item in &source.items {
        match item {
            Item::Struct(one) => found.push((Name::new(&source.package, &one.ident.to_string()), Some(&one.fields), &one.attrs)),
            Item::Enum(one) => {
                let name = Name::new(&source.package, &one.ident.to_string());
                for variant in one.variants.iter().filter(|variant| matches!(variant.fields, Fields::Named(_))) {
                    found.push((name.variant(&variant.ident.to_string()), Some(&variant.fields), &one.attrs));
                }
                found.push((name, None, &one.attrs));
            }
            _ => {}
        }
    }
    found
}

fn named(fields: Option<&Fields>) -> impl Iterator<Item = &syn::Field> {
    let named = match fields {
        Some(Fields::Named(fields)) => Some(&fields.named),
        _ => None,
    };
    named.into_iter().flatten()
}

/// What the attributes of a name hold, as text.
fn attribute(attributes: &[Attribute], name: &str) -> Vec<String> {
    let of = |attribute: &Attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident(name) => Some(list.tokens.to_string()),
        _ => None,
    };
    attributes.iter().filter_map(of).collect()
}

fn derives(attributes: &[Attribute], what: &str) -> bool {
    attribute(attributes, "derive").iter().any(|text| text.split(|c: char| !c.is_alphanumeric()).any(|word| word == what))
}

fn docs(attributes: &[Attribute]) -> String {
    let line = |attribute: &Attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    attributes.iter().filter_map(line).collect::<Vec<_>>().join(" ")
}
