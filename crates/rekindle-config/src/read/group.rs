//! `[group]`: words for several components at once.

use std::collections::BTreeMap;
use std::ops::Range;

use rekindle_core::ComponentId;
use toml::de::DeValue;

use crate::model::Component;
use crate::section::Section;
use crate::value;

/// Every group. `None` when one of them is not usable.
pub(super) fn all(
    top: &Section<'_>,
    components: &[(Component, Range<usize>)],
) -> Option<BTreeMap<String, Vec<ComponentId>>> {
    let mut groups = BTreeMap::new();
    if top.span_of("group").is_none() {
        return Some(groups);
    }
    let (table, _) = top.raw_table("group")?;
    let ids: Vec<&ComponentId> = components.iter().map(|(component, _)| &component.id).collect();
    let mut usable = true;
    for (name, list) in table {
        let key = format!("group.{}", name.get_ref().escape_debug());
        let mut bad = |span: &Range<usize>, why: &str, hint: String| {
            top.bad(&key, span, why, hint);
            usable = false;
        };
        match name.get_ref().parse::<ComponentId>() {
            Err(wrong) => bad(&name.span(), wrong.rule, "rename the group".to_owned()),
            Ok(id) if ids.contains(&&id) => {
                let hint = "rename one of the two: on the command line the component would win".to_owned();
                bad(&name.span(), "a component has this name", hint);
            }
            Ok(_) => {}
        }
        let DeValue::Array(items) = list.get_ref() else {
            bad(
                &list.span(),
                "it must be a list of components",
                format!("write `{} = [\"…\"]`", name.get_ref().escape_debug()),
            );
            continue;
        };
        if items.is_empty() {
            bad(&list.span(), "the list is empty", "name at least one component, or remove the group".to_owned());
        }
        let mut members = Vec::new();
        for item in items {
            let found = item.get_ref().as_str().and_then(|text| ids.iter().find(|id| id.as_str() == text));
            let Some(id) = found else {
                let text = item.get_ref().as_str().unwrap_or_default();
                let near = value::nearest(text, ids.iter().map(|id| id.as_str()));
                let names: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
                let all = || format!("choose from: {}", names.join(", "));
                let hint = near.map_or_else(all, |near| format!("did you mean `{near}`?"));
                bad(&item.span(), &format!("`{}` is no component", text.escape_debug()), hint);
                continue;
            };
            members.push(ComponentId::clone(id));
        }
        groups.insert(name.get_ref().to_string(), members);
    }
    usable.then_some(groups)
}
