//! Many bugs in one program, of which the environment wakes one: they are built once, not each by itself.
//!
//! What a patch changes in the bodies of functions can be joined: such a body becomes a `match` over the bug that is awake,
//! with the original as its last arm. A patch that changes anything else (a constant, a type, a signature) is built alone.

use std::ops::Range;

use syn::{
    Block, ImplItemFn, ItemFn, ReturnType, Signature, TraitItemFn, Type,
    visit::{self, Visit},
};

/// The variable of the environment with the number of the bug that is awake.
pub(super) const AWAKE: &str = "SIDER_PLANTED_BUG";

/// The file of the copy that gets [`SWITCH`]; only bugs in its crate are joined.
pub(super) const ROOT: &str = "core/src/lib.rs";
/// Where files of that crate are.
pub(super) const CRATE: &str = "core/src/";

/// Which bug is awake; none is number 0.
pub(super) const SWITCH: &str = r#"
/// Which of the bugs that are planted in this copy is awake.
pub mod planted {
    /// Its number; 0 if all sleep.
    pub fn awake() -> u32 {
        static AWAKE: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        let read = || std::env::var("SIDER_PLANTED_BUG").ok()?.parse().ok();
        *AWAKE.get_or_init(|| read().unwrap_or(0))
    }
}
"#;

/// A file with bugs in it: the original, and what each bug makes of it.
#[derive(Debug)]
pub(super) struct File {
    original: Source,
    /// The bugs that change a body, with theirs, by the body's place.
    arms: Vec<Vec<(u32, String)>>,
}

impl File {
    /// # Errors
    /// It is no Rust.
    pub(super) fn new(original: String) -> Result<File, String> {
        let original = Source::parse(original)?;
        let arms = vec![Vec::new(); original.bodies.len()];
        Ok(File { original, arms })
    }

    /// What a bug changes, if it changes nothing but bodies that can become a `match`.
    pub(super) fn changes(&self, variant: String) -> Option<Changes> {
        let variant = Source::parse(variant).ok()?;
        if !self.original.outside().eq(variant.outside()) {
            return None;
        }
        let pairs = self.original.bodies.iter().zip(&variant.bodies).enumerate();
        let mut changes = Changes::default();
        for (place, (was, is)) in pairs {
            match variant.text_of(is) {
                same if same == self.original.text_of(was) => {}
                other if is.joins => changes.0.push((place, other.to_owned())),
                _ => return None,
            }
        }
        Some(changes)
    }

    pub(super) fn add(&mut self, bug: u32, changes: Changes) {
        for (place, body) in changes.0 {
            self.arms[place].push((bug, body));
        }
    }

    /// The text with all bugs in it.
    pub(super) fn joined(&self) -> String {
        let mut text = self.original.text.clone();
        // From the end, so that places before it stay.
        for (body, arms) in self.original.bodies.iter().zip(&self.arms).rev() {
            if arms.is_empty() {
                continue;
            }
            let was = self.original.text_of(body);
            let arm = |(bug, body): &(u32, String)| format!("{bug} => {body}\n");
            let arms: String = arms.iter().map(arm).collect();
            let joined = format!("{{ match crate::planted::awake() {{\n{arms}_ => {was}\n}} }}");
            text.replace_range(body.range.clone(), &joined);
        }
        text
    }
}

/// Bodies that a bug changes, by their place in the file.
#[derive(Debug, Default)]
pub(super) struct Changes(Vec<(usize, String)>);

/// A file's text, and where in it the bodies of functions are.
#[derive(Debug)]
struct Source {
    text: String,
    bodies: Vec<Body>,
}

#[derive(Debug)]
struct Body {
    range: Range<usize>,
    /// Whether it can become a `match`: not in a `const fn`, nor where each arm would have a type of its own.
    joins: bool,
}

impl Source {
    fn parse(text: String) -> Result<Source, String> {
        let file = syn::parse_file(&text).map_err(|error| error.to_string())?;
        let mut bodies = Bodies(Vec::new());
        bodies.visit_file(&file);
        Ok(Source {
            text,
            bodies: bodies.0,
        })
    }

