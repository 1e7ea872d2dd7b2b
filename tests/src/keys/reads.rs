//! Which fields product code reads. In: a program. Out: pairs of a type and a field that some function reads.
//!
//! What a struct does to itself before anybody uses it is no use of it: its default, its check, its debug output, and whatever gathers
//! findings about settings. A log line is none either. A settings struct's own method counts only where somebody else calls it.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::{Block, Expr, FnArg, ImplItem, Item, Member, Pat, ReturnType, Signature, Stmt, Token};

use super::program::{Program, Source};
use super::types::{Name, Ty, returned};

/// Methods that hand on what they are called on, or what is in it.
const SAME: &[&str] = &[
    "clone",
    "as_ref",
    "as_mut",
    "as_deref",
    "as_slice",
    "as_str",
    "iter",
    "iter_mut",
    "into_iter",
    "unwrap",
    "expect",
    "unwrap_or",
    "cloned",
    "unwrap_or_default",
    "unwrap_or_else",
    "copied",
    "filter",
    "first",
    "last",
    "get",
    "get_mut",
    "lock",
    "read",
    "write",
    "borrow",
    "to_owned",
    "take",
    "ok",
    "ok_or",
    "ok_or_else",
    "or",
    "or_else",
    "next",
    "find",
    "rev",
    "skip",
    "context",
    "with_context",
    "map_err",
    "into_inner",
    "min_by_key",
    "max_by_key",
    "deref",
    "values",
    "chain",
    "as_deref_mut",
    "to_vec",
    "collect",
    "race",
    "await",
    "into",
];

/// Functions whose reads are a struct's own business.
const OWN: &[&str] = &["default", "check", "moved", "fmt", "deserialize", "serialize"];

/// What is known of a value of which nothing is known.
static UNKNOWN: Ty = Ty::Unknown;

/// Log lines.
const LOGS: &[&str] = &["trace", "debug", "info", "warn", "error", "instrument", "event"];

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

/// Walks one function.
struct Reader<'a> {
    program: &'a Program,
    source: &'a Source,
    own: Option<&'a Name>,
    scopes: Vec<BTreeMap<String, Ty>>,
    found: BTreeSet<(Name, String)>,
    called: BTreeSet<(Option<Name>, String)>,
}

