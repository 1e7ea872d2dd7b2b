//! One function, walked with the types of its values as far as they are known. In: a body. Out: the fields that are read in it and the
//! methods that are called. It does not know which function it is in; [`super::calls`] is what calls, closures and macros come to.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Block, Expr, Member, Pat, Stmt};

use super::program::{Program, Source};
use super::types::{Name, Ty};

/// What is known of a value of which nothing is known.
pub(super) static UNKNOWN: Ty = Ty::Unknown;

/// Walks one function.
pub(super) struct Reader<'a> {
    pub(super) program: &'a Program,
    pub(super) source: &'a Source,
    pub(super) own: Option<&'a Name>,
    pub(super) scopes: Vec<BTreeMap<String, Ty>>,
    pub(super) found: BTreeSet<(Name, String)>,
    pub(super) called: BTreeSet<(Option<Name>, String)>,
}

impl Reader<'_> {
    pub(super) fn bind_name(&mut self, name: &str, ty: Ty) {
        self.scopes.last_mut().expect("a scope").insert(name.to_owned(), ty);
    }

    pub(super) fn look_up(&self, name: &str) -> Ty {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned().unwrap_or(Ty::Unknown)
    }

    pub(super) fn scoped<R>(&mut self, body: impl FnOnce(&mut Self) -> R) -> R {
        self.scopes.push(BTreeMap::new());
        let result = body(self);
        self.scopes.pop();
        result
    }

    /// Gives the names of a pattern their types; a field that a pattern names is read.
    pub(super) fn bind(&mut self, pattern: &Pat, ty: &Ty) {
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
    pub(super) fn of_pattern(&self, path: &syn::Path) -> Option<Name> {
        if let (Some(owner), Some(last)) = (self.of_outer(path), path.segments.last()) {
            let variant = owner.variant(&last.ident.to_string());
            if self.program.shape(&variant).is_some() {
                return Some(variant);
            }
        }
        self.program.of_path(self.source, self.own, path)
    }

    pub(super) fn block(&mut self, block: &Block) -> Ty {
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

    pub(super) fn all<'e>(&mut self, exprs: impl IntoIterator<Item = &'e Expr>) {
        for expr in exprs {
            self.expr(expr);
        }
    }

    /// Walks an expression; what its value is.
    pub(super) fn expr(&mut self, expr: &Expr) -> Ty {
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
    pub(super) fn path(&mut self, path: &syn::Path) -> Ty {
        if let Some(name) = path.get_ident() {
            return self.look_up(&name.to_string());
        }
        if let (Some(owner), Some(last)) = (self.of_outer(path), path.segments.last()) {
            self.called.insert((Some(owner), last.ident.to_string()));
        }
        Ty::Unknown
    }

    /// The type before a path's last part.
    pub(super) fn of_outer(&self, path: &syn::Path) -> Option<Name> {
        let count = path.segments.len();
        if count < 2 {
            return None;
        }
        let mut outer = path.clone();
        outer.segments = path.segments.iter().take(count - 1).cloned().collect();
        self.program.of_path(self.source, self.own, &outer)
    }

    /// Reads a field of a value.
    pub(super) fn member(&mut self, base: &Ty, member: &Member) -> Ty {
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
}