    fn text_of(&self, body: &Body) -> &str {
        &self.text[body.range.clone()]
    }

    /// What is around the bodies.
    fn outside(&self) -> impl Iterator<Item = &str> {
        let begins = std::iter::once(0).chain(self.bodies.iter().map(|body| body.range.end));
        let ends = self.bodies.iter().map(|body| body.range.start);
        begins
            .zip(ends.chain([self.text.len()]))
            .map(|(begin, end)| &self.text[begin..end])
    }
}

/// Collects the outermost bodies of functions, in the order of the text.
struct Bodies(Vec<Body>);

impl Bodies {
    fn note(&mut self, signature: &Signature, block: &Block) {
        let braces = &block.brace_token.span;
        self.0.push(Body {
            range: braces.open().byte_range().start..braces.close().byte_range().end,
            joins: signature.constness.is_none() && !returns_opaque(signature),
        });
    }
}

impl<'ast> Visit<'ast> for Bodies {
    fn visit_item_fn(&mut self, it: &'ast ItemFn) {
        self.note(&it.sig, &it.block);
    }

    fn visit_impl_item_fn(&mut self, it: &'ast ImplItemFn) {
        self.note(&it.sig, &it.block);
    }

    fn visit_trait_item_fn(&mut self, it: &'ast TraitItemFn) {
        if let Some(block) = &it.default {
            self.note(&it.sig, block);
        }
    }
}

/// Whether `impl Trait` is in what a function returns.
fn returns_opaque(signature: &Signature) -> bool {
    struct Opaque(bool);
    impl<'ast> Visit<'ast> for Opaque {
        fn visit_type(&mut self, it: &'ast Type) {
            self.0 |= matches!(it, Type::ImplTrait(_));
            visit::visit_type(self, it);
        }
    }
    let mut opaque = Opaque(false);
    if let ReturnType::Type(_, returned) = &signature.output {
        opaque.visit_type(returned);
    }
    opaque.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = "use x::Y;\nconst N: u8 = 1;\nfn one() -> u8 { N }\nimpl Y {\n    async fn two(&self) { self.go(\"ü\") }\n}\n\
                            const fn three() -> u8 { 3 }\nfn four() -> impl Iterator<Item = u8> { 0..4 }\n";

    fn changes(from: &str, to: &str) -> Option<Changes> {
        let file = File::new(ORIGINAL.to_owned()).expect("it is Rust");
        assert!(ORIGINAL.contains(from), "{from}");
        file.changes(ORIGINAL.replace(from, to))
    }

    #[test]
    fn bodies_of_functions_become_a_match() {
        let mut file = File::new(ORIGINAL.to_owned()).expect("it is Rust");
        file.add(1, changes("{ N }", "{ 7 }").expect("a body"));
        file.add(2, changes("\"ü\"", "\"ö\"").expect("a body"));
        file.add(3, changes("self.go", "self.stop").expect("a body"));
        let expected = ORIGINAL
            .replace(
                "{ N }",
                "{ match crate::planted::awake() {\n1 => { 7 }\n_ => { N }\n} }",
            )
            .replace(
                "{ self.go(\"ü\") }",
                "{ match crate::planted::awake() {\n2 => { self.go(\"ö\") }\n3 => { self.stop(\"ü\") }\n\
                 _ => { self.go(\"ü\") }\n} }",
            );
        assert_eq!(file.joined(), expected);
    }

    #[test]
    fn what_is_not_only_in_bodies_is_built_alone() {
        assert!(changes("N: u8 = 1", "N: u8 = 2").is_none());
        assert!(changes("{ 3 }", "{ 4 }").is_none());
        assert!(changes("0..4", "0..5").is_none());
        assert!(changes("fn one", "#[inline]\nfn one").is_none());
        assert!(changes("{ N }", "{ N").is_none());
        assert!(File::new("fn".to_owned()).is_err());
    }

    #[test]
    fn the_switch_is_rust_and_reads_what_is_set() {
        assert!(syn::parse_file(SWITCH).is_ok());
        assert!(SWITCH.contains(AWAKE));
    }
}