impl Reader<'_> {
    fn bind_name(&mut self, name: &str, ty: Ty) {
        self.scopes.last_mut().expect("a scope").insert(name.to_owned(), ty);
    }

    fn look_up(&self, name: &str) -> Ty {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned().unwrap_or(Ty::Unknown)
    }

    fn scoped<R>(&mut self, body: impl FnOnce(&mut Self) -> R) -> R {
        self.scopes.push(BTreeMap::new());
        let result = body(self);
        self.scopes.pop();
        result
    }

    /// Gives the names of a pattern their types; a field that a pattern names is read.
    fn bind(&mut self, pattern: &Pat, ty: &Ty) {
        match pattern {
            Pat::Ident(ident) => {
                self.bind_name(&ident.ident.to_string(), ty.clone());
                if let Some((_, inner)) = &ident.subpat {
                    self.bind(inner, ty);
                }
            }
            Pat::Type(typed) => {
                let named = self.program.of_type(self.source, self.own, &typed.ty);
                self.bind(&typed.pat, if named == Ty::Unknown { ty } else { &named });
            }
            Pat::Reference(reference) => self.bind(&reference.pat, ty),
            Pat::Paren(paren) => self.bind(&paren.pat, ty),
            Pat::Or(or) => or.cases.iter().for_each(|case| self.bind(case, ty)),
            Pat::Slice(slice) => slice.elems.iter().for_each(|element| self.bind(element, ty)),
            Pat::Tuple(tuple) => {
                for (at, element) in tuple.elems.iter().enumerate() {
                    let part = match ty {
                        Ty::Tuple(parts) => parts.get(at).cloned().unwrap_or(Ty::Unknown),
                        _ => Ty::Unknown,
                    };
                    self.bind(element, &part);
                }
            }
            // `Some(x)`, `Ok(x)`, `Err(x)`: wrappers do not count.
            Pat::TupleStruct(tuple) => {
                let wraps = tuple.path.segments.last().is_some_and(|last| last.ident == "Some" || last.ident == "Ok");
                tuple.elems.iter().for_each(|element| self.bind(element, if wraps { ty } else { &UNKNOWN }));
            }
            Pat::Struct(parts) => {
                let owner = self.of_pattern(&parts.path);
                for field in &parts.fields {
                    let Member::Named(name) = &field.member else { continue };
                    let name = name.to_string();
                    let ignored = matches!(&*field.pat, Pat::Wild(_));
                    let ty = match &owner {
                        Some(owner) => {
                            if !ignored {
                                self.found.insert((owner.clone(), name.clone()));
                            }
                            self.program.field_of(owner, &name).cloned().unwrap_or(Ty::Unknown)
                        }
                        None => Ty::Unknown,
                    };
                    self.bind(&field.pat, &ty);
                }
            }
            _ => {}
        }
    }

    /// The struct, or the variant of an enum, that a pattern or literal names.
    fn of_pattern(&self, path: &syn::Path) -> Option<Name> {
        if let (Some(owner), Some(last)) = (self.of_outer(path), path.segments.last()) {
            let variant = owner.variant(&last.ident.to_string());
            if self.program.shape(&variant).is_some() {
                return Some(variant);
            }
        }
        self.program.of_path(self.source, self.own, path)
    }

    fn block(&mut self, block: &Block) -> Ty {
        self.scoped(|reader| {
            let mut last = Ty::Unknown;
            for statement in &block.stmts {
                last = match statement {
                    Stmt::Local(local) => {
                        let ty = local.init.as_ref().map_or(Ty::Unknown, |init| {
                            let ty = reader.expr(&init.expr);
                            if let Some((_, diverge)) = &init.diverge {
                                reader.expr(diverge);
                            }
                            ty
                        });
                        reader.bind(&local.pat, &ty);
                        Ty::Unknown
                    }
                    Stmt::Expr(expr, _) => reader.expr(expr),
                    Stmt::Macro(statement) => reader.macro_(&statement.mac),
                    Stmt::Item(_) => Ty::Unknown,
                };
            }
            last
        })
    }

    fn all<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) {
        for expr in exprs {
            self.expr(expr);
        }
    }

    /// Walks an expression; what its value is.
    fn expr(&mut self, expr: &Expr) -> Ty {
        match expr {
            Expr::Path(path) => self.path(&path.path),
            Expr::Field(field) => {
                let base = self.expr(&field.base);
                self.member(&base, &field.member)
            }
            Expr::MethodCall(call) => self.method(call),
            Expr::Call(call) => self.call(call),
            Expr::Reference(inner) => self.expr(&inner.expr),
            Expr::Unary(inner) => self.expr(&inner.expr),
            Expr::Paren(inner) => self.expr(&inner.expr),
            Expr::Group(inner) => self.expr(&inner.expr),
            Expr::Try(inner) => self.expr(&inner.expr),
            Expr::Await(inner) => self.expr(&inner.base),
            Expr::Cast(inner) => self.expr(&inner.expr),
            Expr::Block(inner) => self.block(&inner.block),
            Expr::Async(inner) => self.block(&inner.block),
            Expr::Unsafe(inner) => self.block(&inner.block),
            Expr::Const(inner) => self.block(&inner.block),
            Expr::Tuple(tuple) => Ty::Tuple(tuple.elems.iter().map(|element| self.expr(element)).collect()),
            Expr::Array(array) => array.elems.iter().map(|element| self.expr(element)).last().unwrap_or(Ty::Unknown),
            Expr::Closure(closure) => self.closure(closure, &Ty::Unknown),
            Expr::Struct(literal) => {
                self.all(literal.fields.iter().map(|field| &field.expr));
                if let Some(rest) = &literal.rest {
                    self.expr(rest);
                }
                self.of_pattern(&literal.path).map_or(Ty::Unknown, Ty::Named)
            }
            Expr::If(condition) => self.scoped(|reader| {
                reader.expr(&condition.cond);
                let ty = reader.block(&condition.then_branch);
                if let Some((_, other)) = &condition.else_branch {
                    reader.expr(other);
                }
                ty
            }),
            Expr::Let(condition) => {
                let ty = self.expr(&condition.expr);
                self.bind(&condition.pat, &ty);
                Ty::Unknown
            }
            Expr::Match(choice) => {
                let ty = self.expr(&choice.expr);
                let mut result = Ty::Unknown;
                for arm in &choice.arms {
                    let of_arm = self.scoped(|reader| {
                        reader.bind(&arm.pat, &ty);
                        if let Some((_, guard)) = &arm.guard {
                            reader.expr(guard);
                        }
                        reader.expr(&arm.body)
                    });
                    result = if of_arm == Ty::Unknown { result } else { of_arm };
                }
                result
            }
            Expr::ForLoop(each) => self.scoped(|reader| {
                let ty = reader.expr(&each.expr);
                reader.bind(&each.pat, &ty);
                reader.block(&each.body);
                Ty::Unknown
            }),
            Expr::While(each) => self.scoped(|reader| {
                reader.expr(&each.cond);
                reader.block(&each.body);
                Ty::Unknown
            }),
            Expr::Loop(each) => self.block(&each.body),
            Expr::Assign(assign) => {
                // What is written is not read; what leads there is.
                match &*assign.left {
                    Expr::Field(field) => drop(self.expr(&field.base)),
                    other => drop(self.expr(other)),
                }
                self.expr(&assign.right);
                Ty::Unknown
            }
            Expr::Binary(both) => {
                self.expr(&both.left);
                self.expr(&both.right);
                Ty::Unknown
            }
            Expr::Index(index) => {
                self.expr(&index.index);
                self.expr(&index.expr)
            }
            Expr::Range(range) => {
                self.all(range.start.as_deref().into_iter().chain(range.end.as_deref()));
                Ty::Unknown
            }
            Expr::Repeat(repeat) => self.expr(&repeat.expr),
            Expr::Return(end) => end.expr.as_ref().map_or(Ty::Unknown, |expr| self.expr(expr)),
            Expr::Break(end) => end.expr.as_ref().map_or(Ty::Unknown, |expr| self.expr(expr)),
            Expr::Macro(expr) => self.macro_(&expr.mac),
            _ => Ty::Unknown,
        }
    }

    /// A variable, or a method that is named and not called here.
    fn path(&mut self, path: &syn::Path) -> Ty {
        if let Some(name) = path.get_ident() {
            return self.look_up(&name.to_string());
        }
        if let (Some(owner), Some(last)) = (self.of_outer(path), path.segments.last()) {
            self.called.insert((Some(owner), last.ident.to_string()));
        }
        Ty::Unknown
    }

    /// The type before a path's last part.
    fn of_outer(&self, path: &syn::Path) -> Option<Name> {
        let count = path.segments.len();
        if count < 2 {
            return None;
        }
        let mut outer = path.clone();
        outer.segments = path.segments.iter().take(count - 1).cloned().collect();
        self.program.of_path(self.source, self.own, &outer)
    }

    /// Reads a field of a value.
    fn member(&mut self, base: &Ty, member: &Member) -> Ty {
        match (base, member) {
            (Ty::Tuple(parts), Member::Unnamed(at)) => parts.get(at.index as usize).cloned().unwrap_or(Ty::Unknown),
            (Ty::Named(owner), Member::Named(name)) => {
                let name = name.to_string();
                self.found.insert((owner.clone(), name.clone()));
                self.program.field_of(owner, &name).cloned().unwrap_or(Ty::Unknown)
            }
            _ => Ty::Unknown,
        }
    }

    fn method(&mut self, call: &syn::ExprMethodCall) -> Ty {
        let receiver = self.expr(&call.receiver);
        let name = call.method.to_string();
        let mut of_closure = Ty::Unknown;
        for argument in &call.args {
            match argument {
                // What a value's own method hands to a closure is what is in the value.
                Expr::Closure(closure) => of_closure = self.closure(closure, &receiver),
                other => drop(self.expr(other)),
            }
        }
        let owner = match &receiver {
            Ty::Named(owner) => Some(owner.clone()),
            _ => None,
        };
        self.called.insert((owner.clone(), name.clone()));
        if let Some(ty) = owner.and_then(|owner| self.program.method(&owner, &name)) {
            return ty.clone();
        }
        match name.as_str() {
            "map" | "and_then" | "map_or" | "map_or_else" | "flat_map" | "filter_map" | "find_map" | "then" => of_closure,
            name if SAME.contains(&name) => receiver,
            _ => Ty::Unknown,
        }
    }

    fn call(&mut self, call: &syn::ExprCall) -> Ty {
        let arguments: Vec<Ty> = call.args.iter().map(|argument| self.expr(argument)).collect();
        let Expr::Path(path) = &*call.func else { return self.expr(&call.func) };
        let segments = &path.path.segments;
        let last = segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
        if matches!(last.as_str(), "Some" | "Ok" | "new" | "from") && segments.len() <= 2 && arguments.len() == 1 {
            let wrapper = segments
                .first()
                .is_some_and(|first| ["Some", "Ok", "Arc", "Box", "Rc", "Mutex"].contains(&first.ident.to_string().as_str()));
            if wrapper {
                return arguments.into_iter().next().unwrap_or(Ty::Unknown);
            }
        }
        if let Some(owner) = self.of_outer(&path.path) {
            self.called.insert((Some(owner.clone()), last.clone()));
            return self.program.method(&owner, &last).cloned().unwrap_or(Ty::Named(owner));
        }
        match self.source.uses.resolve(&self.source.package, &path.path) {
            Some((package, name)) => self.program.function(&package, &name).cloned().unwrap_or(Ty::Unknown),
            None => Ty::Unknown,
        }
    }

    fn closure(&mut self, closure: &syn::ExprClosure, given: &Ty) -> Ty {
        self.scoped(|reader| {
            let of_last = closure.inputs.len().saturating_sub(1);
            for (at, input) in closure.inputs.iter().enumerate() {
                // Of several, as in a fold, the last is what comes from the value.
                reader.bind(input, if at == of_last { given } else { &UNKNOWN });
            }
            let ty = reader.expr(&closure.body);
            match returned(&closure.output) {
                Some(output) => reader.program.of_type(reader.source, reader.own, output),
                None => ty,
            }
        })
    }

    /// Of a macro the expressions between commas; where it has a language of its own, whatever looks like a chain of fields.
    fn macro_(&mut self, mac: &syn::Macro) -> Ty {
        let name = mac.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
        if LOGS.contains(&name.as_str()) {
            return Ty::Unknown;
        }
        if let Ok(exprs) = mac.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
            return exprs.iter().map(|expr| self.expr(expr)).last().filter(|_| name == "vec").unwrap_or(Ty::Unknown);
        }
        self.chains(mac.tokens.clone());
        Ty::Unknown
    }

    fn chains(&mut self, tokens: TokenStream) {
        let mut ty: Option<Ty> = None;
        let mut dot = false;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    ty = Some(match ty.take().filter(|_| dot) {
                        Some(base) => {
                            let name = ident.to_string();
                            let owner = match &base {
                                Ty::Named(owner) => Some(owner.clone()),
                                _ => None,
                            };
                            self.called.insert((owner.clone(), name.clone()));
                            match owner.and_then(|owner| self.program.method(&owner, &name)) {
                                Some(output) => output.clone(),
                                None => self.member(&base, &Member::Named(ident)),
                            }
                        }
                        None => self.look_up(&ident.to_string()),
                    });
                    dot = false;
                }
                TokenTree::Punct(punct) if punct.as_char() == '.' => dot = true,
                TokenTree::Group(group) => {
                    self.chains(group.stream());
                    dot = false;
                }
                _ => (ty, dot) = (None, false),
            }
        }
    }
}
