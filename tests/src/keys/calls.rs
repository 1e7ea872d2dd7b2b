//! What calls, closures and macros hand on. In: an expression and the types around it. Out: the type of its value, and what is read on the
//! way.

use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::{Expr, Member, Token};

use super::reader::{Reader, UNKNOWN};
use super::types::{Ty, returned};

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

/// Log lines.
const LOGS: &[&str] = &["trace", "debug", "info", "warn", "error", "instrument", "event"];

impl Reader<'_> {
    pub(super) fn method(&mut self, call: &syn::ExprMethodCall) -> Ty {
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

    pub(super) fn call(&mut self, call: &syn::ExprCall) -> Ty {
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

    pub(super) fn closure(&mut self, closure: &syn::ExprClosure, given: &Ty) -> Ty {
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
    pub(super) fn macro_(&mut self, mac: &syn::Macro) -> Ty {
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

    pub(super) fn chains(&mut self, tokens: TokenStream) {
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
