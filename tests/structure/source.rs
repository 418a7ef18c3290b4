//! Reads the sources of the library: what each file imports, and how long it is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, Item, ItemFn, ItemMod, ItemUse, UseTree, Visibility};

/// One file of the library.
#[derive(Debug, Default)]
pub struct File {
    /// The path from the root of the checkout.
    pub path: String,
    /// Its module, such as `stage::filter`; empty for lib.rs.
    pub module: String,
    /// Its imports from the library, such as `wire::lines::Line`, without those of its
    /// tests.
    pub imports: BTreeSet<String>,
    /// Its length without its unit tests, in lines.
    pub lines: usize,
    /// Its functions, without its tests.
    pub functions: Vec<Function>,
    /// Modules that it declares with `pub`.
    pub public_modules: Vec<String>,
    /// Public items without a doc comment.
    pub undocumented: Vec<String>,
    /// Whether it begins with a module comment.
    pub has_module_doc: bool,
}

/// One function.
#[derive(Debug)]
pub struct Function {
    pub name: String,
    /// The number of its first line, from 1.
    pub line: usize,
    /// The number of its lines, from its signature to its closing brace.
    pub lines: usize,
}

/// Reads all files of the library, except those that contain only tests.
pub fn read_sources() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    let mut files = Vec::new();
    read_folder(root, Path::new("src"), &mut files, &mut tests);
    files.retain(|file| !tests.iter().any(|test| file.module.starts_with(test)));
    assert!(files.len() > 50, "the sources were not found");
    files
}

fn read_folder(root: &Path, folder: &Path, files: &mut Vec<File>, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let name = entry.unwrap().file_name();
        let path = folder.join(name);
        if path == Path::new("src/bin") {
            continue;
        }
        if root.join(&path).is_dir() {
            read_folder(root, &path, files, tests);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(read_file(root, &path, tests));
        }
    }
}

fn read_file(root: &Path, path: &Path, tests: &mut BTreeSet<String>) -> File {
    let text = fs::read_to_string(root.join(path)).unwrap();
    let syntax = syn::parse_file(&text).unwrap();
    let module = path.with_extension("");
    let names: Vec<&str> = module
        .iter()
        .skip(1)
        .map(|it| it.to_str().unwrap())
        .collect();
    let names = match names.split_last() {
        Some((&"mod" | &"lib", parents)) => parents.to_vec(),
        _ => names,
    };
    let mut reader = Reader {
        file: File {
            path: path.display().to_string(),
            module: names.join("::"),
            lines: text.lines().count(),
            has_module_doc: text.starts_with("//!"),
            ..File::default()
        },
        tests,
    };
    reader.visit_file(&syntax);
    reader.file
}

struct Reader<'t> {
    file: File,
    /// Modules that contain only tests.
    tests: &'t mut BTreeSet<String>,
}

impl Reader<'_> {
    fn function(&mut self, signature: &syn::Signature, end: proc_macro2::Span) {
        let line = signature.span().start().line;
        self.file.functions.push(Function {
            name: signature.ident.to_string(),
            line,
            lines: end.end().line - line + 1,
        });
    }

    fn check_doc(&mut self, visibility: &Visibility, attributes: &[Attribute], name: String) {
        let is_public = matches!(visibility, Visibility::Public(_));
        if is_public && !attributes.iter().any(|it| it.path().is_ident("doc")) {
            self.file.undocumented.push(name);
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|condition| condition == "test")
    })
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if let Item::Fn(ItemFn { attrs, .. })
        | Item::Impl(syn::ItemImpl { attrs, .. })
        | Item::Use(ItemUse { attrs, .. }) = item
            && is_test(attrs)
        {
            return;
        }
        match item {
            Item::Struct(it) => self.check_doc(&it.vis, &it.attrs, it.ident.to_string()),
            Item::Enum(it) => self.check_doc(&it.vis, &it.attrs, it.ident.to_string()),
            Item::Trait(it) => self.check_doc(&it.vis, &it.attrs, it.ident.to_string()),
            Item::Const(it) => self.check_doc(&it.vis, &it.attrs, it.ident.to_string()),
            Item::Type(it) => self.check_doc(&it.vis, &it.attrs, it.ident.to_string()),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let name = item.ident.to_string();
        if is_test(&item.attrs) {
            match &item.content {
                Some((brace, _)) => {
                    let (first, last) = (item.span().start().line, brace.span.close().end().line);
                    self.file.lines -= last - first + 1;
                }
                None => {
                    let parent = &self.file.module;
                    self.tests.insert(match parent.is_empty() {
                        true => name,
                        false => format!("{parent}::{name}"),
                    });
                }
            }
            return;
        }
        if matches!(item.vis, Visibility::Public(_)) {
            self.file.public_modules.push(name);
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut paths = Vec::new();
        spell_out(&item.tree, String::new(), &mut paths);
        for path in paths {
            if let Some(path) = path.strip_prefix("crate::") {
                self.file.imports.insert(path.to_owned());
            } else if let Some(path) = path.strip_prefix("super::") {
                let parent = self.file.module.rsplit_once("::").map_or("", |it| it.0);
                self.file.imports.insert(format!("{parent}::{path}"));
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        // A path in the code is an import, too, even without `use`.
        let names: Vec<String> = path
            .segments
            .iter()
            .map(|it| it.ident.to_string())
            .collect();
        if let Some(("crate", rest)) = names.join("::").split_once("::") {
            self.file.imports.insert(rest.to_owned());
        }
        visit::visit_path(self, path);
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.check_doc(&item.vis, &item.attrs, item.sig.ident.to_string());
        self.function(&item.sig, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if is_test(&item.attrs) {
            return;
        }
        self.check_doc(&item.vis, &item.attrs, item.sig.ident.to_string());
        self.function(&item.sig, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if let Some(name) = &field.ident {
            self.check_doc(&field.vis, &field.attrs, name.to_string());
        }
        visit::visit_field(self, field);
    }
}

/// Appends every path of a `use` tree to `paths`.
fn spell_out(tree: &UseTree, before: String, paths: &mut Vec<String>) {
    let join = |name: String| match before.is_empty() {
        true => name,
        false => format!("{before}::{name}"),
    };
    match tree {
        UseTree::Path(path) => spell_out(&path.tree, join(path.ident.to_string()), paths),
        UseTree::Name(name) if name.ident == "self" => paths.push(before),
        UseTree::Name(name) => paths.push(join(name.ident.to_string())),
        UseTree::Rename(rename) => paths.push(join(rename.ident.to_string())),
        UseTree::Glob(_) => paths.push(before),
        UseTree::Group(group) => {
            for tree in &group.items {
                spell_out(tree, before.clone(), paths);
            }
        }
    }
}
