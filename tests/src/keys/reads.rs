//! Which fields product code reads. In: a program. Out: pairs of a type and a field that some function reads.
//!
//! What a struct does to itself before anybody uses it is no use of it: its default, its check, its debug output, and whatever gathers
//! findings about settings. A log line is none either. A settings struct's own method counts only where somebody else calls it.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Block, FnArg, ImplItem, Item, ReturnType, Signature};

use super::program::{Program, Source};
use super::reader::Reader;
use super::types::{Name, Ty};

/// Functions whose reads are a struct's own business.
const OWN: &[&str] = &["default", "check", "moved", "fmt", "deserialize", "serialize"];

/// Fields that are read.
#[derive(Default)]
pub struct Reads {
    found: BTreeSet<(Name, String)>,
    /// Of settings structs' own methods: what they read, by type and method.
    kept: BTreeMap<(Name, String), BTreeSet<(Name, String)>>,
    /// Methods that are called, by type where it is known.
    called: BTreeSet<(Option<Name>, String)>,
}

impl Reads {
    /// Everything that a program reads.
    pub fn of(program: &Program) -> Self {
        let mut reads = Self::default();
        for source in program.sources.iter().filter(|source| !source.path.contains("hypereyes/src/check/")) {
            for item in &source.items {
                match item {
                    Item::Fn(function) => reads.function(program, source, None, &function.sig, &function.block),
                    Item::Impl(block) => {
                        let own = match program.of_type(source, None, &block.self_ty) {
                            Ty::Named(own) => Some(own),
                            _ => None,
                        };
                        for item in &block.items {
                            if let ImplItem::Fn(method) = item {
                                reads.function(program, source, own.as_ref(), &method.sig, &method.block);
                            }
                        }
                    }
                    Item::Trait(block) => {
                        for item in &block.items {
                            if let syn::TraitItem::Fn(method) = item
                                && let Some(body) = &method.default
                            {
                                reads.function(program, source, None, &method.sig, body);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        reads.settle();
        reads
    }

    /// Whether a field is read.
    pub fn has(&self, owner: &Name, field: &str) -> bool {
        self.found.contains(&(owner.clone(), field.to_owned()))
    }

    fn function(&mut self, program: &Program, source: &Source, own: Option<&Name>, signature: &Signature, body: &Block) {
        let name = signature.ident.to_string();
        if OWN.contains(&name.as_str()) || gathers_findings(signature) {
            return;
        }
        let mut reader = Reader { program, source, own, scopes: vec![BTreeMap::new()], found: BTreeSet::new(), called: BTreeSet::new() };
        for input in &signature.inputs {
            match input {
                FnArg::Receiver(_) => reader.bind_name("self", own.cloned().map_or(Ty::Unknown, Ty::Named)),
                FnArg::Typed(typed) => {
                    let ty = program.of_type(source, own, &typed.ty);
                    reader.bind(&typed.pat, &ty);
                }
            }
        }
        reader.block(body);
        let Reader { found, called, .. } = reader;
        match own.filter(|own| program.is_settings(own)) {
            Some(own) => {
                // A method that calls itself has not been called by anybody.
                let others = called.into_iter().filter(|(_, method)| *method != name);
                self.called.extend(others);
                self.kept.entry((own.clone(), name)).or_default().extend(found);
            }
            None => {
                self.found.extend(found);
                self.called.extend(called);
            }
        }
    }

    /// Takes in what the called ones of the settings structs' own methods read.
    fn settle(&mut self) {
        for ((own, method), found) in std::mem::take(&mut self.kept) {
            let called = [Some(own), None].into_iter().any(|own| self.called.contains(&(own, method.clone())));
            if called {
                self.found.extend(found);
            }
        }
    }
}

/// Whether a function only says what is wrong with settings.
fn gathers_findings(signature: &Signature) -> bool {
    let says = |ty: &syn::Type| quoted(ty).split(' ').any(|word| word == "Findings");
    let given = signature.inputs.iter().any(|input| match input {
        FnArg::Typed(typed) => matches!(&*typed.ty, syn::Type::Reference(it) if it.mutability.is_some()) && says(&typed.ty),
        FnArg::Receiver(_) => false,
    });
    given || matches!(&signature.output, ReturnType::Type(_, ty) if says(ty))
}

fn quoted(ty: &syn::Type) -> String {
    // As much of printing types as a search for a word needs.
    match ty {
        syn::Type::Reference(reference) => quoted(&reference.elem),
        syn::Type::Tuple(tuple) => tuple.elems.iter().map(quoted).collect::<Vec<_>>().join(" "),
        syn::Type::Path(path) => {
            let mut words = Vec::new();
            for segment in &path.path.segments {
                words.push(segment.ident.to_string());
                if let syn::PathArguments::AngleBracketed(arguments) = &segment.arguments {
                    for argument in &arguments.args {
                        if let syn::GenericArgument::Type(ty) = argument {
                            words.push(quoted(ty));
                        }
                    }
                }
            }
            words.join(" ")
        }
        _ => String::new(),
    }
}
