//! Who may do what with a collection's records.

use serde::{Deserialize, Serialize};

/// Names of the rules on the wire, in the order of [`Rules::all`].
pub const NAMES: [&str; 7] =
    ["listRule", "viewRule", "createRule", "updateRule", "deleteRule", "authRule", "manageRule"];

/// Who may do what: `None` admins only, `Some("")` everyone, else a filter that must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rules {
    /// List records.
    pub list_rule: Option<String>,
    /// View one.
    pub view_rule: Option<String>,
    /// Create one.
    pub create_rule: Option<String>,
    /// Update one.
    pub update_rule: Option<String>,
    /// Delete one.
    pub delete_rule: Option<String>,
    /// Log in as one: of auth collections only.
    #[serde(skip_serializing)]
    pub auth_rule: Option<String>,
    /// Change all of one, its password too: of auth collections only.
    #[serde(skip_serializing)]
    pub manage_rule: Option<String>,
}

/// Rules that are to change, in the order of [`NAMES`]; the inner `None` is JSON's null.
pub type RuleChanges = [Option<Option<String>>; 7];

impl Rules {
    /// All of them, in the order of [`NAMES`].
    #[must_use]
    pub fn all(&self) -> [&Option<String>; 7] {
        let Self { list_rule, view_rule, create_rule, update_rule, delete_rule, auth_rule, manage_rule } = self;
        [list_rule, view_rule, create_rule, update_rule, delete_rule, auth_rule, manage_rule]
    }

    /// Takes what is to change.
    pub fn change(&mut self, wanted: &RuleChanges) {
        let Self { list_rule, view_rule, create_rule, update_rule, delete_rule, auth_rule, manage_rule } = self;
        let mine = [list_rule, view_rule, create_rule, update_rule, delete_rule, auth_rule, manage_rule];
        for (rule, wanted) in mine.into_iter().zip(wanted) {
            if let Some(wanted) = wanted {
                rule.clone_from(wanted);
            }
        }
    }
}
