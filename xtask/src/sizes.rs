//! Files stay at most 600 lines long and functions at most 70.

use std::path::Path;

use syn::spanned::Spanned;
use syn::visit::Visit;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Files and functions that are too long.
pub fn check(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for path in crate::sources(root) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", path.display()));
        }
        match syn::parse_file(&text) {
            Ok(file) => {
                let mut functions = Functions { long: Vec::new() };
                functions.visit_file(&file);
                found.extend(functions.long.into_iter().map(|long| format!("{}: {long}", path.display())));
            }
            Err(error) => found.push(format!("{}: does not parse: {error}", path.display())),
        }
    }
    found
}

struct Functions {
    long: Vec<String>,
}

impl Functions {
    fn look(&mut self, name: &syn::Ident, block: &syn::Block) {
        let span = block.span();
        let lines = span.end().line.saturating_sub(span.start().line) + 1;
        if lines > FUNCTION_LINES_MAX {
            self.long.push(format!("fn {name}: {lines} lines, at most {FUNCTION_LINES_MAX}"));
        }
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.look(&function.sig.ident, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.look(&function.sig.ident, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_function_is_found() {
        let body = "let x = 1;\n".repeat(FUNCTION_LINES_MAX);
        let file = syn::parse_file(&format!("fn short() {{}}\nfn long() {{\n{body}}}\n")).unwrap();
        let mut functions = Functions { long: Vec::new() };
        functions.visit_file(&file);
        assert_eq!(functions.long, [format!("fn long: {} lines, at most 70", FUNCTION_LINES_MAX + 2)]);
    }
}
