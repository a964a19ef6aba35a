//! Turns one Rust file into the paths that it names, each with its line.
//!
//! A path counts wherever it stands: in a `use`, in a type, in an expression,
//! or in the arguments of a macro (which `syn` leaves as tokens). Local names
//! are expanded through the file's `use` declarations, so that
//! `use std::time as t; t::Instant::now()` is seen for what it is.

use std::collections::HashMap;
use std::path::Path;

use syn::visit::{self, Visit};

/// A path with all local renames undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// `crate::db::connect` as `["crate", "db", "connect"]`.
    pub(crate) segments: Vec<String>,
    /// Where it stands, from 1.
    pub(crate) line: usize,
}

impl Named {
    /// The folder of this crate that it points into.
    pub(crate) fn folder(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [root, folder, ..] if root == "crate" => Some(folder),
            _ => None,
        }
    }

    /// Whether it lies at or below `prefix`, such as `std::fs`.
    pub(crate) fn is_below(&self, prefix: &str) -> bool {
        let mut own = self.segments.iter();
        prefix.split("::").all(|part| own.next().is_some_and(|segment| segment == part))
    }

    pub(crate) fn text(&self) -> String {
        self.segments.join("::")
    }
}

/// One parsed file of `src/`.
pub(crate) struct SourceFile {
    /// Path below `src/`, for messages.
    pub(crate) shown: String,
    /// The folder it belongs to; `lib` and `main` for the two roots.
    pub(crate) folder: String,
    /// Everything it names.
    pub(crate) named: Vec<Named>,
    /// Lines of `pub use` at the top level.
    pub(crate) re_exports: Vec<usize>,
}

impl SourceFile {
    /// Parses the file at `relative` (below `src/`).
    pub(crate) fn parse(relative: &Path, code: &str) -> syn::Result<Self> {
        let file = syn::parse_file(code)?;
        let module = module_path(relative);
        let folder = module.first().cloned().unwrap_or_else(|| stem(relative));
        let is_binary_root = relative == Path::new("main.rs");
        let mut aliases = Aliases { module: module.clone(), is_binary_root, names: HashMap::new() };
        aliases.visit_file(&file);
        let mut collector = Collector { aliases: &aliases, module, is_binary_root, named: Vec::new() };
        collector.visit_file(&file);
        let re_exports = file
            .items
            .iter()
            .filter_map(|item| match item {
                syn::Item::Use(item) if !matches!(item.vis, syn::Visibility::Inherited) => {
                    Some(item.use_token.span.start().line)
                }
                _ => None,
            })
            .collect();
        Ok(Self { shown: relative.display().to_string(), folder, named: collector.named, re_exports })
    }
}

/// `outbox/writer.rs` is the module `outbox::writer`, `outbox/mod.rs` is
/// `outbox`; the crate's roots are the empty path.
fn module_path(relative: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if matches!(parts.last().map(String::as_str), Some("mod"))
        || matches!(parts[..], [ref only] if only == "lib" || only == "main")
    {
        parts.pop();
    }
    parts
}

fn stem(relative: &Path) -> String {
    relative.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Makes `self::`, `super::` and (in `main.rs`) `claudemesh::` absolute.
fn absolute(segments: Vec<String>, module: &[String], is_binary_root: bool) -> Vec<String> {
    let mut own = module.to_vec();
    let mut rest = segments.into_iter().peekable();
    match rest.peek().map(String::as_str) {
        Some("self") => {
            rest.next();
        }
        Some("super") => {
            while rest.next_if(|segment| segment == "super").is_some() {
                own.pop();
            }
        }
        Some("claudemesh") if is_binary_root => {
            rest.next();
            own.clear();
        }
        _ => return rest.collect(),
    }
    std::iter::once("crate".to_owned()).chain(own).chain(rest).collect()
}

/// Every leaf of a `use` tree: the full path and the name it is bound to.
fn leaves(tree: &syn::UseTree, prefix: &[String], found: &mut Vec<(Vec<String>, Option<String>)>) {
    let with = |name: &syn::Ident| prefix.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>();
    match tree {
        syn::UseTree::Path(path) => leaves(&path.tree, &with(&path.ident), found),
        syn::UseTree::Group(group) => group.items.iter().for_each(|item| leaves(item, prefix, found)),
        syn::UseTree::Name(name) if name.ident == "self" => found.push((prefix.to_vec(), prefix.last().cloned())),
        syn::UseTree::Name(name) => found.push((with(&name.ident), Some(name.ident.to_string()))),
        syn::UseTree::Rename(rename) if rename.ident == "self" => {
            found.push((prefix.to_vec(), Some(rename.rename.to_string())));
        }
        syn::UseTree::Rename(rename) => found.push((with(&rename.ident), Some(rename.rename.to_string()))),
        syn::UseTree::Glob(_) => found.push((prefix.to_vec(), None)),
    }
}

struct Aliases {
    module: Vec<String>,
    is_binary_root: bool,
    names: HashMap<String, Vec<String>>,
}

impl<'ast> Visit<'ast> for Aliases {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut found = Vec::new();
        leaves(&item.tree, &[], &mut found);
        for (path, name) in found {
            if let Some(name) = name {
                self.names.insert(name, absolute(path, &self.module, self.is_binary_root));
            }
        }
    }
}

struct Collector<'a> {
    aliases: &'a Aliases,
    module: Vec<String>,
    is_binary_root: bool,
    named: Vec<Named>,
}

impl Collector<'_> {
    fn add(&mut self, segments: Vec<String>, line: usize) {
        let expanded = match self.aliases.names.get(&segments[0]) {
            Some(full) => full.iter().cloned().chain(segments.into_iter().skip(1)).collect(),
            None => absolute(segments, &self.module, self.is_binary_root),
        };
        if expanded.len() > 1 {
            self.named.push(Named { segments: expanded, line });
        }
    }

    /// Paths in the unparsed arguments of a macro: runs of `a :: b :: c`.
    fn add_tokens(&mut self, tokens: &str, line: usize) {
        let words: Vec<&str> = tokens.split_whitespace().collect();
        let mut at = 0;
        while at < words.len() {
            let mut path = vec![words[at].to_owned()];
            while words.get(at + 1) == Some(&"::") && words.get(at + 2).is_some_and(|word| is_name(word)) {
                path.push(words[at + 2].to_owned());
                at += 2;
            }
            if path.len() > 1 && is_name(&path[0]) {
                self.add(path, line);
            }
            at += 1;
        }
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_alphabetic() || first == '_')
        && word.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut found = Vec::new();
        leaves(&item.tree, &[], &mut found);
        let line = item.use_token.span.start().line;
        for (path, _) in found {
            let segments = absolute(path, &self.module, self.is_binary_root);
            self.named.push(Named { segments, line });
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first() {
            let line = first.ident.span().start().line;
            self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect(), line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let line = call.path.segments.first().map_or(0, |first| first.ident.span().start().line);
        self.add_tokens(&spaced(&call.tokens.to_string()), line);
        visit::visit_macro(self, call);
    }
}

/// Token text with every separator between blanks, whatever spacing the
/// printer chose.
fn spaced(tokens: &str) -> String {
    let mut text = tokens.replace("::", " :: ");
    for mark in ["(", ")", "{", "}", "[", "]", ",", ";", "&", "<", ">", "!", "?", ".", "=", "|"] {
        text = text.replace(mark, &format!(" {mark} "));
    }
    text
}
