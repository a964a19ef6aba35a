//! What of the frozen surface no longer holds.

use crate::surface::Surface;

/// One line for each change that breaks a client of the frozen set.
pub(crate) fn broken(frozen: &Surface, now: &Surface) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, file) in &frozen.declared_in {
        match now.declared_in.get(name) {
            None => lines.push(format!("`{name}` is gone")),
            Some(other) if other != file => lines.push(format!("`{name}` moved from {file} to {other}")),
            Some(_) => {}
        }
    }
    for ((message, number), field) in &frozen.fields {
        let place = format!("`{message}` field {number} (`{}`)", field.name);
        match now.fields.get(&(message.clone(), *number)) {
            None if now.declared_in.contains_key(message) => lines.push(format!("{place} is gone")),
            None => {}
            Some(other) => {
                if other.name != field.name {
                    lines.push(format!("{place} is now called `{}`", other.name));
                }
                if other.json_name != field.json_name {
                    lines.push(format!("{place} has the JSON name `{}`, not `{}`", other.json_name, field.json_name));
                }
                if other.kind != field.kind {
                    lines.push(format!("{place} is now {}, was {}", other.kind, field.kind));
                }
                if other.oneof != field.oneof {
                    lines.push(format!("{place} is now in oneof {:?}, was in {:?}", other.oneof, field.oneof));
                }
            }
        }
    }
    for ((list, number), names) in &frozen.values {
        let other = now.values.get(&(list.clone(), *number));
        for name in names {
            if now.declared_in.contains_key(list) && !other.is_some_and(|other| other.contains(name)) {
                lines.push(format!("`{list}` value {number} (`{name}`) is gone or renamed to {other:?}"));
            }
        }
    }
    for (method, shape) in &frozen.methods {
        match now.methods.get(method) {
            None => lines.push(format!("the call `{method}` is gone")),
            Some(other) if other != shape => lines.push(format!("the call `{method}` is now {other}, was {shape}")),
            Some(_) => {}
        }
    }
    for (owner, reserved) in &frozen.reserved {
        let still = now.reserved.get(owner);
        for item in reserved {
            if now.declared_in.contains_key(owner) && !still.is_some_and(|still| still.contains(item)) {
                lines.push(format!("`{owner}` no longer reserves {item}"));
            }
        }
    }
    lines
}
